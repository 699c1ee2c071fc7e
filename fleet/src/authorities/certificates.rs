//! Certificates that somebody else signed: registered by an operator, under their authority or alone.

use super::AuthorityRecord;
use crate::{
    Attachment, CertificateRecord, CertificateStatus, EnrolmentWay, Fleet, FleetError, GroupName,
    Kind, Origin, Page, Target, ThingName,
    attachments::{put_attachment, put_binding, require_policy},
    deeds::Fact,
    groups::put_memberships,
    holders,
    issued::RevokedRow,
    keys,
    records::{Present, Thing},
    registry::Transaction,
    things,
};
use ca::{CertificateId, CsrError, ForeignAuthority, ForeignCertificate, ForeignError, PublicKey};
use policy::PolicyName;
use std::{collections::BTreeMap, time::SystemTime};

/// Under whom a certificate is registered.
#[derive(Debug, Clone, Copy)]
pub enum ForeignKind<'a> {
    /// The registered authority that signed it; it may be named by its certificate (PEM).
    Authority(Option<&'a str>),
    /// Nobody: it is believed by itself, as it is.
    Alone,
}

/// A certificate made elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct NewForeign<'a> {
    /// The certificate, PEM.
    pub pem: &'a str,
    /// Under whom.
    pub kind: ForeignKind<'a>,
    /// Its state from now on.
    pub status: CertificateStatus,
}

impl Fleet {
    /// Registers a certificate that was made elsewhere; it belongs to no thing yet.
    ///
    /// # Errors
    /// [`FleetError::Foreign`] for a certificate that is not taken or that no registered authority signed;
    /// [`FleetError::AlreadyExists`]; [`FleetError::CertificateState`] for an authority that is not active, and for a
    /// certificate that was revoked before; [`FleetError::Invalid`] for a state it cannot begin in.
    pub fn register_certificate(
        &self,
        new: &NewForeign<'_>,
        now: SystemTime,
    ) -> Result<CertificateRecord, FleetError> {
        let (record, authority) = self.foreign_record(new, now)?;
        self.transact(|t| {
            self.put_new_foreign(t, &record, authority.as_ref())?;
            Ok(())
        })?;
        Ok(record)
    }

    /// Makes a device of a certificate that was made elsewhere by a registered authority, in one batch.
    ///
    /// # Errors
    /// As [`Self::register_certificate`] and [`Self::enrol`].
    pub fn import_device(
        &self,
        thing: &ThingName,
        pem: &str,
        policies: &[PolicyName],
        groups: &[GroupName],
        attributes: &BTreeMap<String, String>,
        now: SystemTime,
    ) -> Result<CertificateRecord, FleetError> {
        things::check_attributes(attributes)?;
        let limits = self.policy_limits();
        limits.check_attached("policies of one certificate", policies.len())?;
        let new = NewForeign {
            pem,
            kind: ForeignKind::Authority(None),
            status: CertificateStatus::Active,
        };
        let (record, authority) = self.foreign_record(&new, now)?;
        self.transact(|t| {
            if t.exists(&keys::thing(thing))? {
                return Err(FleetError::AlreadyExists {
                    kind: Kind::Thing,
                    name: thing.to_string(),
                    hint: ": register the certificate and attach it (RegisterCertificate, AttachThingPrincipal)",
                });
            }
            self.put_new_foreign(t, &record, authority.as_ref())?;
            let made = Thing {
                name: thing.clone(),
                attributes: attributes.clone(),
                type_name: None,
                version: 1,
                created: now,
            };
            things::put_thing(t, None, &made)?;
            put_binding(t, thing, Attachment::Exclusive, (&record.id, &record.pem))?;
            let target = Target::Certificate(record.id);
            for policy in policies {
                require_policy(t, policy)?;
                put_attachment(t, policy, &target)?;
            }
            put_memberships(t, thing, &groups.iter().cloned().collect())
        })?;
        Ok(record)
    }

