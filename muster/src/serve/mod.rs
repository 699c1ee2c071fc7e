//! `muster serve`: opens the rooms from the bottom up, wires them, says `ready`, and closes them from the top down.

mod account;
mod descriptors;
mod events;
mod hook;
mod identity;
mod keys;
pub(crate) mod lineage;
mod listen;
mod log;
mod reserved;
mod rotation;
mod run_file;
mod signals;
mod welcome;

use crate::{cli, cli::Global, config::Settings};
use anyhow::Context as _;
use broker::{Broker, BrokerParts, Listeners};
use ca::{Authority, AuthorityConfig, BlockedKeys};
use control::{Control, ControlParts, Endpoint, Endpoints, Operators};
use descriptors::Descriptors;
use events::Events;
use fleet::{
    Fleet, ListSweeper, RevocationFaces,
    authorities::NewcomerDesk,
    provisioning::{ProvisioningDesk, RegistrationDesk},
};
use hook::HttpsHook;
use identity::{Keeper, ServerTls};
pub(crate) use keys::keyring;
use listen::Sockets;
use ota::server::{Ota, Sign, StreamDesk};
use policy::Realm;
use reserved::{Reserved, notifications, of_shadows};
use shadow::Shadows;
use std::{
    io::Write as _, path::Path, process::ExitCode, sync::Arc, time::Duration, time::SystemTime,
};
use store::Store;

/// How long sessions and requests under way get at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// The broker's journal in the store.
const JOURNAL: &str = "broker";

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(global: &Global, flags: cli::Serve) -> anyhow::Result<ExitCode> {
    let mut log = log::Log::start()?;
    let done = serve(global, flags);
    // What went wrong is said last, and to nobody where nobody takes what is said.
    if log.end() {
        return done;
    }
    Ok(done.unwrap_or(ExitCode::FAILURE))
}

fn serve(global: &Global, flags: cli::Serve) -> anyhow::Result<ExitCode> {
    let settings = Settings::resolve(flags)?;
    let signals = signals::Signals::listen()?;
    let descriptors = Descriptors::raise(settings.limits.connections);
    let sockets = Sockets::bind(&settings)?;
    let server = Server::open(&global.data, &settings, descriptors, sockets)?;
    server.announce(&global.data)?;
    signals.wait()?;
    server.drain(&global.data)
}

/// The rooms, running.
struct Server {
    store: Store,
    broker: Broker,
    control: Control,
    keeper: Keeper,
    sweeper: ListSweeper,
    endpoints: Endpoints,
    http: Endpoint,
    first_start: bool,
}

