//! Publisher N to subscriber N at a steady rate, QoS 0.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BufMut as _, BytesMut};
use clap::Args;
use hdrhistogram::Histogram;
use mqttbytes::QoS;
use mqttbytes::v4::{Packet, Publish};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::dial::{self, Connection, Dial};
use crate::process::Process;

/// How long the load runs before the count begins.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long messages on their way are waited for.
const GRACE: Duration = Duration::from_secs(1);
/// The smallest payload: the time it was sent.
const STAMP_BYTES: usize = 8;
const READ_BYTES: usize = 16 << 10;

/// `muster-load pairs`.
#[derive(Debug, Args)]
pub(crate) struct Pairs {
    /// How many publishers, and how many subscribers
    #[arg(long, default_value_t = 100)]
    pairs: u32,
    /// Messages a second, over all publishers
    #[arg(long, default_value_t = 5000)]
    rate: u32,
    /// Payload bytes
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// How long to measure
    #[arg(long, default_value_t = 8)]
    seconds: u64,
}

struct Count {
    epoch: Instant,
    counting: Cell<bool>,
    sent: Cell<u64>,
    delivered: Cell<u64>,
    latency_ns: RefCell<Histogram<u64>>,
}

impl Count {
    fn stamp(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Pairs {
    pub(crate) async fn run(&self, dial: Dial, broker: &Process) -> anyhow::Result<Value> {
        ensure!(
            self.pairs > 0 && self.rate > 0,
            "--pairs and --rate must be above 0"
        );
        ensure!(
            self.size >= STAMP_BYTES,
            "--size must be at least {STAMP_BYTES}"
        );
        let count = Rc::new(Count {
            epoch: Instant::now(),
            counting: Cell::new(false),
            sent: Cell::new(0),
            delivered: Cell::new(0),
            latency_ns: RefCell::new(Histogram::new(3)?),
        });
        for pair in 0..self.pairs {
            let mut connection = dial.open(&format!("sub-{pair}")).await?;
            connection.subscribe(&topic(pair), QoS::AtMostOnce).await?;
            tokio::task::spawn_local(hear(connection, Rc::clone(&count)));
        }
        let every = Duration::from_secs_f64(f64::from(self.pairs) / f64::from(self.rate));
        for pair in 0..self.pairs {
            let connection = dial.open(&format!("pub-{pair}")).await?;
            // Spread over the interval, so that the rate is steady within it too.
            let first = Instant::now() + every.mul_f64(f64::from(pair) / f64::from(self.pairs));
            let speak = speak(
                connection,
                topic(pair),
                self.size,
                first,
                every,
                Rc::clone(&count),
            );
            tokio::task::spawn_local(speak);
        }
        tokio::time::sleep(WARM_UP).await;
        let (cpu, began) = (broker.cpu_ns()?, Instant::now());
        count.counting.set(true);
        tokio::time::sleep(Duration::from_secs(self.seconds)).await;
        let cpu = broker.cpu_ns()?.saturating_sub(cpu);
        let delivered_in_time = count.delivered.get();
        count.counting.set(false);
        let took = began.elapsed().as_secs_f64();
        tokio::time::sleep(GRACE).await;
        ensure!(delivered_in_time > 0, "nothing was delivered");
        let latency = count.latency_ns.borrow();
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        Ok(json!({
            "pairs": self.pairs, "rate": self.rate, "size": self.size,
            "sent": count.sent.get(),
            "delivered": delivered_in_time,
            "per_s": delivered_in_time as f64 / took,
            "broker_us_per_message": cpu as f64 / 1e3 / delivered_in_time as f64,
            "p50_us": at(0.5), "p99_us": at(0.99),
        }))
    }
}

fn topic(pair: u32) -> String {
    format!("load/{pair}/data")
}

/// Reads until the connection ends, which is when the program does.
async fn hear(mut connection: Connection, count: Rc<Count>) -> anyhow::Result<()> {
    loop {
        while let Some(packet) = dial::next(&mut connection.read)? {
            let Packet::Publish(mut publish) = packet else {
                continue;
            };
            if count.counting.get() {
                let sent = publish
                    .payload
                    .try_get_u64()
                    .context("a message without its time")?;
                count.delivered.set(count.delivered.get() + 1);
                let latency = count.stamp().saturating_sub(sent);
                count.latency_ns.borrow_mut().saturating_record(latency);
            }
        }
        connection.read.reserve(READ_BYTES);
        if connection.stream.read_buf(&mut connection.read).await? == 0 {
            return Ok(());
        }
    }
}

async fn speak(
    mut connection: Connection,
    topic: String,
    size: usize,
    first: Instant,
    every: Duration,
    count: Rc<Count>,
) -> anyhow::Result<()> {
    let mut due = first;
    let mut out = BytesMut::new();
    loop {
        tokio::time::sleep_until(due).await;
        due += every;
        let mut payload = Vec::with_capacity(size);
        payload.put_u64(count.stamp());
        payload.resize(size, b'x');
        out.clear();
        Publish::new(topic.as_str(), QoS::AtMostOnce, payload)
            .write(&mut out)
            .map_err(dial::mqtt)?;
        connection.stream.write_all(&out).await?;
        connection.stream.flush().await?;
        if count.counting.get() {
            count.sent.set(count.sent.get() + 1);
        }
    }
}
