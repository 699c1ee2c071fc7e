//! Lives of a device whose power goes at each of its file operations in turn: the real state
//! machine, installer, downloads and slots on a disk that forgets, against a real HTTPS server.
//!
//! After every cut it must start, find a complete image that the release team signed, say only
//! what is true, and end on the old image or the new one.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ota::manifest::CHUNK_BYTES;
use ota::{Components, ImageFacts, Manifest, ReleaseKey, Root, RootSpec};

use super::{Left, LossyDisk, Tree, plant, tree};
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::download::{self, Patience};
use crate::health::Health;
use crate::hooks::Hooks;
use crate::https::{Client, Timeouts};
use crate::identity::Identity;
use crate::identity::tests::Ca;
use crate::install::{Installer, Task};
use crate::slots::{self, Devices, Slots};
use crate::sound;
use crate::state::StateDir;
use crate::testserver::{Answer, Server};
use crate::update::{
    Effect, Ending, Event, Installed, JobKey, Machine, Order, Outcome, Report, Slot, State, Step,
    TRIAL_BOOTS_MAX,
};
use crate::{AgentError, trust};

/// So much has room in a slot that is a device.
const DEVICE_BYTES: usize = CHUNK_BYTES as usize + 40_000;

/// One update in the life of a device.
struct Chapter {
    version: &'static str,
    counter: u64,
    bytes: usize,
    /// So many of them came before the power went the first time.
    here: usize,
    /// How it ends on a device that keeps its power.
    ending: Ending,
    /// What runs then.
    runs: &'static str,
    /// Whether its manifest names a delta from the image before, and what is wrong with it.
    delta: Option<Delta>,
    /// Whether it is what runs already, and the disk has spoilt it.
    spoilt: bool,
}

/// What a delta is like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delta {
    /// As it should be.
    Good,
    /// Signed, and made of another image than the manifest says.
    Misled,
}

const CHAPTERS: [Chapter; 8] = [
    // The first image, with the server's first trust root.
    Chapter {
        version: "1.0",
        counter: 0,
        bytes: 40_000,
        here: 0,
        ending: Ending::Succeeded,
        runs: "1.0",
        delta: None,
        spoilt: false,
    },
    // Two chunks, a higher counter, and a new trust root on the way.
    Chapter {
        version: "2.0",
        counter: 1,
        bytes: CHUNK_BYTES as usize + 20_000,
        here: CHUNK_BYTES as usize - 10_000,
        ending: Ending::Succeeded,
        runs: "2.0",
        delta: None,
        spoilt: false,
    },
    // Its health check fails.
    Chapter {
        version: "3.0-sick",
        counter: 2,
        bytes: 40_000,
        here: 0,
        ending: Ending::Failed,
        runs: "2.0",
        delta: None,
        spoilt: false,
    },
    // Below the counter.
    Chapter {
        version: "0.9",
        counter: 0,
        bytes: 40_000,
        here: 0,
        ending: Ending::Rejected,
        runs: "2.0",
        delta: None,
        spoilt: false,
    },
    // Back, as far as the counter lets it.
    Chapter {
        version: "1.5",
        counter: 1,
        bytes: 40_000,
        here: 0,
        ending: Ending::Succeeded,
        runs: "1.5",
        delta: None,
        spoilt: false,
    },
    // Made of the image before and a delta.
    Chapter {
        version: "1.6",
        counter: 1,
        bytes: 90_000,
        here: 0,
        ending: Ending::Succeeded,
        runs: "1.6",
        delta: Some(Delta::Good),
        spoilt: false,
    },
    // The delta makes something else; the whole image is fetched.
    Chapter {
        version: "1.7",
        counter: 1,
        bytes: 100_000,
        here: 0,
        ending: Ending::Succeeded,
        runs: "1.7",
        delta: Some(Delta::Misled),
        spoilt: false,
    },
    // The same again, after the disk has spoilt it.
    Chapter {
        version: "1.7",
        counter: 1,
        bytes: 100_000,
        here: 0,
        ending: Ending::Succeeded,
        runs: "1.7",
        delta: None,
        spoilt: true,
    },
];

