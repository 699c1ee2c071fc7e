//! What a device may call itself: what policies can ask of it depends on that, and whether it speaks as its thing.

use std::sync::Arc;

use super::CounterExample;
use super::claim::{Claim, Client, Names, Told};
use super::facts::Settled;
use super::population::{Speaks, Stand};
use super::search::{Seek, Step};
use crate::action::{Action, Kind};
use crate::document::{Effect, Statement};
use crate::grant::NamedPolicy;
use crate::pattern::{Pattern, Token};

/// Client ids that are tried for one counter-example.
const CLIENT_IDS_MAX: usize = 1024;
/// Names of others that are tried as client ids.
const NAMES_TRIED_MAX: usize = 64;

impl<'c> Claim<'c> {
    /// Whether the client id can only be the thing's name, or makes no difference.
    pub(super) fn is_client_pinned(&self, names: Names) -> bool {
        match self.class.speaks {
            Speaks::ByName | Speaks::Unnamed => return true,
            Speaks::Otherwise => return false,
            Speaks::Always if !self.class.stands.contains(&Stand::Client) => return true,
            Speaks::Always => {}
        }
        let asking = self.asking(Action::Connect);
        let mut connects = self.class.statements().filter(|one| {
            one.statement.effect == Effect::Allow
                && one.statement.actions.contains(Action::Connect)
                && asking.settled(one, names == Names::Known) != Settled::Unmet
        });
        connects.all(
            |Told {
                 first, statement, ..
             }| {
                let pinned = |pattern: &Pattern| match pattern.raw().as_slice() {
                    [Token::Variable(variable)] => {
                        let stand = self.class.stands.get(first + usize::from(*variable));
                        matches!(stand, Some(Stand::Name | Stand::Absent))
                    }
                    _ => false,
                };
                let resources = statement.resources.iter();
                let mut patterns = resources.flat_map(|resource| resource.patterns(Kind::Client));
                !statement.but && patterns.all(pinned)
            },
        )
    }

