use proptest::prelude::*;

use super::jobs::request;
use super::*;

fn house_with_jobs(jobs: &[&str]) -> House {
    let house = House::with_lamps(2);
    for job in jobs {
        // Queued one after the other, in this order.
        let document = json!({"operation": "blink", "job": job});
        house
            .ota()
            .create_job(
                &job.parse().unwrap(),
                &request(&["lamp-0"], &document),
                SystemTime::now(),
            )
            .unwrap();
    }
    house
}

#[test]
fn a_job_from_notify_next_to_succeeded() {
    let house = house_with_jobs(&["j1"]);
    let notify = house.notified("lamp-0", "notify");
    assert_eq!(notify["jobs"]["QUEUED"][0]["jobId"], "j1");
    assert_eq!(notify["jobs"]["QUEUED"][0]["versionNumber"], 1);
    assert!(notify["jobs"].get("IN_PROGRESS").is_none());
    let next = house.notified("lamp-0", "notify-next");
    assert_eq!(
        next["execution"]["jobDocument"],
        json!({"operation": "blink", "job": "j1"})
    );
    assert_eq!(next["execution"]["status"], "QUEUED");

    let started = house.accepted(
        "lamp-0",
        "start-next",
        &json!({"clientToken": "t1", "statusDetails": {"step": "downloading"}, "stepTimeoutInMinutes": 5}),
    );
    assert_eq!(started["clientToken"], "t1");
    let execution = &started["execution"];
    assert_eq!(
        (&execution["jobId"], &execution["status"]),
        (&json!("j1"), &json!("IN_PROGRESS"))
    );
    assert_eq!(
        (&execution["versionNumber"], &execution["executionNumber"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(execution["statusDetails"], json!({"step": "downloading"}));
    assert_eq!(execution["approximateSecondsBeforeTimedOut"], 300);
    assert!(execution["startedAt"].is_u64());

    let again = house.accepted("lamp-0", "start-next", &json!({}));
    assert_eq!(
        again["execution"]["versionNumber"], 2,
        "starting what is started changes nothing"
    );

    let updated = house.accepted(
        "lamp-0",
        "j1/update",
        &json!({
            "status": "SUCCEEDED", "statusDetails": {"step": "confirmed"}, "expectedVersion": 2,
            "includeJobExecutionState": true, "includeJobDocument": true, "clientToken": "t2"
        }),
    );
    assert_eq!(
        updated["executionState"],
        json!({"status": "SUCCEEDED", "statusDetails": {"step": "confirmed"}, "versionNumber": 3})
    );
    assert_eq!(updated["jobDocument"]["operation"], "blink");
    assert_eq!(updated["clientToken"], "t2");
    assert_eq!(house.notified("lamp-0", "notify")["jobs"], json!({}));
    assert!(
        house
            .notified("lamp-0", "notify-next")
            .get("execution")
            .is_none()
    );
    assert_eq!(
        house.ota().job(&"j1".parse().unwrap()).unwrap().status,
        JobStatus::Completed
    );
}

#[test]
fn another_try_of_the_job_at_the_head_is_told_as_the_next_one() {
    let house = House::with_lamps(1);
    let retries = json!({"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 2}]});
    let mut job = request(&["lamp-0"], &json!({"operation": "blink"}));
    job.job_executions_retry_config = serde_json::from_value(retries).unwrap();
    let id = "j1".parse().unwrap();
    house
        .ota()
        .create_job(&id, &job, SystemTime::now())
        .unwrap();
    for attempt in [1, 2, 3] {
        let next = house.notified("lamp-0", "notify-next");
        assert_eq!(next["execution"]["executionNumber"], attempt, "{next}");
        house.accepted("lamp-0", "start-next", &json!({}));
        house.accepted("lamp-0", "j1/update", &json!({"status": "FAILED"}));
    }
    let last = house.notified("lamp-0", "notify-next");
    assert_eq!(last.get("execution"), None, "{last}");
}

#[test]
fn ten_thousand_executions_updated_at_once_each_end_once() {
    const EACH: usize = 100;
    let house = House::with_lamps(EACH);
    let jobs: Vec<JobId> = (0..EACH)
        .map(|number| format!("j{number}").parse().unwrap())
        .collect();
    let group = "arn:aws:iot:local:000000000000:thinggroup/lamps";
    for job in &jobs {
        let request = request(&[group], &json!({"operation": "blink"}));
        house
            .ota()
            .create_job(job, &request, SystemTime::now())
            .unwrap();
    }
    // All of them wait before the first is answered, and each device has a hundred of them under way.
    let at_once = |payload: Value| {
        let (tell, answers) = channel();
        for job in &jobs {
            for lamp in 0..EACH {
                let tell = tell.clone();
                house.ota().ask(DeviceRequest {
                    thing: Some(format!("lamp-{lamp}")),
                    topic: format!("$aws/things/lamp-{lamp}/jobs/{job}/update"),
                    payload: payload.to_string().into_bytes(),
                    reply: Box::new(move |message| drop(tell.send(message))),
                });
            }
        }
        drop(tell);
        let mut counts = BTreeMap::new();
        for message in answers {
            let value: Value = serde_json::from_slice(&message.payload).unwrap();
            let code = value["code"].as_str().unwrap_or("accepted").to_owned();
            *counts.entry(code).or_insert(0) += 1;
        }
        counts
    };
    let counts = at_once(json!({"status": "SUCCEEDED", "expectedVersion": 1}));
    assert_eq!(
        counts,
        BTreeMap::from([("accepted".to_owned(), EACH * EACH)])
    );
    let counts = at_once(json!({"status": "FAILED"}));
    assert_eq!(
        counts,
        BTreeMap::from([("InvalidStateTransition".to_owned(), EACH * EACH)])
    );
    for job in &jobs {
        assert_eq!(house.ota().job(job).unwrap().status, JobStatus::Completed);
        let counts = house.ota().job_counts(job).unwrap();
        assert_eq!((counts.succeeded, counts.failed), (EACH as u64, 0));
    }
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let mut house = house_with_jobs(&["j1"]);
    house.accepted(
        "lamp-0",
        "start-next",
        &json!({"statusDetails": {"step": "trial"}}),
    );
    house.restart();
    let described = house.accepted("lamp-0", "$next/get", &json!({}));
    assert_eq!(described["execution"]["status"], "IN_PROGRESS");
    assert_eq!(described["execution"]["statusDetails"]["step"], "trial");
}

#[test]
fn those_in_progress_come_before_those_queued() {
    let house = house_with_jobs(&["j3", "j1", "j2"]);
    house.accepted("lamp-0", "j1/update", &json!({"status": "IN_PROGRESS"}));
    let list = house.accepted("lamp-0", "get", &json!({"clientToken": "t"}));
    let ids = |list: &Value| {
        list.as_array()
            .unwrap()
            .iter()
            .map(|j| j["jobId"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&list["inProgressJobs"]), ["j1"]);
    let mut queued = ids(&list["queuedJobs"]);
    queued.sort();
    assert_eq!(queued, ["j2", "j3"]);
    assert_eq!(list["clientToken"], "t");
    assert_eq!(
        house.accepted("lamp-0", "start-next", &json!({}))["execution"]["jobId"],
        "j1"
    );
    assert_eq!(
        house.accepted("lamp-0", "$next/get", &json!({"includeJobDocument": false}))["execution"]
            .get("jobDocument"),
        None
    );
}

#[test]
fn notify_tells_of_ten_of_each_and_no_more() {
    let names: Vec<String> = (0..12).map(|i| format!("j{i:02}")).collect();
    let house = house_with_jobs(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for _ in 0..11 {
        house.notified("lamp-0", "notify");
    }
    let last = house.notified("lamp-0", "notify");
    assert_eq!(
        last["jobs"]["QUEUED"].as_array().unwrap().len(),
        executions::MAX_NOTIFIED
    );
    assert_eq!(
        house.accepted("lamp-0", "get", &json!({}))["queuedJobs"]
            .as_array()
            .unwrap()
            .len(),
        12
    );
}

#[test]
fn without_a_job_there_is_no_execution() {
    let house = House::with_lamps(1);
    for rest in ["start-next", "$next/get"] {
        let (ending, answer) = house.ask("lamp-0", rest, &json!({"clientToken": "t"}));
        assert_eq!(ending, "accepted");
        assert!(answer.get("execution").is_none());
        assert!(answer["timestamp"].is_u64());
    }
    let (ending, _) = house.ask_raw(Some("lamp-0"), "$aws/things/lamp-0/jobs/get", b"");
    assert_eq!(ending, "accepted", "no payload counts as an empty object");
}

#[test]
fn each_refusal_has_its_code_and_words() {
    let house = house_with_jobs(&["j1"]);
    let code = |rest: &str, payload: Value| {
        let answer = house.rejected("lamp-0", rest, &payload);
        assert!(!answer["message"].as_str().unwrap().is_empty());
        answer["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code("nonsense", json!({})), "InvalidTopic");
    assert_eq!(
        code("$next/update", json!({"status": "FAILED"})),
        "InvalidTopic"
    );
    assert_eq!(code("a b/get", json!({})), "InvalidTopic");
    assert_eq!(code("j9/get", json!({})), "ResourceNotFound");
    assert_eq!(
        code("j1/get", json!({"executionNumber": 2})),
        "ResourceNotFound"
    );
    assert_eq!(code("j1/update", json!({})), "InvalidRequest");
    assert_eq!(
        code("j1/update", json!({"status": "DONE"})),
        "InvalidRequest"
    );
    assert_eq!(code("j1/update", json!([])), "InvalidRequest");
    assert_eq!(
        code(
            "j1/update",
            json!({"status": "IN_PROGRESS", "stepTimeoutInMinutes": 0})
        ),
        "InvalidRequest"
    );
    assert_eq!(
        code(
            "j1/update",
            json!({"status": "IN_PROGRESS", "stepTimeoutInMinutes": 10_081})
        ),
        "InvalidRequest"
    );
    assert_eq!(
        code("get", json!({"clientToken": "x".repeat(65)})),
        "InvalidRequest"
    );
    let many: serde_json::Map<String, Value> =
        (0..11).map(|i| (format!("k{i}"), json!("v"))).collect();
    assert_eq!(
        code("start-next", json!({"statusDetails": many})),
        "InvalidRequest"
    );
    for status in ["QUEUED", "CANCELED", "TIMED_OUT", "REMOVED"] {
        assert_eq!(
            code("j1/update", json!({"status": status})),
            "InvalidStateTransition"
        );
    }
    let mismatch = house.rejected(
        "lamp-0",
        "j1/update",
        &json!({"status": "IN_PROGRESS", "expectedVersion": 7, "clientToken": "t"}),
    );
    assert_eq!(mismatch["code"], "VersionMismatch");
    assert_eq!(
        mismatch["executionState"],
        json!({"status": "QUEUED", "versionNumber": 1})
    );
    assert_eq!(mismatch["clientToken"], "t");
    house.accepted("lamp-0", "j1/update", &json!({"status": "REJECTED"}));
    assert_eq!(code("j1/get", json!({})), "TerminalStateReached");
    assert_eq!(
        code("j1/update", json!({"status": "IN_PROGRESS"})),
        "InvalidStateTransition"
    );
    let (ending, answer) =
        house.ask_raw(Some("lamp-0"), "$aws/things/lamp-0/jobs/get", b"{not json");
    assert_eq!(
        (ending.as_str(), &answer["code"]),
        ("rejected", &json!("InvalidJson"))
    );
    let (_, answer) = house.ask_raw(
        Some("lamp-0"),
        "$aws/things/lamp-0/jobs/get",
        &vec![b' '; crate::server::device::MAX_REQUEST_BYTES + 1],
    );
    assert_eq!(answer["code"], "InvalidRequest");
}

#[test]
fn a_devices_jobs_are_its_own_whatever_its_policy_says() {
    let house = house_with_jobs(&["j1"]);
    for thing in [Some("lamp-1"), None] {
        for rest in ["get", "start-next", "j1/get", "$next/get", "j1/update"] {
            let topic = format!("$aws/things/lamp-0/jobs/{rest}");
            let (ending, answer) = house.ask_raw(thing, &topic, br#"{"status":"SUCCEEDED"}"#);
            assert_eq!(
                (ending.as_str(), &answer["code"]),
                ("rejected", &json!("ResourceNotFound"))
            );
        }
    }
    let execution = house
        .ota()
        .job_execution(&"j1".parse().unwrap(), "lamp-0")
        .unwrap();
    assert_eq!(
        (
            execution.status.to_string().as_str(),
            execution.version_number
        ),
        ("QUEUED", 1)
    );
}

#[test]
fn a_step_timer_can_be_cleared() {
    let house = house_with_jobs(&["j1"]);
    house.accepted("lamp-0", "start-next", &json!({"stepTimeoutInMinutes": 1}));
    house.accepted(
        "lamp-0",
        "j1/update",
        &json!({"status": "IN_PROGRESS", "stepTimeoutInMinutes": -1}),
    );
    let described = house.accepted("lamp-0", "j1/get", &json!({}));
    assert!(
        described["execution"]
            .get("approximateSecondsBeforeTimedOut")
            .is_none()
    );
}

#[test]
fn many_devices_at_once_are_all_answered() {
    let house = House::with_lamps(200);
    house
        .ota()
        .create_job(
            &"j1".parse().unwrap(),
            &request(&["thinggroup/lamps"], &json!({})),
            SystemTime::now(),
        )
        .unwrap();
    let (tell, answers) = channel();
    for index in 0..200 {
        let tell = tell.clone();
        house.ota().ask(DeviceRequest {
            thing: Some(format!("lamp-{index}")),
            topic: format!("$aws/things/lamp-{index}/jobs/j1/update"),
            payload: br#"{"status":"SUCCEEDED"}"#.to_vec(),
            reply: Box::new(move |message| drop(tell.send(message))),
        });
    }
    for _ in 0..200 {
        assert!(
            answers
                .recv_timeout(PATIENCE)
                .unwrap()
                .topic
                .ends_with("/accepted")
        );
    }
    let job = house.ota().job(&"j1".parse().unwrap()).unwrap();
    assert_eq!((job.status, job.open), (JobStatus::Completed, 0));
    assert_eq!(house.ota().job_counts(&job.id).unwrap().succeeded, 200);
}

/// Asks for the jobs of a thing so many times; the answers come.
fn ask_often(house: &House, thing: &str, count: usize) -> Receiver<Message> {
    let (tell, answers) = channel();
    for _ in 0..count {
        let tell = tell.clone();
        house.ota().ask(DeviceRequest {
            thing: Some(thing.into()),
            topic: format!("$aws/things/{thing}/jobs/get"),
            payload: Vec::new(),
            reply: Box::new(move |message| drop(tell.send(message))),
        });
    }
    answers
}

/// How many were accepted; the others were throttled.
fn accepted(answers: &Receiver<Message>, count: usize) -> usize {
    let is_accepted = |message: &Message| {
        let value: Value = serde_json::from_slice(&message.payload).unwrap();
        assert!(
            value
                .get("code")
                .is_none_or(|code| code == "RequestThrottled")
        );
        message.topic.ends_with("/accepted")
    };
    (0..count)
        .filter(|_| is_accepted(&answers.recv_timeout(PATIENCE).unwrap()))
        .count()
}

#[test]
fn one_thing_has_its_share_of_what_waits_and_the_others_are_answered() {
    const ASKED: usize = MAX_QUEUED_REQUESTS + 1000;
    let house = House::with_lamps(2);
    // While nothing can be changed, the thread holds one round of requests and the rest wait.
    let turn = house.ota().turn();
    let loud = ask_often(&house, "lamp-0", ASKED);
    let quiet = ask_often(&house, "lamp-1", 5);
    drop(turn);
    assert_eq!(accepted(&quiet, 5), 5);
    let share = worker::MAX_WAITING_REQUESTS_OF_THING;
    let answered = accepted(&loud, ASKED);
    assert!(
        (share..=share + worker::MAX_BATCH_REQUESTS + 1).contains(&answered),
        "{answered}"
    );
}

#[test]
fn more_requests_than_wait_are_turned_away_and_the_others_answered() {
    let share = worker::MAX_WAITING_REQUESTS_OF_THING;
    // As many as wait, as many as one round has, and some.
    let lamps = (MAX_QUEUED_REQUESTS + worker::MAX_BATCH_REQUESTS).div_ceil(share) + 2;
    let house = House::with_lamps(lamps);
    let turn = house.ota().turn();
    let asked: Vec<_> = (0..lamps)
        .map(|lamp| ask_often(&house, &format!("lamp-{lamp}"), share))
        .collect();
    drop(turn);
    let answered: usize = asked.iter().map(|answers| accepted(answers, share)).sum();
    assert!(answered >= MAX_QUEUED_REQUESTS, "{answered}");
    assert!(answered < lamps * share, "{answered}");
}

#[test]
fn what_is_too_long_to_be_read_does_not_wait() {
    let house = House::with_lamps(1);
    let (tell, answers) = channel();
    let turn = house.ota().turn();
    house.ota().ask(DeviceRequest {
        thing: Some("lamp-0".into()),
        topic: "$aws/things/lamp-0/jobs/get".into(),
        payload: vec![b' '; crate::server::device::MAX_REQUEST_BYTES + 1],
        reply: Box::new(move |message| drop(tell.send(message))),
    });
    let answer = answers.recv_timeout(PATIENCE).unwrap();
    drop(turn);
    let value: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(value["code"], "InvalidRequest");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_payload_is_answered(
        rest in prop_oneof![Just("get"), Just("start-next"), Just("j1/get"), Just("j1/update"), Just("$next/get"), Just("x/y/z")],
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "\\{\"(status|clientToken|expectedVersion|statusDetails)\":(\"[A-Z_]{0,12}\"|-?[0-9]{1,20}|null|\\{\"a\":1\\}|\\[\\])\\}".prop_map(String::into_bytes),
        ],
    ) {
        // One house for all cases would be quicker; one each shows that no case depends on another.
        let house = house_with_jobs(&["j1"]);
        let topic = format!("$aws/things/lamp-0/jobs/{rest}");
        let (ending, _) = house.ask_raw(Some("lamp-0"), &topic, &payload);
        prop_assert!(ending == "accepted" || ending == "rejected");
    }
}
