//! The least policy that allows what devices were seen to do.
//!
//! Where a level of a topic is the device's own name, the variable stands in its place, so that
//! what one device does is granted to each for itself and to none for another. What follows a
//! device's own name is written out, unless it is of so many kinds that the rest is a `*`. All else
//! stays as it was seen.

use std::collections::{BTreeMap, BTreeSet};

use crate::action::{Action, Kind};
use crate::default::{DocumentText, GrantText};
use crate::document::{Effect, Policy};
use crate::explain::as_pattern;

/// Ends of a topic behind a device's own name that are written out.
const ENDS_MAX: usize = 8;

/// Something that a device was seen to do and was allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observed {
    /// What it did.
    pub action: Action,
    /// On which topic, with which filter or client id. A topic that ends in `/#` stands for
    /// several that were seen below it.
    pub name: String,
}

/// A level of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// The device's own name.
    Own,
    Text(String),
    /// This and all that follow.
    Rest,
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

/// Writes the document for things with what each was seen to do.
#[must_use]
pub fn suggest<'t>(
    account: &str,
    seen: impl IntoIterator<Item = (&'t str, &'t [Observed])>,
) -> String {
    let mut templates: BTreeMap<Action, BTreeSet<Vec<Level>>> = BTreeMap::new();
    for (thing, observed) in seen {
        for one in observed {
            let levels = levels(one, thing);
            templates.entry(one.action).or_default().insert(levels);
        }
    }
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
    let level = |text: &str| match text == thing {
        true => Level::Own,
        false => Level::Text(text.to_owned()),
    };
    name.split('/').map(level).chain(rest).collect()
}

/// Ends of many kinds behind an own name become one.
fn generalised(templates: BTreeSet<Vec<Level>>) -> BTreeSet<Vec<Level>> {
    let mut ends: BTreeMap<Vec<Level>, usize> = BTreeMap::new();
    let above = |levels: &[Level]| {
        let own = levels.iter().position(|level| *level == Level::Own)?;
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
        Level::Own => "${iot:Connection.Thing.ThingName}".to_owned(),
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
        Observed { action, name }
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
        let document = suggest("1", fleet.iter().map(|(t, s)| (t.as_str(), s.as_slice())));
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

    #[test]
    fn what_was_summed_up_stays_so() {
        let seen = [
            observed(Action::Publish, "dt/a/#".into()),
            observed(Action::Publish, "x/y/#".into()),
        ];
        let document = suggest("1", [("a", &seen[..])]);
        let policy = Policy::parse(&document).unwrap();
        let resources: Vec<String> = policy
            .allowances()
            .into_iter()
            .map(|a| a.resource)
            .collect();
        assert_eq!(
            resources,
            [
                "arn:aws:iot:*:1:topic/dt/${iot:Connection.Thing.ThingName}/*",
                "arn:aws:iot:*:1:topic/x/y/*",
            ]
        );
    }
}
