//! How soon a change is felt by everybody who is live: `cargo run --release -p muster-fleet --example live -- [PRINCIPALS [DIRECTORY]]`
//!
//! Enrols so many devices (default 100,000) in a registry of its own in DIRECTORY (a fresh one; best on a memory file
//! system: what a disk needs to commit is not measured here), takes up the standing of each, and makes one change of
//! each kind. A principal has felt it when its grant is made anew and its connect judged again, as a session does when it
//! is woken. Times count from before the change was asked for, so the commit is in them.

use ca::{Authority, AuthorityConfig, CertificateId};
use fleet::{
    DeviceKey, Enrolment, Fleet, GroupChange, GroupName, NamedNetwork, Standing, Target, ThingName,
    WatchGuard,
};
use policy::{Action, Grant, PolicyName, Realm};
use std::{
    collections::BTreeMap,
    error::Error,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Wake, Waker},
    time::{Duration, Instant, SystemTime},
};
use store::Store;

const ACCOUNT: &str = "000000000000";
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Alarm {
    number: usize,
    woken: Sender<usize>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Nobody listens any more at the end.
        let _ = self.woken.send(self.number);
    }
}

struct Live {
    name: String,
    standing: Arc<Standing>,
    generation: u64,
    _watch: WatchGuard,
}

struct Measure {
    fleet: Fleet,
    live: Vec<Live>,
    woken: Receiver<usize>,
}

