//! What policies say and seldom mean: of the version of each that decides.

use super::{Audited, Finding, Outcome, Severity};
use fleet::{FleetError, LIST_LIMIT_ITEMS};
use policy::{FindingKind, Limits, Policy, UnresolvedDeny};

/// Whether what policies deny is let in where a variable or a key has no value: as AWS decides it, and seldom as it was
/// meant.
pub(super) fn fails_open(audited: &Audited<'_>) -> Result<Outcome, FleetError> {
    let fleet = audited.revocation.fleet();
    let closed = fleet.realm().unresolved_deny == UnresolvedDeny::Closed;
    look(audited, Severity::Medium, |finding| {
        finding.kind == FindingKind::FailsOpen && !(closed && finding.closed_mends)
    })
}

/// Whether statements match nothing: those of another account, as a policy has that was brought here from elsewhere, and
/// those that nothing can meet.
pub(super) fn matches_nothing(audited: &Audited<'_>) -> Result<Outcome, FleetError> {
    look(audited, Severity::Medium, |finding| {
        matches!(
            finding.kind,
            FindingKind::OtherAccount | FindingKind::NeverMatches
        )
    })
}

fn look(
    audited: &Audited<'_>,
    severity: Severity,
    wanted: impl Fn(&policy::Finding) -> bool,
) -> Result<Outcome, FleetError> {
    let mut outcome = Outcome::default();
    let fleet = audited.revocation.fleet();
    let account = fleet.realm().account.clone();
    let mut after = None;
    loop {
        let page = fleet.policies(after.as_deref(), LIST_LIMIT_ITEMS)?;
        for record in page.items {
            let Some(version) = record.default() else {
                continue;
            };
            outcome.examined += 1;
            let policy = Policy::parse_within(&version.document, &Limits::NONE)?;
            for finding in policy.lint_for(Some(&account)).into_iter().filter(&wanted) {
                let (reason, mend) = match finding.text.rsplit_once("; ") {
                    Some((reason, mend)) => (reason.to_owned(), mend.to_owned()),
                    None => (finding.text, "name what is meant".to_owned()),
                };
                outcome.find(Finding {
                    severity,
                    resource: format!(
                        "policy {} version {} statement {}",
                        record.name, version.number, finding.statement
                    ),
                    reason,
                    mend,
                });
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(outcome);
        }
    }
}
