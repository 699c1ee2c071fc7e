//! The policy engine: decides what a device may do, and says why.
//!
//! Job: read policy documents of the AWS IoT language whole or refuse them by name and place,
//! compile them once, share them between connections, and judge every connect, publish,
//! subscription and delivery without allocating. Pure: no I/O, no clock, no runtime.
//! Neighbours: nothing below; `fleet` keeps documents and attachments and builds each
//! principal's [`Grant`]; `broker` asks it; `control` stores what [`Policy::parse`] took.
//!
//! ```
//! use std::sync::Arc;
//! use policy::{Action, Context, Decision, Grant, NamedPolicy, Realm, device_default};
//!
//! let account = "000000000000";
//! let grant = Grant::new(
//!     Arc::new(Realm::live(account)),
//!     Arc::from([NamedPolicy {
//!         name: "device-default".parse()?,
//!         policy: Arc::new(device_default(account)?),
//!     }]),
//!     Context::of("lamp-1", Some("lamp-1"), None),
//! );
//! assert_eq!(grant.decide(Action::Publish, "dt/lamp-1/light"), Decision::Allow);
//! assert_eq!(grant.decide(Action::Publish, "dt/lamp-2/light"), Decision::ImplicitDeny);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod arn;
mod asked;
mod change;
mod condition;
mod context;
mod coverage;
mod decision;
mod default;
mod document;
mod error;
mod explain;
mod gate;
mod grant;
mod json;
mod key;
mod lint;
mod name;
mod networks;
mod operator;
mod own;
mod pattern;
mod prove;
mod realm;
mod shown;
mod suggest;
mod tokens;
mod values;
pub mod vectors;

#[cfg(test)]
mod letter;
#[cfg(test)]
mod own_tests;
#[cfg(test)]
mod properties;

pub use action::{Action, UnknownAction};
pub use change::{Change, Comparison};
pub use context::{
    CertificateValues, ConnectAttributes, Context, FIELD_MAX_VALUES, Listener, MessageFacts,
    Posture, ThingFacts, TlsVersion, VARIABLE_MAX_CHARS,
};
pub use decision::Decision;
pub use default::{DEVICE_DEFAULT, GrantText, device_default, device_default_text};
pub use document::{AWS_DOCUMENT_MAX_VISIBLE_CHARS, Effect, Limits, Policy};
pub use error::{PolicyError, Problem};
pub use explain::{Explanation, REASON_MAX_BYTES, StatementRef, VariableValue};
pub use grant::{Grant, NamedPolicy};
pub use key::{Field, Holder};
pub use lint::{Finding, FindingKind};
pub use name::{InvalidPolicyName, PolicyName};
pub use networks::{NETWORK_MAX_RANGES, NetworkError, Networks};
pub use prove::{
    CounterExample, Given, Invariant, InvariantError, InvariantText, Needs, Population, Proof,
};
pub use realm::{Realm, UnresolvedDeny};
pub use shown::misleads;
pub use suggest::{Allowance, Doer, Observed, suggest};
