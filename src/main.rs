//! The `hilum` program: parses nothing itself, see `hilum::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hilum::cli::main()
}
