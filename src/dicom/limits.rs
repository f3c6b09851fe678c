//! The bounds that hold before anything is allocated for bytes that came from elsewhere.

/// What a header may ask for at most. Every bound is checked before memory is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes before the pixel data, after inflating.
    pub header_bytes: usize,
    /// Sequences inside sequences.
    pub nesting: usize,
    /// Elements of one data set or item.
    pub elements: usize,
    /// Items of all sequences of one header together.
    pub items: usize,
    /// Frames of one instance.
    pub frames: usize,
    /// Rows x Columns.
    pub pixels_per_frame: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 << 20,
            nesting: 32,
            elements: 1 << 18,
            items: 1 << 20,
            frames: 1 << 16,
            pixels_per_frame: 1 << 26,
        }
    }
}