fn document(topics: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:*","Resource":["arn:aws:iot:*:{ACCOUNT}:client/${{iot:Connection.Thing.ThingName}}","arn:aws:iot:*:{ACCOUNT}:topic/{topics}/${{iot:Connection.Thing.ThingName}}/*"]}}]}}"#
    )
}

impl Measure {
    /// Makes a change and waits until `expected` principals have been judged again.
    fn change(
        &mut self,
        what: &str,
        expected: usize,
        change: impl FnOnce(&Fleet) -> Result<(), Box<dyn Error>> + Send,
    ) -> Result<(), Box<dyn Error>> {
        let began = Instant::now();
        let fleet = &self.fleet;
        let (times, answered) = std::thread::scope(|scope| {
            let changing = scope.spawn(move || {
                let done = change(fleet).map_err(|error| error.to_string());
                (done, began.elapsed())
            });
            let mut times = Vec::with_capacity(expected);
            while times.len() < expected {
                let Ok(number) = self.woken.recv_timeout(PATIENCE) else {
                    break;
                };
                let Some(live) = self.live.get_mut(number) else {
                    continue;
                };
                let generation = live.standing.generation();
                if generation == live.generation {
                    continue;
                }
                live.generation = generation;
                let now = live.standing.now();
                let grant = Grant::new(
                    Arc::clone(fleet.realm()),
                    Arc::clone(&now.policies),
                    now.context(&live.name, SystemTime::now()),
                );
                std::hint::black_box(grant.decide(Action::Connect, &live.name).is_allow());
                times.push(began.elapsed());
            }
            (times, changing.join())
        });
        let (done, answered) = answered.map_err(|_| "the change panicked")?;
        done?;
        if times.len() != expected {
            return Err(format!("{what}: {} of {expected} have felt it", times.len()).into());
        }
        let mut times = times;
        times.sort();
        let ms = |share: f64| {
            let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times
                .get(place)
                .map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        println!(
            "{what:44} {expected:>7} felt it: p50 {:>8.2} ms, p99 {:>8.2} ms, last {:>8.2} ms; answered after {:>8.2} ms",
            ms(0.5),
            ms(0.99),
            ms(1.0),
            answered.as_secs_f64() * 1e3
        );
        Ok(())
    }
}

fn enrol(
    fleet: &Fleet,
    numbers: std::ops::Range<usize>,
    group: &GroupName,
) -> Result<Vec<(String, CertificateId)>, String> {
    let mut enrolled = Vec::with_capacity(numbers.len());
    for number in numbers {
        let name = format!("device-{number:07}");
        let enrolment = Enrolment {
            thing: name
                .parse()
                .map_err(|error: fleet::NameError| error.to_string())?,
            policies: vec!["device-default".parse().map_err(|_| "a name".to_owned())?],
            groups: vec![group.clone()],
            attributes: BTreeMap::new(),
            key: DeviceKey::Generate,
        };
        let device = fleet
            .enrol(&enrolment, SystemTime::now())
            .map_err(|error| error.to_string())?;
        enrolled.push((name, device.certificate.id));
    }
    Ok(enrolled)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let kept;
    let directory = match arguments.next() {
        Some(path) => PathBuf::from(path),
        None => {
            kept = tempfile::tempdir()?;
            kept.path().to_path_buf()
        }
    };
    let store = Store::open(&directory.join("store"))?;
    let config = AuthorityConfig {
        name: "measure".into(),
        public_url: "http://localhost:8880".into(),
    };
    let now = SystemTime::now();
    let authority = Arc::new(Authority::open_or_create(
        &directory.join("ca"),
        config,
        now,
    )?);
    let fleet = Fleet::open(&store, authority, Realm::live(ACCOUNT), now)?;
    let (region, site): (GroupName, GroupName) = ("region".parse()?, "site".parse()?);
    let own: PolicyName = "own".parse()?;
    let more: PolicyName = "more".parse()?;
    fleet.create_group(&region, None, &GroupChange::default(), "r".into(), now)?;
    fleet.create_group(
        &site,
        Some(&region),
        &GroupChange::default(),
        "s".into(),
        now,
    )?;
    fleet.create_policy(&own, &document("own"), now)?;
    fleet.create_policy(&more, &document("more"), now)?;
    fleet.attach_policy(&own, &Target::Group(region.clone()))?;

    let began = Instant::now();
    let half = count / 2;
    let mut devices = Vec::with_capacity(count);
    std::thread::scope(|scope| {
        let parts = [0..half, half..count].map(|part| scope.spawn(|| enrol(&fleet, part, &site)));
        for part in parts {
            devices.extend(part.join().map_err(|_| "enrolment panicked".to_owned())??);
        }
        Ok::<_, String>(())
    })?;
    println!(
        "{count} devices enrolled in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let (woken, receiver) = channel();
    let began = Instant::now();
    let mut live = Vec::with_capacity(count);
    for (number, (name, id)) in devices.iter().enumerate() {
        let standing = fleet.standing(id)?;
        let woken = woken.clone();
        live.push(Live {
            name: name.clone(),
            generation: standing.generation(),
            _watch: standing.watch(Waker::from(Arc::new(Alarm { number, woken }))),
            standing,
        });
    }
    println!(
        "{count} standings read in {:.2} s",
        began.elapsed().as_secs_f64()
    );
    let mut measure = Measure {
        fleet,
        live,
        woken: receiver,
    };
    let network = |range: &str| NamedNetwork {
        name: "plant".into(),
        ranges: vec![range.into()],
    };
    measure.change("policy document", count, |fleet| {
        Ok(fleet
            .update_policy(&own, &document("other"), SystemTime::now())
            .map(drop)?)
    })?;
    measure.change("default version", count, |fleet| {
        Ok(fleet.set_default_version(&own, 1)?)
    })?;
    measure.change("attachment to a group above", count, |fleet| {
        Ok(fleet.attach_policy(&more, &Target::Group(region.clone()))?)
    })?;
    measure.change("detachment from it", count, |fleet| {
        Ok(fleet.detach_policy(&more, &Target::Group(region.clone()))?)
    })?;
    measure.change("named network", count, |fleet| {
        Ok(fleet.set_network(&network("10.0.0.0/8"))?)
    })?;
    let few = count.min(1_000);
    let names: Vec<ThingName> = devices
        .iter()
        .take(few)
        .map(|(name, _)| name.parse())
        .collect::<Result<_, _>>()?;
    let installed: Vec<_> = names
        .iter()
        .map(|name| (name.clone(), ("fw".to_owned(), "1.0.0".to_owned())))
        .collect();
    measure.change("firmware of some", few, |fleet| {
        Ok(fleet.set_firmware(&installed)?)
    })?;
    let one = names.first().ok_or("no device")?;
    measure.change("quarantine of one", 1, |fleet| {
        let since = SystemTime::now();
        fleet.set_health(one, |health| {
            health.quarantine = Some(fleet::Quarantine {
                since,
                reason: None,
            });
        })?;
        Ok(())
    })?;
    measure.change("group left by one", 1, |fleet| {
        Ok(fleet.remove_from_group(&site, one)?)
    })?;
    let ids: Vec<CertificateId> = devices.iter().take(few).map(|(_, id)| *id).collect();
    measure.change("certificates of some revoked, in batches", few, |fleet| {
        for ids in ids.chunks(250) {
            let selection = fleet::mass::Selection::Certificates(ids.to_vec());
            let measure = fleet::mass::Measure::Revoke(ca::RevocationReason::KeyCompromise);
            fleet.change_certificates(&selection, measure, false, None, SystemTime::now())?;
        }
        Ok(())
    })?;
    Ok(())
}
