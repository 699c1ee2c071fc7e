//! What the kernel says of the watched process.

use std::fs;

use anyhow::{Context as _, anyhow};

/// A process by its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    /// # Errors
    /// When there is no such process.
    pub(crate) fn new(pid: u32) -> anyhow::Result<Self> {
        let process = Self(pid);
        process
            .cpu_ns()
            .with_context(|| format!("read process {pid}"))?;
        Ok(process)
    }

    /// Nanoseconds its threads have run. A thread that has ended no longer counts.
    pub(crate) fn cpu_ns(self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0))? {
            // A thread may end between the two reads.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let first = text.split(' ').next().unwrap_or_default();
            sum += first.parse::<u64>().context("schedstat")?;
        }
        Ok(sum)
    }

    /// Bytes of memory that are its alone.
    pub(crate) fn private_bytes(self) -> anyhow::Result<u64> {
        private_bytes(&fs::read_to_string(format!(
            "/proc/{}/smaps_rollup",
            self.0
        ))?)
    }
}

fn private_bytes(smaps: &str) -> anyhow::Result<u64> {
    let mut kilobytes = 0;
    for field in ["Private_Clean:", "Private_Dirty:"] {
        let line = smaps.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next());
        let number = number.ok_or_else(|| anyhow!("smaps_rollup has no {field}"))?;
        kilobytes += number.parse::<u64>()?;
    }
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_clean_and_dirty_together() {
        let smaps = "Rss:   90 kB\nPrivate_Clean:   12 kB\nPrivate_Dirty:   30 kB\nSwap: 7 kB\n";
        assert_eq!(private_bytes(smaps).unwrap(), 42 * 1024);
        assert!(private_bytes("Rss: 90 kB\n").is_err());
    }

    #[test]
    fn this_process_has_run_and_has_memory() {
        let this = Process::new(std::process::id()).unwrap();
        assert!(this.private_bytes().unwrap() > 0);
        assert!(Process::new(u32::MAX).is_err());
    }
}
