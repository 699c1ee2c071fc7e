use super::super::transaction::Transaction;
use super::*;
use crate::JobId;
use crate::job::ExecutionStatus;

pub(super) fn request(targets: &[&str], document: &Value) -> CreateJob {
    serde_json::from_value(json!({"targets": targets, "document": document.to_string()})).unwrap()
}

fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

fn words<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_job_reaches_the_things_and_groups_it_names() {
    let mut house = House::with_lamps(3);
    let now = SystemTime::now();
    let group = "arn:aws:iot:eu-central-1:000000000000:thinggroup/lamps";
    let job = house
        .ota()
        .create_job(
            &id("j1"),
            &request(&[group, "thing/lamp-0"], &json!({"do": "it"})),
            now,
        )
        .unwrap();
    assert_eq!(job.status, JobStatus::InProgress);
    house.restart();
    assert_eq!(house.ota().job(&id("j1")).unwrap(), job);
    assert_eq!(house.ota().jobs(None, 10).unwrap(), [job]);
    assert_eq!(house.ota().job_counts(&id("j1")).unwrap().queued, 3);
    assert_eq!(
        house
            .ota()
            .job_execution(&id("j1"), "lamp-2")
            .unwrap()
            .status,
        ExecutionStatus::Queued
    );
    assert!(
        words(house.ota().job_execution(&id("j1"), "lamp-9"))
            .contains("`j1 on lamp-9` does not exist")
    );
    assert!(words(house.ota().job(&id("j9"))).contains("job `j9` does not exist"));
    let again = house
        .ota()
        .create_job(&id("j1"), &request(&["lamp-0"], &json!({})), now);
    assert!(words(again).contains("job `j1` exists already"));
}

#[test]
fn executions_are_listed_page_by_page() {
    let house = House::with_lamps(5);
    house
        .ota()
        .create_job(
            &id("j1"),
            &request(&["thinggroup/lamps"], &json!({})),
            SystemTime::now(),
        )
        .unwrap();
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = house
            .ota()
            .job_executions(&id("j1"), None, after.as_deref(), 2)
            .unwrap();
        assert!(page.executions.len() <= 2);
        seen.extend(page.executions.into_iter().map(|e| e.thing));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["lamp-0", "lamp-1", "lamp-2", "lamp-3", "lamp-4"]);
    house.accepted("lamp-3", "start-next", &json!({}));
    let page = house
        .ota()
        .job_executions(&id("j1"), Some(ExecutionStatus::InProgress), None, 2)
        .unwrap();
    assert_eq!(page.executions.len(), 1);
    assert_eq!(page.executions[0].thing, "lamp-3");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let house = House::with_lamps(1);
    let create = |body: Value| {
        let request: CreateJob = serde_json::from_value(body).unwrap();
        words(
            house
                .ota()
                .create_job(&id("j1"), &request, SystemTime::now()),
        )
    };
    let with = |field: &str, value: Value| {
        let mut body = json!({"targets": ["lamp-0"], "document": "{}"});
        body[field] = value;
        create(body)
    };
    assert!(with("colour", json!("red")).contains("colour: this release does not support it"));
    assert!(with("namespaceId", json!("a/b")).contains("namespaceId: 1 to 64 letters"));
    assert!(with("namespaceId", json!("")).contains("namespaceId: 1 to 64 letters"));
    assert!(with("tags", json!([{"Key": "aws:x", "Value": "y"}])).contains("tags: `aws:x`"));
    assert!(
        with("destinationPackageVersions", json!(["lamp/1.0"]))
            .contains("destinationPackageVersions: `lamp/1.0` is not")
    );
    assert!(with("documentSource", json!("s3://b/k")).contains("one of them only"));
    assert!(with("targetSelection", json!("SOMETIMES")).contains("SNAPSHOT or CONTINUOUS"));
    assert!(with("timeoutConfig", json!({"inProgressTimeoutInMinutes": 0})).contains("1 to 10080"));
    assert!(
        with(
            "timeoutConfig",
            json!({"inProgressTimeoutInMinutes": 10_081})
        )
        .contains("1 to 10080")
    );
    assert!(with("document", json!("{")).contains("document: it is not JSON"));
    assert!(with("document", Value::Null).contains("a job needs one"));
    assert!(
        with("document", json!(format!("\"{}\"", "x".repeat(32 * 1024)))).contains("at most 32768")
    );
    assert!(
        with(
            "document",
            json!(r#"{"operation":"muster.install-firmware"}"#)
        )
        .contains("rollout start")
    );
    assert!(
        with("description", json!("x".repeat(MAX_DESCRIPTION_CHARS + 1))).contains("at most 2028")
    );
    assert!(with("targets", json!([])).contains("targets: 1 to 100"));
    assert!(with("targets", json!(vec!["lamp-0"; MAX_TARGETS + 1])).contains("targets: 1 to 100"));
    assert!(with("targets", json!(["lamp-7"])).contains("lamp-7"));
    assert!(
        with(
            "targets",
            json!(["arn:aws:iot:r:111111111111:thing/lamp-0"])
        )
        .contains("another account")
    );
    assert!(with("targets", json!(["arn:aws:s3:::bucket"])).contains("not the ARN"));
    assert!(with("targets", json!(["thing/../x"])).contains("target `thing/../x`"));
    assert!(
        house.ota().jobs(None, 10).unwrap().is_empty(),
        "nothing was made"
    );
    let document = format!("\"{}\"", "x".repeat(32 * 1024 - 2));
    let at_bound: CreateJob =
        serde_json::from_value(json!({"targets": ["lamp-0"], "document": document})).unwrap();
    assert!(
        house
            .ota()
            .create_job(&id("j1"), &at_bound, SystemTime::now())
            .is_ok()
    );
}

