//! The least rate at which an answer must come: one that drips is no answer (TUF's slow retrieval). Looked at window by
//! window, so that a connection that was good before does not earn a later one its patience.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Less than `bytes` in a whole window ends an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Least {
    /// Octets.
    pub bytes: u64,
    /// The window.
    pub within: Duration,
}

impl Default for Least {
    /// What the slowest radio link still does.
    fn default() -> Self {
        Self {
            bytes: 4 * 1024,
            within: Duration::from_secs(300),
        }
    }
}

/// An answer as it comes.
pub(crate) struct Pace {
    least: Least,
    since: Instant,
    came: u64,
}

impl Pace {
    /// From now on.
    pub(crate) fn new(least: Least) -> Self {
        Self {
            least,
            since: Instant::now(),
            came: 0,
        }
    }

    /// So many bytes more have come.
    ///
    /// # Errors
    /// In words, where a window is over in which too few came.
    pub(crate) fn took(&mut self, bytes: usize) -> Result<(), String> {
        self.came += bytes as u64;
        let Least {
            bytes: least,
            within,
        } = self.least;
        if self.since.elapsed() < within {
            return Ok(());
        }
        if self.came < least {
            return Err(format!("too slow: {} bytes in {within:?}", self.came));
        }
        (self.since, self.came) = (Instant::now(), 0);
        Ok(())
    }
}

/// A stream that ends with an error where it is too slow.
pub(crate) struct Paced<R> {
    inner: R,
    pace: Pace,
}

impl<R> Paced<R> {
    /// From now on.
    pub(crate) fn new(inner: R, least: Least) -> Self {
        let pace = Pace::new(least);
        Self { inner, pace }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read > 0 {
            self.pace
                .took(read)
                .map_err(|words| io::Error::new(io::ErrorKind::TimedOut, words))?;
        }
        Ok(read)
    }
}

/// Reads all that comes, at most `most` bytes.
///
/// # Errors
/// What the network said; [`io::ErrorKind::TimedOut`] in words where it is too slow.
pub(crate) fn read_all(answer: impl Read, most: u64, least: Least) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Paced::new(answer, least)
        .take(most)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte for ever.
    struct Drips;

    impl Read for Drips {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(1));
            let first = buffer.first_mut();
            Ok(first.map(|byte| *byte = b'x').map_or(0, |()| 1))
        }
    }

    #[test]
    fn what_drips_is_ended_and_what_comes_is_read_up_to_its_bound() {
        let least = Least {
            bytes: 1_000,
            within: Duration::from_millis(50),
        };
        let error = read_all(Drips, 8 << 20, least).unwrap_err();
        assert!(error.to_string().starts_with("too slow: "), "{error}");
        let all = vec![7; 100_000];
        let slack = Least::default();
        assert_eq!(read_all(&all[..], 1 << 20, slack).unwrap(), all);
        assert_eq!(read_all(&all[..], 99_999, slack).unwrap().len(), 99_999);
        assert_eq!(read_all(Drips, 3, slack).unwrap(), b"xxx");
    }
}
