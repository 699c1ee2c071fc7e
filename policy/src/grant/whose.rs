//! What a grant keeps of its connection: no more than its policies can ask, and small, for there is
//! one for each connected principal.

use std::sync::{Arc, LazyLock};

use super::Met;
use crate::arn::Resource;
use crate::asked::{Asked, Fact};
use crate::context::{Context, ThingFacts};
use crate::pattern::Values;

/// Statements whose conditions' outcomes stand in one word, two bits each.
const FEW: usize = 32;

/// A connection of which nothing is known.
pub(super) static NOTHING: LazyLock<Context> = LazyLock::new(Context::default);

/// What is one connection's own.
#[derive(Debug)]
pub(super) struct Whose {
    /// The values of each policy's variables, one policy behind the other; where all have the same
    /// variables, once.
    values: Bindings,
    client_id: Arc<str>,
    thing: Option<Arc<ThingFacts>>,
    /// What else is asked for and what decides besides; nothing where all conditions are met, as
    /// they mostly are, and no variable lacks a value that somebody must be held to.
    more: Option<Box<More>>,
}

#[derive(Debug)]
struct More {
    /// What policies ask for beyond client id and thing.
    facts: Box<[Fact]>,
    /// Of each of the first statements, whether its conditions are met.
    met: u64,
    rare: Option<Box<Rare>>,
}

#[derive(Debug)]
struct Rare {
    /// Of every statement, where they are more than a word holds and not all met.
    met: Box<[Met]>,
    /// By statement, the resources that stand in for those with an unresolved variable.
    opened: Box<[(usize, Resource)]>,
}

/// The values of variables. Most policies hold one, if any.
#[derive(Debug)]
pub(super) enum Bindings {
    One([Option<Arc<str>>; 1]),
    Many(Box<[Option<Arc<str>>]>),
}

impl Bindings {
    pub(super) fn of(mut values: impl Iterator<Item = Option<Arc<str>>>) -> Self {
        match (values.next(), values.next()) {
            (Some(first), None) => Self::One([first]),
            (first, second) => {
                let all = first.into_iter().chain(second).chain(values);
                Self::Many(all.collect())
            }
        }
    }

    #[inline]
    pub(super) fn all(&self) -> Values<'_> {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl Whose {
    /// Keeps of a connection what is asked of it; `met` is of every statement.
    pub(super) fn new(
        values: Bindings,
        context: &Context,
        asked: Asked,
        met: Vec<Met>,
        opened: Vec<(usize, Resource)>,
    ) -> Self {
        let facts = asked.of(context);
        let all_met = met.iter().all(|met| *met == Met::Yes);
        let bare = facts.is_empty() && all_met && opened.is_empty();
        let packed = |word: u64, (place, met): (usize, &Met)| word | (*met as u64) << (2 * place);
        let more = || {
            let many = !all_met && met.len() > FEW;
            let word = met.iter().enumerate().take(FEW).fold(0, packed);
            let rare = many || !opened.is_empty();
            Box::new(More {
                facts,
                met: word,
                rare: rare.then(|| {
                    Box::new(Rare {
                        met: if many { met.into() } else { Box::default() },
                        opened: opened.into(),
                    })
                }),
            })
        };
        Self {
            values,
            client_id: Arc::clone(&context.client_id),
            thing: context.thing.clone(),
            more: (!bare).then(more),
        }
    }

    /// The values of all variables.
    #[inline]
    pub(super) fn values(&self) -> Values<'_> {
        self.values.all()
    }

    /// What is known of the connection, as far as policies ask for it.
    pub(super) fn context(&self) -> Context {
        let mut context = Context {
            client_id: Arc::clone(&self.client_id),
            thing: self.thing.clone(),
            ..NOTHING.clone()
        };
        let facts = self.more.iter().flat_map(|more| &more.facts);
        facts.for_each(|fact| fact.tell(&mut context));
        context
    }

    /// Whether the conditions of a statement are met.
    #[inline]
    pub(super) fn met(&self, number: usize) -> Met {
        match self.more.as_deref() {
            None => Met::Yes,
            Some(More {
                rare: Some(rare), ..
            }) if !rare.met.is_empty() => rare.met.get(number).copied().unwrap_or(Met::No),
            Some(_) if number >= FEW => Met::Yes,
            Some(more) => match more.met >> (2 * number) & 3 {
                0 => Met::Yes,
                1 => Met::No,
                _ => Met::Ask,
            },
        }
    }

    /// By statement, the resources that stand in for those with an unresolved variable.
    #[inline]
    pub(super) fn opened(&self) -> &[(usize, Resource)] {
        let rare = self.more.as_deref().and_then(|more| more.rare.as_deref());
        rare.map_or(&[], |rare| &rare.opened)
    }
}
