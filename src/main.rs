//! The `hilum` program.

fn main() {}
