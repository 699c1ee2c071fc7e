//! What a device still knows where its state file is gone or torn, as no power cut leaves it but a worn disk may: how low
//! a security counter it must not take any more, and which image runs, so that the next one does not take its place. Both
//! stand in the signed manifests beside its images, of which those count that were confirmed (`mark.rs`). All else it is
//! told again.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ota::manifest::MAX_MANIFEST_BYTES;
use ota::{Manifest, Root, Targets};

use crate::AgentError;
use crate::cancel::Cancel;
use crate::health::{Subject, Verdict};
use crate::hooks::{Hook, Hooks};
use crate::install;
use crate::mark;
use crate::slots::Slots;
use crate::state::{self, StateDir};
use crate::trust;
use crate::update::{Installed, Slot, State};

/// The state as it lies there; where there is none, a new one that takes no image older than those in the slots, nor the
/// place of the one that runs. One that cannot be understood is set aside as `state.json.torn`.
///
/// # Errors
/// [`AgentError::State`] where it is a newer agent's, or the disk says no.
pub(crate) fn load(
    state: &StateDir,
    slots: &dyn Slots,
    hooks: &Hooks,
) -> Result<State, AgentError> {
    let path = state.path().join("state.json");
    match state.load() {
        Ok(found) if path.exists() => {
            // One of before there were marks. The state is whole: a disk that is full does not keep the agent from starting.
            state.mark(&found);
            return Ok(found);
        }
        Ok(_) => {}
        Err(AgentError::StateTorn { what, .. }) => {
            let aside = path.with_extension("json.torn");
            let kept = state.files().rename(&path, &aside);
            let kept = kept.and_then(|()| state.files().sync_dir(state.path()));
            kept.map_err(|error| state::fault(&path, format!("could not set it aside: {error}")))?;
            tracing::error!(
                "{} cannot be understood ({what}); it is set aside as {}, and what it said is asked for again",
                path.display(),
                aside.display()
            );
        }
        Err(error) => return Err(error),
    }
    let there = signed(state)?;
    let confirmed = there.iter().filter(|one| one.confirmed);
    let counter = confirmed.map(|one| one.manifest.counter).max();
    let counter = counter.unwrap_or_default();
    if counter > 0 {
        tracing::warn!(
            "security counter {counter} is taken from the signed manifests in the slots"
        );
    }
    let active = running(state, there, slots, hooks);
    if let Some(active) = &active {
        tracing::warn!(
            "{} {} in slot {} is taken for what runs here",
            active.name,
            active.version,
            active.slot.as_str()
        );
    }
    let found = State {
        counter,
        active,
        ..State::default()
    };
    if found != State::default() {
        // Whoever starts the device's program asks the file which slot it lies in.
        state.save(&found)?;
    }
    Ok(found)
}

/// What a slot has.
struct There {
    slot: Slot,
    manifest: Manifest,
    since: SystemTime,
    /// One whose trial was not over, or ended badly, was not.
    confirmed: bool,
}

impl There {
    fn installed(&self) -> Installed {
        Installed {
            slot: self.slot,
            name: self.manifest.name.to_string(),
            version: self.manifest.version.to_string(),
            counter: self.manifest.counter,
            sha256: self.manifest.sha256.to_string(),
        }
    }
}

/// Which of them runs: the one that the device says it runs from, where it can be asked; else of those that were confirmed
/// and are whole the one with the higher counter, and of equal ones the one that came last.
fn running(
    state: &StateDir,
    mut there: Vec<There>,
    slots: &dyn Slots,
    hooks: &Hooks,
) -> Option<Installed> {
    let never = Cancel::default();
    there.retain(|one| one.confirmed || hooks.booted.is_some());
    there.sort_by_key(|one| (one.manifest.counter, one.since));
    let mut newest_first = there.into_iter().rev();
    let runs = newest_first.find(|one| {
        let image = slots.image(one.slot);
        if hooks.booted.is_none() {
            return install::whole(&image, &one.manifest, &never).is_ok();
        }
        let version = one.manifest.version.to_string();
        let subject = Subject {
            image: &image,
            slot: one.slot,
            version: &version,
            state: state.path(),
        };
        hooks.run(Hook::Booted, &subject, &never) == Verdict::Healthy
    });
    runs.map(|one| one.installed())
}

