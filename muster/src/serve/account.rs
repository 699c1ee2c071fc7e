//! `DIR/account`: which account the data is of. Policies name it in their ARNs, so under another one they would grant
//! nothing to any device.

use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};

fn path(data: &Path) -> PathBuf {
    data.join("account")
}

/// Refuses an account that is not the data's. What is of none yet may be of any.
pub(super) fn check(data: &Path, asked: &str) -> anyhow::Result<()> {
    let kept = match std::fs::read_to_string(path(data)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.with_context(|| format!("read {}", path(data).display()))?,
    };
    let kept = kept.trim();
    if kept != asked {
        bail!(
            "account {asked:?}: the data in {} is of account {kept:?}, whose ARNs its policies name, and no device could connect under another: start with --account {kept} (or `account` in the configuration file), or name another data directory (--data)",
            data.display()
        );
    }
    Ok(())
}

/// Keeps the account of what is made from now on.
pub(super) fn keep(data: &Path, account: &str) -> anyhow::Result<()> {
    let path = path(data);
    if path.exists() {
        return Ok(());
    }
    store::files::write_public(&path, format!("{account}\n").as_bytes())
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stays_of_the_account_it_was_made_under() {
        let data = tempfile::tempdir().unwrap();
        let (first, other) = ("000000000000", "123456789012");
        // Nothing was made yet: a start that failed early binds nobody.
        check(data.path(), other).unwrap();
        check(data.path(), first).unwrap();
        keep(data.path(), first).unwrap();
        keep(data.path(), first).unwrap();
        check(data.path(), first).unwrap();
        let said = check(data.path(), other).unwrap_err().to_string();
        for part in [
            &format!("account {other:?}"),
            &format!("of account {first:?}"),
            &format!("--account {first} "),
            &data.path().display().to_string(),
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
