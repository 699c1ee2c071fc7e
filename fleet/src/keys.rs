//! Where each fact stands in the registry's one table. `/` separates; no name may hold it, so a key reads one way only.
//! Facts that are asked for from both ends are written under both, in one batch.

use crate::{GroupName, Target, ThingName};
use ca::{CertificateId, Serial};
use policy::PolicyName;

pub(crate) const THING: &str = "thing/";
pub(crate) const GROUP: &str = "group/";
pub(crate) const CERTIFICATE: &str = "cert/";
pub(crate) const POLICY: &str = "policy/";
pub(crate) const REVOKED: &str = "revoked/";
pub(crate) const SEEDED: &str = "meta/seeded";
/// Set once every certificate is found by its serial number.
pub(crate) const INDEXED: &str = "meta/serials";
/// Where revocation lists were said to be found.
pub(crate) const DISTRIBUTION: &str = "meta/distribution";

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
/// The certificate's place on the revocation list.
pub(crate) fn revoked(id: &CertificateId) -> String {
    format!("{REVOKED}{id}")
}
/// The certificate with a serial number, among those that our own authority signed.
pub(crate) fn serial(serial: &Serial) -> String {
    format!("serial/{serial}")
}
/// A certificate that our own authority signed and that is no device's.
pub(crate) fn issued(id: &CertificateId) -> String {
    format!("issued/{id}")
}
/// Revoked certificates by the last octet of the serial number, which settles the list they stand on:
/// `crl/<octet>/<serial>`.
pub(crate) fn listed(octet: u8) -> String {
    format!("crl/{octet:02x}/")
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
