//! `muster bench …`: needs no server of Muster's, any broker will do.

use super::output;
use crate::cli::{
    Bench, BenchConnect, BenchHow, BenchIdle, BenchLatency, BenchMessages, BenchTarget, Global,
};
use anyhow::Context as _;
use bench::{Connect, Idle, Messages, Pacing, Shape, Target};
use serde::Serialize;
use std::process::ExitCode;

pub(super) fn run(global: &Global, verb: Bench) -> anyhow::Result<ExitCode> {
    match verb {
        Bench::Pairs(flags) => messages(global, Shape::Pairs, flags),
        Bench::FanIn(flags) => messages(global, Shape::FanIn, flags),
        Bench::FanOut(flags) => messages(global, Shape::FanOut, flags),
        Bench::Latency(flags) => latency(global, flags),
        Bench::Connect(flags) => connect(global, flags),
        Bench::Idle(flags) => idle(global, flags),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn messages(global: &Global, shape: Shape, flags: BenchMessages) -> anyhow::Result<()> {
    let work = Messages {
        clients: flags.clients,
        pacing: flags
            .rate
            .map_or(Pacing::InFlight(flags.in_flight), Pacing::Rate),
        held_subscriptions: flags.held_subscriptions,
        persistent: flags.persistent,
        ..like(shape, flags.how)
    };
    let report = bench::messages(&target(flags.target), &work)?;
    answer(global, &report, || table(&report.rows()))
}

fn latency(global: &Global, flags: BenchLatency) -> anyhow::Result<()> {
    let work = Messages {
        clients: flags.clients,
        pacing: Pacing::Rate(flags.rate),
        ..like(Shape::Pairs, flags.how)
    };
    let report = bench::messages(&target(flags.target), &work)?;
    answer(global, &report, || {
        let distribution = report.latency_us.distribution();
        let distribution: Vec<_> = distribution
            .into_iter()
            .map(|(quantile, at_most)| vec![quantile, at_most])
            .collect();
        let distribution = output::table(&["quantile", "at most"], &distribution);
        format!("{}\n\n{distribution}", table(&report.rows()))
    })
}

fn connect(global: &Global, flags: BenchConnect) -> anyhow::Result<()> {
    let work = Connect {
        count: flags.count,
        at_once: flags.at_once,
        resume: flags.resume,
    };
    let report = bench::connect(&target(flags.target), &work)?;
    answer(global, &report, || table(&report.rows()))
}

fn idle(global: &Global, flags: BenchIdle) -> anyhow::Result<()> {
    let work = Idle {
        connections: flags.connections,
        at_once: flags.at_once,
        filter: flags.filter,
        keep_alive_seconds: flags.keep_alive,
        settle_seconds: flags.settle,
        seconds: flags.seconds,
    };
    let report = bench::idle(&target(flags.target), &work)?;
    answer(global, &report, || table(&report.rows()))
}

fn like(shape: Shape, how: BenchHow) -> Messages {
    Messages {
        shape,
        clients: 1,
        qos: how.qos,
        size_bytes: how.size,
        pacing: Pacing::InFlight(1),
        topic: how.topic,
        seconds: how.seconds,
        warm_up_seconds: how.warm_up,
        messages: how.messages,
        held_subscriptions: 0,
        persistent: false,
    }
}

fn target(flags: BenchTarget) -> Target {
    Target {
        broker: flags.broker,
        name: flags.name,
        root: flags.root,
        certificate: flags.cert,
        key: flags.key,
        client_id: flags.client_id,
        pid: flags.pid,
    }
}

fn answer(
    global: &Global,
    report: &impl Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let report = serde_json::to_value(report).context("print")?;
    output::answer(global, &report, |_| text())
}

fn table(rows: &[(&str, String)]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, figure)| vec![(*name).to_owned(), figure.clone()])
        .collect();
    output::table(&["what", "figure"], &rows)
}
