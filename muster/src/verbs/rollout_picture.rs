//! What `rollout watch` draws on a terminal: as many lines as it has rows for, each within its columns, so that the next
//! picture can be drawn over this one.

use super::{output, rollout::count};
use crate::printable::cell;
use serde_json::Value;

/// The longest bar of a wave, and the shortest.
const BAR: usize = 30;
const SHORTEST_BAR: usize = 5;

/// How many columns and rows a terminal has.
#[derive(Clone, Copy)]
pub(super) struct Size {
    columns: usize,
    rows: usize,
}

impl Size {
    /// That of the terminal on standard output; the usual one where it does not say.
    pub(super) fn of_terminal() -> Self {
        let said = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let said = said.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        said.map_or(
            Self {
                columns: 80,
                rows: 24,
            },
            |size| Self {
                columns: size.ws_col.into(),
                rows: size.ws_row.into(),
            },
        )
    }
}

/// What stands below the rollout.
pub(super) struct Notice<'a> {
    /// How fast it goes.
    pub(super) pace: &'a str,
    /// Why nothing newer is known.
    pub(super) away: Option<&'a str>,
}

/// The state, a wave per line with a bar, why devices failed. Two rows of the terminal are left: the cursor's, and one that
/// shows what stood there before.
pub(super) fn picture(rollout: &Value, notice: &Notice<'_>, size: Size) -> Vec<String> {
    let mut head = format!(
        "{} {} {}: {}",
        output::field(rollout, "id"),
        output::field(rollout, "name"),
        output::field(rollout, "version"),
        output::field(rollout, "state"),
    );
    match output::field(rollout, "reason") {
        "" => {}
        why => head.push_str(&format!(" ({why})")),
    }
    let mut foot: Vec<String> = back(rollout).into_iter().collect();
    let failures = failures(rollout);
    let mut below = vec![notice.pace.to_owned()];
    below.extend(
        notice
            .away
            .map(|why| format!("waiting for the server: {why}")),
    );
    let rows = size.rows.saturating_sub(2).max(1);
    let waves = output::items(rollout, "waves");
    let room = rows.saturating_sub(1 + foot.len() + below.len());
    // The waves come first, but not all the room is theirs.
    let for_failures = failures
        .len()
        .min(room.saturating_sub(waves.len()).max(room / 2));
    let over = |wave: &&Value| output::field(wave, "state") == "done";
    let over = waves.iter().take_while(over).count();
    let drawn = waves.iter().map(|wave| of_wave(wave, size.columns));
    let mut lines = vec![head];
    lines.extend(some(drawn.collect(), over, room - for_failures, "waves"));
    foot.extend(some(failures, 0, for_failures, "reasons"));
    foot.extend(below);
    lines.extend(foot.into_iter().map(|line| format!("  {line}")));
    lines.truncate(rows);
    let lines = lines.iter();
    lines.map(|line| cut(&cell(line), size.columns)).collect()
}

/// As many lines as there is room for; the first `over` are the least of interest.
fn some(mut lines: Vec<String>, over: usize, room: usize, what: &str) -> Vec<String> {
    if lines.len() <= room {
        return lines;
    }
    let Some(shown) = room.checked_sub(1) else {
        return Vec::new();
    };
    let left_out = lines.len() - shown;
    lines.drain(..left_out.min(over));
    lines.truncate(shown);
    lines.push(format!("  and {left_out} more {what}"));
    lines
}

