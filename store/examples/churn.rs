//! Queues and acknowledges ten million messages with 200,000 alive and prints what it cost:
//! `cargo run --release -p muster-store --example churn -- [MESSAGES [ALIVE]]`.

use std::process::ExitCode;
use std::time::Instant;

use store::{Behind, Journal, Lsn, Store};

/// Bytes of a message.
const MESSAGE_BYTES: usize = 256;

fn patiently(
    journal: &Journal,
    last: Lsn,
    append: impl Fn() -> Result<Lsn, Behind>,
) -> Result<Lsn, Box<dyn std::error::Error>> {
    loop {
        match append() {
            Err(Behind::Full { .. }) => journal.wait_durable(last)?,
            result => return Ok(result?),
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let messages: u64 = arguments.next().map_or(Ok(10_000_000), |n| n.parse())?;
    let alive: u64 = arguments.next().map_or(Ok(200_000), |n| n.parse())?;
    let directory = tempfile::tempdir_in(".")?;
    let store = Store::open(directory.path())?;
    let (journal, _) = store.journal("queue")?;
    let (begun, message) = (Instant::now(), [7; MESSAGE_BYTES]);
    let (mut last, mut peak, mut kept) = (Lsn(0), 0, true);
    for n in 0..messages {
        last = patiently(&journal, last, || {
            journal.put(&n.to_be_bytes(), &[&message])
        })?;
        if let Some(old) = n.checked_sub(alive) {
            last = patiently(&journal, last, || journal.delete(&old.to_be_bytes()))?;
        }
        if n % 10_000 == 0 {
            let stats = journal.stats();
            peak = peak.max(stats.disk_bytes);
            kept &= stats.disk_bytes <= 4 * stats.live_bytes + 256_000_000;
        }
    }
    journal.wait_durable(last)?;
    let written = begun.elapsed();
    let stats = journal.stats();
    drop((journal, store));
    let begun = Instant::now();
    let opened = Store::open(directory.path())?.journal("queue")?.1.len();
    println!(
        "messages={messages} alive={opened} seconds={:.1} peak_bytes={peak} end_bytes={} live_bytes={} reopen_seconds={:.2} within_bound={kept}",
        written.as_secs_f64(),
        stats.disk_bytes,
        stats.live_bytes,
        begun.elapsed().as_secs_f64()
    );
    Ok(kept)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
