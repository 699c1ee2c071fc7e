//! Authorities that were made elsewhere and may sign for devices here: registered with a proof of their key, switched
//! on and off, and told apart from our own, which needs no row. A certificate of theirs counts only while it has a row
//! of its own and its authority is ACTIVE; neither can speak for anybody else's certificate, because a certificate is
//! known by the digest of the whole of it.

mod admission;
mod certificates;
mod kin;
mod newcomers;

pub use admission::{Admission, NotAdmitted};
pub use certificates::{ForeignKind, NewForeign};
pub use newcomers::{NEWCOMERS_LIMIT_ITEMS, NewcomerDesk};

pub(crate) use certificates::{forget_vouched, put_vouched};
pub(crate) use kin::{Signer, index, vouches_until};

use crate::events::{Change, RegistryEvent};
use crate::{CertificateStatus, KeyOwner, Tagged, keys, taken};
use crate::{
    Fleet, FleetError, Kind, Page,
    provisioning::{TemplateKind, TemplateName, TemplateRecord},
    records::Present,
    registry::Transaction,
    template::{CERTIFICATE_ID, Template},
};
use aws_lc_rs::rand;
use ca::{CertificateId, ForeignAuthority, ForeignError};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::SystemTime};
use store::Stored;

/// Most authorities with one subject (AWS IoT: 10).
pub const AUTHORITIES_PER_SUBJECT_LIMIT_ITEMS: usize = 10;
const CODE_BYTES: usize = 32;

/// What a template that greets newcomers can ask of a certificate, and the field of the subject it comes from.
pub(crate) const CERTIFICATE_PARAMETERS: [(&str, &str); 7] = [
    ("AWS::IoT::Certificate::Country", "Country"),
    ("AWS::IoT::Certificate::Organization", "Organization"),
    (
        "AWS::IoT::Certificate::OrganizationalUnit",
        "OrganizationalUnit",
    ),
    (
        "AWS::IoT::Certificate::DistinguishedNameQualifier",
        "DistinguishedNameQualifier",
    ),
    ("AWS::IoT::Certificate::StateName", "State"),
    ("AWS::IoT::Certificate::CommonName", "CommonName"),
    ("AWS::IoT::Certificate::SerialNumber", "SerialNumber"),
];

/// Whether an authority's certificates count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthorityStatus {
    /// They do.
    Active,
    /// None of them does.
    Inactive,
}

impl AuthorityStatus {
    /// The AWS name.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthorityStatus::Active => "ACTIVE",
            AuthorityStatus::Inactive => "INACTIVE",
        }
    }
}

impl fmt::Display for AuthorityStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuthorityStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ACTIVE" => Ok(AuthorityStatus::Active),
            "INACTIVE" => Ok(AuthorityStatus::Inactive),
            other => Err(format!(
                "{other:?} is no status of an authority: ACTIVE or INACTIVE"
            )),
        }
    }
}

/// How an authority was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthorityMode {
    /// With a proof that whoever registers it has its key.
    Default,
    /// Without one.
    SniOnly,
}

impl AuthorityMode {
    /// The AWS name.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthorityMode::Default => "DEFAULT",
            AuthorityMode::SniOnly => "SNI_ONLY",
        }
    }
}

/// What becomes of a device whose certificate is new here, where the authority registers by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The template's body.
    pub template_body: Option<String>,
    /// In its place the name of a template of kind JITP.
    pub template_name: Option<TemplateName>,
    /// What AWS's clients send and read back; nothing is decided by it.
    pub role_arn: Option<String>,
}

