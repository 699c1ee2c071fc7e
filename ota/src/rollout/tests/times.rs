//! When devices are told and how many at once: rates, windows, zones, soaks, and the forecast of it.

use super::*;

fn seconds(text: &str) -> u64 {
    let time: jiff::Timestamp = text.parse().unwrap();
    u64::try_from(time.as_second()).unwrap()
}

#[test]
fn no_more_than_the_rate_are_told_in_any_minute() {
    let limits = Rules {
        rate_per_minute: Some(3),
        ..Rules::default()
    };
    let mut rollout = rollout_with(10, &["100%"], &limits);
    let mut world = World::with_old(&rollout);
    let start = world.now;
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    let when: Vec<u64> = world.told.iter().map(|(at, ..)| at - start).collect();
    assert_eq!(when, [0, 0, 0, 60, 60, 60, 120, 120, 120, 180]);
}

#[test]
fn nobody_begins_outside_the_window_and_those_who_missed_it_get_the_next() {
    let limits = Rules {
        window: Some("0 2 * * */1h".parse().unwrap()),
        ..Rules::default()
    };
    let mut rollout = rollout_with(2, &["100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.now = seconds("2026-07-01T01:00:00Z");
    world.devices.get_mut("lamp-1").unwrap().zone = Some("Europe/Berlin".into());
    world.settle(&mut rollout);
    assert_eq!(world.told, [], "in Berlin it is 03:00, in UTC 01:00");
    assert!(world.sleep(&rollout));
    assert_eq!(world.now, seconds("2026-07-01T02:00:00Z"));
    world.settle(&mut rollout);
    assert_eq!(world.told.len(), 1);
    // It sleeps through its window: from then on it is not told, until the next one.
    assert!(world.sleep(&rollout));
    assert_eq!(world.now, seconds("2026-07-01T03:00:00Z"));
    world.step("lamp-0", true);
    assert_eq!(world.began, []);
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    let began: BTreeMap<String, u64> = world.began.iter().map(|(at, t)| (t.clone(), *at)).collect();
    assert_eq!(began["lamp-0"], seconds("2026-07-02T02:00:00Z"));
    assert_eq!(began["lamp-1"], seconds("2026-07-02T00:00:00Z"));
}

#[test]
fn a_device_whose_zone_is_none_waits_and_the_report_says_why() {
    let limits = Rules {
        window: Some("* * * * */1h".parse().unwrap()),
        ..Rules::default()
    };
    let mut rollout = rollout_with(2, &["100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.devices.get_mut("lamp-1").unwrap().zone = Some("Mars/Olympus".into());
    world.settle(&mut rollout);
    assert_eq!(world.told.len(), 1);
    let view = rollout.view(&world.devices);
    let lost = view
        .executions
        .iter()
        .find(|e| e.thing == "lamp-1")
        .unwrap();
    assert!(lost.reason.as_ref().unwrap().contains("Mars/Olympus"));
}

#[test]
fn a_wave_soaks_before_the_next() {
    let limits = Rules {
        soak_seconds: 600,
        ..Rules::default()
    };
    let mut rollout = rollout_with(2, &["50%", "100%"], &limits);
    let mut world = World::with_old(&rollout);
    let start = world.now;
    world.finish_all(&mut rollout, |_| true);
    let when: Vec<u64> = world.told.iter().map(|(at, ..)| at - start).collect();
    assert_eq!(when, [0, 600]);
    assert_eq!(
        world.now,
        start + 600,
        "the last wave has nothing to wait for"
    );
}

#[test]
fn a_wave_has_a_time_of_its_own() {
    let mut rollout = rollout(2, &["50%", "100%"], None);
    let mut world = World::with_old(&rollout);
    let later = world.now + 5000;
    rollout.waves[1].start_at = Some(later);
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(world.told[1].0, later);
}

#[test]
fn the_forecast_says_who_when_and_by_wave() {
    let limits = Rules {
        rate_per_minute: Some(2),
        soak_seconds: 600,
        window: Some("0 2 * * */1h".parse().unwrap()),
        approvers: 2,
        ..Rules::default()
    };
    let rollout = rollout_with(6, &["50%", "100%"], &limits);
    let start = seconds("2026-07-01T01:00:00Z");
    let forecast = rollout.forecast(Devices::new(), start).unwrap();
    let times = |wave: usize| -> Vec<u64> {
        let things = &forecast.waves[wave].things;
        things.iter().map(|t| t.at.unwrap() - start).collect()
    };
    assert_eq!(times(0), [3600, 3600, 3660]);
    assert_eq!(times(1), [4260, 4260, 4320]);
    assert_eq!(forecast.waves[0].first_at, Some(start + 3600));
    assert_eq!(forecast.waves[1].last_at, Some(start + 4320));
    assert!(!forecast.waves[0].needs_approval && forecast.waves[1].needs_approval);
    assert_eq!(rollout.state, RolloutState::Scheduled, "nothing happened");
}
