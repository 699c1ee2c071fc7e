//! What can go wrong in the registry.

use crate::{CertificateStatus, NameError};
use std::fmt;

/// The kind of thing an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A device.
    Thing,
    /// A thing group.
    Group,
    /// A device certificate.
    Certificate,
    /// A named policy.
    Policy,
    /// A version of a policy.
    PolicyVersion,
    /// A provisioning template.
    Template,
    /// A claim certificate.
    Claim,
    /// A thing type.
    ThingType,
    /// A registered authority.
    Authority,
    /// A registration task.
    Task,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Thing => "thing",
            Kind::Group => "group",
            Kind::Certificate => "certificate",
            Kind::Policy => "policy",
            Kind::PolicyVersion => "policy version",
            Kind::Template => "provisioning template",
            Kind::Claim => "claim",
            Kind::ThingType => "thing type",
            Kind::Authority => "authority",
            Kind::Task => "registration task",
        })
    }
}

/// Errors of the registry. Each names what it speaks of and, where there is one, the mend.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The thing, group, certificate or policy does not exist.
    #[error("{kind} {name} does not exist")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// Under which name.
        name: String,
    },
    /// The name is taken.
    #[error("{kind} {name} exists already{hint}")]
    AlreadyExists {
        /// What was to be made.
        kind: Kind,
        /// Under which name.
        name: String,
        /// What to do instead, as the rest of the sentence; may be empty.
        hint: &'static str,
    },
    /// A name that the registry cannot hold.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The caller expected another version.
    #[error("{kind} {name} is at version {actual}, not {expected}: read it again and retry")]
    VersionConflict {
        /// What was to be changed.
        kind: Kind,
        /// Its name.
        name: String,
        /// The version the caller gave.
        expected: u64,
        /// The version it has.
        actual: u64,
    },
    /// It cannot be deleted while something refers to it.
    #[error("{kind} {name} cannot be deleted: {reason}")]
    DeleteConflict {
        /// What was to be deleted.
        kind: Kind,
        /// Its name.
        name: String,
        /// What stands in the way and how to remove it.
        reason: String,
    },
    /// The certificate's state does not allow this.
    #[error("certificate {id} is {status}: {reason}")]
    CertificateState {
        /// The certificate.
        id: ca::CertificateId,
        /// Its state.
        status: CertificateStatus,
        /// What is not possible in it.
        reason: &'static str,
    },
    /// The request does not fit the registry's rules.
    #[error("{0}")]
    Invalid(String),
    /// A named bound was reached.
    #[error("{what}: at most {limit}")]
    Limit {
        /// What there would be too many of.
        what: String,
        /// The bound.
        limit: usize,
    },
    /// The policy document was not understood whole.
    #[error("policy document refused: {0}")]
    MalformedPolicy(#[from] policy::PolicyError),
    /// The provisioning template was not understood whole, or its parameters do not fit.
    #[error(transparent)]
    Template(#[from] crate::template::TemplateError),
    /// The change would break what is claimed of all devices.
    #[error("{change} {} invariant {invariant} ({claim}): {why}", if *.already { "leaves broken what is broken without it already," } else { "would break" })]
    InvariantBroken {
        /// Whether those whom the change touches break it without the change too.
        already: bool,
        /// What was asked for, as in `policy hall`.
        change: String,
        /// The claim's name.
        invariant: policy::PolicyName,
        /// The claim in words.
        claim: String,
        /// How.
        why: String,
    },
    /// The certificate signing request was refused.
    #[error("certificate signing request refused: {0}")]
    Csr(#[from] ca::CsrError),
    /// A certificate that was made elsewhere is not taken.
    #[error(transparent)]
    Foreign(#[from] ca::ForeignError),
    /// A query was not understood whole.
    #[error(transparent)]
    Query(#[from] crate::query::QueryError),
    /// A key that no certificate of this thing is for.
    #[error("the key is refused: {0}: make a key pair for this device alone")]
    Key(&'static str),
    /// An enrolment password that is not good now; which of the reasons it is, is not told.
    #[error(
        "the enrolment password is wrong, used up or expired: ask the operator for a new one (`muster device enrol-password`)"
    )]
    Password,
    /// The certificate authority failed.
    #[error(transparent)]
    Authority(#[from] ca::CaError),
    /// The thread that follows the registry could not be started.
    #[error("could not start the thread that follows the registry: {0}")]
    Thread(#[source] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

impl FleetError {
    pub(crate) fn not_found(kind: Kind, name: impl fmt::Display) -> Self {
        FleetError::NotFound {
            kind,
            name: name.to_string(),
        }
    }
}
