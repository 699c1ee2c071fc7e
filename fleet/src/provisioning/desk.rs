//! Where requests of devices are queued and answered: a few threads of their own, because keys are made. Hooks are waited
//! for on their templates' lanes, so that one that is slow holds up who comes by it and nobody else. One more thread
//! clears away what nobody came back for.

use super::{
    Breaker, HookCaller, Lanes, Rejection, TemplateName, ThingRegistration, Turn,
    message::{self, CsrRequest, Format, Operation, RegisterRequest},
    place::Place,
    rate::Rates,
};
use crate::{Acting, Crowded, Doer, Excerpt, Fleet, Sampler, Seat, ShareBounds, Shares};
use ca::CertificateId;
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Most requests that wait; one more is refused.
pub const REQUESTS_LIMIT_ITEMS: usize = 4_096;
/// What of them may be of one claim, which many devices share, and how many bytes they have: topics and payloads. How
/// often a claim may ask is its own limit, see [`RATE_PER_MINUTE`].
const SHARES: ShareBounds = ShareBounds {
    waiting: REQUESTS_OF_CLAIM_LIMIT_ITEMS,
    waiting_bytes: 8 * 1024 * 1024,
    per_minute: u32::MAX,
    all_waiting: REQUESTS_LIMIT_ITEMS,
    all_waiting_bytes: 32 * 1024 * 1024,
};
/// Most requests of one claim that wait.
const REQUESTS_OF_CLAIM_LIMIT_ITEMS: usize = 1_024;
/// Most bytes of a request; what is longer is not even queued.
const REQUEST_BYTES: usize = 64 * 1024;
/// Threads that answer.
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
    /// The address it is connected from, where that is known.
    pub source: Option<IpAddr>,
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
    inbox: SyncSender<Waiting>,
    shares: Shares,
    /// Dropping the last one ends the sweeper.
    _sweeper: SyncSender<()>,
}

/// A request with its place in the queue.
type Waiting = (ProvisioningRequest, Seat);

struct Clerk {
    fleet: Fleet,
    hook: Breaker,
    lanes: Lanes,
    region: String,
    rates: Mutex<Rates>,
    refusals: Sampler,
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
            hook: Breaker::around(hook),
            lanes: Lanes::default(),
            region,
            rates: Mutex::default(),
            refusals: Sampler::new(),
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
            shares: Shares::new(SHARES),
            _sweeper: sweeper,
        })
    }

    /// Takes a request of a device; never blocks. The answer comes through its `reply`; a topic that asks for nothing
    /// is not answered.
    pub fn ask(&self, request: ProvisioningRequest) {
        let Some((_, format)) = message::read_topic(&request.topic) else {
            tracing::debug!(topic = ?Excerpt(&request.topic), "a topic that asks for nothing");
            return;
        };
        if request.payload.len() > REQUEST_BYTES {
            let words = format!(
                "the request has {} bytes; at most {REQUEST_BYTES} are read",
                request.payload.len()
            );
            return answer(request, format, Err(Rejection::invalid(words)));
        }
        let bytes = request.topic.len() + request.payload.len();
        let who = request.claim.to_string();
        let (request, crowded) = match self.shares.take(&who, bytes, Instant::now()) {
            Err(crowded) => (request, crowded),
            Ok(seat) => match self.inbox.try_send((request, seat)) {
                Ok(()) => return,
                Err(
                    TrySendError::Full((request, _)) | TrySendError::Disconnected((request, _)),
                ) => (request, Crowded::All),
            },
        };
        let busy = Rejection::new(429, "Throttling", crowded.to_string());
        answer(request, format, Err(busy));
    }
}

