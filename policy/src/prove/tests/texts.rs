//! A second opinion: small worlds in which every text is tried.

use super::*;

/// Numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn one<'t, T: ?Sized>(&mut self, of: &[&'t T]) -> &'t T {
        of[self.roll(of.len())]
    }
}

const NAMES: [&str; 6] = ["a", "b", "aa", "ab", "ba", "a-"];

fn random_pattern(dice: &mut Dice) -> String {
    let pieces = [
        "a",
        "b",
        "/",
        "/",
        "*",
        "?",
        "+",
        "#",
        "-",
        "a/",
        "*/",
        "$share/",
        THING,
        THING,
        CLIENT,
        "${iot:Certificate.Subject.CommonName}",
        "${iot:Connection.Thing.Attributes[x]}",
    ];
    (0..=dice.roll(4)).map(|_| dice.one(&pieces)).collect()
}

/// A policy that the language takes: a variable may not stand before the kind's slash.
fn random_policy(dice: &mut Dice) -> String {
    loop {
        let text = random_document(dice);
        if Policy::parse(&text).is_ok() {
            return text;
        }
    }
}

fn random_document(dice: &mut Dice) -> String {
    let count = 1 + dice.roll(3);
    let statements: Vec<Value> = (0..count)
        .map(|_| {
            let effect = if dice.roll(10) < 7 { "Allow" } else { "Deny" };
            let mut actions = vec![dice.one(&["Publish", "Receive", "Subscribe", "Connect"])];
            if dice.roll(3) == 0 {
                actions.push(dice.one(&["Publish", "Subscribe"]));
            }
            let mut resources = Vec::new();
            for _ in 0..=dice.roll(2) {
                if dice.roll(12) == 0 {
                    resources.push("*".to_owned());
                    continue;
                }
                let kind = match (actions[0], dice.roll(8)) {
                    (_, 0) => "*",
                    ("Subscribe", _) => "topicfilter/",
                    ("Connect", _) => "client/",
                    _ => "topic/",
                };
                let pattern = random_pattern(dice);
                resources.push(format!("arn:aws:iot:*:1:{kind}{pattern}"));
            }
            let of = if dice.roll(8) == 0 {
                "NotResource"
            } else {
                "Resource"
            };
            let actions: Vec<String> = actions.iter().map(|a| format!("iot:{a}")).collect();
            let mut statement = json!({"Effect": effect, "Action": actions, of: resources});
            if dice.roll(8) == 0 {
                let value = dice.one(&["true", "false"]);
                statement["Condition"] = json!({"Bool": {"aws:SecureTransport": value}});
            } else if dice.roll(8) == 0 {
                let value = dice.one(&["true", "true", "false"]);
                statement["Condition"] =
                    json!({"Bool": {"iot:Connection.Thing.IsAttached": value}});
            } else if dice.roll(8) == 0 {
                let key = dice.one(&[
                    "iot:Connection.Thing.Attributes[x]",
                    "iot:Connection.Thing.ThingName",
                    "iot:Certificate.Subject.CommonName",
                ]);
                let operator = dice.one(&["StringEquals", "StringNotEquals"]);
                let mut wanted = serde_json::Map::new();
                wanted.insert(key.to_owned(), dice.one(&NAMES).into());
                statement["Condition"] = json!({ operator: wanted });
            }
            statement
        })
        .collect();
    document(&statements)
}

fn mqtt(filter: &[&str], topic: &[&str]) -> bool {
    match (filter.split_first(), topic.split_first()) {
        (Some((&"#", _)), _) => true,
        (None, None) => true,
        (Some((level, filter)), Some((name, topic))) => {
            (*level == "+" || level == name) && mqtt(filter, topic)
        }
        _ => false,
    }
}

/// Whether two filters have a topic in common.
fn overlap(one: &[&str], other: &[&str]) -> bool {
    match (one.split_first(), other.split_first()) {
        (Some((&"#", _)), _) | (_, Some((&"#", _))) => true,
        (None, None) => true,
        (Some((a, one)), Some((b, other))) => {
            (*a == "+" || *b == "+" || a == b) && overlap(one, other)
        }
        _ => false,
    }
}

