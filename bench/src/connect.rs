//! What a connect costs: a handshake with both certificates, CONNECT, DISCONNECT.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::Processes;
use crate::dial::{Dial, Hello, Seat};
use crate::error::BenchError;
use crate::report::{Broker, ConnectReport, Latency, Load};

/// Connects made before the count begins, at least one of each worker.
const WARM_UP_CONNECTS: u32 = 50;
/// How long the broker may finish closing before its CPU time is read.
const SETTLE: Duration = Duration::from_millis(300);

/// Connections that are opened and closed again.
#[derive(Debug, Clone)]
pub struct Connect {
    /// How many.
    pub count: u32,
    /// How many at a time.
    pub at_once: u32,
    /// Whether TLS sessions are resumed where the broker lets them.
    pub resume: bool,
}

#[derive(Default)]
struct Outcome {
    resumed: u32,
    failed: u32,
    first_failure: Option<BenchError>,
}

impl Connect {
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        for (flag, value) in [("--count", self.count), ("--at-once", self.at_once)] {
            if value == 0 {
                return Err(BenchError::Flag {
                    flag,
                    value: value.to_string(),
                    mend: "take at least 1".into(),
                });
            }
        }
        Ok(())
    }
}

/// Runs it.
pub(crate) async fn run(
    work: &Connect,
    dial: &Dial,
    processes: Processes,
) -> Result<ConnectReport, BenchError> {
    let mut workers = Vec::new();
    for worker in 0..work.at_once {
        let seat = dial.seat(worker, "connect", worker)?;
        // Tickets are good once, so each worker has its own: the next connect resumes the one before.
        workers.push(if work.resume { seat.resuming() } else { seat });
    }
    for number in 0..WARM_UP_CONNECTS.max(work.at_once) {
        if let Some(seat) = workers.get((number % work.at_once) as usize) {
            seat.open(Hello::CLEAN).await?.close().await?;
        }
    }
    let outcome = Rc::new(RefCell::new(Outcome::default()));
    let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .map_err(|error| BenchError::Runtime(std::io::Error::other(error)))?;
    let latency = Rc::new(RefCell::new(latency));

    let load_before = processes.load.cpu_ns()?;
    let broker_before = processes.broker.map(|broker| broker.cpu_ns()).transpose()?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (worker, seat) in (0..).zip(workers) {
        let (outcome, latency) = (Rc::clone(&outcome), Rc::clone(&latency));
        let numbers = (worker..work.count).step_by(work.at_once as usize);
        let seats = numbers
            .map(|number| {
                let client_id = dial.seat(worker, "connect", number)?.client_id;
                Ok(seat.clone().named(client_id))
            })
            .collect::<Result<Vec<Seat>, BenchError>>()?;
        tasks.spawn_local(async move {
            for seat in seats {
                let began = Instant::now();
                let done = match seat.open(Hello::CLEAN).await {
                    Ok(connection) => {
                        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                        latency.borrow_mut().saturating_record(took);
                        outcome.borrow_mut().resumed += u32::from(connection.is_resumed());
                        connection.close().await
                    }
                    Err(error) => Err(error),
                };
                if let Err(error) = done {
                    let mut outcome = outcome.borrow_mut();
                    outcome.failed += 1;
                    outcome.first_failure.get_or_insert(error);
                }
            }
        });
    }
    while let Some(worker) = tasks.join_next().await {
        worker.map_err(|broken| BenchError::Runtime(std::io::Error::other(broken)))?;
    }
    let took = began.elapsed();
    let load_after = processes.load.cpu_ns()?;
    tokio::time::sleep(SETTLE).await;
    let Outcome {
        resumed,
        failed,
        first_failure,
    } = outcome.take();
    let made = f64::from(work.count);
    let first_failure = match first_failure {
        Some(error) if failed == work.count => return Err(error),
        other => other.map(|error| error.to_string()),
    };
    let broker = match (processes.broker, broker_before) {
        (Some(broker), Some(before)) => {
            let ns = broker.cpu_ns()?.saturating_sub(before) as f64;
            Some(Broker {
                pid: broker.id(),
                cpu_us: ns / 1e3 / made,
                cores: ns / took.as_nanos() as f64,
                private_bytes: broker.private_bytes()?,
            })
        }
        _ => None,
    };
    let load_ns = load_after.saturating_sub(load_before) as f64;
    let latency_us = Latency::of(&latency.borrow());
    Ok(ConnectReport {
        connects: work.count,
        at_once: work.at_once,
        resume: work.resume,
        resumed,
        failed,
        first_failure,
        seconds: took.as_secs_f64(),
        per_s: made / took.as_secs_f64(),
        latency_us,
        broker,
        load: Load {
            cpu_us: load_ns / 1e3 / made,
            cores: load_ns / took.as_nanos() as f64,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_at_once_is_refused() {
        let mut work = Connect {
            count: 1,
            at_once: 1,
            resume: false,
        };
        work.check().unwrap();
        work.at_once = 0;
        let error = work.check().unwrap_err().to_string();
        assert_eq!(error, "--at-once 0: take at least 1");
    }
}
