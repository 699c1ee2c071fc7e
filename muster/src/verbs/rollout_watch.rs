//! `muster rollout watch`: follows a rollout until it ends, over restarts of the server.

use super::{
    output,
    rollout::{count, outline, path, waves},
    rollout_picture::{Notice, Size, back, failures, picture},
};
use crate::{
    cli::Global,
    client::{Client, is_for_good},
    printable::{self, cell},
};
use anyhow::bail;
use serde_json::Value;
use std::{
    collections::VecDeque,
    io::IsTerminal as _,
    process::ExitCode,
    time::{Duration, Instant},
};

/// How often the server is asked at most.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// A server that takes long to answer is left alone so many times as long.
const REST: u32 = 10;
/// A server that has not answered within this is away.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Over how long the mean of the rate is taken.
const RATE_OVER: Duration = Duration::from_secs(60);
/// The exit code where nobody can say how the rollout ended.
const NOT_KNOWN: u8 = 2;

/// Draws in place on a terminal; elsewhere a line for each change. A server that goes away is waited for. An error unless
/// the rollout succeeds.
pub(super) fn run(global: &Global, mut client: Client, id: &str) -> anyhow::Result<ExitCode> {
    let in_place = !global.json && std::io::stdout().is_terminal();
    // For programs all of it; people see how many.
    let asked = if global.json { path(id) } else { outline(id) };
    let (mut seen, mut away) = (None, None);
    let (mut last, mut height) = (String::new(), 0);
    let mut pace = Pace::default();
    loop {
        let began = Instant::now();
        let mut rest = WATCH_EVERY;
        match client.get_within(ANSWER_WITHIN, &asked) {
            Ok(shown) => {
                rest = rest.max(began.elapsed() * REST);
                let said = pace.note(Instant::now(), &shown);
                seen = Some((shown, said));
                if away.take().is_some() && !in_place {
                    output::warn("the server answers again")?;
                }
            }
            Err(error) if seen.is_none() || is_for_good(&error) => {
                let why = printable::error(&format!("{error:#}"));
                output::warn(&format!(
                    "muster: how rollout {id} ends is not known: {why}"
                ))?;
                return Ok(ExitCode::from(NOT_KNOWN));
            }
            Err(error) => {
                if away.is_none() && !in_place {
                    output::warn(&format!("waiting for the server: {error:#}"))?;
                }
                away = Some(format!("{error:#}"));
                // It may come back elsewhere, and says so in its data directory.
                if let Ok(found) = super::client(global) {
                    client = found;
                }
            }
        }
        let Some((shown, pace)) = &seen else { continue };
        if in_place {
            let notice = Notice {
                pace,
                away: away.as_deref(),
            };
            let lines = picture(shown, &notice, Size::of_terminal());
            let text = lines.join("\n");
            if text != last {
                // Up to where the last picture began, and clear from there; what is too wide after all begins no line.
                let up = match height {
                    0 => String::new(),
                    height => format!("\x1b[{height}F\x1b[J"),
                };
                output::line(&format!("{up}\x1b[?7l{text}\x1b[?7h"))?;
                (last, height) = (text, lines.len());
            }
        } else if away.is_none() {
            let text = if global.json {
                shown.to_string()
            } else {
                told(shown)
            };
            if text != last {
                if global.json {
                    output::line(&text)?;
                } else {
                    // The pace alone is no news.
                    output::line(&cell(&format!("{text} | {pace}")))?;
                }
                last = text;
            }
        }
        match output::field(shown, "state") {
            "succeeded" => return Ok(ExitCode::SUCCESS),
            state @ ("aborted" | "rolled-back") => {
                let why = shown.get("reason").and_then(Value::as_str);
                let what = state.replace("rolled-back", "undone");
                bail!("the rollout was {what}: {}", why.unwrap_or("by hand"))
            }
            _ => {}
        }
        std::thread::sleep(rest);
    }
}

/// How many devices came to an end lately, as far as this watch has seen.
#[derive(Default)]
struct Pace {
    seen: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Takes in what is seen now; the rate and the time left at that rate, in words.
    fn note(&mut self, now: Instant, rollout: &Value) -> String {
        let waves = output::items(rollout, "waves");
        let all = |key: &str| waves.iter().map(|wave| count(wave, key)).sum::<u64>();
        let finished = all("succeeded") + all("failed");
        let left = all("total").saturating_sub(finished);
        // The newest of those that are old enough is where the mean begins.
        while (self.seen.get(1)).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_OVER) {
            self.seen.pop_front();
        }
        self.seen.push_back((now, finished));
        let Some((since, before)) = self.seen.front().copied() else {
            return String::new();
        };
        let over = now.duration_since(since).as_secs().max(1);
        let done = finished.saturating_sub(before);
        let rate = done * 60 / over;
        match (left, done) {
            (0, _) => format!("{rate} devices a minute; none is left"),
            (left, 0) => format!("{left} devices left; none has finished in the last {over} s"),
            (left, done) => format!(
                "{rate} devices a minute; {left} left, {} at this rate (windows, soaks and approvals not counted)",
                for_people(left.saturating_mul(over) / done)
            ),
        }
    }
}

/// Seconds, as people say them.
fn for_people(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// One line of all that a picture says.
fn told(rollout: &Value) -> String {
    let mut parts = vec![waves(rollout)];
    parts.extend(back(rollout));
    parts.extend(failures(rollout));
    match output::field(rollout, "reason") {
        "" => {}
        why => parts.push(format!("reason: {why}")),
    }
    parts.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_says_what_a_picture_says() {
        let mut rollout = json!({
            "id": "r-1", "name": "lamp", "version": "2.0", "state": "running", "reason": null,
            "waves": [{"name": "50%", "state": "running", "total": 2, "succeeded": 1, "failed": 1, "in_progress": 0, "queued": 0}],
            "failures": [{"reason": "said \"no\", twice", "devices": 1}],
        });
        assert_eq!(
            told(&rollout),
            "running | 50%: 1 of 2 done, 1 failed, 0 under way | 1 failed: said \"no\", twice"
        );
        rollout["reason"] = "1 of 2 failed".into();
        rollout["rollback"] = json!({"total": 1, "succeeded": 0, "failed": 1, "in_progress": 0});
        let line = told(&rollout);
        assert!(
            line.contains("way back: 0 of 1 done, 1 failed")
                && line.ends_with("reason: 1 of 2 failed")
        );
    }

    #[test]
    fn the_pace_is_that_of_the_last_minute() {
        let seen = |succeeded: u64| json!({"waves": [{"total": 100, "succeeded": succeeded, "failed": 1}]});
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            pace.note(start, &seen(9)),
            "90 devices left; none has finished in the last 1 s"
        );
        let said = pace.note(at(30), &seen(19));
        assert!(
            said.starts_with("20 devices a minute; 80 left, 4 min at this rate"),
            "{said}"
        );
        // What is older than a minute no longer counts.
        pace.note(at(60), &seen(19));
        let said = pace.note(at(95), &seen(29));
        assert!(said.starts_with("9 devices a minute; 70 left"), "{said}");
        assert!(pace.note(at(96), &seen(99)).ends_with("none is left"));
    }
}