fn levels(text: &str) -> Vec<&str> {
    text.split('/').collect()
}

fn wild_first(filter: &str) -> bool {
    filter.starts_with(['+', '#'])
}

/// Whether a filter, or a topic, reaches a topic of `wanted`.
fn reaches(text: &str, filter: bool, wanted: &str) -> bool {
    let inner = text
        .strip_prefix("$share/")
        .filter(|_| filter)
        .and_then(|rest| rest.split_once('/'))
        .map_or(text, |(_, inner)| inner);
    if wild_first(inner) && wanted.starts_with('$') || wild_first(wanted) && inner.starts_with('$')
    {
        return false;
    }
    if filter {
        overlap(&levels(inner), &levels(wanted))
    } else {
        mqtt(&levels(wanted), &levels(inner))
    }
}

fn texts(letters: &[&str], max: usize) -> Vec<String> {
    let mut all: Vec<String> = vec![String::new()];
    let mut from = 0;
    for _ in 0..max {
        let to = all.len();
        for index in from..to {
            for letter in letters {
                all.push(format!("{}{letter}", all[index]));
            }
        }
        from = to;
    }
    all.remove(0);
    all
}

fn is_filter(text: &str) -> bool {
    let all = levels(text);
    all.iter().enumerate().all(|(index, level)| match *level {
        "+" => true,
        "#" => index + 1 == all.len(),
        level => !level.contains(['+', '#']),
    })
}

struct Texts {
    topics: Vec<String>,
    filters: Vec<String>,
    clients: Vec<String>,
}

impl Texts {
    fn all() -> Self {
        let mut filters = texts(&["a", "b", "/", "+", "#", "-"], 4);
        filters.retain(|text| is_filter(text));
        let shared: Vec<String> = filters
            .iter()
            .filter(|f| f.len() < 3)
            .map(|f| format!("$share/a/{f}"))
            .collect();
        filters.extend(shared);
        Self {
            topics: texts(&["a", "b", "/", "-"], 4),
            filters,
            clients: texts(&["a", "b", "/", "-"], 2),
        }
    }
}

/// A thing with the certificate that it has.
#[derive(Clone)]
struct Member {
    name: &'static str,
    policies: Arc<[NamedPolicy]>,
    /// The value of its attribute `x`.
    value: Option<&'static str>,
    /// Where it counts only for who calls itself by its name: those of the policies that it has by its groups.
    by_name: Option<Arc<[PolicyName]>>,
}

impl Member {
    /// What the server knows of it where it calls itself so: as `StandingNow::context` has it.
    fn context(&self, client_id: &str) -> Context {
        let attributes = self.value.map(|value| ("x".into(), Arc::from(value)));
        let thing = Arc::new(ThingFacts {
            name: self.name.into(),
            type_name: None,
            attributes: BTreeMap::from_iter(attributes),
        });
        let as_thing = self.by_name.is_none() || client_id == self.name;
        Context {
            client_id: client_id.into(),
            thing: Some(thing).filter(|_| as_thing),
            only_denying: self.by_name.clone().filter(|_| !as_thing),
            certificate: Arc::new(CertificateValues {
                fields: vec![(Holder::Subject, Field::CommonName, self.name.into())],
                ..CertificateValues::default()
            }),
            ..Context::default()
        }
    }
}

struct Universe {
    realm: Realm,
    things: Vec<Member>,
    claim: InvariantText,
}

