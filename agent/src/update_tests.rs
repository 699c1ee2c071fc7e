//! Random lives of a device: events, crashes between any two effects, lost reports.

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> JobKey {
    JobKey {
        id: format!("job-{}", n % 4),
        execution: u64::from(n / 4 % 2) + 1,
    }
}

fn order(n: u8) -> Order {
    let version = format!("1.{}", n % 4).parse().unwrap();
    let order = Order::new(
        "lamp".parse().unwrap(),
        version,
        "r-1".parse().unwrap(),
        false,
    );
    let until = (n >= 128).then_some(1_000);
    Order { until, ..order }
}

fn image(slot: Slot, n: u8, counter: u64) -> Installed {
    Installed {
        slot,
        name: "lamp".into(),
        version: format!("1.{}", n % 4),
        counter,
        sha256: format!("{n:064x}"),
    }
}

#[test]
fn damage_is_kept_told_and_over_with_the_next_image_or_when_it_is_sound_again() {
    let active = image(Slot::A, 1, 1);
    let mut machine = Machine::new(State {
        active: Some(active.clone()),
        ..State::default()
    });
    assert_eq!(
        machine.handle(Event::Started),
        [Effect::Look(active.clone())]
    );
    let gone = || Event::Looked(active.clone(), Err("it is gone".into()));
    assert_eq!(machine.handle(gone()), [Effect::Save, Effect::Ask]);
    assert_eq!(machine.state().damage.as_deref(), Some("it is gone"));
    assert_eq!(machine.handle(gone()), [], "said once");
    let sound = Event::Looked(active.clone(), Ok(()));
    assert_eq!(machine.handle(sound), [Effect::Save, Effect::Ask]);
    assert_eq!(machine.state().damage, None);
    // Of another image nothing is to be said any more.
    let other = Event::Looked(image(Slot::B, 1, 1), Err("it is gone".into()));
    assert_eq!(machine.handle(other), []);
    machine.handle(gone());
    machine.handle(Event::Offered(key(0), Ok(order(0))));
    machine.handle(Event::Fetched(1, Ok(Fetched::AlreadyRunning)));
    assert_eq!(machine.state().damage, None);
}

/// What the world does next.
#[derive(Clone, Debug)]
enum Act {
    Connect,
    Offer(u8),
    OfferNonsense(u8),
    Withdraw(u8),
    Progress,
    FetchDone(u64),
    FetchAlready,
    FetchRefused,
    Late,
    Stale(u64),
    Healthy,
    Sick,
    Acknowledge(u8),
    /// The confirmed image was looked at, and was found so.
    Looked(bool),
    /// Power goes after this many effects of the next act.
    CrashAfter(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Connect),
        4 => any::<u8>().prop_map(Act::Offer),
        1 => any::<u8>().prop_map(Act::OfferNonsense),
        1 => any::<u8>().prop_map(Act::Withdraw),
        1 => Just(Act::Progress),
        4 => (0u64..6).prop_map(Act::FetchDone),
        1 => Just(Act::FetchAlready),
        1 => Just(Act::FetchRefused),
        1 => Just(Act::Late),
        1 => (0u64..6).prop_map(Act::Stale),
        4 => Just(Act::Healthy),
        2 => Just(Act::Sick),
        3 => any::<u8>().prop_map(Act::Acknowledge),
        2 => any::<bool>().prop_map(Act::Looked),
        3 => (0usize..4).prop_map(Act::CrashAfter),
    ]
}

/// A device: the machine, what is on its disk, and what was seen of it from outside.
struct Device {
    machine: Machine,
    disk: State,
    crash_after: Option<usize>,
    run: u64,
    trials: Vec<(JobKey, u32)>,
    ends: Vec<(JobKey, Outcome)>,
    healthy: Vec<Installed>,
}

impl Device {
    fn new() -> Self {
        Self {
            machine: Machine::new(State::default()),
            disk: State::default(),
            crash_after: None,
            run: 0,
            trials: Vec::new(),
            ends: Vec::new(),
            healthy: Vec::new(),
        }
    }

    fn feed(&mut self, event: Event) {
        let effects = self.machine.handle(event);
        let cut = self.crash_after.take();
        for (done, effect) in effects.into_iter().enumerate() {
            if cut == Some(done) {
                return self.restart();
            }
            self.carry_out(effect);
        }
        if cut.is_some() {
            self.restart();
        }
    }

