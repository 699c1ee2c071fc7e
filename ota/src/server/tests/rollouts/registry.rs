//! What becomes of things meanwhile, and what is known of what they run.

use super::*;

#[test]
fn a_new_thing_of_an_old_name_has_nothing_of_the_old_one() {
    let yard = Yard::new(1);
    let ota = yard.house.ota();
    let may = || {
        ota.may_fetch("lamp-0", &lamp(), &version("1.0"), SystemTime::now())
            .unwrap()
    };
    assert!(may());
    ota.forget_thing("lamp-0", SystemTime::now()).unwrap();
    assert!(!may());
    let id = yard.start(&json!({}));
    assert_eq!(yard.view(&id).executions[0].version, None);
}

#[test]
fn a_thing_that_left_the_registry_does_not_hold_its_wave() {
    let yard = Yard::new(2);
    let id = yard.start(&json!({"waves": ["50%", "100%"]}));
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.waves[0].queued == 1).then_some(view)
    });
    let gone: ThingName = view.executions[1].thing.parse().unwrap();
    yard.house.room().fleet.delete_thing(&gone, None).unwrap();
    yard.work(&view.executions[0].thing, true);
    let view = yard.until(&id, RolloutState::Succeeded);
    assert_eq!(view.executions[1].status, "REMOVED");
}