impl Universe {
    fn random(dice: &mut Dice) -> Self {
        let documents: Vec<Arc<[NamedPolicy]>> = (0..=dice.roll(2))
            .map(|_| {
                let documents: Vec<String> =
                    (0..=dice.roll(2)).map(|_| random_policy(dice)).collect();
                named(&documents)
            })
            .collect();
        let mut names = NAMES.to_vec();
        let things = (0..=dice.roll(3))
            .map(|_| {
                let name = names.remove(dice.roll(names.len()));
                let value = [None, Some("a"), Some("b/"), Some("#")][dice.roll(4)];
                let policies = Arc::clone(&documents[dice.roll(documents.len())]);
                let by_name = (dice.roll(2) == 0).then(|| {
                    let of_groups = policies.iter().filter(|_| dice.roll(2) == 0);
                    of_groups.map(|one| one.name.clone()).collect()
                });
                Member {
                    name,
                    policies,
                    value,
                    by_name,
                }
            })
            .collect();
        let owned = [
            "${thing}",
            "${thing}/#",
            "a/${thing}",
            "a/${thing}/#",
            "b${thing}/+",
            "${thing}a/#",
            "+/${thing}",
            "/${thing}",
        ];
        let topics = ["a", "a/#", "+/b", "#", "b/+", "/", "a/b"];
        let mut claim = InvariantText::default();
        if dice.roll(3) > 0 {
            claim.owned = Some(dice.one(&owned).to_owned());
        } else {
            claim.topic = Some(dice.one(&topics).to_owned());
        }
        let mut realm = Realm::live("1");
        if dice.roll(4) == 0 {
            realm.unresolved_deny = UnresolvedDeny::Closed;
        }
        realm.textual_subscriptions = dice.roll(6) == 0;
        Self {
            realm,
            things,
            claim,
        }
    }

    fn population(&self) -> Population {
        let mut population = Population::new(Arc::new(self.realm.clone()));
        for member in &self.things {
            population.add_name(&Arc::from(member.name));
            let context = member.context(member.name);
            let (policies, groups) = (&member.policies, Arc::from([]));
            match &member.by_name {
                Some(of_groups) => population.add_by_name(policies, of_groups, &context, &groups),
                None => population.add(policies, &context, &groups),
            }
        }
        population
    }

    /// What the server would decide by: no condition here asks for more than the registry knows.
    fn grant(&self, index: usize, client_id: &str) -> Grant {
        let member = &self.things[index];
        let realm = Arc::new(self.realm.clone());
        Grant::new(
            realm,
            Arc::clone(&member.policies),
            member.context(client_id),
        )
    }

    fn wanted(&self, own: &str) -> Vec<String> {
        match (&self.claim.owned, &self.claim.topic) {
            (Some(owned), _) => {
                let others = self.things.iter().filter(|one| one.name != own);
                others
                    .map(|one| owned.replace("${thing}", one.name))
                    .collect()
            }
            (_, topic) => topic.iter().cloned().collect(),
        }
    }

    /// A way in which the claim is broken, found by trying.
    fn violation(&self, texts: &Texts) -> Option<String> {
        for (index, member) in self.things.iter().enumerate() {
            let (name, policies) = (&member.name, &member.policies);
            let wanted = self.wanted(name);
            let uses_client = policies.iter().any(|p| p.policy.text().contains(CLIENT));
            // Under another name it may be judged as somebody else, whatever the policies say of client ids.
            let uses_client = uses_client || member.by_name.is_some();
            let mut grants = vec![];
            let clients = texts
                .clients
                .iter()
                .map(String::as_str)
                .filter(|_| uses_client);
            for client in clients.chain([*name]) {
                let grant = self.grant(index, client);
                if !uses_client || grant.decide(Action::Connect, client).is_allow() {
                    grants.push((client, grant));
                }
            }
            for (client, grant) in &grants {
                for action in [Action::Publish, Action::Receive, Action::Subscribe] {
                    let filter = action == Action::Subscribe;
                    let all = if filter {
                        &texts.filters
                    } else {
                        &texts.topics
                    };
                    for text in all {
                        if grant.decide(action, text).is_allow()
                            && wanted.iter().any(|wanted| reaches(text, filter, wanted))
                        {
                            return Some(format!("{name} as {client:?}: {action} {text}"));
                        }
                    }
                }
            }
            let grant = self.grant(index, "");
            for action in [Action::Publish, Action::GetRetainedMessage] {
                for text in &texts.topics {
                    let reached = || wanted.iter().any(|wanted| reaches(text, false, wanted));
                    if grant.decide(action, text).is_allow() && reached() {
                        return Some(format!("{name} over HTTPS: {action} {text}"));
                    }
                }
            }
        }
        None
    }

