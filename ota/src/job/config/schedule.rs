//! Times and maintenance windows, as AWS writes them.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use super::{MaintenanceWindow, refuse};
use crate::Error;
use crate::rollout::Window;

/// A window's length in minutes (AWS IoT: 1 to 1430).
const WINDOW_MINUTES: std::ops::RangeInclusive<u32> = 1..=1430;

/// Seconds since 1970 of a time as AWS writes it.
pub(super) fn moment(field: &str, text: &str) -> Result<u64, Error> {
    let utc = || {
        let civil: civil::DateTime = text.replacen(' ', "T", 1).parse().ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    // The last day of 9999 is what people write for never, and lies behind the last moment that is known here.
    let never = || text.starts_with("9999-12-31").then_some(Timestamp::MAX);
    let read = text.parse::<Timestamp>().ok().or_else(utc).or_else(never);
    match read.and_then(|time| u64::try_from(time.as_second()).ok()) {
        Some(seconds) => Ok(seconds),
        None => refuse(
            field,
            format!(
                "`{}` is no time; write it as 2027-01-31 12:00 (UTC)",
                text.chars().take(64).collect::<String>().escape_debug()
            ),
        ),
    }
}

impl MaintenanceWindow {
    /// As our own windows are written.
    pub(super) fn read(&self) -> Result<Window, Error> {
        let field = "maintenanceWindows";
        if !WINDOW_MINUTES.contains(&self.duration_in_minutes) {
            return refuse(field, "durationInMinutes is 1 to 1430");
        }
        let mend = || {
            format!(
                "startTime `{}`: write it as cron(0 18 ? * MON-FRI *)",
                self.start_time
                    .chars()
                    .take(64)
                    .collect::<String>()
                    .escape_debug()
            )
        };
        let inner = self
            .start_time
            .strip_prefix("cron(")
            .and_then(|rest| rest.strip_suffix(')'))
            .unwrap_or(&self.start_time);
        let fields: Vec<&str> = inner.split_whitespace().collect();
        let [minute, hour, day, month, weekday, year] = fields[..] else {
            return refuse(field, mend());
        };
        let line = (|| {
            let minute = stepped(minute, 59)?;
            let hour = stepped(hour, 23)?;
            let day = stepped(&day.replace('?', "*"), 31)?;
            let month = stepped(month, 12)?;
            let weekday = weekdays(weekday)?;
            // Ours have seconds where they have a year.
            let (seconds, year) = match year {
                "*" => ("", String::new()),
                year => ("0 ", format!(" {year}")),
            };
            let minutes = self.duration_in_minutes;
            Some(format!(
                "{seconds}{minute} {hour} {day} {month} {weekday}{year}/{minutes}m"
            ))
        })();
        let Some(line) = line else {
            return refuse(field, mend());
        };
        line.parse()
            .or_else(|error: Error| refuse(field, format!("{}: {error}", mend())))
    }
}

/// A field in which `N/STEP` means every STEP from N on, as AWS has it; ours say up to where.
fn stepped(field: &str, most: u32) -> Option<String> {
    let part = |part: &str| {
        let Some((from, step)) = part.split_once('/') else {
            return Some(part.to_owned());
        };
        match from.parse::<u32>() {
            Ok(from) if from <= most => Some(format!("{from}-{most}/{step}")),
            Ok(_) => None,
            Err(_) => Some(part.to_owned()),
        }
    };
    let parts: Option<Vec<String>> = field.split(',').map(part).collect();
    Some(parts?.join(","))
}

/// The days of a week: AWS counts them from 1 for Sunday, ours from 0. `6L` is the last Friday of a month, `2#1` its first
/// Monday, and `L` alone a Saturday.
fn weekdays(field: &str) -> Option<String> {
    const SATURDAY: u32 = 6;
    let day = |text: &str| match text.parse::<u32>() {
        Ok(day) => (1..=SATURDAY + 1)
            .contains(&day)
            .then(|| (day - 1).to_string()),
        Err(_) => Some(text.to_owned()),
    };
    let number = |text: &str| text.parse::<u32>().ok();
    let range = |text: &str| match text.split_once('-') {
        Some((from, until)) => {
            let (from, until) = (day(from)?, day(until)?);
            match (number(&from), number(&until)) {
                // Over the end of the week.
                (Some(first), Some(last)) if first > last => {
                    Some(format!("{first}-{SATURDAY},0-{last}"))
                }
                _ => Some(format!("{from}-{until}")),
            }
        }
        None => day(text),
    };
    let part = |part: &str| match part {
        "?" => Some("*".to_owned()),
        "L" => Some(SATURDAY.to_string()),
        _ => {
            if let Some((text, nth)) = part.split_once('#') {
                return Some(format!("{}#{nth}", day(text)?));
            }
            if let Some(text) = part.strip_suffix('L') {
                return Some(format!("{}#L", day(text)?));
            }
            match part.split_once('/') {
                Some((from, step)) => {
                    // Over the end of the week there are no steps.
                    let from = range(from).filter(|from| !from.contains(','))?;
                    Some(format!("{}/{step}", stepped_from(&from)))
                }
                None => range(part),
            }
        }
    };
    /// A single day that is stepped from goes on to Saturday.
    fn stepped_from(from: &str) -> String {
        match from.parse::<u32>() {
            Ok(day) => format!("{day}-{SATURDAY}"),
            Err(_) => from.to_owned(),
        }
    }
    let parts: Option<Vec<String>> = field.split(',').map(part).collect();
    Some(parts?.join(","))
}
