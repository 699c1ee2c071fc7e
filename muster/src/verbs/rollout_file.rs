//! What is asked of a rollout, by flags or by a file: both name the same fields and are read by the same rules. In the
//! file each `[[wave]]` may have rules of its own.

use crate::cli::RolloutStart;
use anyhow::{Context as _, anyhow, bail};
use ota::rollout::{WaveSpec, Window};
use serde_json::{Map, Value, json};
use toml::Table;

/// What holds for a wave, or for all that do not say otherwise.
const RULES: [&str; 13] = [
    "gate",
    "start",
    "window",
    "zone",
    "rate",
    "soak",
    "success",
    "abort-failed",
    "abort-min",
    "timeout",
    "retry",
    "approve",
    "approvers",
];
/// What only the whole has.
const WHOLE: [&str; 6] = ["name", "version", "group", "wave", "alarm", "watch"];

/// The request to the server.
pub(super) fn request(asked: &RolloutStart) -> anyhow::Result<Value> {
    let mut body = match &asked.file {
        Some(path) => {
            let shown = path.display();
            let text = std::fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
            let table: Table = text
                .parse()
                .map_err(|error: toml::de::Error| anyhow!("{shown}: {error}"))?;
            whole(&table).with_context(|| format!("{shown}"))?
        }
        None => whole(&flags(asked)).map_err(|error| anyhow!("--{error:#}"))?,
    };
    if asked.dry_run {
        body.insert("dryRun".into(), true.into());
    }
    Ok(body.into())
}

/// The flags as the table that a file with the same meaning would be.
fn flags(asked: &RolloutStart) -> Table {
    let mut table = Table::new();
    let mut set = |key: &str, value: Option<toml::Value>| {
        if let Some(value) = value {
            table.insert(key.to_owned(), value);
        }
    };
    let text = |value: &Option<String>| value.clone().map(toml::Value::from);
    set("name", text(&asked.name));
    set("version", text(&asked.version));
    set("group", text(&asked.group));
    set(
        "wave",
        (!asked.waves.is_empty()).then(|| asked.waves.clone().into()),
    );
    set("start", text(&asked.start));
    set("window", text(&asked.window));
    set("zone", text(&asked.zone));
    set("rate", text(&asked.rate));
    set("soak", text(&asked.soak));
    set("success", asked.success.map(|n| i64::from(n).into()));
    set(
        "abort-failed",
        asked.abort_failed.map(|n| i64::from(n).into()),
    );
    set("alarm", asked.alarm.map(|n| i64::from(n).into()));
    set(
        "gate",
        (!asked.gates.is_empty()).then(|| asked.gates.clone().into()),
    );
    set("watch", text(&asked.watch));
    set("abort-min", asked.abort_min.map(|n| i64::from(n).into()));
    set("timeout", text(&asked.timeout));
    set("retry", asked.retry.map(|n| i64::from(n).into()));
    set("approve", asked.approve.then(|| true.into()));
    table
}

fn whole(table: &Table) -> anyhow::Result<Map<String, Value>> {
    let mut body = Map::new();
    for (key, value) in table {
        match &*key.replace('_', "-") {
            "name" | "version" | "group" => {
                let text = value
                    .as_str()
                    .ok_or_else(|| anyhow!("{key} = {value}: it must be text in quotes"))?;
                body.insert(key.clone(), text.into());
            }
            "wave" | "waves" => {
                let waves = value.as_array().ok_or_else(|| {
                    anyhow!("{key} = {value}: write a list (`wave = [\"10%\", \"100%\"]`) or `[[wave]]` tables")
                })?;
                let waves = waves.iter().enumerate().map(|(index, one)| match one {
                    toml::Value::Table(table) => {
                        wave(table).with_context(|| format!("wave {}", index + 1))
                    }
                    size => Ok(json!(self::size("wave", size)?)),
                });
                let waves = waves.collect::<anyhow::Result<Vec<Value>>>()?;
                growing(&waves)?;
                body.insert("waves".into(), waves.into());
            }
            "alarm" => {
                let (_, percent) = rule("success", key, value, &WHOLE)?;
                body.insert("alarm".into(), percent);
            }
            "watch" => {
                let (_, seconds) = rule("soak", key, value, &WHOLE)?;
                body.insert("watchSeconds".into(), seconds);
            }
            known => {
                let (field, value) = rule(known, key, value, &WHOLE)?;
                body.insert(field.into(), value);
            }
        }
    }
    for key in ["name", "version", "group"] {
        if !body.contains_key(key) {
            bail!("{key} is missing: a rollout needs a name, a version and a group");
        }
    }
    Ok(body)
}

