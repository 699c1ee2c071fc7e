//! What a release engineer's verbs write. A key, an image or a trust root that is written over is lost, so nothing that
//! is there is, but the document that the new one follows (`--previous`).

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

/// Refuses an `--out` that is there already, unless it is the very file of `previous`.
pub(super) fn check_out(out: &Path, previous: Option<&Path>) -> anyhow::Result<()> {
    let facts = match std::fs::symlink_metadata(out) {
        Ok(_) => std::fs::metadata(out).with_context(|| format!("--out {}", out.display()))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("--out {}", out.display())),
    };
    let follows = previous
        .and_then(|previous| std::fs::metadata(previous).ok())
        .is_some_and(|previous| (previous.dev(), previous.ino()) == (facts.dev(), facts.ino()));
    if !follows {
        bail!(
            "--out {}: it is there already; name a new file",
            out.display()
        );
    }
    Ok(())
}

/// A file that was not there before; gone again, unless it is [kept](NewFile::keep).
pub(super) struct NewFile<'p> {
    path: &'p Path,
    kept: bool,
}

impl<'p> NewFile<'p> {
    /// Makes it.
    ///
    /// # Errors
    /// Where there is one, or none can be made.
    pub(super) fn create(path: &'p Path) -> anyhow::Result<(Self, File)> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(path)
            .with_context(|| format!("write {}", path.display()))?;
        Ok((Self { path, kept: false }, file))
    }

    /// It is whole.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // Half a file is of no use; where it cannot be removed its reader refuses it.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_there_is_written_over_but_what_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("key"), "key").unwrap();
        std::fs::write(at("root"), "root").unwrap();
        std::fs::hard_link(at("root"), at("same")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("loose")).unwrap();
        assert!(check_out(&at("new"), None).is_ok());
        assert!(check_out(&at("root"), Some(&at("root"))).is_ok());
        assert!(check_out(&at("same"), Some(&at("root"))).is_ok());
        for (out, previous) in [("key", None), ("key", Some(at("root"))), ("loose", None)] {
            assert!(check_out(&at(out), previous.as_deref()).is_err(), "{out}");
        }
        assert!(NewFile::create(&at("key")).is_err());
        assert_eq!(std::fs::read(at("key")).unwrap(), b"key");
        drop(NewFile::create(&at("half")).unwrap());
        assert!(!at("half").exists());
        NewFile::create(&at("whole")).unwrap().0.keep();
        assert!(at("whole").exists());
    }
}
