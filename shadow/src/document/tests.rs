//! The laws of merging and of the difference, and some by hand.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tree(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(tree) => tree,
        other => panic!("{other}"),
    }
}

fn merged(first: Value, second: Value) -> Value {
    let mut section = Section::default();
    section.merge(&tree(first), 1);
    section.merge(&tree(second), 2);
    assert_eq!(
        shape(&section.state.clone().into()),
        shape_of_metadata(&section)
    );
    section.state.into()
}

/// A tree with nothing at its leaves.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            Value::Object(object.iter().map(|(k, v)| (k.clone(), shape(v))).collect())
        }
        Value::Array(array) => array.iter().map(shape).collect(),
        _ => Value::Null,
    }
}

/// The same of the metadata: the state says where its leaves are.
fn shape_of_metadata(section: &Section) -> Value {
    fn along(state: &Value, metadata: &Value) -> Value {
        match (state, metadata) {
            (Value::Object(state), Value::Object(metadata)) => {
                assert_eq!(state.len(), metadata.len());
                Value::Object(
                    state
                        .iter()
                        .map(|(k, v)| (k.clone(), along(v, &metadata[k])))
                        .collect(),
                )
            }
            (Value::Array(state), Value::Array(metadata)) => {
                assert_eq!(state.len(), metadata.len());
                state
                    .iter()
                    .zip(metadata)
                    .map(|(s, m)| along(s, m))
                    .collect()
            }
            (_, leaf) => {
                assert!(leaf["timestamp"].is_u64(), "{leaf}");
                Value::Null
            }
        }
    }
    along(
        &section.state.clone().into(),
        &section.metadata.clone().into(),
    )
}

#[test]
fn merging_by_hand() {
    for (first, second, expected) in [
        (json!({"a": 1}), json!({"b": 2}), json!({"a": 1, "b": 2})),
        (
            json!({"a": {"b": 1, "c": 2}}),
            json!({"a": {"b": 3}}),
            json!({"a": {"b": 3, "c": 2}}),
        ),
        (
            json!({"a": {"b": 1}}),
            json!({"a": {"b": null}}),
            json!({"a": {}}),
        ),
        (json!({"a": {"b": 1}}), json!({"a": null}), json!({})),
        (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
        (json!({"a": {"b": 1}}), json!({"a": 7}), json!({"a": 7})),
        (
            json!({"a": 7}),
            json!({"a": {"b": {"c": null}}}),
            json!({"a": {"b": {}}}),
        ),
        (json!({}), json!({"gone": null}), json!({})),
    ] {
        assert_eq!(
            merged(first.clone(), second.clone()),
            expected,
            "{first} {second}"
        );
    }
}

#[test]
fn a_difference_by_hand() {
    for (desired, reported, expected) in [
        (json!({"a": 1}), json!({"a": 1, "b": 2}), json!({})),
        (
            json!({"a": {"b": 1, "c": 2}}),
            json!({"a": {"b": 1}}),
            json!({"a": {"c": 2}}),
        ),
        (json!({"a": {}}), json!({}), json!({"a": {}})),
        (json!({"a": {}}), json!({"a": {"b": 1}}), json!({})),
        (
            json!({"a": [1, 2]}),
            json!({"a": [2, 1]}),
            json!({"a": [1, 2]}),
        ),
        (
            json!({"a": {"b": 1}}),
            json!({"a": 1}),
            json!({"a": {"b": 1}}),
        ),
        (json!({"a": 1}), json!({"a": 1.5}), json!({"a": 1})),
    ] {
        let mut document = Document::default();
        document.desired.merge(&tree(desired.clone()), 1);
        document.reported.merge(&tree(reported.clone()), 2);
        assert_eq!(
            Value::Object(document.delta().state),
            expected,
            "{desired} {reported}"
        );
    }
}

#[test]
fn a_value_keeps_the_time_of_when_it_was_set() {
    let mut section = Section::default();
    section.merge(&tree(json!({"a": {"b": 1, "c": 2}})), 10);
    section.merge(&tree(json!({"a": {"b": 1}, "d": [1, {"e": 2}]})), 20);
    let at = |t: u64| json!({ "timestamp": t });
    assert_eq!(
        Value::Object(section.metadata),
        json!({"a": {"b": at(20), "c": at(10)}, "d": [at(20), {"e": at(20)}]})
    );
}

#[test]
fn a_state_is_as_long_as_it_may_be() {
    let mut document = Document::default();
    let fill = |bytes: usize| tree(json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())}));
    document.desired.merge(&fill(STATE_MAX_BYTES / 2), 1);
    document.reported.merge(&fill(STATE_MAX_BYTES / 2), 1);
    assert!(document.fits());
    document.reported.merge(&fill(STATE_MAX_BYTES / 2 + 1), 1);
    assert!(!document.fits());
}

