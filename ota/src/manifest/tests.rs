use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::image::ImageFacts;
use crate::trust::tests::root_of;

fn day(count: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(count * 24 * 60 * 60)
}

/// The manifest of `image` as `lamp` 2.0 for `board-1`, good for 90 days from the epoch.
pub(crate) fn manifest_of(image: &[u8]) -> Manifest {
    let facts = ImageFacts::measure(image).unwrap();
    Manifest {
        name: "lamp".parse().unwrap(),
        version: "2.0".parse().unwrap(),
        hardware: BTreeSet::from(["board-1".parse().unwrap()]),
        requires: None,
        components: Default::default(),
        size: facts.size,
        sha256: facts.sha256,
        chunks: facts.chunks,
        counter: 3,
        expires: day(90),
        notes: Some("brighter".into()),
        deltas: Vec::new(),
    }
}

fn team(count: usize) -> Vec<ReleaseKey> {
    (0..count)
        .map(|_| ReleaseKey::generate().unwrap())
        .collect()
}

#[test]
fn a_signed_manifest_says_what_was_signed() {
    let keys = team(1);
    let manifest = manifest_of(b"image");
    let bytes = manifest.sign(&keys).unwrap();
    assert_eq!(
        Manifest::verify(&bytes, &root_of(&keys, 1), day(1)).unwrap(),
        manifest
    );
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(value["signed"]["_type"], "targets");
    assert_eq!(value["signed"]["targets"]["lamp-2.0"]["length"], 5);
    assert_eq!(
        value["signed"]["targets"]["lamp-2.0"]["custom"]["chunk_size"],
        1_048_576
    );
}

#[test]
fn each_refusal_has_its_own_words() {
    let keys = team(3);
    let strangers = team(1);
    let root = root_of(&keys, 2);
    let manifest = manifest_of(b"image");
    let words = |bytes: &[u8], now| Manifest::verify(bytes, &root, now).unwrap_err().to_string();

    assert!(
        words(&manifest.sign(&[]).unwrap(), day(1)).contains("the firmware manifest is unsigned")
    );
    assert!(
        words(&manifest.sign(&keys[..1]).unwrap(), day(1))
            .contains("one signature short: it has 1 of the 2")
    );
    assert!(
        words(&manifest.sign(&strangers).unwrap(), day(1))
            .contains("which is not trusted: trust root version 1")
    );
    let good = manifest.sign(&keys[1..]).unwrap();
    assert!(Manifest::verify(&good, &root, day(1)).is_ok());
    assert!(
        words(&good, day(90)).contains("the manifest of lamp 2.0 expired at 1970-04-01T00:00:00Z")
    );
    assert!(Manifest::verify_signatures(&good, &root).is_ok());
    let altered = String::from_utf8(good.clone())
        .unwrap()
        .replace("brighter", "darker!!");
    assert!(words(altered.as_bytes(), day(1)).contains("was changed after it was signed"));
    let mut at_bound = good.clone();
    at_bound.resize(MAX_MANIFEST_BYTES, b' ');
    assert!(Manifest::verify(&at_bound, &root, day(1)).is_ok());
    at_bound.push(b' ');
    assert!(words(&at_bound, day(1)).contains("at most 1048576"));
}

#[test]
fn an_expired_root_vouches_for_nothing() {
    let keys = team(1);
    let mut manifest = manifest_of(b"image");
    manifest.expires = day(40_000);
    let bytes = manifest.sign(&keys).unwrap();
    let error = Manifest::verify(&bytes, &root_of(&keys, 1), day(39_000))
        .unwrap_err()
        .to_string();
    assert!(error.contains("trust root version 1 expired"), "{error}");
}

#[test]
fn a_root_is_no_manifest_though_the_same_keys_signed_it() {
    let keys = team(1);
    let spec = crate::RootSpec {
        release_keys: vec![keys[0].public()],
        threshold: 1,
        online: None,
        expires: day(9),
        previous: None,
    };
    let bytes = spec.sign(&keys).unwrap().bytes;
    let error = Manifest::verify(&bytes, &root_of(&keys, 1), day(1))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("firmware manifest cannot be read"),
        "{error}"
    );
}

fn resigned(change: impl FnOnce(&mut Value)) -> String {
    let keys = team(1);
    let bytes = manifest_of(b"image").sign(&keys).unwrap();
    let mut document = Document::parse(WHAT, &bytes, MAX_MANIFEST_BYTES).unwrap();
    change(&mut document.signed);
    document.sign(&keys).unwrap();
    Manifest::verify(&document.to_bytes().unwrap(), &root_of(&keys, 1), day(1))
        .unwrap_err()
        .to_string()
}

