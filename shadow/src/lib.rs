//! `shadow` remembers: what a device was asked to be and what it last said it is, classic and by name.
//! `document`, `request`, `answer` and `topic` are pure (no I/O, time as an argument) and build without the feature
//! `server`; with it come the table and the desk where requests are queued, answered together and told of.
//! Below it: `fleet` says which things there are, `store` keeps what was answered.
//! Above it: `muster` brings requests of the reserved topics, `control` those of HTTPS.

pub mod answer;
pub mod document;
pub mod request;
#[cfg(feature = "server")]
mod server;
pub mod topic;

#[cfg(feature = "server")]
pub use server::{
    Message, NAMED_LIMIT_ITEMS, NamedShadows, Publish, ShadowError, ShadowReply, ShadowRequest,
    Shadows, Source,
};
