//! What linting finds, and what it leaves alone.

use super::*;
use crate::device_default;

fn kinds(statement: &str) -> Vec<FindingKind> {
    let text = format!("{{\"Version\":\"2012-10-17\",\n\"Statement\":[{statement}]}}");
    let findings = Policy::parse(&text.replace('~', "arn:aws:iot:*:1:"))
        .unwrap()
        .lint();
    assert!(findings.iter().all(|f| f.line == 2), "{findings:?}");
    findings.into_iter().map(|finding| finding.kind).collect()
}

#[test]
fn device_default_is_clean() {
    assert_eq!(device_default("1").unwrap().lint(), []);
}

#[test]
fn what_is_seldom_meant_is_found() {
    use FindingKind::*;
    for (statement, expected) in [
        (
            r#"{"Effect":"Allow","Action":"iot:Publish","Resource":"~topic/*"}"#,
            vec![OverlyPermissive],
        ),
        (
            r#"{"Effect":"Allow","Action":"iot:Publish","Resource":"~topic/a/*"}"#,
            vec![],
        ),
        (
            r#"{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}"#,
            vec![OverlyPermissive],
        ),
        (
            r#"{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}"#,
            vec![OverlyPermissive],
        ),
        (
            r##"{"Effect":"Deny","Action":["iot:Subscribe","iot:Receive"],"Resource":["~topicfilter/a/#","~topic/a/b"]}"##,
            vec![MqttWildcardInDeny],
        ),
        (
            r#"{"Effect":"Deny","Action":"iot:Subscribe","Resource":"~topicfilter/a/*"}"#,
            vec![DenyOfSubscribeOnly],
        ),
        (
            r#"{"Effect":"Deny","Action":"iot:Publish","Resource":"~topic/${iot:Connection.Thing.Attributes[a]}"}"#,
            vec![FailsOpen],
        ),
        (
            r#"{"Effect":"Allow","Action":"iot:Subscribe","Resource":"~topicfilter/${iot:Connection.Thing.Attributes[a]}"}"#,
            vec![WildValue],
        ),
        (
            r#"{"Effect":"Allow","Action":"iot:Subscribe","Resource":"~topic/a"}"#,
            vec![NeverMatches],
        ),
        (
            r#"{"Effect":"Allow","Action":"iot:Connect","Resource":"~client/a","Condition":{"StringEquals":{"iot:ConnectAttributes":"LastWill"}}}"#,
            vec![WithoutQuantifier],
        ),
    ] {
        assert_eq!(kinds(statement), expected, "{statement}");
    }
}

/// The examples of AWS's page on the check, and their like.
#[test]
fn what_device_defender_calls_overly_permissive_is_found() {
    use FindingKind::OverlyPermissive;
    for (action, resource, condition, expected) in [
        ("Connect", "client/*", "", true),
        ("Connect", "client/${iot:ClientId}", "", true),
        (
            "Connect",
            "client/${iot:ClientId}",
            r#""Bool":{"iot:Connection.Thing.IsAttached":"true"}"#,
            true,
        ),
        (
            "Connect",
            "client/${iot:ClientId}",
            r#""Bool":{"iot:Connection.Thing.IsAttached":"false"}"#,
            true,
        ),
        (
            "Connect",
            "client/*",
            r#""Null":{"iot:Connection.Thing.IsAttached":"false"}"#,
            true,
        ),
        (
            "Connect",
            "client/${iot:Connection.Thing.ThingName}",
            "",
            false,
        ),
        ("Connect", "client/lamp-*", "", false),
        ("DeleteConnection", "client/*", "", true),
        ("Publish", "topic/?*", "", true),
        ("Publish", "topic/$aws/*", "", true),
        ("Publish", "topic/$aws/things/*", "", true),
        ("Publish", "topic/$aws/things/*/shadow/update", "", true),
        (
            "Publish",
            "topic/$aws/things/${iot:Connection.Thing.ThingName}/shadow/update",
            "",
            false,
        ),
        ("Publish", "topic/$aws/rules/*", "", false),
        ("Publish", "topic/plant/*", "", false),
        ("GetRetainedMessage", "topic/*", "", true),
        ("Subscribe", "topicfilter/#", "", true),
        ("Subscribe", "topicfilter/+/*", "", true),
        ("Subscribe", "topicfilter/$share/workers/#", "", true),
        ("Subscribe", "topicfilter/$share/workers/plant/#", "", false),
        ("Subscribe", "topicfilter/$aws/things/*", "", true),
        (
            "Subscribe",
            "topicfilter/$aws/things/+/shadow/update",
            "",
            true,
        ),
        ("Subscribe", "topicfilter/plant/#", "", false),
        ("GetThingShadow", "thing/*", "", true),
        ("DeleteThingShadow", "thing/*", "", true),
        ("DescribeJobExecution", "thing/*", "", true),
        ("GetPendingJobExecutions", "thing/*", "", true),
        ("StartNextPendingJobExecution", "thing/*", "", true),
        (
            "UpdateJobExecution",
            "thing/${iot:Connection.Thing.ThingName}",
            "",
            false,
        ),
    ] {
        let text = format!(
            r#"{{"Effect":"Allow","Action":"iot:{action}","Resource":"~{resource}","Condition":{{{condition}}}}}"#
        );
        assert_eq!(kinds(&text).contains(&OverlyPermissive), expected, "{text}");
    }
    let but = r#"{"Effect":"Allow","Action":"iot:*","NotResource":"~topic/secret"}"#;
    assert!(kinds(but).contains(&OverlyPermissive));
}