/// The server's side: one job, and what it was told of it.
struct Cloud {
    job: JobKey,
    order: Order,
    told: Option<(Ending, String)>,
    trials: u32,
    /// How often what starts images was told to go back.
    undone: u32,
    /// The slot whose image the disk has spoilt.
    spoilt: Option<Slot>,
}

impl Cloud {
    fn take(&mut self, report: Report) {
        let Some(ending) = report.ending else { return };
        assert_eq!(report.job, self.job);
        let said = (ending, report.reason);
        let before = self.told.get_or_insert_with(|| said.clone());
        assert_eq!(*before, said, "two endings of one job");
    }
}

struct Bench {
    root: tempfile::TempDir,
    /// The devices that are its slots, where it has some.
    devices: Option<Devices>,
    client: Client,
    trusted: Root,
    images: BTreeMap<&'static str, Manifest>,
    /// What came of an image before its chapter begins.
    parts: BTreeMap<&'static str, Vec<u8>>,
    // The server ends with it.
    _server: Server,
    _identity: tempfile::TempDir,
    second_root: Arc<Mutex<bool>>,
    /// The paths asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new() -> Self {
        // Documents know whole seconds.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let later = UNIX_EPOCH + Duration::from_secs(now.as_secs() + 86_400);
        let team = [
            ReleaseKey::generate().unwrap(),
            ReleaseKey::generate().unwrap(),
        ];
        let draft = |key: &ReleaseKey, previous: Option<&Root>| {
            let spec = RootSpec {
                release_keys: vec![key.public()],
                threshold: 1,
                online: None,
                expires: later,
                previous,
            };
            spec.sign(&team).unwrap().bytes
        };
        let first = draft(&team[0], None);
        let trusted = Root::read(&first).unwrap();
        let second = draft(&team[1], Some(&trusted));
        let mut documents = BTreeMap::new();
        let mut images = BTreeMap::new();
        let mut parts = BTreeMap::new();
        let mut before = Vec::new();
        let made = |(_, chapter): &(usize, &Chapter)| !chapter.spoilt;
        for (number, chapter) in CHAPTERS.iter().enumerate().filter(made) {
            let image: Vec<u8> = (0..chapter.bytes)
                .map(|at| (at * 31 % 251 + number) as u8)
                .collect();
            let facts = ImageFacts::measure(&image[..]).unwrap();
            let order = order(chapter);
            let delta = chapter.delta.map(|delta| {
                let mut patch = Vec::new();
                let mut old = before.clone();
                if delta == Delta::Misled {
                    // Close enough for the delta to build on these bytes.
                    let last = old.len() - 1000;
                    old[last..]
                        .iter_mut()
                        .step_by(97)
                        .for_each(|byte| *byte ^= 1);
                }
                ota::delta::make(&old, &image, &mut patch).unwrap();
                assert!(patch.len() < image.len() / 10, "{}", patch.len());
                let from: ota::FirmwareVersion = CHAPTERS[number - 1].runs.parse().unwrap();
                let facts = ImageFacts::measure(&patch[..]).unwrap();
                documents.insert(order.delta(&from), patch);
                ota::DeltaSource {
                    from,
                    from_sha256: ota::sha256(&before),
                    size: facts.size,
                    sha256: facts.sha256,
                    chunks: facts.chunks,
                }
            });
            let manifest = Manifest {
                name: "lamp".parse().unwrap(),
                version: chapter.version.parse().unwrap(),
                hardware: ["rev-a".parse().unwrap()].into(),
                requires: None,
                components: Default::default(),
                size: facts.size,
                sha256: facts.sha256,
                chunks: facts.chunks,
                counter: chapter.counter,
                expires: later,
                notes: None,
                deltas: delta.into_iter().collect(),
            };
            // The first chapter's is signed by the first root's key, the others by the second's.
            let key = &team[usize::from(number > 0)..][..1];
            documents.insert(order.manifest, manifest.sign(key).unwrap());
            parts.insert(chapter.version, image[..chapter.here].to_vec());
            documents.insert(order.image, image.clone());
            if chapter.ending == Ending::Succeeded {
                before = image;
            }
            images.insert(chapter.version, manifest);
        }
        let second_root = Arc::new(Mutex::new(false));
        let shown = Arc::clone(&second_root);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&asked);
        let ca = Ca::new();
        let server = Server::start(
            &ca,
            Arc::new(move |path, from| {
                note.lock().unwrap().push(path.to_owned());
                match path {
                    "/firmware/root/1.json" => Answer::document(&first),
                    "/firmware/root/2.json" if *shown.lock().unwrap() => Answer::document(&second),
                    path => match documents.get(path) {
                        Some(bytes) => Answer::range(bytes, from),
                        None => Answer::status(404),
                    },
                }
            }),
        );
        let identity = tempfile::tempdir().unwrap();
        ca.write_identity(identity.path(), "lamp-1");
        let opened = Identity::open(identity.path()).unwrap();
        Self {
            root: tempfile::tempdir().unwrap(),
            devices: None,
            client: Client::new(&opened, "localhost", server.port, Timeouts::default()),
            trusted,
            images,
            parts,
            _server: server,
            _identity: identity,
            second_root,
            asked,
        }
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn slots(&self) -> Arc<dyn Slots> {
        slots::of(&self.state(), self.devices.clone()).unwrap()
    }

    /// With files in the place of devices as slots, in which something else lay before.
    fn on_devices() -> Self {
        let mut bench = Self::new();
        let make = |name: &str| {
            let path = bench.root.path().join(name);
            std::fs::write(&path, vec![0xEE; DEVICE_BYTES]).unwrap();
            path
        };
        bench.devices = Some(Devices {
            a: make("first"),
            b: make("second"),
        });
        bench
    }

    /// What lies in a slot is the whole of what `image` says, and was signed.
    fn check_image(&self, image: &Installed) {
        let slots = self.slots();
        let mut bytes = std::fs::read(slots.image(image.slot)).expect("the slot has its image");
        let manifest = &self.images[image.version.as_str()];
        if self.devices.is_some() {
            assert_eq!(bytes.len(), DEVICE_BYTES, "a device keeps its size");
            bytes.truncate(manifest.size as usize);
        }
        assert_eq!(image.sha256, manifest.sha256.to_string());
        let facts = ImageFacts::measure(&bytes[..]).unwrap();
        assert_eq!((facts.sha256, facts.size), (manifest.sha256, manifest.size));
        let signed = std::fs::read(slots.manifest(image.slot)).expect("and its manifest");
        let kept = Root::read(&std::fs::read(self.state().join("trust/root.json")).unwrap());
        let kept = kept.expect("the trust root is whole");
        assert!(kept.version() >= self.trusted.version());
        let by_kept = Manifest::verify_signatures(&signed, &kept);
        let by_first = Manifest::verify_signatures(&signed, &self.trusted);
        assert_eq!(by_kept.or(by_first).unwrap(), *manifest);
    }

    /// What must be true whenever a device starts.
    fn check_start(&self, state: &State, cloud: &Cloud, before: &Option<Installed>) {
        let sound = |image: &&Installed| Some(image.slot) != cloud.spoilt;
        state
            .active
            .iter()
            .filter(sound)
            .for_each(|image| self.check_image(image));
        state
            .on_trial()
            .into_iter()
            .for_each(|image| self.check_image(image));
        let taken = matches!(cloud.told, Some((Ending::Succeeded, _)));
        let runs = state.active.as_ref().map(|image| image.version.clone());
        let ordered = Some(cloud.order.version.to_string());
        let had = before.as_ref().map(|image| image.version.clone());
        assert!(runs == had || runs == ordered, "{runs:?}");
        assert!(!taken || runs == ordered, "it said that it has {ordered:?}");
        assert!(
            !matches!(cloud.told, Some((Ending::Failed | Ending::Rejected, _))) || runs == had,
            "it said that it has stayed"
        );
        assert!(
            before
                .as_ref()
                .is_none_or(|had| state.counter >= had.counter)
        );
    }

    /// A device from its start until it rests, or its power goes: then `false`.
    fn life(&self, disk: &Arc<LossyDisk>, cloud: &mut Cloud, before: &Option<Installed>) -> bool {
        let lives = |result: Result<(), AgentError>| match result {
            Ok(()) => true,
            Err(error) if disk.is_off() => {
                assert!(error.to_string().contains("the power went"), "{error}");
                false
            }
            Err(error) => panic!("the device is bricked: {error}"),
        };
        let state = match StateDir::open(&self.state(), Arc::clone(disk) as Arc<_>) {
            Ok(state) => state,
            Err(error) => return lives(Err(error)),
        };
        if !lives(trust::adopt(&state, None)) {
            return false;
        }
        let loaded = state.load().expect("the state is whole");
        self.check_start(&loaded, cloud, before);
        let installer = Installer {
            state: state.clone(),
            slots: self.slots(),
            client: self.client.clone(),
            hardware: "rev-a".parse().unwrap(),
            components: Components::new(),
            health: Health {
                command: String::new(),
                deadline: Duration::from_secs(1),
            },
            patience: Patience {
                first: Duration::from_micros(1),
                most: Duration::from_micros(1),
                ..Patience::default()
            },
            clock: Arc::new(Clock::since(UNIX_EPOCH)),
            hooks: Hooks::default(),
        };
        let mut machine = Machine::new(loaded).that_undoes(true);
        let events = RefCell::new(VecDeque::from([Event::Started, Event::Connected]));
        let next = || events.borrow_mut().pop_front();
        while let Some(event) = next() {
            let push = |event| events.borrow_mut().push_back(event);
            for effect in machine.handle(event) {
                match effect {
                    Effect::Save if !lives(state.save(machine.state())) => return false,
                    Effect::Fetch { run, order } => {
                        let task = Task::Fetch {
                            run,
                            order,
                            state: Box::new(machine.state().clone()),
                            cancel: Cancel::default(),
                        };
                        let answer = installer.carry_out(task, push);
                        if disk.is_off() {
                            return false;
                        }
                        answer.into_iter().for_each(push);
                    }
                    Effect::Judge { run, image, .. } => {
                        self.check_image(&image);
                        assert_eq!(cloud.told, None, "tried again after it was told");
                        cloud.trials += 1;
                        let sick = image.version.ends_with("sick");
                        let verdict = if sick { Err("sick".into()) } else { Ok(()) };
                        push(Event::Judged(run, verdict));
                    }
                    Effect::Look(image) => {
                        let found = sound::look(&state, &*self.slots(), &image, &Cancel::default());
                        let is_sound = Some(image.slot) != cloud.spoilt;
                        assert_eq!(found.is_ok(), is_sound, "{found:?}");
                        push(Event::Looked(image, found.map_err(|_| "spoilt".into())));
                    }
                    Effect::Undo { run, image } => {
                        // A trial counts from the moment at which it is on the disk that it begins.
                        let ended = machine.state().finished.back();
                        let cut_off =
                            ended.is_some_and(|ended| ended.outcome.reason.contains("was cut off"));
                        assert!(image.version.ends_with("sick") || cut_off);
                        assert_ne!(machine.state().active.as_ref(), Some(&image));
                        cloud.undone += 1;
                        push(Event::Undone(run));
                    }
                    Effect::Report(report) => {
                        let (job, is_last) = (report.job.clone(), report.ending.is_some());
                        cloud.take(report);
                        if is_last {
                            push(Event::Acknowledged(job));
                        }
                    }
                    Effect::Ask if cloud.told.is_none() => {
                        push(Event::Offered(cloud.job.clone(), Ok(cloud.order.clone())));
                    }
                    Effect::Describe(_) if cloud.told.is_some() => {
                        push(Event::Withdrawn(cloud.job.clone()));
                    }
                    Effect::Save | Effect::Ask | Effect::Describe(_) => {}
                    Effect::StopFetch => panic!("nobody has cancelled anything"),
                }
            }
        }
        assert!(machine.is_idle(), "{:?}", machine.state());
        self.check_start(machine.state(), cloud, before);
        true
    }

    /// A chapter from `start` on, with the power gone at each of `cuts`, counted from the start
    /// before it. How many of the cuts came before the device was at rest, and where it rested.
    fn run(&self, number: usize, start: &Tree, cuts: &[(usize, Left)]) -> (usize, Outcome, State) {
        let chapter = &CHAPTERS[number];
        plant(self.root.path(), start);
        if chapter.here > 0 {
            let partial = download::partial(
                &self.state().join("download"),
                self.images[chapter.version].sha256,
            );
            std::fs::write(partial, &self.parts[chapter.version]).unwrap();
        }
        let before = crate::state::read(&self.state()).unwrap().active;
        let spoilt = before
            .as_ref()
            .filter(|_| chapter.spoilt)
            .map(|image| image.slot);
        if let Some(slot) = spoilt {
            let path = self.slots().image(slot);
            let bytes = vec![0; std::fs::read(&path).unwrap().len()];
            std::fs::write(path, bytes).unwrap();
        }
        let mut cloud = Cloud {
            job: JobKey {
                id: format!("job-{number}"),
                execution: 1,
            },
            order: order(chapter),
            told: None,
            trials: 0,
            undone: 0,
            spoilt,
        };
        let mut happened = 0;
        for (at, left) in cuts {
            let disk = Arc::new(LossyDisk::new(self.root.path(), *at));
            if self.life(&disk, &mut cloud, &before) {
                break;
            }
            disk.crash(*left);
            happened += 1;
        }
        let disk = Arc::new(LossyDisk::new(self.root.path(), usize::MAX));
        assert!(self.life(&disk, &mut cloud, &before));
        assert!(cloud.trials <= TRIAL_BOOTS_MAX, "{} trials", cloud.trials);
        let state = crate::state::read(&self.state()).unwrap();
        assert_eq!(state.undo, None);
        // A good image whose trials were cut off leaves the device with what it had.
        let runs = state.active.as_ref().map(|image| image.slot);
        assert_eq!(state.damage.is_some(), spoilt.is_some() && runs == spoilt);
        let ended = state.finished.back().expect("the job is over");
        let fell_back = ended.outcome.step == Step::FellBack;
        assert_eq!(
            cloud.undone > 0,
            fell_back,
            "what starts images knows of it"
        );
        let outcome = state.finished.back().unwrap().outcome.clone();
        assert_eq!(
            cloud.told,
            Some((outcome.ending, outcome.reason.clone())),
            "the server knows how it ended"
        );
        (happened, outcome, state)
    }
}

