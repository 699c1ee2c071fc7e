//! One firmware job carried out: trust, manifest, download, idle slot; and the trial's health.
//!
//! Runs on a thread of its own, one task after the other, because files, HTTPS and the health
//! command block. What it finds goes back as events; what to do next is `update`'s to say.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::SystemTime;

use ota::{Components, Content, DeltaSource, HardwareId, ImageCheck, Manifest, Root, Targets};
use tokio::sync::mpsc::Sender;

use crate::backoff;
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::download::{self, Download, DownloadFault, Patience};
use crate::health::{Health, Subject, Verdict};
use crate::hooks::{Hook, Hooks};
use crate::https::{Client, HttpFault};
use crate::rebuild::Rebuild;
use crate::slots::Slots;
use crate::sound::{self, Flaw};
use crate::state::StateDir;
use crate::term::Term;
use crate::trust::{self, TrustFault};
use crate::update::{Ending, Event, Fetched, Installed, Order, Outcome, Refusal, State, Step};

/// One read of an image that is checked.
const READ_BYTES: usize = 64 * 1024;

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
        /// How many times its trial has begun.
        boots: u32,
        /// Calls it off.
        cancel: Cancel,
    },
    /// Have the image before started again.
    Undo {
        /// Number of the run, for the answer.
        run: u64,
        /// The image that was given up.
        image: Installed,
        /// Calls it off.
        cancel: Cancel,
    },
}

/// What a fetch has to say before its end.
enum Told {
    /// It has come to a step.
    Step(Step),
    /// The confirmed image is not what was signed any more.
    Damage(Installed, String),
}

