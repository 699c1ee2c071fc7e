//! The lines of a file, one after the other, none of them held longer than it may be.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

/// Longest line.
pub(super) const LINE_LIMIT_BYTES: usize = 64 * 1024;

/// What stands in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text(Vec<u8>),
    Blank,
    TooLong,
}

/// Lines one after the other, none of them held longer than it may be.
pub(super) struct Lines(BufReader<File>);

impl Lines {
    pub(super) fn open(path: &Path, offset: u64) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Lines(BufReader::new(file)))
    }

    /// The next line and how many bytes it has, with its end.
    pub(super) fn next(&mut self) -> std::io::Result<Option<(Content, u64)>> {
        let mut text = Vec::new();
        let mut part = (&mut self.0).take(LINE_LIMIT_BYTES as u64);
        let mut bytes = part.read_until(b'\n', &mut text)? as u64;
        if bytes == 0 {
            return Ok(None);
        }
        if text.last() != Some(&b'\n') && bytes == LINE_LIMIT_BYTES as u64 {
            loop {
                let held = self.0.fill_buf()?;
                let end = held.iter().position(|octet| *octet == b'\n');
                let used = end.map_or(held.len(), |end| end + 1);
                self.0.consume(used);
                bytes += used as u64;
                if end.is_some() || used == 0 {
                    return Ok(Some((Content::TooLong, bytes)));
                }
            }
        }
        let blank = text.iter().all(u8::is_ascii_whitespace);
        let content = if blank {
            Content::Blank
        } else {
            Content::Text(text)
        };
        Ok(Some((content, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], offset: u64) -> Vec<(Content, u64)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, text).unwrap();
        let mut lines = Lines::open(&path, offset).unwrap();
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn each_line_is_counted_to_its_last_byte() {
        let text = b"{}\n\n \r\nlast";
        let read = lines(text, 0);
        assert_eq!(read[0], (Content::Text(b"{}\n".to_vec()), 3));
        assert_eq!(
            (&read[1], &read[2]),
            (&(Content::Blank, 1), &(Content::Blank, 3))
        );
        assert_eq!(read[3], (Content::Text(b"last".to_vec()), 4));
        assert_eq!(lines(text, 7), [(Content::Text(b"last".to_vec()), 4)]);
        assert!(lines(text, 11).is_empty());
    }

    #[test]
    fn a_line_without_an_end_is_not_held() {
        let mut text = vec![b'x'; 3 * LINE_LIMIT_BYTES];
        text.extend(b"\n{}\n");
        let read = lines(&text, 0);
        assert_eq!(read[0], (Content::TooLong, 3 * LINE_LIMIT_BYTES as u64 + 1));
        assert_eq!(read[1].0, Content::Text(b"{}\n".to_vec()));
        assert_eq!(
            lines(&vec![b'x'; LINE_LIMIT_BYTES], 0)[0].0,
            Content::TooLong
        );
    }
}
