//! `bench` measures: load on any MQTT 3.1.1 broker over mutual TLS, and what the broker pays for it.
//! Packets are those of mqttbytes, so that both ends do not share one codec's mistakes.
//! One thread; each kind of work ends by itself, and its figures are a value that can be printed.
//! Below `muster`, whose verb it is, and above nothing: it knows no room, so every broker gets the very same load.

mod certificates;
mod connect;
mod dial;
mod error;
mod idle;
mod in_flight;
mod messages;
mod payload;
mod process;
mod publisher;
mod report;
mod run;
mod schedule;
mod subscriber;
mod tally;
mod template;

use std::path::PathBuf;

pub use connect::Connect;
pub use error::BenchError;
pub use idle::Idle;
pub use messages::{Messages, Pacing, Shape};
pub use report::{Broker, ConnectReport, IdleReport, Latency, Load, MessagesReport, Quantile};

use dial::Dial;
use process::Process;

/// Whom the load is put on, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// `HOST:PORT`.
    pub broker: String,
    /// The name its certificate must carry; the host where there is none.
    pub name: Option<String>,
    /// What its certificate must lead to, a PEM file.
    pub root: PathBuf,
    /// The clients' certificate with its chain: a PEM file, a path with `%i`, or a directory of `NAME.crt` and `NAME.key`.
    pub certificate: PathBuf,
    /// The key; none for a directory.
    pub key: Option<PathBuf>,
    /// Client identifiers: `%i` is the connection's number, `%r` its role, `%n` the name of its certificate's file.
    pub client_id: String,
    /// The broker's process, whose CPU time and memory are read.
    pub pid: Option<u32>,
}

/// Runs messages through the broker.
///
/// # Errors
/// When a flag, a file or the broker does not allow it.
pub fn messages(target: &Target, work: &Messages) -> Result<MessagesReport, BenchError> {
    work.check()?;
    on_one_thread(target, work.connections(), async |dial, processes| {
        run::run(work, dial, processes).await
    })
}

/// Opens and closes connections.
///
/// # Errors
/// As [`messages`].
pub fn connect(target: &Target, work: &Connect) -> Result<ConnectReport, BenchError> {
    work.check()?;
    on_one_thread(target, work.at_once, async |dial, processes| {
        connect::run(work, dial, processes).await
    })
}

/// Holds connections that hear nothing.
///
/// # Errors
/// As [`messages`].
pub fn idle(target: &Target, work: &Idle) -> Result<IdleReport, BenchError> {
    work.check()?;
    let connections = work.connections.saturating_add(idle::WARM_UP_CONNECTIONS);
    on_one_thread(target, connections, async |dial, processes| {
        idle::run(work, dial, processes).await
    })
}

/// The two ends of a measurement.
#[derive(Debug, Clone, Copy)]
struct Processes {
    broker: Option<Process>,
    load: Process,
}

fn on_one_thread<T>(
    target: &Target,
    connections: u32,
    work: impl AsyncFnOnce(&Dial, Processes) -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let processes = Processes {
        broker: target.pid.map(Process::new).transpose()?,
        load: Process::new(std::process::id())?,
    };
    open_files(connections)?;
    let dial = Dial::new(target, connections)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::Runtime)?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, work(&dial, processes))
}

/// Files a process has open beside its connections.
const OTHER_FILES: u64 = 64;

/// Raises the soft limit of open files to what so many connections need.
fn open_files(connections: u32) -> Result<(), BenchError> {
    let needed = u64::from(connections) + OTHER_FILES;
    let limit = rlimit::increase_nofile_limit(needed).map_err(BenchError::Runtime)?;
    if limit < needed {
        return Err(BenchError::OpenFiles {
            connections,
            limit,
            needed,
        });
    }
    Ok(())
}