/// Why a fetch ended early.
#[derive(Debug)]
enum Stop {
    CalledOff,
    /// The job's window has closed.
    Late,
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
    /// Where images are put.
    pub slots: Arc<dyn Slots>,
    /// The server.
    pub client: Client,
    /// What this device is.
    pub hardware: HardwareId,
    /// What else it has.
    pub components: Components,
    /// What an image must pass.
    pub health: Health,
    /// How a server that is away is asked again.
    pub patience: Patience,
    /// The device's own commands.
    pub hooks: Hooks,
    /// What tells the time.
    pub clock: Arc<Clock>,
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
                let tell = |told| {
                    tell(match told {
                        Told::Step(step) => Event::Progress(run, step),
                        Told::Damage(image, words) => Event::Looked(image, Err(words)),
                    });
                };
                match self.fetch(&order, &state, &cancel, tell) {
                    Ok(fetched) => Some(Event::Fetched(run, Ok(fetched))),
                    Err(Stop::Refused(refusal)) => {
                        tracing::warn!("{} {}: {}", order.name, order.version, refusal.reason);
                        Some(Event::Fetched(run, Err(refusal)))
                    }
                    Err(Stop::Late) => {
                        tracing::info!(
                            "{} {}: its window has closed; what was fetched is kept for the next one",
                            order.name,
                            order.version
                        );
                        Some(Event::Late(run))
                    }
                    Err(Stop::CalledOff) => None,
                }
            }
            Task::Judge {
                run,
                image,
                boots,
                cancel,
            } => self.judge(run, &image, boots, &cancel),
            Task::Undo { run, image, cancel } => self.undo(run, &image, &cancel),
        }
    }

    fn judge(&self, run: u64, image: &Installed, boots: u32, cancel: &Cancel) -> Option<Event> {
        let path = self.slots.image(image.slot);
        tracing::info!(
            "{} {} is on trial in slot {}",
            image.name,
            image.version,
            image.slot.as_str()
        );
        let result = match self.trial(&self.subject(image, &path), boots, cancel) {
            Verdict::CalledOff => return None,
            Verdict::Healthy => Ok(()),
            Verdict::Sick(words) => {
                tracing::warn!("{} {} falls back: {words}", image.name, image.version);
                Err(words)
            }
        };
        Some(Event::Judged(run, result))
    }

    /// Has the image started, asks its health, and has it kept.
    fn trial(&self, subject: &Subject<'_>, boots: u32, cancel: &Cancel) -> Verdict {
        let _fed = match self.hooks.watch() {
            Ok(watchdog) => watchdog,
            Err(words) => return Verdict::Sick(words),
        };
        // The first time the image has yet to be started; a restart since may have brought the device
        // back to the one before, where there is a way to know.
        let started = if boots == 1 || self.hooks.booted.is_none() {
            Hook::Activate
        } else {
            Hook::Booted
        };
        let steps: [&dyn Fn() -> Verdict; 3] = [
            &|| self.hooks.run(started, subject, cancel),
            &|| self.health.run(subject, cancel),
            &|| self.hooks.run(Hook::Confirm, subject, cancel),
        ];
        for step in steps {
            let verdict = step();
            if verdict != Verdict::Healthy {
                return verdict;
            }
        }
        Verdict::Healthy
    }

    /// Until it has worked: a device that is not told starts an image that was given up.
    fn undo(&self, run: u64, image: &Installed, cancel: &Cancel) -> Option<Event> {
        let path = self.slots.image(image.slot);
        let mut backoff = self.patience.backoff();
        loop {
            let verdict = self
                .hooks
                .run(Hook::Revert, &self.subject(image, &path), cancel);
            match verdict {
                Verdict::Healthy => return Some(Event::Undone(run)),
                Verdict::CalledOff => return None,
                Verdict::Sick(words) => {
                    let wait = backoff.next(backoff::random());
                    tracing::error!("{words}; again in {wait:?}");
                    if cancel.wait(wait) {
                        return None;
                    }
                }
            }
        }
    }

    fn subject<'a>(&'a self, image: &'a Installed, path: &'a Path) -> Subject<'a> {
        Subject {
            image: path,
            slot: image.slot,
            version: &image.version,
            state: self.state.path(),
        }
    }

    fn fetch(
        &self,
        order: &Order,
        state: &State,
        cancel: &Cancel,
        tell: impl Fn(Told),
    ) -> Result<Fetched, Stop> {
        let mut term = Term::of(order, &self.clock);
        let root = self.patiently(cancel, &term, || {
            match trust::newest(&self.state, &self.client) {
                Ok(root) => Ok(Ok(root)),
                Err(TrustFault::Passing(words)) => Err(words),
                Err(TrustFault::Unavailable(words)) => {
                    Ok(Err(failed(format!("trust root: {words}"))))
                }
                Err(TrustFault::Refused(words)) => Ok(Err(rejected(words))),
            }
        })?;
        let signed = self.patiently(cancel, &term, || {
            match self.client.document(&order.manifest) {
                Ok(bytes) => Ok(Ok(bytes)),
                Err(HttpFault::Passing(words)) => Err(words),
                Err(fault) => Ok(Err(failed(fault.words()))),
            }
        })?;
        let now = self.clock.now();
        let delegations = match Manifest::verify(&signed, &root, now) {
            // Others than the release keys signed it: whether they may is the release team's word.
            Err(error) if error.is_of_strangers() => self.patiently(cancel, &term, || {
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
        let verify = |now| self.verify(&signed, &root, delegations.as_ref(), order, state, now);
        let manifest = verify(now)?;
        term.expires = Some(manifest.expires);

        let slot = state.idle_slot();
        let image = Installed {
            slot,
            name: manifest.name.to_string(),
            version: manifest.version.to_string(),
            counter: manifest.counter,
            sha256: manifest.sha256.to_string(),
        };
        let slots = self.slots.as_ref();
        let disk = |error: std::io::Error| failed(format!("the device's disk: {error}"));
        let same = |active: &&Installed| {
            **active
                == Installed {
                    slot: active.slot,
                    ..image.clone()
                }
        };
        if let Some(active) = state.active.as_ref().filter(same) {
            match sound::look(&self.state, slots, active, cancel) {
                Ok(()) => return Ok(Fetched::AlreadyRunning),
                Err(Flaw::CalledOff) => return Err(Stop::CalledOff),
                // A disk forgets: the image is had anew, in the other slot.
                Err(Flaw::Damage(words)) => {
                    tracing::error!(
                        "{}, which was confirmed here: {words}; installing it again",
                        manifest.title()
                    );
                    tell(Told::Damage(active.clone(), words));
                }
            }
        }

        let room = slots.room(slot).map_err(disk)?;
        if manifest.size > room {
            return Err(failed(format!(
                "slot {} ({}) has room for {room} bytes, the image has {}",
                slot.as_str(),
                slots.image(slot).display(),
                manifest.size
            )));
        }
        let delta = delta_for(&manifest, state);
        let place = |hash| download::partial(&self.state.download(), hash);
        let partial = place(manifest.sha256);
        let patch = delta.map(|delta| place(delta.sha256));
        self.clear_downloads(&[Some(&partial), patch.as_ref()])
            .map_err(disk)?;
        if !partial.exists() {
            // Power went between slot and state: the image is whole already. It is checked
            // again like any half download.
            slots
                .take_back(self.state.files(), slot, &partial, &signed, manifest.size)
                .map_err(disk)?;
        }
        let download = Download {
            client: &self.client,
            files: self.state.files(),
            patience: self.patience,
            cancel,
            term: &term,
        };
        // Nearly all of the image may have come already, or have lain in the slot.
        let here = partial.metadata().map_or(0, |facts| facts.len());
        let left = manifest.size.saturating_sub(here);
        let made = match (delta, &patch, &state.active) {
            (Some(delta), Some(patch), Some(active)) if delta.size < left => {
                let rebuild = Rebuild {
                    download: &download,
                    manifest: &manifest,
                    delta,
                    old: &slots.image(active.slot),
                };
                rebuild.run(&order.delta(&delta.from), patch, &partial)
            }
            _ => Ok(false),
        };
        let done = made.and_then(|made| match made {
            true => Ok(()),
            false => download.run(&order.image, Content::image(&manifest), &partial),
        });
        checked(done, term.is_late(), || verify(self.clock.now()))?;
        tell(Told::Step(Step::Installing));
        slots
            .install(self.state.files(), slot, &partial, &signed, &manifest)
            .map_err(|error| {
                Stop::Refused(Outcome {
                    ending: Ending::Failed,
                    step: Step::Installing,
                    reason: format!("the device's disk: {error}"),
                })
            })?;
        let path = slots.image(slot);
        match self
            .hooks
            .run(Hook::Install, &self.subject(&image, &path), cancel)
        {
            Verdict::Healthy => Ok(Fetched::Installed(image)),
            Verdict::CalledOff => Err(Stop::CalledOff),
            Verdict::Sick(reason) => Err(Stop::Refused(Outcome {
                ending: Ending::Failed,
                step: Step::Installing,
                reason,
            })),
        }
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
        let mut has = self.components.clone();
        if let Some(active) = &state.active
            && let (Ok(name), Ok(version)) = (active.name.parse(), active.version.parse())
        {
            has.insert(name, version);
        }
        manifest
            .fits(&self.hardware, state.counter, &has)
            .map_err(rejected)?;
        // The slots hold one firmware: another would take its place, and there would be no way back.
        match &state.active {
            Some(active) if manifest.name.as_str() != active.name => Err(rejected(format!(
                "this device runs {} {}; {} is another firmware and would take its place",
                active.name,
                active.version,
                manifest.title()
            ))),
            _ => Ok(manifest),
        }
    }

    /// Removes what is left of other downloads.
    fn clear_downloads(&self, kept: &[Option<&PathBuf>]) -> std::io::Result<()> {
        for entry in std::fs::read_dir(self.state.download())? {
            let path = entry?.path();
            if !kept.contains(&Some(&path)) {
                self.state.files().remove(&path)?;
            }
        }
        Ok(())
    }

    /// Tries until it works, is final, is called off, or the job's window closes: how long a server may be away is not
    /// for a device to say. The inner `Err` is a passing fault, in words.
    fn patiently<T>(
        &self,
        cancel: &Cancel,
        term: &Term<'_>,
        mut attempt: impl FnMut() -> Result<Result<T, Stop>, String>,
    ) -> Result<T, Stop> {
        let mut backoff = self.patience.backoff();
        loop {
            if cancel.is_cancelled() {
                return Err(Stop::CalledOff);
            }
            if term.is_late() {
                return Err(Stop::Late);
            }
            let words = match attempt() {
                Ok(result) => return result,
                Err(words) => words,
            };
            let wait = term.bound(backoff.next(backoff::random()));
            tracing::warn!("{words}; trying again in {wait:?}");
            if cancel.wait(wait) {
                return Err(Stop::CalledOff);
            }
        }
    }
}

/// Whether an image that was checked to its end may be installed now; the download may have taken days. One whose download
/// was over before its end is not, though the clock was put back since: that is begun again where it stopped.
fn checked(
    done: Result<(), DownloadFault>,
    is_late: bool,
    verify: impl FnOnce() -> Result<Manifest, Stop>,
) -> Result<(), Stop> {
    let is_over = match done {
        Ok(()) => false,
        Err(DownloadFault::Over) => true,
        Err(DownloadFault::Cancelled) => return Err(Stop::CalledOff),
        Err(fault) => return Err(failed(fault)),
    };
    if is_late {
        return Err(Stop::Late);
    }
    verify()?;
    if is_over {
        return Err(Stop::Late);
    }
    Ok(())
}

/// Whether the image that lies at `path` is what was signed.
pub(crate) fn whole(
    path: &Path,
    manifest: &Manifest,
    cancel: &Cancel,
) -> Result<(), DownloadFault> {
    let mut image = File::open(path)?.take(manifest.size);
    let mut check = ImageCheck::new(manifest);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if cancel.is_cancelled() {
            return Err(DownloadFault::Cancelled);
        }
        let read = image.read(&mut buffer)?;
        if read == 0 {
            return Ok(check.finish()?);
        }
        check.update(buffer.get(..read).unwrap_or_default())?;
    }
}

/// The delta that makes the image out of the one that runs here.
fn delta_for<'m>(manifest: &'m Manifest, state: &State) -> Option<&'m DeltaSource> {
    let runs = state.active.as_ref()?.sha256.parse().ok()?;
    manifest.delta_from(&runs)
}

