//! Who acts, and what is recorded of it. No secret has a place here: of what an operation was asked its name, and the names
//! of what it was about.

use super::millis;
use crate::{
    CertificateRecord, CertificateStatus, EnrolmentWay, ThingName,
    events::{Change, RegistryEvent},
};
use ca::{CertificateId, RevocationReason};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};
use store::Stored;

/// What kind of hand did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doer {
    /// An operator.
    Operator,
    /// A device, under its certificate or with its one-time password.
    Device,
    /// Whoever holds a claim certificate.
    Claim,
    /// Somebody who has not shown who they are.
    Stranger,
    /// The server by itself.
    Server,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Something that is none of the following.
    Changed,
    /// A certificate was signed here.
    Issued,
    /// A certificate that was signed elsewhere was taken in.
    Registered,
    /// A certificate became ACTIVE.
    Activated,
    /// A certificate became INACTIVE.
    Deactivated,
    /// A certificate became REVOKED.
    Revoked,
    /// A certificate's row was deleted.
    Deleted,
}

impl What {
    fn said(self) -> &'static str {
        match self {
            What::Changed => "done",
            What::Issued => "certificate issued",
            What::Registered => "certificate registered",
            What::Activated => "certificate activated",
            What::Deactivated => "certificate deactivated",
            What::Revoked => "certificate revoked",
            What::Deleted => "certificate deleted",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not: something stood in the way.
    Refused,
    /// It was not: whoever asked may not.
    Denied,
}

/// One entry of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What kind of hand did it.
    pub by: Doer,
    /// The operator's name, the device's, or the claim's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The operation, by its name in the API, or the way in.
    pub operation: String,
    /// What was done.
    pub what: What,
    /// What came of it.
    pub outcome: Outcome,
    /// The API's word for why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What it was about, by the API's names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, String>,
    /// The thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thing: Option<String>,
    /// The certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateId>,
    /// The certificate's serial number, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Why it was revoked, in RFC 5280's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// By which way a certificate came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<EnrolmentWay>,
    /// How many of the same kind were not recorded before this one, because there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Stored for Deed {}

impl Deed {
    /// When.
    pub fn moment(&self) -> SystemTime {
        let since = Duration::from_millis(self.at);
        let at = SystemTime::UNIX_EPOCH.checked_add(since);
        at.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Tells the server's log of it.
    pub(crate) fn log(&self) {
        let (name, thing) = (self.name.as_deref(), self.thing.as_deref());
        let (serial, reason) = (self.serial.as_deref(), self.reason.as_deref());
        let address = self.address.map(|address| address.to_string());
        let certificate = self.certificate.map(|id| id.to_string());
        let way = self.way.map(EnrolmentWay::as_str);
        let targets = (!self.targets.is_empty()).then_some(&self.targets);
        let said = match self.outcome {
            Outcome::Done => self.what.said(),
            Outcome::Refused => "refused",
            Outcome::Denied => "denied",
        };
        // A task tells of its lines when it is over: its report has each of them.
        if self.way == Some(EnrolmentWay::Bulk) {
            tracing::debug!(thing, certificate, serial, way, "{said}");
            return;
        }
        tracing::info!(
            by = ?self.by,
            name,
            address,
            operation = self.operation,
            thing,
            certificate,
            serial,
            reason,
            way,
            code = self.code,
            targets = targets.map(tracing::field::debug),
            "{said}"
        );
    }
}

/// Somebody at work.
#[derive(Debug)]
pub struct Acting {
    by: Doer,
    name: Option<String>,
    address: Option<IpAddr>,
    operation: String,
    targets: BTreeMap<String, String>,
    at: SystemTime,
    /// Entries that tell of it.
    written: AtomicUsize,
}

impl Acting {
    /// Somebody who begins an operation at `at`.
    pub fn new(by: Doer, name: Option<String>, operation: &str, at: SystemTime) -> Self {
        Self {
            by,
            name,
            address: None,
            operation: operation.to_owned(),
            targets: BTreeMap::new(),
            at,
            written: AtomicUsize::new(0),
        }
    }

    /// Where they are.
    #[must_use]
    pub fn from(mut self, address: IpAddr) -> Self {
        self.address = Some(address.to_canonical());
        self
    }

    /// What it is about, by the API's names. Nothing secret.
    #[must_use]
    pub fn about(mut self, targets: BTreeMap<String, String>) -> Self {
        self.targets = targets;
        self
    }

