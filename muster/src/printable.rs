//! Text for a terminal. Devices, packages and files put words into what an operator reads; none of them may move the
//! cursor, colour or hide what stands there, set a title, or begin a line that passes for the program's own.

use policy::misleads;

/// On one line: what would do anything but show a character is escaped, line ends too.
pub(crate) fn cell(text: &str) -> String {
    escaped(text, |_| false)
}

/// On as many lines as the program wrote; the rest as [`cell`].
pub(crate) fn lines(text: &str) -> String {
    escaped(text, |c| c == '\n')
}

/// An error: lines after its first are set in, so that none passes for one of the program's own.
pub(crate) fn error(text: &str) -> String {
    lines(text).replace('\n', "\n  ")
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if misleads(c) && !keep(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_characters_reaches_the_terminal() {
        let foreign = "\u{1b}]0;pwned\u{7}ok ü 東\r\nmuster: done\u{202e}\u{9b}2J";
        assert_eq!(
            cell(foreign),
            "\\u{1b}]0;pwned\\u{7}ok ü 東\\u{d}\\u{a}muster: done\\u{202e}\\u{9b}2J"
        );
        assert_eq!(
            error(foreign),
            "\\u{1b}]0;pwned\\u{7}ok ü 東\\u{d}\n  muster: done\\u{202e}\\u{9b}2J"
        );
        assert_eq!(lines("a\nb"), "a\nb");
    }
}