#[test]
fn what_never_matches_is_found() {
    use FindingKind::NeverMatches;
    for (action, resource, condition, expected) in [
        ("Publish", "topic/a", "", false),
        ("Publish", "topic/a/#", "", true),
        ("Receive", "topic/a/+/b", "", true),
        ("Subscribe", "topicfilter/a/#/b", "", true),
        ("Subscribe", "topicfilter/a/#*", "", false),
        ("Connect", "client/", "", true),
        (
            "Publish",
            "topic/${iot:Certificate.Subject.CommonName.List}/x",
            "",
            true,
        ),
        ("Publish", "topic/${aws:CurrentTime}/x", "", true),
        ("Publish", "topic/${iot:ClientId}/x", "", false),
        (
            "Publish",
            "topic/a",
            r#""StringEquals":{"iot:ClientId":"a"},"StringNotEquals":{"iot:ClientId":"a"}"#,
            true,
        ),
        (
            "Publish",
            "topic/a",
            r#""StringEquals":{"iot:ClientId":["a","b"]},"StringNotEquals":{"iot:ClientId":"a"}"#,
            false,
        ),
        (
            "Publish",
            "topic/a",
            r#""StringEqualsIgnoreCase":{"iot:ClientId":"a"},"StringNotEquals":{"iot:ClientId":"a"}"#,
            false,
        ),
        (
            "Publish",
            "topic/a",
            r#""StringNotEquals":{"iot:ClientId":["a","b"]}"#,
            false,
        ),
        (
            "Publish",
            "topic/a",
            r#""NumericLessThan":{"muster:MessageSize":"5"},"NumericGreaterThan":{"muster:MessageSize":"10"}"#,
            true,
        ),
        (
            "Publish",
            "topic/a",
            r#""NumericLessThan":{"muster:MessageSize":"11"},"NumericGreaterThan":{"muster:MessageSize":"9"}"#,
            false,
        ),
        (
            "Publish",
            "topic/a",
            r#""NumericLessThan":{"muster:QoS":"0"}"#,
            true,
        ),
        (
            "Publish",
            "topic/a",
            r#""NumericLessThan":{"muster:QoS":"1"}"#,
            false,
        ),
        (
            "Publish",
            "topic/a",
            r#""NumericLessThan":{"iot:Connection.Thing.Attributes[n]":"1"},"NumericGreaterThan":{"iot:Connection.Thing.Attributes[n]":"0"}"#,
            false,
        ),
        (
            "Publish",
            "topic/a",
            r#""StringEquals":{"iot:ClientId":[]}"#,
            true,
        ),
        (
            "Publish",
            "topic/a",
            r#""StringEquals":{"iot:Connection.Thing.ThingName":"lamp-*"}"#,
            true,
        ),
        (
            "Publish",
            "topic/a",
            r#""StringLike":{"iot:Connection.Thing.ThingName":"lamp-*"}"#,
            false,
        ),
        (
            "Connect",
            "client/a",
            r#""ForAnyValue:StringEquals":{"iot:ConnectAttributes":"Persistent"}"#,
            true,
        ),
        (
            "Connect",
            "client/a",
            r#""ForAnyValue:StringEquals":{"iot:ConnectAttributes":"LastWill"}"#,
            false,
        ),
        (
            "Publish",
            "topic/a",
            r#""Bool":{"muster:Attested":"true"}"#,
            false,
        ),
    ] {
        let text = format!(
            r#"{{"Effect":"Allow","Action":"iot:{action}","Resource":"~{resource}","Condition":{{{condition}}}}}"#
        );
        assert_eq!(kinds(&text).contains(&NeverMatches), expected, "{text}");
    }
    let half =
        r#"{"Effect":"Allow","Action":"iot:Publish","Resource":["~topic/a","~topicfilter/a"]}"#;
    assert_eq!(kinds(half), [NeverMatches]);
    let old = r#"{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:1:topic/${iot:ClientId}"}]}"#;
    let found = Policy::parse(old).unwrap().lint();
    assert!(
        found.iter().any(|one| one.kind == NeverMatches),
        "{found:?}"
    );
}