    /// Refuses a certificate over a key that is known to others, or somebody's who is no device.
    pub(crate) fn refuse_key(&self, certificate: &ForeignCertificate) -> Result<(), FleetError> {
        match PublicKey::of_certificate(certificate.der()) {
            Ok(key) => {
                self.inner.authority.refuse_key(&key)?;
                self.refuse_taken(&key)
            }
            Err(refused) => Err(FleetError::Csr(CsrError::Key(refused))),
        }
    }

    /// Reads a certificate and finds who signed it.
    pub(crate) fn foreign_record(
        &self,
        new: &NewForeign<'_>,
        now: SystemTime,
    ) -> Result<(CertificateRecord, Option<AuthorityRecord>), FleetError> {
        if !matches!(
            new.status,
            CertificateStatus::Active | CertificateStatus::Inactive
        ) {
            return Err(FleetError::Invalid(format!(
                "status {}: a certificate is registered ACTIVE or INACTIVE",
                new.status
            )));
        }
        let certificate = ForeignCertificate::parse(new.pem)?;
        let id = certificate.facts.id;
        if self
            .read::<RevokedRow>(&keys::revoked_elsewhere(&id))?
            .is_some()
        {
            return Err(revoked_before(&id));
        }
        self.refuse_key(&certificate)?;
        if self.inner.authority.signed(certificate.der()) {
            return Err(ForeignError::Unfit {
                what: "certificatePem",
                reason: "is one of this server's own authority: what it issues is registered when it is issued",
            }
            .into());
        }
        if certificate.facts.not_after < now {
            return Err(ForeignError::Unfit {
                what: "certificatePem",
                reason: "has expired: issue another",
            }
            .into());
        }
        let authority = match new.kind {
            ForeignKind::Alone => None,
            ForeignKind::Authority(named) => {
                let wanted = named.map(ForeignAuthority::parse).transpose()?;
                let wanted = wanted.map(|authority| authority.id);
                let found = self.signer_of(&certificate, wanted.as_ref(), now)?;
                Some(found.ok_or(ForeignError::Unfit {
                    what: "certificatePem",
                    reason: "was signed by no authority that is registered here: register that first (RegisterCACertificate)",
                })?)
            }
        };
        let origin = match &authority {
            Some(authority) => Origin::Authority(authority.id),
            None => Origin::Alone,
        };
        let record = record_of(&certificate, origin, new.status, EnrolmentWay::Import, now);
        Ok((record, authority))
    }

    /// The registered authority whose key signed a certificate. Of several over one key, as an authority that was renewed
    /// and the renewed one are, it is one that counts now and registers by itself, or else one that counts now.
    pub(super) fn signer_of(
        &self,
        certificate: &ForeignCertificate,
        wanted: Option<&CertificateId>,
        now: SystemTime,
    ) -> Result<Option<AuthorityRecord>, FleetError> {
        let rank = |record: &AuthorityRecord| match record.is_good(now) {
            true => 1 + u8::from(record.auto_registration),
            false => 0,
        };
        let mut found: Option<AuthorityRecord> = None;
        let namesakes = keys::authorities_named(&certificate.issuer_digest);
        for id in self.all_names::<CertificateId>(&namesakes)? {
            if wanted.is_some_and(|wanted| *wanted != id) {
                continue;
            }
            let Some(record) = self.read::<AuthorityRecord>(&keys::authority(&id))? else {
                continue;
            };
            let signed =
                ForeignAuthority::parse(&record.pem).is_ok_and(|ca| ca.signed(certificate.der()));
            if signed
                && found
                    .as_ref()
                    .is_none_or(|before| rank(before) < rank(&record))
            {
                found = Some(record);
            }
        }
        Ok(found)
    }