/// A registered authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// SHA-256 of its certificate's DER.
    pub id: CertificateId,
    /// Its certificate, PEM.
    pub pem: String,
    /// SHA-256 of its subject.
    pub subject_digest: String,
    /// How it was registered.
    pub mode: AuthorityMode,
    /// Whether its certificates count.
    pub status: AuthorityStatus,
    /// Whether a certificate of its that is new here is registered at its first connection.
    pub auto_registration: bool,
    /// What becomes of such a device; without it the certificate waits for an operator.
    pub registration: Option<Registration>,
    /// First moment of its validity.
    pub not_before: SystemTime,
    /// Last moment of its validity.
    pub not_after: SystemTime,
    /// When it was registered.
    pub created: SystemTime,
    /// When it last changed.
    pub modified: SystemTime,
    /// Rises by one with each change; starts at 1.
    pub version: u64,
}

impl Stored for AuthorityRecord {}

impl AuthorityRecord {
    /// Whether certificates of its count at `now`.
    pub fn is_good(&self, now: SystemTime) -> bool {
        self.status == AuthorityStatus::Active && (self.not_before..=self.not_after).contains(&now)
    }
}

/// What proves to an authority's owner that it is registered here and nowhere else.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Code(String);

impl Stored for Code {}

/// An authority to be registered.
#[derive(Debug, Clone)]
pub struct NewAuthority<'a> {
    /// Its certificate, PEM.
    pub certificate: &'a str,
    /// A certificate that it signed over the registration code, PEM; none in [`AuthorityMode::SniOnly`].
    pub verification: Option<&'a str>,
    /// How it is registered.
    pub mode: AuthorityMode,
    /// Whether its certificates count from now on.
    pub active: bool,
    /// Whether new certificates are registered at their first connection.
    pub auto_registration: bool,
    /// What becomes of such devices.
    pub registration: Option<Registration>,
}

/// What is to change of an authority; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct AuthorityChange {
    /// Whether its certificates count.
    pub status: Option<AuthorityStatus>,
    /// Whether new certificates are registered at their first connection.
    pub auto_registration: Option<bool>,
    /// What becomes of such devices; `Some(None)` takes it away.
    pub registration: Option<Option<Registration>>,
}

impl Fleet {
    /// The code that an authority signs to be registered; it is made when it is first asked for.
    ///
    /// # Errors
    /// When the store fails or the system gives no random numbers.
    pub fn registration_code(&self) -> Result<String, FleetError> {
        self.transact(|t| {
            if let Some(Code(code)) = t.get(keys::REGISTRATION_CODE)? {
                return Ok(code);
            }
            let mut secret = [0; CODE_BYTES];
            rand::fill(&mut secret)
                .map_err(|_| ca::CaError::Cryptography("make a registration code"))?;
            let code = HEXLOWER.encode(&secret);
            t.put(keys::REGISTRATION_CODE.to_owned(), &Code(code.clone()))?;
            Ok(code)
        })
    }

    /// Forgets the registration code: the next one is another.
    ///
    /// # Errors
    /// When the store fails.
    pub fn delete_registration_code(&self) -> Result<(), FleetError> {
        self.transact(|t| {
            t.delete(keys::REGISTRATION_CODE.to_owned());
            Ok(())
        })
    }

