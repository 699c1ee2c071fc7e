//! Runs the health command of an image on trial, with a deadline.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::cancel::Cancel;
use crate::update::Slot;

/// How much of the command's standard error is kept for the report.
const STDERR_BYTES_MAX: usize = 2048;

/// How often the command is looked at while it runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long to wait for the rest of standard error once the command is over: a process it left
/// behind may hold it open.
const STDERR_GRACE: Duration = Duration::from_millis(500);

/// The command an image must pass.
#[derive(Clone, Debug)]
pub struct Health {
    /// Run by `sh -c`.
    pub command: String,
    /// How long it may take.
    pub deadline: Duration,
}

/// What a trial came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exit 0 in time.
    Healthy,
    /// Anything else, in words.
    Sick(String),
    /// Called off before it answered.
    CalledOff,
}

/// The image that a command is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its file.
    pub image: &'a Path,
    /// The slot it lies in.
    pub slot: Slot,
    /// Its version.
    pub version: &'a str,
    /// The agent's state directory.
    pub state: &'a Path,
}

impl Health {
    /// Runs the command with `MUSTER_IMAGE`, `MUSTER_SLOT`, `MUSTER_VERSION` and `MUSTER_STATE`.
    #[must_use]
    pub fn run(&self, subject: &Subject<'_>, cancel: &Cancel) -> Verdict {
        let command = Command {
            what: "health command",
            text: &self.command,
            deadline: self.deadline,
        };
        command.run(subject, cancel)
    }
}

/// A command with a deadline.
pub(crate) struct Command<'a> {
    /// What it is, for words.
    pub what: &'static str,
    /// Run by `sh -c`.
    pub text: &'a str,
    /// How long it may take.
    pub deadline: Duration,
}

impl Command<'_> {
    pub(crate) fn run(&self, subject: &Subject<'_>, cancel: &Cancel) -> Verdict {
        let what = self.what;
        let spawned = std::process::Command::new("sh")
            .arg("-c")
            .arg(self.text)
            .env("MUSTER_IMAGE", subject.image)
            .env("MUSTER_SLOT", subject.slot.as_str())
            .env("MUSTER_VERSION", subject.version)
            .env("MUSTER_STATE", subject.state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Its own group, so that all it started can be ended with it.
            .process_group(0)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                return Verdict::Sick(format!("{what}: could not start sh: {error}"));
            }
        };
        let stderr = collect_stderr(&mut child);
        let until = Instant::now() + self.deadline;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return verdict(what, status, &stderr),
                Ok(None) => {}
                Err(error) => {
                    end(&mut child);
                    return Verdict::Sick(format!("{what}: could not wait for it: {error}"));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                end(&mut child);
                let said = said(&stderr);
                return Verdict::Sick(format!(
                    "{what}: no answer within {} s, ended{said}",
                    self.deadline.as_secs_f64()
                ));
            }
            if cancel.wait(left.min(LOOK_EVERY)) {
                end(&mut child);
                return Verdict::CalledOff;
            }
        }
    }
}

fn verdict(what: &str, status: ExitStatus, stderr: &mpsc::Receiver<Vec<u8>>) -> Verdict {
    use std::os::unix::process::ExitStatusExt as _;
    if status.success() {
        return Verdict::Healthy;
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_string(),
    };
    Verdict::Sick(format!("{what}: {how}{}", said(stderr)))
}

/// Ends the command and all it started, and reaps it.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads standard error to its end on a thread (a full pipe must not stop the command), keeping
/// its beginning.
fn collect_stderr(child: &mut Child) -> mpsc::Receiver<Vec<u8>> {
    let (kept, receiver) = mpsc::channel();
    if let Some(mut stderr) = child.stderr.take() {
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            let mut room = STDERR_BYTES_MAX;
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                let keep = buffer.get(..read.min(room)).unwrap_or_default();
                room -= keep.len();
                if !keep.is_empty() && kept.send(keep.to_vec()).is_err() {
                    // Nobody asks any more; go on draining.
                    room = 0;
                }
            }
        });
    }
    receiver
}

fn said(stderr: &mpsc::Receiver<Vec<u8>>) -> String {
    let until = Instant::now() + STDERR_GRACE;
    let mut bytes = Vec::new();
    while let Ok(more) = stderr.recv_timeout(until.saturating_duration_since(Instant::now())) {
        bytes.extend_from_slice(&more);
    }
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &str, deadline: Duration) -> Verdict {
        let health = Health {
            command: command.into(),
            deadline,
        };
        health.run(&subject(), &Cancel::default())
    }

    fn subject() -> Subject<'static> {
        Subject {
            image: Path::new("/x/image"),
            slot: Slot::A,
            version: "1.2.3",
            state: Path::new("/x"),
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn exit_zero_confirms_and_the_variables_are_there() {
        let command = r#"test "$MUSTER_IMAGE:$MUSTER_SLOT:$MUSTER_VERSION:$MUSTER_STATE" = /x/image:a:1.2.3:/x"#;
        assert_eq!(run(command, LONG), Verdict::Healthy);
    }

    #[test]
    fn a_failure_is_told_in_the_commands_own_words() {
        assert_eq!(
            run("echo no radio >&2; exit 3", LONG),
            Verdict::Sick("health command: exit 3: no radio".into())
        );
        assert_eq!(
            run("kill -9 $$", LONG),
            Verdict::Sick("health command: ended by signal 9".into())
        );
    }

    #[test]
    fn much_said_is_cut_and_does_not_stop_the_command() {
        let Verdict::Sick(words) = run("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1", LONG)
        else {
            panic!("must be sick");
        };
        assert!(words.len() < STDERR_BYTES_MAX + 100, "{}", words.len());
        assert!(words.len() > 100);
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let command = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let began = Instant::now();
        let verdict = run(&command, Duration::from_millis(400));
        let Verdict::Sick(words) = verdict else {
            panic!("{verdict:?}")
        };
        assert!(words.contains("no answer within 0.4 s"), "{words}");
        assert!(began.elapsed() < Duration::from_secs(30));
        // The grandchild is gone too (or a zombie its new parent has not reaped yet).
        let pid: u32 = std::fs::read_to_string(pid)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let gone = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.is_empty() || status.contains(") Z")
        };
        // On a busy machine its end takes a moment.
        while !gone() {
            assert!(began.elapsed() < Duration::from_secs(30), "it still runs");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    #[test]
    fn a_trial_can_be_called_off() {
        let cancel = Cancel::default();
        let other = cancel.clone();
        let health = Health {
            command: "sleep 1000".into(),
            deadline: LONG,
        };
        let trial = std::thread::spawn(move || health.run(&subject(), &other));
        cancel.cancel();
        assert_eq!(trial.join().unwrap(), Verdict::CalledOff);
    }
}
