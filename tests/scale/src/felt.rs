//! How soon a change of the registry is felt: a thousand live sessions are hit at once by each way out, while a thousand
//! others go on. Registry and broker run here, in threads of the same process, so that the moment of a commit (the store
//! tells its watchers) and that of a delivery are read from one clock.

mod by_policy;

use crate::{
    client::{Heard, Identity, Session, now_ns},
    house,
};
use anyhow::Context as _;
use broker::{
    Broker, BrokerParts, Limits, Listeners, Request, ReservedTopics,
    tls::{self, ClientAuth, Protocol},
};
use ca::{CertificateId, RevocationReason};
use fleet::{
    DeviceKey, Enrolment, Fleet, GroupChange, GroupName, Target, ThingName,
    authorities::{AuthorityChange, AuthorityMode, AuthorityStatus, NewAuthority},
    mass::{Measure, Selection},
};
use policy::PolicyName;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};
use store::{Event, Store};
use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Messages a second, over all sessions.
const MESSAGES_PER_S: u64 = 10_000;
/// How long messages flow before and after a change.
const AROUND: Duration = Duration::from_millis(1_500);
/// Longest that a change may take until all sessions have ended.
const END_LIMIT: Duration = Duration::from_secs(60);
const WAYS: [&str; 6] = [
    "revoke",
    "deactivate",
    "delete",
    "detach from thing",
    "CA deactivation",
    "group removal",
];
/// Rows that concern all who are hit.
const SHARED: [&str; 4] = ["ca/", "policy/", "attached/group:", "network/"];
const OPEN: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
const OWN: &str = r#"{"Version":"2012-10-17","Statement":[
{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}"},
{"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:*:*:topicfilter/cmd/${iot:Connection.Thing.ThingName}"},
{"Effect":"Allow","Action":"iot:Receive","Resource":"arn:aws:iot:*:*:topic/cmd/${iot:Connection.Thing.ThingName}"}]}"#;

struct NoReserved;

impl ReservedTopics for NoReserved {
    fn request(&self, _request: Request) {}
}

/// A device, and what its sessions have heard.
struct Device {
    thing: ThingName,
    certificate: CertificateId,
    identity: Identity,
    heard: Arc<Mutex<Heard>>,
}

struct Server {
    _store: Store,
    fleet: Fleet,
    broker: Broker,
    at: SocketAddr,
    roots: Arc<RootCertStore>,
}

/// Each way out, with `sessions` that are hit and as many that are not. `data` is a directory of its own.
pub(crate) fn felt(data: &Path, sessions: u64, only: Option<&str>) -> anyhow::Result<Value> {
    let server = serve(data)?;
    let fleet = &server.fleet;
    for (name, document) in [("open", OPEN), ("own", OWN)] {
        fleet.create_policy(&name.parse()?, document, SystemTime::now())?;
    }
    let others = enrol_all(fleet, "other", sessions, &["own"], None)?;
    let publisher = enrol_all(fleet, "publisher", 1, &["open"], None)?;
    let mut said = serde_json::Map::new();
    for way in WAYS
        .into_iter()
        .chain(by_policy::WAYS)
        .filter(|way| only.is_none_or(|only| *way == only))
    {
        said.insert(
            way.to_owned(),
            one(&server, way, sessions, &others, &publisher)?,
        );
    }
    server.broker.drain(Duration::from_secs(10))?;
    Ok(said.into())
}

fn serve(data: &Path) -> anyhow::Result<Server> {
    let (store, fleet) = house::open(data)?;
    let authority = fleet.authority();
    let identity = authority.server_identity(
        &data.join("tls"),
        &["localhost".to_owned()],
        SystemTime::now(),
    )?;
    let (journal, replay) = store.journal("broker")?;
    let broker = Broker::new(BrokerParts {
        fleet: fleet.clone(),
        journal,
        replay,
        limits: Limits::default(),
        aws: false,
        lost_subscription: broker::LostSubscription::default(),
    })?;
    let (mqtt, wss) = (
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    );
    let at = mqtt.local_addr()?;
    let certificate = tls::ServerCertificate::new(identity.chain(), identity.private_key(), None)?;
    let anchors = tls::ClientAnchors::new(&authority.anchors())?;
    let config = |protocol| {
        tls::server_config(
            &anchors,
            Some(&fleet),
            &certificate,
            ClientAuth::Required,
            protocol,
        )
    };
    let listeners = Listeners {
        mqtt,
        mqtt_tls: config(Protocol::Mqtt)?,
        wss,
        wss_tls: config(Protocol::Http)?,
    };
    broker.serve(listeners, Arc::new(NoReserved))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.root_der())?;
    Ok(Server {
        _store: store,
        fleet,
        broker,
        at,
        roots: Arc::new(roots),
    })
}

