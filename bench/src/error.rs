//! What can go wrong with a measurement.

use std::io;
use std::path::PathBuf;

/// Why there are no figures. Each text names the flag, the file or the connection and, where there is one, the mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A flag's value does not go, alone or with others.
    #[error("{flag} {value}: {mend}")]
    Flag {
        /// With its dashes.
        flag: &'static str,
        /// As given.
        value: String,
        /// What would go.
        mend: String,
    },
    /// A file that cannot be read or used.
    #[error("{}: {cause}", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// More connections than files may be open.
    #[error(
        "{connections} connections need {needed} open files and {limit} are allowed: take fewer, raise the hard limit (ulimit -Hn), or share them among processes"
    )]
    OpenFiles {
        /// How many are wanted.
        connections: u32,
        /// The hard limit.
        limit: u64,
        /// What they need.
        needed: u64,
    },
    /// Nobody listens there.
    #[error("nothing answers at {broker}: {cause}")]
    Unreachable {
        /// `HOST:PORT` as given.
        broker: String,
        /// Of the last address tried.
        cause: io::Error,
    },
    /// The TLS handshake failed.
    #[error(
        "{client_id}: no TLS with the broker: {cause} (its certificate must lead to --root and carry --name; it must accept --cert)"
    )]
    Handshake {
        /// Whose.
        client_id: String,
        /// As TLS says it.
        cause: io::Error,
    },
    /// The broker answered with a refusal.
    #[error("{client_id}: the broker refuses {what}: {answer}")]
    Refused {
        /// Whose.
        client_id: String,
        /// What was asked.
        what: String,
        /// The answer.
        answer: String,
    },
    /// The connection ended under the load.
    #[error("{client_id}: the connection is lost ({what}): {cause}")]
    Lost {
        /// Whose.
        client_id: String,
        /// What was being done.
        what: &'static str,
        /// The end.
        cause: io::Error,
    },
    /// The broker said something that is no MQTT.
    #[error("{client_id}: what the broker sends is no MQTT 3.1.1: {cause:?}")]
    Malformed {
        /// Whose.
        client_id: String,
        /// As the codec says it.
        cause: mqttbytes::Error,
    },
    /// The watched process cannot be read.
    #[error(
        "--pid {pid}: {cause}: name the broker's own process, on this machine and yours to read"
    )]
    Process {
        /// Its id.
        pid: u32,
        /// What the kernel says.
        cause: String,
    },
    /// Not one message came through while it was counted.
    #[error(
        "nothing was delivered of {sent} messages sent: may the clients publish to and receive on these topics (--topic)?"
    )]
    NothingDelivered {
        /// Messages sent.
        sent: u64,
    },
    /// The load's own machinery.
    #[error("the load cannot run: {0}")]
    Runtime(io::Error),
}
