//! What people say to a rollout: pause, resume, stop, undo, approve.

use super::*;

/// Stops or turns a rollout as a person would, in its row alone: the room's thread hears of it later.
fn stands(yard: &Yard, id: &RolloutId, state: RolloutState, undone: u32) {
    let change = |changes: &mut executions::Changes<'_>| {
        let at = records::key::rollout(id);
        let mut row: records::RolloutRow = changes.rows.get(&at)?.unwrap();
        (row.state, row.undone) = (state, undone);
        changes.rows.put(at, &row)
    };
    yard.house.ota().change(SystemTime::now(), change).unwrap();
}

#[test]
fn nobody_begins_what_was_stopped_or_undone_however_long_the_taking_back_takes() {
    for (state, undone) in [
        (RolloutState::Aborted, 0),
        (RolloutState::RollingBack, 1),
        (RolloutState::RolledBack, 1),
        (RolloutState::Paused, 1),
    ] {
        let yard = Yard::new(3);
        let id = yard.start(&json!({"success": 50}));
        yard.house
            .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 3).then_some(()));
        let job: JobId = format!("{id}-wave-1").parse().unwrap();
        let begun = yard.house.accepted("lamp-0", "start-next", &json!({}));
        assert_eq!(begun["execution"]["jobId"], job.as_str());
        stands(&yard, &id, state, undone);
        // However it asks.
        for rest in ["start-next", "$next/get"] {
            let asked = yard.house.accepted("lamp-1", rest, &json!({}));
            assert_eq!(asked.get("execution"), None, "{state:?} {rest}");
        }
        let update = json!({"status": "IN_PROGRESS"});
        let (topic, said) = yard.house.ask("lamp-2", &format!("{job}/update"), &update);
        assert!(topic.ends_with("rejected"), "{state:?} {said}");
        let status = |thing| yard.house.ota().job_execution(&job, thing).unwrap().status;
        assert_eq!(status("lamp-1"), crate::ExecutionStatus::Canceled);
        assert_eq!(status("lamp-2"), crate::ExecutionStatus::Canceled);
        // Who has begun is let end.
        assert_eq!(status("lamp-0"), crate::ExecutionStatus::InProgress);
    }
}

#[test]
fn pause_resume_abort_and_rollback() {
    let yard = Yard::new(4);
    let now = SystemTime::now();
    let id = yard.start(&json!({"waves": ["50%", "100%"]}));
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.waves[0].queued == 2).then_some(view)
    });
    let ota = yard.house.ota();
    let first: Vec<&str> = view
        .executions
        .iter()
        .filter(|e| e.wave == "50%")
        .map(|e| &*e.thing)
        .collect();
    for thing in &first {
        yard.house.accepted(thing, "start-next", &json!({}));
    }
    ota.command_rollout(&id, Command::Pause, "ann", now)
        .unwrap();
    // Those at it go on.
    for thing in &first {
        yard.work(thing, true).unwrap();
    }
    yard.house.eventually(|ota| {
        (ota.rollout(&id).unwrap().waves[0].state == WaveState::Done).then_some(())
    });
    assert_eq!(yard.view(&id).waves[1].state, WaveState::Waiting);
    ota.command_rollout(&id, Command::Resume, "ann", now)
        .unwrap();
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[1].queued == 2).then_some(()));
    ota.command_rollout(&id, Command::Abort, "ann", now)
        .unwrap();
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[1].queued == 0).then_some(()));
    let view = yard.view(&id);
    assert_eq!(view.state, RolloutState::Aborted);
    assert_eq!(
        view.executions
            .iter()
            .filter(|e| e.status == "CANCELED")
            .count(),
        2
    );
    let error = ota
        .command_rollout(&id, Command::Resume, "ann", now)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is aborted and cannot be resumed"),
        "{error}"
    );
    ota.command_rollout(&id, Command::Rollback, "ann", now)
        .unwrap();
    yard.run(&id, |_| true);
    let view = yard.until(&id, RolloutState::RolledBack);
    assert!(
        view.executions
            .iter()
            .all(|e| e.version == Some(version("1.0")))
    );
    let unknown: RolloutId = "r-none".parse().unwrap();
    assert!(
        ota.command_rollout(&unknown, Command::Pause, "ann", now)
            .unwrap_err()
            .to_string()
            .contains("rollout `r-none` does not exist")
    );
}

