//! Where each fact stands in the registry's one table. `/` separates; no name may hold it, so a key reads one way only.
//! Facts that are asked for from both ends are written under both, in one batch.

use crate::{
    GroupName, ListName, Target, ThingName, ThingTypeName, authorities::Signer,
    provisioning::TemplateName,
};
use ca::{CertificateId, Serial};
use policy::PolicyName;
use std::time::SystemTime;

pub(crate) const THING: &str = "thing/";
pub(crate) const GROUP: &str = "group/";
pub(crate) const CERTIFICATE: &str = "cert/";
pub(crate) const POLICY: &str = "policy/";
pub(crate) const REVOKED: &str = "revoked/";
pub(crate) const THING_TYPE: &str = "type/";
pub(crate) const TEMPLATE: &str = "template/";
pub(crate) const CLAIM: &str = "claim/";
/// Templates that are deleted, and whose claims are not all revoked yet.
pub(crate) const DELETING: &str = "deleting/template/";
/// Claims by their end: `claimend/<seconds>/<certificate>`.
pub(crate) const CLAIM_END: &str = "claimend/";
/// Unclaimed certificates by their end: `pending/<seconds>/<certificate>`.
pub(crate) const PENDING: &str = "pending/";
pub(crate) const MEMBER_OF: &str = "memberof/";
/// Dynamic groups that are gone and still have members.
pub(crate) const SWEPT: &str = "swept/";
pub(crate) const TASK: &str = "task/";
pub(crate) const AUTHORITY: &str = "ca/";
/// What an authority signs to be registered.
pub(crate) const REGISTRATION_CODE: &str = "meta/registration-code";
pub(crate) const NETWORK: &str = "network/";
pub(crate) const DENIAL: &str = "denial/";
pub(crate) const INVARIANT: &str = "invariant/";
/// Which kinds of event are on.
pub(crate) const EVENTS: &str = "meta/events";
/// Fields of things whose kind was declared.
pub(crate) const INDEX_FIELDS: &str = "meta/index-fields";
pub(crate) const SEEDED: &str = "meta/seeded";
/// Set once every certificate is found by its serial number.
pub(crate) const INDEXED: &str = "meta/serials";
/// Set once every certificate that is INACTIVE stands on its list.
pub(crate) const HELD_INDEXED: &str = "meta/certified";
/// Set once every key is found.
pub(crate) const KEYS_INDEXED: &str = "meta/keys";
/// Set once every key that is no device's is found.
pub(crate) const TAKEN_INDEXED: &str = "meta/taken-keys";
/// The highest number of a revocation list.
pub(crate) const CRL_NUMBER: &str = "meta/crl-number";
/// Up to which end revocations were swept.
pub(crate) const LISTS_SWEPT: &str = "meta/lists-swept";
/// Where revocation lists were said to be found.
pub(crate) const DISTRIBUTION: &str = "meta/distribution";

/// Which pack of cards counts.
pub(crate) const PACKED: &str = "meta/cards";
/// What of it is outdated: `outdated/<generation>/cert:<certificate>` and `outdated/<generation>/thing:<thing>`.
pub(crate) const OUTDATED: &str = "outdated/";
/// The things of certificates: `bound/<certificate>`.
pub(crate) const BOUND: &str = "bound/";

