//! One firmware job carried out: trust, manifest, download, idle slot; and the trial's health.
//!
//! Runs on a thread of its own, one task after the other, because files, HTTPS and the health
//! command block. What it finds goes back as events; what to do next is `update`'s to say.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::SystemTime;

use ota::{HardwareId, Manifest, Root, Targets};
use tokio::sync::mpsc::Sender;

use crate::backoff;
use crate::cancel::Cancel;
use crate::download::{self, Download, DownloadFault, Patience};
use crate::health::{Health, Verdict};
use crate::https::{Client, HttpFault};
use crate::slots::Slots;
use crate::state::StateDir;
use crate::trust::{self, TrustFault};
use crate::update::{Ending, Event, Fetched, Installed, Order, Outcome, Refusal, State, Step};

/// What the installer is asked to do.
#[derive(Debug)]
pub(crate) enum Task {
    /// Fetch an image into the idle slot.
    Fetch {
        /// Number of the run, for the answer.
        run: u64,
        /// What to fetch.
        order: Order,
        /// How the device stands now.
        state: Box<State>,
        /// Calls it off.
        cancel: Cancel,
    },
    /// Ask an image's health.
    Judge {
        /// Number of the run, for the answer.
        run: u64,
        /// The image on trial.
        image: Installed,
        /// Calls it off.
        cancel: Cancel,
    },
}

/// Why a fetch ended early.
#[derive(Debug)]
enum Stop {
    CalledOff,
    Refused(Refusal),
}

fn rejected(reason: impl std::fmt::Display) -> Stop {
    stop(Ending::Rejected, reason)
}

fn failed(reason: impl std::fmt::Display) -> Stop {
    stop(Ending::Failed, reason)
}

fn stop(ending: Ending, reason: impl std::fmt::Display) -> Stop {
    Stop::Refused(Outcome {
        ending,
        step: Step::Downloading,
        reason: reason.to_string(),
    })
}

/// Where images come from, where they go, what they must pass.
pub(crate) struct Installer {
    /// The state directory.
    pub state: StateDir,
    /// The server.
    pub client: Client,
    /// What this device is.
    pub hardware: HardwareId,
    /// What an image must pass.
    pub health: Health,
    /// How long a server may be away.
    pub patience: Patience,
}

