//! The package versions that a job brings (`destinationPackageVersions`). AWS IoT writes them into a thing's shadow
//! when the job succeeded; here they are what the thing is said to run, as if it had said so itself: no rollout counts
//! on them, and where they are not what a rollout brought they are shown as drift.

use super::Ota;
use super::executions::Changes;
use super::jobs::invalid;
use crate::{Error, FirmwareName, FirmwareVersion};

const FIELD: &str = "destinationPackageVersions";
/// Most of one job (AWS IoT: 25).
const MAX_PACKAGES: usize = 25;

/// Account, name and version of `arn:aws:iot:REGION:ACCOUNT:package/NAME/version/VERSION`.
fn read(arn: &str) -> Option<(&str, FirmwareName, FirmwareVersion)> {
    let mut parts = arn.splitn(6, ':');
    let (Some("arn"), Some(_), Some("iot"), Some(_), Some(account), Some(resource)) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return None;
    };
    let mut words = resource.split('/');
    let (Some("package"), Some(name), Some("version"), Some(version), None) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ) else {
        return None;
    };
    Some((account, name.parse().ok()?, version.parse().ok()?))
}

impl Ota {
    pub(super) fn check_packages(&self, packages: &[String]) -> Result<(), Error> {
        if packages.len() > MAX_PACKAGES {
            return invalid(FIELD, format!("at most {MAX_PACKAGES} are possible"));
        }
        let mut names = std::collections::BTreeSet::new();
        for arn in packages {
            let known =
                read(arn).filter(|(account, ..)| *account == &*self.inner.fleet.realm().account);
            let Some((_, name, _)) = known else {
                let shown: String = arn.chars().take(120).collect();
                return invalid(
                    FIELD,
                    format!(
                        "`{}` is not arn:aws:iot:REGION:ACCOUNT:package/NAME/version/VERSION of this account",
                        shown.escape_debug()
                    ),
                );
            };
            if !names.insert(name.clone()) {
                return invalid(FIELD, format!("package {name} is there twice"));
            }
        }
        Ok(())
    }
}

impl Changes<'_> {
    /// A thing has done a job that brings these.
    pub(super) fn brought_packages(
        &mut self,
        thing: &str,
        packages: &[String],
    ) -> Result<(), Error> {
        for (_, name, version) in packages.iter().filter_map(|arn| read(arn)) {
            self.told_to_run(thing, &name, &version)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_package_and_version_or_nothing() {
        let (account, name, version) =
            read("arn:aws:iot:local:000000000000:package/lamp/version/1.0").unwrap();
        assert_eq!(
            (account, name.as_str(), version.as_str()),
            ("000000000000", "lamp", "1.0")
        );
        for bad in [
            "",
            "lamp/1.0",
            "arn:aws:iot:local:0:package/lamp",
            "arn:aws:iot:local:0:package/lamp/version/",
            "arn:aws:iot:local:0:package/lamp/version/1/2",
            "arn:aws:iot:local:0:package//version/1",
            "arn:aws:iot:local:0:thing/lamp/version/1",
            "arn:aws:s3:local:0:package/lamp/version/1",
            "arn:aws:iot:local:0:package/la mp/version/1",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
