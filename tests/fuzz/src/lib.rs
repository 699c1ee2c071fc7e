//! What holds whatever bytes come: of `broker` codec, session machine, topics and WebSocket framing; of `ota`'s pure half
//! whatever it reads; of `ca`, that it takes no key, request or certificate for what it is not; of `policy`, that it decides
//! as a second, naive engine does; of `shadow`, that documents keep the laws of merging.
//! Each target is a function that panics where it does not hold; the programs under `bin` let libFuzzer look for such
//! bytes (`run.sh`), `tests/kept.rs` gives the targets what was found interesting before (`corpus`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness tells by a panic"
)]

mod codec;
mod differential;
mod firmware;
mod identity;
mod language;
mod session;
mod shadows;
mod topics;
mod websocket;

pub use codec::codec;
pub use differential::differential;
pub use firmware::firmware;
pub use identity::identity;
pub use language::{policy, policy_case};
pub use session::session;
pub use shadows::shadow;
pub use topics::topics;
pub use websocket::websocket;

use broker::codec::{Limits, Version};

/// What the decoder is held to: little, so that the bounds are met.
pub(crate) const LIMITS: Limits = Limits {
    packet_max_bytes: 64 * 1024,
    user_properties_max: 8,
    filters_max: 8,
};

/// The first byte chooses the version.
fn version(bytes: &[u8]) -> Option<(Version, u8, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let version = match first & 1 {
        0 => Version::V311,
        _ => Version::V5,
    };
    Some((version, first >> 1, rest))
}
