//! What a device still knows where its state file is gone or torn, as no power cut leaves it but a worn disk may: how low
//! a security counter it must not take any more, which stands in the signed manifests beside its images. All else it is
//! told again.

use std::path::Path;
use std::time::UNIX_EPOCH;

use ota::manifest::MAX_MANIFEST_BYTES;
use ota::{Manifest, Root, Targets};

use crate::AgentError;
use crate::state::{self, StateDir};
use crate::trust;
use crate::update::{Slot, State};

/// The state as it lies there; where there is none, a new one that takes no image older than those in the slots. One that
/// cannot be understood is set aside as `state.json.torn`.
///
/// # Errors
/// [`AgentError::State`] where it is a newer agent's, or the disk says no.
pub(crate) fn load(state: &StateDir) -> Result<State, AgentError> {
    let path = state.path().join("state.json");
    match state.load() {
        Ok(found) if path.exists() => return Ok(found),
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
    let counter = floor(state)?;
    if counter > 0 {
        tracing::warn!(
            "security counter {counter} is taken from the signed manifests in the slots"
        );
    }
    Ok(State {
        counter,
        ..State::default()
    })
}

/// The highest security counter in the slots' manifests that are signed by whom the device trusts.
fn floor(state: &StateDir) -> Result<u64, AgentError> {
    let Some(root) = trust::kept(state)? else {
        return Ok(0);
    };
    let delegations = read(&state.delegations());
    let delegations = delegations.and_then(|bytes| Targets::read(&bytes, &root).ok());
    let counter = |slot: Slot| {
        let dir = state.path().join("slots").join(slot.as_str());
        counter(
            &read(&dir.join("manifest.json"))?,
            &root,
            delegations.as_ref(),
        )
    };
    Ok([Slot::A, Slot::B]
        .into_iter()
        .filter_map(counter)
        .max()
        .unwrap_or_default())
}

/// That of one manifest. Whether it has expired since is no matter.
fn counter(signed: &[u8], root: &Root, delegations: Option<&Targets>) -> Option<u64> {
    let verified = Manifest::verify_under(signed, root, delegations, UNIX_EPOCH);
    verified.ok().map(|(manifest, _)| manifest.counter)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let facts = std::fs::metadata(path).ok()?;
    let fits = facts.len() <= MAX_MANIFEST_BYTES as u64;
    fits.then(|| std::fs::read(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use ota::{ImageFacts, ReleaseKey, RootSpec};

    use super::*;
    use crate::files::Disk;

    #[test]
    fn a_state_that_is_gone_or_torn_leaves_the_counter_of_the_signed_manifests() {
        let dir = tempfile::tempdir().unwrap();
        let (team, thief) = (
            ReleaseKey::generate().unwrap(),
            ReleaseKey::generate().unwrap(),
        );
        let later = SystemTime::now() + Duration::from_secs(3600);
        let root = RootSpec {
            release_keys: vec![team.public()],
            threshold: 1,
            online: None,
            expires: later,
            previous: None,
        };
        let root = root.sign(std::slice::from_ref(&team)).unwrap().bytes;
        let state = StateDir::open(dir.path(), Arc::new(Disk)).unwrap();
        std::fs::write(state.trust_root(), root).unwrap();
        let facts = ImageFacts::measure(&b"light"[..]).unwrap();
        for (slot, counter, key) in [("a", 7, &team), ("b", 99, &thief)] {
            let manifest = Manifest {
                name: "lamp".parse().unwrap(),
                version: "1.0".parse().unwrap(),
                hardware: ["rev-a".parse().unwrap()].into(),
                requires: None,
                components: Default::default(),
                size: facts.size,
                sha256: facts.sha256,
                chunks: facts.chunks.clone(),
                counter,
                expires: SystemTime::now() - Duration::from_secs(3600),
                notes: None,
                deltas: Vec::new(),
            };
            let slot = dir.path().join("slots").join(slot);
            std::fs::create_dir_all(&slot).unwrap();
            let signed = manifest.sign(std::slice::from_ref(key)).unwrap();
            std::fs::write(slot.join("manifest.json"), signed).unwrap();
        }
        let path = dir.path().join("state.json");
        assert_eq!(load(&state).unwrap().counter, 7, "gone");
        std::fs::write(&path, r#"{"format":1,"counter":9,"fin"#).unwrap();
        assert_eq!(load(&state).unwrap().counter, 7, "torn");
        assert!(!path.exists() && dir.path().join("state.json.torn").exists());
        let saved = State {
            counter: 12,
            ..State::default()
        };
        state.save(&saved).unwrap();
        assert_eq!(load(&state).unwrap(), saved);
        std::fs::write(&path, r#"{"format":2,"counter":0,"finished":[]}"#).unwrap();
        assert!(
            load(&state)
                .unwrap_err()
                .to_string()
                .contains("newer agent")
        );
    }
}
