//! What the kernel says of the watched process.

use std::fs;

use crate::error::BenchError;

/// A process by its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    /// # Errors
    /// When there is no such process, or it may not be read.
    pub(crate) fn new(pid: u32) -> Result<Self, BenchError> {
        let process = Self(pid);
        process.cpu_ns()?;
        process.private_bytes()?;
        Ok(process)
    }

    pub(crate) fn id(self) -> u32 {
        self.0
    }

    /// Nanoseconds its threads have run. A thread that has ended no longer counts.
    pub(crate) fn cpu_ns(self) -> Result<u64, BenchError> {
        let mut sum = 0;
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0));
        for task in tasks.map_err(|cause| self.unread(cause))? {
            let task = task.map_err(|cause| self.unread(cause))?;
            // A thread may end between the two reads.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let first = text.split(' ').next().unwrap_or_default();
            sum += first.parse::<u64>().map_err(|cause| self.unread(cause))?;
        }
        Ok(sum)
    }

    /// Bytes of memory that it alone has and has written to.
    pub(crate) fn private_bytes(self) -> Result<u64, BenchError> {
        let smaps = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0));
        private_bytes(&smaps.map_err(|cause| self.unread(cause))?)
            .ok_or_else(|| self.unread("smaps_rollup has no Private_Dirty"))
    }

    fn unread(self, cause: impl ToString) -> BenchError {
        BenchError::Process {
            pid: self.0,
            cause: cause.to_string(),
        }
    }
}

fn private_bytes(smaps: &str) -> Option<u64> {
    let mut lines = smaps.lines();
    let line = lines.find_map(|line| line.strip_prefix("Private_Dirty:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_what_was_written_to() {
        let smaps = "Rss:   90 kB\nPrivate_Clean:   12 kB\nPrivate_Dirty:   30 kB\nSwap: 7 kB\n";
        assert_eq!(private_bytes(smaps), Some(30 * 1024));
        assert_eq!(private_bytes("Rss: 90 kB\n"), None);
    }

    #[test]
    fn this_process_has_run_and_has_memory() {
        let this = Process::new(std::process::id()).unwrap();
        assert!(this.private_bytes().unwrap() > 0);
        let error = Process::new(u32::MAX).unwrap_err().to_string();
        assert!(error.starts_with("--pid 4294967295: "), "{error}");
    }
}
