//! What comes of asking.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Outcome of a decision. Only [`Decision::Allow`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[must_use]
pub enum Decision {
    /// A statement allows and none denies.
    Allow,
    /// A statement denies.
    ExplicitDeny,
    /// No statement speaks of it.
    ImplicitDeny,
}

impl Decision {
    /// Whether the decision is [`Decision::Allow`].
    #[must_use]
    pub fn is_allow(self) -> bool {
        self == Decision::Allow
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decision::Allow => "allow",
            Decision::ExplicitDeny => "explicit deny",
            Decision::ImplicitDeny => "implicit deny",
        })
    }
}
