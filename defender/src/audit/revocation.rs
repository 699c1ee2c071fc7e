//! Whether registry, revocation lists and OCSP agree over the whole registry. Lists and answers are taken as a client
//! gets them: signed, and believed only after they were verified.

use super::{Audited, Finding, Outcome, Severity};
use ca::{CertificateState, IssuerNumber, RevokedEntry, Serial};
use fleet::{CertificateRecord, FleetError, LIST_LIMIT_ITEMS, ListName, Origin};
use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

/// Certificates in one question to the responder.
const ASKED_AT_ONCE_ITEMS: usize = 64;

pub(super) fn run(audited: &Audited<'_>) -> Result<Outcome, FleetError> {
    let mut outcome = Outcome::default();
    let fleet = audited.revocation.fleet();
    let mut lists = Vec::new();
    for name in audited.revocation.names() {
        match Listed::read(audited, name)? {
            Ok(list) => lists.push(list),
            Err(finding) => outcome.find(finding),
        }
    }
    for list in &lists {
        for entry in list.entries.values() {
            outcome.examined += 1;
            if let Some(reason) = list.disagrees(audited, entry)? {
                outcome.find(Finding {
                    severity: Severity::High,
                    resource: format!("serial number {}", entry.serial),
                    reason,
                    mend: restart(),
                });
            }
        }
    }
    let mut after = None;
    loop {
        let mut page = fleet.certificates(after.as_deref(), LIST_LIMIT_ITEMS)?;
        // Another authority's serial numbers are its own, and may be ours too.
        page.items.retain(|record| record.origin == Origin::Own);
        for records in page.items.chunks(ASKED_AT_ONCE_ITEMS) {
            examine(audited, &lists, records, &mut outcome)?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(outcome);
        }
    }
}

/// One list, as read.
struct Listed {
    name: ListName,
    entries: HashMap<Serial, RevokedEntry>,
}

impl Listed {
    fn read(audited: &Audited<'_>, name: ListName) -> Result<Result<Self, Finding>, FleetError> {
        let faces = audited.revocation;
        let authority = faces.fleet().authority();
        let wrong = |reason: String| Finding {
            severity: Severity::High,
            resource: format!("list {name}"),
            reason,
            mend: restart(),
        };
        let Some(der) = faces.list(name, audited.now)? else {
            return Ok(Err(wrong(
                "certificates name it and it is not there".into(),
            )));
        };
        let list = match authority.read_crl(&der) {
            Ok(list) => list,
            Err(error) => return Ok(Err(wrong(error.to_string()))),
        };
        let url = format!("{}/{name}", authority.public_url());
        let issuer = match name {
            ListName::Whole => IssuerNumber::FIRST,
            ListName::Shard(shard) => shard.issuer(),
        };
        if list.issuer != issuer {
            return Ok(Err(wrong("another issuer signed it".into())));
        }
        if name != ListName::Whole && !list.urls.contains(&url) {
            return Ok(Err(wrong(format!(
                "it does not say that it is found at {url}"
            ))));
        }
        if !(list.this_update..list.next_update).contains(&audited.now) {
            return Ok(Err(wrong("it is not of now".into())));
        }
        let entries = list.entries.into_iter();
        Ok(Ok(Listed {
            name,
            entries: entries.map(|entry| (entry.serial.clone(), entry)).collect(),
        }))
    }

    fn speaks_of(&self, issuer: IssuerNumber, serial: &Serial) -> bool {
        match self.name {
            ListName::Whole => issuer == IssuerNumber::FIRST,
            ListName::Shard(shard) => shard.shards().of(serial).by(issuer) == shard,
        }
    }

    /// Whose certificates are on it.
    fn issuer(&self) -> IssuerNumber {
        match self.name {
            ListName::Whole => IssuerNumber::FIRST,
            ListName::Shard(shard) => shard.issuer(),
        }
    }

    /// What is wrong with an entry, by the registry.
    fn disagrees(
        &self,
        audited: &Audited<'_>,
        entry: &RevokedEntry,
    ) -> Result<Option<String>, FleetError> {
        let known = audited.revocation.fleet().state_of(&entry.serial)?;
        let why = if !self.speaks_of(self.issuer(), &entry.serial) {
            "is on a list that does not speak of it"
        } else if !matches!(&known, CertificateState::Revoked(known) if same(known, entry)) {
            "is on a list and the registry says otherwise"
        } else {
            return Ok(None);
        };
        Ok(Some(format!("it {why} ({})", self.name)))
    }
}