#[test]
fn what_lets_in_where_a_value_is_lacking_is_found() {
    use FindingKind::{DenyOfSubscribeOnly, FailsOpen};
    for (statement, expected) in [
        (
            r#"{"Effect":"Deny","Action":"iot:Publish","Resource":"~topic/a","Condition":{"StringEquals":{"iot:Connection.Thing.Attributes[zone]":"x"}}}"#,
            vec![FailsOpen],
        ),
        (
            r#"{"Effect":"Deny","Action":"iot:Publish","Resource":"~topic/a","Condition":{"StringEqualsIfExists":{"iot:Connection.Thing.Attributes[zone]":"x"}}}"#,
            vec![],
        ),
        (
            r#"{"Effect":"Deny","Action":"iot:Publish","Resource":"~topic/a","Condition":{"StringNotEquals":{"iot:Connection.Thing.Attributes[zone]":"x"}}}"#,
            vec![],
        ),
        (
            r#"{"Effect":"Deny","Action":"iot:Connect","Resource":"*","Condition":{"StringEquals":{"iot:DomainName":"x"}}}"#,
            vec![FailsOpen],
        ),
        (
            r#"{"Effect":"Deny","Action":"iot:Publish","NotResource":"~topic/${iot:Connection.Thing.ThingName}"}"#,
            vec![],
        ),
        // Elsewhere something is denied: that is not what the filter catches.
        (
            r#"{"Effect":"Deny","Action":"iot:Subscribe","Resource":"~topicfilter/a/*"},{"Effect":"Deny","Action":"iot:Receive","Resource":"~topic/zzz"}"#,
            vec![DenyOfSubscribeOnly],
        ),
        (
            r#"{"Effect":"Deny","Action":"iot:Subscribe","Resource":"~topicfilter/a/*"},{"Effect":"Deny","Action":"iot:Receive","Resource":"~topic/a/*"}"#,
            vec![],
        ),
    ] {
        assert_eq!(kinds(statement), expected, "{statement}");
    }
    let spares = r#"{"Effect":"Allow","Action":"iot:Publish","NotResource":"~topic/${iot:Connection.Thing.ThingName}"}"#;
    assert!(kinds(spares).contains(&FailsOpen));
}

#[test]
fn what_is_of_another_account_is_found_where_the_account_is_known() {
    let text = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Action":"iot:Publish","Resource":["arn:aws:iot:us-east-1:123456789012:topic/a","arn:aws:iot:eu-west-1:000000000000:topic/b","arn:aws:iot:*:*:topic/c"]},
        {"Effect":"Deny","Action":"iot:Publish","NotResource":"arn:aws:iot:*:123456789012:topic/*"}]}"#;
    let policy = Policy::parse(text).unwrap();
    assert_eq!(policy.lint(), []);
    let found = policy.lint_for(Some("000000000000"));
    let said: Vec<_> = found.iter().map(|one| (one.kind, one.statement)).collect();
    let kind = FindingKind::OtherAccount;
    assert_eq!(said, [(kind, 1), (kind, 2)], "{found:?}");
    assert!(found[0].text.contains("allows nothing here"), "{found:?}");
    assert!(found[1].text.contains("spares nothing here"), "{found:?}");
}

