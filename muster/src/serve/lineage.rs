//! `DIR/authority`: whose certificates the registry in DIR is of. An authority that is gone is not made anew beside it,
//! and another's does not take its place: no device of the registry would trust either.

use anyhow::{Context as _, bail};
use ca::{Authority, IssuerNumber};
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

/// What is put behind a line whose certificate and key are gone for good.
const LOST: &str = " lost";

/// Refuses an authority that is not the registry's, or is an older copy of it, and writes down what is new of it. What is
/// of none yet may be of any, and is of this one from now on. The highest number of an issuing certificate there was.
pub(super) fn keep(
    data: &Path,
    place: &Path,
    authority: &Authority,
) -> anyhow::Result<IssuerNumber> {
    let path = path(data);
    let own = authority.lineage();
    let id = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let first = own.first().map(|line| id(line));
    let first = first.context("the authority has no first issuing certificate")?;
    let kept = read(&path)?;
    if let Some(begun) = kept.first().map(|line| id(line))
        && begun != first
    {
        bail!(
            "{}: its first issuing certificate has the SHA-256 {first}, but the registry in {} is of an authority whose first one has {begun} ({}): restore that authority from a backup, because devices do not trust this one",
            place.display(),
            data.display(),
            path.display()
        );
    }
    // Releases before wrote the first one's SHA-256 alone.
    for line in kept.iter().skip(1) {
        let known = line.strip_suffix(LOST).unwrap_or(line);
        if own.iter().any(|one| one == known) {
            continue;
        }
        if known == line {
            bail!(
                "{} is older than the registry in {}: it does not have {known:?}, which {} names. Restore the ca directory that was there with this registry, or one copy of the whole data directory. Where no copy has it any more, put the word lost behind that line: what it signed is then spoken for by no revocation list and no OCSP answer, so give those devices new certificates (muster device replace)",
                place.display(),
                data.display(),
                path.display()
            );
        }
        tracing::warn!(
            known,
            "a part of the authority is lost: nobody speaks for what it signed"
        );
    }
    record(&path, &own)?;
    let numbers = kept.iter().filter_map(|line| number(line));
    Ok(numbers.max().unwrap_or(IssuerNumber::FIRST))
}

/// Keeps what is new of the authority from now on, each before anything is issued by it.
pub(super) fn follow(data: &Path, authority: &Authority) {
    let path = path(data);
    authority.tell_lineage(move |lines| {
        if let Err(error) = record(&path, lines) {
            tracing::error!(
                error = format!("{error:#}"),
                "what is new of the authority is written down at the next start"
            );
        }
    });
}

/// The number in `SHA-256 issuing N`.
fn number(line: &str) -> Option<IssuerNumber> {
    let mut words = line.split(' ').skip(1);
    let number = words.next().filter(|word| *word == "issuing");
    IssuerNumber::new(number.and(words.next())?.parse().ok()?)
}

fn read(path: &Path) -> anyhow::Result<Vec<String>> {
    match std::fs::read_to_string(path) {
        Ok(kept) => Ok(kept.lines().map(|line| line.trim().to_owned()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Adds the lines that are not there yet.
fn record(path: &Path, lines: &[String]) -> anyhow::Result<()> {
    let mut kept = read(path)?;
    // Of releases before: the same with its name behind.
    if let (Some(bare), Some(first)) = (kept.first_mut(), lines.first())
        && first.split(' ').next() == Some(bare.as_str())
    {
        bare.clone_from(first);
    }
    let before = kept.len();
    for line in lines {
        let lost = format!("{line}{LOST}");
        if !kept.iter().any(|one| one == line || *one == lost) {
            kept.push(line.clone());
        }
    }
    if kept.len() == before {
        return Ok(());
    }
    let text = kept.join("\n") + "\n";
    store::files::write_public(path, text.as_bytes())
        .with_context(|| format!("write {}", path.display()))
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

    /// What a backup of `ca` lacks that was made before a rotation, a succession and a retirement.
    #[test]
    fn an_older_copy_of_the_authority_is_not_taken() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let place = data.join("ca");
        let now = SystemTime::now();
        let open = || authority(&place);
        let mut lines = Vec::new();
        for step in 0..3 {
            let older = data.join(format!("ca-{step}"));
            let first = open();
            keep(data, &place, &first).unwrap();
            follow(data, &first);
            copy(&place, &older);
            match step {
                0 => drop(first.rotate_issuing(now).unwrap()),
                1 => drop(first.succeed_root(None, now).unwrap()),
                _ => first.retire_root(ca::RootNumber::FIRST, true, now).unwrap(),
            }
            // Written by the change itself.
            let kept = read(&path(data)).unwrap();
            assert!(kept.len() > lines.len(), "{kept:?}");
            lines = kept;
            drop(first);
            std::fs::rename(&place, data.join("newer")).unwrap();
            std::fs::rename(&older, &place).unwrap();
            let said = keep(data, &place, &open()).unwrap_err().to_string();
            assert!(said.contains("is older than the registry"), "{said}");
            assert!(said.contains("Restore the ca directory"), "{said}");
            std::fs::remove_dir_all(&place).unwrap();
            std::fs::rename(data.join("newer"), &place).unwrap();
            keep(data, &place, &open()).unwrap();
        }
        // A release before wrote one line, of the first alone.
        let bare = lines.first().unwrap().split(' ').next().unwrap();
        std::fs::write(path(data), format!("{bare}\n")).unwrap();
        keep(data, &place, &open()).unwrap();
        let (mut kept, mut all) = (read(&path(data)).unwrap(), lines);
        kept.sort();
        all.sort();
        assert_eq!(kept, all);
    }

    #[test]
    fn what_is_lost_for_good_is_not_made_again_under_its_number() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let place = data.join("ca");
        let older = data.join("older");
        let first = authority(&place);
        keep(data, &place, &first).unwrap();
        follow(data, &first);
        copy(&place, &older);
        first.rotate_issuing(SystemTime::now()).unwrap();
        drop(first);
        std::fs::remove_dir_all(&place).unwrap();
        std::fs::rename(&older, &place).unwrap();
        assert!(keep(data, &place, &authority(&place)).is_err());
        let kept = std::fs::read_to_string(path(data)).unwrap();
        let lost = kept.replace(" issuing 2", " issuing 2 lost");
        assert_ne!(kept, lost);
        std::fs::write(path(data), lost).unwrap();
        let left = authority(&place);
        let used = keep(data, &place, &left).unwrap();
        let left = left.with_numbers_used(used);
        let next = left.rotate_issuing(SystemTime::now()).unwrap();
        assert_eq!(next.to_string(), "3");
        drop(left);
        keep(data, &place, &authority(&place)).unwrap();
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            if path.is_dir() {
                copy(&path, &to);
            } else {
                std::fs::copy(&path, &to).unwrap();
            }
        }
    }

    #[test]
    fn a_registry_of_before_is_known_by_its_account() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("account"), "000000000000\n").unwrap();
        assert!(check_place(data.path(), &data.path().join("ca")).is_err());
    }
}
