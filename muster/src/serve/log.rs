//! The log. Whoever takes it (a pipe, a pager, a log driver, a disk) may be slow or stand still, and no thread that
//! serves waits for that: lines go into a buffer of bounded size, a thread of its own writes them to standard error,
//! and lines that found no room are counted and spoken of where they are missing.
//!
//! `tracing-appender` does much of this, but it is bounded in lines instead of bytes, never says what it left out, and
//! at the end of a log that stands still prints to standard output, which may well be the same pipe.

use anyhow::Context as _;
use std::{
    fs::File,
    io,
    os::fd::AsFd as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tracing_subscriber::{EnvFilter, fmt};

/// How much waits for the thread that writes. As much again is with that thread.
const ROOM_BYTES: usize = 1024 * 1024;
/// How long an orderly end waits for what is left to be taken.
const END_LIMIT: Duration = Duration::from_secs(2);

/// The log, running.
pub(super) struct Log {
    lines: Lines,
    end_limit: Duration,
    /// Whether everything was taken, once it has ended.
    taken: Option<bool>,
}

/// Where threads put their lines. It never blocks.
#[derive(Clone)]
struct Lines {
    shared: Arc<Shared>,
    room: usize,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something waits, or the end has come.
    come: Condvar,
    /// The thread that writes has gone.
    gone: Condvar,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Lines that found no room, all of them after `bytes`.
    left_out: u64,
    ending: bool,
    /// All was handed on, and the thread has gone.
    over: bool,
}

impl Log {
    /// Sends what is traced to standard error; `MUSTER_LOG` chooses what (default `info`).
    pub(super) fn start() -> anyhow::Result<Self> {
        // A descriptor of its own: the lock of the standard library's is for what a panic or a fatal error has to say.
        let error = io::stderr().as_fd().try_clone_to_owned();
        let out = File::from(error.context("open standard error for the log")?);
        let log = Log::to(out, ROOM_BYTES, END_LIMIT).context("start the thread of the log")?;
        let filter =
            EnvFilter::try_from_env("MUSTER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        let lines = log.lines.clone();
        fmt()
            .with_env_filter(filter)
            .with_writer(move || lines.clone())
            .with_ansi(false)
            .init();
        Ok(log)
    }

    fn to(
        out: impl io::Write + Send + 'static,
        room: usize,
        end_limit: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_out(&theirs, out))?;
        Ok(Log {
            lines: Lines { shared, room },
            end_limit,
            taken: None,
        })
    }

    /// Has what is left written. False where it was not taken in time; nobody would take another word then.
    pub(super) fn end(&mut self) -> bool {
        if let Some(taken) = self.taken {
            return taken;
        }
        let Shared { come, gone, .. } = &*self.lines.shared;
        let mut waiting = self.lines.shared.lock();
        waiting.ending = true;
        come.notify_one();
        let (waiting, _) = gone
            .wait_timeout_while(waiting, self.end_limit, |waiting| !waiting.over)
            .unwrap_or_else(PoisonError::into_inner);
        self.taken = Some(waiting.over);
        waiting.over
    }
}

/// Where a panic ends the server, what was said before it is written too.
impl Drop for Log {
    fn drop(&mut self) {
        self.end();
    }
}

impl io::Write for Lines {
    /// Takes one line, whole or not at all: the subscriber gives a line by one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.shared.lock();
        // Once a line is missing no shorter one slips in: what is missing stays in one place.
        if waiting.left_out > 0 || waiting.bytes.len().saturating_add(line.len()) > self.room {
            waiting.left_out = waiting.left_out.saturating_add(1);
        } else {
            waiting.bytes.extend_from_slice(line);
        }
        drop(waiting);
        self.shared.come.notify_one();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits, and how many lines are missing after it. `None` once the end has come and nothing waits.
    fn next(&self, spent: Vec<u8>) -> Option<(Vec<u8>, u64)> {
        let mut waiting = self
            .come
            .wait_while(self.lock(), |waiting| {
                waiting.bytes.is_empty() && waiting.left_out == 0 && !waiting.ending
            })
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.bytes.is_empty() && waiting.left_out == 0 {
            waiting.over = true;
            self.gone.notify_all();
            return None;
        }
        let left_out = std::mem::take(&mut waiting.left_out);
        Some((std::mem::replace(&mut waiting.bytes, spent), left_out))
    }
}

/// The thread's life. It alone waits for whoever takes the log.
fn write_out(shared: &Shared, mut out: impl io::Write) {
    let mut spent = Vec::new();
    // Lines that could not be written, and of which nothing was said yet.
    let mut missing: u64 = 0;
    while let Some((bytes, left_out)) = shared.next(spent) {
        // The line at which it failed may lack its end.
        if missing > 0 && put(&mut out, format!("\n{}", note(missing)).as_bytes()).is_ok() {
            missing = 0;
        }
        if let Err(unwritten) = put(&mut out, &bytes) {
            missing = missing.saturating_add(unwritten);
        }
        if left_out > 0 && put(&mut out, note(left_out).as_bytes()).is_err() {
            missing = missing.saturating_add(left_out);
        }
        spent = bytes;
        spent.clear();
    }
}

/// Writes all, or says how many lines are missing.
fn put(out: &mut impl io::Write, mut bytes: &[u8]) -> Result<(), u64> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(written @ 1..) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => {
                let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
                return Err(u64::try_from(ends).unwrap_or(u64::MAX));
            }
        }
    }
    Ok(())
}

