//! A large fleet whose devices fail, vanish, sleep for a week and lie. Its size is `MUSTER_SIMULATED_DEVICES`
//! where that is set: a million takes seven seconds in a release build.

use super::*;

const DAY: u64 = 86_400;

/// What becomes of a device when it is told.
enum Nature {
    Good,
    /// Fails each time.
    Fails,
    /// Begins and is never heard of again.
    Vanishes,
    /// Begins a week later.
    Sleeps,
    /// Does it, and says so after it was given up.
    Lies,
}

fn nature(thing: &str) -> Nature {
    let hash = sha256(format!("nature of {thing}").as_bytes());
    let bytes = hash.as_bytes();
    match u16::from_be_bytes([bytes[0], bytes[1]]) % 1000 {
        0..10 => Nature::Fails,
        10..15 => Nature::Vanishes,
        15..25 => Nature::Sleeps,
        25..30 => Nature::Lies,
        _ => Nature::Good,
    }
}

#[test]
fn a_large_fleet_comes_to_its_end_and_each_device_to_one() {
    let count = std::env::var("MUSTER_SIMULATED_DEVICES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(5_000usize);
    let rules = Rules {
        abort_failed_percent: Some(10),
        abort_min: 100,
        rate_per_minute: Some(u32::try_from(count / 40).unwrap().max(1)),
        success_percent: Some(90),
        soak_seconds: 3600,
        retries: 1,
        window: Some("0 1 * * */4h".parse().unwrap()),
        ..Rules::default()
    };
    let rollout = rollout_with(count, &["1%", "10%", "100%"], &rules);
    let mut planner = Planner::new(rollout, Devices::new());
    let old: FirmwareVersion = "1.0".parse().unwrap();
    let mut index = 0;
    let each = planner.change_each(|_, device| {
        device.current = Some(old.clone());
        device.zone =
            [None, Some("Europe/Berlin"), Some("Asia/Tokyo")][index % 3].map(str::to_owned);
        index += 1;
        Ok::<(), Error>(())
    });
    each.unwrap();
    let new: FirmwareVersion = "2.0".parse().unwrap();
    let timeout = u64::from(rules.timeout_minutes) * 60;
    let mut now = 1_800_000_000;
    let end = now + 60 * DAY;
    // What will happen, by time: a device begins, or comes to the end of its work.
    let mut agenda: BTreeMap<u64, Vec<(String, ExecutionStatus, bool)>> = BTreeMap::new();
    let mut last_minute: std::collections::VecDeque<(u64, usize)> = Default::default();
    let mut turns = 0u32;
    while now < end {
        turns += 1;
        assert!(turns < 100_000, "the planner is asked far too often");
        let plan = planner.plan(now, usize::MAX).unwrap();
        for action in &plan.actions {
            if let Action::Install { offers, .. } = action {
                last_minute.push_back((now, offers.len()));
                while last_minute.front().is_some_and(|(at, _)| at + 60 <= now) {
                    last_minute.pop_front();
                }
                let within: usize = last_minute.iter().map(|(_, told)| told).sum();
                assert!(
                    within <= rules.rate_per_minute.unwrap() as usize,
                    "over the rate"
                );
                for offer in offers {
                    planner.change(&offer.thing, |device| {
                        device.install = Some(Part {
                            status: ExecutionStatus::Queued,
                            to: new.clone(),
                            before: device.current.clone(),
                            offered_at: now,
                            until: offer.until,
                            attempt: offer.attempt,
                        });
                    });
                    let slept = matches!(nature(&offer.thing), Nature::Sleeps)
                        && now < 1_800_000_000 + 7 * DAY;
                    if !slept {
                        agenda.entry(now + 10).or_default().push((
                            offer.thing.clone(),
                            ExecutionStatus::InProgress,
                            false,
                        ));
                    }
                }
            }
            planner.apply(action);
        }
        if !plan.actions.is_empty() {
            continue;
        }
        let due = agenda.first_key_value().map(|(at, _)| *at);
        let Some(next) = due.into_iter().chain(plan.wake_at).min() else {
            break;
        };
        assert!(next > now);
        now = next;
        // What falls into the same minute is done together, as the server does it.
        let later = agenda.split_off(&(now + 1));
        for (thing, status, did) in std::mem::replace(&mut agenda, later)
            .into_values()
            .flatten()
        {
            let part = planner.device(&thing).unwrap().install.as_ref().unwrap();
            if status == ExecutionStatus::InProgress {
                if part.status != ExecutionStatus::Queued || part.is_shut(now) {
                    continue;
                }
                let (at, status, did) = match nature(&thing) {
                    Nature::Good | Nature::Sleeps => (now + 50, ExecutionStatus::Succeeded, true),
                    Nature::Fails => (now + 50, ExecutionStatus::Failed, false),
                    Nature::Vanishes => (now + timeout, ExecutionStatus::TimedOut, false),
                    Nature::Lies => (now + timeout, ExecutionStatus::TimedOut, true),
                };
                agenda
                    .entry(at)
                    .or_default()
                    .push((thing.clone(), status, did));
            }
            planner.change(&thing, |device| {
                device.install.as_mut().unwrap().status = status;
                if did {
                    device.current = Some(new.clone());
                }
            });
        }
    }
    let rollout = planner.rollout();
    assert_eq!(
        rollout.state,
        RolloutState::Succeeded,
        "{:?}",
        rollout.reason
    );
    let mut ends: BTreeMap<ExecutionStatus, usize> = BTreeMap::new();
    for (thing, device) in planner.devices() {
        let part = device.install.as_ref().unwrap();
        assert!(
            part.status.is_terminal(),
            "{thing} is still {:?}",
            part.status
        );
        *ends.entry(part.status).or_default() += 1;
        let had = match nature(thing) {
            Nature::Good | Nature::Sleeps => ExecutionStatus::Succeeded,
            Nature::Fails => ExecutionStatus::Failed,
            Nature::Vanishes | Nature::Lies => ExecutionStatus::TimedOut,
        };
        assert_eq!(part.status, had, "{thing}");
        let tries = if had == ExecutionStatus::Succeeded {
            1
        } else {
            2
        };
        assert!(part.attempt <= tries, "{thing}");
    }
    assert_eq!(ends.values().sum::<usize>(), count, "each has one end");
}
