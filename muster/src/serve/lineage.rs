//! `DIR/authority`: whose certificates the registry in DIR is of. An authority that is gone is not made anew beside it,
//! and another's does not take its place: no device of the registry would trust either.

use anyhow::{Context as _, bail};
use ca::{Authority, CertificateId, IssuerNumber};
use std::path::{Path, PathBuf};

fn path(data: &Path) -> PathBuf {
    data.join("authority")
}

/// Refuses to begin an authority where there is a registry of one. To be called before one is opened or founded in
/// `place`.
pub(crate) fn check_place(data: &Path, place: &Path) -> anyhow::Result<()> {
    let vacant = match std::fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    // The account was written first by releases that did not write this.
    let registry = [path(data), data.join("account")]
        .into_iter()
        .find(|file| file.exists());
    match registry {
        Some(of) if vacant => bail!(
            "{} is missing or empty, though {} says that there is a registry: restore it from a backup (it is not made anew, because devices would not trust a new authority), or begin with another data directory (--data)",
            place.display(),
            of.display()
        ),
        _ => Ok(()),
    }
}

/// Refuses an authority that is not the registry's. What is of none yet may be of any, and is of this one from now on.
pub(super) fn keep(data: &Path, place: &Path, authority: &Authority) -> anyhow::Result<()> {
    let path = path(data);
    let first = authority
        .issuing_der_of(IssuerNumber::FIRST)
        .context("the authority has no first issuing certificate")?;
    let first = CertificateId::of(&first).to_string();
    match std::fs::read_to_string(&path) {
        Ok(kept) if kept.trim() == first => Ok(()),
        Ok(kept) => bail!(
            "{}: its first issuing certificate has the SHA-256 {first}, but the registry in {} is of an authority whose first one has {} ({}): restore that authority from a backup, because devices do not trust this one",
            place.display(),
            data.display(),
            kept.trim(),
            path.display()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            store::files::write_public(&path, format!("{first}\n").as_bytes())
                .with_context(|| format!("write {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ca::AuthorityConfig;
    use std::time::SystemTime;

    fn authority(place: &Path) -> Authority {
        let config = AuthorityConfig {
            name: "test".to_owned(),
            public_url: "http://localhost".to_owned(),
        };
        Authority::open_or_create(place, config, SystemTime::now()).unwrap()
    }

    #[test]
    fn a_registry_keeps_the_authority_that_it_began_with() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let place = data.join("ca");
        check_place(data, &place).unwrap();
        let first = authority(&place);
        // Founded, and the start failed before there was a registry.
        check_place(data, &place).unwrap();
        keep(data, &place, &first).unwrap();
        keep(data, &place, &authority(&place)).unwrap();

        std::fs::rename(&place, data.join("away")).unwrap();
        for empty in [false, true] {
            if empty {
                std::fs::create_dir(&place).unwrap();
            }
            let said = check_place(data, &place).unwrap_err().to_string();
            assert!(said.contains("restore it from a backup"), "{said}");
            assert!(said.contains(&place.display().to_string()), "{said}");
        }
        let other = authority(&place);
        check_place(data, &place).unwrap();
        let said = keep(data, &place, &other).unwrap_err().to_string();
        assert!(said.contains("restore that authority"), "{said}");
        std::fs::remove_dir_all(&place).unwrap();
        std::fs::rename(data.join("away"), &place).unwrap();
        keep(data, &place, &authority(&place)).unwrap();
    }

    #[test]
    fn a_registry_of_before_is_known_by_its_account() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("account"), "000000000000\n").unwrap();
        assert!(check_place(data.path(), &data.path().join("ca")).is_err());
    }
}
