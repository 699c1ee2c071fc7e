//! Random runs with crashes, against the promises of the planner.

use proptest::prelude::*;

use super::*;

/// What happens next in a random run: a device moves (well or badly), a person speaks, the server crashes.
#[derive(Clone, Debug)]
enum Event {
    Device(usize, bool),
    Command(Command),
    Crash(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let command = prop_oneof![
        Just(Command::Pause),
        Just(Command::Resume),
        Just(Command::Abort),
        Just(Command::Rollback)
    ];
    prop_oneof![
        16 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(i, good)| Event::Device(i, good)),
        1 => command.prop_map(Event::Command),
        4 => (0..4usize).prop_map(Event::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_run_with_crashes_keeps_the_promises(
        count in 1..12usize,
        percents in prop::collection::btree_set(1..=100u8, 1..4),
        abort in prop::option::of(0..=100u8),
        events in prop::collection::vec(event(), 0..120),
        ending in any::<u64>(),
    ) {
        let names: Vec<String> = percents.iter().map(|p| format!("{p}%")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut rollout = rollout(count, &names, abort);
        let mut world = World::with_old(&rollout);
        let things: Vec<String> = world.devices.keys().cloned().collect();
        for event in events {
            match event {
                Event::Device(i, good) => world.step(&things[i % things.len()], good),
                Event::Command(command) => { let _ = rollout.command(command); }
                // The effects of the first `keep` actions are done, nothing of the rollout was saved, and
                // the same plan comes again.
                Event::Crash(keep) => {
                    let planned = rollout.next(&world.devices, 0).unwrap();
                    for action in planned.iter().take(keep) { world.act(action); }
                    let again = rollout.next(&world.devices, 0).unwrap();
                    let mut replayed = world.clone();
                    for action in planned.iter().chain(&again) { replayed.act(action); }
                    let mut straight = world.clone();
                    for action in &again { straight.act(action); }
                    prop_assert_eq!(replayed.jobs, straight.jobs);
                }
            }
            world.settle(&mut rollout);
            // A device knows of the rollout only once every wave before its own is done.
            for (index, wave) in rollout.waves.iter().enumerate() {
                let begun = wave.things.iter().any(|t| world.devices[t].install.is_some());
                if begun {
                    prop_assert!(wave.state != WaveState::Waiting);
                    prop_assert!(rollout.waves[..index].iter().all(|w| w.state == WaveState::Done));
                }
            }
        }
        // Whatever happened, once the devices have spoken the rollout comes to an end.
        if rollout.state == RolloutState::Paused { rollout.command(Command::Resume).unwrap(); }
        world.settle(&mut rollout);
        world.finish_all(&mut rollout, |thing| sha256(format!("{thing}{ending}").as_bytes()).as_bytes()[0] > 40);
        prop_assert!(rollout.state.is_final(), "{:?}", rollout.state);
        for device in world.devices.values() {
            prop_assert!(device.install.is_none_or(ExecutionStatus::is_terminal));
            prop_assert!(device.rollback.is_none_or(ExecutionStatus::is_terminal));
            if rollout.state == RolloutState::RolledBack && device.install == Some(ExecutionStatus::Succeeded) {
                prop_assert!(device.rollback.is_some(), "took the version and was not sent back");
            }
        }
    }
}
