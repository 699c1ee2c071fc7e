//! The way back: who goes, who cannot, and what is said of it.

use super::*;

#[test]
fn what_a_later_rollout_has_brought_is_its_own_also_after_a_restart() {
    let mut yard = Yard::new(2);
    let bad = yard.brings("2.0");
    let undone = yard.brings("2.0");
    undone_by_hand(&yard, &bad, 2);
    let mended = yard.brings("1.0");
    // Nobody runs it any more, so nobody goes.
    let refused = refused_rollback(&yard, &undone);
    assert!(
        refused.ends_with("no device runs the version that this rollout has brought"),
        "{refused}"
    );
    let anew = yard.brings("2.0");
    let all = [&bad, &undone, &mended, &anew];
    rests_on(&yard, &all, "2.0");
    yard.house.restart();
    rests_on(&yard, &all, "2.0");
    assert_eq!(yard.view(&bad).rollback.unwrap().total, 2);
    // The one that has brought it takes it back.
    undone_by_hand(&yard, &anew, 2);
    yard.house.restart();
    rests_on(&yard, &all, "1.0");
}

/// All of those who have it go back, so many.
fn undone_by_hand(yard: &Yard, id: &RolloutId, count: usize) {
    told(yard, id, Command::Rollback);
    yard.run(id, |_| true);
    let view = yard.view(id);
    assert_eq!(view.state, RolloutState::RolledBack, "{:?}", view.reason);
    assert_eq!(view.rollback.unwrap().succeeded, count);
}

/// Why it cannot be rolled back.
fn refused_rollback(yard: &Yard, id: &RolloutId) -> String {
    let ota = yard.house.ota();
    let said = ota.command_rollout(id, Command::Rollback, "ann", SystemTime::now());
    said.unwrap_err().to_string()
}

#[test]
fn rollouts_are_undone_one_after_the_other_down_to_the_first_version() {
    let mut yard = Yard::new(2);
    yard.add("3.0");
    let older = yard.brings("2.0");
    let newer = yard.brings("3.0");
    undone_by_hand(&yard, &newer, 2);
    yard.house.restart();
    undone_by_hand(&yard, &older, 2);
    rests_on(&yard, &[&older, &newer], "1.0");
    // Said again it moves nobody, and least of all forward.
    for id in [&older, &newer] {
        let refused = refused_rollback(&yard, id);
        assert!(refused.contains("no device runs the version"), "{refused}");
    }
    rests_on(&yard, &[&older, &newer], "1.0");
    // The newer one found what the older one had brought, and that is gone.
    let ota = yard.house.ota();
    let refused = ota.command_rollout(&newer, Command::Forward, "ann", SystemTime::now());
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.ends_with("no device went back that could be brought forward again"),
        "{refused}"
    );
    // And up again.
    told(&yard, &older, Command::Forward);
    yard.run_until(&older, RolloutState::Succeeded);
    rests_on(&yard, &[&older, &newer], "2.0");
}

#[test]
fn who_had_the_version_before_is_taken_back_by_the_rollout_that_brought_it() {
    let mut yard = Yard::new(2);
    let pilot = yard.start(&json!({"waves": ["1", "100%"], "approvers": 1}));
    yard.run_until(&pilot, RolloutState::WaitingApproval);
    let all = yard.brings("2.0");
    let twice = yard.brings("2.0");
    let refused = refused_rollback(&yard, &twice);
    let words = "none of the 2 devices that have it can go back: another rollout has brought it to this version";
    assert!(refused.contains(words), "{refused}");
    yard.house.restart();
    undone_by_hand(&yard, &all, 1);
    let view = yard.view(&all);
    let why = view.reason.as_deref().unwrap();
    assert!(
        why.contains("1 of 2 devices did not go back (another rollout has"),
        "{why}"
    );
    undone_by_hand(&yard, &pilot, 1);
    rests_on(&yard, &[&pilot, &all, &twice], "1.0");
}

