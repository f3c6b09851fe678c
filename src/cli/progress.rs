//! Progress of one series on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};

use crate::segment::{Observer, Stage};

/// Seconds between two plain lines of one stage.
const SECONDS_BETWEEN_LINES: u64 = 5;

/// Shows stages, windows done and the time left.
pub(super) struct Progress {
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
    Nothing,
}

struct Lines {
    name: String,
    windows_begun: Option<Instant>,
    last: Instant,
}

impl Progress {
    /// Progress under the name of a series; `quiet` shows nothing.
    pub(super) fn new(name: &str, quiet: bool) -> Self {
        let shown = if quiet {
            Shown::Nothing
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(0);
            bar.set_prefix(name.to_owned());
            bar.set_style(plain_style());
            bar.enable_steady_tick(Duration::from_millis(120));
            Shown::Bar(bar)
        } else {
            Shown::Lines(Mutex::new(Lines {
                name: name.to_owned(),
                windows_begun: None,
                last: Instant::now(),
            }))
        };
        Self { shown }
    }

    /// Takes the bar off the terminal.
    pub(super) fn end(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn plain_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix}  {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn window_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix}  {msg}  [{bar:30}] {pos}/{len}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Observer for Progress {
    fn stage(&self, stage: Stage) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_style(if stage == Stage::Windows {
                    window_style()
                } else {
                    plain_style()
                });
                bar.set_message(stage.title());
            }
            Shown::Lines(lines) => {
                if let Ok(lines) = lines.lock() {
                    tracing::info!("{}: {}", lines.name, stage.title());
                }
            }
            Shown::Nothing => {}
        }
    }

    #[expect(
        clippy::print_stderr,
        reason = "plain progress lines belong to the user, not to the log"
    )]
    fn windows(&self, done: usize, total: usize) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            }
            Shown::Lines(lines) => {
                let Ok(mut lines) = lines.lock() else { return };
                let begun = *lines.windows_begun.get_or_insert_with(Instant::now);
                if done > 0 && done < total && lines.last.elapsed().as_secs() >= SECONDS_BETWEEN_LINES {
                    lines.last = Instant::now();
                    let left = begun.elapsed().as_secs_f64() / done as f64 * (total - done) as f64;
                    eprintln!("{}: window {done} of {total}, about {left:.0} s left", lines.name);
                }
            }
            Shown::Nothing => {}
        }
    }
}
