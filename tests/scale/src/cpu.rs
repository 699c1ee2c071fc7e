//! What the kernel says that this process, or this thread of it, has used.

use anyhow::Context as _;
use std::time::Duration;

/// CPU time of the calling thread.
pub(crate) fn of_thread() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().unwrap_or_default();
    Ok(Duration::from_nanos(
        nanos.trim().parse().context("schedstat")?,
    ))
}

/// CPU time of the whole process, threads that have ended included, to a hundredth of a second.
pub(crate) fn of_process() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the program's name, which may have blanks in it: user and system time are the 14th and 15th of all.
    let (_, fields) = text.rsplit_once(')').context("stat")?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (
        ticks.next().context("stat")??,
        ticks.next().context("stat")??,
    );
    Ok(Duration::from_millis((user + system) * 10))
}

/// A line of `/proc/self/status`, in KiB: `VmRSS`, `VmHWM`.
pub(crate) fn memory_kib(field: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .context("status")?;
    Ok(number.parse()?)
}
