//! Firmware comes in by upload and goes out to the devices whose job it is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use control::Role;
use data_encoding::HEXLOWER;
use ota::{ImageFacts, Manifest, ReleaseKey, RootSpec};
use serde_json::{Value, json};

use crate::house::{House, Reply, Who, signed_headers};

const NONE: Value = Value::Null;
const TRUST: &str = "/muster/v1/firmware/trust";
const PACKAGES: &str = "/muster/v1/firmware/packages";
const IMAGE: &str = "/firmware/lamp/2.0/image";
/// Longest wait for the rollout's own thread; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn in_days(days: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(days * 86_400)
}

fn root(key: &ReleaseKey) -> Value {
    let spec = RootSpec {
        release_keys: vec![key.public()],
        threshold: 1,
        online: None,
        expires: in_days(365),
        previous: None,
    };
    let keys = std::slice::from_ref(key);
    serde_json::from_slice(&spec.sign(keys).unwrap().bytes).unwrap()
}

fn package(key: &ReleaseKey, image: &[u8]) -> Vec<u8> {
    let facts = ImageFacts::measure(image).unwrap();
    let manifest = Manifest {
        name: "lamp".parse().unwrap(),
        version: "2.0".parse().unwrap(),
        hardware: BTreeSet::from(["board-1".parse().unwrap()]),
        requires: None,
        components: Default::default(),
        size: facts.size,
        sha256: facts.sha256,
        chunks: facts.chunks,
        counter: 0,
        expires: in_days(90),
        notes: None,
        deltas: Vec::new(),
    };
    let signed = manifest.sign(std::slice::from_ref(key)).unwrap();
    let mut package = Vec::new();
    ota::package::write(&mut package, &signed, image, facts.size).unwrap();
    package
}

/// Uploads `sent`, signed as if it were `meant`; without a hash where `meant` is `None`.
fn upload(house: &House, who: &Who, meant: Option<&[u8]>, sent: &[u8]) -> Reply {
    let mut head = vec![("host".to_owned(), "localhost".to_owned())];
    if let Some(meant) = meant {
        let hash = HEXLOWER.encode(digest(&SHA256, meant).as_ref());
        head.push(("x-amz-content-sha256".into(), hash));
    }
    if let Who::Key(key) = who {
        let body = meant.unwrap_or(sent);
        let signed = signed_headers(key, "POST", PACKAGES, &head, body);
        head.extend(signed);
    }
    house.send(who, "POST", PACKAGES, &head, sent)
}

#[test]
fn the_first_trust_root_takes_an_admin() {
    let house = House::new();
    let key = ReleaseKey::generate().unwrap();
    assert_eq!(house.refused("GET", TRUST, &NONE).0, 404);
    let engineer = house.operator("eve", Role::ReleaseEngineer);
    let reply = house.call(&engineer, "PUT", TRUST, &root(&key));
    assert_eq!(
        (reply.status, reply.error.as_str()),
        (403, "AccessDeniedException")
    );
    let told = house.ask("PUT", TRUST, &root(&key));
    assert_eq!(told["version"], 1);
    assert!(house.ask("GET", TRUST, &NONE)["signed"].is_object());
    // Another first root is none that the first one signed.
    let other = root(&ReleaseKey::generate().unwrap());
    assert_eq!(house.refused("PUT", TRUST, &other).0, 400);
    let device = json!({"thingName": "lamp-1"});
    let made = house.ask("POST", "/muster/v1/devices", &device);
    assert_eq!(made["firmwareRoot"], root_kept(&house));
}

fn root_kept(house: &House) -> Value {
    serde_json::from_str(&house.ota.root(1).unwrap().unwrap()).unwrap()
}

#[test]
fn an_upload_is_kept_only_as_it_was_signed() {
    let house = House::new();
    let key = ReleaseKey::generate().unwrap();
    house.ask("PUT", TRUST, &root(&key));
    let image = b"a lamp's image".repeat(10_000);
    let good = package(&key, &image);
    let (admin, none) = (house.admin(), |house: &House| {
        house.ask("GET", PACKAGES, &NONE)["packages"] == json!([])
    });

    let viewer = house.operator("viewer", Role::Operator);
    assert_eq!(upload(&house, &viewer, Some(&good), &good).status, 403);
    assert_eq!(upload(&house, &admin, None, &good).status, 403);
    // The package is whole and signed by the release key, but it is not the one of the request.
    let mut meant = good.clone();
    meant.push(0);
    let reply = upload(&house, &admin, Some(&meant), &good);
    assert_eq!(reply.status, 400, "{reply:?}");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert_eq!(upload(&house, &admin, Some(&flipped), &flipped).status, 400);
    let stranger = package(&ReleaseKey::generate().unwrap(), &image);
    let reply = upload(&house, &admin, Some(&stranger), &stranger);
    assert!(
        reply.body["message"]
            .as_str()
            .unwrap()
            .contains("not trusted")
    );
    assert!(none(&house));

    let reply = upload(&house, &admin, Some(&good), &good);
    assert_eq!((reply.status, &reply.body["name"]), (200, &json!("lamp")));
    let by_certificate = upload(&house, &house.admin_certificate(), None, &good);
    assert_eq!(by_certificate.status, 200, "{by_certificate:?}");
    assert!(!none(&house));
    let shown = house.ask("GET", &format!("{PACKAGES}/lamp/2.0"), &NONE);
    assert_eq!(shown["size"], image.len());
    assert_eq!(
        house
            .refused("GET", &format!("{PACKAGES}/lamp/3.0"), &NONE)
            .0,
        404
    );
}

