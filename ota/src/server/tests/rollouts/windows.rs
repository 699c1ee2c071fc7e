//! When devices may begin, and what becomes of those that have begun when a window closes.

use super::*;

#[test]
fn a_window_that_closes_takes_the_job_away_until_it_opens_again() {
    let yard = Yard::new(1);
    let id = yard.start(&json!({"window": "* * * * */2m"}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 1).then_some(()));
    let job: JobId = format!("{id}-wave-1").parse().unwrap();
    // The window is over by now, as far as this execution goes.
    let shut = |seconds: u64| {
        let now = SystemTime::now();
        let change = |changes: &mut executions::Changes<'_>| {
            let mut execution = changes.execution(&job, "lamp-0")?.unwrap();
            execution.until = Some(super::seconds(now).saturating_sub(seconds));
            changes
                .rows
                .put(records::key::execution(&job, "lamp-0"), &execution)?;
            // A row that nothing else would change so.
            let install = changes.job(&job)?.and_then(|job| job.install).unwrap();
            changes.news.push(pictures::News::Execution {
                install,
                execution: Box::new(execution.clone()),
            });
            Ok(execution)
        };
        yard.house.ota().change(now, change).unwrap()
    };
    // Paused, so that it is not offered again before it was looked at.
    told(&yard, &id, Command::Pause);
    let execution = shut(0);
    let nothing = yard.house.accepted("lamp-0", "$next/get", &json!({}));
    assert_eq!(nothing.get("execution"), None);
    let list = yard.house.accepted("lamp-0", "get", &json!({}));
    assert_eq!(list["queuedJobs"], json!([]));
    let started = yard.house.accepted("lamp-0", "start-next", &json!({}));
    assert_eq!(
        started.get("execution"),
        None,
        "nothing begins outside its window"
    );
    for rest in [format!("{job}/get"), format!("{job}/update")] {
        let refused = yard
            .house
            .rejected("lamp-0", &rest, &json!({"status": "IN_PROGRESS"}));
        assert_eq!(refused["code"], "ResourceNotFound", "{refused}");
    }
    // It opens again: the same try, one more word to the device.
    told(&yard, &id, Command::Resume);
    let again = yard.house.eventually(|_| {
        let next = yard.house.accepted("lamp-0", "$next/get", &json!({}));
        next.get("execution").cloned()
    });
    assert_eq!(again.get("approximateSecondsBeforeTimedOut"), None);
    assert_eq!(again["executionNumber"], 1);
    assert_eq!(again["versionNumber"], json!(execution.version_number + 1));
    assert_eq!(yard.house.ota().job(&job).unwrap().open, 1);
    yard.run(&id, |_| true);
    yard.until(&id, RolloutState::Succeeded);
}

#[test]
fn a_time_zone_that_is_mended_is_read_though_nothing_else_happens() {
    let yard = Yard::new(1);
    let live = |zone: &str| {
        let attributes = Some([("timezone".to_owned(), zone.to_owned())].into());
        let change = fleet::ThingChange {
            attributes,
            ..Default::default()
        };
        let lamp: ThingName = "lamp-0".parse().unwrap();
        yard.house
            .room()
            .fleet
            .update_thing(&lamp, &change, None)
            .unwrap();
    };
    // Eleven hours behind it opens when it has closed in UTC.
    live("Pacific/Midway");
    let now = SystemTime::now();
    let hour = super::seconds(now) / 3600 % 24;
    let id = yard.start(&json!({"window": format!("0 {hour} * * */2h")}));
    let due = yard.house.eventually(|ota| {
        let due = ota.advance(&id, now).unwrap();
        due.filter(|_| ota.rollout(&id).unwrap().state == RolloutState::Running)
    });
    let soon = super::seconds(SystemTime::now()) + 120;
    assert!(due <= soon, "{due} is not within two minutes");
    assert_eq!(yard.view(&id).executions[0].status, "WAITING");
    live("UTC");
    let later = std::time::UNIX_EPOCH + Duration::from_secs(due + 60);
    yard.house.ota().advance(&id, later).unwrap();
    assert_eq!(yard.view(&id).executions[0].status, "QUEUED");
}

