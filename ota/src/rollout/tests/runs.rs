//! Random runs with crashes, against the promises of the planner.

use proptest::prelude::*;

use super::*;

/// What happens next in a random run.
#[derive(Clone, Debug)]
enum Event {
    /// A device moves, well or badly.
    Device(usize, bool),
    /// A device is given up as its time is up; whether it had done it nevertheless.
    TimeOut(usize, bool),
    /// A person speaks.
    Command(Command),
    /// The server does so many actions, records nothing, and starts anew.
    Crash(usize),
    /// Time goes on.
    Wait(u64),
    /// Time goes on to when the planner asked for it.
    Wake,
    /// A newer rollout takes a device over, or gives it back.
    Lent(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let command = prop_oneof![
        Just(Command::Pause),
        Just(Command::Resume),
        Just(Command::Approve {
            by: "ann".into(),
            wave: None
        }),
        Just(Command::Approve {
            by: "bob".into(),
            wave: None
        }),
        Just(Command::Abort),
        Just(Command::Rollback),
        Just(Command::Forward)
    ];
    prop_oneof![
        24 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(i, good)| Event::Device(i, good)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(i, lied)| Event::TimeOut(i, lied)),
        3 => command.prop_map(Event::Command),
        4 => (0..4usize).prop_map(Event::Crash),
        4 => (0..90u64).prop_map(Event::Wait),
        4 => Just(Event::Wake),
        2 => any::<usize>().prop_map(Event::Lent),
    ]
}

prop_compose! {
    fn some_rules()(
        abort in prop::option::of(0..=100u8),
        min in 1..4u32,
        window in prop::option::of(prop::sample::select(vec!["*/5 * * * */2m", "0 2 * * */1h", "30 2 * * */2h"])),
        rate in prop::option::of(1..4u32),
        growth in prop::option::of((11..=30u16, 1..6u32, any::<bool>())),
        soak in prop_oneof![Just(0u64), Just(90)],
        success in prop::option::of(1..=100u8),
        retries in 0..3u32,
        approvers in prop_oneof![4 => Just(0u32), 1 => Just(1), 1 => Just(2)],
        alarm in prop::option::weighted(0.3, 1..=49u8),
    ) -> Rules {
        Rules {
            alarm_percent: alarm,
            abort_failed_percent: abort,
            abort_min: min,
            window: window.map(|window| window.parse().unwrap()),
            rate_per_minute: rate,
            rate_growth: growth.map(|(factor_tenths, every, told)| Growth {
                factor_tenths,
                every,
                counts: if told { Counted::Told } else { Counted::Succeeded },
                most: 1_000,
            }),
            soak_seconds: soak,
            success_percent: success,
            retries,
            approvers,
            ..Rules::default()
        }
    }
}

const ZONES: [Option<&str>; 4] = [
    None,
    Some("Europe/Berlin"),
    Some("Asia/Kolkata"),
    Some("America/New_York"),
];

