//! Commands of the device's own at the steps of an update, for whatever starts its images: a bootloader, an
//! update framework, a service manager. `docs/bootloaders.md` says what they are for each of some.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::health::{Command, Subject, Verdict};

/// How long a hook may take, unless it is said otherwise.
pub const HOOK_DEADLINE: Duration = Duration::from_secs(600);
/// How often the watchdog is fed while an image is on trial.
const FEED_EVERY: Duration = Duration::from_secs(5);
/// What makes Linux' watchdog drivers disarm when the device is closed.
const MAGIC_CLOSE: &[u8] = b"V";

/// The commands; where there is none, the step is done by itself. Each is run by `sh -c` with `MUSTER_SLOT`
/// (`a` or `b`), `MUSTER_IMAGE`, `MUSTER_VERSION` and `MUSTER_STATE`, and each may be run again after a power
/// cut, so what it does must be the same the second time.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// The verified image lies in its slot: put it where it is started from.
    pub install: Option<String>,
    /// The trial begins: have the image started, once. One that restarts the device must not return.
    pub activate: Option<String>,
    /// After a restart in a trial: exit 0 if the device runs from that slot.
    pub booted: Option<String>,
    /// The image is healthy: have it started from now on.
    pub confirm: Option<String>,
    /// The image was given up: have the one before started from now on. It is run until it has succeeded.
    pub revert: Option<String>,
    /// How long each may take; [`HOOK_DEADLINE`] where it is zero.
    pub deadline: Duration,
    /// A watchdog device that is fed while an image is on trial and disarmed after, so that a system that hangs
    /// in it starts again.
    pub watchdog: Option<PathBuf>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Install,
    Activate,
    Booted,
    Confirm,
    Revert,
}

impl Hooks {
    /// Runs one.
    pub(crate) fn run(&self, hook: Hook, subject: &Subject<'_>, cancel: &Cancel) -> Verdict {
        let (what, command) = match hook {
            Hook::Install => ("install hook", &self.install),
            Hook::Activate => ("activate hook", &self.activate),
            Hook::Booted => ("booted hook", &self.booted),
            Hook::Confirm => ("confirm hook", &self.confirm),
            Hook::Revert => ("revert hook", &self.revert),
        };
        let Some(text) = command else {
            return Verdict::Healthy;
        };
        let deadline = match self.deadline {
            Duration::ZERO => HOOK_DEADLINE,
            deadline => deadline,
        };
        let command = Command {
            what,
            text,
            deadline,
        };
        command.run(subject, cancel)
    }

    /// Arms the watchdog, where there is one, until what is returned is dropped.
    ///
    /// # Errors
    /// In words; a watchdog that was asked for and is not there is no reason to try an image without it.
    pub(crate) fn watch(&self) -> Result<Option<Watchdog>, String> {
        let Some(path) = &self.watchdog else {
            return Ok(None);
        };
        Watchdog::arm(path)
            .map(Some)
            .map_err(|error| format!("watchdog {}: {error}", path.display()))
    }
}

/// A watchdog that is fed.
pub(crate) struct Watchdog {
    stop: Option<mpsc::Sender<()>>,
    feeding: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn arm(path: &std::path::Path) -> std::io::Result<Self> {
        // Linux' drivers arm when they are opened.
        let mut device = OpenOptions::new().write(true).open(path)?;
        feed(&mut device)?;
        let (stop, stopped) = mpsc::channel();
        let feeding = std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || {
                while stopped.recv_timeout(FEED_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                    if let Err(error) = feed(&mut device) {
                        tracing::error!("the watchdog cannot be fed: {error}");
                    }
                }
                let _ = device.write_all(MAGIC_CLOSE);
            })?;
        Ok(Self {
            stop: Some(stop),
            feeding: Some(feeding),
        })
    }
}

fn feed(device: &mut File) -> std::io::Result<()> {
    device.write_all(b"\0")
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(feeding) = self.feeding.take() {
            let _ = feeding.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::update::Slot;

    fn subject() -> Subject<'static> {
        Subject {
            image: Path::new("/x/image"),
            slot: Slot::B,
            version: "1.2",
            state: Path::new("/x"),
        }
    }

    #[test]
    fn a_hook_that_is_not_there_is_no_step_and_one_that_fails_says_which_it_was() {
        let hooks = Hooks {
            activate: Some("test $MUSTER_SLOT = b".into()),
            revert: Some("echo no fw_setenv >&2; exit 4".into()),
            ..Hooks::default()
        };
        let run = |hook| hooks.run(hook, &subject(), &Cancel::default());
        assert_eq!(run(Hook::Install), Verdict::Healthy);
        assert_eq!(run(Hook::Activate), Verdict::Healthy);
        assert_eq!(
            run(Hook::Revert),
            Verdict::Sick("revert hook: exit 4: no fw_setenv".into())
        );
    }

    #[test]
    fn a_watchdog_is_fed_and_disarmed() {
        let device = tempfile::NamedTempFile::new().unwrap();
        let hooks = Hooks {
            watchdog: Some(device.path().to_owned()),
            ..Hooks::default()
        };
        let written = || std::fs::read(device.path()).unwrap();
        let watchdog = hooks.watch().unwrap();
        assert_eq!(written(), b"\0");
        drop(watchdog);
        assert!(written().ends_with(b"V"));
        let gone = Hooks {
            watchdog: Some("/nowhere/watchdog".into()),
            ..Hooks::default()
        };
        assert!(gone.watch().err().unwrap().contains("/nowhere/watchdog"));
    }
}