#[test]
fn policies_know_what_a_device_runs_before_it_is_answered() {
    let mut yard = Yard::new(2);
    let firmware = |yard: &Yard, thing: &str| {
        let health = yard.house.room().fleet.health(&thing.parse().unwrap());
        health.unwrap().firmware
    };
    let lamp = |version: &str| Some(("lamp".to_owned(), version.to_owned()));
    assert_eq!(firmware(&yard, "lamp-0"), lamp("1.0"));
    let id = yard.start(&json!({}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 2).then_some(()));
    yard.work("lamp-0", true).unwrap();
    assert_eq!(firmware(&yard, "lamp-0"), lamp("2.0"));
    assert_eq!(firmware(&yard, "lamp-1"), lamp("1.0"));
    // A crash came between the report and the registry.
    let told = super::health::ToTell {
        name: "lamp".parse().unwrap(),
        version: version("2.0"),
    };
    let write = |changes: &mut executions::Changes<'_>| {
        changes.rows.put(records::key::to_tell("lamp-1"), &told)
    };
    yard.house.ota().change(SystemTime::now(), write).unwrap();
    yard.house.restart();
    assert_eq!(firmware(&yard, "lamp-1"), lamp("2.0"));
    // What was told is forgotten with the next change; nothing piles up.
    yard.work("lamp-1", true).unwrap();
    yard.house.accepted("lamp-1", "start-next", &json!({}));
    let nothing = |_: &mut executions::Changes<'_>| Ok(());
    yard.house.ota().change(SystemTime::now(), nothing).unwrap();
    let table = yard.house.room().store.table("ota").unwrap();
    assert!(
        table
            .scan(records::key::TO_TELL, None, 9)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn what_runs_where_is_known_now_and_then_and_drift_is_shown() {
    let yard = Yard::new(3);
    let ota = yard.house.ota();
    let id = yard.start(&json!({"waves": ["1", "100%"]}));
    yard.run(&id, |_| true);
    let says = json!({"statusDetails": {"firmwareName": "lamp", "firmwareVersion": "0.9"}});
    yard.house.accepted("lamp-1", "start-next", &says);
    let all = RunningFilter::default();
    let of = |filter: &RunningFilter| -> Vec<String> {
        let (found, next) = ota.running(filter, None, 10).unwrap();
        assert_eq!(next, None);
        found.into_iter().map(|one| one.thing).collect()
    };
    assert_eq!(of(&all), ["lamp-0", "lamp-1", "lamp-2"]);
    let drifted = RunningFilter {
        drift: true,
        ..all.clone()
    };
    assert_eq!(of(&drifted), ["lamp-1"]);
    let new = RunningFilter {
        version: Some(version("2.0")),
        group: Some("lamps".into()),
        ..all.clone()
    };
    assert_eq!(of(&new), ["lamp-0", "lamp-2"]);
    let (page, next) = ota.running(&all, None, 2).unwrap();
    assert_eq!(page.len(), 2);
    let (rest, end) = ota.running(&all, next.as_deref(), 2).unwrap();
    assert_eq!(
        (rest[0].thing.as_str(), rest.len(), end),
        ("lamp-2", 1, None)
    );
    let lamp = page[1].clone();
    assert_eq!(
        (lamp.version, lamp.reported, lamp.rollout),
        (Some(version("2.0")), Some(version("0.9")), Some(id.clone()))
    );
    let ran: Vec<&str> = lamp
        .history
        .iter()
        .map(|ran| ran.version.as_str())
        .collect();
    assert_eq!(ran, ["1.0", "2.0", "0.9"]);
    let census = ota.census(&all, &[0, u64::MAX]).unwrap();
    assert_eq!(census[0].versions, []);
    let counts: Vec<(&str, u64, u64)> = census[1]
        .versions
        .iter()
        .map(|share| (share.version.as_str(), share.count, share.drifted))
        .collect();
    assert_eq!(counts, [("0.9", 1, 1), ("2.0", 2, 0)]);
    let view = yard.view(&id);
    let shown = view
        .executions
        .iter()
        .find(|e| e.thing == "lamp-1")
        .unwrap();
    assert_eq!(
        (&shown.version, &shown.reported),
        (&Some(version("2.0")), &Some(version("0.9")))
    );
    // A device does not fill the disk with firmwares that it makes up.
    for number in 0..40 {
        let says = json!({"statusDetails": {"firmwareName": format!("f-{number}"), "firmwareVersion": "1"}});
        yard.house.accepted("lamp-2", "start-next", &says);
    }
    let one = RunningFilter {
        thing: Some("lamp-2".into()),
        ..all
    };
    assert_eq!(ota.running(&one, None, 100).unwrap().0.len(), 16);
    let strange = json!({"statusDetails": {"firmwareName": "../x", "firmwareVersion": "a/b"}});
    yard.house.accepted("lamp-0", "start-next", &strange);
}

#[test]
fn what_a_device_refused_of_another_server_is_kept_and_shown_once() {
    let yard = Yard::new(2);
    yard.start(&json!({}));
    let own = yard.house.eventually(|_| {
        let started = yard.house.accepted("lamp-1", "start-next", &json!({}));
        Some(started.get("execution")?["jobId"].as_str()?.to_owned())
    });
    let asks = |thing: &str, refused: &str| {
        let says = json!({"statusDetails": {"refused": refused}});
        yard.house.accepted(thing, "start-next", &says);
    };
    let refused = |thing: &str| {
        let ota = yard.house.ota();
        let (found, _) = ota.running(&RunningFilter::default(), None, 10).unwrap();
        let of_it = found.into_iter().find(|one| one.thing == thing).unwrap();
        let said = of_it.refused.into_iter();
        said.map(|one| (one.job.to_string(), one.reason))
            .collect::<Vec<_>>()
    };
    let said = |jobs: &[&str]| {
        let said = jobs.iter();
        let said = said.map(|job| json!({"job": job, "execution": 1, "reason": "not trusted"}));
        serde_json::Value::from(said.collect::<Vec<_>>()).to_string()
    };
    let is = |jobs: &[&str]| -> Vec<(String, String)> {
        let jobs = jobs.iter();
        jobs.map(|job| ((*job).to_owned(), "not trusted".to_owned()))
            .collect()
    };
    // What was ordered here has its own report, and what cannot be read says nothing.
    asks("lamp-1", &said(&[&own]));
    asks("lamp-1", "[{");
    asks("lamp-1", r#"[{"job":"a/b","execution":1}]"#);
    assert_eq!(refused("lamp-1"), []);
    for _ in 0..2 {
        asks("lamp-1", &said(&["theirs-2", "theirs-1", &own]));
    }
    assert_eq!(refused("lamp-1"), is(&["theirs-1", "theirs-2"]));
    assert_eq!(refused("lamp-0"), []);
    // However many there are, the newest are kept.
    for number in 0..30 {
        asks("lamp-1", &said(&[&format!("more-{number}")]));
    }
    let kept = refused("lamp-1");
    assert_eq!((kept.len(), &*kept[9].0), (10, "more-29"));
    let forgotten = yard.house.ota().forget_thing("lamp-1", SystemTime::now());
    forgotten.unwrap();
    let table = yard.house.room().store.table("ota").unwrap();
    assert!(table.scan("refused/", None, 9).unwrap().is_empty());
}

#[test]
fn who_is_in_a_waves_group_and_not_in_the_rollouts_is_counted() {
    let yard = Yard::new(2);
    let fleet = &yard.house.room().fleet;
    let now = SystemTime::now();
    let group = "canaries".parse().unwrap();
    let create = fleet.create_group(&group, None, &Default::default(), "g2".into(), now);
    create.unwrap();
    fleet
        .add_to_group(&group, &"lamp-0".parse().unwrap())
        .unwrap();
    let waves = json!({"waves": ["group:canaries", "100%"]});
    assert_eq!(yard.warns(&waves, now).unwrap(), [""; 0]);
    for thing in ["x-1", "x-2"] {
        let thing = thing.parse().unwrap();
        fleet
            .create_thing(&thing, Default::default(), None, now)
            .unwrap();
        fleet.add_to_group(&group, &thing).unwrap();
    }
    let outside = "2 of the 3 devices of group canaries are not in group lamps and get nothing";
    let warnings = yard.warns(&waves, now).unwrap();
    assert!(
        matches!(&*warnings, [said] if said.contains(outside)),
        "{warnings:?}"
    );
}
