//! The least policy that allows what devices were seen to do.
//!
//! Where a level of a topic is the device's own name, or has it as a word of its own (`dt-lamp3`), the variable stands in
//! its place, so that what one device does is granted to each for itself and to none for another. Where a level is the
//! value of one of its attributes, and other devices have another value there, the attribute's variable does. What
//! follows a device's own name is written out, unless it is of so many kinds that the rest is a `*`. All else
//! stays as it was seen, and so does what a device did where its thing did not count, for there no variable has a value; what was summed up and does not say whose it is is left out, for it would open to all what
//! may be each one's own.

mod attributes;

use std::collections::{BTreeMap, BTreeSet};

use self::attributes::Row;
use crate::action::{Action, Kind};
use crate::default::{DocumentText, GrantText};
use crate::document::{Effect, Policy};
use crate::explain::as_pattern;

/// Ends of a topic behind a device's own name that are written out.
const ENDS_MAX: usize = 8;

/// Of a device whose attributes have no value.
static NO_ATTRIBUTES: BTreeMap<String, String> = BTreeMap::new();

/// Something that a device was seen to do and was allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observed {
    /// What it did.
    pub action: Action,
    /// On which topic, with which filter or client id. A topic that ends in `/#` stands for
    /// several that were seen below it.
    pub name: String,
    /// Whether the thing counted whenever it was done; where it did not, its variables had no value, and only the words
    /// themselves allow it.
    pub as_thing: bool,
}

/// A device, and what it did.
#[derive(Debug, Clone, Copy)]
pub struct Doer<'d> {
    /// The name of its thing.
    pub thing: &'d str,
    /// The attributes of its thing.
    pub attributes: &'d BTreeMap<String, String>,
    /// What it was seen to do.
    pub observed: &'d [Observed],
}

/// A level of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// The device's own name, behind and before other text.
    Own(String, String),
    /// The value of an attribute of the device.
    Attribute(String),
    Text(String),
    /// This and all that follow.
    Rest,
}

impl Level {
    fn is_own(&self) -> bool {
        matches!(self, Self::Own(..))
    }
}

/// A grant of today's that a suggestion does not give.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Allowance {
    /// The statement's place in the policy, from 1.
    pub statement: usize,
    /// Its `Sid`.
    pub sid: Option<String>,
    /// What it allows.
    pub actions: Vec<Action>,
    /// On what.
    pub resource: String,
}

impl Policy {
    /// What it allows, resource by resource.
    #[must_use]
    pub fn allowances(&self) -> Vec<Allowance> {
        let allows = self.statements().iter().enumerate();
        let allows = allows.filter(|(_, statement)| statement.effect == Effect::Allow);
        let each = allows.flat_map(|(index, statement)| {
            let actions = Action::ALL.into_iter();
            let actions: Vec<Action> = actions.filter(|a| statement.actions.contains(*a)).collect();
            statement.resources.iter().map(move |resource| Allowance {
                statement: index + 1,
                sid: statement.sid.as_deref().map(str::to_owned),
                actions: actions.clone(),
                resource: match statement.but {
                    true => format!("all but {}", resource.text),
                    false => resource.text.to_string(),
                },
            })
        });
        each.collect()
    }
}