/// The slots' manifests that are signed by whom the device trusts.
fn signed(state: &StateDir) -> Result<Vec<There>, AgentError> {
    let Some(root) = trust::kept(state)? else {
        return Ok(Vec::new());
    };
    let delegations = read(&state.delegations());
    let delegations = delegations.and_then(|bytes| Targets::read(&bytes, &root).ok());
    let there = |slot: Slot| {
        let dir = state.path().join("slots").join(slot.as_str());
        let path = dir.join("manifest.json");
        let manifest = verified(&read(&path)?, &root, delegations.as_ref())?;
        let changed = std::fs::metadata(&path).and_then(|facts| facts.modified());
        let hash = manifest.sha256.to_string();
        let mark = mark::read(state.path(), slot).filter(|(marked, _)| *marked == hash);
        Some(There {
            slot,
            manifest,
            confirmed: mark.is_some(),
            since: mark.map_or(changed.unwrap_or(UNIX_EPOCH), |(_, since)| since),
        })
    };
    let mut there: Vec<There> = [Slot::A, Slot::B].into_iter().filter_map(there).collect();
    let marked = |slot| mark::read(state.path(), slot).is_some();
    if !marked(Slot::A) && !marked(Slot::B) {
        // An agent of before there were marks.
        there.iter_mut().for_each(|one| one.confirmed = true);
    }
    Ok(there)
}

