//! What a connect costs: a full handshake with both certificates, CONNECT, DISCONNECT.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::dial::Dial;
use crate::process::Process;

/// Connects made before the count begins.
const WARM_UP_CONNECTS: u32 = 50;
/// How long the broker may finish closing before its CPU time is read.
const SETTLE: Duration = Duration::from_millis(300);

/// `muster-load connects`.
#[derive(Debug, Args)]
pub(crate) struct Connects {
    /// How many
    #[arg(long, default_value_t = 1500)]
    count: u32,
    /// How many at a time
    #[arg(long, default_value_t = 16)]
    at_once: u32,
}

impl Connects {
    pub(crate) async fn run(&self, dial: Dial, broker: &Process) -> anyhow::Result<Value> {
        ensure!(
            self.at_once > 0 && self.count > 0,
            "--count and --at-once must be above 0"
        );
        for number in 0..WARM_UP_CONNECTS {
            dial.open(&format!("warm-{number}")).await?.close().await?;
        }
        let dial = Rc::new(dial);
        let cpu = broker.cpu_ns()?;
        let began = Instant::now();
        let mut workers = JoinSet::new();
        for worker in 0..self.at_once {
            let dial = Rc::clone(&dial);
            let numbers = (worker..self.count).step_by(self.at_once as usize);
            workers.spawn_local(async move {
                for number in numbers {
                    dial.open(&format!("connect-{number}"))
                        .await?
                        .close()
                        .await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        let took = began.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let cpu = broker.cpu_ns()?.saturating_sub(cpu);
        Ok(json!({
            "connects": self.count,
            "per_s": f64::from(self.count) / took,
            "broker_us_per_connect": cpu as f64 / 1e3 / f64::from(self.count),
        }))
    }
}
