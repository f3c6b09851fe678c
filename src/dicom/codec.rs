//! One compressed frame -> samples, by the decoders of dicom-rs. This is the code that hostile bytes may bring down, so it runs in a child process unless the
//! input is trusted.

use super::codestream::Codestream;
use dicom_core::value::C;
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::transfer_syntax::TransferSyntaxIndex as _;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A compressed frame of grey samples and what its decoder must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EncodedFrame<'a> {
    pub(super) transfer_syntax_uid: Cow<'a, str>,
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) bits_allocated: u16,
    pub(super) bits_stored: u16,
    pub(super) bytes: Cow<'a, [u8]>,
}

impl EncodedFrame<'_> {
    /// Bytes of the decoded samples.
    pub(super) fn decoded_bytes(&self) -> usize {
        usize::from(self.rows) * usize::from(self.columns) * usize::from(self.bits_allocated / 8)
    }

    /// Compares what the codestream says of its size with the header.
    pub(super) fn check(&self, codestream: &Codestream) -> Result<(), String> {
        let Codestream {
            rows,
            columns,
            components,
            precision,
            ..
        } = *codestream;
        if (rows, columns, components) != (u32::from(self.rows), u32::from(self.columns), 1) {
            return Err(format!(
                "the compressed image has {rows} rows, {columns} columns and {components} components, the header says {} rows and {} columns of one",
                self.rows, self.columns
            ));
        }
        if precision > self.bits_allocated {
            return Err(format!(
                "compressed samples of {precision} bits where {} are allocated",
                self.bits_allocated
            ));
        }
        Ok(())
    }
}

/// Decodes into little-endian samples of `bits_allocated` bits. May panic, abort or never end on hostile bytes, depending on the decoder.
pub(super) fn decode(frame: &EncodedFrame) -> Result<Vec<u8>, String> {
    let syntax = TransferSyntaxRegistry
        .get(&frame.transfer_syntax_uid)
        .ok_or("unknown transfer syntax")?;
    let reader = syntax
        .pixel_data_reader()
        .ok_or("no decoder for this transfer syntax")?;
    let expected = frame.decoded_bytes();
    let mut samples = Vec::new();
    reader
        .decode_frame(frame, 0, &mut samples)
        .map_err(|error| described(&error))?;
    // Decoders hand out the narrowest samples that hold the codestream's precision.
    if frame.bits_allocated == 16 && samples.len() * 2 == expected {
        samples = samples.into_iter().flat_map(|sample| [sample, 0]).collect();
    }
    if samples.len() != expected {
        return Err(format!(
            "{} bytes came out of the decoder where {expected} were due",
            samples.len()
        ));
    }
    Ok(samples)
}

/// [`decode`], with a panic of the decoder turned into an error.
pub(super) fn decode_caught(frame: &EncodedFrame) -> Result<Vec<u8>, String> {
    caught(|| decode(frame))
}

fn caught(decode: impl FnOnce() -> Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
    // Nothing that a panic could leave half-changed outlives the call.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err("the decoder failed on these bytes".into()))
}

/// An error and its causes in one line, without a backtrace.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A single frame in a single fragment, whatever the file looked like.
impl PixelDataObject for EncodedFrame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        &self.transfer_syntax_uid
    }

    fn rows(&self) -> Option<u16> {
        Some(self.rows)
    }

    fn cols(&self) -> Option<u16> {
        Some(self.columns)
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }

    fn bits_allocated(&self) -> Option<u16> {
        Some(self.bits_allocated)
    }

    fn bits_stored(&self) -> Option<u16> {
        Some(self.bits_stored)
    }

    fn photometric_interpretation(&self) -> Option<&str> {
        Some("MONOCHROME2")
    }

    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }

    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }

    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then(|| Cow::Borrowed(self.bytes.as_ref()))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData {
            fragments: C::from_vec(vec![self.bytes.to_vec()]),
            offset_table: C::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Where input is trusted the decoder runs in this process, and has no more than this between its panic and all other series.
    #[test]
    fn a_decoder_that_panics_costs_its_frame_and_nothing_else() {
        let refused = caught(|| {
            let none: &[u8] = &[];
            Ok(vec![none[std::hint::black_box(3)]])
        });
        assert_eq!(refused.unwrap_err(), "the decoder failed on these bytes");
        assert_eq!(caught(|| Ok(vec![1, 2])).unwrap(), [1, 2]);
    }
}