    /// Whether an example is one.
    fn check(&self, example: &CounterExample) {
        let name = example.thing.as_deref().unwrap();
        let index = self.things.iter().position(|one| one.name == name).unwrap();
        let grant = self.grant(index, &example.client_id);
        let decision = grant.decide(example.action, &example.topic);
        assert_eq!(decision, Decision::Allow, "{self} {example:?}");
        let filter = example.action == Action::Subscribe;
        assert!(!filter || is_filter(&example.topic), "{self} {example:?}");
        let wanted = match &example.other {
            Some(other) => {
                assert_ne!(&**other, name);
                assert!(self.things.iter().any(|one| one.name == &**other));
                vec![self.claim.owned.clone().unwrap().replace("${thing}", other)]
            }
            None => self.wanted(name),
        };
        assert!(
            wanted
                .iter()
                .any(|wanted| reaches(&example.topic, filter, wanted)),
            "{self} {example:?}"
        );
        if example.client_id.is_empty() {
            let over_https = [Action::Publish, Action::GetRetainedMessage];
            assert!(over_https.contains(&example.action), "{self} {example:?}");
        } else if *example.client_id != *name {
            assert!(grant.decide(Action::Connect, &example.client_id).is_allow());
        }
    }
}

impl std::fmt::Display for Universe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?} {}", self.realm, self.claim)?;
        for one in &self.things {
            let texts: Vec<&str> = one.policies.iter().map(|p| p.policy.text()).collect();
            let (name, value, by_name) = (one.name, one.value, &one.by_name);
            writeln!(f, "{name} {value:?} {by_name:?} {texts:?}")?;
        }
        Ok(())
    }
}

/// What came of the claims: proven for any name, for today's, broken, undecided.
fn try_universes(seed: u64, count: usize) -> [usize; 4] {
    let (texts, mut dice, mut outcomes) = (Texts::all(), Dice(seed), [0; 4]);
    for _ in 0..count {
        let mut universe = Universe::random(&mut dice);
        let invariant = universe.claim.read().unwrap();
        let proof = universe.population().prove(&invariant);
        let violation = universe.violation(&texts);
        match &proof {
            Proof::Holds { for_any_name } => {
                assert_eq!(violation, None, "{universe}");
                outcomes[usize::from(!for_any_name)] += 1;
                if *for_any_name {
                    // Then also where every name exists, with any of the policies.
                    let (first, rest) = (universe.things[0].clone(), universe.things.len());
                    let missing = NAMES
                        .iter()
                        .filter(|n| !universe.things.iter().any(|one| one.name == **n));
                    let more: Vec<_> = missing
                        .enumerate()
                        .map(|(n, name)| {
                            let like = if rest > 1 {
                                &universe.things[n % rest]
                            } else {
                                &first
                            };
                            // An attribute that is the thing's name is the other's name there.
                            let of_it = |value| if value == like.name { *name } else { value };
                            Member {
                                name,
                                value: like.value.map(of_it),
                                ..like.clone()
                            }
                        })
                        .collect();
                    universe.things.extend(more);
                    assert_eq!(universe.violation(&texts), None, "{universe}");
                }
            }
            Proof::Broken(example) => {
                universe.check(example);
                outcomes[2] += 1;
            }
            Proof::Undecided { .. } => outcomes[3] += 1,
        }
    }
    outcomes
}

#[test]
fn claims_agree_with_every_text() {
    let outcomes = try_universes(1, 400);
    assert!(
        outcomes[0] > 0 && outcomes[1] > 0 && outcomes[2] > 0,
        "{outcomes:?}"
    );
    assert!(outcomes[3] * 20 < 400, "{outcomes:?}");
}

#[test]
#[ignore = "a million cases: run it optimised"]
fn claims_agree_with_every_text_a_million_times() {
    let count = std::env::var("PROVE_CASES").map_or(1_000_000, |n| n.parse().unwrap());
    let seed = std::env::var("PROVE_SEED").map_or(7, |n| n.parse().unwrap());
    let outcomes = try_universes(seed, count);
    println!("{count} cases: for any name, for today's, broken, undecided: {outcomes:?}");
}