fn enrol_all(
    fleet: &Fleet,
    kind: &str,
    count: u64,
    policies: &[&str],
    group: Option<&GroupName>,
) -> anyhow::Result<Vec<Device>> {
    let policies: Vec<PolicyName> = policies
        .iter()
        .map(|name| name.parse())
        .collect::<Result<_, _>>()?;
    let one = |number: u64| {
        let thing: ThingName = format!("{kind}-{number:05}").parse()?;
        let enrolled = fleet.enrol(
            &Enrolment {
                thing: thing.clone(),
                policies: policies.clone(),
                groups: group.cloned().into_iter().collect(),
                attributes: BTreeMap::new(),
                key: DeviceKey::Generate,
            },
            SystemTime::now(),
        )?;
        let key = enrolled.key.context("a key was made")?;
        Ok(Device {
            certificate: enrolled.certificate.id,
            identity: Identity {
                name: thing.to_string(),
                chain: CertificateDer::pem_slice_iter(enrolled.issued.chain_pem.as_bytes())
                    .collect::<Result<_, _>>()?,
                key: key.private_key_der(),
            },
            thing,
            heard: Arc::default(),
        })
    };
    (0..count).map(one).collect()
}

/// The same, of an authority that was made elsewhere.
fn import_all(
    fleet: &Fleet,
    kind: &str,
    count: u64,
) -> anyhow::Result<(CertificateId, Vec<Device>)> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Elsewhere");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&key)?;
    let issuer = rcgen::Issuer::new(params, key);
    let registered = fleet.register_authority(
        &NewAuthority {
            certificate: &root.pem(),
            verification: None,
            mode: AuthorityMode::SniOnly,
            active: true,
            auto_registration: false,
            registration: None,
        },
        SystemTime::now(),
    )?;
    let one = |number: u64| {
        let thing: ThingName = format!("{kind}-{number:05}").parse()?;
        let key = rcgen::KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, thing.as_str());
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?;
        let record = fleet.import_device(
            &thing,
            &certificate.pem(),
            &["own".parse()?],
            &[],
            &BTreeMap::new(),
            SystemTime::now(),
        )?;
        Ok(Device {
            certificate: record.id,
            identity: Identity {
                name: thing.to_string(),
                chain: vec![certificate.der().clone()],
                key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            },
            thing,
            heard: Arc::default(),
        })
    };
    let devices = (0..count).map(one).collect::<anyhow::Result<_>>()?;
    Ok((registered.id, devices))
}