/// One manifest. Whether it has expired since is no matter.
fn verified(signed: &[u8], root: &Root, delegations: Option<&Targets>) -> Option<Manifest> {
    let verified = Manifest::verify_under(signed, root, delegations, UNIX_EPOCH);
    verified.ok().map(|(manifest, _)| manifest)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let facts = std::fs::metadata(path).ok()?;
    let fits = facts.len() <= MAX_MANIFEST_BYTES as u64;
    fits.then(|| std::fs::read(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ota::{ImageFacts, ReleaseKey, RootSpec};

    use super::*;
    use crate::files::Disk;
    use crate::slots::DirectorySlots;

    const LIGHT: &[u8] = b"light";

    struct Device {
        dir: tempfile::TempDir,
        team: ReleaseKey,
    }

    impl Device {
        /// With images of this counter in its slots, signed by its release team.
        fn with(slots: &[(Slot, u64)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let team = ReleaseKey::generate().unwrap();
            let root = RootSpec {
                release_keys: vec![team.public()],
                threshold: 1,
                online: None,
                expires: SystemTime::now() + Duration::from_secs(3600),
                previous: None,
            };
            let root = root.sign(std::slice::from_ref(&team)).unwrap().bytes;
            let device = Self { dir, team };
            std::fs::write(device.state().trust_root(), root).unwrap();
            for (slot, counter) in slots {
                device.put(*slot, *counter, &device.team);
            }
            device
        }

        fn state(&self) -> StateDir {
            StateDir::open(self.dir.path(), Arc::new(Disk)).unwrap()
        }

        fn put(&self, slot: Slot, counter: u64, key: &ReleaseKey) {
            let facts = ImageFacts::measure(LIGHT).unwrap();
            let manifest = Manifest {
                name: "lamp".parse().unwrap(),
                version: format!("1.{counter}").parse().unwrap(),
                hardware: ["rev-a".parse().unwrap()].into(),
                requires: None,
                components: Default::default(),
                size: facts.size,
                sha256: facts.sha256,
                chunks: facts.chunks,
                counter,
                expires: SystemTime::now() - Duration::from_secs(3600),
                notes: None,
                deltas: Vec::new(),
            };
            let dir = self.dir.path().join("slots").join(slot.as_str());
            std::fs::create_dir_all(&dir).unwrap();
            let signed = manifest.sign(std::slice::from_ref(key)).unwrap();
            std::fs::write(dir.join("manifest.json"), signed).unwrap();
            std::fs::write(dir.join("image"), LIGHT).unwrap();
        }

        fn load(&self, hooks: &Hooks) -> Result<State, AgentError> {
            let slots = DirectorySlots::new(self.dir.path());
            load(&self.state(), &slots, hooks)
        }

        /// What is taken for running, and where the next image goes.
        fn runs(&self, hooks: &Hooks) -> (Option<String>, Slot) {
            let _ = std::fs::remove_file(self.dir.path().join("state.json"));
            let state = self.load(hooks).unwrap();
            assert_eq!(self.state().load().unwrap(), state, "kept");
            let slot = state.idle_slot();
            (state.active.map(|active| active.version), slot)
        }
    }

    #[test]
    fn a_state_that_is_gone_or_torn_leaves_the_counter_of_the_signed_manifests() {
        let device = Device::with(&[(Slot::A, 7)]);
        let thief = ReleaseKey::generate().unwrap();
        device.put(Slot::B, 99, &thief);
        let load = || device.load(&Hooks::default());
        let path = device.dir.path().join("state.json");
        assert_eq!(load().unwrap().counter, 7, "gone");
        let torn = r#"{"format":1,"counter":9,"fin"#;
        std::fs::write(&path, torn).unwrap();
        assert_eq!(load().unwrap().counter, 7, "torn");
        let aside = std::fs::read_to_string(path.with_extension("json.torn"));
        assert_eq!(aside.unwrap(), torn);
        let saved = State {
            counter: 12,
            ..State::default()
        };
        device.state().save(&saved).unwrap();
        assert_eq!(load().unwrap(), saved);
        std::fs::write(&path, r#"{"format":2,"counter":0,"finished":[]}"#).unwrap();
        assert!(load().unwrap_err().to_string().contains("newer agent"));
    }

    #[test]
    fn what_was_not_confirmed_neither_runs_nor_counts() {
        let none = Hooks::default();
        let device = Device::with(&[(Slot::A, 7), (Slot::B, 8)]);
        let image = |slot: Slot| {
            let dir = device.dir.path().join("slots").join(slot.as_str());
            let manifest = std::fs::read(dir.join("manifest.json")).unwrap();
            let stated = Manifest::stated(&manifest).unwrap();
            Installed {
                slot,
                name: "lamp".into(),
                version: stated.version.to_string(),
                counter: stated.counter,
                sha256: stated.sha256.to_string(),
            }
        };
        // The state is saved, as it is at a confirmation, and lost.
        let confirm = |slot| {
            let state = State {
                active: Some(image(slot)),
                ..State::default()
            };
            device.state().save(&state).unwrap();
        };
        confirm(Slot::A);
        assert_eq!(device.runs(&none), (Some("1.7".into()), Slot::B));
        assert_eq!(device.load(&none).unwrap().counter, 7);
        confirm(Slot::B);
        assert_eq!(device.runs(&none), (Some("1.8".into()), Slot::A));
        // Another image has come into the slot since, and its trial went badly.
        let slots = DirectorySlots::new(device.dir.path());
        let again = || {
            let part = device.dir.path().join("part");
            std::fs::write(&part, LIGHT).unwrap();
            part
        };
        let papers = device.dir.path().join("slots/b/manifest.json");
        let signed = std::fs::read(&papers).unwrap();
        let stated = Manifest::stated(&signed).unwrap();
        slots
            .install(&Disk, Slot::B, &again(), &signed, &stated)
            .unwrap();
        assert_eq!(device.runs(&none), (Some("1.7".into()), Slot::B));
        // Where the device can be asked it knows.
        let booted = Hooks {
            booted: Some("test $MUSTER_SLOT = b".into()),
            ..Hooks::default()
        };
        assert_eq!(device.runs(&booted), (Some("1.8".into()), Slot::A));
        slots
            .install(&Disk, Slot::B, &again(), &signed, &stated)
            .unwrap();
        assert_eq!(device.runs(&none), (Some("1.7".into()), Slot::B));
        // A state of before there were marks is marked as soon as it is read.
        std::fs::remove_file(mark::path(device.dir.path(), Slot::A)).unwrap();
        device.load(&none).unwrap();
        assert!(mark::read(device.dir.path(), Slot::A).is_some());
    }

    /// Of the first image there is nothing before to fall back to, and no mark of another that would tell it apart.
    #[test]
    fn the_first_image_that_was_ever_tried_does_not_run_because_it_is_there() {
        let none = Hooks::default();
        let device = Device::with(&[(Slot::A, 7)]);
        let papers = device.dir.path().join("slots/a/manifest.json");
        let signed = std::fs::read(&papers).unwrap();
        let stated = Manifest::stated(&signed).unwrap();
        let part = device.dir.path().join("part");
        std::fs::write(&part, LIGHT).unwrap();
        DirectorySlots::new(device.dir.path())
            .install(&Disk, Slot::A, &part, &signed, &stated)
            .unwrap();
        assert_eq!(device.runs(&none), (None, Slot::A));
        assert_eq!(device.load(&none).unwrap().counter, 0);
        let booted = Hooks {
            booted: Some("test $MUSTER_SLOT = a".into()),
            ..Hooks::default()
        };
        assert_eq!(device.runs(&booted), (Some("1.7".into()), Slot::B));
    }

    #[test]
    fn a_whole_state_is_taken_and_saved_where_its_mark_cannot_be_written() {
        let device = Device::with(&[(Slot::A, 7)]);
        let mut state = State {
            counter: 7,
            active: device.load(&Hooks::default()).unwrap().active,
            ..State::default()
        };
        let mark = mark::path(device.dir.path(), Slot::A);
        std::fs::remove_file(&mark).unwrap();
        // No file can be written there, as on a full disk.
        let full = mark.with_extension("tmp");
        std::fs::create_dir(&full).unwrap();
        assert_eq!(device.load(&Hooks::default()).unwrap(), state);
        state.counter = 8;
        device.state().save(&state).unwrap();
        assert_eq!(device.load(&Hooks::default()).unwrap(), state);
        assert!(!mark.exists());
        // Once there is room.
        std::fs::remove_dir(&full).unwrap();
        device.load(&Hooks::default()).unwrap();
        assert!(mark::read(device.dir.path(), Slot::A).is_some());
    }

    #[test]
    fn what_runs_is_not_overwritten_by_the_next_image_after_the_state_is_gone() {
        let none = Hooks::default();
        assert_eq!(Device::with(&[]).runs(&none), (None, Slot::A));
        let runs = |version: &str, idle| (Some(version.to_owned()), idle);
        let unmarked = |device: &Device, hooks: &Hooks| {
            for slot in [Slot::A, Slot::B] {
                let _ = std::fs::remove_file(mark::path(device.dir.path(), slot));
            }
            device.runs(hooks)
        };
        let only = Device::with(&[(Slot::A, 7)]);
        assert_eq!(unmarked(&only, &none), runs("1.7", Slot::B));
        let device = Device::with(&[(Slot::A, 7), (Slot::B, 6)]);
        assert_eq!(unmarked(&device, &none), runs("1.7", Slot::B));
        // Where the device can be asked that counts: it may have been gone back to.
        let asked = |command: &str| Hooks {
            booted: Some(command.into()),
            ..Hooks::default()
        };
        let booted = asked("test $MUSTER_SLOT = b -a $MUSTER_VERSION = 1.6");
        assert_eq!(unmarked(&device, &booted), runs("1.6", Slot::A));
        assert_eq!(unmarked(&device, &asked("false")), (None, Slot::A));
        // What is not what was signed runs nowhere.
        std::fs::write(device.dir.path().join("slots/a/image"), "night").unwrap();
        assert_eq!(unmarked(&device, &none), runs("1.6", Slot::A));
        // Of equal counters the one that came last.
        let equal = Device::with(&[(Slot::A, 7), (Slot::B, 7)]);
        let manifest = equal.dir.path().join("slots/b/manifest.json");
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        let file = std::fs::File::options().write(true).open(manifest).unwrap();
        file.set_modified(long_ago).unwrap();
        assert_eq!(unmarked(&equal, &none).1, Slot::B);
        file.set_modified(long_ago + Duration::from_secs(120))
            .unwrap();
        assert_eq!(unmarked(&equal, &none).1, Slot::A);
    }
}