    /// Whether an entry tells of it already.
    pub fn is_recorded(&self) -> bool {
        self.written.load(Ordering::Relaxed) > 0
    }

    /// An entry about it.
    pub fn deed(&self, what: What, outcome: Outcome) -> Deed {
        Deed {
            at: millis(self.at),
            by: self.by,
            name: self.name.clone(),
            address: self.address,
            operation: self.operation.clone(),
            what,
            outcome,
            code: None,
            targets: self.targets.clone(),
            thing: None,
            certificate: None,
            serial: None,
            reason: None,
            way: None,
            left_out: 0,
        }
    }

    /// Whether the operation as a whole is to be recorded with what is changed now: an operator's, once.
    pub(super) fn is_first(&self) -> bool {
        self.by == Doer::Operator && !self.is_recorded()
    }

    pub(crate) fn wrote(&self, entries: usize) {
        self.written.fetch_add(entries, Ordering::Relaxed);
    }
}

/// What a transaction does to a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    what: What,
    at: SystemTime,
    pub(super) certificate: CertificateId,
    serial: String,
    reason: Option<RevocationReason>,
    way: Option<EnrolmentWay>,
    /// In the place of a way, of what is no device's.
    operation: Option<&'static str>,
    /// The state it has then; of what is no device's nobody is told.
    status: Option<CertificateStatus>,
}

impl Fact {
    fn of(what: What, record: &CertificateRecord, at: SystemTime) -> Self {
        Self {
            what,
            at,
            certificate: record.id,
            serial: record.serial.to_string(),
            reason: None,
            way: None,
            operation: None,
            status: Some(record.status),
        }
    }

    /// The same for those who watch.
    pub(crate) fn event(&self) -> Option<RegistryEvent> {
        let change = match self.what {
            What::Issued | What::Registered => Change::Created,
            What::Deleted => Change::Deleted,
            What::Changed | What::Activated | What::Deactivated | What::Revoked => Change::Updated,
        };
        let status = self.status?;
        Some(RegistryEvent::Certificate(change, self.certificate, status))
    }

    /// It comes to be.
    pub(crate) fn came(record: &CertificateRecord) -> Self {
        let what = match record.origin {
            crate::Origin::Own => What::Issued,
            crate::Origin::Authority(_) | crate::Origin::Alone => What::Registered,
        };
        Self {
            way: record.way,
            ..Self::of(what, record, record.created)
        }
    }

    /// A certificate that is no device's comes to be.
    pub(crate) fn came_apart(certificate: CertificateId, serial: String) -> Self {
        Self {
            what: What::Issued,
            at: SystemTime::now(),
            certificate,
            serial,
            reason: None,
            way: None,
            operation: Some("OwnCertificate"),
            status: None,
        }
    }

    /// A certificate that is no device's is revoked.
    pub(crate) fn revoked_apart(
        certificate: CertificateId,
        serial: String,
        reason: RevocationReason,
        at: SystemTime,
    ) -> Self {
        Self {
            what: What::Revoked,
            at,
            reason: Some(reason),
            ..Self::came_apart(certificate, serial)
        }
    }

    /// Its state has changed to what the record says.
    pub(crate) fn turned(record: &CertificateRecord, at: SystemTime) -> Option<Self> {
        let what = match record.status {
            CertificateStatus::Active => What::Activated,
            CertificateStatus::Inactive => What::Deactivated,
            CertificateStatus::Revoked => What::Revoked,
            CertificateStatus::PendingActivation => return None,
        };
        let revocation = record.revocation.as_ref();
        Some(Self {
            reason: revocation.map(|revocation| revocation.reason),
            ..Self::of(what, record, at)
        })
    }

    /// Its row goes.
    pub(crate) fn went(record: &CertificateRecord, at: SystemTime) -> Self {
        Self::of(What::Deleted, record, at)
    }

    pub(super) fn deed(self, acting: Option<&Acting>, thing: Option<ThingName>) -> Deed {
        let deed = match acting {
            Some(acting) => acting.deed(self.what, Outcome::Done),
            None => {
                let way = self.way.map(EnrolmentWay::as_str);
                let operation = way.or(self.operation).unwrap_or("Registry");
                Acting::new(Doer::Server, None, operation, self.at).deed(self.what, Outcome::Done)
            }
        };
        Deed {
            at: millis(self.at),
            thing: thing.map(|thing| thing.to_string()),
            certificate: Some(self.certificate),
            serial: Some(self.serial),
            reason: self.reason.map(|reason| reason.name().to_owned()),
            way: self.way,
            ..deed
        }
    }
}
