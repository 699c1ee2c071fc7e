//! A data directory, opened as the server opens it, without the server's ports.

use anyhow::Context as _;
use ca::{Authority, AuthorityConfig};
use fleet::Fleet;
use policy::Realm;
use std::{path::Path, sync::Arc, time::SystemTime};
use store::Store;

/// The registry below `data` and what it stands on. The authority is made where there is none.
pub(crate) fn open(data: &Path) -> anyhow::Result<(Store, Fleet)> {
    let now = SystemTime::now();
    let store = Store::open(data).with_context(|| format!("open {}", data.display()))?;
    let config = AuthorityConfig {
        name: "Muster".to_owned(),
        public_url: "http://localhost:8880".to_owned(),
    };
    let authority = Authority::open_or_create(&data.join("ca"), config, now)?;
    let fleet = Fleet::open(
        &store,
        Arc::new(authority),
        Realm::live("000000000000"),
        now,
    )?;
    Ok((store, fleet))
}

/// The name of the device with this number.
pub(crate) fn device(number: u64) -> String {
    format!("lamp-{number:07}")
}