fn one(
    server: &Server,
    way: &str,
    sessions: u64,
    others: &[Device],
    publisher: &[Device],
) -> anyhow::Result<Value> {
    let fleet = &server.fleet;
    let kind = way.replace(' ', "-");
    let group: GroupName = kind.parse()?;
    let above = by_policy::make_above(fleet, way, &group)?;
    fleet.create_group(
        &group,
        above.as_ref(),
        &GroupChange::default(),
        kind.clone(),
        SystemTime::now(),
    )?;
    let mut authority = None;
    let hit = match way {
        "CA deactivation" => {
            let (id, devices) = import_all(fleet, &kind, sessions)?;
            authority = Some(id);
            devices
        }
        "group removal" => {
            fleet.attach_policy(&"own".parse()?, &Target::Group(group.clone()))?;
            enrol_all(fleet, &kind, sessions, &[], Some(&group))?
        }
        _ if by_policy::WAYS.contains(&way) => {
            let devices = enrol_all(fleet, &kind, sessions, &[], Some(&group))?;
            by_policy::prepare(fleet, way, &group, &devices)?;
            devices
        }
        _ => enrol_all(fleet, &kind, sessions, &["own"], Some(&group))?,
    };
    let stop = Arc::new(AtomicBool::new(false));
    // Apart, so that the others' stall is not what those who are hit have to do.
    let listening = [listen(server, &hit)?, listen(server, others)?];
    // In turn, so that at each moment some of both are told something.
    let topic = |device: &Device| format!("cmd/{}", device.thing);
    let both = hit.iter().zip(others);
    let topics = both
        .flat_map(|(hit, other)| [topic(hit), topic(other)])
        .collect();
    let publishing = publish(server, publisher, topics, &stop)?;
    std::thread::sleep(AROUND);
    let turn = if way == "clock" {
        Some(by_policy::wind(fleet, &group)?)
    } else {
        None
    };
    let (commits, following) = follow(server, &hit, &stop)?;
    let mut began = now_ns();
    if let Some(turn) = turn {
        std::thread::sleep(turn.duration_since(SystemTime::now())?);
        // What a commit is elsewhere.
        began = now_ns();
        lock(&commits).fill(Some(began));
    } else if by_policy::WAYS.contains(&way) {
        by_policy::change(fleet, way, &hit, &group)?;
    } else {
        change(fleet, way, &hit, &group, authority.as_ref())?;
    }
    let answered = now_ns();
    let deadline = std::time::Instant::now() + END_LIMIT;
    while !hit.iter().all(|device| lock(&device.heard).ended.is_some()) {
        anyhow::ensure!(
            std::time::Instant::now() < deadline,
            "{way}: a session has not ended"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(AROUND);
    stop.store(true, Ordering::Relaxed);
    for thread in [publishing, following] {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
    }
    let ended = hit
        .iter()
        .filter_map(|device| lock(&device.heard).ended)
        .max()
        .unwrap_or(answered);
    let figures = figures(&hit, others, &lock(&commits), (began, answered, ended))?;
    // The others' sessions are opened anew for the next way.
    for runtime in listening {
        runtime.shutdown_background();
    }
    for other in others {
        *lock(&other.heard) = Heard::default();
    }
    Ok(figures)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects all of them, and notes what they are told on a thread of its own.
fn listen(server: &Server, devices: &[Device]) -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("devices")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for device in devices {
            let filter = format!("cmd/{}", device.thing);
            let session = Session::open(
                server.at,
                Arc::clone(&server.roots),
                &device.identity,
                Some(&filter),
            )
            .await?;
            tokio::spawn(session.listen(Arc::clone(&device.heard)));
        }
        anyhow::Ok(())
    })?;
    Ok(runtime)
}

/// One message to each topic in turn, evenly.
fn publish(
    server: &Server,
    publisher: &[Device],
    topics: Vec<String>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let device = publisher.first().context("a publisher")?;
    let mut session = runtime.block_on(Session::open(
        server.at,
        Arc::clone(&server.roots),
        &device.identity,
        None,
    ))?;
    let stop = Arc::clone(stop);
    Ok(std::thread::Builder::new()
        .name("publisher".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let began = now_ns();
                let mut sent = 0;
                let mut topics = topics.iter().cycle();
                while !stop.load(Ordering::Relaxed) {
                    let due = (now_ns() - began) * MESSAGES_PER_S / 1_000_000_000;
                    let mut batch = Vec::new();
                    while sent < due {
                        batch.extend(Session::message(topics.next().context("a topic")?)?);
                        sent += 1;
                    }
                    if !batch.is_empty() {
                        session.send(&batch).await?;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                anyhow::Ok(())
            })
        })?)
}

type Commits = Arc<Mutex<Vec<Option<u64>>>>;