    /// Within a transaction: a certificate that is new here, under an authority that still is what it was.
    pub(crate) fn put_new_foreign(
        &self,
        t: &mut Transaction<'_>,
        record: &CertificateRecord,
        authority: Option<&AuthorityRecord>,
    ) -> Result<(), FleetError> {
        if let Some(authority) = authority {
            let now: AuthorityRecord = t
                .get(&keys::authority(&authority.id))?
                .ok_or_else(|| FleetError::not_found(Kind::Authority, authority.id))?;
            if now.status != super::AuthorityStatus::Active {
                return Err(FleetError::CertificateState {
                    id: authority.id,
                    status: CertificateStatus::Inactive,
                    reason: "an authority that is not active gets no new certificates: activate it first (UpdateCACertificate)",
                });
            }
        }
        if t.exists(&keys::certificate(&record.id))? {
            return Err(FleetError::AlreadyExists {
                kind: Kind::Certificate,
                name: record.id.to_string(),
                hint: "",
            });
        }
        require_not_revoked(t, &record.id)?;
        t.note(Fact::came(record));
        put_foreign(t, record)
    }

    /// One page of the certificates that an authority vouches for, by whichever certificate over its name and key they came,
    /// in order of id.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the authority.
    pub fn certificates_of_authority(
        &self,
        authority: &CertificateId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<CertificateRecord>, FleetError> {
        self.registered_authority(authority)?;
        let ids = self.vouched_for(authority, after, limit)?;
        let mut items = Vec::with_capacity(ids.items.len());
        for id in &ids.items {
            // One that went meanwhile is not there.
            items.extend(self.read::<CertificateRecord>(&keys::certificate(id))?);
        }
        Ok(Page {
            items,
            next: ids.next,
        })
    }
}

pub(super) fn record_of(
    certificate: &ForeignCertificate,
    origin: Origin,
    status: CertificateStatus,
    way: EnrolmentWay,
    now: SystemTime,
) -> CertificateRecord {
    let facts = &certificate.facts;
    CertificateRecord {
        id: facts.id,
        pem: certificate.pem.clone(),
        serial: facts.serial.clone(),
        status,
        not_before: facts.not_before,
        not_after: facts.not_after,
        created: now,
        modified: now,
        revocation: None,
        version: 1,
        origin,
        way: Some(way),
        superseded_by: None,
        sponsor: None,
    }
}

/// Puts a certificate that our own authority did not sign: its serial number is another's to count, so neither lists
/// nor OCSP know it.
fn put_foreign(t: &mut Transaction<'_>, record: &CertificateRecord) -> Result<(), FleetError> {
    put_vouched(t, record)?;
    holders::certify(t, &record.id, &record.pem)?;
    t.put(keys::certificate(&record.id), record)
}

/// Lists a certificate under the registered authority that it depends on, if there is one.
pub(crate) fn put_vouched(
    t: &mut Transaction<'_>,
    record: &CertificateRecord,
) -> Result<(), FleetError> {
    match record.vouching_authority() {
        Some(authority) => t.put(
            format!("{}{}", keys::signed_by(&authority), record.id),
            &Present,
        ),
        None => Ok(()),
    }
}

/// Before the row of such a certificate goes. That it was revoked stays known.
pub(crate) fn forget_vouched(t: &mut Transaction<'_>, record: &CertificateRecord) {
    if let Some(authority) = record.vouching_authority() {
        t.delete(format!("{}{}", keys::signed_by(&authority), record.id));
    }
}

/// A certificate that was revoked once is not let in by being registered again.
fn require_not_revoked(t: &mut Transaction<'_>, id: &CertificateId) -> Result<(), FleetError> {
    match t.get::<RevokedRow>(&keys::revoked_elsewhere(id))? {
        Some(_) => Err(revoked_before(id)),
        None => Ok(()),
    }
}

fn revoked_before(id: &CertificateId) -> FleetError {
    FleetError::CertificateState {
        id: *id,
        status: CertificateStatus::Revoked,
        reason: "a revoked certificate stays revoked; give the device a new one",
    }
}
