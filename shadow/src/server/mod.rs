//! Where shadows are kept, asked for and told of.

mod desk;
mod kept;
mod records;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fleet::FleetError;
use store::StoreError;

pub use desk::{ShadowReply, ShadowRequest, Shadows, Source};
pub use records::NAMED_LIMIT_ITEMS;

/// The store's table.
const TABLE: &str = "shadows";

/// A message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
}

/// How messages leave: to whoever subscribed and may receive them. May block.
pub type Publish = Arc<dyn Fn(Message) + Send + Sync>;

/// A page of the names of a thing's shadows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedShadows {
    /// In order.
    pub names: Vec<String>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// Why shadows cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The operating system refused a thread.
    #[error("cannot start the thread of shadows: {0}")]
    Thread(#[source] std::io::Error),
}
