//! Foreign text made fit for one line of a log or an error.

/// Characters of a foreign word that an error repeats.
pub(crate) const WORD_MAX_CHARS: usize = 64;

/// Characters of a topic or client id that a sentence repeats.
pub(crate) const NAME_MAX_CHARS: usize = 256;

/// `text` on one line: control and direction-changing characters escaped, cut after `max_chars`.
pub(crate) fn shown(text: &str, max_chars: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max_chars));
    for (count, c) in text.chars().enumerate() {
        if count == max_chars {
            line.push('…');
            break;
        }
        if misleads(c) {
            line.extend(c.escape_unicode());
        } else {
            line.push(c);
        }
    }
    line
}

/// Whether printing `c` would do anything but show a character: start a line, move the cursor,
/// turn the direction of writing, or show nothing at all.
#[must_use]
pub fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The known word that `word` was probably meant to be.
pub(crate) fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    // The distance costs the product of the lengths: a word this long is nobody's slip.
    if word.len() > WORD_MAX_CHARS {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    known
        .iter()
        .map(|k| {
            (
                strsim::damerau_levenshtein(&lower, &k.to_ascii_lowercase()),
                *k,
            )
        })
        .filter(|(distance, k)| *distance <= (k.len() / 3).max(1))
        .min()
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(shown("a\nb\u{202e}c", 9), "a\\u{a}b\\u{202e}c");
        assert_eq!(shown("日本語", 3), "日本語");
        assert_eq!(shown("日本語x", 3), "日本語…");
    }

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["Effect", "Action", "Resource", "Sid"];
        assert_eq!(nearest("effect", &known), Some("Effect"));
        assert_eq!(nearest("Resources", &known), Some("Resource"));
        assert_eq!(nearest("Acton", &known), Some("Action"));
        assert_eq!(nearest("Principal", &known), None);
        assert_eq!(nearest(&"E".repeat(1_000_000), &known), None);
    }
}
