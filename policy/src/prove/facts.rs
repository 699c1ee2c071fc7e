//! Which conditions the registry settles, and how.

use crate::condition::Condition;
use crate::context::{Context, MessageFacts};
use crate::document::{Effect, Statement};
use crate::grant::NamedPolicy;
use crate::key::Key;
use crate::own::Own;
use crate::realm::{Realm, UnresolvedDeny};

/// What of the registry settles conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Facts {
    /// All that it knows, as it is now.
    #[default]
    Known,
    /// Only what no later change makes otherwise: which thing it is. Types and attributes change,
    /// and certificates follow one another.
    Lasting,
    /// Only how its certificate is attached: what is so of every thing that there could be.
    Attachment,
}

/// What the registry says of a statement's conditions for one principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Settled {
    /// They are met; or there are none.
    Met,
    /// One is not.
    Unmet,
    /// It says nothing against them, and some ask for what a connection, a message or the hour
    /// brings.
    Open,
}

/// How the registry settles each statement's conditions, policy by policy.
pub(crate) fn settled(
    facts: Facts,
    realm: &Realm,
    policies: &[NamedPolicy],
    context: &Context,
) -> Box<[Settled]> {
    let statements = policies.iter().flat_map(|named| {
        let only_denies = context.only_denies(&named.name);
        let statements = named.policy.statements().iter();
        statements.map(move |statement| (only_denies, statement))
    });
    statements
        .map(|(only_denies, statement)| match statement.effect {
            Effect::Allow if only_denies => Settled::Unmet,
            _ => of_statement(facts, realm, statement, context),
        })
        .collect()
}

fn of_statement(facts: Facts, realm: &Realm, statement: &Statement, context: &Context) -> Settled {
    let closed = realm.unresolved_deny == UnresolvedDeny::Closed;
    let fails_closed = closed && statement.effect == Effect::Deny;
    let nothing = MessageFacts::default();
    let mut open = false;
    for condition in &statement.conditions {
        if !is_settled(facts, condition, context) {
            open = true;
            continue;
        }
        let holds = condition.holds(statement.effect, context, &nothing, realm.region.is_none())
            || fails_closed && condition.is_unresolved(context);
        if !holds {
            return Settled::Unmet;
        }
    }
    if open { Settled::Open } else { Settled::Met }
}

/// Whether the registry alone says what a condition comes to.
pub(super) fn is_settled(facts: Facts, condition: &Condition, context: &Context) -> bool {
    condition.keys().all(|key| is_fact(facts, key, context))
}

fn is_fact(facts: Facts, key: &Key, context: &Context) -> bool {
    match key {
        Key::IsAttached | Key::SecureTransport | Key::Foreign(_) => true,
        Key::ThingName => facts != Facts::Attachment || context.thing.is_none(),
        // Who does not speak as a thing has none of them, whatever becomes of the thing.
        Key::ThingTypeName | Key::Attribute(_) => facts == Facts::Known || context.thing.is_none(),
        Key::CertificateId | Key::SerialNumber | Key::AvailableKeys | Key::Certificate(..) => {
            facts == Facts::Known
        }
        // The posture of a device changes without a change in the registry's policies.
        Key::Own(own) => {
            let of_certificate = matches!(own, Own::CertificateKeyKind | Own::EnrolmentWay);
            of_certificate && facts == Facts::Known
        }
        Key::ClientId
        | Key::SourceIp
        | Key::DomainName
        | Key::ConnectAttributes
        | Key::LastWillTopic
        | Key::CurrentTime
        | Key::EpochTime => false,
    }
}
