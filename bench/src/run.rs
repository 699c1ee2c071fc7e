//! A run of messages from its first connection to its figures.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use mqttbytes::QoS;
use tokio::task::JoinSet;

use crate::Processes;
use crate::dial::{Connection, Dial, Hello, Seat};
use crate::error::BenchError;
use crate::in_flight::InFlight;
use crate::messages::{HELD_PER_CONNECTION, Messages, Pacing};
use crate::publisher::{self, Pace, Speech};
use crate::report::{Broker, Latency, Load, MessagesReport};
use crate::schedule::Schedule;
use crate::subscriber;
use crate::tally::Tally;

/// How long messages on their way are waited for after the last one came.
const GRACE: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);
const HELD_PER_SUBSCRIBE: usize = 100;
const SECOND_NS: u64 = 1_000_000_000;
/// Spreads publishers over the interval as evenly for few as for many.
const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;

/// Runs it.
pub(crate) async fn run(
    work: &Messages,
    dial: &Dial,
    processes: Processes,
) -> Result<MessagesReport, BenchError> {
    let [publishers, subscribers, holders] = dial.seats([
        ("pub", work.publishers()),
        ("sub", work.subscribers()),
        ("held", work.holders()),
    ])?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let run = since.map_or(0, |since| since.subsec_nanos()) ^ std::process::id().rotate_left(16);
    let tally = Tally::new(run, work.messages)
        .map_err(|error| BenchError::Runtime(std::io::Error::other(error)))?;
    let tally = Rc::new(tally);
    let held = hold(work, &holders).await?;

    let mut tasks = JoinSet::new();
    let in_flight = match work.pacing {
        Pacing::InFlight(bound) => Some(Rc::new(InFlight::new(
            work.publishers(),
            work.copies(),
            bound,
        ))),
        Pacing::Rate(_) => None,
    };
    for (number, seat) in (0..).zip(&subscribers) {
        let mut connection = seat.open(work.hello(!work.persistent)).await?;
        let filter = work.filter(number)?;
        connection.subscribe(vec![filter], work.qos()).await?;
        tasks.spawn_local(subscriber::hear(
            connection,
            in_flight.clone(),
            Rc::clone(&tally),
        ));
    }
    let mut connections = Vec::new();
    for seat in &publishers {
        connections.push(seat.open(work.hello(true)).await?);
    }
    let begin_ns = tally.now_ns();
    let start_ns = begin_ns + u64::from(work.warm_up_seconds) * SECOND_NS;
    let end_ns = match work.messages {
        Some(_) => u64::MAX,
        None => start_ns + u64::from(work.seconds) * SECOND_NS,
    };
    tally.open(start_ns, end_ns);
    let mut schedules = Vec::new();
    for (number, connection) in (0..).zip(connections) {
        let speech = Speech {
            number,
            topic: work.topic(number)?,
            qos: work.qos(),
            size_bytes: work.size_bytes,
        };
        let pace = match (work.pacing, &in_flight) {
            (Pacing::InFlight(_), Some(in_flight)) => Pace::Closed(Rc::clone(in_flight)),
            (Pacing::InFlight(rate) | Pacing::Rate(rate), _) => {
                let every_ns = f64::from(work.publishers()) * SECOND_NS as f64 / f64::from(rate);
                let offset_ns = every_ns * (f64::from(number) * GOLDEN_RATIO).fract();
                let schedule = Schedule::new(begin_ns + offset_ns as u64, every_ns);
                let schedule = Rc::new(RefCell::new(schedule));
                schedules.push(Rc::clone(&schedule));
                Pace::Open(schedule)
            }
        };
        tasks.spawn_local(publisher::publish(
            connection,
            speech,
            pace,
            Rc::clone(&tally),
        ));
    }

    let measured = async {
        tokio::time::sleep_until(tally.instant(start_ns)).await;
        let before = Reading::take(processes)?;
        if work.messages.is_some() {
            tally.spent.notified().await;
            drain(work, &tally).await;
        } else {
            tokio::time::sleep_until(tally.instant(end_ns)).await;
        }
        let after = Reading::take(processes)?;
        let private_bytes = processes.broker.map(|broker| broker.private_bytes());
        let private_bytes = private_bytes.transpose()?;
        let delivered = tally.delivered.get();
        let seconds = match work.messages {
            Some(_) => tally.last_ns().saturating_sub(start_ns) as f64 / SECOND_NS as f64,
            None => (after.at - before.at).as_secs_f64(),
        };
        if work.messages.is_none() {
            drain(work, &tally).await;
        }
        Ok((before, after, private_bytes, delivered, seconds))
    };
    let measured = tokio::select! {
        measured = measured => measured,
        fault = first_fault(&mut tasks) => Err(fault),
    };
    let (before, after, private_bytes, delivered, seconds) = measured?;
    tasks.shutdown().await;
    for connection in held {
        connection.close().await?;
    }
    if work.persistent {
        // What outlived the connections goes.
        for seat in &subscribers {
            seat.open(Hello::CLEAN).await?.close().await?;
        }
    }

    let sent = tally.sent.get();
    if delivered == 0 {
        return Err(BenchError::NothingDelivered { sent });
    }
    let load = after.load_ns.saturating_sub(before.load_ns);
    let report = MessagesReport {
        shape: work.shape,
        pacing: work.pacing,
        qos: work.qos,
        size_bytes: work.size_bytes,
        publishers: work.publishers(),
        subscribers: work.subscribers(),
        held_subscriptions: work.held_subscriptions,
        persistent: work.persistent,
        seconds,
        sent,
        unsent: schedules
            .iter()
            .map(|schedule| schedule.borrow().left_before(end_ns))
            .filter(|_| work.messages.is_none())
            .sum(),
        received: tally.received.get(),
        lost: (sent * u64::from(work.copies())).saturating_sub(tally.received.get()),
        foreign: tally.foreign.get(),
        stalls: in_flight.map_or(0, |in_flight| in_flight.stalls()),
        acknowledged: tally.acknowledged.get(),
        delivered,
        per_s: delivered as f64 / seconds,
        latency_us: Latency::of(&tally.latency_ns()),
        late_us: schedules.first().map(|_| Latency::of(&tally.late_ns())),
        broker: processes.broker.map(|broker| Broker {
            pid: broker.id(),
            cpu_us: after.broker_ns.saturating_sub(before.broker_ns) as f64
                / 1e3
                / delivered as f64,
            cores: after.broker_ns.saturating_sub(before.broker_ns) as f64
                / (after.at - before.at).as_nanos() as f64,
            private_bytes: private_bytes.unwrap_or(0),
        }),
        load: Load {
            cpu_us: load as f64 / 1e3 / delivered as f64,
            cores: load as f64 / (after.at - before.at).as_nanos() as f64,
        },
    };
    Ok(report)
}

