use serde_json::{Value, json};

use super::*;

fn config(value: Value) -> JobConfig {
    serde_json::from_value(value).unwrap()
}

fn scheduled(value: Value) -> JobConfig {
    config(json!({"schedulingConfig": value}))
}

/// When the windows open on the clock of a zone; `None` while one is open. Never is `u64::MAX`.
fn opens(config: &JobConfig, zone: Option<&str>, now: u64) -> Option<u64> {
    match config.opening(zone, now).unwrap() {
        Opening::Open { .. } => None,
        Opening::Closed { opens } => Some(opens.unwrap_or(u64::MAX)),
    }
}

#[test]
fn windows_are_on_the_clock_of_a_zone_and_never_in_one_that_is_not_known() {
    const HOUR: u64 = 3600;
    let config = scheduled(json!({"maintenanceWindows": [
        {"startTime": "cron(0 2 ? * * *)", "durationInMinutes": 60},
        {"startTime": "cron(0 20 ? * * *)", "durationInMinutes": 60}]}));
    assert!(config.has_windows() && !scheduled(json!({})).has_windows());
    assert_eq!(opens(&config, None, 0), Some(2 * HOUR));
    assert_eq!(opens(&config, Some("UTC"), 2 * HOUR), None);
    // Nine hours before ours, and never put forward.
    assert_eq!(
        opens(&config, Some("Asia/Tokyo"), 2 * HOUR),
        Some(11 * HOUR)
    );
    assert_eq!(opens(&config, Some("Asia/Tokyo"), 11 * HOUR), None);
    assert_eq!(opens(&config, Some("Asia/Tokyo"), 17 * HOUR), None);
    assert_eq!(
        opens(&config, Some("Mars/Olympus"), 2 * HOUR),
        Some(u64::MAX)
    );
    assert_eq!(opens(&scheduled(json!({})), Some("Mars/Olympus"), 0), None);
}

#[test]
fn a_rate_counts_any_sixty_seconds() {
    let config = config(json!({"jobExecutionsRolloutConfig": {"maximumPerMinute": 5}}));
    let room = |now, recent: &[(u64, u32)]| config.room(now, 0, 0, recent);
    assert_eq!(room(100, &[]), (5, None));
    assert_eq!(room(100, &[(60, 3)]), (2, None));
    assert_eq!(room(100, &[(50, 3), (60, 2)]), (0, Some(110)));
    assert_eq!(room(110, &[(50, 3), (60, 2)]), (3, None));
}

#[test]
fn an_exponential_rate_grows_with_what_is_counted() {
    let rate = |criteria: Value| {
        config(json!({"jobExecutionsRolloutConfig": {"exponentialRate": {
            "baseRatePerMinute": 50, "incrementFactor": 2.0, "rateIncreaseCriteria": criteria}}}))
    };
    let told = rate(json!({"numberOfNotifiedThings": 1000}));
    let room = |notified| told.room(0, notified, 0, &[]).0;
    assert_eq!(
        [room(0), room(999), room(1000), room(3000), room(90_000)],
        [50, 50, 100, 400, 1000]
    );
    let done = rate(json!({"numberOfSucceededThings": 10}));
    assert_eq!(done.room(0, 5000, 10, &[]).0, 100);
    assert!(rate(json!({})).check(0).is_err());
    assert!(told.check(0).is_ok());
}

#[test]
fn windows_are_awss_cron_lines() {
    // 1 January 1970 was a Thursday.
    for line in [
        "cron(0 18 ? * THU *)",
        "cron(0 18 * * 5 *)",
        "0 18 ? 1-12 2-6 *",
        // From Thursday over the end of the week to Sunday.
        "cron(0 18 ? * 5-1 *)",
    ] {
        let config = scheduled(
            json!({"maintenanceWindows": [{"startTime": line, "durationInMinutes": 60}]}),
        );
        config.check(0).unwrap();
        let opens = |now| opens(&config, None, now);
        assert_eq!(opens(17 * 3600), Some(18 * 3600), "{line}");
        assert_eq!(opens(18 * 3600 + 3599), None, "{line}");
        assert!(opens(19 * 3600).is_some(), "{line}");
    }
    for bad in [
        "cron(0 18 ? * THU)",
        "cron(0 18 ? * 8 *)",
        "cron(0 18 ? * 0 *)",
        "cron(60/5 18 ? * * *)",
        "cron(0 18 ? * 2#9 *)",
        "cron(0 18 ? * 5-1/2 *)",
        "cron(0 18 ? * * 1969)",
        "cron(0 18 ? * * MON)",
        "",
        "cron(0 0 31 4 ? *)",
    ] {
        let config =
            scheduled(json!({"maintenanceWindows": [{"startTime": bad, "durationInMinutes": 60}]}));
        assert!(config.check(0).is_err(), "{bad}");
    }
}