fn work(clerk: &Arc<Clerk>, requests: &Mutex<Receiver<Waiting>>) {
    loop {
        let next = requests.lock().recv();
        // It waits no more, and its seat is free before its device hears the answer.
        let Ok((request, seat)) = next else { return };
        drop(seat);
        let Some((operation, format)) = message::read_topic(&request.topic) else {
            // It was not queued then.
            continue;
        };
        if let Err(rejection) = clerk.admit(&request, &operation) {
            clerk.close(request, format, Err(rejection));
            continue;
        }
        let lane = match &operation {
            Operation::RegisterThing(template) if clerk.waits_for(template) => {
                Some(template.clone())
            }
            _ => None,
        };
        match lane {
            None => {
                let outcome = clerk.decide(&request, operation, format);
                clerk.close(request, format, outcome);
            }
            Some(template) => {
                let own = Arc::clone(clerk);
                clerk.lanes.put(&template, move |turn| {
                    let outcome = match turn {
                        Turn::Now => own.decide(&request, operation, format),
                        Turn::NoRoom => Err(Rejection::new(
                            429,
                            "Throttling",
                            "too many wait for this template's hook; try again later",
                        )),
                    };
                    own.close(request, format, outcome);
                });
            }
        }
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
    /// Whether somebody else is asked before a device comes in by this template.
    fn waits_for(&self, template: &TemplateName) -> bool {
        let record = self.fleet.provisioning_template(template);
        record.is_ok_and(|record| record.hook.is_some_and(|hook| hook.is_asked_elsewhere()))
    }

    /// Answers, and says so where it is a refusal.
    fn close(
        &self,
        request: ProvisioningRequest,
        format: Format,
        outcome: Result<Value, Rejection>,
    ) {
        if let Err(rejection) = &outcome
            && let Some(left_out) = self.refusals.take_counting()
        {
            tracing::info!(claim = %request.claim, client_id = request.client_id, topic = ?Excerpt(&request.topic),
                code = rejection.code, left_out, why = ?Excerpt(&rejection.message), "provisioning refused");
        }
        answer(request, format, outcome);
    }

    fn decide(
        &self,
        request: &ProvisioningRequest,
        operation: Operation,
        format: Format,
    ) -> Result<Value, Rejection> {
        let now = SystemTime::now();
        let value = format.read(&request.payload)?;
        let name = match &operation {
            Operation::CreateKeysAndCertificate => "CreateKeysAndCertificate",
            Operation::CreateCertificateFromCsr => "CreateCertificateFromCsr",
            Operation::RegisterThing(_) => "RegisterThing",
        };
        let acting = Acting::new(Doer::Claim, Some(request.claim.to_string()), name, now);
        let fleet = self.fleet.acting(Arc::new(acting));
        match operation {
            Operation::CreateKeysAndCertificate => self.create(&fleet, request, None, now),
            Operation::CreateCertificateFromCsr => {
                let asked: CsrRequest = message::fields(value)?;
                let csr = asked.certificate_signing_request.as_bytes();
                self.create(&fleet, request, Some(csr), now)
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
                let done = fleet.register_thing(&registration, &self.hook, now)?;
                tracing::info!(thing = %done.thing, certificate = %done.certificate, claim = %request.claim,
                    %template, revoked = ?done.revoked, "a device was provisioned");
                Ok(message::registered(&done))
            }
        }
    }

    fn create(
        &self,
        fleet: &Fleet,
        request: &ProvisioningRequest,
        csr: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Value, Rejection> {
        let made = fleet.create_pending_certificate(&request.claim, request.source, csr, now)?;
        if let Some(source) = &made.in_place_of
            && let Some(left_out) = self.refusals.take_counting()
        {
            tracing::warn!(claim = %request.claim, source, left_out,
                "a claim has as many certificates that were not registered as it may: the oldest of the address with most \
                 of them was given up; where that goes on, revoke the claim");
        }
        Ok(message::created(&made))
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
                if let Err(crate::FleetError::NotFound { .. }) =
                    self.fleet.provisioning_template(&claim.template)
                {
                    let words = "the template of this claim is gone";
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
        let place = Place::of(request.source);
        if !self
            .rates
            .lock()
            .take(request.claim, registers, place, rate, Instant::now())
        {
            let words = format!(
                "this claim may ask {rate} times a minute, and whoever else asks by it has a part of that; try again later"
            );
            return Err(Rejection::new(429, "Throttling", words));
        }
        Ok(())
    }
}

fn sweep(fleet: &Fleet, end: &Receiver<()>) {
    loop {
        let now = SystemTime::now();
        let swept = fleet
            .finish_template_deletions(now)
            .and_then(|_| fleet.sweep_pending_certificates(now))
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
