use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::manifest::tests::manifest_of;
use crate::trust::tests::root_of;
use crate::{ReleaseKey, co_sign};

fn day(count: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(count * 24 * 60 * 60)
}

fn keys(count: usize) -> Vec<ReleaseKey> {
    (0..count)
        .map(|_| ReleaseKey::generate().unwrap())
        .collect()
}

fn scope(hardware: &str, name: &str) -> Scope {
    Scope::read(&format!("{hardware}/{name}/*")).unwrap()
}

fn delegate(name: &str, keys: &[ReleaseKey], threshold: u32, scopes: &[Scope]) -> Delegate {
    let publics: Vec<_> = keys.iter().map(ReleaseKey::public).collect();
    Delegate::new(
        name.parse().unwrap(),
        &publics,
        threshold,
        scopes.iter().cloned().collect(),
    )
    .unwrap()
}

/// A release team of one key that leaves hardware `board-1` to two of three keys of `radio`.
struct Fixture {
    team: Vec<ReleaseKey>,
    radio: Vec<ReleaseKey>,
    root: Root,
    spec: TargetsSpec,
}

impl Fixture {
    fn new() -> Self {
        let (team, radio) = (keys(1), keys(3));
        let mut spec = TargetsSpec::following(None, day(60));
        spec.delegate(delegate("radio", &radio, 2, &[scope("board-1", "*")]));
        Self {
            root: root_of(&team, 1),
            team,
            radio,
            spec,
        }
    }

    fn top(&self) -> Targets {
        Targets::read(&self.spec.sign(&self.team).unwrap(), &self.root).unwrap()
    }

    fn judge(
        &self,
        manifest: &Manifest,
        signers: &[ReleaseKey],
        now: SystemTime,
    ) -> Result<Option<String>, String> {
        let bytes = manifest.sign(signers).unwrap();
        Manifest::verify_under(&bytes, &self.root, Some(&self.top()), now)
            .map(|(read, role)| {
                assert_eq!(read, *manifest);
                role.map(String::from)
            })
            .map_err(|error| error.to_string())
    }
}

#[test]
fn a_delegate_vouches_for_what_was_left_to_it_and_the_team_for_everything() {
    let at = Fixture::new();
    let lamp = manifest_of(b"image");
    assert_eq!(at.judge(&lamp, &at.team, day(1)), Ok(None));
    assert_eq!(
        at.judge(&lamp, &at.radio[..2], day(1)),
        Ok(Some("radio".into()))
    );
    assert_eq!(
        at.judge(&lamp, &at.radio[1..], day(1)),
        Ok(Some("radio".into()))
    );
}

#[test]
fn outside_of_it_below_the_threshold_and_past_the_expiry_it_does_not() {
    let at = Fixture::new();
    let mut lamp = manifest_of(b"image");
    let short = at.judge(&lamp, &at.radio[..1], day(1)).unwrap_err();
    assert!(
        short.contains(
            "one signature short: it has 1 of the 2 signatures by keys of delegate `radio`"
        ),
        "{short}"
    );
    let late = at.judge(&lamp, &at.radio, day(60)).unwrap_err();
    assert!(
        late.contains("the targets document of role `targets`, version 1, expired"),
        "{late}"
    );
    assert_eq!(
        at.judge(&lamp, &at.team, day(60)),
        Ok(None),
        "the team's own word needs no delegation"
    );
    let strange = at.judge(&lamp, &keys(2), day(1)).unwrap_err();
    assert!(strange.contains("which is not trusted"), "{strange}");

    // For one board more than was left to it, although the device's own is among them.
    lamp.hardware.insert("board-2".parse().unwrap());
    let outside = at.judge(&lamp, &at.radio, day(1)).unwrap_err();
    assert!(
        outside.contains("`board-2/lamp/2.0` (hardware/name/version) is not delegated to `radio`")
            && outside.contains("it may sign board-1/*/*"),
        "{outside}"
    );
    assert_eq!(at.judge(&lamp, &at.team, day(1)), Ok(None));
    lamp.expires = day(30);
    lamp.hardware = BTreeSet::from(["board-1".parse().unwrap()]);
    let late = at.judge(&lamp, &at.radio, day(30)).unwrap_err();
    assert!(late.contains("the manifest of lamp 2.0 expired"), "{late}");
}

