//! Logs: to standard error, in colour on a terminal alone, UIDs at most.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Sends the log to standard error; `verbosity` 0 shows warnings, 1 information, 2 debugging. `HILUM_LOG` (the syntax of `RUST_LOG`) overrules it.
///
/// A second call in the same process changes nothing.
pub fn start(verbosity: u8) {
    let level = ["warn", "info", "debug"][usize::from(verbosity.min(2))];
    let filter =
        EnvFilter::try_from_env("HILUM_LOG").unwrap_or_else(|_| EnvFilter::new(format!("error,hilum={level}")));
    // An error here says that a subscriber is set already, as in tests: then that one is kept.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .try_init();
}
