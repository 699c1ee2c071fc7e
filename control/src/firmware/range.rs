//! Byte ranges (RFC 9110 §14), one at a time: what a device asks for that goes on where it
//! stopped.

/// What part of a file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: no range, or one that is to be ignored.
    Whole,
    /// From the first byte to just before the second; never empty.
    Bytes(u64, u64),
    /// Nothing of what is asked for exists.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes. What is not a single byte range is ignored,
/// as RFC 9110 §14.2 allows of any range.
pub(super) fn read(header: &str, size: u64) -> Part {
    let Some((first, last)) = header
        .strip_prefix("bytes=")
        .and_then(|spec| spec.trim_matches(' ').split_once('-'))
    else {
        return Part::Whole;
    };
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => (first, size),
        // The last bytes; more than there are is all of them.
        (None, Some(count)) if first.is_empty() => (size.saturating_sub(count), size),
        _ => return Part::Whole,
    };
    if start < end {
        Part::Bytes(start, end)
    } else {
        Part::Unsatisfiable
    }
}

/// A number of digits only; one too large for any file counts as the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{Part, read};

    #[test]
    fn single_ranges_are_understood() {
        for (header, part) in [
            ("bytes=0-0", Part::Bytes(0, 1)),
            ("bytes=0-9", Part::Bytes(0, 10)),
            ("bytes=0-99999999999999999999999", Part::Bytes(0, 10)),
            ("bytes=9-", Part::Bytes(9, 10)),
            ("bytes=3-5", Part::Bytes(3, 6)),
            ("bytes=-3", Part::Bytes(7, 10)),
            ("bytes=-30", Part::Bytes(0, 10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=10-12", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-3", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("items=0-1", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(read(header, 10), part, "{header}");
        }
        assert_eq!(read("bytes=0-", 0), Part::Unsatisfiable);
    }

    proptest::proptest! {
        #[test]
        fn no_part_is_empty_or_beyond_the_file(header in "bytes=[0-9, -]{0,30}", size in 0_u64..100) {
            if let Part::Bytes(start, end) = read(&header, size) {
                proptest::prop_assert!(start < end && end <= size);
            }
        }
    }
}