/// Notes for each device when the first change that concerns it was durable.
fn follow(
    server: &Server,
    hit: &[Device],
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<(Commits, JoinHandle<anyhow::Result<()>>)> {
    let mut numbers = HashMap::new();
    for (number, device) in hit.iter().enumerate() {
        numbers.insert(device.certificate.to_string(), number);
        numbers.insert(device.thing.to_string(), number);
    }
    let commits: Commits = Arc::new(Mutex::new(vec![None; hit.len()]));
    let mut watch = server
        ._store
        .table("registry")?
        .watch(server._store.revision());
    let (noted, stop) = (Arc::clone(&commits), Arc::clone(stop));
    let thread = std::thread::Builder::new()
        .name("commits".to_owned())
        .spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let event =
                    watch.next_before(std::time::Instant::now() + Duration::from_millis(50));
                let now = now_ns();
                let Some(Event::Changed { keys, .. }) = event else {
                    continue;
                };
                let mut noted = lock(&noted);
                for key in keys.iter() {
                    if SHARED.iter().any(|kind| key.starts_with(kind)) {
                        noted.iter_mut().for_each(|one| *one = one.or(Some(now)));
                    }
                    for part in key.split('/') {
                        if let Some(one) =
                            numbers.get(part).and_then(|number| noted.get_mut(*number))
                        {
                            *one = one.or(Some(now));
                        }
                    }
                }
            }
            Ok(())
        })?;
    Ok((commits, thread))
}

/// Takes the right to be connected from all of them.
fn change(
    fleet: &Fleet,
    way: &str,
    hit: &[Device],
    group: &GroupName,
    authority: Option<&CertificateId>,
) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let mass = |measure| {
        let (selection, mut after) = (Selection::Group(group.clone()), None::<String>);
        loop {
            let done =
                fleet.change_certificates(&selection, measure, false, after.as_deref(), now)?;
            after = done.next;
            if after.is_none() {
                return anyhow::Ok(());
            }
        }
    };
    match way {
        "revoke" => mass(Measure::Revoke(RevocationReason::KeyCompromise)),
        "deactivate" => mass(Measure::Deactivate),
        "delete" => hit.iter().try_for_each(|device| {
            fleet.decommission(&device.thing, now)?;
            Ok(())
        }),
        "detach from thing" => hit
            .iter()
            .try_for_each(|device| Ok(fleet.detach_principal(&device.thing, &device.certificate)?)),
        "CA deactivation" => {
            let change = AuthorityChange {
                status: Some(AuthorityStatus::Inactive),
                ..AuthorityChange::default()
            };
            fleet.update_authority(authority.context("an authority")?, &change, now)?;
            Ok(())
        }
        _ => hit
            .iter()
            .try_for_each(|device| Ok(fleet.remove_from_group(group, &device.thing)?)),
    }
}

/// Milliseconds.
fn figures(
    hit: &[Device],
    others: &[Device],
    commits: &[Option<u64>],
    (began, answered, ended): (u64, u64, u64),
) -> anyhow::Result<Value> {
    let (mut last, mut told, mut after) = (Vec::new(), Vec::new(), 0_u64);
    for (device, commit) in hit.iter().zip(commits) {
        let commit = commit.with_context(|| format!("no commit was seen for {}", device.thing))?;
        let heard = lock(&device.heard);
        let delivered = heard
            .messages
            .iter()
            .map(|(_, at)| *at)
            .max()
            .unwrap_or(commit);
        last.push(delivered.saturating_sub(commit) as f64 / 1e6);
        after += heard
            .messages
            .iter()
            .filter(|(sent, _)| *sent > commit)
            .count() as u64;
        told.push(heard.ended.unwrap_or(ended).saturating_sub(commit) as f64 / 1e6);
    }
    let (mut before, mut during) = (Vec::new(), Vec::new());
    for other in others {
        let heard = lock(&other.heard);
        anyhow::ensure!(heard.ended.is_none(), "{} was hit, too", other.thing);
        for (sent, at) in &heard.messages {
            let took = at.saturating_sub(*sent) as f64 / 1e6;
            // Whatever was on its way during the change, and a little longer.
            match (*at >= began, *sent <= ended + 50_000_000) {
                (true, true) => during.push(took),
                (false, _) => before.push(took),
                _ => {}
            }
        }
    }
    let quantiles = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (values.len() as f64 * share) as usize;
            values
                .get(place.min(values.len().saturating_sub(1)))
                .copied()
        };
        json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0), "count": values.len() })
    };
    Ok(json!({
        "change_ms": answered.saturating_sub(began) as f64 / 1e6,
        "last_delivery_ms": quantiles(last),
        "told_ms": quantiles(told),
        "sent_after_commit_and_delivered": after,
        "others_before_ms": quantiles(before),
        "others_during_ms": quantiles(during),
    }))
}