#[test]
fn products_and_hardware_hold_together() {
    let mut at = Fixture::new();
    let lamp = manifest_of(b"image");
    for (scopes, may) in [
        (vec![scope("*", "lamp")], true),
        (vec![scope("board-1", "lamp")], true),
        (vec![scope("board-1", "horn"), scope("*", "lamp")], true),
        (
            vec![scope("board-1", "horn"), scope("board-2", "lamp")],
            false,
        ),
        (vec![scope("*", "lam")], false),
        (vec![scope("*", "lamp-pro")], false),
    ] {
        at.spec.delegate(delegate("radio", &at.radio, 2, &scopes));
        assert_eq!(
            at.judge(&lamp, &at.radio, day(1)).is_ok(),
            may,
            "{scopes:?}"
        );
    }
    at.spec
        .delegate(delegate("other", &at.radio[..1], 1, &[scope("*", "*")]));
    assert_eq!(
        at.judge(&lamp, &at.radio, day(1)),
        Ok(Some("other".into())),
        "whoever may of those who signed"
    );
    at.spec.withdraw(&"other".parse().unwrap()).unwrap();
    assert!(at.judge(&lamp, &at.radio, day(1)).is_err());
    assert!(at.spec.withdraw(&"other".parse().unwrap()).is_err());
}

#[test]
fn only_the_release_keys_delegate_and_never_backwards() {
    let at = Fixture::new();
    let words = |bytes: &[u8]| Targets::read(bytes, &at.root).unwrap_err().to_string();
    assert!(words(&at.spec.sign(&at.radio).unwrap()).contains("is not trusted"));
    assert!(words(&at.spec.sign(&[]).unwrap()).contains("is unsigned"));
    let first = at.top();
    let next = TargetsSpec::following(Some(&first), day(90));
    let next = Targets::read(&next.sign(&at.team).unwrap(), &at.root).unwrap();
    assert_eq!((next.version(), next.delegates().len()), (2, 1));
    next.not_older_than(&first).unwrap();
    first.not_older_than(&first).unwrap();
    let words = first.not_older_than(&next).unwrap_err().to_string();
    assert!(
        words.contains("version 1, is older than version 2, which was trusted before"),
        "{words}"
    );
    // A manifest is a document of the same kind by the same keys.
    let manifest = manifest_of(b"image").sign(&at.team).unwrap();
    let words = Targets::read(&manifest, &at.root).unwrap_err().to_string();
    assert!(
        words.contains("it lists `lamp-2.0`; images are listed as HARDWARE/NAME/VERSION"),
        "{words}"
    );
    let document = at.spec.sign(&at.team).unwrap();
    let words = Manifest::verify(&document, &at.root, day(1)).unwrap_err();
    assert!(words.to_string().contains("cannot be read"), "{words}");
}

#[test]
fn a_delegate_lists_what_is_its_own_and_delegates_no_further() {
    let at = Fixture::new();
    let (top, radio) = (at.top(), "radio".parse().unwrap());
    let mut spec = TargetsSpec::following(None, day(30));
    spec.list(&manifest_of(b"image"));
    let half = spec.sign(&at.radio[..1]).unwrap();
    assert_eq!(missing(&half, &at.root, Some((&top, &radio))).unwrap(), 1);
    assert!(top.read_delegated(&radio, &half).is_err());
    let whole = co_sign(&half, &at.radio[1..2]).unwrap();
    assert_eq!(missing(&whole, &at.root, Some((&top, &radio))).unwrap(), 0);
    let read = top.read_delegated(&radio, &whole).unwrap();
    assert_eq!(
        read.listed().keys().collect::<Vec<_>>(),
        ["board-1/lamp/2.0"]
    );
    assert!(
        top.read_delegated(&"other".parse().unwrap(), &whole)
            .is_err()
    );
    assert!(
        Targets::read(&whole, &at.root).is_err(),
        "for its role only"
    );

    let mut abroad = manifest_of(b"image");
    abroad.hardware = BTreeSet::from(["board-2".parse().unwrap()]);
    spec.list(&abroad);
    let words = top
        .read_delegated(&radio, &spec.sign(&at.radio).unwrap())
        .unwrap_err();
    assert!(words.to_string().contains("is not delegated to"), "{words}");
    spec.drop_listed("lamp", "2.0").unwrap();
    assert!(spec.drop_listed("lamp", "2.0").is_err());
    spec.delegate(delegate("sub", &at.radio, 1, &[scope("board-1", "*")]));
    let words = top
        .read_delegated(&radio, &spec.sign(&at.radio).unwrap())
        .unwrap_err();
    assert!(words.to_string().contains("delegates further"), "{words}");
}