fn wave(table: &Table) -> anyhow::Result<Value> {
    let mut wave = Map::new();
    for (key, value) in table {
        match &*key.replace('_', "-") {
            "size" => {
                wave.insert("size".into(), size(key, value)?.into());
            }
            known => {
                let (field, value) = rule(known, key, value, &["size"])?;
                wave.insert(field.into(), value);
            }
        }
    }
    if !wave.contains_key("size") {
        bail!("size is missing: `10%`, `5` or `group:NAME`");
    }
    Ok(wave.into())
}

/// How large a wave is, as the server reads it.
fn size(key: &str, value: &toml::Value) -> anyhow::Result<String> {
    let text = match value {
        toml::Value::String(size) => Some(size.clone()),
        toml::Value::Integer(size) => Some(size.to_string()),
        _ => None,
    };
    let read = text.filter(|text| text.parse::<WaveSpec>().is_ok());
    read.ok_or_else(|| {
        anyhow!("{key} {value}: write `10%` (1% to 100%), `5` (things) or `group:NAME`")
    })
}

/// The sizes of waves of a request.
fn sizes(waves: &[Value]) -> impl Iterator<Item = WaveSpec> {
    waves
        .iter()
        .filter_map(|wave| wave.as_str().or_else(|| wave.get("size")?.as_str()))
        .filter_map(|size| size.parse().ok())
}

/// Sizes are cumulative. The server counts devices, so in a group of few it may not see that percentages fall.
fn growing(waves: &[Value]) -> anyhow::Result<()> {
    let mut reached = 0;
    for size in sizes(waves) {
        let WaveSpec::Percent(percent) = size else {
            continue;
        };
        if percent < reached {
            bail!(
                "wave \"{percent}%\": sizes are cumulative and a wave before it goes to {reached}%, so it would have no device: write more than {reached}%"
            );
        }
        reached = percent;
    }
    Ok(())
}

/// Who is in no wave, in words, where the request alone shows that somebody may be.
pub(super) fn left_out(body: &Value) -> Option<String> {
    let waves: Vec<WaveSpec> = sizes(body.get("waves")?.as_array()?).collect();
    let of_all = |spec: &&WaveSpec| !matches!(spec, WaveSpec::Group(_));
    let end = match waves.iter().rfind(of_all) {
        Some(WaveSpec::Percent(100)) => return None,
        Some(WaveSpec::Count(count)) => format!("end at {count} devices of the group"),
        Some(percent) => format!("end at {percent} of the group"),
        None if waves.is_empty() => return None,
        None => "are of named groups only".to_owned(),
    };
    Some(format!(
        "the waves {end}: other devices of the rollout's group are in none and get nothing (a last wave of 100% has them all)"
    ))
}

