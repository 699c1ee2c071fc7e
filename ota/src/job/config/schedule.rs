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
    let read = text.parse::<Timestamp>().ok().or_else(utc);
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
    /// As our own windows are written. AWS counts the days of a week from 1 for Sunday, and allows `?`.
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
        if year != "*" {
            return refuse(field, format!("{}; the year must be *", mend()));
        }
        const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
        let mut weekdays = String::new();
        for one in weekday.chars() {
            match one.to_digit(10) {
                None if matches!(one, '#' | '/' | 'L' | 'W') => return refuse(field, mend()),
                None => weekdays.push(one),
                Some(day) => {
                    let name = (day as usize).checked_sub(1).and_then(|day| DAYS.get(day));
                    match name {
                        Some(name) => weekdays.push_str(name),
                        None => return refuse(field, mend()),
                    }
                }
            }
        }
        let any = |text: &str| text.replace('?', "*");
        let line = format!(
            "{minute} {hour} {} {month} {}/{}m",
            any(day),
            any(&weekdays),
            self.duration_in_minutes
        );
        line.parse()
            .or_else(|error: Error| refuse(field, format!("{}: {error}", mend())))
    }
}
