//! The decoder processes of a frame reader: started on demand, handed from thread to thread, replaced after a death.
//!
//! Whose fault a death is decides what becomes of the series: it is refused for good, or tried again. So the time that a frame may take is processor time, which the system measures
//! and which a machine that was paused or busy does not use up. By the clock there is a limit as well, for a decoder that hangs; who meets it has proven nothing.

use super::child::{Answer, DECODER_SUBCOMMAND, DecoderLimits, read_answer, write_request};
use super::codec::EncodedFrame;
use super::fault::PixelFault;
use rustix::process::Signal;
use std::collections::HashMap;
use std::io::{self, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The signal of RLIMIT_CPU.
const SIGXCPU: Signal = Signal::XCPU;
/// What a process gets for what it does itself: of a decoder, for what it does with its frame. All others come from outside: of the system where memory is short, of a person, of
/// us at the deadline. SIGBUS is among those: a file that is mapped could not be read.
const OWN_DOING: [Signal; 5] = [Signal::ILL, Signal::TRAP, Signal::ABORT, Signal::FPE, Signal::SEGV];
/// A frame may take so many times as long by the clock as it may take processor time: the machine may have more to do. A decoder past that hangs.
const CLOCK: u64 = 4;
/// The watch looks so often.
const LOOK: Duration = Duration::from_secs(1);

/// The decoder processes.
pub(super) struct Pool {
    program: PathBuf,
    limits: DecoderLimits,
    most: usize,
    state: Mutex<State>,
    returned: Condvar,
    watch: Watch,
}

#[derive(Default)]
struct State {
    idle: Vec<Decoder>,
    /// Idle ones and those at work.
    started: usize,
}

struct Decoder {
    number: u64,
    process: Arc<Mutex<Child>>,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Pool {
    pub(super) fn new(program: PathBuf, limits: DecoderLimits, most: usize) -> Self {
        let watch = Watch::default();
        Self {
            program,
            limits,
            most: most.max(1),
            state: Mutex::default(),
            returned: Condvar::new(),
            watch,
        }
    }

    /// Decodes a frame into `samples`, which has the size that is due.
    pub(super) fn decode(&self, frame: &EncodedFrame, samples: &mut [u8]) -> Result<(), PixelFault> {
        // The decoder would not take it, and that is not its fault.
        if frame.bytes.len() as u64 > self.limits.memory_bytes {
            return Err(PixelFault::Corrupt(format!(
                "{} bytes for one frame, more than the decoder's memory",
                frame.bytes.len()
            )));
        }
        let mut decoder = self.take().map_err(PixelFault::Io)?;
        let clock = CLOCK * (self.limits.cpu_seconds_per_frame + 1);
        self.watch
            .begin(decoder.number, Duration::from_secs(clock), &decoder.process);
        let answer =
            write_request(&mut decoder.requests, frame).and_then(|()| read_answer(&mut decoder.answers, samples));
        let ended_by_us = self.watch.end(decoder.number);
        match answer {
            Ok(Answer::Nonsense) => {
                drop(decoder);
                self.give_back(None);
                Err(PixelFault::DecoderDied("an answer that makes no sense".to_owned()))
            }
            Ok(answer) => {
                self.give_back((!ended_by_us).then_some(decoder));
                match answer {
                    Answer::Refused(why) => Err(PixelFault::Corrupt(why)),
                    _ => Ok(()),
                }
            }
            Err(error) => {
                let (ended, by_itself) = decoder.end();
                self.give_back(None);
                Err(self.fault(&ended, ended_by_us.then_some(clock), by_itself, &error))
            }
        }
    }

    /// What the end of a decoder says. `clock` is the limit in seconds at which we ended it, if we did; `by_itself`: not at our hands afterwards.
    fn fault(
        &self,
        ended: &io::Result<ExitStatus>,
        clock: Option<u64>,
        by_itself: bool,
        error: &io::Error,
    ) -> PixelFault {
        let signal = ended.as_ref().ok().and_then(ExitStatus::signal);
        let is = |one: Signal| signal == Some(one.as_raw());
        if is(SIGXCPU) {
            return PixelFault::TimedOut {
                seconds: self.limits.cpu_seconds_per_frame,
            };
        }
        if let Some(signal) = signal.filter(|_| OWN_DOING.into_iter().any(is)) {
            return PixelFault::DecoderDied(format!("signal {signal}"));
        }
        PixelFault::DecoderLost(match (clock, signal, ended) {
            (Some(clock), _, _) => format!(
                "it gave no answer within {clock} s and used little processor time; the machine was paused or too busy, try again"
            ),
            (None, Some(signal), _) if by_itself => format!(
                "it was ended from outside (signal {signal}), as the system does where memory is short; free some and try again"
            ),
            (None, None, Ok(status)) => format!("it ended without an answer ({status}; {error}); try again"),
            _ => format!("{error}; try again"),
        })
    }

    /// An idle decoder, a new one while there are fewer than the most, or the next that comes back.
    fn take(&self) -> io::Result<Decoder> {
        let mut state = lock(&self.state);
        loop {
            while let Some(decoder) = state.idle.pop() {
                if decoder.lives() {
                    return Ok(decoder);
                }
                state.started -= 1;
            }
            if state.started < self.most {
                state.started += 1;
                drop(state);
                return self.start().inspect_err(|_| self.give_back(None));
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, decoder: Option<Decoder>) {
        let mut state = lock(&self.state);
        match decoder {
            Some(decoder) => state.idle.push(decoder),
            None => state.started -= 1,
        }
        self.returned.notify_one();
    }

    fn start(&self) -> io::Result<Decoder> {
        let mut process = Command::new(&self.program)
            .arg(DECODER_SUBCOMMAND)
            .args(self.limits.arguments())
            .env_clear()
            // A Ctrl-C at the terminal is for us to answer: a decoder that it ended would look like one that its input broke.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("starting the decoder {}: {error}", self.program.display()),
                )
            })?;
        let (Some(requests), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::other("a decoder without pipes"));
        };
        let number = u64::from(process.id());
        Ok(Decoder {
            number,
            process: Arc::new(Mutex::new(process)),
            requests,
            answers: BufReader::with_capacity(1 << 16, answers),
        })
    }
}