#[test]
fn a_hotfix_that_is_undone_does_not_bring_back_what_it_was_to_mend() {
    let mut yard = Yard::new(2);
    yard.add("3.0");
    yard.add("4.0");
    yard.brings("2.0");
    let bad = yard.brings("3.0");
    told(&yard, &bad, Command::Rollback);
    yard.house.eventually(|ota| {
        let back = ota.rollout(&bad).unwrap().rollback;
        (back.unwrap().queued == 2).then_some(())
    });
    // One goes back at once; the other is away until the hotfix is there.
    yard.work("lamp-0", true).unwrap();
    let hotfix = yard.brings("4.0");
    yard.until(&bad, RolloutState::RolledBack);
    yard.house.restart();
    undone_by_hand(&yard, &hotfix, 2);
    rests_on(&yard, &[&bad, &hotfix], "2.0");
}

/// Nothing is told, and all run this version.
fn rests_on(yard: &Yard, rollouts: &[&RolloutId], version: &str) {
    for id in rollouts {
        yard.house.ota().advance(id, SystemTime::now()).unwrap();
        let executions = yard.view(id).executions;
        let runs = |one: &crate::rollout::ShownExecution| one.version.clone();
        let version = Some(version.parse().unwrap());
        assert!(executions.iter().all(|one| runs(one) == version));
    }
    for thing in ["lamp-0", "lamp-1"] {
        let next = yard.house.accepted(thing, "$next/get", &json!({}));
        assert_eq!(next.get("execution"), None, "{next}");
    }
}

#[test]
fn a_version_known_from_the_devices_word_is_gone_back_to_where_the_repository_has_it() {
    let house = House::with_lamps(3);
    let team = Team::of(1);
    let now = SystemTime::now();
    house.ota().trust(&team.root(1, 365), now).unwrap();
    for version in ["1.0", "2.0", "3.0"] {
        let package = team.package(version, version.as_bytes());
        house.ota().add(&package[..], now).unwrap();
    }
    let yard = Yard { house, team };
    let says = |thing: &str, version: &str| {
        let details = json!({"firmwareName": "lamp", "firmwareVersion": version});
        let asked = json!({ "statusDetails": details });
        yard.house.accepted(thing, "start-next", &asked);
    };
    for (thing, version) in [("lamp-0", "1.0"), ("lamp-1", "1.0"), ("lamp-2", "0.9")] {
        says(thing, version);
    }
    let id = yard.start(&json!({"abortFailed": 100}));
    let shown = yard.view(&id).executions;
    assert!(shown.iter().all(|e| e.version.is_some()), "{shown:?}");
    yard.run(&id, |_| true);
    yard.until(&id, RolloutState::Succeeded);
    told(&yard, &id, Command::Rollback);
    let versions = |view: RolloutView| -> Vec<Option<FirmwareVersion>> {
        let mut executions = view.executions;
        executions.sort_by(|one, other| one.thing.cmp(&other.thing));
        executions.into_iter().map(|e| e.version).collect()
    };
    yard.run(&id, |_| true);
    let view = yard.until(&id, RolloutState::RolledBack);
    // What lamp-2 had is nowhere to be had.
    assert_eq!(
        versions(view),
        ["1.0", "1.0", "2.0"].map(|v| Some(version(v)))
    );
    // One that has come to another version by itself goes back to that, not to what a job brought it to once.
    says("lamp-0", "2.0");
    let id = yard.start(&json!({"version": "3.0"}));
    yard.run(&id, |_| true);
    told(&yard, &id, Command::Rollback);
    yard.run(&id, |_| true);
    let view = yard.until(&id, RolloutState::RolledBack);
    assert_eq!(
        versions(view),
        ["2.0", "1.0", "2.0"].map(|v| Some(version(v)))
    );
}

