//! `muster claim …`.

use super::{client, device_files::DeviceFiles, output};
use crate::{
    cli::{Claim, ClaimCreate, Global},
    client::encode,
};
use anyhow::{Context as _, anyhow};
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// What its files are called.
const NAME: &str = "claim";
const DAY_HOURS: i64 = 24;

pub(super) fn run(global: &Global, verb: Claim) -> anyhow::Result<ExitCode> {
    match verb {
        Claim::Create(create) => self::create(global, create)?,
        Claim::List => {
            let claims = client(global)?.pages("/muster/v1/claims?maxResults=250", "claims")?;
            let rows: Vec<Vec<String>> = claims.iter().map(row).collect();
            output::answer(global, &json!({ "claims": claims }), |_| {
                output::table(&["claim", "template", "status", "used"], &rows)
            })?;
        }
        Claim::Show { id } => {
            let path = format!("/muster/v1/claims/{}", encode(&id));
            let claim = client(global)?.call(Method::GET, &path, None)?;
            output::answer(global, &claim, described)?;
        }
        Claim::Revoke { id, yes } => {
            output::confirm(
                yes,
                &format!("Revoke claim {id}? No device can be provisioned with it any more."),
            )?;
            let path = format!("/certificates/{}?newStatus=REVOKED", encode(&id));
            let done = client(global)?.call(Method::PUT, &path, None)?;
            output::answer(global, &done, |_| format!("claim {id} is revoked"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(global: &Global, create: ClaimCreate) -> anyhow::Result<()> {
    let mut body = json!({
        "templateName": create.template,
        "uses": create.uses,
        "ratePerMinute": rate(&create.rate)?,
        "sources": create.sources,
        "lifetimeSeconds": seconds(&create.lifetime)?,
    });
    let with_csr = create.csr.is_some();
    if let (Some(file), Some(fields)) = (create.csr, body.as_object_mut()) {
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!("read certificate signing request {} (PEM)", file.display())
        })?;
        fields.insert("certificateSigningRequest".into(), text.into());
    }
    let client = client(global)?;
    let files = DeviceFiles::prepare(create.out, NAME, with_csr)?;
    let answer = client
        .call(Method::POST, "/muster/v1/claims", Some(&body))
        .inspect_err(|_| files.withdraw())?;
    files.write(&answer)?;
    let mut shown = answer;
    if let Some(fields) = shown.as_object_mut() {
        // It is in its file; a terminal's or pipeline's history is no place for it.
        fields.remove("privateKey");
    }
    output::answer(global, &shown, described)
}

fn rate(text: &str) -> anyhow::Result<u32> {
    let number = text
        .strip_suffix("/min")
        .and_then(|number| number.parse().ok());
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| anyhow!("--rate {text:?}: write it as 60/min"))
}

fn seconds(text: &str) -> anyhow::Result<i64> {
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<i64>().ok());
    let length = match days {
        Some(days) => days
            .checked_mul(DAY_HOURS)
            .and_then(jiff::SignedDuration::try_from_hours),
        None => text.parse::<jiff::SignedDuration>().ok(),
    };
    length
        .map(|length| length.as_secs())
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| anyhow!("--lifetime {text:?}: write it as 30d or 12h"))
}

fn uses(claim: &Value) -> String {
    let number = |key: &str| claim.get(key).and_then(Value::as_u64);
    let used = number("used").unwrap_or(0);
    number("uses").map_or_else(|| used.to_string(), |uses| format!("{used} of {uses}"))
}

fn row(claim: &Value) -> Vec<String> {
    vec![
        output::field(claim, "certificateId").to_owned(),
        output::field(claim, "templateName").to_owned(),
        output::field(claim, "status").to_owned(),
        uses(claim),
    ]
}

fn described(claim: &Value) -> String {
    let mut lines = vec![
        format!("claim {}", output::field(claim, "certificateId")),
        format!("template: {}", output::field(claim, "templateName")),
        format!("status: {}", output::field(claim, "status")),
        format!("used: {}", uses(claim)),
    ];
    if let Some(rate) = claim.get("ratePerMinute").and_then(Value::as_u64) {
        lines.push(format!("rate: {rate}/min"));
    }
    let sources: Vec<&str> = (output::items(claim, "sources").iter())
        .filter_map(Value::as_str)
        .collect();
    if !sources.is_empty() {
        lines.push(format!("from: {}", sources.join(", ")));
    }
    let at = claim.get("expiresAt").and_then(Value::as_f64);
    #[expect(clippy::cast_possible_truncation, reason = "seconds of this era fit")]
    let at = at.and_then(|at| jiff::Timestamp::from_second(at as i64).ok());
    lines.extend(at.map(|at| format!("until: {at}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{rate, seconds};

    #[test]
    fn bounds_are_written_with_their_units() {
        assert_eq!(rate("60/min").unwrap(), 60);
        assert_eq!(seconds("30d").unwrap(), 30 * 86_400);
        assert_eq!(seconds("12h").unwrap(), 12 * 3_600);
        assert_eq!(seconds("90s").unwrap(), 90);
        for bad in ["", "60", "0/min", "-1/min", "60/h"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        for bad in ["", "30", "0d", "-1d", "soon", "99999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
