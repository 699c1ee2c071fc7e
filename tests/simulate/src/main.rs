//! Runs seeds of the simulation for a time, or one seed again.

use std::time::{Duration, Instant};

use clap::Parser;

/// Runs seeds of the simulation until one fails or the time is over.
#[derive(Parser)]
struct Arguments {
    /// For how many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// So many seeds, instead of for a time.
    #[arg(long)]
    count: Option<u64>,
    /// Go on until so many seeds have failed.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Only this seed, with all that happens in it.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        // What the broker says, where RUST_LOG asks for it.
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
        return match simulate::run(seed, true) {
            Ok(report) => {
                println!("seed {seed}: {report:?}");
                Ok(())
            }
            Err(failure) => {
                for line in &failure.log {
                    println!("{line}");
                }
                Err(anyhow::anyhow!("seed {seed}: {}", failure.reason))
            }
        };
    }
    let started = Instant::now();
    let (mut seeds, mut failed, mut deliveries, mut restarts) = (0_u64, 0, 0, 0);
    let limit = Duration::from_secs(arguments.seconds);
    while failed < arguments.failures
        && arguments
            .count
            .map_or(started.elapsed() < limit, |count| seeds < count)
    {
        let seed = arguments.from + seeds;
        seeds += 1;
        match simulate::run(seed, false) {
            Ok(report) => {
                deliveries += report.deliveries;
                restarts += report.restarts;
            }
            Err(failure) => {
                failed += 1;
                println!(
                    "seed {seed} fails, number {seeds} of this run: {}",
                    failure.reason
                );
                println!("replay: cargo run --release -p muster-simulate -- --seed {seed}");
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds in {seconds:.1} s, {:.0} seeds per second: {deliveries} deliveries judged, \
         {restarts} restarts of the server",
        seeds as f64 / seconds
    );
    anyhow::ensure!(failed == 0, "{failed} seeds fail");
    Ok(())
}
