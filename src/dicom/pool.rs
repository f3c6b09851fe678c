//! The decoder processes of a frame reader: started on demand, handed from thread to thread, ended at the time limit, replaced after a death.

use super::child::{Answer, DECODER_SUBCOMMAND, DecoderLimits, read_answer, write_request};
use super::codec::EncodedFrame;
use super::fault::PixelFault;
use std::collections::HashMap;
use std::io::{self, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The signal of RLIMIT_CPU.
const SIGXCPU: i32 = 24;

/// The decoder processes.
pub(super) struct Pool {
    program: PathBuf,
    limits: DecoderLimits,
    seconds_per_frame: f64,
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
    pub(super) fn new(program: PathBuf, limits: DecoderLimits, seconds_per_frame: f64, most: usize) -> Self {
        let watch = Watch::default();
        Self {
            program,
            limits,
            seconds_per_frame,
            most: most.max(1),
            state: Mutex::default(),
            returned: Condvar::new(),
            watch,
        }
    }

    /// Decodes a frame into `samples`, which has the size that is due.
    pub(super) fn decode(&self, frame: &EncodedFrame, samples: &mut [u8]) -> Result<(), PixelFault> {
        let mut decoder = self.take().map_err(PixelFault::Io)?;
        let deadline = Instant::now() + Duration::from_secs_f64(self.seconds_per_frame);
        self.watch.begin(decoder.number, deadline, &decoder.process);
        let answer =
            write_request(&mut decoder.requests, frame).and_then(|()| read_answer(&mut decoder.answers, samples));
        let ended_by_us = self.watch.end(decoder.number);
        match answer {
            Ok(answer) => {
                self.give_back((!ended_by_us).then_some(decoder));
                match answer {
                    Answer::Decoded => Ok(()),
                    Answer::Refused(why) => Err(PixelFault::Corrupt(why)),
                }
            }
            Err(error) => {
                let status = decoder.end();
                self.give_back(None);
                let signal = status.as_ref().ok().and_then(|status| status.signal());
                if ended_by_us || signal == Some(SIGXCPU) {
                    return Err(PixelFault::TimedOut {
                        seconds: self.seconds_per_frame,
                    });
                }
                Err(PixelFault::DecoderDied(match (signal, status) {
                    (Some(signal), _) => format!("signal {signal}"),
                    (None, Ok(status)) => format!("{status}; {error}"),
                    (None, Err(_)) => error.to_string(),
                }))
            }
        }
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

    /// Ends the process, if it has not ended itself, and waits for it.
    fn end(&self) -> io::Result<ExitStatus> {
        let mut process = lock(&self.process);
        // Gives the process that closed its pipes the moment to exit by itself, so that its own status is seen.
        for _ in 0..20 {
            if let Some(status) = process.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        process.kill()?;
        process.wait()
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
    /// Decoders at work: their deadline, and whether they were ended at it.
    at_work: HashMap<u64, (Instant, Arc<Mutex<Child>>, bool)>,
    stop: bool,
}

impl Watch {
    fn begin(&self, number: u64, deadline: Instant, process: &Arc<Mutex<Child>>) {
        lock(&self.shared.watched)
            .at_work
            .insert(number, (deadline, Arc::clone(process), false));
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
            .is_some_and(|(_, _, ended)| ended)
    }
}

impl Shared {
    fn watch(&self) {
        let mut watched = lock(&self.watched);
        while !watched.stop {
            let now = Instant::now();
            let mut next: Option<Instant> = None;
            for (deadline, process, ended) in watched.at_work.values_mut().filter(|(_, _, ended)| !ended) {
                if *deadline <= now {
                    *ended = lock(process).kill().is_ok();
                } else {
                    next = Some(next.map_or(*deadline, |next| next.min(*deadline)));
                }
            }
            watched = match next {
                Some(next) => {
                    self.changed
                        .wait_timeout(watched, next.saturating_duration_since(now))
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self.changed.wait(watched).unwrap_or_else(PoisonError::into_inner),
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