    /// Registers an authority.
    ///
    /// # Errors
    /// [`FleetError::Foreign`] for a certificate or a proof that is not taken; [`FleetError::AlreadyExists`];
    /// [`FleetError::Limit`] past ten of one subject; [`FleetError::Invalid`], [`FleetError::NotFound`] and
    /// [`FleetError::Template`] for what becomes of devices.
    pub fn register_authority(
        &self,
        new: &NewAuthority<'_>,
        now: SystemTime,
    ) -> Result<AuthorityRecord, FleetError> {
        let authority = ForeignAuthority::parse(new.certificate)?;
        self.refuse_our_own(&authority)?;
        self.refuse_for_authority(&authority.pem, true)?;
        match (new.mode, new.verification) {
            (AuthorityMode::Default, Some(proof)) => {
                authority.prove(proof, &self.registration_code()?)?;
            }
            (AuthorityMode::Default, None) => {
                return Err(ForeignError::Verification(
                    "is missing: sign one with the authority's key over the registration code (GetRegistrationCode), \
                     or register without a proof (certificateMode SNI_ONLY)",
                )
                .into());
            }
            (AuthorityMode::SniOnly, Some(_)) => {
                return Err(FleetError::Invalid(
                    "verificationCertificate is not for certificateMode SNI_ONLY: leave one of them out".into(),
                ));
            }
            (AuthorityMode::SniOnly, None) => {}
        }
        if authority.not_after < now {
            return Err(ForeignError::Unfit {
                what: "caCertificate",
                reason: "has expired: register its successor",
            }
            .into());
        }
        let record = AuthorityRecord {
            id: authority.id,
            pem: authority.pem.clone(),
            subject_digest: authority.subject_digest.clone(),
            mode: new.mode,
            status: match new.active {
                true => AuthorityStatus::Active,
                false => AuthorityStatus::Inactive,
            },
            auto_registration: new.auto_registration,
            registration: new.registration.clone(),
            not_before: authority.not_before,
            not_after: authority.not_after,
            created: now,
            modified: now,
            version: 1,
        };
        let key_id = ca::key_id(&record.pem)?;
        self.transact_alone(|t| {
            if t.exists(&keys::authority(&record.id))? {
                return Err(FleetError::AlreadyExists {
                    kind: Kind::Authority,
                    name: record.id.to_string(),
                    hint: "",
                });
            }
            check_registration(t, record.registration.as_ref())?;
            let namesakes = keys::authorities_named(&record.subject_digest);
            let limit = AUTHORITIES_PER_SUBJECT_LIMIT_ITEMS;
            if self.inner.table.scan(&namesakes, None, limit)?.len() >= limit {
                return Err(FleetError::Limit {
                    what: "authorities with one subject".into(),
                    limit,
                });
            }
            t.put(format!("{namesakes}{}", record.id), &Present)?;
            taken::take(t, &key_id, KeyOwner::Authority)?;
            kin::join(t, &record)?;
            tell(t, Change::Created, &record);
            t.put(keys::authority(&record.id), &record)
        })?;
        Ok(record)
    }

    /// One that looks like ours would let two authorities answer for one name.
    fn refuse_our_own(&self, authority: &ForeignAuthority) -> Result<(), FleetError> {
        let own = &self.inner.authority;
        for der in own.every_authority() {
            let ours =
                ForeignAuthority::parse(&pem::encode(&pem::Pem::new("CERTIFICATE", der.to_vec())));
            let same = |ours: ForeignAuthority| -> Result<bool, FleetError> {
                Ok(ours.subject_digest == authority.subject_digest
                    || ca::key_id(&ours.pem)? == ca::key_id(&authority.pem)?)
            };
            if ours.map_or(Ok(false), same)? {
                return Err(ForeignError::Unfit {
                    what: "caCertificate",
                    reason: "is this server's own, or has its name or key: what our own authority signs is known already",
                }
                .into());
            }
        }
        Ok(())
    }

