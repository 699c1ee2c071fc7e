//! Rollouts of one firmware that follow each other.

use super::*;

fn approve(yard: &Yard, rollout: &RolloutId) {
    let by = "ann".into();
    told(yard, rollout, Command::Approve { by, wave: None });
}

#[test]
fn a_newer_rollout_takes_devices_over_and_an_older_one_does_not_come_after_it() {
    let yard = Yard::new(4);
    let now = SystemTime::now();
    let package = yard.team.package("3.0", b"3.0");
    yard.house.ota().add(&package[..], now).unwrap();
    let old = yard.start(&json!({"waves": ["50%", "100%"]}));
    yard.house
        .eventually(|ota| (ota.rollout(&old).unwrap().waves[0].queued == 2).then_some(()));
    let new = yard.start(&json!({"version": "3.0"}));
    let done = yard.run(&new, |_| true);
    yard.until(&new, RolloutState::Succeeded);
    assert_eq!(done.len(), 4, "each installs once");
    assert!(
        done.iter()
            .all(|(_, document)| document["version"] == "3.0")
    );
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&old).unwrap();
        view.state.is_final().then_some(view)
    });
    // Nobody has it: that is no success, and its other waves do not begin on it.
    assert_eq!(view.state, RolloutState::Aborted);
    let why = view.reason.as_deref().unwrap();
    assert!(why.contains("a newer rollout took over 2"), "{why}");
    let (first, others): (Vec<_>, Vec<_>) = view.executions.iter().partition(|e| e.wave == "50%");
    assert!(others.iter().all(|execution| execution.status == "WAITING"));
    for execution in first {
        assert_eq!(execution.status, "CANCELED");
        assert_eq!(execution.version, Some(version("3.0")));
        assert_eq!(
            execution.reason.as_deref(),
            Some(&*format!("superseded by rollout {new}"))
        );
    }
}

#[test]
fn a_newer_rollout_that_was_stopped_takes_nobody_over_that_it_did_not_change() {
    let yard = Yard::new(3);
    let now = SystemTime::now();
    let package = yard.team.package("3.0", b"3.0");
    yard.house.ota().add(&package[..], now).unwrap();
    let old = yard.start(&json!({"waves": ["1", "100%"], "approvers": 1}));
    let view = yard.run_until(&old, RolloutState::WaitingApproval);
    let others = || {
        view.executions
            .iter()
            .filter(|e| e.wave == "100%")
            .map(|e| &*e.thing)
    };
    let new = yard.start(&json!({"version": "3.0"}));
    yard.house
        .eventually(|ota| (ota.rollout(&new).unwrap().waves[0].queued == 3).then_some(()));
    // One of them has it already, and keeps it.
    let took = others().next().unwrap();
    yard.work(took, true).unwrap();
    told(&yard, &new, Command::Abort);
    yard.house
        .eventually(|ota| (ota.rollout(&new).unwrap().waves[0].queued == 0).then_some(()));
    approve(&yard, &old);
    yard.run(&old, |_| true);
    let view = yard.until(&old, RolloutState::Succeeded);
    for execution in view.executions.iter().filter(|e| e.wave == "100%") {
        let is = (&*execution.status, execution.version.clone());
        let must = if execution.thing == took {
            ("CANCELED", Some(version("3.0")))
        } else {
            ("SUCCEEDED", Some(version("2.0")))
        };
        assert_eq!(is, must);
    }
}

#[test]
fn a_newer_rollout_that_was_undone_takes_nobody_from_an_older_one() {
    let yard = Yard::new(3);
    yard.add("3.0");
    let old = yard.start(&json!({"waves": ["1", "100%"], "approvers": 1}));
    yard.run_until(&old, RolloutState::WaitingApproval);
    let new = yard.brings("3.0");
    told(&yard, &new, Command::Rollback);
    yard.run(&new, |_| true);
    yard.until(&new, RolloutState::RolledBack);
    approve(&yard, &old);
    yard.run(&old, |_| true);
    let view = yard.until(&old, RolloutState::Succeeded);
    for one in view.executions {
        assert_eq!(
            (&*one.status, one.version),
            ("SUCCEEDED", Some(version("2.0")))
        );
    }
}

