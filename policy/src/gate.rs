//! What a decision looks at first of a statement: enough to pass by nearly all that do not speak.
//!
//! Gates lie side by side, so that a decision walks over hundreds of statements without following
//! a pointer.

use crate::action::{Action, ActionSet};
use crate::document::Statement;
use crate::pattern::Prefix;

/// A statement's actions, and how the names begin that it can speak of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gate {
    actions: ActionSet,
    prefix: Prefix,
}

impl Gate {
    pub(crate) fn of(statement: &Statement) -> Self {
        // What is not spared begins anyhow.
        let prefix = if statement.but {
            Prefix::ANY
        } else {
            let patterns = statement.resources.iter().flat_map(|r| r.all_patterns());
            let prefixes = patterns.map(|pattern| pattern.prefix());
            prefixes.reduce(Prefix::common).unwrap_or(Prefix::ANY)
        };
        Self {
            actions: statement.actions,
            prefix,
        }
    }

    /// Whether the statement may speak of this. Without a beginning only the action tells.
    #[inline]
    pub(crate) fn lets_pass(&self, action: Action, beginning: Option<u64>) -> bool {
        self.actions.contains(action) && beginning.is_none_or(|word| self.prefix.begins(word))
    }
}