/// Writes the document for devices with what each was seen to do.
#[must_use]
pub fn suggest<'d>(account: &str, seen: impl IntoIterator<Item = Doer<'d>>) -> String {
    let mut rows: BTreeMap<Action, Vec<Row<'d>>> = BTreeMap::new();
    for doer in seen {
        for one in doer.observed {
            let levels = levels(one, doer.thing);
            if levels.contains(&Level::Rest) && !levels.iter().any(Level::is_own) {
                continue;
            }
            let row = match one.as_thing {
                true => Row {
                    levels,
                    attributes: doer.attributes,
                },
                false => Row {
                    levels: in_words(levels, doer.thing),
                    attributes: &NO_ATTRIBUTES,
                },
            };
            rows.entry(one.action).or_default().push(row);
        }
    }
    let templates = rows.into_iter();
    let templates: BTreeMap<Action, BTreeSet<Vec<Level>>> = templates
        .map(|(action, rows)| (action, attributes::general(&rows)))
        .collect();
    // The same resources for several actions are one statement.
    let mut by_resources: BTreeMap<Vec<String>, Vec<Action>> = BTreeMap::new();
    for (action, templates) in templates {
        let kind = action.kind();
        let resources = generalised(templates).into_iter();
        let resources = resources.map(|levels| match kind {
            Kind::Everything => "*".to_owned(),
            kind => format!(
                "arn:aws:iot:*:{account}:{}{}",
                kind.prefix(),
                written(&levels)
            ),
        });
        by_resources
            .entry(resources.collect())
            .or_default()
            .push(action);
    }
    let statements = by_resources.into_iter();
    let mut statements: Vec<(Vec<Action>, Vec<String>)> = statements
        .map(|(resources, actions)| (actions, resources))
        .collect();
    statements.sort();
    let statements = statements.into_iter();
    let statements =
        statements.map(|(actions, resources)| GrantText::allow_all(actions, resources));
    DocumentText::of(statements.collect())
}

fn levels(observed: &Observed, thing: &str) -> Vec<Level> {
    let several = matches!(
        observed.action,
        Action::Publish | Action::Receive | Action::RetainPublish
    );
    let (name, rest) = match observed.name.strip_suffix("/#") {
        Some(above) if several => (above, Some(Level::Rest)),
        _ => (observed.name.as_str(), None),
    };
    let level = |text: &str| match own_part(text, thing) {
        Some((before, after)) => Level::Own(before.to_owned(), after.to_owned()),
        None => Level::Text(text.to_owned()),
    };
    name.split('/').map(level).chain(rest).collect()
}

/// The same without a variable.
fn in_words(levels: Vec<Level>, thing: &str) -> Vec<Level> {
    let level = |level| match level {
        Level::Own(before, after) => Level::Text(format!("{before}{thing}{after}")),
        other => other,
    };
    levels.into_iter().map(level).collect()
}

/// What stands before and behind the one place where the name is a word of its own: at the ends, or beside what is no
/// letter and no digit. The name `1` is not meant by `v1`.
fn own_part<'l>(level: &'l str, thing: &str) -> Option<(&'l str, &'l str)> {
    let apart = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
    let mut places = level.match_indices(thing).filter_map(|(at, found)| {
        let (before, after) = (level.get(..at)?, level.get(at + found.len()..)?);
        let own = apart(before.chars().next_back()) && apart(after.chars().next());
        own.then_some((before, after))
    });
    let place = places.next()?;
    places.next().is_none().then_some(place)
}

/// Ends of many kinds behind an own name become one.
fn generalised(templates: BTreeSet<Vec<Level>>) -> BTreeSet<Vec<Level>> {
    let mut ends: BTreeMap<Vec<Level>, usize> = BTreeMap::new();
    let above = |levels: &[Level]| {
        let own = levels.iter().position(Level::is_own)?;
        let above = levels.get(..=own)?;
        (levels.len() > above.len()).then(|| above.to_vec())
    };
    for levels in &templates {
        if let Some(above) = above(levels) {
            // An end that was summed up already says that they are many.
            let weight = if levels.contains(&Level::Rest) {
                ENDS_MAX + 1
            } else {
                1
            };
            *ends.entry(above).or_default() += weight;
        }
    }
    let general = |levels: Vec<Level>| match above(&levels) {
        Some(mut above) if ends.get(&above).is_some_and(|ends| *ends > ENDS_MAX) => {
            above.push(Level::Rest);
            above
        }
        _ => levels,
    };
    templates.into_iter().map(general).collect()
}

