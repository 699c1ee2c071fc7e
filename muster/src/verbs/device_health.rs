//! What is known of a device's health: `muster device quarantine|attest|violation`, and as `muster device show` tells it.

use super::{client, output};
use crate::{
    cli::{Attest, Global},
    client::encode,
    printable::cell,
};
use http::Method;
use serde_json::{Value, json};

pub(super) fn quarantine(
    global: &Global,
    name: &str,
    reason: Option<&str>,
    lift: bool,
) -> anyhow::Result<()> {
    let body = json!({ "quarantined": !lift, "reason": reason });
    let set = put(global, name, "quarantine", &body)?;
    output::answer(global, &set, |_| {
        if lift {
            format!("device {name} is taken back in")
        } else {
            format!(
                "device {name} is in quarantine and no longer attested; policies that ask for it follow at once"
            )
        }
    })
}

pub(super) fn attest(global: &Global, wanted: &Attest) -> anyhow::Result<()> {
    let name = &wanted.name;
    let body = if wanted.withdraw {
        json!({ "attested": false })
    } else {
        json!({
            "attested": true, "certificateId": wanted.certificate, "until": wanted.until,
            "validSeconds": wanted.valid.map(|valid| valid.as_secs()), "by": wanted.by,
        })
    };
    let set = put(global, name, "attestation", &body)?;
    output::answer(global, &set, |set| {
        if wanted.withdraw {
            return format!(
                "device {name} is attested no longer; policies that ask for it follow at once"
            );
        }
        format!(
            "device {name} is attested until {} under certificate {}; policies that ask for it follow at once",
            moment(set, "until"),
            output::field(set, "certificateId"),
        )
    })
}

pub(super) fn violation(
    global: &Global,
    name: &str,
    reason: &str,
    at: Option<&str>,
) -> anyhow::Result<()> {
    let body = json!({ "reason": reason, "at": at });
    let set = put(global, name, "violation", &body)?;
    output::answer(global, &set, |set| {
        format!(
            "device {name}: the last violation known is of {} ({}); policies that ask for it follow at once",
            moment(set, "lastViolation"),
            cell(output::field(set, "reason")),
        )
    })
}

fn put(global: &Global, name: &str, what: &str, body: &Value) -> anyhow::Result<Value> {
    let path = format!("/muster/v1/devices/{}/{what}", encode(name));
    client(global)?.call(Method::PUT, &path, Some(body))
}

/// What there is to say of a device's health, a line each.
pub(super) fn lines(posture: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let words = |of: &Value, key: &str| match output::field(of, key) {
        "" => String::new(),
        words => format!(": {}", cell(words)),
    };
    if let Some(quarantine) = posture.get("quarantine") {
        let since = moment(quarantine, "since");
        lines.push(format!(
            "in quarantine since {since}{}",
            words(quarantine, "reason")
        ));
    }
    if posture.get("firmwareName").is_some() {
        let field = |key| output::field(posture, key);
        lines.push(format!(
            "firmware {} {}",
            field("firmwareName"),
            field("firmwareVersion")
        ));
    }
    if let Some(attestation) = posture.get("attestation") {
        let counts = posture.get("attested") == Some(&Value::Bool(true));
        lines.push(format!(
            "{} {}{}",
            if counts {
                "attested until"
            } else {
                "not attested any more; was until"
            },
            moment(attestation, "until"),
            words(attestation, "by"),
        ));
    }
    if let Some(violation) = posture.get("lastViolation") {
        lines.push(format!(
            "last violation {} (seen by the {}){}",
            moment(violation, "at"),
            output::field(violation, "seenBy"),
            words(violation, "reason"),
        ));
    }
    lines
}

fn moment(of: &Value, key: &str) -> String {
    let seconds = of.get(key).and_then(Value::as_f64).unwrap_or_default();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a moment of this era in whole seconds"
    )]
    let moment = jiff::Timestamp::from_second(seconds as i64);
    moment.map_or_else(|_| seconds.to_string(), |moment| moment.to_string())
}
