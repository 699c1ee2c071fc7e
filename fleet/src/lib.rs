//! Fleet knows: things, groups, certificates, policies and what is attached to what, and tells who a
//! certificate is *now*. It keeps all of it in one table of [`store`], mints certificates through [`ca`] and
//! parses policies with [`policy`]; `broker` asks it for a [`Standing`] at every handshake and is woken through
//! it when anything about a live principal changes; `control` turns its operations into an API.
//! An operation returns only when its change is durable and every live standing it touches has changed.

mod attachments;
mod attestation;
pub mod authorities;
mod certificates;
mod decisions;
mod deeds;
mod denials;
mod devices;
mod dynamic;
mod enrolment_password;
mod error;
pub mod events;
mod excerpt;
mod groups;
mod heir;
mod holders;
mod invariants;
mod issued;
mod keys;
mod live;
pub mod mass;
mod name;
mod networks;
mod policies;
mod population;
mod posture;
pub mod provisioning;
pub mod query;
mod records;
mod registry;
mod renewal;
mod revocation;
mod sampler;
mod search;
mod shares;
#[cfg(feature = "simulate")]
pub mod simulated;
mod standing;
mod tags;
mod taken;
pub mod template;
mod things;
mod transaction;
mod types;
mod violations;

pub use attestation::{Attestation, AttestationTerms, Verdict};
pub use decisions::{Record, Recorded, Tally};
pub use deeds::{
    Acting, Deed, DeedBounds, DeedFilter, Doer, Head, Numbered, Outcome, Verified, What,
};
pub use denials::Denial;
pub use devices::{Decommissioned, DeviceKey, Enrolled, Enrolment};
pub use dynamic::DYNAMIC_GROUPS_LIMIT_ITEMS;
pub use enrolment_password::{PASSWORD_ANSWER_AGAIN, PASSWORD_LIFE_LIMIT, PasswordTerms};
pub use error::{FleetError, Kind};
pub use excerpt::Excerpt;
pub use groups::{GROUP_DEPTH_LIMIT_LEVELS, GroupChange};
pub use heir::Heir;
pub use invariants::DeclaredInvariant;
pub use name::{GroupName, NameError, ThingName, ThingTypeName};
pub use networks::NamedNetwork;
pub use policies::PolicyLimits;
pub use policy::DEVICE_DEFAULT;
pub use population::{Change, Joining, Whose};
pub use posture::{Health, Quarantine};
pub use records::{
    Attachment, Binding, CertificateRecord, CertificateStatus, EnrolmentWay, Group, Origin,
    PolicyRecord, PolicyVersion, Revocation, Target, Thing,
};
pub use registry::{Fleet, LIST_LIMIT_ITEMS, Page};
pub use revocation::{ListName, ListSweeper, RevocationFaces, Staple};
pub use sampler::Sampler;
pub use search::{ConnectionKey, Found, IndexField, IndexFieldType};
pub use shares::{Crowded, Seat, ShareBounds, Shares};
pub use standing::{Standing, StandingNow, WatchGuard};
pub use tags::Tagged;
pub use taken::KeyOwner;
pub use things::{ThingChange, ThingFilter};
pub use types::{ThingType, ThingTypeProperties};
pub use violations::{VIOLATION_EVERY, Violation};