#[test]
fn those_who_took_a_bad_version_go_back_by_a_job_of_its_own() {
    let yard = Yard::new(4);
    let id = yard.start(&json!({"waves": ["100%"], "abortFailed": 50, "abortMin": 4}));
    let bad = "lamp-0";
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.waves[0].queued == 4).then_some(view)
    });
    for execution in &view.executions {
        yard.work(
            &execution.thing,
            !["lamp-0", "lamp-1"].contains(&execution.thing.as_str()),
        );
    }
    yard.until(&id, RolloutState::RollingBack);
    let back = yard.run(&id, |_| true);
    assert_eq!(back.len(), 2);
    for (thing, document) in &back {
        assert!(
            ["lamp-2", "lamp-3"].contains(&thing.as_str()),
            "{thing} fell back by itself"
        );
        assert_eq!(
            (&document["version"], &document["rollback"]),
            (&json!("1.0"), &json!(true))
        );
    }
    let view = yard.until(&id, RolloutState::RolledBack);
    assert!(
        view.executions
            .iter()
            .all(|e| e.version == Some(version("1.0"))),
        "{view:?}"
    );
    let fell = view.executions.iter().find(|e| e.thing == bad).unwrap();
    assert_eq!((fell.status.as_str(), fell.rollback), ("FAILED", None));
    assert!(
        yard.house
            .ota()
            .may_fetch("lamp-2", &lamp(), &version("1.0"), SystemTime::now())
            .unwrap()
    );
}

#[test]
fn whoever_reports_late_goes_back_though_the_server_was_killed_before_it_looked() {
    let mut yard = Yard::new(2);
    let id = yard.start(&json!({"abortFailed": 100}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 2).then_some(()));
    yard.house.accepted("lamp-1", "start-next", &json!({}));
    yard.work("lamp-0", true).unwrap();
    told(&yard, &id, Command::Rollback);
    let job: JobId = format!("{id}-wave-1").parse().unwrap();
    let time_out = |changes: &mut executions::Changes<'_>| {
        let execution = changes.execution(&job, "lamp-1")?.unwrap();
        changes.update(&execution, |execution| {
            execution.status = crate::ExecutionStatus::TimedOut;
        })
    };
    let now = SystemTime::now();
    yard.house.ota().change(now, time_out).unwrap();
    yard.house
        .eventually(|_| yard.work("lamp-0", true).map(|_| ()));
    yard.until(&id, RolloutState::RolledBack);
    // It has the version after all, and nobody looks at that before the kill.
    let late = |changes: &mut executions::Changes<'_>| {
        let row = records::key::runs("lamp-1", &lamp());
        let mut runs: records::Runs = changes.rows.get(&row)?.unwrap();
        runs.version = Some(version("2.0"));
        runs.rollout = Some(id.clone());
        runs.reported = None;
        runs.lineage = lineage::Lineage::of(version("2.0"), Some(id.clone()));
        changes.rows.put(row, &runs)
    };
    yard.house.ota().change(now, late).unwrap();
    assert_eq!(
        yard.house
            .accepted("lamp-1", "$next/get", &json!({}))
            .get("execution"),
        None
    );
    yard.house.restart();
    let document = yard.house.eventually(|_| yard.work("lamp-1", true));
    assert_eq!(document["version"], json!("1.0"));
}

#[test]
fn what_the_counters_do_not_allow_is_said_beforehand_and_nobody_is_sent_back_in_vain() {
    let yard = Yard::new(3);
    let now = SystemTime::now();
    let ota = yard.house.ota();
    assert_eq!(yard.warns(&json!({}), now).unwrap(), [""; 0]);
    let add = |text: &str, counter: u64| {
        let package = yard
            .team
            .package_with(text, |manifest| manifest.counter = counter);
        ota.add(&package[..], now).unwrap();
    };
    add("3.0", 4);
    let warnings = yard.warns(&json!({"version": "3.0"}), now).unwrap();
    assert_eq!(
        warnings,
        [
            "3 devices run 1.0 and could not go back to it if this rollout were undone: the security counter of lamp 1.0 is 3, lower than the 4 of 3.0"
        ]
    );
    let id = yard.start(&json!({"version": "3.0"}));
    yard.run(&id, |_| true);
    yard.until(&id, RolloutState::Succeeded);
    let error = ota
        .command_rollout(&id, Command::Rollback, "ann", now)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("none of the 3 devices that have it can go back"),
        "{error}"
    );
    assert_eq!(yard.view(&id).state, RolloutState::Succeeded, "as it was");
    let error = yard
        .try_start(&json!({"version": "2.0"}))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("every device would refuse lamp 2.0: the security counter"),
        "{error}"
    );
    // By itself it stops, and says how it is.
    add("4.0", 5);
    let id = yard.start(&json!({"version": "4.0", "abortFailed": 30}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 3).then_some(()));
    for (thing, good) in [("lamp-0", true), ("lamp-1", true), ("lamp-2", false)] {
        yard.work(thing, good);
    }
    let view = yard.until(&id, RolloutState::Aborted);
    let reason = view.reason.unwrap();
    assert!(
        reason.contains("2 of 2 devices did not go back (the security counter of lamp 3.0"),
        "{reason}"
    );
    assert!(
        ["lamp-0", "lamp-1", "lamp-2"]
            .iter()
            .all(|thing| yard.work(thing, true).is_none())
    );
    // A way back of the same counter is one.
    add("5.0", 5);
    yard.run(&yard.start(&json!({"version": "5.0"})), |_| true);
    assert_eq!(
        yard.warns(&json!({"version": "4.0"}), now).unwrap(),
        [""; 0]
    );
}

