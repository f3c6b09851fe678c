//! The frames of a series as the slices of a stack.

use super::StoredFrames;
use crate::dicom::{FrameReader, Instance, PixelError};
use crate::series::Slice;

/// Reads slices by a [`FrameReader`] from the instances of their series.
#[derive(Clone, Copy)]
pub struct SeriesFrames<'a> {
    /// Decodes the frames.
    pub reader: &'a FrameReader,
    /// Those of the series that the stack was made of.
    pub instances: &'a [Instance],
}

impl StoredFrames for SeriesFrames<'_> {
    type Error = PixelError;

    fn read(&self, slice: &Slice, out: &mut Vec<i32>) -> Result<(), PixelError> {
        self.reader.read(&self.instances[slice.instance], slice.frame, out)
    }

    fn read_plus(&self, slice: &Slice, add: i32, out: &mut [i16]) -> Result<bool, PixelError> {
        self.reader
            .read_i16(&self.instances[slice.instance], slice.frame, out, add)
    }
}