#[test]
fn windows_take_awss_steps_last_days_and_years() {
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    // 1 January 1970 was a Thursday.
    for (line, opens) in [
        ("cron(30/15 * * * ? *)", HOUR / 2),
        ("cron(0 20/2 * * ? *)", 20 * HOUR),
        ("cron(0 0 L * ? *)", 30 * DAY),
        ("cron(0 18 ? * 2#1 *)", 4 * DAY + 18 * HOUR),
        ("cron(0 18 ? * MON#1 *)", 4 * DAY + 18 * HOUR),
        ("cron(0 18 ? * 6L *)", 29 * DAY + 18 * HOUR),
        ("cron(0 18 ? * L *)", 2 * DAY + 18 * HOUR),
        ("cron(0 18 ? * 1/7 *)", 3 * DAY + 18 * HOUR),
        ("cron(0 18 ? * MON,7 *)", 2 * DAY + 18 * HOUR),
        ("cron(0 0 1 1 ? 1971)", 365 * DAY),
        ("cron(0 0 1 1 ? 1971-1972)", 365 * DAY),
    ] {
        let config =
            scheduled(json!({"maintenanceWindows": [{"startTime": line, "durationInMinutes": 5}]}));
        config.check(HOUR / 4).unwrap();
        let at = |now| super::tests::opens(&config, None, now);
        assert_eq!(at(HOUR / 4), Some(opens), "{line}");
        assert_eq!(at(opens), None, "{line}");
        assert_ne!(at(opens + 5 * 60), None, "{line}");
    }
}

#[test]
fn a_rate_grows_by_tenths() {
    let factor = |factor: f64| {
        let rate = json!({"baseRatePerMinute": 50, "incrementFactor": factor,
            "rateIncreaseCriteria": {"numberOfNotifiedThings": 1000}});
        config(json!({"jobExecutionsRolloutConfig": {"exponentialRate": rate}})).check(0)
    };
    for good in [1.1, 1.2, 1.7, 2.0, 2.3, 4.9, 5.0] {
        factor(good).unwrap();
    }
    for bad in [1.0, 1.15, 1.11, 4.999, 5.1] {
        let said = factor(bad).unwrap_err().to_string();
        assert!(said.contains("incrementFactor"), "{said}");
    }
}

#[test]
fn times_are_utc_and_the_end_comes_after_the_start() {
    let config = scheduled(
        json!({"startTime": "1970-01-02 00:00", "endTime": "1970-01-03T00:00:00Z", "endBehavior": "CANCEL"}),
    );
    config.check(0).unwrap();
    assert_eq!(config.times().unwrap(), (Some(86_400), Some(172_800)));
    assert_eq!(config.end_behavior(), EndBehavior::Cancel);
    let never = json!({"startTime": "1970-01-02 00:00", "endTime": "9999-12-31T23:59:59Z", "endBehavior": "CANCEL"});
    let (_, end) = scheduled(never).times().unwrap();
    assert!(end.unwrap() > 253_000_000_000, "the year 9987 or later");
    for bad in [
        json!({"startTime": "noon"}),
        json!({"endBehavior": "CANCEL"}),
        json!({"startTime": "1970-01-02 00:00", "endTime": "1970-01-02 00:00"}),
    ] {
        assert!(scheduled(bad.clone()).check(0).is_err(), "{bad}");
    }
    assert!(config.check(172_800).is_err(), "over before it begins");
}

#[test]
fn an_abort_needs_enough_and_its_share() {
    let abort = |kind: &str| {
        config(json!({"abortConfig": {"criteriaList": [
            {"failureType": kind, "action": "CANCEL", "thresholdPercentage": 12.5, "minNumberOfExecutedThings": 8}]}}))
    };
    let ends = |succeeded, failed, timed_out| Ends {
        succeeded,
        failed,
        timed_out,
        rejected: 0,
        ..Ends::default()
    };
    assert!(
        abort("FAILED")
            .aborts(&ends(7, 1, 0))
            .unwrap()
            .contains("1 of 8")
    );
    assert_eq!(abort("FAILED").aborts(&ends(6, 1, 0)), None, "too few");
    assert_eq!(
        abort("FAILED").aborts(&ends(8, 1, 0)),
        None,
        "below the share"
    );
    assert_eq!(
        abort("FAILED").aborts(&ends(4, 0, 4)),
        None,
        "other failures"
    );
    assert!(abort("ALL").aborts(&ends(4, 0, 4)).is_some());
    assert_eq!(
        abort("ALL").aborts(&ends(8, 0, 0)),
        None,
        "no failure never aborts"
    );
}

#[test]
fn retries_are_by_kind_and_never_for_what_was_rejected() {
    let config = config(json!({"jobExecutionsRetryConfig": {"criteriaList": [
        {"failureType": "FAILED", "numberOfRetries": 2}, {"failureType": "ALL", "numberOfRetries": 1}]}}));
    config.check(0).unwrap();
    let retries = [
        ExecutionStatus::Failed,
        ExecutionStatus::TimedOut,
        ExecutionStatus::Rejected,
        ExecutionStatus::Succeeded,
    ]
    .map(|status| config.retries(status));
    assert_eq!(retries, [2, 1, 0, 0]);
}