impl Server {
    fn open(
        data: &Path,
        settings: &Settings,
        descriptors: Descriptors,
        sockets: Sockets,
    ) -> anyhow::Result<Self> {
        let now = SystemTime::now();
        // Written when the first start has come so far as to say `ready`.
        let first_start = !run_file::was_written(data);
        let store = Store::open(data)?;
        account::check(data, &settings.account)?;
        // One left behind by a crash names ports that nobody answers on; who waits for the file must not read that.
        run_file::remove(data);
        let host = settings
            .names
            .first()
            .context("the server needs a name: --name HOST")?
            .clone();
        let at = |port| Endpoint {
            host: host.clone(),
            port,
        };
        let endpoints = Endpoints {
            mqtt: at(sockets.mqtt.1),
            wss: at(sockets.wss.1),
            https: at(sockets.https.1),
        };
        let http = at(sockets.http.1);
        let public_url = settings
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://{http}"));
        let place = data.join("ca");
        lineage::check_place(data, &place)?;
        let authority = Authority::open_or_create_with(
            &place,
            AuthorityConfig {
                name: "Muster".to_owned(),
                public_url,
            },
            keyring(&settings.keys)?,
            now,
        )?;
        let used = lineage::keep(data, &place, &authority)?;
        let authority = authority.with_numbers_used(used);
        lineage::follow(data, &authority);
        if let Err(error) = authority.ready() {
            // Devices that have their certificates need no new signature to connect.
            tracing::error!(%error, "nothing is issued, and no list or OCSP responder is signed, until the issuing key is back");
        }
        let blocked = BlockedKeys::open(&settings.blocked_keys).context("ca.blocked_keys")?;
        let authority = authority
            .with_terms(settings.terms)
            .with_blocked_keys(blocked);
        // What the next issuing certificate must leave the server.
        authority.expect_names(&settings.names)?;
        rotation::rotate_ended(&authority, &settings.rotation, now)?;
        let authority = Arc::new(authority);
        let operators = Operators::open_or_create(
            data,
            &authority,
            format!("https://{}", endpoints.https),
            now,
        )?;
        // The registry is what names it first.
        account::keep(data, &settings.account)?;
        let fleet = Fleet::open(
            &store,
            Arc::clone(&authority),
            Realm {
                unresolved_deny: settings.unresolved_deny,
                textual_subscriptions: settings.aws,
                ..Realm::live(&settings.account)
            },
            now,
        )?;
        fleet.record_decisions(settings.record_decisions);
        fleet.limit_policies(settings.policy_limits);
        fleet.bound_deeds(settings.deed_bounds);
        for operator in operators.list() {
            operator.note(&fleet)?;
        }
        operators.revoke_left(&fleet, now)?;
        let revocation = RevocationFaces::open(&fleet)?;
        let sweeper = revocation
            .start_sweeping()
            .context("start the thread of revocation lists")?;
        let (journal, replay) = store.journal(JOURNAL)?;
        let broker = Broker::new(BrokerParts {
            fleet: fleet.clone(),
            journal,
            replay,
            limits: descriptors.hold(settings.limits.clone()),
            aws: settings.aws,
            lost_subscription: settings.lost_subscription,
        })?;
        let ota = Ota::open(&store, fleet.clone(), notifications(broker.clone()), data)?;
        for document in ota.offline_documents()? {
            if document.is_due(now) {
                tracing::warn!(
                    role = %document.role,
                    version = document.version,
                    expires = %jiff::Timestamp::try_from(document.expires).context("the clock's time")?,
                    "what is signed offline for firmware ends soon or has ended, and devices take nothing by it then: see muster status"
                );
            }
        }
        ota.shaper().set_rate(settings.download_bytes_per_second);
        let shadows = Shadows::open(&store, fleet.clone(), of_shadows(broker.clone()))?;
        let (events, waiting) = Events::queue();
        waiting
            .publish(
                broker.clone(),
                settings.account.clone(),
                settings.region.clone(),
            )
            .context("start the thread of events")?;
        let registry = events.clone();
        fleet.send_events_to(Arc::new(move |event| registry.registry(event)));
        let signs = ota.vital_signs();
        let denied = signs.clone();
        fleet.send_denials_to(Arc::new(move |thing| {
            denied.saw(thing.as_str(), Sign::Denied, SystemTime::now());
        }));
        ota.hand_out_at(format!("https://{}", endpoints.https));
        let jobs = events.clone();
        ota.send_events_to(Arc::new(move |event| jobs.job(event)));
        let own = authority.clone();
        let hook = Arc::new(HttpsHook::new(move || own.trusted_roots()));
        let region = settings.region.clone();
        let newcomers = NewcomerDesk::start(fleet.clone(), hook.clone(), region.clone())
            .context("start the thread of newcomers")?;
        let provisioning = ProvisioningDesk::start(fleet.clone(), hook, region)
            .context("start the threads of fleet provisioning")?;
        let streams = StreamDesk::start(&ota).context("start the threads of streams")?;
        let tls = ServerTls::of(
            &revocation,
            data.join("tls"),
            settings.names.clone(),
            settings.expired_grace,
            operators.clone(),
            now,
        )?;
        broker.serve(
            Listeners {
                mqtt: sockets.mqtt.0,
                mqtt_tls: tls.mqtt,
                wss: sockets.wss.0,
                wss_tls: tls.wss,
            },
            Arc::new(Reserved {
                fleet: fleet.clone(),
                ota: ota.clone(),
                provisioning,
                streams,
                shadows: shadows.clone(),
                newcomers,
                events: events.clone(),
                signs,
            }),
        )?;
        let registration = RegistrationDesk::open(fleet.clone(), data.join("registration"))?;
        let control = Control::serve(ControlParts {
            registration,
            fleet,
            ota,
            shadows,
            broker: broker.clone(),
            revocation,
            authority,
            operators,
            expired_grace: settings.expired_grace,
            attestation: settings.attestation,
            endpoints: endpoints.clone(),
            account: settings.account.clone(),
            region: settings.region.clone(),
            https: sockets.https.0,
            http: sockets.http.0,
            tls: tls.https,
            descriptors: descriptors.control,
        })?;
        Ok(Server {
            store,
            broker,
            control,
            keeper: tls.keeper,
            sweeper,
            endpoints,
            http,
            first_start,
        })
    }

    /// Says where it listens: to programs in a file, to people and scripts on standard output. All ports accept.
    fn announce(&self, data: &Path) -> anyhow::Result<()> {
        run_file::write(data, &self.endpoints, &self.http)?;
        let mut out = std::io::stdout().lock();
        if self.first_start {
            write!(out, "{}", welcome::text(data, &self.endpoints)).context("print")?;
        }
        let Endpoints { mqtt, wss, https } = &self.endpoints;
        writeln!(out, "ready mqtt={mqtt} wss={wss} https={https}")
            .and_then(|()| out.flush())
            .context("print")
    }

    /// From the top down: no new requests, then no sessions, then what is left goes to disk.
    fn drain(self, data: &Path) -> anyhow::Result<ExitCode> {
        tracing::info!("draining");
        run_file::remove(data);
        let requests = self.control.drain(DRAIN_LIMIT);
        let sessions = self.broker.drain(DRAIN_LIMIT)?;
        if !(requests && sessions) {
            tracing::warn!(limit = ?DRAIN_LIMIT, requests, sessions, "some did not end in time and were cut off");
        }
        drop((self.keeper, self.sweeper));
        self.store.close();
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}
