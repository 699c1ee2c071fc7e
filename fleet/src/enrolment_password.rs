//! One-time passwords with which a device without a certificate enrols itself. Made by an operator for one thing, kept
//! as a digest, good once and until they expire. They are random and long, so a digest without salt keeps them.
//!
//! Certificate and use are one batch. Whose answer was lost asks again, with the same password and the same key, and has
//! the same certificate again for a while ([`PASSWORD_ANSWER_AGAIN`]).

use crate::{
    DeviceKey, Enrolled, Enrolment, EnrolmentWay, Fleet, FleetError, GroupName, ThingName,
    attachments::require_policy, keys, registry::Transaction, things,
};
use aws_lc_rs::{constant_time, digest, rand};
use ca::CertificateId;
use data_encoding::BASE32_NOPAD;
use policy::PolicyName;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};
use store::Stored;
use zeroize::Zeroizing;

/// Octets of randomness in a password.
const PASSWORD_BYTES: usize = 20;
/// The longest time a password may be good for.
pub const PASSWORD_LIFE_LIMIT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How long after its use a password and the key it was used with get the same certificate again.
pub const PASSWORD_ANSWER_AGAIN: Duration = Duration::from_secs(60 * 60);

/// What a password was used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    /// What it got.
    certificate: CertificateId,
    /// Until when it gets that again.
    until: SystemTime,
}

/// What the device that has the password becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PasswordRow {
    /// SHA-256.
    digest: Vec<u8>,
    expires: SystemTime,
    policies: Vec<PolicyName>,
    groups: Vec<GroupName>,
    attributes: BTreeMap<String, String>,
    /// Set from its use on.
    #[serde(default)]
    used: Option<Used>,
}

impl Stored for PasswordRow {}

impl PasswordRow {
    fn ends(&self) -> SystemTime {
        self.used.as_ref().map_or(self.expires, |used| used.until)
    }
}

/// A password to be made.
#[derive(Debug, Clone)]
pub struct PasswordTerms {
    /// The thing that it is for. One that exists gets a new certificate in its old ones' place.
    pub thing: ThingName,
    /// The policies of a new thing's certificate.
    pub policies: Vec<PolicyName>,
    /// The groups a new thing joins.
    pub groups: Vec<GroupName>,
    /// A new thing's attributes.
    pub attributes: BTreeMap<String, String>,
    /// How long it is good for.
    pub life: Duration,
}

impl Fleet {
    /// Makes a password for a thing; one that was made for it before is good no more. It is handed out here and not
    /// kept.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for a policy or group; [`FleetError::Invalid`] for a life of nothing or of more than
    /// [`PASSWORD_LIFE_LIMIT`].
    pub fn make_enrolment_password(
        &self,
        terms: &PasswordTerms,
        now: SystemTime,
    ) -> Result<Zeroizing<String>, FleetError> {
        things::check_attributes(&terms.attributes)?;
        if terms.life.is_zero() || terms.life > PASSWORD_LIFE_LIMIT {
            return Err(FleetError::Invalid(format!(
                "an enrolment password is good for 1 s to {} days, not for {} s",
                PASSWORD_LIFE_LIMIT.as_secs() / 86_400,
                terms.life.as_secs()
            )));
        }
        let mut octets = Zeroizing::new([0; PASSWORD_BYTES]);
        rand::fill(octets.as_mut_slice())
            .map_err(|_| ca::CaError::Cryptography("give random octets"))?;
        let password = Zeroizing::new(BASE32_NOPAD.encode(octets.as_slice()));
        let row = PasswordRow {
            digest: hashed(&password),
            expires: now + terms.life,
            policies: terms.policies.clone(),
            groups: terms.groups.clone(),
            attributes: terms.attributes.clone(),
            used: None,
        };
        self.transact(|t| {
            for policy in &terms.policies {
                require_policy(t, policy)?;
            }
            for group in &terms.groups {
                if !t.exists(&keys::group(group))? {
                    return Err(FleetError::not_found(crate::Kind::Group, group));
                }
            }
            t.put(keys::password(&terms.thing), &row)
        })?;
        Ok(password)
    }

