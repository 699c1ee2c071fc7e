use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::co_sign;

pub(crate) const NOW: SystemTime = UNIX_EPOCH;

fn later() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn keys(count: usize) -> Vec<ReleaseKey> {
    (0..count)
        .map(|_| ReleaseKey::generate().unwrap())
        .collect()
}

fn spec<'a>(members: &[ReleaseKey], threshold: u32, previous: Option<&'a Root>) -> RootSpec<'a> {
    RootSpec {
        release_keys: members.iter().map(ReleaseKey::public).collect(),
        threshold,
        online: None,
        expires: later(),
        previous,
    }
}

/// A root signed by all its keys, for other tests.
pub(crate) fn root_of(members: &[ReleaseKey], threshold: u32) -> Root {
    Root::read(&spec(members, threshold, None).sign(members).unwrap().bytes).unwrap()
}

fn edit(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

fn words(result: Result<Root, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_first_root_is_signed_by_its_own_threshold() {
    let team = keys(3);
    let draft = spec(&team, 2, None).sign(&team[..2]).unwrap();
    assert_eq!(
        (draft.version, draft.missing, draft.missing_of_previous),
        (1, 0, 0)
    );
    let root = Root::read(&draft.bytes).unwrap();
    assert_eq!((root.version(), root.threshold()), (1, (2, 3)));
    assert_eq!(root.release_keys().count(), 3);
}

#[test]
fn it_is_tuf_as_others_write_it() {
    let team = keys(1);
    let online = ReleaseKey::generate().unwrap();
    let mut spec = spec(&team, 1, None);
    spec.online = Some(online.public());
    let value: Value = serde_json::from_slice(&spec.sign(&team).unwrap().bytes).unwrap();
    let signed = &value["signed"];
    let id = team[0].public().id().unwrap().to_string();
    let online_id = online.public().id().unwrap().to_string();
    assert_eq!(signed["_type"], "root");
    assert_eq!(signed["expires"], "2027-01-15T08:00:00Z");
    assert_eq!(signed["consistent_snapshot"], false);
    assert_eq!(
        signed["keys"][&id],
        json!({"keytype":"ed25519","scheme":"ed25519","keyval":{"public":team[0].public().to_hex()}})
    );
    for role in ["root", "targets"] {
        assert_eq!(signed["roles"][role], json!({"keyids":[id],"threshold":1}));
    }
    for role in ["snapshot", "timestamp"] {
        assert_eq!(
            signed["roles"][role],
            json!({"keyids":[online_id],"threshold":1})
        );
    }
    assert_eq!(value["signatures"][0]["keyid"], id.as_str());
}

#[test]
fn without_an_online_key_nothing_online_can_sign_and_a_successor_keeps_the_one_there_was() {
    let team = keys(2);
    let first = root_of(&team, 2);
    assert_eq!(first.wire.roles.timestamp.keyids.len(), 2);
    let online = ReleaseKey::generate().unwrap();
    let mut with = spec(&team, 2, Some(&first));
    with.online = Some(online.public());
    let second = first.successor(&with.sign(&team).unwrap().bytes).unwrap();
    let third = second
        .successor(&spec(&team, 2, Some(&second)).sign(&team).unwrap().bytes)
        .unwrap();
    assert_eq!(
        third.wire.roles.timestamp.keyids,
        vec![online.public().id().unwrap()]
    );
}

#[test]
fn unsigned_short_strange_and_altered_have_words_of_their_own() {
    let team = keys(3);
    let stranger = keys(1);
    let draft = spec(&team, 2, None).sign(&team[..1]).unwrap();
    assert_eq!(draft.missing, 1);
    assert!(words(Root::read(&draft.bytes)).contains("is one signature short: it has 1 of the 2"));
    let whole = co_sign(&draft.bytes, &team[1..2]).unwrap();
    assert!(Root::read(&whole).is_ok());
    let unsigned = edit(&whole, |v| v["signatures"] = json!([]));
    assert!(words(Root::read(&unsigned)).contains("is unsigned"));
    let strange = spec(&team, 1, None).sign(&stranger).unwrap().bytes;
    let text = words(Root::read(&strange));
    assert!(
        text.contains(&format!(
            "signed by key {}, which is not trusted",
            stranger[0].public().id().unwrap()
        )),
        "{text}"
    );
    let altered = edit(&whole, |v| {
        v["signed"]["expires"] = json!("2099-01-01T00:00:00Z")
    });
    assert!(words(Root::read(&altered)).contains("was changed after it was signed"));
}

#[test]
fn one_key_counts_once_however_often_it_signs() {
    let team = keys(2);
    let bytes = spec(&team, 2, None).sign(&team[..1]).unwrap().bytes;
    let doubled = edit(&bytes, |v| {
        let signature = v["signatures"][0].clone();
        v["signatures"]
            .as_array_mut()
            .unwrap()
            .extend([signature.clone(), signature]);
    });
    assert!(words(Root::read(&doubled)).contains("one signature short"));
}

#[test]
fn one_key_under_two_ids_counts_once() {
    let team = keys(1);
    let plain = team[0].public();
    let mut twin = plain.to_tuf();
    twin["x-note"] = json!("the same key in other clothes");
    let twin_id = sha256(&canonical(&twin).unwrap()).to_string();
    let ids = [plain.id().unwrap().to_string(), twin_id.clone()];
    // Threshold 2 of one distinct key could never be met honestly; it is refused as such.
    let bytes = spec(&team, 1, None).sign(&team).unwrap().bytes;
    let forged = edit(&bytes, |v| {
        v["signed"]["keys"][&twin_id] = twin.clone();
        for role in ["root", "targets", "snapshot", "timestamp"] {
            v["signed"]["roles"][role] = json!({"keyids": ids, "threshold": 2});
        }
    });
    assert!(words(Root::read(&forged)).contains("only 1 keys: it could never be met"));
    // Beside a second real key the quorum can be met, but not by the twins alone.
    let other = ReleaseKey::generate().unwrap();
    let mut document = Document::parse(WHAT, &forged, MAX_ROOT_BYTES).unwrap();
    let other_id = other.public().id().unwrap().to_string();
    document.signed["keys"][&other_id] = other.public().to_tuf();
    document.signed["roles"]["root"]["keyids"]
        .as_array_mut()
        .unwrap()
        .push(json!(other_id));
    for role in ["targets", "snapshot", "timestamp"] {
        document.signed["roles"][role]["threshold"] = json!(1);
    }
    document.sign(&team).unwrap();
    let signed = edit(&document.to_bytes().unwrap(), |v| {
        let mut again = v["signatures"].as_array().unwrap().last().unwrap().clone();
        again["keyid"] = json!(twin_id);
        v["signatures"].as_array_mut().unwrap().push(again);
    });
    let text = words(Root::read(&signed));
    assert!(
        text.contains("one signature short: it has 1 of the 2"),
        "{text}"
    );
}

#[test]
fn thresholds_that_mean_nothing_are_refused() {
    let team = keys(1);
    assert!(
        spec(&team, 0, None)
            .sign(&team)
            .unwrap_err()
            .to_string()
            .contains("threshold 0")
    );
    assert!(
        spec(&team, 2, None)
            .sign(&team)
            .unwrap_err()
            .to_string()
            .contains("could never be met")
    );
}

#[test]
fn a_key_cannot_choose_its_id() {
    let team = keys(1);
    let bytes = spec(&team, 1, None).sign(&team).unwrap().bytes;
    let fake = "0".repeat(64);
    let forged = edit(&bytes, |v| {
        v["signed"]["keys"][&fake] = team[0].public().to_tuf();
    });
    assert!(words(Root::read(&forged)).contains("is not the SHA-256 of its key"));
}

#[test]
fn a_successor_needs_both_thresholds_and_the_next_version() {
    let (old, new) = (keys(2), keys(2));
    let first = root_of(&old, 2);
    let both = || old.iter().chain(&new);
    let all: Vec<ReleaseKey> = both()
        .map(|k| ReleaseKey::from_pem(&k.to_pem().unwrap()).unwrap())
        .collect();
    let next = spec(&new, 2, Some(&first));
    let second = first.successor(&next.sign(&all).unwrap().bytes).unwrap();
    assert_eq!(second.version(), 2);
    assert!(
        first
            .successor(&next.sign(&all).unwrap().bytes)
            .unwrap()
            .release_keys()
            .all(|id| { old.iter().all(|k| k.public().id().unwrap() != id) })
    );

    let draft = next.sign(&new).unwrap();
    assert_eq!((draft.missing, draft.missing_of_previous), (0, 2));
    assert!(words(first.successor(&draft.bytes)).contains(
        "is not signed by the trusted root version 1 (threshold 2): it carries 0 of the 2"
    ));
    assert!(
        words(first.successor(&next.sign(&all[1..]).unwrap().bytes)).contains("carries 1 of the 2")
    );
    assert!(words(first.successor(&next.sign(&all[..2]).unwrap().bytes)).contains("not trusted"));
    assert!(
        words(first.successor(&next.sign(&all[..3]).unwrap().bytes))
            .contains("one signature short")
    );
}

#[test]
fn versions_follow_one_by_one() {
    let team = keys(1);
    let first = root_of(&team, 1);
    let second = first
        .successor(&spec(&team, 1, Some(&first)).sign(&team).unwrap().bytes)
        .unwrap();
    let third = spec(&team, 1, Some(&second)).sign(&team).unwrap().bytes;
    assert!(
        words(first.successor(&third))
            .contains("version 3 cannot follow version 1: the next one is version 2")
    );
    let again = spec(&team, 1, None).sign(&team).unwrap().bytes;
    assert!(words(second.successor(&again)).contains("version 1 cannot follow version 2"));
}

#[test]
fn another_teams_root_is_no_successor() {
    let first = root_of(&keys(1), 1);
    let foreign = keys(1);
    let text = words(first.successor(&spec(&foreign, 1, None).sign(&foreign).unwrap().bytes));
    assert!(
        text.contains("is not signed by the trusted root version 1 (threshold 1)"),
        "{text}"
    );
}

#[test]
fn an_expired_root_is_read_but_not_fresh() {
    let root = root_of(&keys(1), 1);
    assert!(root.fresh(NOW).is_ok());
    assert!(root.fresh(later() - Duration::from_secs(1)).is_ok());
    let text = root.fresh(later()).unwrap_err().to_string();
    assert!(
        text.contains("trust root version 1 expired at 2027-01-15T08:00:00Z"),
        "{text}"
    );
}

#[test]
fn bounds_hold_at_their_edge() {
    let team = keys(1);
    let many: Vec<PublicKey> = keys(MAX_KEYS + 1).iter().map(ReleaseKey::public).collect();
    let mut at = spec(&team, 1, None);
    at.release_keys = many[1..].to_vec();
    assert!(at.sign(&team).is_ok());
    at.release_keys = many;
    assert!(
        at.sign(&team)
            .unwrap_err()
            .to_string()
            .contains("at most 64")
    );

    let bytes = spec(&team, 1, None).sign(&team).unwrap().bytes;
    let padded = |to: usize| {
        let mut bytes = bytes.clone();
        bytes.resize(to, b' ');
        bytes
    };
    assert!(Root::read(&padded(MAX_ROOT_BYTES)).is_ok());
    assert!(words(Root::read(&padded(MAX_ROOT_BYTES + 1))).contains("at most 98304"));

    let signatures = |count: usize| {
        edit(&bytes, |v| {
            let filler = json!({"keyid":"00","sig":"00"});
            let list = v["signatures"].as_array_mut().unwrap();
            list.resize(count, filler);
        })
    };
    assert!(Root::read(&signatures(crate::MAX_SIGNATURES)).is_ok());
    assert!(words(Root::read(&signatures(crate::MAX_SIGNATURES + 1))).contains("at most 64"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_mutated_root_is_refused_or_says_the_same(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let team = keys(1);
        let draft = spec(&team, 1, None).sign(&team).unwrap();
        let mut bytes = draft.bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(root) = Root::read(&bytes) {
            // Only what is not signed (white space, the spelling of the same JSON) may differ.
            let original = Root::read(&draft.bytes).unwrap();
            prop_assert_eq!(canonical(&root.document.signed).unwrap(), canonical(&original.document.signed).unwrap());
        }
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Root::read(&bytes).is_err());
    }
}
