//! How soon a change is in force for everybody who is live, however many they are: no sessions, but what a session does
//! when it is woken. It makes its grant anew and judges its connect and a subscription.

use crate::{client::now_ns, house};
use anyhow::Context as _;
use ca::{CertificateId, RevocationReason};
use fleet::{
    DeviceKey, Enrolment, Fleet, GroupChange, GroupName, NamedNetwork, Quarantine, Standing,
    Target, ThingChange, ThingName, WatchGuard,
    mass::{Measure, Selection},
};
use policy::{Action, Grant, PolicyName};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Wake, Waker},
    time::{Duration, Instant, SystemTime},
};
use store::{Event, Store};

/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Things that changes of single ones are made to.
const FEW_ITEMS: usize = 1_000;
/// Enrolments under way at once.
const WORKERS: usize = 32;
/// Certificates revoked by one request.
const BATCH_ITEMS: usize = 250;

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
    name: ThingName,
    id: CertificateId,
    filter: String,
    standing: Arc<Standing>,
    generation: u64,
    _watch: WatchGuard,
}

impl Live {
    /// As a session does.
    fn judge(&self, fleet: &Fleet) {
        let now = self.standing.now();
        let grant = Grant::new(
            Arc::clone(fleet.realm()),
            Arc::clone(&now.policies),
            now.context(self.name.as_str(), SystemTime::now()),
        );
        let judged = (
            grant.decide(Action::Connect, self.name.as_str()),
            grant.decide(Action::Subscribe, &self.filter),
            grant.turns_at(),
        );
        let _ = std::hint::black_box(judged);
    }
}

struct All {
    store: Store,
    fleet: Fleet,
    live: Vec<Live>,
    /// By thing and by certificate.
    numbers: HashMap<String, usize>,
    woken: Receiver<usize>,
}

