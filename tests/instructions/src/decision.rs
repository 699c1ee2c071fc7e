//! A decision of the ordinary device's policy.

use std::hint::black_box;
use std::sync::Arc;

use policy::{Action, Context, Grant, NamedPolicy, Policy, Realm, device_default_text};

use crate::Step;

const ACCOUNT: &str = "000000000000";

pub(crate) fn allow() -> Step {
    decide("dt/lamp-1/light", true)
}

pub(crate) fn deny() -> Step {
    decide("dt/lamp-2/light", false)
}

#[expect(
    clippy::expect_used,
    reason = "device-default is of the language, and its name is one"
)]
fn decide(topic: &'static str, allowed: bool) -> Step {
    let policy = Policy::parse(&device_default_text(ACCOUNT)).expect("device-default is a policy");
    let named = NamedPolicy {
        name: "device-default".parse().expect("a name"),
        policy: Arc::new(policy),
    };
    let grant = Grant::new(
        Arc::new(Realm::live(ACCOUNT)),
        Arc::from([named]),
        Context::of("lamp-1", Some("lamp-1"), None),
    );
    Box::new(move || {
        let decision = black_box(&grant).decide(Action::Publish, black_box(topic));
        assert_eq!(decision.is_allow(), allowed);
    })
}