#[test]
fn what_a_closed_server_mends_is_told_apart() {
    let closed_mends = |statement: &str| {
        let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#);
        let policy = Policy::parse(&text.replace('~', "arn:aws:iot:*:1:")).unwrap();
        let [finding] = policy.lint().try_into().unwrap();
        assert_eq!(finding.kind, FindingKind::FailsOpen);
        finding.closed_mends
    };
    assert!(closed_mends(
        r#"{"Effect":"Deny","Action":"iot:Publish","Resource":"~topic/${iot:Connection.Thing.Attributes[a]}"}"#
    ));
    assert!(closed_mends(
        r#"{"Effect":"Deny","Action":"iot:Publish","Resource":"~topic/a","Condition":{"StringEquals":{"muster:Listener":"${iot:Connection.Thing.Attributes[a]}"}}}"#
    ));
    assert!(!closed_mends(
        r#"{"Effect":"Deny","Action":"iot:Publish","Resource":"~topic/a","Condition":{"StringEquals":{"iot:Connection.Thing.Attributes[a]":"x"}}}"#
    ));
}

#[test]
fn what_is_not_served_is_said_of_what_is_named() {
    use FindingKind::*;
    let unserved = r#""iot:AssumeRoleWithCertificate""#;
    for (actions, resource, expected) in [
        (unserved, "~rolealias/a", vec![NotServed]),
        (
            r#"["iot:Publish","iot:AssumeRoleWithCertificate"]"#,
            "~topic/a",
            vec![NotServed],
        ),
        (r#""iot:Assume*""#, "~rolealias/a", vec![]),
        (r#""iot:GetRetainedMessage""#, "~topic/a/*", vec![]),
        (r#""iot:ListRetainedMessages""#, "*", vec![]),
        (r#""iot:DeleteConnection""#, "~client/a", vec![]),
        (r#""iot:GetThingShadow""#, "~thing/a/b", vec![]),
    ] {
        let statement =
            format!(r#"{{"Effect":"Allow","Action":{actions},"Resource":"{resource}"}}"#);
        assert_eq!(kinds(&statement), expected, "{statement}");
    }
    let all_but = r#"{"Effect":"Deny","NotAction":"iot:Publish","Resource":"~topic/a"}"#;
    assert_eq!(kinds(all_but), []);
}

#[test]
fn over_https_there_is_no_client_id() {
    use FindingKind::*;
    for (effect, actions, kind, expected) in [
        ("Deny", r#""iot:Publish""#, "topic", vec![FailsOpen]),
        (
            "Deny",
            r#"["iot:Subscribe","iot:Receive"]"#,
            "topic",
            vec![],
        ),
        ("Allow", r#""iot:Publish""#, "topic", vec![WildValue]),
        (
            "Allow",
            r#""iot:GetRetainedMessage""#,
            "topic",
            vec![NeverMatches, WildValue],
        ),
    ] {
        let statement = format!(
            r#"{{"Effect":"{effect}","Action":{actions},"Resource":"~{kind}/a/${{iot:ClientId}}"}}"#
        );
        assert_eq!(kinds(&statement), expected, "{statement}");
    }
}

#[test]
fn a_deny_that_asks_who_the_thing_is_is_told() {
    let deny = |condition: &str| {
        kinds(&format!(
            r#"{{"Effect":"Deny","Action":"iot:Publish","Resource":"~topic/a","Condition":{condition}}}"#
        ))
    };
    let open = [FindingKind::FailsOpen];
    assert_eq!(
        deny(r#"{"StringEquals":{"iot:Connection.Thing.ThingName":"x"}}"#),
        open
    );
    assert_eq!(
        deny(r#"{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}"#),
        open
    );
    assert_eq!(
        deny(r#"{"Bool":{"iot:Connection.Thing.IsAttached":"false"}}"#),
        []
    );
    assert_eq!(
        deny(r#"{"StringEqualsIfExists":{"iot:Connection.Thing.ThingName":"x"}}"#),
        []
    );
    assert_eq!(
        deny(r#"{"StringNotEquals":{"iot:Connection.Thing.ThingName":"x"}}"#),
        []
    );
}

#[test]
fn what_is_asked_on_no_such_listener_never_speaks() {
    let allow = |action: &str, kind: &str, listener: &str| {
        kinds(&format!(
            r#"{{"Effect":"Allow","Action":"iot:{action}","Resource":"~{kind}/a","Condition":{{"StringEquals":{{"muster:Listener":"{listener}"}}}}}}"#
        ))
    };
    let never = [FindingKind::NeverMatches];
    assert_eq!(allow("Subscribe", "topicfilter", "https"), never);
    assert_eq!(allow("GetThingShadow", "thing", "wss"), never);
    assert_eq!(allow("Subscribe", "topicfilter", "wss"), []);
    assert_eq!(allow("Publish", "topic", "https"), []);
}