/// A rule's name and value in the API. Errors name the field, the value and the mend.
fn rule(
    known: &str,
    key: &str,
    value: &toml::Value,
    others: &[&str],
) -> anyhow::Result<(&'static str, Value)> {
    let words = |mend: &str| anyhow!("{key} {value}: {mend}");
    let text = |mend: &str| value.as_str().ok_or_else(|| words(mend));
    let number = |mend: &str| {
        let number = value.as_integer().and_then(|n| u32::try_from(n).ok());
        number.map(Value::from).ok_or_else(|| words(mend))
    };
    let percent = || {
        let read = match value {
            toml::Value::String(text) => text.trim_end_matches('%').parse().ok(),
            other => other.as_integer(),
        };
        let percent = read.filter(|percent| (0..=100).contains(percent));
        percent
            .map(Value::from)
            .ok_or_else(|| words("write a percentage, 0 to 100"))
    };
    let duration = |mend: &str| {
        let length: jiff::SignedDuration = text(mend)?.parse().map_err(|_| words(mend))?;
        if length.is_negative() {
            return Err(words(mend));
        }
        Ok(length)
    };
    Ok(match known {
        "start" => {
            let mend = "write a moment as 2027-01-31T12:00:00Z";
            let text = match value {
                toml::Value::Datetime(moment) => moment.to_string(),
                other => other.as_str().ok_or_else(|| words(mend))?.to_owned(),
            };
            let moment: jiff::Timestamp = text.parse().map_err(|_| words(mend))?;
            (
                "startAt",
                u64::try_from(moment.as_second()).unwrap_or(0).into(),
            )
        }
        "window" => {
            let text = text("write CRON/DURATION as text")?;
            let read: Result<Window, ota::Error> = text.parse();
            let said = |error: ota::Error| {
                // It names the value itself.
                let said = error.to_string();
                let why = said.split_once("window ").map_or(&*said, |(_, why)| why);
                anyhow!("{key} {why}")
            };
            read.map_err(said)?;
            ("window", text.into())
        }
        "zone" => {
            let mend = "write an IANA name such as Europe/Berlin";
            let text = text(mend)?;
            ota::rollout::zone(text, key).map_err(|_| words(mend))?;
            ("zone", text.into())
        }
        "rate" => {
            let mend =
                "write it as 100/min, or as `50/min x2/1000` to double it after each 1000 devices";
            let read = match value {
                toml::Value::String(text) => {
                    let read: Result<ota::rollout::Rate, ota::Error> = text.parse();
                    let said = |error: ota::Error| {
                        // It names the value itself.
                        let said = error.to_string();
                        let why = said.split_once("--rate ").map_or(&*said, |(_, why)| why);
                        anyhow!("{key} {why}")
                    };
                    let rate = read.map_err(said)?;
                    // Servers of before rates could grow know numbers only.
                    Some(match rate.growth {
                        None => rate.per_minute.into(),
                        Some(_) => text.as_str().into(),
                    })
                }
                other => {
                    let number = other.as_integer().and_then(|n| u32::try_from(n).ok());
                    number.map(Value::from)
                }
            };
            ("rate", read.ok_or_else(|| words(mend))?)
        }
        "soak" => (
            "soakSeconds",
            duration("write it as 10m or 24h")?.as_secs().into(),
        ),
        "timeout" => {
            let mend = "write whole minutes, one or more, as 90m or 2h";
            let length = duration(mend)?;
            let minutes = length.as_mins();
            if minutes == 0 || length != jiff::SignedDuration::from_mins(minutes) {
                return Err(words(mend));
            }
            ("timeoutMinutes", minutes.into())
        }
        "success" => ("success", percent()?),
        "abort-failed" => ("abortFailed", percent()?),
        "abort-min" => ("abortMin", number("write a whole number, 1 or more")?),
        "retry" => ("retry", number("write how many times, as a whole number")?),
        "gate" => {
            let mend = "write a list of disconnects, reconnects, authorization-failures, silence, reported";
            let one = |value: &toml::Value| {
                let metric: ota::rollout::Metric = value.as_str()?.parse().ok()?;
                Some(metric.as_str())
            };
            let metrics = match value {
                toml::Value::Array(list) => list.iter().map(one).collect::<Option<Vec<_>>>(),
                other => one(other).map(|one| vec![one]),
            };
            ("gates", metrics.ok_or_else(|| words(mend))?.into())
        }
        "approvers" => (
            "approvers",
            number("write how many people, as a whole number")?,
        ),
        "approve" => {
            let wanted = value
                .as_bool()
                .ok_or_else(|| words("write true or false"))?;
            ("approvers", u32::from(wanted).into())
        }
        _ => {
            let fields: Vec<&str> = others.iter().chain(&RULES).copied().collect();
            bail!("{key} is not known here; there are {}", fields.join(", "));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Value> {
        whole(&text.parse::<Table>().unwrap()).map(Value::from)
    }

    fn words(text: &str) -> String {
        let head = "name = \"lamp\"\nversion = \"2.0\"\ngroup = \"hall\"\n";
        format!("{:#}", read(&format!("{head}{text}")).unwrap_err())
    }

    #[test]
    fn a_file_says_all_that_flags_say_and_more() {
        let body = read(
            r#"
            name = "lamp"
            version = "2.0"
            group = "hall"
            window = "0 2 * * */3h"
            zone = "Europe/Berlin"
            rate = "100/min"
            soak = "24h"
            success = 95
            abort_failed = "20%"
            alarm = "5%"
            timeout = "2h"
            retry = 1
            start = 2027-01-31T12:00:00Z
            [[wave]]
            size = "group:canaries"
            rate = 5
            [[wave]]
            size = 10
            rate = "50/min x2/1000"
            approve = true
            abort-min = 3
            [[wave]]
            size = "100%"
            approvers = 2
            start = "2027-02-01T12:00:00+01:00"
            "#,
        )
        .unwrap();
        assert_eq!(
            body,
            json!({
                "name": "lamp", "version": "2.0", "group": "hall", "window": "0 2 * * */3h", "zone": "Europe/Berlin",
                "rate": 100, "soakSeconds": 86_400, "success": 95, "abortFailed": 20, "alarm": 5, "timeoutMinutes": 120, "retry": 1,
                "startAt": 1_801_396_800,
                "waves": [
                    {"size": "group:canaries", "rate": 5},
                    {"size": "10", "rate": "50/min x2/1000", "approvers": 1, "abortMin": 3},
                    {"size": "100%", "approvers": 2, "startAt": 1_801_479_600},
                ],
            })
        );
        let short = read("name='a'\nversion='1'\ngroup='g'\nwave=['10%', '100%']").unwrap();
        assert_eq!(short["waves"], json!(["10%", "100%"]));
    }

    #[test]
    fn of_flags_the_flag_is_named() {
        let asked = |waves: &[&str], window: Option<&str>| RolloutStart {
            name: Some("lamp".to_owned()),
            version: Some("2.0".to_owned()),
            group: Some("hall".to_owned()),
            waves: waves.iter().map(|&wave| wave.to_owned()).collect(),
            window: window.map(str::to_owned),
            ..RolloutStart::default()
        };
        let words = |asked| format!("{:#}", request(&asked).unwrap_err());
        let wave = words(asked(&["10%", "10x"], None));
        assert!(wave.starts_with("--wave \"10x\": write `10%`"), "{wave}");
        let window = words(asked(&[], Some("0 2 * * */300h")));
        let expected = "--window `0 2 * * */300h`: it must stay open for 1s to 168h";
        assert!(window.starts_with(expected), "{window}");
        let good = asked(&["10%", "5", "group:x"], Some("0 2 * * */3h"));
        assert_eq!(request(&good).unwrap()["waves"][2], "group:x");
    }

    #[test]
    fn a_wave_that_is_smaller_than_one_before_it_is_refused() {
        for waves in [
            "wave = ['50%', '10%']",
            "wave = ['50%', 'group:canaries', 9, '10%', '100%']",
            "[[wave]]\nsize = '50%'\n[[wave]]\nsize = '10%'",
        ] {
            let said = words(waves);
            assert!(
                said.contains("wave \"10%\": sizes are cumulative")
                    && said.contains("more than 50%"),
                "{said}"
            );
        }
    }

    #[test]
    fn whoever_may_be_in_no_wave_is_spoken_of() {
        let head = "name = 'lamp'\nversion = '2.0'\ngroup = 'hall'\n";
        let said = |text: &str| left_out(&read(&format!("{head}{text}")).unwrap());
        for all in ["", "wave = ['10%', '100%']", "wave = ['100%', 'group:a']"] {
            assert_eq!(said(all), None, "{all}");
        }
        for (some, words) in [
            (
                "wave = ['10%', 'group:a', '50%']",
                "end at 50% of the group",
            ),
            ("[[wave]]\nsize = 5", "end at 5 devices of the group"),
            ("wave = ['group:a']", "are of named groups only"),
        ] {
            assert!(said(some).unwrap().contains(words), "{some}");
        }
    }

    #[test]
    fn errors_name_field_value_and_mend() {
        for short in ["0m", "30s", "90s", "-1h", "1500ms", "soon"] {
            let said = words(&format!("timeout = \"{short}\""));
            assert!(
                said.contains(&format!("timeout \"{short}\": write whole minutes")),
                "{said}"
            );
        }
        assert!(words("soak = \"soon\"").contains("soak \"soon\": write it as 10m"));
        assert!(words("soak = \"-1h\"").contains("write it as 10m"));
        assert!(words("rate = \"100/h\"").contains("rate `100/h`: write it as 100/min"));
        assert!(words("success = 101").contains("success 101: write a percentage"));
        assert!(words("retry = -1").contains("retry -1"));
        assert!(words("start = \"noon\"").contains("start \"noon\": write a moment"));
        assert!(
            words("windows = \"x\"").contains("windows is not known here; there are name, version")
        );
        assert!(words("[[wave]]\nrate = 5").contains("wave 1: size is missing"));
        assert!(
            words("[[wave]]\nsize = 1\n[[wave]]\nsize = 2\ngroup = \"x\"")
                .contains("wave 2: group is not known")
        );
        assert!(words("wave = 5").contains("write a list"));
        assert!(words("[[wave]]\nsize = \"0%\"").contains("wave 1: size \"0%\": write `10%`"));
        assert!(words("wave = [true]").contains("wave true: write `10%`"));
        assert!(words("zone = \"Berlin\"").contains("zone \"Berlin\": write an IANA name"));
        assert!(words("window = \"0 2 * * *\"").contains("window `0 2 * * *`: it has no `/D"));
        assert!(
            format!("{:#}", read("name = \"lamp\"").unwrap_err()).contains("version is missing")
        );
    }
}