impl Installer {
    /// Starts the thread; it ends when the returned sender is dropped. Every task but one that
    /// was called off is answered with one final event.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn spawn(self, events: Sender<Event>) -> std::io::Result<mpsc::Sender<Task>> {
        let (tasks, waiting) = mpsc::channel();
        std::thread::Builder::new()
            .name("installer".into())
            .spawn(move || {
                while let Ok(task) = waiting.recv() {
                    let answer = self.carry_out(task, |event| {
                        let _ = events.blocking_send(event);
                    });
                    if let Some(event) = answer
                        && events.blocking_send(event).is_err()
                    {
                        return;
                    }
                }
            })?;
        Ok(tasks)
    }

    /// Does one task; `None` when it was called off.
    pub(crate) fn carry_out(&self, task: Task, tell: impl Fn(Event)) -> Option<Event> {
        match task {
            Task::Fetch {
                run,
                order,
                state,
                cancel,
            } => {
                let tell = |step| tell(Event::Progress(run, step));
                match self.fetch(&order, &state, &cancel, tell) {
                    Ok(fetched) => Some(Event::Fetched(run, Ok(fetched))),
                    Err(Stop::Refused(refusal)) => {
                        tracing::warn!("{} {}: {}", order.name, order.version, refusal.reason);
                        Some(Event::Fetched(run, Err(refusal)))
                    }
                    Err(Stop::CalledOff) => None,
                }
            }
            Task::Judge { run, image, cancel } => self.judge(run, &image, &cancel),
        }
    }

    fn judge(&self, run: u64, image: &Installed, cancel: &Cancel) -> Option<Event> {
        let path = Slots::new(self.state.path()).image(image.slot);
        tracing::info!(
            "{} {} is on trial in slot {}",
            image.name,
            image.version,
            image.slot.as_str()
        );
        let result = match self
            .health
            .run(&path, &image.version, self.state.path(), cancel)
        {
            Verdict::CalledOff => return None,
            Verdict::Healthy => Ok(()),
            Verdict::Sick(words) => {
                tracing::warn!("{} {} falls back: {words}", image.name, image.version);
                Err(words)
            }
        };
        Some(Event::Judged(run, result))
    }

    fn fetch(
        &self,
        order: &Order,
        state: &State,
        cancel: &Cancel,
        tell: impl Fn(Step),
    ) -> Result<Fetched, Stop> {
        let root = self.patiently(cancel, || match trust::newest(&self.state, &self.client) {
            Ok(root) => Ok(Ok(root)),
            Err(TrustFault::Passing(words)) => Err(words),
            Err(TrustFault::Unavailable(words)) => Ok(Err(failed(format!("trust root: {words}")))),
            Err(TrustFault::Refused(words)) => Ok(Err(rejected(words))),
        })?;
        let signed = self.patiently(cancel, || match self.client.document(&order.manifest) {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(HttpFault::Passing(words)) => Err(words),
            Err(fault) => Ok(Err(failed(fault.words()))),
        })?;
        let now = SystemTime::now();
        let delegations = match Manifest::verify(&signed, &root, now) {
            // Others than the release keys signed it: whether they may is the release team's word.
            Err(error) if error.is_of_strangers() => self.patiently(cancel, || {
                match trust::delegations(&self.state, &self.client, &root, now) {
                    Ok(delegations) => Ok(Ok(delegations)),
                    Err(TrustFault::Passing(words)) => Err(words),
                    Err(TrustFault::Unavailable(words)) => {
                        Ok(Err(failed(format!("delegations: {words}"))))
                    }
                    Err(TrustFault::Refused(words)) => Ok(Err(rejected(words))),
                }
            })?,
            _ => None,
        };
        let manifest = self.verify(&signed, &root, delegations.as_ref(), order, state, now)?;

        let slot = state.idle_slot();
        let image = Installed {
            slot,
            name: manifest.name.to_string(),
            version: manifest.version.to_string(),
            counter: manifest.counter,
            sha256: manifest.sha256.to_string(),
        };
        if state.active.as_ref().is_some_and(|active| {
            *active
                == Installed {
                    slot: active.slot,
                    ..image.clone()
                }
        }) {
            return Ok(Fetched::AlreadyRunning);
        }

        let slots = Slots::new(self.state.path());
        let disk = |error: std::io::Error| failed(format!("the device's disk: {error}"));
        let partial = self.clear_downloads(&manifest).map_err(disk)?;
        if !partial.exists() {
            // Power went between slot and state: the image is whole already. It is checked
            // again like any half download.
            slots
                .take_back(self.state.files(), slot, &partial, &signed)
                .map_err(disk)?;
        }
        let download = Download {
            client: &self.client,
            files: self.state.files(),
            patience: self.patience,
            cancel,
        };
        match download.run(&order.image, &manifest, &partial) {
            Ok(()) => {}
            Err(DownloadFault::Cancelled) => return Err(Stop::CalledOff),
            Err(fault) => return Err(failed(fault)),
        }
        tell(Step::Installing);
        slots
            .install(self.state.files(), slot, &partial, &signed)
            .map_err(|error| {
                Stop::Refused(Outcome {
                    ending: Ending::Failed,
                    step: Step::Installing,
                    reason: format!("the device's disk: {error}"),
                })
            })?;
        Ok(Fetched::Installed(image))
    }

    /// All that must be true of a manifest before a byte of its image is fetched. A rollback is
    /// held to the same.
    fn verify(
        &self,
        signed: &[u8],
        root: &Root,
        delegations: Option<&Targets>,
        order: &Order,
        state: &State,
        now: SystemTime,
    ) -> Result<Manifest, Stop> {
        let (manifest, delegate) =
            Manifest::verify_under(signed, root, delegations, now).map_err(rejected)?;
        if let Some(delegate) = delegate {
            tracing::info!("{} is signed by delegate {delegate}", manifest.title());
        }
        if manifest.name != order.name || manifest.version != order.version {
            return Err(rejected(format!(
                "the signed manifest is of {}, the job asks for {} {}",
                manifest.title(),
                order.name,
                order.version
            )));
        }
        let current = state
            .active
            .as_ref()
            .and_then(|active| active.version.parse().ok());
        manifest
            .fits(&self.hardware, state.counter, current.as_ref())
            .map_err(rejected)?;
        Ok(manifest)
    }

    /// Where this image is fetched to; what is left of others goes.
    fn clear_downloads(&self, manifest: &Manifest) -> std::io::Result<PathBuf> {
        let dir = self.state.download();
        let partial = download::partial(&dir, manifest);
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path != partial {
                self.state.files().remove(&path)?;
            }
        }
        Ok(partial)
    }

    /// Tries until it works, is final, is called off, or patience ends. The inner `Err` is a
    /// passing fault, in words.
    fn patiently<T>(
        &self,
        cancel: &Cancel,
        mut attempt: impl FnMut() -> Result<Result<T, Stop>, String>,
    ) -> Result<T, Stop> {
        let mut backoff = self.patience.backoff();
        loop {
            if cancel.is_cancelled() {
                return Err(Stop::CalledOff);
            }
            let words = match attempt() {
                Ok(result) => return result,
                Err(words) => words,
            };
            if backoff.attempts() >= self.patience.attempts {
                return Err(failed(format!(
                    "{words} (gave up after {} attempts)",
                    self.patience.attempts
                )));
            }
            let wait = backoff.next(backoff::random());
            tracing::warn!("{words}; trying again in {wait:?}");
            if cancel.wait(wait) {
                return Err(Stop::CalledOff);
            }
        }
    }
}