    /// Forgets the password of a thing, which need not exist yet; `false` where there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn withdraw_enrolment_password(&self, thing: &ThingName) -> Result<bool, FleetError> {
        self.transact(|t| self.forget_password(t, thing))
    }

    /// Forgets the password of a thing, and says whether there was one.
    pub(crate) fn forget_password(
        &self,
        t: &mut Transaction<'_>,
        thing: &ThingName,
    ) -> Result<bool, FleetError> {
        let there = t.exists(&keys::password(thing))?;
        if there {
            t.delete(keys::password(thing));
        }
        Ok(there)
    }

    /// The same of the thing that a certificate belongs to.
    pub(crate) fn forget_password_of(
        &self,
        t: &mut Transaction<'_>,
        id: &CertificateId,
    ) -> Result<(), FleetError> {
        if let Some(thing) = self.thing_of(id)? {
            self.forget_password(t, &thing)?;
        }
        Ok(())
    }

    /// Enrols the device that has a thing's password, which is used up by it. Asked again with the key of the same CSR
    /// within [`PASSWORD_ANSWER_AGAIN`], it gives the same certificate again, while that is active; nothing new is made.
    ///
    /// # Errors
    /// [`FleetError::Password`] for a password that is wrong, used or expired, without saying which; those of
    /// [`Self::enrol`] and [`Self::replace`], after which it has not been used.
    pub fn enrol_with_password(
        &self,
        thing: &ThingName,
        password: &str,
        key: DeviceKey<'_>,
        now: SystemTime,
    ) -> Result<Enrolled, FleetError> {
        let row = self.password_of(thing, password, now)?;
        if let Some(used) = &row.used {
            return self.answer_again(thing, used, key);
        }
        match self.enrol_with(thing, &row, key, now) {
            // Somebody else was faster, and it may have been the same device; or the thing came to be meanwhile.
            Err(FleetError::Password | FleetError::AlreadyExists { .. }) => {
                let row = self.password_of(thing, password, now)?;
                match &row.used {
                    Some(used) => self.answer_again(thing, used, key),
                    None => self.enrol_with(thing, &row, key, now),
                }
            }
            done => done,
        }
    }

    fn enrol_with(
        &self,
        thing: &ThingName,
        row: &PasswordRow,
        key: DeviceKey<'_>,
        now: SystemTime,
    ) -> Result<Enrolled, FleetError> {
        // In the batch that makes the certificate: a crash leaves both or neither, and of two that come at once one is
        // refused.
        let use_up = |t: &mut Transaction<'_>, certificate: &CertificateId| {
            let at = keys::password(thing);
            if t.get::<PasswordRow>(&at)?.as_ref() != Some(row) {
                return Err(FleetError::Password);
            }
            if matches!(key, DeviceKey::Generate) {
                // A key that was made here was handed out once and is not kept.
                t.delete(at);
                return Ok(());
            }
            let used = Some(Used {
                certificate: *certificate,
                until: now + PASSWORD_ANSWER_AGAIN,
            });
            t.put(
                at,
                &PasswordRow {
                    used,
                    ..row.clone()
                },
            )
        };
        match self.thing(thing) {
            Ok(_) => self.replace_by(EnrolmentWay::Est, thing, key, now, use_up),
            Err(FleetError::NotFound { .. }) => {
                let enrolment = Enrolment {
                    thing: thing.clone(),
                    policies: row.policies.clone(),
                    groups: row.groups.clone(),
                    attributes: row.attributes.clone(),
                    key,
                };
                self.enrol_by(EnrolmentWay::Est, &enrolment, now, use_up)
            }
            Err(other) => Err(other),
        }
    }

    /// What a password got already, for whoever shows the key that it got it with.
    fn answer_again(
        &self,
        thing: &ThingName,
        used: &Used,
        key: DeviceKey<'_>,
    ) -> Result<Enrolled, FleetError> {
        let DeviceKey::Csr(csr) = key else {
            return Err(FleetError::Password);
        };
        self.enrolled_with(thing, csr)?
            .filter(|enrolled| enrolled.certificate.id == used.certificate)
            .ok_or(FleetError::Password)
    }

    /// Whether a password is good now, without using it: to enrol with, or to have the answer again.
    ///
    /// # Errors
    /// [`FleetError::Password`].
    pub fn check_enrolment_password(
        &self,
        thing: &ThingName,
        password: &str,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        self.password_of(thing, password, now).map(drop)
    }

    fn password_of(
        &self,
        thing: &ThingName,
        password: &str,
        now: SystemTime,
    ) -> Result<PasswordRow, FleetError> {
        let row: Option<PasswordRow> = self.read(&keys::password(thing))?;
        row.filter(|row| {
            now < row.ends()
                && constant_time::verify_slices_are_equal(&row.digest, &hashed(password)).is_ok()
        })
        .ok_or(FleetError::Password)
    }
}

fn hashed(password: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, password.as_bytes())
        .as_ref()
        .to_owned()
}