#[test]
fn it_is_tuf_as_others_read_it() {
    let at = Fixture::new();
    let value: Value = serde_json::from_slice(&at.spec.sign(&at.team).unwrap()).unwrap();
    let role = &value["signed"]["delegations"]["roles"][0];
    assert_eq!(
        (&role["name"], &role["threshold"], &role["terminating"]),
        (&json!("radio"), &json!(2), &json!(true))
    );
    assert_eq!(role["paths"], json!(["board-1/*/*"]));
    assert_eq!(value["signed"]["targets"], json!({}));
    assert_eq!(
        value["signed"]["delegations"]["keys"]
            .as_object()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn what_nobody_means_is_refused_by_name() {
    let at = Fixture::new();
    let document: Value = serde_json::from_slice(&at.spec.sign(&[]).unwrap()).unwrap();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut signed = document["signed"].clone();
        change(&mut signed);
        let mut changed = Document::new(signed);
        changed.sign(&at.team).unwrap();
        let bytes = changed.to_bytes().unwrap();
        Targets::read(&bytes, &at.root).unwrap_err().to_string()
    };
    fn role(signed: &mut Value) -> &mut Value {
        &mut signed["delegations"]["roles"][0]
    }
    for (words, change) in [
        (
            "not `targets`",
            &(|s: &mut Value| s["_type"] = json!("root")) as &dyn Fn(&mut Value),
        ),
        ("counts from 1", &|s| s["version"] = json!(0)),
        ("role of the trust root", &|s| {
            role(s)["name"] = json!("snapshot")
        }),
        ("delegate `1.root`", &|s| role(s)["name"] = json!("1.root")),
        ("threshold 0", &|s| role(s)["threshold"] = json!(0)),
        ("only 3 keys", &|s| role(s)["threshold"] = json!(4)),
        ("unknown field `path_hash_prefixes`", &|s| {
            role(s)["path_hash_prefixes"] = json!(["a"])
        }),
        ("unknown field `succinct_roles`", &|s| {
            s["delegations"]["succinct_roles"] = json!({})
        }),
        ("0 path patterns", &|s| role(s)["paths"] = json!([])),
        ("path pattern `**`", &|s| role(s)["paths"] = json!(["**"])),
        ("path pattern `board-?/*/*`", &|s| {
            role(s)["paths"] = json!(["board-?/*/*"])
        }),
        ("path pattern `*/*/1.0`", &|s| {
            role(s)["paths"] = json!(["*/*/1.0"])
        }),
        ("twice", &|s| {
            let again = role(s).clone();
            s["delegations"]["roles"]
                .as_array_mut()
                .unwrap()
                .push(again);
        }),
        ("it lists `../../etc/passwd`", &|s| {
            s["targets"] =
                json!({"../../etc/passwd": {"length": 1, "hashes": {"sha256": "00".repeat(32)}}});
        }),
    ] {
        let said = refused(change);
        assert!(said.contains(words), "{words}: {said}");
    }
}

proptest! {
    #[test]
    fn no_pattern_covers_more_than_tufs_own_rule_says(
        hardware in "[a-b]{1,2}|\\*", name in "[a-b]{1,2}|\\*",
        board in "[a-b]{1,2}", product in "[a-b]{1,2}",
    ) {
        let scope = scope(&hardware, &name);
        let covers = scope.covers(&board.parse().unwrap(), &product.parse().unwrap());
        let pattern = glob::Pattern::new(&scope.to_string()).unwrap();
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        let path = format!("{board}/{product}/1.0");
        prop_assert_eq!(covers, pattern.matches_with(&path, options));
    }

    #[test]
    fn mutated_documents_never_panic_and_never_pass(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let fixture = Fixture::new();
        let bytes = fixture.spec.sign(&fixture.team).unwrap();
        let mut changed = bytes.clone();
        let at = at.index(changed.len());
        changed[at] = byte;
        if let Ok(read) = Targets::read(&changed, &fixture.root) {
            let before = Targets::read(&bytes, &fixture.root).unwrap();
            prop_assert_eq!(read.document.signed, before.document.signed);
        }
    }
}