impl Decoder {
    fn lives(&self) -> bool {
        matches!(lock(&self.process).try_wait(), Ok(None))
    }

    /// Ends the process, if it has not ended itself, and waits for it. With whether it had.
    fn end(&self) -> (io::Result<ExitStatus>, bool) {
        let mut process = lock(&self.process);
        // Gives the process that closed its pipes the moment to exit by itself, so that its own status is seen. A busy machine, or one that collects a large process, takes longer.
        for _ in 0..500 {
            match process.try_wait() {
                Ok(Some(status)) => return (Ok(status), true),
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => return (Err(error), false),
            }
        }
        (process.kill().and_then(|()| process.wait()), false)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let mut process = lock(&self.process);
        // An error here means that it is already gone.
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Ends decoders that are past their time.
#[derive(Default)]
struct Watch {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<Watched>,
    changed: Condvar,
}

#[derive(Default)]
struct Watched {
    /// Decoders at work, by their numbers.
    at_work: HashMap<u64, AtWork>,
    stop: bool,
}

struct AtWork {
    process: Arc<Mutex<Child>>,
    /// For how long it may be at work.
    most: Duration,
    /// When that ends, from the watch's first look at it on: what stood still before then is not counted.
    deadline: Option<Instant>,
    /// Whether it was ended at its deadline.
    ended: bool,
}

impl Watch {
    fn begin(&self, number: u64, most: Duration, process: &Arc<Mutex<Child>>) {
        let at_work = AtWork {
            process: Arc::clone(process),
            most,
            deadline: None,
            ended: false,
        };
        lock(&self.shared.watched).at_work.insert(number, at_work);
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            *thread = Some(std::thread::spawn(move || shared.watch()));
        }
        drop(thread);
        self.shared.changed.notify_one();
    }

    /// Whether the decoder was ended at its deadline.
    fn end(&self, number: u64) -> bool {
        lock(&self.shared.watched)
            .at_work
            .remove(&number)
            .is_some_and(|decoder| decoder.ended)
    }
}

impl Shared {
    fn watch(&self) {
        let mut watched = lock(&self.watched);
        // When the watch wanted to look again.
        let mut due: Option<Instant> = None;
        while !watched.stop {
            let now = Instant::now();
            // Where the watch overslept, all of this program stood still, and the decoders with it.
            let late = due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
            for decoder in watched.at_work.values_mut().filter(|decoder| !decoder.ended) {
                let deadline = decoder.deadline.get_or_insert(now + decoder.most);
                if late > LOOK {
                    *deadline += late;
                }
                if *deadline <= now {
                    decoder.ended = lock(&decoder.process).kill().is_ok();
                }
            }
            let looks = watched.at_work.values().any(|decoder| !decoder.ended);
            due = looks.then(|| now + LOOK);
            watched = if looks {
                let woken = self.changed.wait_timeout(watched, LOOK);
                woken.unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.changed.wait(watched).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.shared.watched).stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the watching thread ends with it.
            let _ = thread.join();
        }
    }
}

/// No lock here is held over code that can leave its data half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
