//! `DIR/run/endpoints.json`: where the running server listens, for the operator's verbs and for scripts.

use anyhow::Context as _;
use control::{Endpoint, Endpoints};
use serde_json::json;
use std::path::{Path, PathBuf};

fn path(data: &Path) -> PathBuf {
    data.join("run/endpoints.json")
}

pub(super) fn write(data: &Path, endpoints: &Endpoints, http: &Endpoint) -> anyhow::Result<()> {
    let text = json!({
        "mqtt": endpoints.mqtt.to_string(),
        "wss": endpoints.wss.to_string(),
        "https": endpoints.https.to_string(),
        "http": http.to_string(),
    });
    let path = path(data);
    store::files::write_public(&path, format!("{text}\n").as_bytes())
        .with_context(|| format!("write {}", path.display()))
}

/// Whether any start has come this far: the directory stays when the file goes.
pub(super) fn was_written(data: &Path) -> bool {
    path(data).parent().is_some_and(Path::exists)
}

/// A verb that finds no file says that no server runs.
pub(super) fn remove(data: &Path) {
    match std::fs::remove_file(path(data)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "endpoints.json could not be removed");
        }
        _ => {}
    }
}
