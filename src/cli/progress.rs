//! Progress of one series on standard error: a bar on a terminal, plain lines elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use std::sync::Mutex;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

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
    ProgressStyle::with_template("{spinner} {prefix}  {msg}  [{bar:30}] {pos}/{len}  {left}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
            // Before the first window is done nothing is known of the time.
            if state.pos() > 0 {
                let _ = write!(out, "{:#} left", HumanDuration(state.eta()));
            }
        })
}

#[expect(
    clippy::print_stderr,
    reason = "plain progress lines belong to the user, not to the log"
)]
impl Observer for Progress {
    fn stage(&self, stage: Stage) {
        match &self.shown {
            Shown::Bar(bar) => {
                if stage == Stage::Windows {
                    // What was read and resampled before says nothing of the time that windows take.
                    bar.reset_eta();
                }
                bar.set_style(plain_style());
                bar.set_message(stage.title());
            }
            Shown::Lines(lines) => {
                if let Ok(lines) = lines.lock() {
                    eprintln!("{}: {}", lines.name, stage.title());
                }
            }
            Shown::Nothing => {}
        }
    }

    fn windows(&self, done: usize, total: usize) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                if done == 0 {
                    bar.set_style(window_style());
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_windows_and_not_of_the_stages_before() {
        let bar = ProgressBar::hidden();
        let progress = Progress {
            shown: Shown::Bar(bar.clone()),
        };
        progress.stage(Stage::Read);
        std::thread::sleep(Duration::from_millis(1500));
        let begun = Instant::now();
        progress.stage(Stage::Windows);
        progress.windows(0, 10);
        std::thread::sleep(Duration::from_millis(50));
        progress.windows(1, 10);
        let left = bar.eta();
        // Nine windows as long as the first; counted with the reading it would be 13.5 s more.
        assert!(left > Duration::ZERO, "no time left is told");
        assert!(left < 9 * begun.elapsed() + Duration::from_secs(5), "{left:?}");
    }
}
