//! `muster bench …`: load on a broker.

use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

/// `muster bench …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Publisher N to subscriber N
    Pairs(BenchMessages),
    /// All publishers to one subscriber
    FanIn(BenchMessages),
    /// One publisher to all subscribers
    FanOut(BenchMessages),
    /// Latency at a fixed rate, publisher N to subscriber N: the whole distribution
    Latency(BenchLatency),
    /// What a connect costs: handshake, CONNECT, DISCONNECT
    Connect(BenchConnect),
    /// What a connection costs that is subscribed and hears nothing
    Idle(BenchIdle),
}

/// Whom the load is put on, and as whom.
#[derive(Debug, Args)]
pub(crate) struct BenchTarget {
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8883")]
    pub(crate) broker: String,
    /// The name its certificate must carry [default: the broker's host]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What the broker's certificate must lead to
    #[arg(long, value_name = "FILE")]
    pub(crate) root: PathBuf,
    /// The clients' certificate with its chain; with %i one for each connection, numbered from 0 or 1; or a directory
    /// with NAME.crt and NAME.key, or such directories in it
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) cert: PathBuf,
    /// Its key, with %i where --cert has it; not for a directory
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Client identifiers: %r is the connection's role (pub, sub, …), %i its number, %n the name of its certificate's file
    #[arg(long, value_name = "TEXT", default_value = "bench-%r-%i")]
    pub(crate) client_id: String,
    /// The broker's process on this machine: its CPU time and memory are read from /proc
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

/// `muster bench pairs|fan-in|fan-out`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("pacing").args(["rate", "in_flight"]))]
pub(crate) struct BenchMessages {
    #[command(flatten)]
    pub(crate) target: BenchTarget,
    /// Pairs; publishers of fan-in; subscribers of fan-out
    #[arg(long, default_value_t = 100)]
    pub(crate) clients: u32,
    /// Open loop: so many messages a second over all publishers, whatever the broker does; latency counts from when a
    /// message was due
    #[arg(long, value_name = "N/s")]
    pub(crate) rate: Option<u32>,
    /// Closed loop: so many messages of a publisher may be on their way
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) in_flight: u32,
    #[command(flatten)]
    pub(crate) how: BenchHow,
    /// Subscriptions that other connections hold beside, to see whether they cost
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) held_subscriptions: u32,
    /// Let the subscribers' sessions outlive their connections (they are removed at the end)
    #[arg(long)]
    pub(crate) persistent: bool,
}

/// `muster bench latency`.
#[derive(Debug, Args)]
pub(crate) struct BenchLatency {
    #[command(flatten)]
    pub(crate) target: BenchTarget,
    /// Pairs of publisher and subscriber
    #[arg(long, default_value_t = 10)]
    pub(crate) clients: u32,
    /// So many messages a second over all publishers, whatever the broker does
    #[arg(long, value_name = "N/s", default_value_t = 1000)]
    pub(crate) rate: u32,
    #[command(flatten)]
    pub(crate) how: BenchHow,
}

/// What messages are like, and how long they are counted.
#[derive(Debug, Args)]
pub(crate) struct BenchHow {
    /// QoS of messages and subscriptions: 0, 1 or 2
    #[arg(long, default_value_t = 0)]
    pub(crate) qos: u8,
    /// Payload bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) size: usize,
    /// Topic: %i is the number of the pair or publisher (fan-in subscribes with + in its place)
    #[arg(long, default_value = "bench/%i/data")]
    pub(crate) topic: String,
    /// How long to count
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u32,
    /// How long the load runs before counting begins
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    pub(crate) warm_up: u32,
    /// Count so many messages instead
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    pub(crate) messages: Option<u64>,
}

/// `muster bench connect`.
#[derive(Debug, Args)]
pub(crate) struct BenchConnect {
    #[command(flatten)]
    pub(crate) target: BenchTarget,
    /// How many
    #[arg(long, default_value_t = 1000)]
    pub(crate) count: u32,
    /// How many at a time
    #[arg(long, default_value_t = 16)]
    pub(crate) at_once: u32,
    /// Resume the TLS session of the connect before, where the broker gives tickets
    #[arg(long)]
    pub(crate) resume: bool,
}

/// `muster bench idle`.
#[derive(Debug, Args)]
pub(crate) struct BenchIdle {
    #[command(flatten)]
    pub(crate) target: BenchTarget,
    /// How many
    #[arg(long, default_value_t = 1000)]
    pub(crate) connections: u32,
    /// How many of them dial at a time; who is turned away comes again after a second
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) at_once: u32,
    /// What each subscribes to: %i is its number
    #[arg(long, default_value = "bench/idle-%i/#")]
    pub(crate) filter: String,
    /// Keep alive; each connection pings at three quarters of it
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) keep_alive: u16,
    /// How long the broker may tidy up before its memory is read
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    pub(crate) settle: u32,
    /// How long to watch what idleness costs
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u32,
}
