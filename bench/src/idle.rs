//! What a session costs that is subscribed and hears nothing.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4::{Packet, PingReq};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Processes;
use crate::dial::{Connection, Dial, Hello};
use crate::error::BenchError;
use crate::report::IdleReport;
use crate::template::{self, Values};

/// Connections made before the first look, so that what exists once is not counted.
pub(crate) const WARM_UP_CONNECTIONS: u32 = 64;
/// How long the broker may tidy up before memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// Connections that are held.
#[derive(Debug, Clone)]
pub struct Idle {
    /// How many.
    pub connections: u32,
    /// The filter each subscribes to: `%i` is its number.
    pub filter: String,
    /// Keep alive in seconds: each pings at three quarters of it. 0 asks for none.
    pub keep_alive_seconds: u16,
    /// How long the CPU time of idleness is watched.
    pub seconds: u32,
}

impl Idle {
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        for (flag, value) in [
            ("--connections", self.connections),
            ("--seconds", self.seconds),
        ] {
            if value == 0 {
                return Err(BenchError::Flag {
                    flag,
                    value: value.to_string(),
                    mend: "take at least 1".into(),
                });
            }
        }
        self.filter_of(0).map(|_| ())
    }

    fn filter_of(&self, number: u32) -> Result<String, BenchError> {
        let values = Values {
            number: &number.to_string(),
            role: "%r",
            name: "%n",
        };
        template::fill("--filter", &self.filter, values)
    }
}

/// Runs it.
pub(crate) async fn run(
    work: &Idle,
    dial: &Dial,
    processes: Processes,
) -> Result<IdleReport, BenchError> {
    let hello = Hello {
        clean: true,
        keep_alive_s: work.keep_alive_seconds,
    };
    let [warm, idle] = dial.seats([("warm", WARM_UP_CONNECTIONS), ("idle", work.connections)])?;
    let pings = Rc::new(Cell::new(0));
    let mut tasks = JoinSet::new();
    for seat in &warm {
        let connection = seat.open(hello).await?;
        tasks.spawn_local(hold(connection, hello, Rc::clone(&pings)));
    }
    tokio::time::sleep(SETTLE).await;
    let memory_before = processes.broker.map(|broker| broker.private_bytes());
    let memory_before = memory_before.transpose()?;
    let began = Instant::now();
    for (number, seat) in (0..).zip(&idle) {
        let mut connection = seat.open(hello).await?;
        let filter = work.filter_of(number)?;
        connection.subscribe(vec![filter], QoS::AtLeastOnce).await?;
        tasks.spawn_local(hold(connection, hello, Rc::clone(&pings)));
    }
    let connecting = began.elapsed();
    tokio::time::sleep(SETTLE).await;
    let memory = processes.broker.map(|broker| broker.private_bytes());
    let memory = memory.transpose()?;
    let cpu_before = processes.broker.map(|broker| broker.cpu_ns()).transpose()?;
    let pings_before = pings.get();
    let watch = Duration::from_secs(u64::from(work.seconds));
    tokio::time::sleep(watch).await;
    let cpu = processes.broker.map(|broker| broker.cpu_ns()).transpose()?;
    // Connections that the broker has ended are not idle, they are gone.
    while let Some(ended) = tasks.try_join_next() {
        let ended = ended.map_err(|broken| BenchError::Runtime(std::io::Error::other(broken)))?;
        ended?;
    }
    let growth = memory.zip(memory_before);
    Ok(IdleReport {
        connections: work.connections,
        keep_alive_seconds: work.keep_alive_seconds,
        connecting_seconds: connecting.as_secs_f64(),
        seconds: work.seconds,
        pings: pings.get() - pings_before,
        bytes_per_connection: growth
            .map(|(after, before)| after.saturating_sub(before) / u64::from(work.connections)),
        private_bytes: memory,
        cpu_ms_per_s: cpu
            .zip(cpu_before)
            .map(|(after, before)| after.saturating_sub(before) as f64 / 1e6 / watch.as_secs_f64()),
    })
}

/// Keeps a connection, with as little of its own as goes.
async fn hold(
    mut connection: Connection,
    hello: Hello,
    pings: Rc<Cell<u64>>,
) -> Result<(), BenchError> {
    let mut ping = BytesMut::new();
    PingReq
        .write(&mut ping)
        .map_err(|cause| connection.malformed(cause))?;
    let every = match hello.keep_alive_s {
        0 => Duration::MAX,
        seconds => Duration::from_secs(u64::from(seconds)).mul_f64(0.75),
    };
    loop {
        connection.shrink();
        let quiet = tokio::time::timeout(every, connection.fill()).await;
        match quiet {
            Ok(filled) => filled?,
            Err(_) => {
                connection.send(&ping, "send PINGREQ").await?;
                connection.fill().await?;
            }
        }
        while let Some(packet) = connection.buffered()? {
            if packet == Packet::PingResp {
                pings.set(pings.get() + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_a_place_for_the_number() {
        let mut work = Idle {
            connections: 1,
            filter: "cmd/idle-%i/#".into(),
            keep_alive_seconds: 60,
            seconds: 1,
        };
        work.check().unwrap();
        assert_eq!(work.filter_of(7).unwrap(), "cmd/idle-7/#");
        work.filter = "%q".into();
        assert!(work.check().is_err());
        work.connections = 0;
        let error = work.check().unwrap_err().to_string();
        assert_eq!(error, "--connections 0: take at least 1");
    }
}
