use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn words<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

/// Whether nothing of a refused package was kept.
fn nothing_kept(house: &House) -> bool {
    let blobs = house.directory.path().join("store/blobs");
    let files = std::fs::read_dir(blobs)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_file())
        .count();
    files == 0 && house.ota().firmwares(None, 10).unwrap().is_empty()
}

#[test]
fn the_online_key_is_made_once_and_private() {
    let mut house = House::new();
    let dir = house.directory.path().join("firmware");
    let public = std::fs::read_to_string(dir.join("online.pub")).unwrap();
    assert!(crate::PublicKey::from_pem(&public).is_ok());
    let mode = std::fs::metadata(dir.join("online.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    house.restart();
    assert_eq!(
        std::fs::read_to_string(dir.join("online.pub")).unwrap(),
        public
    );
}

#[test]
fn the_first_root_is_taken_and_only_its_successors_after_it() {
    let mut house = House::new();
    let team = Team::of(2);
    let now = SystemTime::now();
    let first = team.root(2, 365);
    assert!(house.ota().newest_root().unwrap().is_none());
    assert_eq!(house.ota().trust(&first, now).unwrap().version(), 1);
    assert_eq!(
        house.ota().trust(&first, now).unwrap().version(),
        1,
        "the same again changes nothing"
    );
    let text = words(house.ota().trust(&Team::of(1).root(1, 365), now));
    assert!(
        text.contains("is not signed by the trusted root version 1 (threshold 2)"),
        "{text}"
    );

    let known = Root::read(&first).unwrap();
    let spec = RootSpec {
        release_keys: team.keys.iter().map(ReleaseKey::public).collect(),
        threshold: 1,
        online: None,
        expires: now + Duration::from_secs(1000),
        previous: Some(&known),
    };
    let second = spec.sign(&team.keys).unwrap().bytes;
    house.ota().trust(&second, now).unwrap();
    house.restart();
    let (json, root) = house.ota().newest_root().unwrap().unwrap();
    assert_eq!((json.as_bytes(), root.version()), (&second[..], 2));
    assert_eq!(house.ota().root(1).unwrap().unwrap().as_bytes(), first);
    assert!(house.ota().root(3).unwrap().is_none());
}

#[test]
fn an_expired_root_is_not_taken() {
    let house = House::new();
    let root = Team::of(1).root(1, 1);
    let later = SystemTime::now() + Duration::from_secs(2 * 86_400);
    assert!(words(house.ota().trust(&root, later)).contains("trust root version 1 expired"));
    assert!(house.ota().newest_root().unwrap().is_none());
}

#[test]
fn a_package_is_kept_byte_for_byte() {
    let mut house = House::new();
    let team = Team::of(1);
    let now = SystemTime::now();
    house.ota().trust(&team.root(1, 365), now).unwrap();
    let image = vec![7_u8; 3_000_000];
    let signed = Team::manifest("2.0", &image).sign(&team.keys).unwrap();
    let firmware = house.ota().add(&packed(&signed, &image)[..], now).unwrap();
    assert_eq!((firmware.size, firmware.counter), (3_000_000, 3));
    house.restart();
    assert_eq!(
        house.ota().firmwares(None, 10).unwrap(),
        std::slice::from_ref(&firmware)
    );
    assert_eq!(
        house.ota().manifest(&lamp(), &version("2.0")).unwrap(),
        signed
    );
    let (mut file, known) = house.ota().open_image(&lamp(), &version("2.0")).unwrap();
    let mut kept = Vec::new();
    file.read_to_end(&mut kept).unwrap();
    assert_eq!((kept, known), (image, firmware));
    assert!(
        words(house.ota().firmware(&lamp(), &version("9")))
            .contains("firmware `lamp 9` does not exist")
    );
}

#[test]
fn each_bad_package_is_refused_in_its_own_words_and_leaves_nothing() {
    let house = House::new();
    let team = Team::of(3);
    let now = SystemTime::now();
    let image = vec![7_u8; 2_000_000];
    let add = |bytes: &[u8]| words(house.ota().add(bytes, now));
    let good = team.package("2.0", &image);
    assert!(add(&good).contains("no release keys are trusted yet"));
    house.ota().trust(&team.root(2, 365), now).unwrap();

    let manifest = Team::manifest("2.0", &image);
    assert!(add(&packed(&manifest.sign(&[]).unwrap(), &image)).contains("is unsigned"));
    assert!(
        add(&packed(&manifest.sign(&team.keys[..1]).unwrap(), &image))
            .contains("one signature short")
    );
    assert!(add(&Team::of(2).package("2.0", &image)).contains("which is not trusted"));
    let signed = manifest.sign(&team.keys).unwrap();
    let mut flipped = image.clone();
    flipped[1_500_000] ^= 1;
    assert!(add(&packed(&signed, &flipped)).contains("chunk 1 (bytes 1048576 to 2000000)"));
    assert!(add(&packed(&signed, &image[1..])).contains("has 1999999 bytes, signed were 2000000"));
    let mut old = manifest.clone();
    old.expires = now - Duration::from_secs(1);
    assert!(
        add(&packed(&old.sign(&team.keys).unwrap(), &image))
            .contains("the manifest of lamp 2.0 expired")
    );
    assert!(add(&good[..good.len() / 2]).contains("ends after"));
    let mut extra = good.clone();
    extra.extend_from_slice(b"more");
    assert!(add(&extra).contains("follows the end"));
    assert!(add(b"\x1f\x8b not a package").contains("not a firmware package"));
    assert!(nothing_kept(&house), "nothing of a refused package is kept");
    assert!(house.ota().add(&good[..], now).is_ok());
}

#[test]
fn a_version_stays_what_it_is_but_can_be_signed_anew() {
    let house = House::new();
    let team = Team::of(1);
    let now = SystemTime::now();
    house.ota().trust(&team.root(1, 365), now).unwrap();
    house
        .ota()
        .add(&team.package("2.0", b"image")[..], now)
        .unwrap();
    let text = words(house.ota().add(&team.package("2.0", b"other")[..], now));
    assert!(
        text.contains("firmware `lamp 2.0` exists already with another content"),
        "{text}"
    );
    let mut manifest = Team::manifest("2.0", b"image");
    manifest.counter += 1;
    let changed = packed(&manifest.sign(&team.keys).unwrap(), b"image");
    assert!(words(house.ota().add(&changed[..], now)).contains("another content"));

    let mut manifest = Team::manifest("2.0", b"image");
    manifest.expires += Duration::from_secs(86_400);
    let signed = manifest.sign(&team.keys).unwrap();
    house
        .ota()
        .add(&packed(&signed, b"image")[..], now)
        .unwrap();
    assert_eq!(
        house.ota().manifest(&lamp(), &version("2.0")).unwrap(),
        signed
    );
}

#[test]
fn only_a_thing_with_a_job_for_it_may_fetch_an_image() {
    let house = House::with_lamps(2);
    let team = Team::of(1);
    let now = SystemTime::now();
    house.ota().trust(&team.root(1, 365), now).unwrap();
    house
        .ota()
        .add(&team.package("2.0", b"image")[..], now)
        .unwrap();
    let start: StartRollout = serde_json::from_value(
        json!({"name": "lamp", "version": "2.0", "group": "lamps", "waves": ["1", "100%"]}),
    )
    .unwrap();
    let may = |thing: &str, at| {
        house
            .ota()
            .may_fetch(thing, &lamp(), &version("2.0"), at)
            .unwrap()
    };
    assert!(!may("lamp-0", now) && !may("lamp-1", now));
    let id = house.ota().start_rollout(&start, "ann", now).unwrap().id;
    let view = house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        view.executions
            .iter()
            .any(|e| e.status == "QUEUED")
            .then_some(view)
    });
    let first = view.executions[0].thing.as_str();
    let second = view.executions[1].thing.as_str();
    assert!(may(first, now));
    assert!(!may(second, now), "its wave has not begun");
    assert!(!may("stranger", now));
    let job = house.accepted(first, "start-next", &json!({}))["execution"]["jobId"]
        .as_str()
        .unwrap()
        .to_owned();
    house.accepted(
        first,
        &format!("{job}/update"),
        &json!({"status": "SUCCEEDED"}),
    );
    assert!(may(first, SystemTime::now()));
    let later = SystemTime::now() + Duration::from_secs(FETCH_GRACE_SECONDS + 1);
    assert!(!may(first, later));
}