/// A line like the others.
fn note(missing: u64) -> String {
    format!(
        "{:.6}  WARN muster::serve::log: {missing} lines of the log are left out here: standard error did not take them in time\n",
        jiff::Timestamp::now()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write as _,
        sync::mpsc::{Receiver, Sender, channel},
    };

    /// One who takes the log a piece at a time, each when it is let.
    struct Reader {
        let_on: Receiver<io::Result<()>>,
        at_it: Sender<()>,
        read: Arc<Mutex<String>>,
    }

    impl io::Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Whoever no longer listens or lets on has seen enough.
            let _ = self.at_it.send(());
            self.let_on.recv().unwrap_or(Ok(()))?;
            self.read
                .lock()
                .unwrap()
                .push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Held {
        log: Log,
        let_on: Sender<io::Result<()>>,
        at_it: Receiver<()>,
        read: Arc<Mutex<String>>,
    }

    impl Held {
        fn new(room: usize, end_limit: Duration) -> Self {
            let (let_on, waiting) = channel();
            let (at, at_it) = channel();
            let read = Arc::new(Mutex::new(String::new()));
            let reader = Reader {
                let_on: waiting,
                at_it: at,
                read: Arc::clone(&read),
            };
            Held {
                log: Log::to(reader, room, end_limit).unwrap(),
                let_on,
                at_it,
                read,
            }
        }

        fn say(&self, line: &str) {
            self.log.lines.clone().write_all(line.as_bytes()).unwrap();
        }
    }

    const LONG: Duration = Duration::from_secs(60);
    const MISSING: &str = "lines of the log are left out here";

    /// Without the stamps.
    fn lines(held: &Held) -> Vec<String> {
        let read = held.read.lock().unwrap();
        read.lines()
            .map(|line| match line.split_once("log: ") {
                Some((_, note)) => note.chars().take(1 + " ".len() + MISSING.len()).collect(),
                None => line.to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_and_misses_what_it_is_told_of() {
        let mut held = Held::new(12, LONG);
        held.say("first\n");
        held.at_it.recv().unwrap();
        // The first is with the thread; two have room, and the short one does not pass by the long one.
        for line in ["second\n", "four\n", "a longer one\n", "x\n"] {
            held.say(line);
        }
        held.let_on.send(Ok(())).unwrap();
        held.at_it.recv().unwrap();
        held.say("later\n");
        for _ in 0..3 {
            held.let_on.send(Ok(())).unwrap();
        }
        assert!(held.log.end());
        assert_eq!(
            lines(&held),
            ["first", "second", "four", &format!("2 {MISSING}"), "later"]
        );
    }

    #[test]
    fn the_end_waits_for_what_is_left_and_not_for_ever() {
        let mut held = Held::new(1000, Duration::from_millis(10));
        held.say("first\n");
        held.at_it.recv().unwrap();
        assert!(!held.log.end(), "nobody took it");

        let mut taken = Held::new(1000, LONG);
        for _ in 0..3 {
            taken.let_on.send(Ok(())).unwrap();
        }
        taken.say("first\n");
        taken.say("last\n");
        assert!(taken.log.end());
        assert_eq!(lines(&taken), ["first", "last"]);
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_said_when_it_can_be() {
        let mut held = Held::new(1000, LONG);
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        held.say("first\n");
        held.at_it.recv().unwrap();
        held.say("second\nthird\n");
        held.let_on.send(full()).unwrap();
        // What is to be said of the first fails as well, and so do the two.
        for _ in 0..2 {
            held.at_it.recv().unwrap();
            held.let_on.send(full()).unwrap();
        }
        held.say("fourth\n");
        for _ in 0..2 {
            held.let_on.send(Ok(())).unwrap();
        }
        assert!(held.log.end());
        assert_eq!(lines(&held), ["", &format!("3 {MISSING}"), "fourth"]);
    }
}