#[test]
fn those_whom_a_rollout_did_not_wait_for_are_left_alone_where_a_person_says_so() {
    let yard = Yard::new(2);
    let now = SystemTime::now();
    let ota = yard.house.ota();
    let id = yard.start(&json!({"success": 50}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 2).then_some(()));
    yard.work("lamp-0", true).unwrap();
    yard.until(&id, RolloutState::Succeeded);
    told(&yard, &id, Command::Abort);
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 0).then_some(()));
    assert_eq!(yard.view(&id).state, RolloutState::Aborted);
    assert_eq!(yard.work("lamp-1", true), None);
    // Where all have it there is nothing to stop.
    let id = yard.start(&json!({"success": 50}));
    yard.house.eventually(|ota| {
        for lamp in ["lamp-0", "lamp-1"] {
            yard.work(lamp, true);
        }
        let view = ota.rollout(&id).unwrap();
        let all = view.waves[0].succeeded == 2 && view.state == RolloutState::Succeeded;
        all.then_some(())
    });
    for (command, verb) in [(Command::Pause, "paused"), (Command::Abort, "aborted")] {
        let error = ota.command_rollout(&id, command, "ann", now);
        let error = error.unwrap_err().to_string();
        let words = format!("is succeeded and cannot be {verb}");
        assert!(error.contains(&words), "{error}");
    }
}

#[test]
fn a_paused_rollout_gives_nothing_out_and_what_was_queued_comes_again_with_resume() {
    let mut yard = Yard::new(2);
    let id = yard.start(&json!({}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 2).then_some(()));
    let job: JobId = format!("{id}-wave-1").parse().unwrap();
    told(&yard, &id, Command::Pause);
    // At once, whether the rollout has come to it or not, and after a restart.
    for _ in 0..2 {
        for thing in ["lamp-0", "lamp-1"] {
            for rest in ["start-next", "$next/get"] {
                let nothing = yard.house.accepted(thing, rest, &json!({}));
                assert_eq!(nothing.get("execution"), None, "{thing} {rest}");
            }
            let list = yard.house.accepted(thing, "get", &json!({}));
            assert_eq!(list["queuedJobs"], json!([]));
            for rest in [format!("{job}/get"), format!("{job}/update")] {
                let refused = yard
                    .house
                    .rejected(thing, &rest, &json!({"status": "IN_PROGRESS"}));
                assert_eq!(refused["code"], "ResourceNotFound", "{refused}");
                let words = refused["message"].as_str().unwrap();
                assert!(words.contains("its rollout is paused"), "{words}");
            }
        }
        yard.house.restart();
    }
    assert_eq!(yard.view(&id).state, RolloutState::Paused);
    told(&yard, &id, Command::Resume);
    for thing in ["lamp-0", "lamp-1"] {
        let again = yard.house.eventually(|_| {
            let next = yard.house.accepted(thing, "$next/get", &json!({}));
            next.get("execution").cloned()
        });
        assert_eq!(again["executionNumber"], 1, "the same try");
    }
    assert_eq!(yard.house.ota().job(&job).unwrap().open, 2);
    yard.run(&id, |_| true);
    yard.until(&id, RolloutState::Succeeded);
}

#[test]
fn a_first_wave_waits_for_the_people_it_asks_for_itself() {
    let yard = Yard::new(2);
    // What is said of all waves leaves the first one out.
    let waves = json!([{"size": "50%", "approvers": 1}, {"size": "100%", "approvers": 0}]);
    let id = yard.start(&json!({"waves": waves}));
    let view = yard.until(&id, RolloutState::WaitingApproval);
    assert!(view.executions.iter().all(|e| e.status == "WAITING"));
    told(
        &yard,
        &id,
        Command::Approve {
            by: "ann".into(),
            wave: None,
        },
    );
    yard.run(&id, |_| true);
    yard.until(&id, RolloutState::Succeeded);
    let all = yard.start(&json!({"version": "1.0", "waves": ["50%", "100%"], "approvers": 1}));
    yard.house
        .eventually(|ota| (ota.rollout(&all).unwrap().waves[0].queued == 1).then_some(()));
}
