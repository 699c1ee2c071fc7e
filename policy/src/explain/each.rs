//! What needs several grants at once: a message to be retained, a connection with a will.

use super::{Explanation, listed};
use crate::action::Action;
use crate::context::MessageFacts;
use crate::decision::Decision;
use crate::default::GrantText;
use crate::document::Effect;
use crate::grant::Grant;
use crate::shown::{NAME_MAX_CHARS, shown};

/// What is asked: an action, on what, of which message.
type Asked<'n> = (Action, &'n str, MessageFacts);

impl Grant {
    /// Explains what is allowed only where each of these is. Where all are, it is the first that is explained; else one
    /// that is denied, a Deny before what no statement allows, with what stands in the way of the others and one
    /// statement that grants all that is missing.
    #[must_use]
    pub fn explain_each<'n>(
        &self,
        first: Asked<'n>,
        more: impl IntoIterator<Item = Asked<'n>>,
    ) -> Explanation {
        let of =
            |(action, name, message): Asked<'n>| (name, self.explain_for(action, name, &message));
        let first = of(first);
        let all = std::iter::once(first.clone()).chain(more.into_iter().map(of));
        let mut denied: Vec<(&str, Explanation)> = all
            .filter(|(_, explanation)| !explanation.decision.is_allow())
            .collect();
        // The sort is stable: what was asked first is told first.
        denied.sort_by_key(|(_, explanation)| explanation.decision != Decision::ExplicitDeny);
        let missing = denied.iter().filter_map(|(_, e)| e.missing_grant.as_ref());
        let joined = GrantText::joined(missing);
        let mut denied = denied.into_iter();
        let Some((name, mut explanation)) = denied.next() else {
            return first.1;
        };
        explanation.missing_grant = joined;
        explanation.summary = self.summary(&explanation, name);
        for (_, other) in denied {
            let resource = shown(&other.resource, NAME_MAX_CHARS);
            let action = other.action;
            explanation.summary.push_str(&match other.decision {
                Decision::ExplicitDeny => {
                    let denies = listed(&other.statements, Effect::Deny);
                    format!("; besides, {denies} denies {action} on {resource}")
                }
                _ => format!("; nor does a statement allow {action} on {resource}"),
            });
            let denies = other
                .statements
                .into_iter()
                .filter(|s| s.effect == Effect::Deny);
            explanation.statements.extend(denies);
        }
        explanation
    }
}