#[test]
fn even_a_signed_manifest_must_be_whole() {
    assert!(
        resigned(|v| v["targets"]["other-1"] = v["targets"]["lamp-2.0"].clone())
            .contains("2 images")
    );
    assert!(resigned(|v| v["targets"]["lamp-2.0"]["length"] = json!(0)).contains("0 bytes"));
    assert!(
        resigned(|v| v["targets"]["lamp-2.0"]["length"] = json!(MAX_IMAGE_BYTES + 1))
            .contains("4294967297 bytes")
    );
    assert!(
        resigned(|v| v["targets"]["lamp-2.0"]["custom"]["chunks"] = json!([]))
            .contains("0 chunk hashes")
    );
    assert!(
        resigned(|v| v["targets"]["lamp-2.0"]["custom"]["hardware"] = json!([]))
            .contains("hardware")
    );
    assert!(
        resigned(|v| v["targets"]["lamp-2.0"]["custom"]["region"] = json!("eu"))
            .contains("unknown field `region`")
    );
    assert!(
        resigned(|v| v["targets"]["lamp-2.0"]["custom"]["name"] = json!("../lamp"))
            .contains("firmware name")
    );
    assert!(
        resigned(|v| v["targets"]["lamp-2.0"]["custom"]["version"] = json!("3.0"))
            .contains("NAME-VERSION")
    );
}

#[test]
fn notes_and_hardware_ids_have_bounds() {
    let keys = team(1);
    let mut manifest = manifest_of(b"image");
    manifest.notes = Some("n".repeat(MAX_NOTES_BYTES));
    assert!(manifest.sign(&keys).is_ok());
    manifest.notes = Some("n".repeat(MAX_NOTES_BYTES + 1));
    assert!(
        manifest
            .sign(&keys)
            .unwrap_err()
            .to_string()
            .contains("notes")
    );
    let mut manifest = manifest_of(b"image");
    manifest.hardware = (0..MAX_HARDWARE_IDS)
        .map(|i| format!("b{i}").parse().unwrap())
        .collect();
    assert!(manifest.sign(&keys).is_ok());
    manifest.hardware.insert("one-more".parse().unwrap());
    assert!(
        manifest
            .sign(&keys)
            .unwrap_err()
            .to_string()
            .contains("65 hardware ids")
    );
}

#[test]
fn what_does_not_fit_the_device_says_why() {
    let mut manifest = manifest_of(b"image");
    let board = |s: &str| s.parse::<HardwareId>().unwrap();
    let version = |s: &str| s.parse::<FirmwareVersion>().unwrap();
    let has = |all: &[(&str, &str)]| -> Components {
        let each = |(name, v): &(&str, &str)| (name.parse().unwrap(), version(v));
        all.iter().map(each).collect()
    };
    let none = Components::new();
    assert!(manifest.fits(&board("board-1"), 3, &none).is_ok());
    let words = |r: Result<(), Error>| r.unwrap_err().to_string();
    assert!(
        words(manifest.fits(&board("board-2"), 3, &none))
            .contains("made for hardware board-1; this is board-2")
    );
    assert!(
        words(manifest.fits(&board("board-1"), 4, &none))
            .contains("security counter 3 is lower than 4")
    );
    manifest.requires = Some(version("1.10"));
    assert!(
        manifest
            .fits(&board("board-1"), 3, &has(&[("lamp", "1.10")]))
            .is_ok()
    );
    assert!(
        words(manifest.fits(&board("board-1"), 3, &has(&[("lamp", "1.9")])))
            .contains("requires version 1.10 or newer; this device has 1.9")
    );
    // The version of another firmware is none of this one's.
    for other in [&none, &has(&[("radio", "3.0")])] {
        assert!(words(manifest.fits(&board("board-1"), 3, other)).contains("this device has none"));
    }
}

#[test]
fn other_components_are_required_each_by_its_name() {
    let keys = team(1);
    let mut manifest = manifest_of(b"image");
    let board = "board-1".parse::<HardwareId>().unwrap();
    let has = |version: &str| -> Components {
        [("radio".parse().unwrap(), version.parse().unwrap())].into()
    };
    manifest.components = has("2.1");
    let signed = manifest.sign(&keys).unwrap();
    assert_eq!(
        Manifest::verify(&signed, &root_of(&keys, 1), day(1)).unwrap(),
        manifest
    );
    assert!(manifest.fits(&board, 3, &has("2.1")).is_ok());
    let words = |has: &Components| manifest.fits(&board, 3, has).unwrap_err().to_string();
    assert!(words(&has("2.0")).contains("requires radio 2.1 or newer; this device has 2.0"));
    assert!(
        words(&Components::new()).contains("requires radio 2.1 or newer; this device has none")
    );
    manifest.components = [(manifest.name.clone(), "1.0".parse().unwrap())].into();
    let words = manifest.sign(&keys).unwrap_err().to_string();
    assert!(words.contains("`requires`"), "{words}");
    manifest.components = (0..=MAX_COMPONENTS)
        .map(|n| (format!("part-{n}").parse().unwrap(), "1.0".parse().unwrap()))
        .collect();
    let words = manifest.sign(&keys).unwrap_err().to_string();
    assert!(words.contains("17 other components"), "{words}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_mutated_manifest_is_refused_or_says_the_same(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let keys = team(1);
        let manifest = manifest_of(b"image");
        let mut bytes = manifest.sign(&keys).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Manifest::verify(&bytes, &root_of(&keys, 1), day(1)) {
            prop_assert_eq!(read, manifest);
        }
    }
}