fn document(topics: &str, condition: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:*","Resource":["arn:aws:iot:*:*:client/${{iot:Connection.Thing.ThingName}}","arn:aws:iot:*:*:topic/{topics}/${{iot:Connection.Thing.ThingName}}/*"]{condition}}}]}}"#
    )
}

/// One change of each kind, with so many principals live in a fresh registry below `data`.
pub(crate) fn judged(data: &Path, principals: u64) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let (own, more): (PolicyName, PolicyName) = ("own".parse()?, "more".parse()?);
    let now = SystemTime::now();
    fleet.create_policy(&own, &document("own", ""), now)?;
    fleet.create_policy(&more, &document("more", ""), now)?;
    let (above, group): (GroupName, GroupName) = ("above".parse()?, "site".parse()?);
    for (name, parent) in [(&above, None), (&group, Some(&above))] {
        let (change, id) = (GroupChange::default(), name.to_string());
        fleet.create_group(name, parent, &change, id, now)?;
    }
    fleet.attach_policy(&own, &Target::Group(above.clone()))?;
    let mut all = All::new(store, fleet, principals, &group)?;
    let everybody = all.live.len();
    let few = everybody.min(FEW_ITEMS);
    let things: Vec<ThingName> = all.live.iter().take(few).map(|l| l.name.clone()).collect();
    let ids: Vec<CertificateId> = all.live.iter().take(few).map(|live| live.id).collect();
    let mut said = serde_json::Map::new();
    let mut note = |what: &str, expected: usize, change: &Change| {
        said.insert(what.to_owned(), all.change(what, expected, change)?);
        anyhow::Ok(())
    };

    note("policy document", everybody, &|fleet| {
        fleet.update_policy(&own, &document("other", ""), SystemTime::now())?;
        Ok(())
    })?;
    note("default version", everybody, &|fleet| {
        Ok(fleet.set_default_version(&own, 1)?)
    })?;
    note("attachment to the group above", everybody, &|fleet| {
        Ok(fleet.attach_policy(&more, &Target::Group(above.clone()))?)
    })?;
    note("detachment from the group above", everybody, &|fleet| {
        Ok(fleet.detach_policy(&more, &Target::Group(above.clone()))?)
    })?;
    note("CIDR set", everybody, &|fleet| {
        let network = NamedNetwork {
            name: "plant".to_owned(),
            ranges: vec!["10.0.0.0/8".to_owned()],
        };
        Ok(fleet.set_network(&network)?)
    })?;
    note("attribute, one by one", few, &|fleet| {
        let change = ThingChange {
            attributes: Some([("site".to_owned(), "north".to_owned())].into()),
            ..ThingChange::default()
        };
        for thing in &things {
            fleet.update_thing(thing, &change, None)?;
        }
        Ok(())
    })?;
    note("posture, one by one", few, &|fleet| {
        let since = SystemTime::now();
        for thing in &things {
            fleet.set_health(thing, |health| {
                health.quarantine = Some(Quarantine {
                    since,
                    reason: None,
                });
            })?;
        }
        Ok(())
    })?;
    note("posture, at once", few, &|fleet| {
        let firmware = ("fw".to_owned(), "1.0.0".to_owned());
        let installed: Vec<_> = things
            .iter()
            .map(|t| (t.clone(), firmware.clone()))
            .collect();
        Ok(fleet.set_firmware(&installed)?)
    })?;
    note("nested group left, one by one", few, &|fleet| {
        for thing in &things {
            fleet.remove_from_group(&group, thing)?;
        }
        Ok(())
    })?;
    note("nested group joined, one by one", few, &|fleet| {
        for thing in &things {
            fleet.add_to_group(&group, thing)?;
        }
        Ok(())
    })?;
    note("certificate, in batches", few, &|fleet| {
        for ids in ids.chunks(BATCH_ITEMS) {
            let revoke = Measure::Revoke(RevocationReason::KeyCompromise);
            let selection = Selection::Certificates(ids.to_vec());
            fleet.change_certificates(&selection, revoke, false, None, SystemTime::now())?;
        }
        Ok(())
    })?;
    said.insert("clock boundary".to_owned(), all.turn(&own)?);
    all.store.close();
    Ok(said.into())
}

/// Devices of a group, several at once so that they share commits.
pub(crate) fn enrol(
    fleet: &Fleet,
    count: u64,
    group: &GroupName,
) -> anyhow::Result<Vec<(ThingName, CertificateId)>> {
    let one = |number: u64| {
        let thing: ThingName = house::device(number).parse()?;
        let enrolment = Enrolment {
            thing: thing.clone(),
            policies: vec![fleet::DEVICE_DEFAULT.parse()?],
            groups: vec![group.clone()],
            attributes: BTreeMap::new(),
            key: DeviceKey::Generate,
        };
        let enrolled = fleet.enrol(&enrolment, SystemTime::now())?;
        anyhow::Ok((thing, enrolled.certificate.id))
    };
    std::thread::scope(|scope| {
        let part = |worker: u64| move || (worker..count).step_by(WORKERS).map(one).collect();
        let workers: Vec<_> = (0..WORKERS as u64)
            .map(|worker| scope.spawn(part(worker)))
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            let part: anyhow::Result<Vec<_>> = worker
                .join()
                .map_err(|_| anyhow::anyhow!("a worker has panicked"))?;
            all.extend(part?);
        }
        Ok(all)
    })
}

type Change<'a> = dyn Fn(&Fleet) -> anyhow::Result<()> + Sync + 'a;

impl All {
    fn new(store: Store, fleet: Fleet, principals: u64, group: &GroupName) -> anyhow::Result<Self> {
        let (tell, woken) = channel();
        let (mut live, mut numbers) = (Vec::new(), HashMap::new());
        for (number, (name, id)) in enrol(&fleet, principals, group)?.into_iter().enumerate() {
            let standing = fleet.standing(&id)?;
            let woken = tell.clone();
            numbers.insert(name.to_string(), number);
            numbers.insert(id.to_string(), number);
            live.push(Live {
                id,
                filter: format!("cmd/{name}/#"),
                name,
                generation: standing.generation(),
                _watch: standing.watch(Waker::from(Arc::new(Alarm { number, woken }))),
                standing,
            });
        }
        Ok(Self {
            store,
            fleet,
            live,
            numbers,
            woken,
        })
    }

    /// Makes a change and waits until `expected` principals have been judged again. Times count from the commit of
    /// what concerns each.
    fn change(&mut self, what: &str, expected: usize, change: &Change) -> anyhow::Result<Value> {
        let watch = self.store.table("registry")?.watch(self.store.revision());
        let stop = AtomicBool::new(false);
        let began = now_ns();
        let (fleet, numbers) = (&self.fleet, &self.numbers);
        let (live, woken) = (&mut self.live, &self.woken);
        std::thread::scope(|scope| {
            let noting = scope.spawn(|| commits(watch, numbers, &stop));
            let changing = scope.spawn(|| change(fleet).map(|()| now_ns()));
            let mut judged: HashMap<usize, u64> = HashMap::new();
            while judged.len() < expected {
                let Ok(number) = woken.recv_timeout(PATIENCE) else {
                    break;
                };
                let Some(live) = live.get_mut(number) else {
                    continue;
                };
                let generation = live.standing.generation();
                if generation == live.generation {
                    continue;
                }
                live.generation = generation;
                live.judge(fleet);
                judged.insert(number, now_ns());
            }
            let panicked = |_| anyhow::anyhow!("a thread has panicked");
            let answered = changing.join().map_err(panicked)?;
            stop.store(true, Ordering::Relaxed);
            let (everybody, each) = noting.join().map_err(panicked)?;
            let answered = answered.with_context(|| what.to_owned())?;
            anyhow::ensure!(
                judged.len() == expected,
                "{what}: {} of {expected} have felt it",
                judged.len()
            );
            let mut times = Vec::with_capacity(expected);
            for (number, at) in judged {
                let commit = each.get(&number).copied().or(everybody);
                let commit = commit.with_context(|| format!("{what}: no commit was seen"))?;
                times.push(at.saturating_sub(commit) as f64 / 1e6);
            }
            let mut said = quantiles(times);
            let answered_ms = json!((answered - began) as f64 / 1e6);
            said.insert("answered_ms".to_owned(), answered_ms);
            Ok(said.into())
        })
    }

    /// A condition on time turns for everybody: a session's timer rings, and it judges itself.
    fn turn(&mut self, policy: &PolicyName) -> anyhow::Result<Value> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let second = since.as_secs() + PATIENCE.as_secs();
        let condition =
            format!(r#","Condition":{{"NumericLessThan":{{"aws:EpochTime":"{second}"}}}}"#);
        let expected = self.live.len();
        self.change("a condition on time", expected, &|fleet| {
            fleet.update_policy(policy, &document("own", &condition), SystemTime::now())?;
            Ok(())
        })?;
        let began = Instant::now();
        let times = self.live.iter().map(|live| {
            live.judge(&self.fleet);
            began.elapsed().as_secs_f64() * 1e3
        });
        Ok(quantiles(times.collect()).into())
    }
}

/// When the first commit came that concerns everybody, and those that concern one.
fn commits(
    mut watch: store::Watch,
    numbers: &HashMap<String, usize>,
    stop: &AtomicBool,
) -> (Option<u64>, HashMap<usize, u64>) {
    let (mut everybody, mut each) = (None, HashMap::new());
    while !stop.load(Ordering::Relaxed) {
        let event = watch.next_before(Instant::now() + Duration::from_millis(20));
        let now = now_ns();
        let Some(Event::Changed { keys, .. }) = event else {
            continue;
        };
        everybody = everybody.or(Some(now));
        for key in keys.iter() {
            for number in key.split('/').filter_map(|part| numbers.get(part)) {
                each.entry(*number).or_insert(now);
            }
        }
    }
    (everybody, each)
}

fn quantiles(mut times: Vec<f64>) -> Map<String, Value> {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        times.get(place.min(times.len().saturating_sub(1))).copied()
    };
    let said = [
        ("judged", json!(times.len())),
        ("p50_ms", json!(at(0.5))),
        ("p99_ms", json!(at(0.99))),
        ("last_ms", json!(at(1.0))),
    ];
    said.map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}
