//! The jobs of a rollout: their ids, their tries, and whose they are.

use super::*;

#[test]
fn who_is_never_heard_of_again_is_given_up_with_words() {
    let yard = Yard::new(2);
    let id = yard.start(&json!({"timeoutMinutes": 90}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 2).then_some(()));
    let job: JobId = format!("{id}-wave-1").parse().unwrap();
    let said = [("reason".to_owned(), "the disk is slow".to_owned())];
    let begin = |changes: &mut executions::Changes<'_>| {
        for thing in ["lamp-0", "lamp-1"] {
            let execution = changes.execution(&job, thing)?.unwrap();
            changes.update(&execution, |execution| {
                execution.status = crate::ExecutionStatus::InProgress;
                execution.details = (thing == "lamp-1").then(|| said.clone().into());
            })?;
        }
        Ok(())
    };
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 3600);
    yard.house.ota().change(long_ago, begin).unwrap();
    yard.house.ota().inner.inbox.wake();
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        let over = view.executions.iter().all(|e| e.status == "TIMED_OUT");
        over.then_some(view)
    });
    let reasons = view.executions.iter().map(|e| e.reason.clone().unwrap());
    let mut reasons: Vec<String> = reasons.collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "no word that it was done within 90 minutes of its beginning",
            "the disk is slow"
        ]
    );
}

#[test]
fn the_ids_of_a_rollouts_jobs_are_nobody_elses_and_no_other_job_is_taken_for_one() {
    let yard = Yard::new(2);
    let id = yard.start(&json!({"waves": ["50%", "100%"], "approvers": 1}));
    yard.run_until(&id, RolloutState::WaitingApproval);
    let rollout = yard.house.ota().load(&id).unwrap();
    let request: create_job::CreateJob = serde_json::from_value(
        json!({"targets": ["thinggroup/lamps"], "document": "{\"operation\":\"reboot\"}"}),
    )
    .unwrap();
    let now = SystemTime::now();
    let ota = yard.house.ota();
    let wave = rollout.wave_job(1).unwrap();
    let others = [
        wave.clone(),
        rollout.back_job(1, &version("1.0")).unwrap(),
        rollout.back_job(2, &version("1.0")).unwrap(),
        "AFR_OTA-spring".parse().unwrap(),
    ];
    for job in &others {
        let error = ota.create_job(job, &request, now).unwrap_err().to_string();
        assert!(error.contains("is kept for the jobs of"), "{error}");
        assert!(ota.job(job).is_err());
    }
    for free in [
        "r-1",
        "r-0000000000000-00000000-wave-1",
        "r-000000000000-0000000-x",
        "AFR_OT",
    ] {
        let free: JobId = free.parse().unwrap();
        assert!(ota.create_job(&free, &request, now).is_ok(), "{free}");
    }
    // One that an earlier release let through: it is nobody's way, and nothing is told by it.
    ota.make_job(&wave, &request, now).unwrap();
    let view = yard.view(&id);
    assert_eq!(
        view.waves[1].queued, 0,
        "its executions are none of the rollout's"
    );
    told(
        &yard,
        &id,
        Command::Approve {
            by: "ann".into(),
            wave: None,
        },
    );
    assert!(matches!(ota.advance(&id, now), Err(Error::Foreign { .. })));
    ota.delete_job(&wave, true, now).unwrap();
    yard.house.eventually(|ota| {
        let _ = ota.advance(&id, SystemTime::now());
        (ota.rollout(&id).unwrap().waves[1].queued == 1).then_some(())
    });
}

#[test]
fn a_rollouts_jobs_are_not_cancelled_behind_its_back() {
    let yard = Yard::new(1);
    let id = yard.start(&json!({}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 1).then_some(()));
    let job = format!("{id}-wave-1").parse().unwrap();
    let error = yard
        .house
        .ota()
        .cancel_job(&job, true, None, None, SystemTime::now())
        .unwrap_err()
        .to_string();
    assert!(error.contains("muster rollout abort"), "{error}");
}

#[test]
fn a_device_that_failed_gets_the_same_job_under_a_new_number() {
    let yard = Yard::new(1);
    let id = yard.start(&json!({"retry": 1}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 1).then_some(()));
    yard.work("lamp-0", false);
    let again = yard.house.eventually(|_| {
        let next = yard.house.accepted("lamp-0", "$next/get", &json!({}));
        next.get("execution").cloned()
    });
    assert_eq!(
        (&again["executionNumber"], &again["versionNumber"]),
        (&json!(2), &json!(1))
    );
    let job = again["jobId"].as_str().unwrap();
    let old = yard.house.rejected(
        "lamp-0",
        &format!("{job}/update"),
        &json!({"status": "SUCCEEDED", "executionNumber": 1}),
    );
    assert_eq!(
        old["code"], "InvalidStateTransition",
        "what the first try says counts no more"
    );
    yard.work("lamp-0", true);
    let view = yard.until(&id, RolloutState::Succeeded);
    assert_eq!(view.executions[0].attempt, Some(2));
}