    fn restart(&mut self) {
        self.machine = Machine::new(self.disk.clone());
        self.feed(Event::Started);
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Save => {
                let next = self.machine.state().clone();
                assert!(next.counter >= self.disk.counter, "the counter went down");
                assert!(next.finished.len() <= FINISHED_JOBS_MAX);
                if next.active != self.disk.active {
                    let active = next.active.as_ref().expect("an image is never taken away");
                    assert!(self.healthy.contains(active), "confirmed without health");
                    assert_eq!(next.damage, None, "it was looked at when it was installed");
                }
                self.disk = next;
            }
            Effect::Fetch { run, .. } => {
                let current = self.disk.current.as_ref().expect("fetch of an unsaved job");
                assert_eq!(current.phase, Phase::Fetching);
                assert!(
                    self.disk
                        .finished
                        .iter()
                        .all(|past| past.job != current.job),
                    "a finished job is fetched again"
                );
                self.run = run;
            }
            Effect::Undo { .. } => panic!("there is nothing to tell"),
            Effect::Judge { run, image, .. } => {
                // What a restart would find says that this image is on trial.
                assert_eq!(
                    self.disk.on_trial(),
                    Some(&image),
                    "trial before its record"
                );
                assert_ne!(
                    Some(image.slot),
                    self.disk.active.as_ref().map(|active| active.slot),
                    "the running image's slot was used"
                );
                let job = self.disk.current.as_ref().expect("a job").job.clone();
                match self.trials.iter_mut().find(|(tried, _)| *tried == job) {
                    Some((_, times)) => *times += 1,
                    None => self.trials.push((job, 1)),
                }
                self.run = run;
            }
            Effect::Report(report) => {
                let Some(ending) = report.ending else { return };
                let told = self
                    .disk
                    .finished
                    .iter()
                    .find(|past| past.job == report.job);
                let told = told.expect("a final report that a restart would not repeat");
                assert_eq!(told.outcome.ending, ending);
                if let Some((_, before)) = self.ends.iter().find(|(job, _)| *job == report.job) {
                    assert_eq!(*before, told.outcome, "two endings of one job");
                } else {
                    self.ends.push((report.job, told.outcome.clone()));
                }
            }
            Effect::Look(image) => assert_eq!(self.disk.active, Some(image)),
            Effect::StopFetch | Effect::Ask | Effect::Describe(_) => {}
        }
    }

    fn act(&mut self, act: Act) {
        let run = self.run;
        let slot = self.machine.state().idle_slot();
        match act {
            Act::Connect => self.feed(Event::Connected),
            Act::Looked(sound) => {
                let Some(image) = self.machine.state().active.clone() else {
                    return;
                };
                let found = if sound {
                    Ok(())
                } else {
                    Err("it is gone".into())
                };
                self.feed(Event::Looked(image, found));
            }
            Act::Offer(n) => self.feed(Event::Offered(key(n), Ok(order(n)))),
            Act::OfferNonsense(n) => self.feed(Event::Offered(key(n), Err("nonsense".into()))),
            Act::Withdraw(n) => self.feed(Event::Withdrawn(key(n))),
            Act::Progress => self.feed(Event::Progress(run, Step::Installing)),
            Act::FetchDone(counter) => {
                let image = image(slot, counter as u8, counter);
                self.feed(Event::Fetched(run, Ok(Fetched::Installed(image))));
            }
            Act::FetchAlready => self.feed(Event::Fetched(run, Ok(Fetched::AlreadyRunning))),
            Act::FetchRefused => self.feed(Event::Fetched(
                run,
                Err(Outcome {
                    ending: Ending::Rejected,
                    step: Step::Downloading,
                    reason: "not signed".into(),
                }),
            )),
            Act::Late => {
                let trial = self.machine.state().on_trial().cloned();
                let trial = trial.filter(|_| self.crash_after.is_none());
                self.feed(Event::Late(run));
                assert!(
                    trial.is_none() || self.disk.on_trial() == trial.as_ref(),
                    "a trial ends with its health, not with a window"
                );
            }
            Act::Stale(counter) => {
                let before = self.machine.state().clone();
                let image = image(slot, 9, counter);
                self.feed(Event::Fetched(run + 1000, Ok(Fetched::Installed(image))));
                self.feed(Event::Late(run + 1000));
                self.feed(Event::Judged(run + 1000, Ok(())));
                if self.crash_after.is_none() && self.disk == before {
                    assert_eq!(*self.machine.state(), before, "a stopped run still counted");
                }
            }
            Act::Healthy => {
                self.healthy
                    .extend(self.machine.state().on_trial().cloned());
                self.feed(Event::Judged(run, Ok(())));
            }
            Act::Sick => self.feed(Event::Judged(run, Err("exit 1".into()))),
            Act::Acknowledge(n) => self.feed(Event::Acknowledged(key(n))),
            Act::CrashAfter(effects) => self.crash_after = Some(effects),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_life_of_a_device_breaks_its_promises(acts in prop::collection::vec(act(), 1..80)) {
        let mut device = Device::new();
        device.feed(Event::Started);
        for act in acts {
            device.act(act);
            for (job, times) in &device.trials {
                prop_assert!(*times <= TRIAL_BOOTS_MAX, "{job:?} was tried {times} times");
            }
        }
        // Whatever happened, the device comes to rest: everything answered, it is idle.
        device.crash_after = None;
        for _ in 0..4 {
            device.feed(Event::Fetched(device.run, Ok(Fetched::AlreadyRunning)));
            device.feed(Event::Judged(device.run, Err("exit 1".into())));
        }
        device.feed(Event::Connected);
        for job in device.machine.state().finished.clone() {
            device.feed(Event::Acknowledged(job.job));
        }
        prop_assert!(device.machine.is_idle());
        prop_assert_eq!(device.machine.handle(Event::Connected), vec![Effect::Ask]);
    }
}

fn fetched(machine: &mut Machine, n: u8, counter: u64) -> Vec<Effect> {
    let slot = machine.state().idle_slot();
    machine.handle(Event::Offered(key(n), Ok(order(n))));
    let run = machine.run;
    machine.handle(Event::Fetched(
        run,
        Ok(Fetched::Installed(image(slot, n, counter))),
    ))
}

#[test]
fn a_healthy_image_becomes_the_active_one_and_raises_the_counter() {
    let mut machine = Machine::new(State::default());
    let effects = fetched(&mut machine, 1, 3);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Save, Effect::Report(_), Effect::Judge { .. }]
    ));
    let effects = machine.handle(Event::Judged(machine.run, Ok(())));
    let [Effect::Save, Effect::Report(report)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(report.ending, Some(Ending::Succeeded));
    assert_eq!(machine.state().counter, 3);
    assert_eq!(
        machine.state().active.as_ref().map(|image| image.slot),
        Some(Slot::A)
    );
    assert_eq!(machine.state().idle_slot(), Slot::B);
}