#[test]
fn a_version_that_has_expired_is_no_way_back_and_one_that_will_does_not_begin() {
    let yard = Yard::new(2);
    let ota = yard.house.ota();
    let hours = |hours: u64| SystemTime::now() + Duration::from_secs(hours * 3600);
    let soon = |text: &str| {
        let package = yard
            .team
            .package_with(text, |manifest| manifest.expires = hours(1));
        ota.add(&package[..], SystemTime::now()).unwrap();
    };
    soon("1.5");
    yard.run(&yard.start(&json!({"version": "1.5"})), |_| true);
    let id = yard.start(&json!({}));
    yard.run(&id, |_| true);
    let later = hours(2);
    let error = ota
        .command_rollout(&id, Command::Rollback, "ann", later)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("can go back") && error.contains("lamp 1.5 expired"),
        "{error}"
    );
    // Said before it begins, also where that is later.
    yard.run(&yard.start(&json!({"version": "1.5"})), |_| true);
    let in_two_hours = seconds(later);
    for (more, at) in [
        (json!({}), later),
        (json!({"startAt": in_two_hours}), SystemTime::now()),
    ] {
        let warnings = yard.warns(&more, at).unwrap();
        assert!(
            warnings.len() == 1
                && warnings[0].starts_with("2 devices run 1.5 and could not go back"),
            "{warnings:?}"
        );
    }
    let error = yard
        .try_start(&json!({"version": "1.5", "startAt": in_two_hours}))
        .unwrap_err()
        .to_string();
    assert!(error.contains("before it would begin"), "{error}");
    let waves = json!([{"size": "50%", "soakSeconds": 7200}, "100%"]);
    let warnings = yard
        .warns(
            &json!({"version": "1.5", "waves": waves}),
            SystemTime::now(),
        )
        .unwrap();
    assert!(
        warnings[0].contains("before its last wave can begin"),
        "{warnings:?}"
    );
}

#[test]
fn a_rollout_that_has_succeeded_is_undone_by_those_it_did_not_wait_for() {
    let mut yard = Yard::new(5);
    let id = yard.start(&json!({"success": 20, "abortFailed": 40}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 5).then_some(()));
    yard.work("lamp-0", true);
    yard.until(&id, RolloutState::Succeeded);
    yard.house.restart();
    yard.work("lamp-1", true);
    for thing in ["lamp-2", "lamp-3"] {
        assert_eq!(yard.view(&id).state, RolloutState::Succeeded);
        yard.work(thing, false);
    }
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.state == RolloutState::RollingBack).then_some(view)
    });
    assert!(
        view.reason
            .unwrap()
            .contains("2 of 4 finished devices failed")
    );
    yard.run(&id, |_| true);
    let view = yard.until(&id, RolloutState::RolledBack);
    let old = |e: &crate::rollout::ShownExecution| e.version == Some(version("1.0"));
    assert!(view.executions.iter().all(old));
    let statuses: Vec<&str> = view.executions.iter().map(|e| &*e.status).collect();
    assert!(
        statuses.contains(&"CANCELED"),
        "the last one is not told of it any more"
    );
}

