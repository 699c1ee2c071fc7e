//! Where each fact stands in the registry's one table. `/` separates; no name may hold it, so a key reads one way only.
//! Facts that are asked for from both ends are written under both, in one batch.

use crate::{GroupName, Target, ThingName};
use ca::CertificateId;
use policy::PolicyName;

pub(crate) const THING: &str = "thing/";
pub(crate) const GROUP: &str = "group/";
pub(crate) const CERTIFICATE: &str = "cert/";
pub(crate) const POLICY: &str = "policy/";
pub(crate) const REVOKED: &str = "revoked/";
pub(crate) const NETWORK: &str = "network/";
pub(crate) const DENIAL: &str = "denial/";
pub(crate) const INVARIANT: &str = "invariant/";
pub(crate) const SEEDED: &str = "meta/seeded";

pub(crate) fn thing(name: &ThingName) -> String {
    format!("{THING}{name}")
}
pub(crate) fn group(name: &GroupName) -> String {
    format!("{GROUP}{name}")
}
pub(crate) fn certificate(id: &CertificateId) -> String {
    format!("{CERTIFICATE}{id}")
}
pub(crate) fn policy(name: &PolicyName) -> String {
    format!("{POLICY}{name}")
}
/// A named network.
pub(crate) fn network(name: &str) -> String {
    format!("{NETWORK}{name}")
}
/// A declared claim.
pub(crate) fn invariant(name: &PolicyName) -> String {
    format!("{INVARIANT}{name}")
}
/// What is known of a thing's health.
pub(crate) fn posture(thing: &ThingName) -> String {
    format!("posture/{thing}")
}
/// The certificate's place on the revocation list.
pub(crate) fn revoked(id: &CertificateId) -> String {
    format!("{REVOKED}{id}")
}
/// Members of a group: `member/<group>/<thing>`.
pub(crate) fn members(group: &GroupName) -> String {
    format!("member/{group}/")
}
/// Groups of a thing: `memberof/<thing>/<group>`.
pub(crate) fn groups_of(thing: &ThingName) -> String {
    format!("memberof/{thing}/")
}
/// Certificates of a thing: `principal/<thing>/<certificate>`.
pub(crate) fn principals(thing: &ThingName) -> String {
    format!("principal/{thing}/")
}
/// The thing of a certificate; one at most.
pub(crate) fn bound(id: &CertificateId) -> String {
    format!("bound/{id}")
}
/// Policies of a target: `attached/<target>/<policy>`.
pub(crate) fn attached(target: &Target) -> String {
    format!("attached/{target}/")
}
/// Targets of a policy: `target/<policy>/<target>`.
pub(crate) fn targets(policy: &PolicyName) -> String {
    format!("target/{policy}/")
}