fn written(levels: &[Level]) -> String {
    let level = |level: &Level| match level {
        Level::Own(before, after) => format!(
            "{}${{iot:Connection.Thing.ThingName}}{}",
            as_pattern(before),
            as_pattern(after)
        ),
        Level::Attribute(name) => format!("${{iot:Connection.Thing.Attributes[{name}]}}"),
        Level::Text(text) => as_pattern(text),
        Level::Rest => "*".to_owned(),
    };
    levels.iter().map(level).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Context, Grant, InvariantText, NamedPolicy, Population, Proof, Realm};

    fn observed(action: Action, name: String) -> Observed {
        Observed {
            action,
            name,
            as_thing: true,
        }
    }

    fn fleet() -> Vec<(String, Vec<Observed>)> {
        let thing = |n: usize| {
            let thing = format!("sensor-{n:02}");
            let mut seen = vec![
                observed(Action::Connect, thing.clone()),
                observed(Action::Subscribe, format!("cmd/{thing}/#")),
                observed(Action::Receive, format!("cmd/{thing}/reset")),
                observed(Action::Receive, "news/all".into()),
                observed(Action::Subscribe, "news/+".into()),
                observed(Action::Publish, format!("up/{thing}?*$")),
            ];
            seen.extend(
                (0..12).map(|n| observed(Action::Publish, format!("dt/{thing}/m{n}/value"))),
            );
            seen.extend((0..3).map(|n| observed(Action::Publish, format!("log/{thing}/{n}"))));
            (thing, seen)
        };
        (0..50).map(thing).collect()
    }

    #[test]
    fn all_that_was_done_is_allowed_and_no_device_reaches_another() {
        let fleet = fleet();
        let none = BTreeMap::new();
        let doers = fleet
            .iter()
            .map(|(thing, observed)| doer(thing, observed, &none));
        let document = suggest("1", doers);
        let policies: Arc<[NamedPolicy]> = Arc::from([NamedPolicy {
            name: "suggested".parse().unwrap(),
            policy: Arc::new(Policy::parse(&document).unwrap()),
        }]);
        let realm = Arc::new(Realm::live("1"));
        let mut population = Population::new(Arc::clone(&realm));
        for (thing, seen) in &fleet {
            let context = Context::of(thing, Some(thing), None);
            let grant = Grant::new(Arc::clone(&realm), Arc::clone(&policies), context.clone());
            for one in seen {
                assert!(
                    grant.decide(one.action, &one.name).is_allow(),
                    "{one:?}\n{document}"
                );
            }
            assert!(
                !grant
                    .decide(Action::Publish, "dt/sensor-99/m0/value")
                    .is_allow()
            );
            assert!(
                !grant
                    .decide(Action::Publish, &format!("log/{thing}/9"))
                    .is_allow()
            );
            assert!(
                grant
                    .decide(Action::Publish, &format!("dt/{thing}/new/value"))
                    .is_allow()
            );
            population.add_name(&Arc::from(thing.as_str()));
            population.add(&policies, &context, &Arc::from([]));
        }
        for namespace in ["dt/${thing}/#", "cmd/${thing}/#", "log/${thing}/#"] {
            let claim = InvariantText {
                owned: Some(namespace.into()),
                ..InvariantText::default()
            };
            let proof = population.prove(&claim.read().unwrap());
            assert_eq!(
                proof,
                Proof::Holds { for_any_name: true },
                "{namespace}\n{document}"
            );
        }
    }

    fn doer<'d>(
        thing: &'d str,
        observed: &'d [Observed],
        attributes: &'d BTreeMap<String, String>,
    ) -> Doer<'d> {
        Doer {
            thing,
            attributes,
            observed,
        }
    }

    fn resources(document: &str) -> Vec<String> {
        let allowed = Policy::parse(document).unwrap().allowances();
        allowed.into_iter().map(|one| one.resource).collect()
    }

    #[test]
    fn what_was_summed_up_stays_so_where_it_says_whose_it_is_and_is_left_out_elsewhere() {
        let seen = [
            observed(Action::Publish, "dt/a/#".into()),
            observed(Action::Publish, "x/y/#".into()),
        ];
        let document = suggest("1", [doer("a", &seen, &BTreeMap::new())]);
        let own = "arn:aws:iot:*:1:topic/dt/${iot:Connection.Thing.ThingName}/*";
        assert_eq!(resources(&document), [own]);
    }

    #[test]
    fn a_name_that_is_a_word_of_a_level_is_the_devices_own_and_one_that_is_part_of_a_word_is_not() {
        let one = |thing: &'static str, topic: &'static str| {
            let seen = [observed(Action::Publish, topic.into())];
            let document = suggest("1", [doer(thing, &seen, &BTreeMap::new())]);
            let resource = resources(&document).pop().unwrap();
            resource.split_once("topic/").unwrap().1.to_owned()
        };
        let own = "${iot:Connection.Thing.ThingName}";
        assert_eq!(one("lamp3", "dt-lamp3/t"), format!("dt-{own}/t"));
        assert_eq!(one("lamp3", "lamp3.up*/t"), format!("{own}.up${{*}}/t"));
        assert_eq!(one("lamp3", "lamp34/t"), "lamp34/t");
        assert_eq!(one("1", "v1/1"), format!("v1/{own}"));
        assert_eq!(one("a", "a-a/t"), "a-a/t");
    }

    #[test]
    fn an_attribute_stands_for_its_value_where_devices_have_different_ones() {
        let of = |room: &str| BTreeMap::from([("room".to_owned(), room.to_owned())]);
        let seen = |room: &str| [observed(Action::Receive, format!("room/{room}/news"))];
        let (rooms, topics) = ([of("r1"), of("r2")], [seen("r1"), seen("r2")]);
        let doers = |count: usize| {
            let each = rooms.iter().zip(&topics).zip(["a", "b"]).take(count);
            each.map(|((attributes, seen), thing)| doer(thing, seen, attributes))
        };
        let by_room = "arn:aws:iot:*:1:topic/room/${iot:Connection.Thing.Attributes[room]}/news";
        assert_eq!(resources(&suggest("1", doers(2))), [by_room]);
        let literal = "arn:aws:iot:*:1:topic/room/r1/news";
        assert_eq!(resources(&suggest("1", doers(1))), [literal]);
    }

    #[test]
    fn an_attribute_that_has_the_value_by_chance_does_not_stand_for_it() {
        let of = |room: u32| {
            let attributes = [("floor", room % 3 + 1), ("room", room)];
            let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_string()));
            BTreeMap::from(attributes)
        };
        let rooms: Vec<_> = (1..=12).map(of).collect();
        let seen: Vec<_> = (1..=12)
            .map(|room| [observed(Action::Publish, format!("room/{room}/state"))])
            .collect();
        let things: Vec<String> = (1..=12).map(|room| format!("r{room}")).collect();
        let each = things.iter().zip(&rooms).zip(&seen);
        let doers = each.map(|((thing, attributes), seen)| doer(thing, seen, attributes));
        let by_room = "arn:aws:iot:*:1:topic/room/${iot:Connection.Thing.Attributes[room]}/state";
        assert_eq!(resources(&suggest("1", doers)), [by_room]);
    }

    #[test]
    fn a_fixed_word_that_is_some_ones_value_stays_a_word() {
        let of = |room: &str, unit: &str| {
            let attributes = [("room", room), ("unit", unit)];
            BTreeMap::from(attributes.map(|(name, value)| (name.to_owned(), value.to_owned())))
        };
        let rooms = [of("r1", "C"), of("r2", "state"), of("r3", "F")];
        let seen =
            ["r1", "r2", "r3"].map(|room| [observed(Action::Publish, format!("{room}/state"))]);
        let each = ["a", "b", "c"].into_iter().zip(&rooms).zip(&seen);
        let doers = each.map(|((thing, attributes), seen)| doer(thing, seen, attributes));
        let by_room = "arn:aws:iot:*:1:topic/${iot:Connection.Thing.Attributes[room]}/state";
        assert_eq!(resources(&suggest("1", doers)), [by_room]);
    }

    #[test]
    fn what_was_not_done_as_the_thing_is_allowed_by_its_words() {
        let seen = ["dt/a/x", "up/a/#"].map(|name| Observed {
            as_thing: false,
            ..observed(Action::Publish, name.into())
        });
        let attributes = BTreeMap::from([("kind".to_owned(), "x".to_owned())]);
        let document = suggest("1", [doer("a", &seen, &attributes)]);
        let topic = |name| format!("arn:aws:iot:*:1:topic/{name}");
        assert_eq!(resources(&document), [topic("dt/a/x"), topic("up/a/*")]);
    }
}