    /// Whether it may connect under another name than its thing's, as far as its statements say.
    pub(super) fn is_connected(&self, own: Option<&str>, names: Names) -> bool {
        let connects = Claim {
            action: Action::Connect,
            ..*self
        };
        let steps =
            |first, pattern| connects.steps(first, pattern, own, Client::Any, (false, false));
        let open = |steps: &[Step]| {
            let any = |step: &Step| matches!(step, Step::One | Step::Star | Step::Free);
            let text = |step: &Step| match step {
                Step::Char(c) => Some(*c),
                _ => None,
            };
            let written: Option<String> = steps.iter().map(text).collect();
            steps.iter().any(any)
                || match written {
                    Some(text) => own != Some(&text) && !text.is_empty(),
                    // With the name in it, and more.
                    None => steps != [Step::Own],
                }
        };
        let realm = &self.population.realm;
        let clients = |one: &Told<'c>| -> Vec<Option<Vec<Step>>> {
            let resources = one.statement.resources.iter();
            let ours = resources.filter(|one| one.is_in(realm.region.as_deref(), &realm.account));
            let patterns = ours.flat_map(|resource| resource.patterns(Kind::Client));
            patterns.map(|pattern| steps(one.first, pattern)).collect()
        };
        let known = names == Names::Known;
        let asking = self.asking(Action::Connect);
        let forbidden = |one: Told<'c>| {
            let speaks = one.statement.effect == Effect::Deny
                && one.statement.actions.contains(Action::Connect)
                && asking.settled(&one, known) == Settled::Met;
            let mut clients = clients(&one).into_iter();
            speaks
                && if one.statement.but {
                    // What it spares has no value.
                    clients.all(|steps| steps.is_none())
                } else {
                    clients.any(|steps| steps.is_some_and(|steps| steps == [Step::Star]))
                }
        };
        if self.class.statements().any(forbidden) {
            return false;
        }
        let mut allowed = self.class.statements().filter(|one| {
            one.statement.effect == Effect::Allow
                && one.statement.actions.contains(Action::Connect)
                && asking.settled(one, known) != Settled::Unmet
        });
        allowed.any(|one| {
            let mut clients = clients(&one).into_iter().flatten();
            one.statement.but || clients.any(|steps| open(&steps))
        })
    }

    /// Whether the device may have connected as this.
    fn may_be(&self, own: Option<&str>, client_id: &Arc<str>) -> bool {
        let is_own = own == Some(&**client_id);
        let fits = match self.class.speaks {
            Speaks::Always => true,
            Speaks::ByName => is_own,
            Speaks::Otherwise => !is_own,
            Speaks::Unnamed => return client_id.is_empty(),
        };
        let connects = || {
            self.grant(Action::Connect, own, client_id)
                .decide(Action::Connect, client_id)
        };
        fits && connects().is_allow()
    }

    /// Tries client ids that need not stand in the topic: the names, and what Connect allows.
    pub(super) fn as_some_client(
        &self,
        allow: (usize, &NamedPolicy, &Statement),
        own: Option<&'c str>,
        client: Client<'_>,
    ) -> Option<Box<CounterExample>> {
        if client == Client::Name {
            return None;
        }
        let names = &self.population.names;
        let connects = Claim {
            action: Action::Connect,
            ..*self
        };
        let anything = [vec![Seek::Rest]];
        let allowed = connects.allows(Names::Known).filter_map(|allow| {
            let mut query = connects.query(allow, own, client, Some(&[]))?;
            query.wanted = &anything;
            query.names = None;
            Some(Arc::from(query.run().ok()??.text))
        });
        let allowed: Vec<Arc<str>> = allowed.collect();
        let tried = own.map(Arc::from).into_iter().chain(allowed);
        let tried = tried.chain(self.samples(own));
        for tried in tried.chain(names.iter().take(NAMES_TRIED_MAX).cloned()) {
            if !self.may_be(own, &tried) {
                continue;
            }
            let Some(query) = self.query(allow, own, Client::Is(&tried), Some(names)) else {
                continue;
            };
            if let Ok(Some(found)) = query.run() {
                let other = found.other.and_then(|index| names.get(index));
                let example = self.confirm(own, other, &found.text, &[tried]);
                if example.is_some() {
                    return example;
                }
            }
        }
        None
    }

    /// Client ids that may show it: the name, and where the client may choose, what stands in the
    /// text and Connect allows.
    pub(super) fn clients(
        &self,
        own: Option<&str>,
        text: &str,
        client: Client<'_>,
    ) -> Vec<Arc<str>> {
        if self.class.speaks == Speaks::Unnamed || self.action == Action::GetRetainedMessage {
            return vec!["".into()];
        }
        let mut clients: Vec<Arc<str>> = Vec::new();
        clients.push(own.unwrap_or("client").into());
        if client == Client::Name {
            return clients;
        }
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for from in &starts {
            let ends = starts.iter().copied().chain([text.len()]);
            for to in ends.filter(|to| to > from) {
                if clients.len() < CLIENT_IDS_MAX {
                    clients.extend(text.get(*from..to).map(Into::into));
                }
            }
        }
        clients.retain(|id| self.may_be(own, id));
        clients
    }

    /// Client ids that Connect may allow, one for each way in which it is written.
    fn samples(&self, own: Option<&str>) -> Vec<Arc<str>> {
        let mut samples: Vec<Arc<str>> = Vec::new();
        for one in self.class.statements() {
            for pattern in one
                .statement
                .resources
                .iter()
                .flat_map(|r| r.patterns(Kind::Client))
            {
                let Some(steps) = self.steps(one.first, pattern, own, Client::Any, (false, false))
                else {
                    continue;
                };
                for other in ["x", "xx", ""] {
                    let mut sample = String::new();
                    for step in &steps {
                        match step {
                            Step::Char(c) => sample.push(*c),
                            Step::One => sample.push('x'),
                            Step::Star | Step::Free => sample.push_str(other),
                            Step::Own => sample.push_str(own.unwrap_or("x")),
                        }
                    }
                    samples.push(sample.into());
                }
            }
        }
        samples.retain(|sample| !sample.is_empty());
        samples
    }
}
