//! What is known of a device's health: policies ask for it, and live sessions feel it change.

use crate::{Attestation, Fleet, FleetError, Kind, ThingName, Violation, keys};
use ca::CertificateId;
use policy::Posture;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use store::Stored;

/// The health of one thing. What nobody has said yet is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Since when and why it is set apart.
    pub quarantine: Option<Quarantine>,
    /// Name and version of the firmware that it last installed by a job.
    pub firmware: Option<(String, String)>,
    /// That it has proven what it runs, until when and for which certificate.
    pub attestation: Option<Attestation>,
    /// What it last did that no sound device does.
    pub violation: Option<Violation>,
}

/// A device set apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The moment of the decision.
    pub since: SystemTime,
    /// Why, in an operator's words.
    pub reason: Option<String>,
}

impl Stored for Health {}

impl Health {
    /// What policies are told of it where a certificate speaks for the thing.
    pub(crate) fn posture(&self, certificate: Option<&CertificateId>) -> Posture {
        let counts = |one: &&Attestation| certificate.is_some_and(|id| one.is_for(id));
        let attestation = self.attestation.as_ref().filter(counts);
        let (name, version) = self
            .firmware
            .as_ref()
            .map_or((None, None), |(name, version)| {
                (Some(name.as_str().into()), Some(version.as_str().into()))
            });
        Posture {
            firmware_name: name,
            firmware_version: version,
            quarantined: Some(self.quarantine.is_some()),
            attested: Some(attestation.is_some()),
            attested_until: attestation.and_then(|one| seconds(one.until)),
            last_violation: self.violation.as_ref().and_then(|one| seconds(one.at)),
        }
    }
}

/// Whole seconds since 1970.
fn seconds(moment: SystemTime) -> Option<i64> {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    since.as_secs().try_into().ok()
}

impl Fleet {
    /// What is known of a thing's health.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn health(&self, thing: &ThingName) -> Result<Health, FleetError> {
        self.thing(thing)?;
        Ok(self.read(&keys::posture(thing))?.unwrap_or_default())
    }

    /// Notes what things have last installed by a job: firmware and version; those that are gone are passed
    /// over. Their live sessions are judged again before this returns.
    ///
    /// # Errors
    /// When the store fails.
    pub fn set_firmware(
        &self,
        installed: &[(ThingName, (String, String))],
    ) -> Result<(), FleetError> {
        if installed.is_empty() {
            return Ok(());
        }
        self.transact(|t| {
            for (thing, firmware) in installed {
                if !t.exists(&keys::thing(thing))? {
                    continue;
                }
                let mut health: Health = t.get(&keys::posture(thing))?.unwrap_or_default();
                if health.firmware.as_ref() != Some(firmware) {
                    health.firmware = Some(firmware.clone());
                    t.put(keys::posture(thing), &health)?;
                }
            }
            Ok(())
        })
    }

    /// Changes what is known of a thing's health; its live sessions are judged again before this
    /// returns.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn set_health(
        &self,
        thing: &ThingName,
        change: impl Fn(&mut Health),
    ) -> Result<Health, FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let before: Option<Health> = t.get(&keys::posture(thing))?;
            let mut health = before.clone().unwrap_or_default();
            change(&mut health);
            if before.as_ref() != Some(&health) {
                t.put(keys::posture(thing), &health)?;
            }
            Ok(health)
        })
    }
}
