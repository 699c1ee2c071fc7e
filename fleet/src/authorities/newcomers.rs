//! Just in time: a certificate that is new here came through a handshake with its key, under an authority that
//! registers by itself. It waits for an operator, or becomes a device by a template, on a thread of its own, or on the
//! template's where that has a hook to wait for; its first connection ends either way.

use super::{
    AuthorityRecord, CERTIFICATE_PARAMETERS, Registration, certificates::record_of, check_template,
};
use crate::{
    CertificateRecord, CertificateStatus, EnrolmentWay, Fleet, FleetError, Origin, Sampler,
    events::RegistryEvent,
    keys,
    provisioning::{
        Breaker, HookCaller, HookQuestion, Lanes, Registered, Rejection, TemplateKind,
        TemplateName, Turn, read_names,
    },
    template::{CERTIFICATE_ID, CertificateSource, Template},
};
use ca::ForeignCertificate;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::SystemTime,
};

/// Most newcomers that wait; one more comes again when it reconnects.
pub const NEWCOMERS_LIMIT_ITEMS: usize = 4_096;

/// What became of a newcomer.
#[derive(Debug)]
enum Welcome {
    /// It is known by now.
    Known,
    /// It waits for an operator.
    Waiting(Box<CertificateRecord>),
    /// It is a device.
    Device(Box<Registered>),
}

/// Where newcomers are handed over. Ends when it is dropped, after those that wait.
pub struct NewcomerDesk {
    queue: SyncSender<Vec<u8>>,
}

impl NewcomerDesk {
    /// Starts the thread that looks after newcomers.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(fleet: Fleet, hook: Arc<dyn HookCaller>, region: String) -> std::io::Result<Self> {
        let (queue, waiting) = sync_channel::<Vec<u8>>(NEWCOMERS_LIMIT_ITEMS);
        let greeter = Arc::new(Greeter {
            fleet,
            hook: Breaker::around(hook),
            region,
            refusals: Sampler::new(),
        });
        let lanes = Lanes::default();
        let work = move || {
            for leaf in waiting {
                match greeter.fleet.asks_elsewhere(&leaf, SystemTime::now()) {
                    Ok(Some(template)) => {
                        let greeter = Arc::clone(&greeter);
                        lanes.put(&template, move |turn| match turn {
                            Turn::Now => greeter.greet(&leaf),
                            // It comes again.
                            Turn::NoRoom => {}
                        });
                    }
                    // What cannot be read now is told of where it is read again.
                    Ok(None) | Err(_) => greeter.greet(&leaf),
                }
            }
        };
        std::thread::Builder::new()
            .name("newcomers".into())
            .spawn(work)?;
        Ok(NewcomerDesk { queue })
    }

    /// Hands over a certificate (DER) whose key came through a handshake. Does not block.
    pub fn take(&self, leaf: &[u8]) {
        // One that finds no place comes again.
        let _ = self.queue.try_send(leaf.to_vec());
    }
}

/// What is needed to look after a newcomer.
struct Greeter {
    fleet: Fleet,
    hook: Breaker,
    region: String,
    refusals: Sampler,
}

impl Greeter {
    fn greet(&self, leaf: &[u8]) {
        let (now, region) = (SystemTime::now(), &self.region);
        let welcome = self.fleet.welcome(leaf, &self.hook, region, now);
        tell(welcome, &self.refusals);
    }
}

fn tell(welcome: Result<Welcome, Rejection>, refusals: &Sampler) {
    match welcome {
        Ok(Welcome::Known) => {}
        Ok(Welcome::Waiting(record)) => tracing::info!(
            certificate = %record.id,
            "a new certificate of a registered authority waits for activation (UpdateCertificate newStatus=ACTIVE)"
        ),
        Ok(Welcome::Device(done)) => tracing::info!(
            thing = %done.thing, certificate = %done.certificate, revoked = ?done.revoked,
            "a device was provisioned at its first connection"
        ),
        // Whoever is refused comes again, as often as it likes.
        Err(rejection) => {
            if let Some(left_out) = refusals.take_counting() {
                tracing::warn!(
                    code = rejection.code,
                    left_out,
                    "a new certificate of a registered authority was not registered: {}",
                    rejection.message
                );
            }
        }
    }
}

impl Fleet {
    /// The template whose hook somebody else answers, where a newcomer comes by one.
    fn asks_elsewhere(
        &self,
        leaf: &[u8],
        now: SystemTime,
    ) -> Result<Option<TemplateName>, FleetError> {
        let certificate = ForeignCertificate::read(leaf)?;
        let signer = self.signer_of(&certificate, None, now)?;
        let named = signer.and_then(|authority| authority.registration?.template_name);
        let Some(name) = named else { return Ok(None) };
        let hook = self.provisioning_template(&name)?.hook;
        Ok(hook
            .is_some_and(|hook| hook.is_asked_elsewhere())
            .then_some(name))
    }

