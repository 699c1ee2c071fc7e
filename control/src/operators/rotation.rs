//! An operator gets other keys. Its old ones are good until the new ones are durable, wherever they are kept, and what
//! cannot be written changes nothing: there may be nobody else who could make new ones.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ca::{Authority, RevocationReason};

use super::{FILES, NewOperator, Operator, OperatorName, Operators, Rotated};
use crate::ControlError;

/// What a new file is called, behind its name, until the registry knows of it.
const NEXT: &str = ".next";

impl Operators {
    /// Gives an operator another key, certificate and secret; what it had is refused from then on.
    /// Files of its that lie beside the registry are written anew. `note` writes down elsewhere what must be known of
    /// the certificate before it is used.
    ///
    /// # Errors
    /// [`ControlError::Unknown`]; when `note`, the authority or the disk fails. Nothing has changed then, and what the
    /// operator has is good.
    pub fn rotate<E: From<ControlError>>(
        &self,
        name: &OperatorName,
        authority: &Authority,
        now: SystemTime,
        note: impl FnOnce(&Operator) -> Result<(), E>,
    ) -> Result<Rotated, E> {
        let _change = self.inner.change.lock();
        let known = self.inner.snapshot.load();
        let Some(before) = known.by_name.get(name).cloned() else {
            return Err(ControlError::Unknown(name.clone()).into());
        };
        let made = self.make(name, before.role, authority, now)?;
        note(&made.operator)?;
        let is_beside = self.file(name, ".credentials").exists();
        let written = if is_beside { self.stage(&made) } else { Ok(()) };
        let written = written.and_then(|()| {
            let (old, reason) = (&before.certificate, RevocationReason::Superseded);
            self.keep_leaving(old, reason, |all| {
                for one in all.iter_mut().filter(|one| one.name == *name) {
                    *one = made.operator.clone();
                }
            })
        });
        if let Err(error) = written {
            self.unstage(name);
            return Err(error.into());
        }
        // The keys are in the answer as well: a file that stays as it was for now is no reason to keep them back.
        let put = if is_beside { self.put(name) } else { Ok(()) };
        if let Err(error) = &put {
            tracing::error!(operator = %name, %error, "new files of an operator are not in their place before the next start");
        }
        let kept = is_beside && put.is_ok();
        Ok(Rotated { made, before, kept })
    }

    /// Writes an operator's new files beside its old ones.
    fn stage(&self, made: &NewOperator) -> Result<(), ControlError> {
        let next = |suffix| next(&self.file(&made.operator.name, suffix));
        store::files::write_private(&next(".key"), made.private_key_pem.as_bytes())?;
        store::files::write_public(&next(".crt"), made.certificate_pem.as_bytes())?;
        // The last of them: where it is, all of them are.
        store::files::write_private(&next(".credentials"), made.credentials.as_bytes())?;
        Ok(())
    }

    /// Puts an operator's new files in the place of its old ones; the credentials last, as they were written.
    fn put(&self, name: &OperatorName) -> Result<(), ControlError> {
        for suffix in [".key", ".crt", ".credentials"] {
            let path = self.file(name, suffix);
            match std::fs::rename(next(&path), &path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ControlError::Write {
                        path,
                        source: error,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unstage(&self, name: &OperatorName) {
        for suffix in FILES {
            let path = next(&self.file(name, suffix));
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a file of keys that nobody has stays");
            }
        }
    }

    /// Finishes rotations that a crash cut short, or takes back what is left of them: the registry says which.
    pub(super) fn finish_rotations(&self) -> Result<(), ControlError> {
        for operator in self.list() {
            let staged = next(&self.file(&operator.name, ".credentials"));
            let staged = std::fs::read_to_string(staged).unwrap_or_default();
            if staged.contains(operator.key.access_key_id()) {
                self.put(&operator.name)?;
            } else {
                self.unstage(&operator.name);
            }
        }
        Ok(())
    }
}

fn next(path: &Path) -> PathBuf {
    let mut next = path.as_os_str().to_owned();
    next.push(NEXT);
    next.into()
}