#[test]
fn a_wave_waits_for_a_person_and_a_rollback_can_be_rolled_back() {
    let yard = Yard::new(2);
    let id = yard.start(&json!({"waves": ["50%", "100%"], "approvers": 1}));
    yard.house.eventually(|ota| {
        for thing in ["lamp-0", "lamp-1"] {
            yard.work(thing, true);
        }
        (ota.rollout(&id).unwrap().state == RolloutState::WaitingApproval).then_some(())
    });
    assert_eq!(yard.view(&id).executions[1].status, "WAITING");
    told(
        &yard,
        &id,
        Command::Approve {
            by: "ann".into(),
            wave: None,
        },
    );
    yard.run(&id, |_| true);
    let view = yard.until(&id, RolloutState::Succeeded);
    assert_eq!(view.waves[1].approved_by, ["ann"]);
    for (state, want) in [
        (RolloutState::RolledBack, "1.0"),
        (RolloutState::Succeeded, "2.0"),
        (RolloutState::RolledBack, "1.0"),
    ] {
        let forward = state == RolloutState::Succeeded;
        let command = if forward {
            Command::Forward
        } else {
            Command::Rollback
        };
        told(&yard, &id, command);
        yard.run(&id, |_| true);
        let view = yard.until(&id, state);
        assert!(
            view.executions
                .iter()
                .all(|e| e.version == Some(version(want))),
            "{view:?}"
        );
    }
}

#[test]
fn a_device_that_says_too_late_that_it_took_a_bad_version_is_sent_back() {
    let yard = Yard::new(1);
    let id = yard.start(&json!({"abortFailed": 1}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 1).then_some(()));
    yard.house.accepted("lamp-0", "start-next", &json!({}));
    let job: JobId = format!("{id}-wave-1").parse().unwrap();
    let later = SystemTime::now() + Duration::from_secs(3601);
    yard.house
        .ota()
        .change(later, |changes| {
            let execution = changes.execution(&job, "lamp-0")?.unwrap();
            let ended =
                |execution: &mut Execution| execution.status = crate::ExecutionStatus::TimedOut;
            changes.update(&execution, ended).map(drop)
        })
        .unwrap();
    yard.until(&id, RolloutState::RolledBack);
    let late = yard.house.rejected(
        "lamp-0",
        &format!("{job}/update"),
        &json!({"status": "SUCCEEDED"}),
    );
    assert_eq!(late["code"], "InvalidStateTransition");
    let back = yard.house.eventually(|_| {
        let next = yard.house.accepted("lamp-0", "$next/get", &json!({}));
        next.get("execution").cloned()
    });
    assert_eq!(back["jobDocument"]["version"], "1.0");
    yard.work("lamp-0", true);
    assert_eq!(yard.view(&id).executions[0].version, Some(version("1.0")));
}

#[test]
fn a_version_that_expires_before_the_last_have_come_is_kept_from_them_and_stays_with_the_others() {
    let yard = Yard::new(3);
    let now = SystemTime::now();
    let short = yard.team.package_with("3.0", |manifest| {
        manifest.expires = now + Duration::from_secs(4);
    });
    yard.house.ota().add(&short[..], now).unwrap();
    let id = yard.start(&json!({"version": "3.0", "success": 30, "abortFailed": 30}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 3).then_some(()));
    yard.work("lamp-0", true).unwrap();
    yard.until(&id, RolloutState::Succeeded);
    yard.house.eventually(|ota| {
        let withheld = ota.rollout(&id).unwrap().withheld?;
        withheld
            .contains("the manifest of lamp 3.0 expired")
            .then_some(())
    });
    // Who comes now is told nothing, so that nobody refuses it.
    for lamp in ["lamp-1", "lamp-2"] {
        assert_eq!(yard.work(lamp, false), None);
    }
    let view = yard.view(&id);
    assert_eq!((view.state, view.rollback), (RolloutState::Succeeded, None));
    // Signed anew it reaches them.
    let again = yard.team.package_with("3.0", |_| {});
    yard.house.ota().add(&again[..], SystemTime::now()).unwrap();
    for lamp in ["lamp-1", "lamp-2"] {
        yard.house.eventually(|_| yard.work(lamp, true));
    }
    let view = yard.view(&id);
    assert_eq!((view.withheld, view.waves[0].succeeded), (None, 3));
}
