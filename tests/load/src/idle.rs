//! What a session costs that is subscribed and hears nothing.

use std::time::Duration;

use clap::Args;
use mqttbytes::QoS;
use serde_json::{Value, json};

use crate::dial::Dial;
use crate::process::Process;

/// Connections made before the first look, so that what exists once is not counted.
const WARM_UP_CONNECTIONS: usize = 64;
/// How long the broker may tidy up before memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// How long the CPU time of idleness is watched.
const WATCH: Duration = Duration::from_secs(3);

/// `muster-load idle`.
#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// How many
    #[arg(long, default_value_t = 2000)]
    connections: u32,
}

impl Idle {
    pub(crate) async fn run(&self, dial: &Dial, broker: &Process) -> anyhow::Result<Value> {
        let mut held = Vec::new();
        for number in 0..WARM_UP_CONNECTIONS {
            held.push(dial.open(&format!("warm-{number}")).await?);
        }
        tokio::time::sleep(SETTLE).await;
        let before = broker.private_bytes()?;
        for number in 0..self.connections {
            let mut connection = dial.open(&format!("idle-{number}")).await?;
            let filter = format!("cmd/idle-{number}/#");
            connection.subscribe(&filter, QoS::AtLeastOnce).await?;
            held.push(connection);
        }
        tokio::time::sleep(SETTLE).await;
        let after = broker.private_bytes()?;
        let cpu = broker.cpu_ns()?;
        tokio::time::sleep(WATCH).await;
        let cpu = broker.cpu_ns()?.saturating_sub(cpu);
        Ok(json!({
            "connections": self.connections,
            "bytes_per_connection": after.saturating_sub(before) / u64::from(self.connections.max(1)),
            "cpu_ms_per_s": cpu as f64 / 1e6 / WATCH.as_secs_f64(),
        }))
    }
}
