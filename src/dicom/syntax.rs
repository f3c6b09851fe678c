//! Transfer syntaxes (PS3.5 section 10 and annex A): how a data set is written, and what kind of decoder its pixels need.

use super::walk::Encoding;
use dicom_core::VR;
use dicom_dictionary_std::uids;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex as _;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

pub(super) const IMPLICIT_LITTLE: &str = uids::IMPLICIT_VR_LITTLE_ENDIAN;
pub(super) const EXPLICIT_LITTLE: &str = uids::EXPLICIT_VR_LITTLE_ENDIAN;
pub(super) const EXPLICIT_BIG: &str = "1.2.840.10008.1.2.2";
pub(super) const DEFLATED: &str = uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;
pub(super) const RLE: &str = uids::RLE_LOSSLESS;

/// The encoding of a data set. What is written decides over what is declared where the two disagree in little endian: some archives rewrite one without the other.
pub(super) fn encoding_of(uid: &str, data_set: &[u8]) -> Encoding {
    match uid {
        EXPLICIT_BIG => Encoding::ExplicitBig,
        _ if looks_explicit(data_set) => Encoding::ExplicitLittle,
        _ if data_set.len() < 6 && uid != IMPLICIT_LITTLE => Encoding::ExplicitLittle,
        _ => Encoding::ImplicitLittle,
    }
}

/// The transfer syntax of a data set that does not name one.
pub(super) fn guess(data_set: &[u8]) -> &'static str {
    if looks_explicit(data_set) {
        EXPLICIT_LITTLE
    } else {
        IMPLICIT_LITTLE
    }
}

fn looks_explicit(data_set: &[u8]) -> bool {
    matches!(data_set, [_, _, _, _, a, b, ..] if VR::from_binary([*a, *b]).is_some())
}

/// The name of a transfer syntax in PS3.6, or "unknown".
pub(super) fn name(uid: &str) -> String {
    TransferSyntaxRegistry
        .get(uid)
        .map_or_else(|| "unknown".to_owned(), |syntax| syntax.name().to_owned())
}
