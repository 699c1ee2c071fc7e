use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::request::Parts;
use http::{HeaderValue, Request};

use super::{Claim, MAX_SKEW_SECONDS, Refusal};

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OTHER: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn credentials() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "secret/of+tests", None, None, "tests")
}

fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_521_600)
}

/// A request as a client signs it.
fn signed(service: &str, target: &str, extra: &[(&'static str, &str)]) -> Parts {
    let mut request = Request::get(target).header("host", "localhost:8443");
    for (name, value) in extra {
        request = request.header(*name, *value);
    }
    let mut request = request.body(()).unwrap();
    let identity = credentials().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-central-1")
        .name(service)
        .time(noon())
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()))
        .collect();
    let signable = SignableRequest::new(
        "GET",
        target,
        headers.iter().map(|(n, v)| (n.as_str(), v.as_str())),
        SignableBody::Precomputed(EMPTY.into()),
    )
    .unwrap();
    let (instructions, _) = sign(signable, &params).unwrap().into_parts();
    for (name, value) in instructions.headers() {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request
            .headers_mut()
            .insert(name, HeaderValue::from_str(value).unwrap());
    }
    request.into_parts().0
}

fn judge(head: &Parts, now: SystemTime, body: &str) -> Result<(), Refusal> {
    Claim::read(head, now)?.verify(head, &credentials(), body)
}

fn edit_authorization(head: &mut Parts, edit: impl Fn(&str) -> String) {
    let text = edit(head.headers["authorization"].to_str().unwrap());
    head.headers
        .insert("authorization", HeaderValue::from_str(&text).unwrap());
}

#[test]
fn a_signed_request_is_believed_with_its_region() {
    for service in ["iot", "iotdata", "iotdevicegateway", "iot-jobs-data"] {
        let head = signed(service, "/things/a%20b%2Fc?maxResults=1&x=%2B", &[]);
        assert_eq!(judge(&head, noon(), EMPTY), Ok(()));
        assert_eq!(Claim::read(&head, noon()).unwrap().region, "eu-central-1");
    }
}

/// An independent signer: what botocore writes is believed.
#[test]
fn a_signature_of_botocore_is_believed() {
    let head = Request::put("/thing-groups/addThingToThingGroup?q=a%20b")
        .header("host", "localhost:8443")
        .header("content-type", "application/json")
        .header("x-amz-date", BOTOCORE.date)
        .header("authorization", BOTOCORE.authorization)
        .body(())
        .unwrap()
        .into_parts()
        .0;
    let now = noon() + Duration::from_secs(30);
    let body = super::super::body_hash(b"{\"thingName\": \"lamp\"}");
    assert_eq!(judge(&head, now, &body), Ok(()));
}

struct Vector {
    date: &'static str,
    authorization: &'static str,
}

/// Made with botocore 1.43: `SigV4Auth(credentials, "iot", "us-east-1")`.
const BOTOCORE: Vector = Vector {
    date: "20261124T120000Z",
    authorization: "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261124/us-east-1/iot/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date, \
        Signature=108da384f281961dd9ef57f2cfc6d63a9794228ac1392cf041c810b910119466",
};

#[test]
fn the_window_is_fifteen_minutes_both_ways() {
    let head = signed("iot", "/things", &[]);
    let skew = Duration::from_secs(MAX_SKEW_SECONDS);
    let past = Duration::from_secs(MAX_SKEW_SECONDS + 1);
    assert_eq!(judge(&head, noon() + skew, EMPTY), Ok(()));
    assert_eq!(judge(&head, noon() - skew, EMPTY), Ok(()));
    for now in [noon() + past, noon() - past] {
        let refusal = judge(&head, now, EMPTY).unwrap_err();
        assert!(matches!(refusal, Refusal::Skewed { .. }));
        let text = refusal.to_string();
        assert!(text.contains("2026-11-24T12:00:00Z"), "{text}");
    }
}

#[test]
fn another_service_is_named_in_the_refusal() {
    let head = signed("execute-api", "/things", &[]);
    assert_eq!(
        judge(&head, noon(), EMPTY),
        Err(Refusal::Service("execute-api".into()))
    );
}

#[test]
fn a_change_of_body_query_path_or_method_is_seen() {
    let head = signed("iot", "/things?maxResults=1", &[]);
    assert_eq!(judge(&head, noon(), OTHER), Err(Refusal::Mismatch));
    for target in ["/things?maxResults=2", "/things", "/thing?maxResults=1"] {
        let mut changed = signed("iot", "/things?maxResults=1", &[]);
        changed.uri = target.parse().unwrap();
        assert_eq!(judge(&changed, noon(), EMPTY), Err(Refusal::Mismatch));
    }
    let mut changed = signed("iot", "/things?maxResults=1", &[]);
    changed.method = http::Method::DELETE;
    assert_eq!(judge(&changed, noon(), EMPTY), Err(Refusal::Mismatch));
}

