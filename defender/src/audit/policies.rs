//! Whether what policies deny is let in where a variable or a key has no value: as AWS decides it, and seldom as it was
//! meant.

use super::{Audited, Finding, Outcome, Severity};
use fleet::{FleetError, LIST_LIMIT_ITEMS};
use policy::{FindingKind, Limits, Policy, UnresolvedDeny};

/// Looks at the version of each policy that decides.
pub(super) fn run(audited: &Audited<'_>) -> Result<Outcome, FleetError> {
    let mut outcome = Outcome::default();
    let fleet = audited.revocation.fleet();
    let closed = fleet.realm().unresolved_deny == UnresolvedDeny::Closed;
    let mut after = None;
    loop {
        let page = fleet.policies(after.as_deref(), LIST_LIMIT_ITEMS)?;
        for record in page.items {
            let Some(version) = record.default() else {
                continue;
            };
            outcome.examined += 1;
            let policy = Policy::parse_within(&version.document, &Limits::NONE)?;
            let open = policy.lint().into_iter().filter(|finding| {
                finding.kind == FindingKind::FailsOpen && !(closed && finding.closed_mends)
            });
            for finding in open {
                let (reason, mend) = match finding.text.rsplit_once("; ") {
                    Some((reason, mend)) => (reason.to_owned(), mend.to_owned()),
                    None => (finding.text, "name what it compares with".to_owned()),
                };
                outcome.find(Finding {
                    severity: Severity::Medium,
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
