//! What operations work with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use broker::Broker;
use broker::tls::Sampler;
use ca::Authority;
use fleet::provisioning::RegistrationDesk;
use fleet::{AttestationTerms, Fleet, RevocationFaces};
use ota::server::Ota;
use shadow::Shadows;
use tokio::sync::Semaphore;

use crate::record::Quotas;
use crate::{Endpoints, Operators};

/// The rooms below, and what this one knows. Clones share it.
#[derive(Clone)]
pub(crate) struct Rooms {
    pub(crate) fleet: Fleet,
    pub(crate) registration: RegistrationDesk,
    pub(crate) revocation: RevocationFaces,
    pub(crate) authority: Arc<Authority>,
    pub(crate) ota: Ota,
    pub(crate) shadows: Shadows,
    pub(crate) broker: Broker,
    pub(crate) operators: Operators,
    /// How long after its end a device's certificate may still be renewed under itself.
    pub(crate) expired_grace: Duration,
    /// How long an attestation of a device counts.
    pub(crate) attestation: AttestationTerms,
    pub(crate) endpoints: Endpoints,
    /// The account of every ARN.
    pub(crate) account: String,
    /// The region of ARNs in answers to requests that name none.
    pub(crate) region: String,
    /// When this process started.
    pub(crate) started: SystemTime,
    /// Lines about refused requests, which anybody can cause.
    pub(crate) refusals: Arc<Sampler>,
    /// Entries of the record that anybody can cause.
    pub(crate) quotas: Arc<Quotas>,
    /// One permit per upload under way.
    pub(crate) uploads: Arc<Semaphore>,
}