#[test]
fn cancelling_ends_what_is_queued_and_by_force_the_rest() {
    let house = House::with_lamps(3);
    let now = SystemTime::now();
    house
        .ota()
        .create_job(&id("j1"), &request(&["thinggroup/lamps"], &json!({})), now)
        .unwrap();
    house.accepted("lamp-1", "start-next", &json!({}));
    for bad in ["", "why", "BAD CODE!", "É", &"A".repeat(129)] {
        let code = Some(bad.to_owned());
        let said = words(house.ota().cancel_job(&id("j1"), false, code, None, now));
        assert!(said.contains("reasonCode"), "{bad}: {said}");
    }
    let job = house
        .ota()
        .cancel_job(
            &id("j1"),
            false,
            Some("WHY".into()),
            Some("because".into()),
            now,
        )
        .unwrap();
    assert_eq!(
        (job.status, job.reason_code.as_deref()),
        (JobStatus::Canceled, Some("WHY"))
    );
    let counts = house.ota().job_counts(&id("j1")).unwrap();
    assert_eq!((counts.canceled, counts.in_progress), (2, 1));
    assert!(
        words(house.ota().cancel_job(&id("j1"), false, None, None, now)).contains("is CANCELED")
    );
    house
        .ota()
        .cancel_job(&id("j1"), true, None, None, now)
        .unwrap();
    assert_eq!(house.ota().job_counts(&id("j1")).unwrap().canceled, 3);
    assert!(
        house
            .ota()
            .job_execution(&id("j1"), "lamp-1")
            .unwrap()
            .force_canceled
    );
    let rejected = house.rejected("lamp-1", "j1/update", &json!({"status": "SUCCEEDED"}));
    assert_eq!(rejected["code"], "InvalidStateTransition");
    assert_eq!(rejected["executionState"]["status"], "CANCELED");
}