#[test]
fn a_device_fetches_what_its_job_installs_while_it_is_active() {
    let house = House::new();
    let key = ReleaseKey::generate().unwrap();
    house.ask("PUT", TRUST, &root(&key));
    let image: Vec<u8> = (0..300_000_u32)
        .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
        .collect();
    let good = package(&key, &image);
    assert_eq!(
        upload(&house, &house.admin(), Some(&good), &good).status,
        200
    );
    house.ask("POST", "/thing-groups/lamps", &NONE);
    let device = |name: &str, group: Option<&str>| {
        let wish = json!({"thingName": name, "groupName": group});
        let made = house.ask("POST", "/muster/v1/devices", &wish);
        Who::Certificate {
            chain_pem: made["certificatePem"].as_str().unwrap().into(),
            key_pem: made["privateKey"].as_str().unwrap().into(),
        }
    };
    let (lamp, other) = (device("lamp-1", Some("lamps")), device("lamp-2", None));
    let get = |who: &Who, target: &str, headers: &[(&str, &str)]| {
        house.call_with(who, "GET", target, headers, &NONE)
    };
    assert_eq!(get(&lamp, IMAGE, &[]).status, 403, "it has no job yet");

    let wish = json!({"name": "lamp", "version": "2.0", "group": "lamps"});
    let started = house.ask("POST", "/muster/v1/rollouts", &wish);
    let path = format!("/muster/v1/rollouts/{}", started["id"].as_str().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while house.ask("GET", &path, &NONE)["executions"][0]["status"] != "QUEUED" {
        assert!(Instant::now() < deadline, "the rollout does not begin");
        std::thread::yield_now();
    }
    let listed = house.ask("GET", "/muster/v1/rollouts", &NONE);
    assert_eq!(listed["rollouts"][0]["id"], started["id"]);

    let whole = get(&lamp, IMAGE, &[]);
    assert_eq!((whole.status, whole.bytes.len()), (200, image.len()));
    assert_eq!(whole.bytes, image);
    let tag = whole
        .head
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .unwrap();
    let part = get(
        &lamp,
        IMAGE,
        &[("range", "bytes=65530-131080"), ("if-range", tag)],
    );
    assert_eq!(part.status, 206);
    assert_eq!(part.bytes, image[65_530..=131_080]);
    assert!(
        part.head
            .contains("content-range: bytes 65530-131080/300000")
    );
    let another = get(
        &lamp,
        IMAGE,
        &[("range", "bytes=1-"), ("if-range", "\"x\"")],
    );
    assert_eq!((another.status, another.bytes.len()), (200, image.len()));
    let beyond = get(&lamp, IMAGE, &[("range", "bytes=300000-")]);
    assert_eq!((beyond.status, beyond.bytes.len()), (416, 0));
    assert!(beyond.head.contains("content-range: bytes */300000"));
    assert_eq!(house.call(&lamp, "HEAD", IMAGE, &NONE).status, 200);
    let manifest = get(&lamp, "/firmware/lamp/2.0/manifest.json", &[]);
    assert_eq!(manifest.status, 200);
    assert_eq!(
        get(&other, "/firmware/root/1.json", &[]).body,
        root_kept(&house)
    );
    assert_eq!(get(&other, "/firmware/root/2.json", &[]).status, 404);

    for (who, target) in [
        (&other, IMAGE),
        (&lamp, "/firmware/lamp/3.0/image"),
        (&lamp, "/firmware/..%2Flamp/2.0/image"),
        (&Who::Nobody, IMAGE),
        (&Who::Nobody, "/firmware/root/1.json"),
        (&house.admin_certificate(), IMAGE),
    ] {
        let reply = get(who, target, &[]);
        assert!(matches!(reply.status, 400 | 403), "{target}: {reply:?}");
    }
    house.ask("POST", "/muster/v1/devices/lamp-1/revoke", &NONE);
    assert_eq!(get(&lamp, IMAGE, &[]).status, 403);
    let stopped = house.ask("POST", &format!("{path}/abort"), &NONE);
    assert_eq!(stopped["state"], "aborted");
    assert_eq!(
        house.refused("POST", &format!("{path}/resume"), &NONE).0,
        409
    );
    assert_eq!(
        house.refused("POST", &format!("{path}/dance"), &NONE).0,
        404
    );
}

#[test]
fn the_status_is_told_to_those_who_may_look() {
    let house = House::new();
    let told = house.ask("GET", "/muster/v1/status", &NONE);
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(told["broker"]["connected"], 0);
}