fn check(rollout: &Rollout, world: &World, rules: &Rules) -> Result<(), TestCaseError> {
    // Nobody over the rate.
    if let Some(rate) = rules.rate(world.told.len(), world.told.len()) {
        for (index, (at, ..)) in world.told.iter().enumerate() {
            let within = world.told[index..]
                .iter()
                .take_while(|(other, ..)| *other < at + 60);
            prop_assert!(
                within.count() <= rate as usize,
                "over the rate: {:?}",
                world.told
            );
        }
    }
    // Nobody outside its window.
    if let Some(window) = &rules.window {
        for (at, thing) in &world.began {
            let zone =
                super::super::zone(world.devices[thing].zone.as_deref().unwrap_or("UTC"), "")
                    .unwrap();
            let open = matches!(window.at(&zone, *at), Opening::Open { .. });
            prop_assert!(open, "{thing} began at {at}");
        }
    }
    // A device knows of the rollout only once every wave before its own is good.
    for (index, wave) in rollout.waves.iter().enumerate() {
        if wave
            .things
            .iter()
            .any(|t| world.devices[t].install.is_some())
        {
            prop_assert!(wave.state != WaveState::Waiting);
            prop_assert!(rollout.waves[..index].iter().all(|w| w.done_at.is_some()));
        }
    }
    // No wave began before its people had approved it.
    for wave in rollout.waves.iter().filter(|wave| !wave.things.is_empty()) {
        prop_assert!(wave.state == WaveState::Waiting || wave.is_approved());
    }
    // While it is paused nobody begins.
    if rollout.state == RolloutState::Paused {
        let mut parts = world
            .devices
            .values()
            .flat_map(|device| [&device.install, &device.rollback])
            .flatten();
        prop_assert!(
            parts.all(|part| part.status != ExecutionStatus::Queued || part.is_shut(world.now))
        );
    }
    // Whatever tells devices can be stopped.
    let mut installs = world
        .devices
        .values()
        .filter_map(|device| device.install.as_ref());
    if installs.any(|part| !part.status.is_terminal()) && rollout.undone == 0 {
        let stopped = rollout.state == RolloutState::Aborted;
        prop_assert!(
            stopped || rollout.clone().command(Command::Abort).is_ok(),
            "{:?}",
            rollout.state
        );
    }
    // It goes on, and counts as good, only as long as no rule says that it must not.
    let forward = matches!(
        rollout.state,
        RolloutState::Running
            | RolloutState::Paused
            | RolloutState::WaitingApproval
            | RolloutState::Succeeded
    );
    if forward && rollout.undone == 0 {
        let (mut failed, mut finished) = (0, 0);
        for wave in &rollout.waves {
            let counts = naive::counts(&wave.things, &world.devices, &wave.rules);
            prop_assert_eq!(wave.rules.stops(&counts), None);
            failed += counts.failed;
            finished += counts.finished();
        }
        prop_assert_eq!(
            super::super::gate::alarm(0, &[], rules, failed, finished),
            None
        );
    }
    // On the way back the waves follow one another, and it goes on only as long as no rule says that it must not.
    if rollout.state == RolloutState::RollingBack {
        let counts = |wave: usize| rollout.back_counts(wave, &world.devices);
        prop_assert_eq!(rollout.judge_back(counts), None);
        for (index, wave) in rollout.waves.iter().enumerate() {
            let mut told = wave
                .things
                .iter()
                .map(|thing| world.devices[thing].rollback.is_some());
            prop_assert!(wave.back.state != WaveState::Waiting || !told.any(|told| told));
            let before = &rollout.waves[..index];
            let passed = before
                .iter()
                .all(|before| before.back.state == WaveState::Done);
            prop_assert!(wave.back.state == WaveState::Waiting || passed);
        }
    }
    // Nobody is tried more often than asked for, nobody puts one version on twice without leaving it.
    for device in world.devices.values() {
        prop_assert!(device.parts().all(|part| part.attempt <= rules.retries + 1));
    }
    for (thing, installs) in &world.installs {
        prop_assert!(
            installs.windows(2).all(|two| two[0] != two[1]),
            "{thing}: {installs:?}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_run_with_crashes_keeps_the_promises(
        count in 1..12usize,
        percents in prop::collection::btree_set(1..=100u8, 1..4),
        rules in some_rules(),
        first in prop_oneof![2 => Just(0u32), 1 => 1..=2u32],
        barred in prop::bool::weighted(0.1),
        events in prop::collection::vec(event(), 0..120),
        ending in any::<u64>(),
    ) {
        let names: Vec<String> = percents.iter().map(|p| format!("{p}%")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut rollout = rollout_with(count, &names, &rules);
        rollout.waves[0].rules.approvers = first;
        if barred { rollout.barred.insert("1.0".parse().unwrap(), "it is too old".into()); }
        let mut world = World::with_old(&rollout);
        let things: Vec<String> = world.devices.keys().cloned().collect();
        for (index, device) in world.devices.values_mut().enumerate() {
            device.zone = ZONES[index % ZONES.len()].map(str::to_owned);
        }
        let mut follower = Follower(Planner::new(rollout.clone(), world.devices.clone()));
        for event in events {
            match event {
                Event::Device(i, good) => world.step(&things[i % things.len()], good),
                Event::TimeOut(i, lied) => {
                    let thing = &things[i % things.len()];
                    let part = world.at_work(thing).filter(|part| part.status == ExecutionStatus::InProgress);
                    if let Some(part) = part {
                        part.status = ExecutionStatus::TimedOut;
                        let to = part.to.clone();
                        if lied {
                            world.installs.entry(thing.clone()).or_default().push(to.clone());
                            world.devices.get_mut(thing).unwrap().current = Some(to);
                        }
                    }
                }
                // Whatever it was told before, back is back and forward is forward.
                Event::Command(command) => {
                    let direction = match command {
                        Command::Rollback => Some(1),
                        Command::Forward => Some(0),
                        _ => None,
                    };
                    let heard = world.command(&mut rollout, command).is_ok();
                    if let Some(direction) = direction.filter(|_| heard) {
                        prop_assert_eq!(rollout.undone % 2, direction);
                    }
                }
                // A newer rollout takes a device over before it begins, or gives it back as it was stopped.
                Event::Lent(i) => {
                    let thing = &things[i % things.len()];
                    let goes_on = rollout.undone == 0 && rollout.state != RolloutState::Aborted;
                    let install = world.devices.get_mut(thing).and_then(|device| device.install.as_mut());
                    if let Some(part) = install.filter(|_| goes_on) {
                        match part.status {
                            ExecutionStatus::Queued => part.status = ExecutionStatus::Canceled,
                            ExecutionStatus::Canceled => {
                                (part.status, part.until) = (ExecutionStatus::Queued, Some(HELD));
                            }
                            _ => {}
                        }
                    }
                }
                Event::Wait(seconds) => world.now += seconds,
                Event::Wake => { world.sleep(&rollout); }
                // The effects of the first `keep` actions are done, nothing of the rollout was saved, and
                // it is planned anew: the same comes of it as without the crash.
                Event::Crash(keep) => {
                    let planned = rollout.next(&world.devices, world.now).unwrap();
                    let mut straight = (rollout.clone(), world.clone());
                    straight.1.settle(&mut straight.0);
                    for action in planned.iter().take(keep) { world.act(action); }
                    // Done once more, it changes nothing.
                    let once = world.clone();
                    for action in planned.iter().take(keep) { world.act(action); }
                    prop_assert_eq!(&once, &world);
                    let mut crashed = (rollout.clone(), world.clone());
                    crashed.1.settle(&mut crashed.0);
                    prop_assert_eq!(&straight.0, &crashed.0);
                    prop_assert_eq!(&straight.1.devices, &crashed.1.devices);
                }
            }
            follower.check(&rollout, &world.devices, world.now);
            world.settle(&mut rollout);
            follower.check(&rollout, &world.devices, world.now);
            check(&rollout, &world, &rules)?;
        }
        // Whatever happened, once the devices and people have spoken the rollout comes to an end.
        for _ in 0..20 {
            if rollout.state == RolloutState::Paused { rollout.command(Command::Resume).unwrap(); }
            for by in ["ann", "bob"] { let _ = rollout.command(Command::Approve { by: by.into(), wave: None }); }
            world.finish_all(&mut rollout, |thing| sha256(format!("{thing}{ending}").as_bytes()).as_bytes()[0] > 40);
        }
        check(&rollout, &world, &rules)?;
        prop_assert!(rollout.state.is_final(), "{:?}", rollout.state);
        for device in world.devices.values() {
            prop_assert!(device.parts().all(|part| part.status.is_terminal()), "{:?}", device);
            if barred { prop_assert!(device.rollback.is_none() && device.earlier.is_none(), "{:?}", device); }
            if rollout.state == RolloutState::RolledBack && rollout.undone == 1 && status(&device.install) == Some(ExecutionStatus::Succeeded) {
                prop_assert!(device.rollback.is_some(), "took the version and was not sent back");
            }
        }
    }

    /// Beyond the failures that stop a wave there are never more than were under way by then.
    #[test]
    fn no_more_fail_than_were_in_flight(
        count in 1..20usize, percent in 1..=100u8, min in 1..6u32, rate in prop::option::of(1..6u32),
        success in prop::option::of(1..=100u8), order in any::<u64>(),
    ) {
        let rules = Rules {
            abort_failed_percent: Some(percent), abort_min: min, rate_per_minute: rate, success_percent: success,
            ..Rules::default()
        };
        let mut rollout = rollout_with(count, &["50%", "100%"], &rules);
        let mut world = World::with_old(&rollout);
        world.settle(&mut rollout);
        let things: Vec<String> = world.devices.keys().cloned().collect();
        let dice = |round: u64, thing: &str| sha256(format!("{order}{round}{thing}").as_bytes()).as_bytes()[0];
        let failed = |world: &World| world.devices.values().filter(|d| status(&d.install) == Some(ExecutionStatus::Failed)).count();
        let mut stopped: Option<usize> = None;
        for round in 0..60 {
            for thing in &things {
                if dice(round, thing) < 128 { world.step(thing, dice(order, thing) > 100); }
                // Whatever the rollout calls itself.
                let over = rollout.waves.iter().any(|wave| {
                    let counts = naive::counts(&wave.things, &world.devices, &wave.rules);
                    let enough = counts.failed > 0 && counts.finished() >= min as usize;
                    enough && counts.failed * 100 >= usize::from(percent) * counts.finished()
                });
                world.settle(&mut rollout);
                if over && stopped.is_none() {
                    let busy = world.devices.values().filter(|d| status(&d.install) == Some(ExecutionStatus::InProgress)).count();
                    stopped = Some(failed(&world) + busy);
                }
            }
            world.sleep(&rollout);
        }
        if let Some(most) = stopped { prop_assert!(failed(&world) <= most); }
    }

    #[test]
    fn the_forecast_is_what_happens_when_all_is_well(count in 1..15usize, mut rules in some_rules()) {
        // While people take their time, those who were not waited for are told.
        if rules.success_percent.is_some() { rules.approvers = 0; }
        let mut rollout = rollout_with(count, &["20%", "100%"], &rules);
        let mut world = World::with_old(&rollout);
        let forecast = rollout.forecast(world.devices.clone(), world.now).unwrap();
        for _ in 0..20 {
            for by in ["ann", "bob"] { let _ = rollout.command(Command::Approve { by: by.into(), wave: None }); }
            world.finish_all(&mut rollout, |_| true);
        }
        let told: BTreeMap<&str, u64> = world.told.iter().map(|(at, _, thing)| (thing.as_str(), *at)).collect();
        for thing in forecast.waves.iter().flat_map(|wave| &wave.things) {
            prop_assert_eq!(thing.at, told.get(thing.thing.as_str()).copied());
        }
    }
}
