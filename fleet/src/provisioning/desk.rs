//! Where requests of devices are queued and answered: a few threads of their own, because keys are made and hooks
//! are waited for. One more thread clears away what nobody came back for.

use super::{
    HookCaller, Rejection, ThingRegistration,
    message::{self, CsrRequest, Format, Operation, RegisterRequest},
    rate::Rates,
};
use crate::Fleet;
use ca::CertificateId;
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Most requests that wait; one more is refused.
pub const REQUESTS_LIMIT_ITEMS: usize = 4_096;
/// Threads that answer: a hook that is slow holds up one of them.
const THREADS: usize = 4;
/// How often unclaimed certificates and ended claims are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Requests of one kind in a minute from a certificate that has no claim of ours, or one without a rate.
const RATE_PER_MINUTE: u32 = 6_000;

/// A request of a device on one of the provisioning topics.
pub struct ProvisioningRequest {
    /// The certificate it is connected with.
    pub claim: CertificateId,
    /// The client id it is connected with.
    pub client_id: String,
    /// The topic it published to.
    pub topic: String,
    /// What it said.
    pub payload: Vec<u8>,
    /// The way back to that session alone; called once, when what it says is durable.
    pub reply: Box<dyn FnOnce(ProvisioningAnswer) + Send>,
}

/// An answer to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisioningAnswer {
    /// Where it goes.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
}

/// The desk. Clones share it; its threads end with the last one.
#[derive(Clone)]
pub struct ProvisioningDesk {
    inbox: SyncSender<ProvisioningRequest>,
    /// Dropping the last one ends the sweeper.
    _sweeper: SyncSender<()>,
}

struct Clerk {
    fleet: Fleet,
    hook: Arc<dyn HookCaller>,
    region: String,
    rates: Mutex<Rates>,
}

impl ProvisioningDesk {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(fleet: Fleet, hook: Arc<dyn HookCaller>, region: String) -> std::io::Result<Self> {
        let (inbox, requests) = sync_channel(REQUESTS_LIMIT_ITEMS);
        let (sweeper, end) = sync_channel(0);
        let requests = Arc::new(Mutex::new(requests));
        let clerk = Arc::new(Clerk {
            fleet: fleet.clone(),
            hook,
            region,
            rates: Mutex::default(),
        });
        for _ in 0..THREADS {
            let (clerk, requests) = (Arc::clone(&clerk), Arc::clone(&requests));
            thread::Builder::new()
                .name("provisioning".into())
                .spawn(move || work(&clerk, &requests))?;
        }
        thread::Builder::new()
            .name("provisioning-sweep".into())
            .spawn(move || sweep(&fleet, &end))?;
        Ok(ProvisioningDesk {
            inbox,
            _sweeper: sweeper,
        })
    }

    /// Takes a request of a device; never blocks. The answer comes through its `reply`; a topic that asks for nothing
    /// is not answered.
    pub fn ask(&self, request: ProvisioningRequest) {
        let (TrySendError::Full(request) | TrySendError::Disconnected(request)) =
            match self.inbox.try_send(request) {
                Ok(()) => return,
                Err(refused) => refused,
            };
        if let Some((_, format)) = message::read_topic(&request.topic) {
            let words = "too many requests wait; try again later";
            answer(
                request,
                format,
                Err(Rejection::new(429, "Throttling", words)),
            );
        }
    }
}

fn work(clerk: &Clerk, requests: &Mutex<Receiver<ProvisioningRequest>>) {
    loop {
        let next = requests.lock().recv();
        let Ok(request) = next else { return };
        let Some((operation, format)) = message::read_topic(&request.topic) else {
            tracing::debug!(topic = request.topic, "a topic that asks for nothing");
            continue;
        };
        let outcome = clerk.decide(&request, operation, format);
        if let Err(rejection) = &outcome {
            tracing::info!(claim = %request.claim, client_id = request.client_id, topic = request.topic,
                code = rejection.code, "provisioning refused: {}", rejection.message);
        }
        answer(request, format, outcome);
    }
}