pub(crate) fn outdated(generation: u64, kind: &str, name: &dyn std::fmt::Display) -> String {
    format!("{OUTDATED}{generation:016x}/{kind}:{name}")
}

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
/// When a revocation list was last made.
pub(crate) fn list_issued(name: ListName) -> String {
    format!("listissued/{name}")
}
/// A registered authority.
pub(crate) fn authority(id: &CertificateId) -> String {
    format!("{AUTHORITY}{id}")
}
/// Registered authorities by their subject: `casubject/<digest>/<authority>`.
pub(crate) fn authorities_named(digest: &str) -> String {
    format!("casubject/{digest}/")
}
/// Whose certificate a registered authority's is, or was: its name and key.
pub(crate) fn signer(authority: &CertificateId) -> String {
    format!("casigner/{authority}")
}
/// Authorities' certificates over one name and key: `cakin/<signer>/<authority>`.
pub(crate) fn kin(signer: &Signer) -> String {
    format!("cakin/{signer}/")
}
/// Certificates that a registered authority signed: `signedby/<authority>/<certificate>`.
pub(crate) fn signed_by(authority: &CertificateId) -> String {
    format!("signedby/{authority}/")
}
/// A revoked certificate that our own authority did not sign: lists and OCSP are silent about it.
pub(crate) fn revoked_elsewhere(id: &CertificateId) -> String {
    format!("revokedelsewhere/{id}")
}
/// The thing that a key belongs to, by the key's id.
pub(crate) fn key(id: &str) -> String {
    format!("key/{id}")
}
/// Certificates over a key, by the key's id: `keyof/<key>/<certificate>`.
pub(crate) fn certified(key: &str) -> String {
    format!("keyof/{key}/")
}
/// Whose a key is that is no device's, by the key's id.
pub(crate) fn taken(id: &str) -> String {
    format!("taken/{id}")
}
/// The certificate that a renewal has put after this one, while it has not been used.
pub(crate) fn successor(id: &CertificateId) -> String {
    format!("successor/{id}")
}
/// The certificate that this one renews, while this one has not been used.
pub(crate) fn predecessor(id: &CertificateId) -> String {
    format!("predecessor/{id}")
}
/// The certificate that holds what a deleted one left, which had been renewed.
pub(crate) fn heir(id: &CertificateId) -> String {
    format!("heir/{id}")
}
/// That a thing lost a certificate otherwise than by being superseded, and has got none since.
pub(crate) fn bereft(thing: &ThingName) -> String {
    format!("bereft/{thing}")
}
/// The one-time password with which a thing enrols itself.
pub(crate) fn password(thing: &ThingName) -> String {
    format!("password/{thing}")
}
/// Members of a group: `member/<group>/<thing>`.
pub(crate) fn members(group: &GroupName) -> String {
    format!("member/{group}/")
}
/// Groups of a thing: `memberof/<thing>/<group>`.
pub(crate) fn groups_of(thing: &ThingName) -> String {
    format!("{MEMBER_OF}{thing}/")
}
/// Certificates of a thing: `principal/<thing>/<certificate>`.
pub(crate) fn principals(thing: &ThingName) -> String {
    format!("principal/{thing}/")
}
/// The thing of a certificate; one at most.
pub(crate) fn bound(id: &CertificateId) -> String {
    format!("{BOUND}{id}")
}
/// Policies of a target: `attached/<target>/<policy>`.
pub(crate) fn attached(target: &Target) -> String {
    format!("attached/{target}/")
}
/// Targets of a policy: `target/<policy>/<target>`.
pub(crate) fn targets(policy: &PolicyName) -> String {
    format!("target/{policy}/")
}
/// A provisioning template.
pub(crate) fn template(name: &TemplateName) -> String {
    format!("{TEMPLATE}{name}")
}
/// What a template's hook allows: `allow/<template>/<value>`.
pub(crate) fn allowed(template: &TemplateName) -> String {
    format!("allow/{template}/")
}
/// What a claim certificate is bounded by.
pub(crate) fn claim(id: &CertificateId) -> String {
    format!("{CLAIM}{id}")
}
/// How often a claim was used.
pub(crate) fn claim_use(id: &CertificateId) -> String {
    format!("claimuse/{id}")
}
/// What places have asked for by a claim in vain: `claimwaste/<claim>/<place>`.
pub(crate) fn wasted_of(claim: &CertificateId) -> String {
    format!("claimwaste/{claim}/")
}
pub(crate) fn wasted(claim: &CertificateId, place: &dyn std::fmt::Display) -> String {
    format!("{}{place}", wasted_of(claim))
}
pub(crate) fn claim_end(at: SystemTime, id: &CertificateId) -> String {
    format!("{CLAIM_END}{}/{id}", moment(at))
}
/// What an ownership token stands for, by the token's digest.
pub(crate) fn token(digest: &str) -> String {
    format!("token/{digest}")
}
pub(crate) fn pending(at: SystemTime, id: &CertificateId) -> String {
    format!("{PENDING}{}/{id}", moment(at))
}
/// Unclaimed certificates of a claim, with where they were asked for from: `pendingfrom/<claim>/<certificate>`.
pub(crate) fn pending_of(claim: &CertificateId) -> String {
    format!("pendingfrom/{claim}/")
}
/// A thing type.
/// Tags of what lies in that row: `tagged/<row>`.
pub(crate) fn tags(row: &str) -> String {
    format!("tagged/{row}")
}
pub(crate) fn thing_type(name: &ThingTypeName) -> String {
    format!("{THING_TYPE}{name}")
}
/// Things of a type: `typed/<type>/<thing>`.
pub(crate) fn typed(name: &ThingTypeName) -> String {
    format!("typed/{name}/")
}
/// Groups whose parent is this one: `child/<parent>/<group>`.
pub(crate) fn children(group: &GroupName) -> String {
    format!("child/{group}/")
}
/// A dynamic group that is gone and still has members.
pub(crate) fn swept(group: &GroupName) -> String {
    format!("{SWEPT}{group}")
}
/// Written whenever queries are held against a thing, so that two who do so see each other.
pub(crate) fn followed(thing: &ThingName) -> String {
    format!("followed/{thing}")
}
/// A registration task.
pub(crate) fn task(id: &str) -> String {
    format!("{TASK}{id}")
}
/// What became of a task's lines: `taskline/<task>/<report>/<line>`.
pub(crate) fn task_lines(id: &str, report: &str) -> String {
    format!("taskline/{id}/{report}/")
}
/// A moment in whole seconds, in order as text.
pub(crate) fn moment(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{:016x}", since.as_secs())
}