fn order(chapter: &Chapter) -> Order {
    let order = Order::new(
        "lamp".parse().unwrap(),
        chapter.version.parse().unwrap(),
        "r-1".parse().unwrap(),
        false,
    );
    // Some in a window: such a job is let go of at a restart and asked for again.
    let until = matches!(chapter.version, "1.0" | "1.6").then_some(u64::MAX);
    Order { until, ..order }
}

/// Cuts the power at each file operation of a chapter, with each thing that may be left; and after one of
/// those cuts once more in the life that follows (`MUSTER_POWER_CUTS=all`: after each).
fn cut_everywhere(bench: &Bench, number: usize, least: usize) {
    let all = std::env::var("MUSTER_POWER_CUTS").is_ok_and(|cuts| cuts == "all");
    let mut start = tree(bench.root.path());
    for before in 0..number {
        *bench.second_root.lock().unwrap() = before > 0;
        bench.run(before, &start, &[]);
        start = tree(bench.root.path());
    }
    *bench.second_root.lock().unwrap() = number > 0;
    let chapter = &CHAPTERS[number];
    let as_told = |outcome: &Outcome, state: &State, what: &str| {
        assert_eq!(outcome.ending, chapter.ending, "{what}: {}", outcome.reason);
        let runs = state.active.as_ref().map(|image| image.version.as_str());
        assert_eq!(runs, Some(chapter.runs), "{what}");
    };
    bench.asked.lock().unwrap().clear();
    let (_, outcome, state) = bench.run(number, &start, &[]);
    as_told(&outcome, &state, "without a cut");
    let asked = bench.asked.lock().unwrap().clone();
    let asks = |what: &str| asked.iter().any(|path| path.contains(what));
    assert_eq!(asks("/delta/"), chapter.delta.is_some(), "{asked:?}");
    assert!(chapter.delta != Some(Delta::Good) || !asks("/image"));
    assert!(chapter.delta != Some(Delta::Misled) || asks("/image"));
    let (mut points, mut cuts) = (0, 0);
    for at in 0.. {
        let mut is_over = false;
        for (kind, left) in Left::EACH.into_iter().enumerate() {
            let what = format!("{} cut at operation {at}, left {left:?}", chapter.version);
            let (happened, outcome, state) = bench.run(number, &start, &[(at, left)]);
            as_told(&outcome, &state, &what);
            is_over |= happened == 0;
            cuts += happened;
            if !all && kind != at % Left::EACH.len() {
                continue;
            }
            let again = (at * 7 + kind * 11) % 37;
            let left_again = Left::EACH[(at + 1) % Left::EACH.len()];
            let twice = [(at, left), (again, left_again)];
            let (happened, outcome, state) = bench.run(number, &start, &twice);
            cuts += happened;
            // Two trials cut off are the most: then a good image is given up too, and said so.
            if outcome.ending == chapter.ending {
                as_told(&outcome, &state, &what);
            } else {
                assert!(
                    outcome.reason.contains("was cut off"),
                    "{what}, and at {again}: {}",
                    outcome.reason
                );
            }
        }
        if is_over {
            break;
        }
        points += 1;
    }
    println!(
        "{}: {points} file operations, {cuts} power cuts",
        chapter.version
    );
    assert!(points >= least, "only {points}");
}