#[test]
fn what_an_older_rollout_that_had_succeeded_tells_again_can_be_paused_and_stopped() {
    let yard = Yard::new(2);
    yard.add("3.0");
    let queued = |id: &RolloutId, count: usize| {
        yard.house
            .eventually(|ota| (ota.rollout(id).unwrap().waves[0].queued == count).then_some(()));
    };
    // One is away, and the older rollout ends with the other.
    let old = yard.start(&json!({}));
    queued(&old, 2);
    yard.work("lamp-1", true).unwrap();
    let new = yard.start(&json!({"version": "3.0"}));
    queued(&new, 2);
    yard.until(&old, RolloutState::Succeeded);
    told(&yard, &new, Command::Abort);
    queued(&old, 1);
    told(&yard, &old, Command::Pause);
    yard.until(&old, RolloutState::Paused);
    assert_eq!(yard.work("lamp-0", true), None);
    told(&yard, &old, Command::Resume);
    yard.until(&old, RolloutState::Succeeded);
    queued(&old, 1);
    told(&yard, &old, Command::Abort);
    yard.until(&old, RolloutState::Aborted);
    assert_eq!(yard.work("lamp-0", true), None);
}

#[test]
fn who_was_away_gets_the_older_good_version_after_the_newer_has_undone_itself() {
    let yard = Yard::new(3);
    let now = SystemTime::now();
    for new in ["3.0", "4.0"] {
        let package = yard.team.package(new, new.as_bytes());
        yard.house.ota().add(&package[..], now).unwrap();
    }
    let queued = |id: &RolloutId, count: usize| {
        yard.house
            .eventually(|ota| (ota.rollout(id).unwrap().waves[0].queued == count).then_some(()));
    };
    let old = yard.start(&json!({"success": 50}));
    queued(&old, 3);
    yard.work("lamp-0", true).unwrap();
    yard.work("lamp-1", true).unwrap();
    yard.until(&old, RolloutState::Succeeded);
    // Of the two that follow neither comes to anything, and lamp-2 hears of none.
    let stopped = yard.start(&json!({"version": "3.0"}));
    queued(&stopped, 3);
    let newest = yard.start(&json!({"version": "4.0", "abortFailed": 10}));
    queued(&newest, 3);
    yard.until(&stopped, RolloutState::Aborted);
    yard.work("lamp-0", false).unwrap();
    yard.until(&newest, RolloutState::RolledBack);
    // It goes out as its rollout does.
    yard.run_until(&old, RolloutState::Succeeded);
    let view = yard.house.eventually(|ota| {
        yard.work("lamp-2", true);
        let view = ota.rollout(&old).unwrap();
        view.executions
            .iter()
            .all(|one| one.status == "SUCCEEDED")
            .then_some(view)
    });
    let versions = view.executions.iter().map(|one| one.version.clone());
    assert!(versions.eq([
        Some(version("2.0")),
        Some(version("2.0")),
        Some(version("2.0"))
    ]));
    let view = yard.view(&newest);
    let away = view.executions.iter().find(|one| one.thing == "lamp-2");
    let said = away.unwrap().reason.clone();
    let words = "the rollout was stopped before it began";
    assert_eq!(said.as_deref(), Some(words));
}

#[test]
fn a_rollout_after_a_clock_that_was_ahead_is_newer_all_the_same() {
    let mut yard = Yard::new(2);
    let package = yard.team.package("3.0", b"3.0");
    let now = SystemTime::now();
    yard.house.ota().add(&package[..], now).unwrap();
    let request = |version: &str| {
        let asked = json!({"name": "lamp", "version": version, "group": "lamps"});
        serde_json::from_value(asked).unwrap()
    };
    let ahead = now + Duration::from_secs(60 * 86_400);
    let early = yard
        .house
        .ota()
        .start_rollout(&request("2.0"), "ann", ahead)
        .unwrap()
        .id;
    yard.house
        .eventually(|ota| (ota.rollout(&early).unwrap().waves[0].queued == 2).then_some(()));
    yard.house.restart();
    let later = yard
        .house
        .ota()
        .start_rollout(&request("3.0"), "ann", now)
        .unwrap()
        .id;
    assert!(later > early);
    yard.run(&later, |_| true);
    let view = yard.until(&later, RolloutState::Succeeded);
    assert!(
        view.executions
            .iter()
            .all(|e| e.version == Some(version("3.0"))),
        "{view:?}"
    );
    yard.until(&early, RolloutState::Aborted);
}
