//! To be written.
/// x
pub struct Report;