/// Values without null in arrays, few names so that they meet.
fn value(nulls: bool) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        "[a-c]?".prop_map(Value::from),
    ];
    let leaf = leaf.boxed();
    let tree = leaf.prop_recursive(4, 24, 4, move |inner| {
        let member = if nulls {
            prop_oneof![3 => inner.clone(), 1 => Just(Value::Null)].boxed()
        } else {
            inner.clone().boxed()
        };
        prop_oneof![
            proptest::collection::btree_map("[a-d]", member, 0..4)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
            proptest::collection::vec(inner.prop_map(|v| without_nulls(&v)), 0..3)
                .prop_map(Value::from),
        ]
    });
    tree.boxed()
}

fn section(nulls: bool) -> impl Strategy<Value = Map<String, Value>> {
    let member = if nulls {
        prop_oneof![3 => value(true), 1 => Just(Value::Null)].boxed()
    } else {
        value(false).boxed()
    };
    proptest::collection::btree_map("[a-d]", member, 0..5).prop_map(|all| all.into_iter().collect())
}

fn of(state: &Map<String, Value>) -> Section {
    let mut section = Section::default();
    section.merge(state, 1);
    section
}

/// Whether a state is as a change wants it.
fn says(state: &Map<String, Value>, change: &Map<String, Value>) -> bool {
    change
        .iter()
        .all(|(name, wanted)| match (wanted, state.get(name)) {
            (Value::Null, is) => is.is_none(),
            (Value::Object(wanted), Some(Value::Object(is))) => says(is, wanted),
            (wanted, is) => is == Some(wanted),
        })
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.values().any(has_null),
        Value::Array(array) => array.iter().any(has_null),
        _ => false,
    }
}

proptest! {
    /// What is merged is there: no null stays, saying it again changes nothing, and the metadata has the shape of the state.
    #[test]
    fn merging_keeps_its_laws(first in section(true), second in section(true)) {
        let mut once = of(&first);
        once.merge(&second, 2);
        prop_assert!(!has_null(&once.state.clone().into()));
        prop_assert_eq!(shape(&once.state.clone().into()), shape_of_metadata(&once));
        let mut twice = once.clone();
        twice.merge(&second, 2);
        prop_assert_eq!(&twice, &once);
        // A change that takes nothing away adds up with another.
        let mut nothing = once.clone();
        nothing.merge(&Map::new(), 3);
        prop_assert_eq!(&nothing, &once);
    }

    /// All that the last change says is so, and what it does not speak of is as it was.
    #[test]
    fn the_last_word_counts(first in section(true), second in section(true)) {
        let before = of(&first);
        let mut after = before.clone();
        after.merge(&second, 2);
        prop_assert!(says(&after.state, &second), "{:?} {:?}", after.state, second);
        for (name, value) in &before.state {
            prop_assert!(second.contains_key(name) || after.state.get(name) == Some(value));
        }
        for name in after.state.keys() {
            prop_assert!(before.state.contains_key(name) || second.contains_key(name));
        }
    }

    /// The difference is what is left to do: reported, nothing is different any more; and it is a part of what is desired.
    #[test]
    fn the_difference_is_what_is_left_to_report(desired in section(false), reported in section(false)) {
        let mut document = Document { desired: of(&desired), reported: of(&reported) };
        let delta = document.delta();
        prop_assert_eq!(shape(&delta.state.clone().into()), shape_of_metadata(&delta));
        let mut done = document.clone();
        done.reported.merge(&delta.state, 2);
        prop_assert!(done.delta().state.is_empty(), "{:?}", done.delta());
        let mut same = document.desired.clone();
        same.merge(&delta.state, 1);
        prop_assert_eq!(&same.state, &document.desired.state);
        // What says all that is desired differs in nothing, whatever else it says.
        document.reported.merge(&desired, 2);
        prop_assert!(document.delta().state.is_empty());
    }
}