#[test]
fn headers_that_carry_meaning_are_signed_ones() {
    let principal = ("x-amzn-principal", "arn:aws:iot:r:000000000000:cert/aa");
    let mut head = signed("iot", "/things/a/principals", &[principal]);
    assert_eq!(judge(&head, noon(), EMPTY), Ok(()));
    head.headers
        .insert("x-amzn-principal", HeaderValue::from_static("another"));
    assert_eq!(judge(&head, noon(), EMPTY), Err(Refusal::Mismatch));
    head.headers.remove("x-amzn-principal");
    assert_eq!(
        judge(&head, noon(), EMPTY),
        Err(Refusal::Absent("x-amzn-principal".into()))
    );

    let mut added = signed("iot", "/things", &[]);
    added
        .headers
        .insert("x-amzn-principal", HeaderValue::from_static("added"));
    assert_eq!(
        judge(&added, noon(), EMPTY),
        Err(Refusal::Unsigned("x-amzn-principal".into()))
    );
    let mut twice = signed("iot", "/things", &[principal]);
    twice
        .headers
        .append("x-amzn-principal", HeaderValue::from_static("second"));
    assert_eq!(judge(&twice, noon(), EMPTY), Err(Refusal::Mismatch));
}

#[test]
fn host_and_date_must_be_signed() {
    for (from, to, missing) in [
        ("host;x-amz-date", "x-amz-date", "host"),
        ("host;x-amz-date", "host", "x-amz-date"),
    ] {
        let mut head = signed("iot", "/things", &[]);
        edit_authorization(&mut head, |text| text.replace(from, to));
        assert_eq!(
            judge(&head, noon(), EMPTY),
            Err(Refusal::Unsigned(missing.into()))
        );
    }
}

#[test]
fn an_announced_body_hash_must_be_the_bodys() {
    let head = signed("iot", "/things", &[("x-amz-content-sha256", EMPTY)]);
    assert_eq!(judge(&head, noon(), EMPTY), Ok(()));
    assert_eq!(judge(&head, noon(), OTHER), Err(Refusal::Body));
    let head = signed("iot", "/", &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]);
    assert_eq!(judge(&head, noon(), EMPTY), Err(Refusal::Body));
    let claim = Claim::read(&head, noon()).unwrap();
    assert_eq!(claim.announced_body_hash(&head), Err(Refusal::UnsignedBody));
}

#[test]
fn another_key_region_or_date_is_another_signature() {
    for (from, to) in [
        (
            "AKIDEXAMPLE/20261124/eu-central-1",
            "AKIDEXAMPLE/20261124/eu-central-2",
        ),
        ("/iot/", "/iotdata/"),
    ] {
        let mut head = signed("iot", "/things", &[]);
        edit_authorization(&mut head, |text| text.replace(from, to));
        assert_eq!(judge(&head, noon(), EMPTY), Err(Refusal::Mismatch));
    }
    let head = signed("iot", "/things", &[]);
    let other = Credentials::new("AKIDEXAMPLE", "another", None, None, "tests");
    let claim = Claim::read(&head, noon()).unwrap();
    assert_eq!(claim.verify(&head, &other, EMPTY), Err(Refusal::Mismatch));
    let mut head = signed("iot", "/things", &[]);
    edit_authorization(&mut head, |text| text.replace("/20261124/", "/20261123/"));
    assert!(matches!(
        judge(&head, noon(), EMPTY),
        Err(Refusal::Malformed(_))
    ));
}

#[test]
fn what_is_not_a_claim_is_refused_in_words() {
    let good = signed("iot", "/things", &[]);
    let good_text = good.headers["authorization"].to_str().unwrap().to_owned();
    let long = format!("AWS4-HMAC-SHA256 {}", "x".repeat(5000));
    for text in [
        "",
        "Basic dXNlcjpwYXNz",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/b/c",
        &good_text.replace("Signature=", "Signatur="),
        &good_text.replace("aws4_request", "aws4"),
        &good_text.replace("eu-central-1", "EU/../x"),
        &good_text.replace("eu-central-1", "EU_CENTRAL"),
        &good_text.replace("host;x-amz-date", "x-amz-date;host"),
        &good_text.replace("host;x-amz-date", "Host;x-amz-date"),
        &format!("{good_text}, Signature=00"),
        &long,
    ] {
        let mut head = signed("iot", "/things", &[]);
        head.headers
            .insert("authorization", HeaderValue::from_str(text).unwrap());
        assert!(
            matches!(judge(&head, noon(), EMPTY), Err(Refusal::Malformed(_))),
            "{text}"
        );
    }
    let mut twice = good;
    twice
        .headers
        .append("authorization", HeaderValue::from_str(&good_text).unwrap());
    assert!(matches!(
        judge(&twice, noon(), EMPTY),
        Err(Refusal::Malformed(_))
    ));
}

#[test]
fn temporary_credentials_are_refused_by_name() {
    let head = signed("iot", "/things", &[("x-amz-security-token", "t")]);
    assert_eq!(judge(&head, noon(), EMPTY), Err(Refusal::SecurityToken));
}

proptest::proptest! {
    /// No header, however broken, panics or is believed.
    #[test]
    fn no_authorization_header_panics(text in "(AWS4-HMAC-SHA256 )?[ -~]{0,200}") {
        let mut head = signed("iot", "/things", &[]);
        if let Ok(value) = HeaderValue::from_str(&text) {
            head.headers.insert("authorization", value);
            proptest::prop_assert!(judge(&head, noon(), EMPTY).is_err());
        }
    }

    /// One changed byte of the request line is another request.
    #[test]
    fn no_other_target_has_the_signature(path in "/[a-z0-9%/]{1,20}", query in "[a-z=&+]{0,20}") {
        let mut head = signed("iot", "/things/lamp?maxResults=1", &[]);
        if let Ok(uri) = format!("{path}?{query}").parse() {
            head.uri = uri;
            proptest::prop_assert!(judge(&head, noon(), EMPTY).is_err());
        }
    }
}