#[test]
fn power_may_go_at_any_step_of_the_first_install() {
    cut_everywhere(&Bench::new(), 0, 40);
}

#[test]
fn power_may_go_at_any_step_of_an_install_with_a_new_trust_root() {
    cut_everywhere(&Bench::new(), 1, 35);
}

#[test]
fn power_may_go_at_any_step_of_an_install_that_falls_back() {
    cut_everywhere(&Bench::new(), 2, 30);
}

#[test]
fn power_may_go_at_any_step_of_refusing_a_lower_counter() {
    cut_everywhere(&Bench::new(), 3, 12);
}

#[test]
fn power_may_go_at_any_step_of_going_back() {
    cut_everywhere(&Bench::new(), 4, 30);
}

#[test]
fn power_may_go_at_any_step_of_an_install_by_delta() {
    cut_everywhere(&Bench::new(), 5, 45);
}

#[test]
fn power_may_go_at_any_step_of_a_delta_that_is_given_up() {
    cut_everywhere(&Bench::new(), 6, 60);
}

#[test]
fn power_may_go_at_any_step_of_mending_what_the_disk_has_spoilt() {
    cut_everywhere(&Bench::new(), 7, 30);
}

#[test]
fn power_may_go_at_any_step_of_mending_what_a_device_has_spoilt() {
    cut_everywhere(&Bench::on_devices(), 7, 30);
}

#[test]
fn power_may_go_at_any_step_of_the_first_install_on_a_device() {
    cut_everywhere(&Bench::on_devices(), 0, 40);
}

#[test]
fn power_may_go_at_any_step_of_an_install_on_a_device_with_a_new_trust_root() {
    cut_everywhere(&Bench::on_devices(), 1, 50);
}

#[test]
fn power_may_go_at_any_step_of_an_install_on_a_device_that_falls_back() {
    cut_everywhere(&Bench::on_devices(), 2, 30);
}

#[test]
fn power_may_go_at_any_step_of_an_install_by_delta_from_device_to_device() {
    cut_everywhere(&Bench::on_devices(), 5, 45);
}