/// So much of a line as fits.
fn cut(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(columns.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Its bar is as long as the line has room for.
fn of_wave(wave: &Value, columns: usize) -> String {
    let name = cell(output::field(wave, "name"));
    let said = format!(
        "{} of {}, {} failed, {} at it, {} queued: {}",
        count(wave, "succeeded"),
        count(wave, "total"),
        count(wave, "failed"),
        count(wave, "in_progress"),
        count(wave, "queued"),
        output::field(wave, "state"),
    );
    let taken = "  [] ".len() + name.chars().count().max(5) + 1 + said.len();
    let bar = columns.saturating_sub(taken).clamp(SHORTEST_BAR, BAR);
    let part = |key: &str| match count(wave, "total") {
        0 => 0,
        total => {
            let share = u128::from(count(wave, key)) * bar as u128 / u128::from(total);
            usize::try_from(share).unwrap_or(bar).min(bar)
        }
    };
    let (good, bad, busy) = (part("succeeded"), part("failed"), part("in_progress"));
    format!(
        "  {name:>5} [{}{}{}{}] {said}",
        "#".repeat(good),
        "x".repeat(bad),
        "-".repeat(busy),
        " ".repeat(bar.saturating_sub(good + bad + busy)),
    )
}

/// How the way back stands, where there is one.
pub(super) fn back(rollout: &Value) -> Option<String> {
    let back = rollout.get("rollback")?;
    Some(format!(
        "way back: {} of {} done, {} failed, {} under way",
        count(back, "succeeded"),
        count(back, "total"),
        count(back, "failed"),
        count(back, "in_progress")
    ))
}

/// Why devices failed, and how many.
pub(super) fn failures(rollout: &Value) -> Vec<String> {
    let failures = output::items(rollout, "failures").iter();
    let mut said: Vec<String> = failures
        .map(|failure| {
            let devices = count(failure, "devices");
            format!("{devices} failed: {}", output::field(failure, "reason"))
        })
        .collect();
    match count(rollout, "failed_otherwise") {
        0 => {}
        others => said.push(format!("{others} failed for other reasons")),
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rollout(waves: usize, reasons: usize) -> Value {
        let wave = |n: usize| {
            let state = match n {
                0..3 => "done",
                3 => "running",
                _ => "waiting",
            };
            json!({"name": format!("{}%", n + 1), "state": state, "total": 200_000, "succeeded": 100_000, "failed": 100_000, "in_progress": 0, "queued": 0})
        };
        let failure = |n| json!({"reason": format!("error {n}: the lamp of <device> stays dark whatever one does to it, and nobody knows why"), "devices": 2});
        json!({
            "id": "r-1", "name": "lamp", "version": "2.0", "state": "rolling-back", "reason": "1 of 2 failed",
            "waves": (0..waves).map(wave).collect::<Vec<_>>(),
            "failures": (0..reasons).map(failure).collect::<Vec<_>>(),
            "rollback": {"total": 1, "succeeded": 0, "failed": 1, "in_progress": 0},
        })
    }

    fn drawn(rollout: &Value, columns: usize, rows: usize) -> Vec<String> {
        let notice = Notice {
            pace: "20 devices a minute",
            away: None,
        };
        picture(rollout, &notice, Size { columns, rows })
    }

    #[test]
    fn a_picture_fits_its_terminal_whatever_is_in_it() {
        for columns in [1, 20, 60, 80, 200] {
            for rows in [1, 2, 3, 4, 5, 8, 12, 24, 60] {
                for (waves, reasons) in [(1, 0), (1, 1), (1, 100), (6, 100), (100, 0), (100, 100)] {
                    let lines = drawn(&rollout(waves, reasons), columns, rows);
                    let at = format!("{columns}x{rows}, {waves} waves, {reasons}: {lines:#?}");
                    assert!(
                        (1..=rows.saturating_sub(2).max(1)).contains(&lines.len()),
                        "{at}"
                    );
                    let fits = |line: &String| line.chars().count() <= columns;
                    assert!(lines.iter().all(fits), "{at}");
                }
            }
        }
    }

    #[test]
    fn at_eighty_columns_nothing_of_a_wave_is_missing() {
        let lines = drawn(&rollout(2, 1), 80, 24);
        assert_eq!(lines.len(), 6, "{lines:#?}");
        assert!(
            lines[1].contains("[######xxxxxx ] 100000 of 200000"),
            "{lines:#?}"
        );
        assert!(lines[1].ends_with("0 queued: done"), "{lines:#?}");
        assert!(
            lines[3].contains("way back: 0 of 1 done, 1 failed"),
            "{lines:#?}"
        );
        assert!(lines[4].starts_with("  2 failed: error 0") && lines[4].ends_with('…'));
        let wide = drawn(&rollout(1, 0), 160, 24);
        let bar = format!("[{}{}]", "#".repeat(15), "x".repeat(15));
        assert!(wide[1].contains(&bar), "{wide:#?}");
    }

    #[test]
    fn where_rows_are_few_the_wave_under_way_is_among_them() {
        let lines = drawn(&rollout(20, 50), 100, 14);
        assert_eq!(lines.len(), 12, "{lines:#?}");
        assert!(
            lines[1].contains(" 4% ") && lines[1].ends_with("running"),
            "{lines:#?}"
        );
        assert!(
            lines.iter().any(|line| line.contains("and 16 more waves")),
            "{lines:#?}"
        );
        assert!(
            lines
                .iter()
                .any(|line| line.contains("and 47 more reasons")),
            "{lines:#?}"
        );
        assert!(lines[11].contains("devices a minute"), "{lines:#?}");
    }
}
