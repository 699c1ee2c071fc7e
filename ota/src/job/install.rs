//! The document of the jobs that install firmware.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, FirmwareName, FirmwareVersion, RolloutId};

/// The `operation` of our install jobs.
pub const INSTALL_OPERATION: &str = "muster.install-firmware";

/// The document of an install job. Unknown fields are passed over: it is a hint where to look, and every
/// promise about the image is in the signed manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallDocument {
    /// [`INSTALL_OPERATION`].
    pub operation: String,
    /// The firmware.
    pub name: FirmwareName,
    /// Its version.
    pub version: FirmwareVersion,
    /// Path of the manifest on the server.
    pub manifest: String,
    /// Path of the image on the server.
    pub image: String,
    /// The rollout it belongs to.
    pub rollout: RolloutId,
    /// Whether this goes back to an earlier version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// When the device's window closes (seconds since 1970, by the server's clock); from then on it is not to begin
    /// the installing. `None` where there is no window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl InstallDocument {
    /// The document that installs `name` `version` for `rollout`.
    #[must_use]
    pub fn new(
        name: FirmwareName,
        version: FirmwareVersion,
        rollout: RolloutId,
        rollback: bool,
    ) -> Self {
        Self {
            operation: INSTALL_OPERATION.into(),
            manifest: format!("/firmware/{name}/{version}/manifest.json"),
            image: format!("/firmware/{name}/{version}/image"),
            name,
            version,
            rollout,
            rollback,
            until: None,
        }
    }

    /// Path of the patch that makes the image out of version `from`'s, on the server. Which there are is
    /// in the signed manifest.
    #[must_use]
    pub fn delta(&self, from: &FirmwareVersion) -> String {
        format!("/firmware/{}/{}/delta/{from}", self.name, self.version)
    }

    /// Reads a job document; `None` where it is some other operation's. Its paths are not believed: they
    /// must be those of the name and version it says.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is an install job and not whole.
    pub fn read(document: &Value) -> Result<Option<Self>, Error> {
        let malformed = |why: String| Error::Malformed {
            what: "install job",
            why,
        };
        if document.get("operation").and_then(Value::as_str) != Some(INSTALL_OPERATION) {
            return Ok(None);
        }
        let read = Self::deserialize(document).map_err(|error| malformed(error.to_string()))?;
        let fresh = Self {
            until: read.until,
            ..Self::new(
                read.name.clone(),
                read.version.clone(),
                read.rollout.clone(),
                read.rollback,
            )
        };
        if read != fresh {
            return Err(malformed(
                "`manifest` or `image` is not the path of what it names".into(),
            ));
        }
        Ok(Some(read))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_install_document_is_the_contracts() {
        let document = InstallDocument::new(
            "lamp".parse().unwrap(),
            "2.0".parse().unwrap(),
            "r1".parse().unwrap(),
            false,
        );
        let value = serde_json::to_value(&document).unwrap();
        assert_eq!(
            value,
            json!({
                "operation": "muster.install-firmware", "name": "lamp", "version": "2.0",
                "manifest": "/firmware/lamp/2.0/manifest.json", "image": "/firmware/lamp/2.0/image", "rollout": "r1"
            })
        );
        assert_eq!(InstallDocument::read(&value).unwrap(), Some(document));
        assert_eq!(
            InstallDocument::read(&json!({"operation": "reboot"})).unwrap(),
            None
        );
        let mut windowed = value.clone();
        windowed["until"] = json!(1_700_000_000);
        let read = InstallDocument::read(&windowed).unwrap().unwrap();
        assert_eq!(read.until, Some(1_700_000_000));
        assert_eq!(serde_json::to_value(&read).unwrap(), windowed);
        let mut elsewhere = value.clone();
        elsewhere["image"] = json!("/../secrets");
        assert!(
            InstallDocument::read(&elsewhere)
                .unwrap_err()
                .to_string()
                .contains("path")
        );
        let mut climbing = value;
        climbing["name"] = json!("../x");
        assert!(
            InstallDocument::read(&climbing)
                .unwrap_err()
                .to_string()
                .contains("firmware name")
        );
    }
}
