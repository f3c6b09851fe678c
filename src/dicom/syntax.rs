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

/// What kind of decoder the pixels of a transfer syntax need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Samples as they are.
    Native,
    /// Decoded here.
    Rle,
    /// A JPEG of some kind: decoded by dicom-rs, in a child process.
    Compressed,
}

/// How pixels are coded; `None` where nothing here can decode them. JPEG extended with 12 bits (...4.51) is among those: no kept decoder in Rust has it.
pub(super) fn coding(uid: &str) -> Option<Coding> {
    match uid {
        IMPLICIT_LITTLE | EXPLICIT_LITTLE | EXPLICIT_BIG | DEFLATED => Some(Coding::Native),
        uids::RLE_LOSSLESS => Some(Coding::Rle),
        uids::JPEG_BASELINE8_BIT
        | uids::JPEG_LOSSLESS
        | uids::JPEG_LOSSLESS_SV1
        | uids::JPEGLS_LOSSLESS
        | uids::JPEGLS_NEAR_LOSSLESS
        | uids::JPEG2000_LOSSLESS
        | uids::JPEG2000
        | uids::HTJ2K_LOSSLESS
        | uids::HTJ2K_LOSSLESS_RPCL
        | uids::HTJ2K => Some(Coding::Compressed),
        _ => None,
    }
}

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

/// Whether frames in this transfer syntax can be read.
pub fn is_readable(uid: &str) -> bool {
    coding(uid).is_some()
}

/// The name of a transfer syntax in PS3.6, or "unknown".
pub fn name(uid: &str) -> String {
    TransferSyntaxRegistry
        .get(uid)
        .map_or_else(|| "unknown".to_owned(), |syntax| syntax.name().to_owned())
}