/// CPU times at one moment.
struct Reading {
    at: Instant,
    broker_ns: u64,
    load_ns: u64,
}

impl Reading {
    fn take(processes: Processes) -> Result<Self, BenchError> {
        let broker_ns = processes.broker.map(|broker| broker.cpu_ns()).transpose()?;
        Ok(Self {
            at: Instant::now(),
            broker_ns: broker_ns.unwrap_or(0),
            load_ns: processes.load.cpu_ns()?,
        })
    }
}

/// Waits until all that was sent has come, or nothing comes any more.
async fn drain(work: &Messages, tally: &Tally) {
    let copies = u64::from(work.copies());
    let state = || (tally.sent.get(), tally.received.get());
    let mut last = (state(), Instant::now());
    loop {
        let (sent, received) = state();
        // In a closed loop the last message is sent when counting ends; in an open one when the last due one could be.
        let all_sent = match work.pacing {
            Pacing::InFlight(_) => true,
            Pacing::Rate(_) => tally.finished.get() == work.publishers(),
        };
        if all_sent && received >= sent * copies {
            return;
        }
        if (sent, received) != last.0 {
            last = ((sent, received), Instant::now());
        }
        if last.1.elapsed() > GRACE {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The first connection that fails; pending while none does.
async fn first_fault(tasks: &mut JoinSet<Result<(), BenchError>>) -> BenchError {
    loop {
        match tasks.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(fault))) => return fault,
            Some(Err(broken)) => return BenchError::Runtime(std::io::Error::other(broken)),
            None => return std::future::pending().await,
        }
    }
}

/// Holds subscriptions that nothing is published to.
async fn hold(work: &Messages, seats: &[Seat]) -> Result<Vec<Connection>, BenchError> {
    let mut held = Vec::new();
    let mut numbers = 0..work.held_subscriptions;
    for seat in seats {
        let mut connection = seat.open(work.hello(true)).await?;
        let mut room = HELD_PER_CONNECTION as usize;
        while room > 0 {
            let filters: Vec<String> = numbers
                .by_ref()
                .take(HELD_PER_SUBSCRIBE)
                .map(|number| format!("bench/held/{}/{number}/state", number % 977))
                .collect();
            if filters.is_empty() {
                break;
            }
            room -= filters.len();
            connection.subscribe(filters, QoS::AtMostOnce).await?;
        }
        held.push(connection);
    }
    Ok(held)
}
