//! Maintenance windows of jobs, on the clocks of the things they are for.

use jiff::Timestamp;

use super::*;
use crate::JobId;
use crate::server::job_pace::Look;

fn at(text: &str) -> SystemTime {
    let time: Timestamp = text.parse().unwrap();
    time.into()
}

fn in_zone(house: &House, thing: &str, zone: &str) {
    let thing: ThingName = thing.parse().unwrap();
    let registry = &house.room().fleet;
    let change = fleet::ThingChange {
        attributes: Some([("timezone".to_owned(), zone.to_owned())].into()),
        merge: true,
        type_name: None,
    };
    registry.update_thing(&thing, &change, None).unwrap();
}

/// A job for all lamps with a window that opens in 2050 alone, so that only a test's own looks find it open.
fn job(house: &House, id: &str, config: Value) -> JobId {
    let id: JobId = id.parse().unwrap();
    let mut request = json!({
        "targets": ["thinggroup/lamps"], "document": "{}",
        "schedulingConfig": {"maintenanceWindows": [{"startTime": "cron(0 2 ? * * 2050)", "durationInMinutes": 60}]},
    });
    let fields = request.as_object_mut().unwrap();
    fields.extend(config.as_object().unwrap().clone());
    let request = serde_json::from_value(request).unwrap();
    house
        .ota()
        .create_job(&id, &request, SystemTime::now())
        .unwrap();
    // The room's thread has looked at it by today's clock, and does not again for a while.
    house.eventually(|ota| {
        let due = ota.inner.jobs_due.lock().unwrap();
        due.get(&id).is_some_and(|due| *due > 0).then_some(())
    });
    id
}

/// Who was told once the job was looked at at that time, as often as it wants to be.
fn told(house: &House, id: &JobId, time: &str) -> Vec<String> {
    while house.ota().look(id, at(time)).unwrap() == Look::More {}
    let page = house.ota().job_executions(id, None, None, 1000).unwrap();
    page.executions.into_iter().map(|one| one.thing).collect()
}

#[test]
fn each_thing_is_told_in_its_window_by_its_own_clock() {
    let house = House::with_lamps(4);
    in_zone(&house, "lamp-1", "Asia/Tokyo");
    in_zone(&house, "lamp-2", "America/New_York");
    in_zone(&house, "lamp-3", "Mars/Olympus");
    let id = job(&house, "night", json!({}));
    let told = |time| told(&house, &id, time);
    assert!(told("2050-07-01T01:59:00Z").is_empty());
    assert_eq!(told("2050-07-01T02:00:00Z"), ["lamp-0"]);
    // Summer there: four hours behind.
    assert_eq!(told("2050-07-01T05:59:00Z"), ["lamp-0"]);
    assert_eq!(told("2050-07-01T06:30:00Z"), ["lamp-0", "lamp-2"]);
    assert_eq!(told("2050-07-01T17:30:00Z"), ["lamp-0", "lamp-1", "lamp-2"]);
    // One whose zone nobody knows waits until it is mended.
    assert_eq!(told("2050-07-02T02:30:00Z").len(), 3);
    in_zone(&house, "lamp-3", "Asia/Tokyo");
    assert_eq!(told("2050-07-02T02:32:00Z").len(), 3, "closed there");
    assert_eq!(told("2050-07-02T17:00:00Z").len(), 4);
}

#[test]
fn the_rate_is_for_all_zones_and_closed_ones_hold_nobody_up() {
    let house = House::with_lamps(130);
    // More than are kept at once, before the others in the order of names.
    for index in 0..60 {
        in_zone(&house, &format!("lamp-{index}"), "Asia/Tokyo");
    }
    let rate = json!({"jobExecutionsRolloutConfig": {"maximumPerMinute": 60}});
    let id = job(&house, "night", rate);
    let told = |time| told(&house, &id, time).len();
    assert_eq!(told("2050-07-01T02:00:00Z"), 60);
    assert_eq!(told("2050-07-01T02:00:59Z"), 60);
    assert_eq!(told("2050-07-01T02:01:00Z"), 70);
    assert_eq!(told("2050-07-01T02:59:00Z"), 70);
    assert_eq!(told("2050-07-01T17:00:00Z"), 130);
}

#[test]
fn who_joins_a_continuous_job_in_its_window_is_told_at_once() {
    let house = House::with_lamps(1);
    let id = job(&house, "night", json!({"targetSelection": "CONTINUOUS"}));
    let time = "2050-07-01T02:10:00Z";
    assert_eq!(told(&house, &id, time), ["lamp-0"]);
    let fleet = &house.room().fleet;
    let thing: ThingName = "lamp-new".parse().unwrap();
    let now = SystemTime::now();
    fleet
        .create_thing(&thing, Default::default(), None, now)
        .unwrap();
    fleet
        .add_to_group(&"lamps".parse().unwrap(), &thing)
        .unwrap();
    assert_eq!(told(&house, &id, time), ["lamp-0", "lamp-new"]);
}