    /// Reads an authority.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn registered_authority(&self, id: &CertificateId) -> Result<AuthorityRecord, FleetError> {
        self.read(&keys::authority(id))?
            .ok_or_else(|| FleetError::not_found(Kind::Authority, id))
    }

    /// Authorities in order of id.
    ///
    /// # Errors
    /// When the store fails.
    pub fn registered_authorities(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<AuthorityRecord>, FleetError> {
        self.page_of_values(keys::AUTHORITY, after, limit)
    }

    /// Changes an authority's certificate. Sessions of its devices that lose by it have been told when this returns; while
    /// another certificate over its name and key is ACTIVE, nobody loses.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the authority or a template; [`FleetError::Invalid`], [`FleetError::Template`].
    pub fn update_authority(
        &self,
        id: &CertificateId,
        change: &AuthorityChange,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        self.transact(|t| {
            let known: AuthorityRecord = t
                .get(&keys::authority(id))?
                .ok_or_else(|| FleetError::not_found(Kind::Authority, id))?;
            let mut record = known.clone();
            record.status = change.status.unwrap_or(record.status);
            record.auto_registration = change.auto_registration.unwrap_or(record.auto_registration);
            if let Some(registration) = &change.registration {
                check_registration(t, registration.as_ref())?;
                record.registration.clone_from(registration);
            }
            if record == known {
                return Ok(());
            }
            record.modified = now;
            record.version += 1;
            tell(t, Change::Updated, &record);
            t.put(keys::authority(id), &record)
        })?;
        if change.status == Some(AuthorityStatus::Inactive) {
            let others = self.vouching_beside(id)?;
            if !others.is_empty() {
                tracing::warn!(
                    authority = %id, ?others,
                    "the authority's devices stay: other certificates over its name and key are ACTIVE, deactivate those \
                     too to keep the devices out"
                );
            }
        }
        Ok(())
    }

    /// Forgets an authority's certificate that is not active. What it signed stays where it is, and opens no door unless
    /// another certificate over its name and key vouches.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::CertificateState`] while it is active.
    pub fn delete_authority(&self, id: &CertificateId) -> Result<(), FleetError> {
        self.transact_alone(|t| {
            let record: AuthorityRecord = t
                .get(&keys::authority(id))?
                .ok_or_else(|| FleetError::not_found(Kind::Authority, id))?;
            if record.status == AuthorityStatus::Active {
                return Err(FleetError::CertificateState {
                    id: *id,
                    status: CertificateStatus::Active,
                    reason: "deactivate the authority before it is deleted",
                });
            }
            let namesakes = keys::authorities_named(&record.subject_digest);
            t.delete(format!("{namesakes}{id}"));
            Tagged::Authority(*id).forget(t);
            if self
                .inner
                .table
                .scan(&keys::signed_by(id), None, 1)?
                .is_empty()
            {
                kin::leave(t, id)?;
            }
            tell(t, Change::Deleted, &record);
            t.delete(keys::authority(id));
            Ok(())
        })
    }
}

/// What becomes of devices must be something that a certificate alone can answer.
fn check_registration(
    t: &mut Transaction<'_>,
    registration: Option<&Registration>,
) -> Result<(), FleetError> {
    let Some(registration) = registration else {
        return Ok(());
    };
    match (&registration.template_body, &registration.template_name) {
        (Some(body), None) => check_template(body),
        (None, Some(name)) => {
            let record: TemplateRecord = t
                .get(&keys::template(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Template, name))?;
            if record.kind != TemplateKind::Jitp {
                return Err(FleetError::Invalid(format!(
                    "registrationConfig.templateName {name}: the template is for fleet provisioning; make one of type JITP"
                )));
            }
            check_template(&record.default()?.body)
        }
        _ => Err(FleetError::Invalid(
            "registrationConfig has templateBody or templateName, one of them".into(),
        )),
    }
}

pub(crate) fn check_template(body: &str) -> Result<(), FleetError> {
    let template = Template::parse(body)?;
    if !template.takes_certificate_by_id() {
        return Err(FleetError::Invalid(
            "a template for just-in-time provisioning names its certificate by CertificateId: {\"Ref\": \"AWS::IoT::Certificate::Id\"}"
                .into(),
        ));
    }
    let known = |name: &str| {
        name == CERTIFICATE_ID
            || CERTIFICATE_PARAMETERS
                .iter()
                .any(|(known, _)| *known == name)
    };
    match template
        .parameters()
        .find(|(name, has_default)| !has_default && !known(name))
    {
        None => Ok(()),
        Some((name, _)) => Err(FleetError::Invalid(format!(
            "parameter {name:?} of the template: a certificate has no answer to it; there are {} and {CERTIFICATE_ID}, or give it a Default",
            CERTIFICATE_PARAMETERS.map(|(name, _)| name).join(", ")
        ))),
    }
}

fn tell(t: &mut Transaction<'_>, change: Change, record: &AuthorityRecord) {
    t.tell(RegistryEvent::Authority(
        change,
        record.id,
        record.status.as_str(),
    ));
}