#[test]
fn a_lower_counter_is_refused_even_when_the_verifier_let_it_through() {
    let mut machine = Machine::new(State {
        counter: 4,
        ..State::default()
    });
    let effects = fetched(&mut machine, 1, 3);
    let [Effect::Save, Effect::Report(report)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(report.ending, Some(Ending::Rejected));
    assert!(
        report.reason.contains("security counter 3 is lower than 4"),
        "{}",
        report.reason
    );
    assert_eq!(
        fetched(&mut machine, 2, 4).len(),
        3,
        "an equal counter is taken"
    );
}

#[test]
fn a_trial_cut_off_once_is_tried_again_and_cut_off_twice_falls_back() {
    let mut machine = Machine::new(State::default());
    fetched(&mut machine, 1, 0);
    let mut machine = Machine::new(machine.state().clone());
    let effects = machine.handle(Event::Started);
    assert!(
        matches!(effects.as_slice(), [Effect::Save, Effect::Judge { .. }]),
        "{effects:?}"
    );
    let mut machine = Machine::new(machine.state().clone());
    let effects = machine.handle(Event::Started);
    let [Effect::Save, Effect::Report(report)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (report.ending, report.step),
        (Some(Ending::Failed), Step::FellBack)
    );
    assert!(machine.state().active.is_none());
}

#[test]
fn a_job_already_done_is_told_again_not_done_again() {
    let mut machine = Machine::new(State::default());
    fetched(&mut machine, 1, 0);
    machine.handle(Event::Judged(machine.run, Ok(())));
    machine.handle(Event::Acknowledged(key(1)));
    assert!(machine.is_idle());
    let effects = machine.handle(Event::Offered(key(1), Ok(order(1))));
    let [Effect::Save, Effect::Report(report)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(report.ending, Some(Ending::Succeeded));
    // The next execution of the same job is another piece of work.
    assert_eq!(
        machine.handle(Event::Offered(key(5), Ok(order(1)))).len(),
        3
    );
}

#[test]
fn a_job_withdrawn_while_downloading_stops_and_in_trial_runs_to_its_end() {
    let mut machine = Machine::new(State::default());
    machine.handle(Event::Offered(key(1), Ok(order(1))));
    let effects = machine.handle(Event::Withdrawn(key(1)));
    assert_eq!(effects, vec![Effect::StopFetch, Effect::Save, Effect::Ask]);
    fetched(&mut machine, 2, 0);
    assert!(machine.handle(Event::Withdrawn(key(2))).is_empty());
    machine.handle(Event::Judged(machine.run, Ok(())));
    assert_eq!(
        machine
            .state()
            .active
            .as_ref()
            .map(|image| image.version.as_str()),
        Some("1.2")
    );
}

#[test]
fn a_job_whose_window_closed_is_begun_again_in_the_next_one() {
    let windowed = || Order {
        until: Some(1_000),
        ..order(1)
    };
    // Found by the device itself, and told by the server.
    for by_server in [false, true] {
        let mut machine = Machine::new(State::default());
        machine.handle(Event::Offered(key(1), Ok(windowed())));
        let effects = if by_server {
            machine.handle(Event::Withdrawn(key(1)))
        } else {
            machine.handle(Event::Late(machine.run))
        };
        assert!(
            effects.ends_with(&[Effect::Save, Effect::Ask]),
            "{effects:?}"
        );
        assert!(machine.is_idle());
        // The same execution, not another.
        let effects = machine.handle(Event::Offered(key(1), Ok(windowed())));
        assert!(
            matches!(
                effects[..],
                [Effect::Save, Effect::Report(_), Effect::Fetch { .. }]
            ),
            "{effects:?}"
        );
    }
}

#[test]
fn after_a_restart_a_job_with_a_window_waits_for_the_servers_word_and_one_without_does_not() {
    for until in [None, Some(1_000)] {
        let mut machine = Machine::new(State::default());
        machine.handle(Event::Offered(key(1), Ok(Order { until, ..order(1) })));
        let mut machine = Machine::new(machine.state().clone());
        let effects = machine.handle(Event::Started);
        if until.is_some() {
            assert_eq!(effects, [Effect::Save, Effect::Ask]);
            assert!(machine.state().current.is_none());
        } else {
            assert!(matches!(effects[..], [Effect::Fetch { .. }]), "{effects:?}");
        }
    }
}

#[test]
fn no_more_finished_jobs_are_kept_than_the_bound() {
    let mut machine = Machine::new(State::default());
    for n in 0..=FINISHED_JOBS_MAX {
        let job = JobKey {
            id: format!("job-{n}"),
            execution: 1,
        };
        machine.handle(Event::Offered(job.clone(), Err("nonsense".into())));
        machine.handle(Event::Acknowledged(job));
        assert_eq!(
            machine.state().finished.len(),
            (n + 1).min(FINISHED_JOBS_MAX)
        );
    }
    assert_eq!(
        machine
            .state()
            .finished
            .front()
            .map(|past| past.job.id.as_str()),
        Some("job-1")
    );
}

#[test]
fn what_starts_images_is_told_of_one_that_was_given_up_before_anything_else() {
    let image = Installed {
        slot: Slot::B,
        name: "lamp".into(),
        version: "2.0".into(),
        counter: 0,
        sha256: "00".repeat(32),
    };
    let state = State {
        current: Some(Current {
            job: key(1),
            order: order(1),
            phase: Phase::Trial {
                image: image.clone(),
                boots: 1,
            },
        }),
        ..State::default()
    };
    let mut machine = Machine::new(state).that_undoes(true);
    let run = |effects: &[Effect]| match effects {
        [Effect::Save, Effect::Judge { run, boots: 2, .. }] => *run,
        other => panic!("{other:?}"),
    };
    let judged = run(&machine.handle(Event::Started));
    let effects = machine.handle(Event::Judged(judged, Err("dark".into())));
    let [
        Effect::Save,
        Effect::Report(_),
        Effect::Undo { image: undone, .. },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(*undone, image);
    // Until that is done nothing new begins, whoever asks for it, and a restart does it again.
    assert_eq!(machine.handle(Event::Acknowledged(key(1))), [Effect::Save]);
    assert_eq!(machine.handle(Event::Offered(key(2), Ok(order(2)))), []);
    let mut machine = Machine::new(machine.state().clone()).that_undoes(true);
    let effects = machine.handle(Event::Started);
    let [Effect::Undo { run, .. }] = effects[..] else {
        panic!("{effects:?}");
    };
    assert!(!machine.is_idle());
    assert_eq!(
        machine.handle(Event::Undone(run + 1)),
        [],
        "another's answer"
    );
    assert_eq!(
        machine.handle(Event::Undone(run)),
        [Effect::Save, Effect::Ask]
    );
    assert!(machine.is_idle());
}
