//! What a session costs that is subscribed and hears nothing.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use hdrhistogram::Histogram;
use mqttbytes::QoS;
use mqttbytes::v4::{Packet, PingReq};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Processes;
use crate::dial::{Connection, Dial, Hello, Seat};
use crate::error::BenchError;
use crate::report::{IdleReport, Latency};
use crate::template::{self, Values};

/// Connections made before the first look, so that what exists once is not counted.
pub(crate) const WARM_UP_CONNECTIONS: u32 = 64;
/// How long one that was turned away waits before it comes again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often one comes before the broker is said to be at fault.
const TRIES: u32 = 60;

/// Connections that are held.
#[derive(Debug, Clone)]
pub struct Idle {
    /// How many.
    pub connections: u32,
    /// How many of them dial at a time.
    pub at_once: u32,
    /// The filter each subscribes to: `%i` is its number.
    pub filter: String,
    /// Keep alive in seconds: each pings at three quarters of it. 0 asks for none.
    pub keep_alive_seconds: u16,
    /// How long the broker may tidy up before its memory is read.
    pub settle_seconds: u32,
    /// How long the CPU time of idleness is watched.
    pub seconds: u32,
}

impl Idle {
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        for (flag, value) in [
            ("--connections", self.connections),
            ("--at-once", self.at_once),
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
    let settle = Duration::from_secs(u64::from(work.settle_seconds));
    let pings = Rc::new(Cell::new(0));
    let mut tasks = JoinSet::new();
    for seat in &warm {
        let connection = seat.open(hello).await?;
        tasks.spawn_local(hold(connection, hello, Rc::clone(&pings)));
    }
    tokio::time::sleep(settle).await;
    let memory_before = processes.broker.map(|broker| broker.private_bytes());
    let memory_before = memory_before.transpose()?;
    let began = Instant::now();
    let dialing = Arc::new(Semaphore::new(work.at_once as usize));
    let (opened, mut openings) = mpsc::unbounded_channel();
    for (number, seat) in (0..).zip(idle) {
        let (filter, opened) = (work.filter_of(number)?, opened.clone());
        let (dialing, pings) = (Arc::clone(&dialing), Rc::clone(&pings));
        tasks.spawn_local(async move {
            let turn = dialing.acquire().await;
            let (connection, opening) = open(&seat, hello, filter).await?;
            drop(turn);
            // Who does not listen any more has its figures.
            let _ = opened.send(opening);
            hold(connection, hello, pings).await
        });
    }
    let mut waits = Histogram::new_with_bounds(1, 600_000_000_000, 3)
        .map_err(|error| BenchError::Runtime(std::io::Error::other(error)))?;
    let mut turned_away = 0;
    for _ in 0..work.connections {
        let opening = tokio::select! {
            Some(opening) = openings.recv() => opening,
            Some(ended) = tasks.join_next() => {
                return Err(broke(ended));
            }
        };
        let took = u64::try_from(opening.took.as_nanos()).unwrap_or(u64::MAX);
        waits.saturating_record(took);
        turned_away += u64::from(opening.turned_away);
    }
    let connecting = began.elapsed();
    tokio::time::sleep(settle).await;
    let memory = processes.broker.map(|broker| broker.private_bytes());
    let memory = memory.transpose()?;
    let cpu_before = processes.broker.map(|broker| broker.cpu_ns()).transpose()?;
    let pings_before = pings.get();
    let watch = Duration::from_secs(u64::from(work.seconds));
    tokio::time::sleep(watch).await;
    let cpu = processes.broker.map(|broker| broker.cpu_ns()).transpose()?;
    // Connections that the broker has ended are not idle, they are gone.
    if let Some(ended) = tasks.try_join_next() {
        return Err(broke(ended));
    }
    let growth = memory.zip(memory_before);
    Ok(IdleReport {
        connections: work.connections,
        keep_alive_seconds: work.keep_alive_seconds,
        connecting_seconds: connecting.as_secs_f64(),
        connecting_us: Latency::of(&waits),
        turned_away,
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

/// What became of one that wanted in.
struct Opening {
    /// From its first try to its SUBACK.
    took: Duration,
    turned_away: u32,
}

/// Opens and subscribes one; if it is turned away or not answered it comes again, as a device does.
async fn open(
    seat: &Seat,
    hello: Hello,
    filter: String,
) -> Result<(Connection, Opening), BenchError> {
    let began = Instant::now();
    let mut turned_away = 0;
    let mut connection = loop {
        match seat.open(hello).await {
            Ok(connection) => break connection,
            Err(error) if turned_away + 1 == TRIES => return Err(error),
            Err(_) => turned_away += 1,
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    };
    connection.subscribe(vec![filter], QoS::AtLeastOnce).await?;
    let took = began.elapsed();
    Ok((connection, Opening { took, turned_away }))
}

/// Why one that should be held is not.
fn broke(ended: Result<Result<(), BenchError>, tokio::task::JoinError>) -> BenchError {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => BenchError::Runtime(std::io::Error::other("a connection was let go")),
        Err(broken) => BenchError::Runtime(std::io::Error::other(broken)),
    }
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
            at_once: 1,
            filter: "cmd/idle-%i/#".into(),
            keep_alive_seconds: 60,
            settle_seconds: 0,
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