fn answer(request: ProvisioningRequest, format: Format, outcome: Result<Value, Rejection>) {
    let (end, value) = match outcome {
        Ok(value) => ("accepted", value),
        Err(rejection) => ("rejected", message::rejected(&rejection)),
    };
    (request.reply)(ProvisioningAnswer {
        topic: format!("{}/{end}", request.topic),
        payload: format.write(&value),
    });
}

impl Clerk {
    fn decide(
        &self,
        request: &ProvisioningRequest,
        operation: Operation,
        format: Format,
    ) -> Result<Value, Rejection> {
        let now = SystemTime::now();
        self.admit(request, &operation)?;
        let value = format.read(&request.payload)?;
        match operation {
            Operation::CreateKeysAndCertificate => {
                let made = self
                    .fleet
                    .create_pending_certificate(&request.claim, None, now)?;
                Ok(message::created(&made))
            }
            Operation::CreateCertificateFromCsr => {
                let asked: CsrRequest = message::fields(value)?;
                let csr = asked.certificate_signing_request.as_bytes();
                let made = self
                    .fleet
                    .create_pending_certificate(&request.claim, Some(csr), now)?;
                Ok(message::created(&made))
            }
            Operation::RegisterThing(template) => {
                let asked: RegisterRequest = message::fields(value)?;
                let registration = ThingRegistration {
                    template: &template,
                    token: &asked.certificate_ownership_token,
                    parameters: asked.parameters.unwrap_or_default(),
                    claim: request.claim,
                    client_id: &request.client_id,
                    region: &self.region,
                };
                let done = self
                    .fleet
                    .register_thing(&registration, self.hook.as_ref(), now)?;
                tracing::info!(thing = %done.thing, certificate = %done.certificate, claim = %request.claim,
                    %template, revoked = ?done.revoked, "a device was provisioned");
                Ok(message::registered(&done))
            }
        }
    }

    /// Who may ask at all, and how often.
    fn admit(&self, request: &ProvisioningRequest, operation: &Operation) -> Result<(), Rejection> {
        if self.fleet.thing_of(&request.claim)?.is_some() {
            return Err(Rejection::new(
                403,
                "AccessDenied",
                "a device's own certificate is no claim",
            ));
        }
        let claim = match self.fleet.claim(&request.claim) {
            Ok((claim, used)) => {
                if claim.limits.uses.is_some_and(|most| used >= most) {
                    let words = "this claim has been used as often as it may be";
                    return Err(Rejection::new(403, "AccessDenied", words));
                }
                Some(claim)
            }
            Err(crate::FleetError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let rate = claim.and_then(|claim| claim.limits.rate_per_minute);
        let registers = matches!(operation, Operation::RegisterThing(_));
        let rate = rate.unwrap_or(RATE_PER_MINUTE);
        if !self
            .rates
            .lock()
            .take(request.claim, registers, rate, Instant::now())
        {
            let words = format!("this claim may ask {rate} times a minute; try again later");
            return Err(Rejection::new(429, "Throttling", words));
        }
        Ok(())
    }
}

fn sweep(fleet: &Fleet, end: &Receiver<()>) {
    loop {
        let now = SystemTime::now();
        let swept = fleet
            .sweep_pending_certificates(now)
            .and_then(|pending| Ok((pending, fleet.sweep_claims(now)?)));
        match swept {
            Ok((0, 0)) => {}
            Ok((pending, claims)) => {
                tracing::info!(
                    pending,
                    claims,
                    "unclaimed certificates and ended claims were deleted"
                );
            }
            Err(error) => {
                tracing::error!(%error, "unclaimed certificates cannot be deleted; trying again")
            }
        }
        match end.recv_timeout(SWEEP_INTERVAL) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
    }
}