#[test]
fn a_download_that_outlasts_its_window_waits_for_the_next_and_more_than_that_does_not() {
    let yard = Yard::new(2);
    let id = yard.start(&json!({"window": "* * * * */2m"}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 2).then_some(()));
    let job: JobId = format!("{id}-wave-1").parse().unwrap();
    let fetching = json!({"statusDetails": {"step": "downloading"}});
    for thing in ["lamp-0", "lamp-1"] {
        let begun = yard.house.accepted(thing, "start-next", &fetching);
        let until = &begun["execution"]["jobDocument"]["until"];
        assert!(until.as_u64() > begun["timestamp"].as_u64(), "{begun}");
    }
    let update = format!("{job}/update");
    let trial = json!({"status": "IN_PROGRESS", "statusDetails": {"step": "trial"}});
    yard.house.accepted("lamp-1", &update, &trial);
    told(&yard, &id, Command::Pause);
    // The windows of both close now, and whoever sleeps until they did is told.
    let close = || {
        let close = |changes: &mut executions::Changes<'_>| {
            for thing in ["lamp-0", "lamp-1"] {
                let mut execution = changes.execution(&job, thing)?.unwrap();
                if let Some(until) = execution.until.replace(changes.now.seconds) {
                    changes.rows.delete(records::key::due(until, &execution));
                }
                let due = records::key::due(changes.now.seconds, &execution);
                changes
                    .rows
                    .put(due, &records::JobRef { job: job.clone() })?;
                let row = records::key::execution(&job, thing);
                changes.rows.put(row, &execution)?;
                // A row that nothing else would change so.
                let install = changes.job(&job)?.and_then(|job| job.install).unwrap();
                changes.news.push(pictures::News::Execution {
                    install,
                    execution: Box::new(execution),
                });
            }
            Ok(())
        };
        yard.house.ota().change(SystemTime::now(), close).unwrap();
        yard.house.ota().inner.inbox.wake();
    };
    close();
    yard.house.eventually(|ota| {
        let wave = &ota.rollout(&id).unwrap().waves[0];
        ((wave.queued, wave.in_progress) == (1, 1)).then_some(())
    });
    let still = yard.house.accepted("lamp-1", "$next/get", &json!({}));
    assert_eq!(still["execution"]["status"], "IN_PROGRESS");
    let nothing = yard.house.accepted("lamp-0", "start-next", &fetching);
    assert_eq!(nothing.get("execution"), None);
    let says = json!({"status": "IN_PROGRESS", "statusDetails": {"step": "downloading"}});
    for (rest, asked) in [(format!("{job}/get"), &json!({})), (update.clone(), &says)] {
        let refused = yard.house.rejected("lamp-0", &rest, asked);
        assert_eq!(refused["code"], "ResourceNotFound", "{refused}");
    }
    // The next window: the same try.
    told(&yard, &id, Command::Resume);
    let again = yard.house.eventually(|_| {
        let next = yard.house.accepted("lamp-0", "start-next", &fetching);
        next.get("execution").cloned()
    });
    assert_eq!(again["executionNumber"], 1);
    // What a device did before it heard that its window had closed is heard.
    told(&yard, &id, Command::Pause);
    close();
    yard.house.eventually(|ota| {
        let wave = &ota.rollout(&id).unwrap().waves[0];
        ((wave.queued, wave.in_progress) == (1, 1)).then_some(())
    });
    let done = json!({"status": "SUCCEEDED", "executionNumber": 1});
    for thing in ["lamp-0", "lamp-1"] {
        yard.house.accepted(thing, &update, &done);
    }
    told(&yard, &id, Command::Resume);
    yard.until(&id, RolloutState::Succeeded);
}