    /// Registers a newcomer, all of it or nothing.
    fn welcome(
        &self,
        leaf: &[u8],
        hook: &dyn HookCaller,
        region: &str,
        now: SystemTime,
    ) -> Result<Welcome, Rejection> {
        let certificate = ForeignCertificate::read(leaf).map_err(FleetError::from)?;
        self.refuse_key(&certificate)?;
        let id = certificate.facts.id;
        if self
            .read::<CertificateRecord>(&keys::certificate(&id))?
            .is_some()
        {
            return Ok(Welcome::Known);
        }
        let Some(authority) = self.signer_of(&certificate, None, now)? else {
            return Ok(Welcome::Known);
        };
        if !authority.is_good(now)
            || !authority.auto_registration
            || !certificate.facts.is_valid_at(now)
        {
            return Err(Rejection::denied(
                "the authority does not register by itself any more, or the certificate is not valid now",
            ));
        }
        match &authority.registration {
            Some(registration) => {
                let newcomer = Newcomer {
                    certificate: &certificate,
                    authority: &authority,
                };
                self.become_device(&newcomer, registration, hook, region, now)
                    .map(|done| Welcome::Device(Box::new(done)))
            }
            None => {
                let origin = Origin::Authority(authority.id);
                let status = CertificateStatus::PendingActivation;
                let record = record_of(&certificate, origin, status, EnrolmentWay::Jitr, now);
                self.transact(|t| {
                    self.put_new_foreign(t, &record, Some(&authority))?;
                    t.tell(RegistryEvent::CertificateRegistered(
                        Box::new(record.clone()),
                        authority.id,
                    ));
                    Ok(())
                })?;
                Ok(Welcome::Waiting(Box::new(record)))
            }
        }
    }

    fn become_device(
        &self,
        newcomer: &Newcomer<'_>,
        registration: &Registration,
        hook: &dyn HookCaller,
        region: &str,
        now: SystemTime,
    ) -> Result<Registered, Rejection> {
        let id = newcomer.certificate.facts.id;
        let by_name = registration
            .template_name
            .as_ref()
            .map(|name| self.provisioning_template(name))
            .transpose()?;
        let body = match (&by_name, &registration.template_body) {
            (Some(record), _) if !record.enabled || record.kind != TemplateKind::Jitp => {
                return Err(Rejection::denied(&format!(
                    "template {} is not enabled for just-in-time provisioning",
                    record.name
                )));
            }
            (Some(record), _) => &record.default()?.body,
            (None, Some(body)) => body,
            (None, None) => return Err(Rejection::invalid("the authority names no template")),
        };
        check_template(body)?;
        let template = Template::parse(body).map_err(FleetError::from)?;
        let mut parameters = newcomer.parameters(&template);
        if let Some(record) = &by_name
            && let Some(asked) = &record.hook
        {
            let question = HookQuestion {
                template: &record.name,
                asker: id,
                client_id: "",
                region,
                parameters: &parameters,
                certificate: (id, &newcomer.certificate.pem),
            };
            let overrides = self.ask_hook(asked, &question, hook)?;
            parameters.extend(overrides);
        }
        parameters.insert(CERTIFICATE_ID.to_owned(), id.to_string());
        let plan = template.evaluate(&parameters).map_err(FleetError::from)?;
        if plan.certificate.source != CertificateSource::Id(id.to_string()) {
            return Err(Rejection::invalid(
                "the template names another certificate than the one that the device has shown",
            ));
        }
        let status = match plan.certificate.active {
            true => CertificateStatus::Active,
            false => CertificateStatus::Inactive,
        };
        let origin = Origin::Authority(newcomer.authority.id);
        let way = EnrolmentWay::Jitp;
        let record = record_of(newcomer.certificate, origin, status, way, now);
        let names = read_names(&plan, &self.policy_limits())?;
        let revoked = self.transact_or_reject(|t| {
            // A hook takes its time, and whoever switches template or authority off meanwhile has been told that they are.
            if let Some(known) = &by_name
                && t.get(&keys::template(&known.name))?.as_ref() != Some(known)
            {
                return Ok(Err(Rejection::denied(
                    "the template was changed while this was decided",
                )));
            }
            let authority: Option<AuthorityRecord> =
                t.get(&keys::authority(&newcomer.authority.id))?;
            if authority.as_ref() != Some(newcomer.authority) {
                return Ok(Err(Rejection::denied(
                    "the authority was changed while this was decided",
                )));
            }
            self.put_new_foreign(t, &record, Some(newcomer.authority))?;
            self.settle(t, (&record.id, &record.pem), &plan, &names, now)
        })?;
        Ok(Registered {
            thing: names.thing,
            certificate: id,
            configuration: plan.configuration,
            revoked,
        })
    }
}

struct Newcomer<'a> {
    certificate: &'a ForeignCertificate,
    authority: &'a AuthorityRecord,
}

impl Newcomer<'_> {
    /// What the certificate's subject says, of what the template asks for.
    fn parameters(&self, template: &Template) -> BTreeMap<String, String> {
        let values = &self.certificate.facts.values;
        let asked: Vec<&str> = template.parameters().map(|(name, _)| name).collect();
        CERTIFICATE_PARAMETERS
            .iter()
            .filter(|(name, _)| asked.contains(name))
            .filter_map(|(name, field)| {
                let value = values
                    .iter()
                    .find(|value| !value.of_issuer && value.field == *field)?;
                Some(((*name).to_owned(), value.value.clone()))
            })
            .collect()
    }
}