#[cfg(test)]
mod tests {
    use ota::ImageFacts;

    use super::*;

    #[test]
    fn what_was_not_checked_to_its_end_is_not_installed_whatever_the_clock_says() {
        let manifest = || {
            let facts = ImageFacts::measure(&b"light"[..]).unwrap();
            Ok(Manifest {
                name: "lamp".parse().unwrap(),
                version: "1.0".parse().unwrap(),
                hardware: ["rev-a".parse().unwrap()].into(),
                requires: None,
                components: Default::default(),
                size: facts.size,
                sha256: facts.sha256,
                chunks: facts.chunks,
                counter: 1,
                expires: SystemTime::now(),
                notes: None,
                deltas: Vec::new(),
            })
        };
        assert!(checked(Ok(()), false, manifest).is_ok());
        let refused =
            |done, is_late, verify: fn() -> _| checked(done, is_late, verify).unwrap_err();
        // It was over, and the clock was put back since.
        let over = || Err(DownloadFault::Over);
        assert!(matches!(refused(over(), false, manifest), Stop::Late));
        assert!(matches!(refused(over(), true, manifest), Stop::Late));
        assert!(matches!(refused(Ok(()), true, manifest), Stop::Late));
        let expired = || Err(rejected("it has expired"));
        for done in [Ok(()), over()] {
            assert!(matches!(refused(done, false, expired), Stop::Refused(_)));
        }
        let called_off = refused(Err(DownloadFault::Cancelled), false, manifest);
        assert!(matches!(called_off, Stop::CalledOff));
    }
}
