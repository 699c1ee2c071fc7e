//! Documents that are taken, and what is said of those that are not.

use super::*;
use crate::error::Problem;

const STATEMENT: &str = r#"{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}"#;

fn document(statement: &str) -> String {
    format!("{{\"Version\":\"2012-10-17\",\"Statement\":{statement}}}")
}

fn message(text: &str) -> String {
    Policy::parse(text).expect_err(text).to_string()
}

#[test]
fn takes_one_statement_or_a_list_and_keeps_the_text() {
    for text in [
        document(STATEMENT),
        document(&format!(" [ {STATEMENT} , {STATEMENT} ] ")),
    ] {
        assert_eq!(Policy::parse(&text).unwrap().text(), text);
    }
    let text = r#"{"Id":"x","Statement":{"Sid":"s","Effect":"Deny","Action":["iot:Pub*"],
        "Resource":["*"]},"Version":"2008-10-17"}"#;
    let policy = Policy::parse(text).unwrap();
    assert_eq!(policy.statements()[0].sid.as_deref(), Some("s"));
    assert_eq!(policy.statements()[0].effect, Effect::Deny);
}

#[test]
fn every_misunderstanding_is_named_with_its_place() {
    let with =
        |member: &str| document(&STATEMENT.replace("\"Action\"", &format!("{member},\"Action\"")));
    let unknown = "is not understood in a statement";
    for (text, expected) in [
        (String::new(), "line 1, column 1: not JSON: EOF"),
        (document(STATEMENT).replace('}', ""), "not JSON: EOF"),
        (document(STATEMENT) + "x", "not JSON: trailing characters"),
        (
            "\u{feff}{}".into(),
            "line 1, column 1: the document begins with a byte order mark",
        ),
        ("[]".into(), "the document is a list, but must be an object"),
        ("null".into(), "the document is null"),
        ("{}".into(), "the document has no \"Version\""),
        (
            r#"{"Version":"2012-10-17"}"#.into(),
            "the document has no \"Statement\"",
        ),
        (
            r#"{"Version":20121017,"Statement":[]}"#.into(),
            "column 12: Version is a number",
        ),
        (
            r#"{"Version":"2012-10-18","Statement":[]}"#.into(),
            "version \"2012-10-18\"",
        ),
        (document("[]"), "Statement is an empty list"),
        (document("[[]]"), "a statement is a list"),
        (
            document(&format!("[[{STATEMENT}]]")),
            "a statement is a list",
        ),
        (document("{}"), "column 37: a statement has no \"Effect\""),
        (
            with("\"Condition\":[]"),
            "column 67: Condition is a list, but must be an object of operators (statement 1)",
        ),
        (
            with("\"NotAction\":\"*\""),
            "has both \"Action\" and \"NotAction\"",
        ),
        (
            with("\"Sid\":\"s\",\"NotResource\":\"*\""),
            "has both \"Resource\" and \"NotResource\": write one of them (statement 1, Sid \"s\")",
        ),
        (
            with("\"Principal\":\"*\""),
            &format!("\"Principal\" {unknown}"),
        ),
        (with("\"action\":\"*\""), "did you mean \"Action\"?"),
        (
            with("\"Effect\":\"Deny\""),
            "\"Effect\" stands twice in a statement",
        ),
        (
            with("\"Eff\\u0065ct\":\"Deny\""),
            "\"Effect\" stands twice in a statement",
        ),
        (with("\"Sid\":[]"), "Sid is a list, but must be a string"),
        (with("\"Sid\":\"\\ud800\""), "not JSON"),
        (with("\"a\\nb\":1"), "\"a\\\\u{a}b\" is not understood"),
        (
            document(&STATEMENT.replace("Allow", "allow")),
            "did you mean \"Allow\"?",
        ),
        (
            document(&STATEMENT.replace("\"Allow\"", "true")),
            "Effect is true or false",
        ),
        (
            document(&STATEMENT.replace("iot:Publish", "iot:Pubish")),
            "did you mean \"iot:Publish\"",
        ),
        (
            document(&STATEMENT.replace("iot:Publish", "iot:GetRetained")),
            "names none of",
        ),
        (
            document(&STATEMENT.replace("\"iot:Publish\"", "[]")),
            "Action is an empty list",
        ),
        (
            document(&STATEMENT.replace("\"iot:Publish\"", "[\"*\",1]")),
            "Action is a number",
        ),
        (
            document(&STATEMENT.replace("\"*\"", "[]")),
            "Resource is an empty list",
        ),
        (
            document(&STATEMENT.replace("\"*\"", "[[\"*\"]]")),
            "Resource is a list",
        ),
        (
            document(&STATEMENT.replace("\"*\"", "{\"*\":1}")),
            "Resource is an object",
        ),
        (
            document(STATEMENT).replacen('{', "{\"Versoin\":1,", 1),
            "did you mean \"Version\"?",
        ),
    ] {
        let message = message(&text);
        assert!(message.contains(expected), "{text}\n{message}\n{expected}");
    }
}

