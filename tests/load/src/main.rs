//! Load on an MQTT 3.1.1 broker on this machine, over mutual TLS, for `tests/measure.py`.
//!
//! One thread. Each kind of work prints one line of JSON and ends by itself; the watched process's CPU
//! time and memory come from `/proc`. It dials loopback and nothing else. Neighbours: none; it speaks to
//! any broker, so that Muster and another can be measured with the very same load.

mod connects;
mod dial;
mod idle;
mod pairs;
mod process;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use dial::Dial;
use process::Process;

/// Load on a broker on this machine; prints one line of JSON.
#[derive(Debug, Parser)]
#[command(name = "muster-load", version)]
struct Cli {
    /// The broker's port on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// The name its certificate must carry
    #[arg(long, default_value = "localhost")]
    name: String,
    /// What the broker's certificate must lead to
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The client's certificate, with its chain
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The client's key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The broker's process, whose CPU time and memory are read
    #[arg(long)]
    pid: u32,
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Publisher N to subscriber N, at a steady rate
    Pairs(pairs::Pairs),
    /// Sessions that are subscribed and hear nothing
    Idle(idle::Idle),
    /// Full handshakes with CONNECT and DISCONNECT
    Connects(connects::Connects),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let dial = Dial::new(cli.port, &cli.name, &cli.root, &cli.certificate, &cli.key)?;
    let broker = Process::new(cli.pid)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let figures = local.block_on(&runtime, async {
        match cli.work {
            Work::Pairs(pairs) => pairs.run(dial, &broker).await,
            Work::Idle(idle) => idle.run(&dial, &broker).await,
            Work::Connects(connects) => connects.run(dial, &broker).await,
        }
    })?;
    println!("{figures}");
    Ok(())
}
