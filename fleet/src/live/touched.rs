//! Whom a batch of changed rows concerns, and which of what is known of them is to be read again.

use crate::{GroupName, ThingName};
use ca::CertificateId;
use policy::PolicyName;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::BitOr,
};

/// Rows of one principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Parts(u8);

impl Parts {
    /// Nothing of its own: only what it shares has changed.
    pub(super) const NONE: Parts = Parts(0);
    pub(super) const CERTIFICATE: Parts = Parts(1);
    /// The thing's own row.
    pub(super) const THING: Parts = Parts(1 << 1);
    /// Which groups the thing is in.
    pub(super) const GROUPS: Parts = Parts(1 << 2);
    /// What is attached to the certificate itself.
    pub(super) const ATTACHED: Parts = Parts(1 << 3);
    pub(super) const POSTURE: Parts = Parts(1 << 4);
    /// All of them, and which thing it is.
    pub(super) const ALL: Parts = Parts(u8::MAX);

    pub(super) fn has(self, part: Parts) -> bool {
        self.0 & part.0 == part.0
    }
}

impl BitOr for Parts {
    type Output = Parts;

    fn bitor(self, other: Parts) -> Parts {
        Parts(self.0 | other.0)
    }
}

#[derive(Default)]
pub(super) struct Touched {
    pub(super) certificates: BTreeMap<CertificateId, Parts>,
    pub(super) things: BTreeMap<ThingName, Parts>,
    pub(super) authorities: BTreeSet<CertificateId>,
    pub(super) groups: BTreeSet<GroupName>,
    pub(super) policies: BTreeSet<PolicyName>,
    pub(super) revocations: bool,
    /// Last octets of the serial numbers of what was revoked.
    pub(super) listed: BTreeSet<u8>,
    pub(super) networks: bool,
}

impl Touched {
    pub(super) fn of(changed: &[String]) -> Self {
        let mut touched = Touched::default();
        for key in changed {
            let mut parts = key.splitn(3, '/');
            let (kind, first, second) = (
                parts.next(),
                parts.next().unwrap_or(""),
                parts.next().unwrap_or(""),
            );
            match kind {
                Some("cert") => touched.certificate(first, Parts::CERTIFICATE),
                Some("bound" | "claim") => touched.certificate(first, Parts::ALL),
                Some("thing") => touched.thing(first, Parts::THING),
                Some("memberof") => touched.thing(first, Parts::GROUPS),
                Some("posture") => touched.thing(first, Parts::POSTURE),
                Some("ca") => touched
                    .authorities
                    .extend(first.parse::<CertificateId>().ok()),
                Some("network") => touched.networks = true,
                Some("policy") => touched.policies.extend(first.parse().ok()),
                Some("group") => touched.groups.extend(first.parse().ok()),
                Some("attached") => match first.split_once(':') {
                    Some(("cert", id)) => touched.certificate(id, Parts::ATTACHED),
                    Some(("group", name)) => touched.groups.extend(name.parse().ok()),
                    _ => tracing::error!(key, second, "registry row of an unknown target"),
                },
                Some("revoked") => touched.revocations = true,
                Some("crl") => touched.listed.extend(u8::from_str_radix(first, 16).ok()),
                // The other half of a pair whose first half is above, or a fact no standing holds.
                _ => {}
            }
        }
        touched
    }

    fn certificate(&mut self, id: &str, parts: Parts) {
        if let Ok(id) = id.parse() {
            let known = self.certificates.entry(id).or_default();
            *known = *known | parts;
        }
    }

    fn thing(&mut self, name: &str, parts: Parts) {
        if let Ok(name) = name.parse() {
            let known = self.things.entry(name).or_default();
            *known = *known | parts;
        }
    }

    /// Whether a set of policies may come out otherwise, be it that of principals who were unreadable.
    pub(super) fn is_of_policies(&self) -> bool {
        !self.policies.is_empty() || !self.groups.is_empty()
    }
}