#[test]
fn a_cancelled_job_that_a_crash_interrupted_is_cancelled_at_the_next_start() {
    let mut house = House::with_lamps(2);
    let now = SystemTime::now();
    house
        .ota()
        .create_job(&id("j1"), &request(&["thinggroup/lamps"], &json!({})), now)
        .unwrap();
    // The first half of a cancel is durable, the second never came.
    house
        .ota()
        .change(now, |changes| {
            let mut job = changes.job(&id("j1"))?.unwrap();
            job.status = JobStatus::Canceled;
            changes.rows.put(
                records::key::cancelling(&job.id),
                &records::JobRef {
                    job: job.id.clone(),
                },
            )?;
            changes.rows.put(records::key::job(&job.id), &job)
        })
        .unwrap();
    house.restart();
    assert_eq!(house.ota().job_counts(&id("j1")).unwrap().canceled, 2);
}

#[test]
fn a_device_that_takes_too_long_times_out() {
    let house = House::with_lamps(1);
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    let mut request = request(&["lamp-0"], &json!({}));
    request.timeout_config = Some(TimeoutConfig {
        in_progress_timeout_in_minutes: Some(1),
    });
    house
        .ota()
        .create_job(&id("j1"), &request, long_ago)
        .unwrap();
    // It began an hour ago and was never heard of again.
    house
        .ota()
        .change(long_ago, |changes| {
            let execution = changes.execution(&id("j1"), "lamp-0")?.unwrap();
            changes.update(&execution, |execution| {
                execution.status = ExecutionStatus::InProgress
            })
        })
        .unwrap();
    house.ota().inner.inbox.wake();
    house.eventually(|ota| {
        let execution = ota.job_execution(&id("j1"), "lamp-0").unwrap();
        (execution.status == ExecutionStatus::TimedOut).then_some(())
    });
    assert_eq!(
        house.ota().job(&id("j1")).unwrap().status,
        JobStatus::Completed
    );
    let keys = transaction::Transaction::new(&house.ota().inner.table)
        .keys(records::key::DUE, 10)
        .unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[test]
fn a_thing_that_is_gone_has_nothing_to_do_any_more() {
    let house = House::with_lamps(1);
    let now = SystemTime::now();
    house
        .ota()
        .create_job(&id("j1"), &request(&["lamp-0"], &json!({})), now)
        .unwrap();
    house
        .ota()
        .create_job(&id("j2"), &request(&["lamp-0"], &json!({})), now)
        .unwrap();
    house.ota().forget_thing("lamp-0", now).unwrap();
    for job in ["j1", "j2"] {
        assert_eq!(
            house
                .ota()
                .job_execution(&id(job), "lamp-0")
                .unwrap()
                .status,
            ExecutionStatus::Removed
        );
        assert_eq!(
            house.ota().job(&id(job)).unwrap().status,
            JobStatus::Completed
        );
    }
}

/// A job of the five lamps that goes out at so many a minute.
fn slow(house: &House, rate: u32) {
    let mut body = json!({"targets": ["thinggroup/lamps"], "document": "{}"});
    body["jobExecutionsRolloutConfig"] = json!({"maximumPerMinute": rate});
    let request: CreateJob = serde_json::from_value(body).unwrap();
    house
        .ota()
        .create_job(&id("j1"), &request, SystemTime::now())
        .unwrap();
    house.eventually(|ota| (ota.job(&id("j1")).unwrap().notified == u64::from(rate)).then_some(()));
}

#[test]
fn a_job_that_goes_out_slowly_forgets_nobody_over_a_restart() {
    let mut house = House::with_lamps(5);
    slow(&house, 3);
    let told = house.ota().job_counts(&id("j1")).unwrap().queued;
    house.restart();
    // Had it been looked at anew with the minute forgotten, more would be told.
    house.ota().look_at_job(&id("j1"));
    house.accepted("lamp-0", "get", &json!({}));
    let job = house.ota().job(&id("j1")).unwrap();
    assert_eq!((told, job.open, job.waiting), (3, 3, 2));
    // A minute later the others are told too, and nobody twice.
    let later = SystemTime::now() + Duration::from_secs(61);
    let deadline = Instant::now() + PATIENCE;
    // The room's own thread may be looking at it just now.
    while house.ota().job(&id("j1")).unwrap().waiting > 0 {
        assert!(Instant::now() < deadline, "the rest is never told");
        house.ota().look_at_job(&id("j1"));
        house.ota().go_on_with_jobs(later).unwrap();
    }
    let job = house.ota().job(&id("j1")).unwrap();
    assert_eq!((job.open, job.waiting, job.notified), (5, 0, 5));
    let keys = Transaction::new(&house.ota().inner.table).keys("paced/", 9);
    assert_eq!(
        keys.unwrap(),
        Vec::<String>::new(),
        "nothing is left to look at"
    );
}

#[test]
fn a_job_for_more_things_than_fit_in_one_transaction_reaches_each_of_them_once() {
    for crash in [false, true] {
        for start_in in [None, Some(2)]
            .into_iter()
            .filter(|wait| wait.is_some() != crash)
        {
            let mut house = House::with_lamps(233);
            let mut asked = request(&["thinggroup/lamps", "lamp-1"], &json!({"do": "it"}));
            let now = SystemTime::now();
            if let Some(wait) = start_in {
                let start = jiff::Timestamp::try_from(now + Duration::from_secs(wait)).unwrap();
                let schedule = json!({"startTime": start.to_string()});
                asked.scheduling_config = serde_json::from_value(schedule).unwrap();
            }
            let job = house.ota().create_job(&id("j1"), &asked, now).unwrap();
            assert_eq!((job.open, job.gathers), (0, true));
            if crash {
                house.restart();
            }
            house
                .eventually(|ota| (ota.job_counts(&id("j1")).unwrap().queued == 233).then_some(()));
            for lamp in 0..233 {
                let thing = format!("lamp-{lamp}");
                let execution = house.ota().job_execution(&id("j1"), &thing).unwrap();
                assert_eq!(execution.number, 1);
                house.accepted(&thing, "start-next", &json!({}));
                let done = json!({"status": "SUCCEEDED"});
                house.accepted(&thing, "j1/update", &done);
            }
            let job = house.ota().job(&id("j1")).unwrap();
            assert_eq!((job.status, job.waiting), (JobStatus::Completed, 0));
        }
    }
}

#[test]
fn a_job_made_anew_under_the_same_id_tells_nobody_whom_the_old_one_was_for() {
    let house = House::with_lamps(2);
    let (job, now) = (id("j1"), SystemTime::now());
    let create = |target: &str| {
        let mut asked = request(&[target], &json!({}));
        asked.target_selection = Some("CONTINUOUS".into());
        house.ota().create_job(&job, &asked, now).unwrap()
    };
    let old = create("thinggroup/lamps");
    house.eventually(|ota| (ota.job_counts(&job).unwrap().queued == 2).then_some(()));
    house.ota().delete_job(&job, true, now).unwrap();
    // What a look at the old one had left for the next ones.
    let leave = || {
        let of = job_pace::Identity::of(&old);
        let things = vec!["lamp-1".to_owned()];
        let gathered = job_pace::Gathered { of, things };
        house.ota().gathering().insert(job.clone(), gathered);
    };
    leave();
    let looked = house.ota().look(&job, now).unwrap();
    assert_eq!(looked, job_pace::Look::Over);
    assert!(house.ota().gathering().is_empty(), "of a job that is gone");
    leave();
    create("lamp-0");
    house.eventually(|ota| ota.job_execution(&job, "lamp-0").ok());
    // A look that began before the old one was deleted, and ends after the new one was made.
    let seen = job_pace::Seen {
        of: job_pace::Identity::of(&old),
        ready: None,
        joined: vec!["lamp-1".to_owned()],
        left: Vec::new(),
        more: false,
        again: 5,
    };
    let look = |changes: &mut executions::Changes<'_>| job_pace::look(changes, &job, &seen);
    let looked = house.ota().change(now, look).unwrap();
    assert_eq!(looked, job_pace::Look::More);
    house.ota().look(&job, now).unwrap();
    assert_eq!(house.ota().job(&job).unwrap().waiting, 0);
    assert_eq!(house.ota().job_counts(&job).unwrap().queued, 1);
    assert!(house.ota().job_execution(&job, "lamp-1").is_err());
}

#[test]
fn a_thing_whose_record_was_deleted_is_not_told_again_by_a_job_that_follows_its_group() {
    let house = House::with_lamps(2);
    let mut asked = request(&["thinggroup/lamps"], &json!({"do": "it"}));
    asked.target_selection = Some("CONTINUOUS".into());
    let (job, now) = (id("j1"), SystemTime::now());
    house.ota().create_job(&job, &asked, now).unwrap();
    house.eventually(|ota| (ota.job_counts(&job).unwrap().queued == 2).then_some(()));
    house.accepted("lamp-0", "start-next", &json!({}));
    house.accepted("lamp-0", "j1/update", &json!({"status": "SUCCEEDED"}));
    house
        .ota()
        .delete_execution(&job, "lamp-0", 1, false, now)
        .unwrap();
    house
        .ota()
        .delete_execution(&job, "lamp-1", 1, true, now)
        .unwrap();
    // The next look, of which the newcomer is the sign.
    let (group, thing): (GroupName, ThingName) =
        ("lamps".parse().unwrap(), "lamp-9".parse().unwrap());
    let fleet = &house.room().fleet;
    fleet
        .create_thing(&thing, Default::default(), None, now)
        .unwrap();
    fleet.add_to_group(&group, &thing).unwrap();
    house.ota().look_at_job(&job);
    house.eventually(|ota| ota.job_execution(&job, "lamp-9").ok());
    for told in ["lamp-0", "lamp-1"] {
        assert!(
            house.ota().job_execution(&job, told).is_err(),
            "{told} is told again"
        );
    }
    // With the job goes what was remembered of it.
    house.ota().delete_job(&job, true, now).unwrap();
    let left = Transaction::new(&house.ota().inner.table)
        .keys("had/", 10)
        .unwrap();
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_thing_that_is_gone_does_not_hold_a_job_that_goes_out_slowly() {
    let house = House::with_lamps(5);
    slow(&house, 3);
    for lamp in 0..5 {
        house
            .ota()
            .forget_thing(&format!("lamp-{lamp}"), SystemTime::now())
            .unwrap();
    }
    let job = house.ota().job(&id("j1")).unwrap();
    assert_eq!((job.open, job.waiting), (0, 0));
    assert_eq!(house.ota().job_counts(&id("j1")).unwrap().removed, 3);
    house.ota().look_at_job(&id("j1"));
    house.eventually(|ota| {
        (ota.job(&id("j1")).unwrap().status == JobStatus::Completed).then_some(())
    });
}

#[test]
fn a_job_whose_deletion_a_crash_interrupted_is_deleted_at_the_next_start() {
    let mut house = House::with_lamps(5);
    slow(&house, 3);
    let mark = |changes: &mut executions::Changes<'_>| {
        let mark = records::JobRef { job: id("j1") };
        changes.rows.put(records::key::deleting(&id("j1")), &mark)
    };
    house.ota().change(SystemTime::now(), mark).unwrap();
    house.restart();
    let rows = Transaction::new(&house.ota().inner.table);
    for prefix in [
        "job/",
        "execution/",
        "pending/",
        "due/",
        "waiting/",
        "paced/",
        "deleting/",
    ] {
        assert_eq!(
            rows.keys(prefix, 9).unwrap(),
            Vec::<String>::new(),
            "{prefix}"
        );
    }
}
