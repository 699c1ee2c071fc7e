//! Whose policies are judged, and by which of the ways that there are.

use serde::Deserialize;

/// What an ARN must carry to speak of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// The region; `None` takes any region for its own, as a live server does.
    pub region: Option<Box<str>>,
    /// The account id.
    pub account: Box<str>,
    /// What a Deny does whose variable has no value.
    pub unresolved_deny: UnresolvedDeny,
    /// Whether a subscription is judged by the text of its filter alone, as AWS does, and a Deny
    /// inside it is left to [`crate::Action::Receive`].
    pub textual_subscriptions: bool,
}

/// What a Deny does whose variable has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnresolvedDeny {
    /// It matches nothing, as in AWS: the Deny fails open.
    #[default]
    Open,
    /// It denies as if the variable could stand for anything. A `NotResource` of an Allow then
    /// spares as much.
    Closed,
}

impl Realm {
    /// The realm of a running server: any region, this account.
    #[must_use]
    pub fn live(account: &str) -> Self {
        Self {
            region: None,
            account: account.into(),
            unresolved_deny: UnresolvedDeny::Open,
            textual_subscriptions: false,
        }
    }

    /// Region and account as strict as AWS.
    #[must_use]
    pub fn exact(region: &str, account: &str) -> Self {
        Self {
            region: Some(region.into()),
            account: account.into(),
            unresolved_deny: UnresolvedDeny::Open,
            textual_subscriptions: true,
        }
    }
}