/// Lists and answers know whole seconds.
fn same(known: &RevokedEntry, told: &RevokedEntry) -> bool {
    let seconds = |at: SystemTime| {
        at.duration_since(SystemTime::UNIX_EPOCH)
            .map(|since| since.as_secs())
            .ok()
    };
    known.serial == told.serial
        && known.reason == told.reason
        && seconds(known.revoked_at) == seconds(told.revoked_at)
}

fn examine(
    audited: &Audited<'_>,
    lists: &[Listed],
    records: &[CertificateRecord],
    outcome: &mut Outcome,
) -> Result<(), FleetError> {
    let answers = ask(audited, records)?;
    for (record, answer) in records.iter().zip(answers) {
        outcome.examined += 1;
        if disagreement(audited, lists, record, &answer).is_none() {
            continue;
        }
        // It may have changed since lists and answers were made: looked at once more, alone.
        let record = match audited.revocation.fleet().certificate(&record.id) {
            Err(FleetError::NotFound { .. }) => continue,
            found => found?,
        };
        let mut fresh = Vec::with_capacity(lists.len());
        for name in audited.revocation.names() {
            fresh.extend(Listed::read(audited, name)?);
        }
        let answer = ask(audited, std::slice::from_ref(&record))?.pop();
        let answer = answer.unwrap_or(CertificateState::Unknown);
        if let Some(reason) = disagreement(audited, &fresh, &record, &answer) {
            outcome.find(Finding {
                severity: Severity::Critical,
                resource: format!("certificate {}", record.id),
                reason,
                mend: restart(),
            });
        }
    }
    Ok(())
}

/// What OCSP says of each; of what is not ours nothing is asked.
fn ask(
    audited: &Audited<'_>,
    records: &[CertificateRecord],
) -> Result<Vec<CertificateState>, FleetError> {
    let faces = audited.revocation;
    let authority = faces.fleet().authority();
    let mut by_issuer: BTreeMap<IssuerNumber, Vec<Serial>> = BTreeMap::new();
    for record in records {
        if let Some(issuer) = authority.issuer_of_pem(&record.pem) {
            let serials = by_issuer.entry(issuer).or_default();
            serials.push(record.serial.clone());
        }
    }
    let mut told = HashMap::with_capacity(records.len());
    for (issuer, serials) in by_issuer {
        let request = faces.ocsp_request(issuer, &serials, audited.now)?;
        let answer = faces.ocsp(&request, audited.now);
        let read = authority.read_ocsp(&answer, audited.now)?;
        if read.iter().map(|(serial, _)| serial).ne(&serials) {
            return Err(FleetError::Invalid(
                "the OCSP responder answered about other certificates than it was asked".to_owned(),
            ));
        }
        told.extend(read);
    }
    let said = records
        .iter()
        .map(|record| told.get(&record.serial).cloned());
    Ok(said
        .map(|said| said.unwrap_or(CertificateState::Unknown))
        .collect())
}

/// In what registry, lists and answer differ over a certificate.
fn disagreement(
    audited: &Audited<'_>,
    lists: &[Listed],
    record: &CertificateRecord,
    answer: &CertificateState,
) -> Option<String> {
    let authority = audited.revocation.fleet().authority();
    // Another authority's certificate is its own responder's matter.
    let issuer = authority.issuer_of_pem(&record.pem)?;
    let known = record.listed_as();
    let revoked = known.is_some();
    let on_ocsp = match answer {
        CertificateState::Revoked(told) => {
            if known.as_ref().is_some_and(|known| !same(known, told)) {
                return Some("OCSP gives another time or reason of its state".to_owned());
            }
            true
        }
        CertificateState::Good => false,
        CertificateState::Unknown => return Some("OCSP does not know it".to_owned()),
    };
    if on_ocsp != revoked {
        let says = if on_ocsp {
            "revoked or on hold"
        } else {
            "good"
        };
        return Some(format!(
            "the registry has it as {}, OCSP as {says}",
            record.status
        ));
    }
    // A list lets go of what has expired.
    if record.not_after < audited.now {
        return None;
    }
    let told = lists
        .iter()
        .filter(|list| list.speaks_of(issuer, &record.serial))
        .map(|list| (list, list.entries.get(&record.serial)));
    for (list, told) in told {
        let says = match (&known, told) {
            (Some(known), Some(told)) if same(known, told) => continue,
            (None, None) => continue,
            (Some(_), Some(_)) => "gives another time or reason",
            (Some(_), None) => "leaves it out",
            (None, Some(_)) => "has it",
        };
        return Some(format!(
            "the registry has it as {}, and {} {says}",
            record.status, list.name
        ));
    }
    None
}

fn restart() -> String {
    "restart the server, which makes lists and answers anew; if it is found again, restore the registry from a backup"
        .to_owned()
}
