//! How verbs answer: JSON for programs, plain lines for people.

use crate::{
    cli::Global,
    printable::{cell, lines},
};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin};

/// Prints JSON, indented, with a last newline.
pub(super) fn json(value: &Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value).context("print")?)
}

/// Prints for programs, as it is. A reader that went away (`| head`) is no error.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("print"),
        _ => Ok(()),
    }
}

/// Prints for people: devices and packages put words of their own into what is shown.
pub(super) fn told(text: &str) -> anyhow::Result<()> {
    line(&lines(text))
}

/// Says something beside the answer, on standard error.
pub(super) fn warn(text: &str) -> anyhow::Result<()> {
    writeln!(stderr(), "{}", lines(text)).context("print")
}

/// Prints the answer as JSON, or what `text` makes of it.
pub(super) fn answer(
    global: &Global,
    value: &Value,
    text: impl FnOnce(&Value) -> String,
) -> anyhow::Result<()> {
    if global.json {
        json(value)
    } else {
        told(&text(value))
    }
}

/// A field as text; empty where it is missing.
pub(super) fn field<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The items of a list field.
pub(super) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Asks before something is destroyed. Without a terminal the answer is no.
pub(super) fn confirm(yes: bool, question: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !stdin().is_terminal() {
        bail!("{question} It cannot be asked without a terminal: say --yes");
    }
    write!(stderr(), "{} [y/N] ", lines(question)).context("ask")?;
    let mut reply = String::new();
    stdin()
        .lock()
        .read_line(&mut reply)
        .context("read the reply")?;
    if matches!(reply.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        bail!("nothing was changed")
    }
}

/// Columns with two spaces between, each as wide as its widest cell. A cell stays in its line, whatever is in it.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|text| cell(text)).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain(heads.get(column).map(|head| head.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let render = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![render(heads.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| render(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let text = super::table(
            &["a", "name"],
            &[
                vec!["long".into(), "x".into()],
                vec!["s".into(), "y".into()],
            ],
        );
        assert_eq!(text, "a     name\nlong  x\ns     y");
    }

    #[test]
    fn a_cell_begins_no_row_and_moves_nothing() {
        let text = super::table(
            &["a", "b"],
            &[vec!["\u{1b}[31m\nlamp-2".into(), "y".into()]],
        );
        assert_eq!(text, "a                      b\n\\u{1b}[31m\\u{a}lamp-2  y");
    }
}