#[test]
fn conditions_are_refused_with_place_reason_and_nearest_word() {
    let with = |condition: &str| {
        let condition = format!("\"Sid\":\"Mine\",\"Condition\":{condition},\"Action\"");
        document(&STATEMENT.replace("\"Action\"", &condition))
    };
    for (condition, expected) in [
        (
            r#"{"StringEqual":{}}"#,
            "column 81: operator \"StringEqual\" is not known",
        ),
        (r#"{"StringEqual":{}}"#, "did you mean \"StringEquals\"?"),
        (
            r#"{"ForAnyValues:StringLike":{}}"#,
            "did you mean \"ForAnyValue:StringLike\"?",
        ),
        (r#"{"NullIfExists":{}}"#, "is not known"),
        (
            r#"{"Bool":{"iot:Connection.Thing.IsAtached":"true"}}"#,
            "did you mean \"iot:Connection.Thing.IsAttached\"?",
        ),
        (
            r#"{"Bool":{"iot:Connection.Thing.IsAttached":"yes"}}"#,
            "Bool takes true or false, not \"yes\" (statement 1, Sid \"Mine\")",
        ),
        (
            r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/40"}}"#,
            "IpAddress takes an address",
        ),
        (
            r#"{"NumericEquals":{"iot:ClientId":["1","x"]}}"#,
            "NumericEquals takes a whole or decimal number, not \"x\"",
        ),
        (
            r#"{"DateEquals":{"aws:CurrentTime":"soon"}}"#,
            "DateEquals takes a date",
        ),
        (
            r#"{"StringLike":{"aws:CurrentTime":"2026*"}}"#,
            "compare it by a Date operator",
        ),
        (
            r#"{"BinaryEquals":{"iot:ClientId":"?"}}"#,
            "BinaryEquals takes base64",
        ),
        (
            r#"{"ArnLike":{"iot:LastWillTopic":"topic/x"}}"#,
            "an ARN of six fields",
        ),
        (
            r#"{"Null":{"iot:ClientId":"maybe"}}"#,
            "Null takes true (the key is absent)",
        ),
        (
            r#"{"StringEquals":{"iot:ClientId":{}}}"#,
            "is an object, but must be a string",
        ),
        (
            r#"{"StringEquals":{"iot:ClientId":null}}"#,
            "is null, but must be a string",
        ),
        (
            r#"{"StringEquals":{"iot:ClientId":"a","IOT:CLIENTID":"b"}}"#,
            "\"IOT:CLIENTID\" stands twice",
        ),
        (
            r#"{"StringEquals":{},"StringEquals":{}}"#,
            "\"StringEquals\" stands twice in Condition",
        ),
        (
            r#"{"StringEquals":{"iot:ClientId":"${iot:ClientI}"}}"#,
            "did you mean \"iot:ClientId\"?",
        ),
    ] {
        let message = message(&with(condition));
        assert!(message.contains(expected), "{condition}\n{message}");
    }
}

/// What is far too large or too deep is refused by a bound, not by exhaustion.
#[test]
fn monsters_are_refused() {
    let wide = Limits {
        document_max_bytes: 64 * 1024 * 1024,
        document_max_visible_chars: 64 * 1024 * 1024,
    };
    let megabyte = document(&STATEMENT.replace('*', &"a".repeat(1 << 20)));
    let many = document(&format!("[{}]", vec![STATEMENT; 100_000].join(",")));
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let deep = [
        document(&deep),
        document(&STATEMENT.replace("\"*\"", &deep)),
    ];
    for text in [&megabyte, &many] {
        assert!(message(text).contains("are the limit"));
    }
    for text in &deep {
        assert!(
            message(text).starts_with("line 1, column "),
            "refused at its place"
        );
    }
    assert!(Policy::parse_within(&many, &wide).is_ok());
    let variables = (0..3_000).map(|n| format!("${{iot:Connection.Thing.Attributes[{n}]}}"));
    let crowded = STATEMENT.replace(
        "\"*\"",
        &format!(
            "\"arn:aws:iot:*:1:topic/{}\"",
            variables.collect::<String>()
        ),
    );
    assert!(Policy::parse_within(&document(&crowded), &wide).is_ok());
}

#[test]
fn lines_and_columns_count_from_one_in_characters() {
    let text = document(STATEMENT).replace("\"Action\"", "\n  \"Sid\": \"é\", \"Actoin\"");
    let error = Policy::parse(&text).unwrap_err();
    assert_eq!((error.line, error.column), (2, 15));
}

#[test]
fn the_bounds_hold_exactly() {
    let text = document(STATEMENT);
    let limits = Limits {
        document_max_bytes: text.len() + 1,
        document_max_visible_chars: text.len(),
    };
    assert!(Policy::parse_within(&format!("{text} "), &limits).is_ok());
    let error = Policy::parse_within(&format!("{text}  "), &limits).unwrap_err();
    assert!(
        matches!(error.problem, Problem::TooManyBytes { .. }),
        "{error}"
    );
    let fewer = Limits {
        document_max_visible_chars: text.len() - 1,
        ..limits
    };
    let error = Policy::parse_within(&text, &fewer).unwrap_err();
    let (chars, max) = (text.len(), text.len() - 1);
    assert_eq!(error.problem, Problem::TooManyVisibleChars { chars, max });
    let padded = text.clone() + &" ".repeat(64 * 1024 - text.len());
    assert!(Policy::parse(&padded).is_ok());
    assert!(Policy::parse(&(padded + " ")).is_err());
}

#[test]
fn great_documents_cost_bounded_work() {
    let wide = Limits {
        document_max_bytes: usize::MAX,
        document_max_visible_chars: usize::MAX,
    };
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for text in [
        document(&deep),
        document(&STATEMENT.replace("\"*\"", &deep)),
        deep,
    ] {
        assert!(Policy::parse(&text).is_err());
    }
    let list = format!("[{}{STATEMENT}]", format!("{STATEMENT},").repeat(99_999));
    let policy = Policy::parse_within(&document(&list), &wide).unwrap();
    assert_eq!(policy.statements().len(), 100_000);
    let keys = (0..100_000)
        .map(|n| format!("\"k{n}\":0,"))
        .collect::<String>();
    assert!(Policy::parse_within(&format!("{{{keys}\"x\":1}}"), &wide).is_err());
    assert!(Policy::parse(&" ".repeat(1_000_000)).is_err());
    assert!(Policy::parse_within(&"\"x".repeat(1_000_000), &wide).is_err());
}

#[test]
fn the_older_version_has_no_variables() {
    let text = document(STATEMENT).replace("\"*\"", "\"arn:aws:iot:*:1:topic/${x\"");
    assert!(Policy::parse(&text).is_err());
    assert!(Policy::parse(&text.replace("2012", "2008")).is_ok());
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    let read = |bytes: &[u8]| Policy::text_of(bytes.to_vec());
    assert_eq!(read("{\"a\": \"é\"}".as_bytes()).unwrap(), "{\"a\": \"é\"}");
    let error = read(b"{\n \"\xc3\xa9\": \"\xe9\"}").unwrap_err();
    assert_eq!((error.line, error.column), (2, 8));
    let said = error.to_string();
    assert!(said.contains("byte 0xe9 here is no UTF-8"), "{said}");
    let wide: Vec<u8> = "\u{feff}{}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let error = read(&wide).unwrap_err();
    assert_eq!((error.line, error.column), (1, 1));
    assert!(error.to_string().contains("UTF-16"), "{error}");
}

#[test]
fn null_with_an_affix_is_null() {
    for operator in ["NullIfExists", "ForAnyValue:Null"] {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{{"{operator}":{{"iot:ClientId":"true"}}}}}}]}}"#
        );
        let error = Policy::parse(&text).unwrap_err().to_string();
        assert!(error.contains("did you mean \"Null\"?"), "{error}");
    }
}
