//! The `hilum` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == hilum::dicom::DECODER_SUBCOMMAND
    {
        // The parent reads why from the exit status; nobody reads words.
        return if hilum::dicom::run_decoder(rest).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    ExitCode::SUCCESS
}
