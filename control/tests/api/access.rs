//! Who gets in, how far, and what the frame refuses.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use ca::{Profile, Subject};
use control::Role;
use serde_json::{Value, json};

use crate::house::{House, Who, signed_headers};

const NONE: Value = Value::Null;

fn status(house: &House, who: &Who, method: &str, target: &str) -> (u16, String) {
    let reply = house.call(who, method, target, &NONE);
    (reply.status, reply.error)
}

#[test]
fn nobody_and_devices_are_refused() {
    let house = House::new();
    assert_eq!(
        status(&house, &Who::Nobody, "GET", "/things"),
        (403, "MissingAuthenticationTokenException".into())
    );
    let device = house.ask(
        "POST",
        "/muster/v1/devices",
        &json!({"thingName": "lamp-1"}),
    );
    let text = |field: &str| device[field].as_str().unwrap().to_owned();
    let device = Who::Certificate {
        chain_pem: text("certificatePem"),
        key_pem: text("privateKey"),
    };
    assert_eq!(
        status(&house, &device, "GET", "/things"),
        (403, "AccessDeniedException".into())
    );
}

#[test]
fn an_operator_certificate_is_as_good_as_a_key_while_the_registry_knows_it() {
    let house = House::new();
    let admin = house.admin_certificate();
    let reply = house.call(&admin, "POST", "/things/lamp-1", &NONE);
    assert_eq!(reply.status, 200);
    let arn = reply.body["thingArn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:iot:local:"), "{arn}");

    // Of the operator profile and signed by the authority, but not in the registry.
    let pair = ca::KeyPair::generate().unwrap();
    let subject = Subject {
        common_name: "admin".into(),
        names: Vec::new(),
    };
    let now = SystemTime::now();
    let issued = house
        .authority
        .issue(Profile::Operator, &subject, pair.public(), now)
        .unwrap();
    let stranger = Who::Certificate {
        chain_pem: issued.chain_pem,
        key_pem: pair.to_pem().to_string(),
    };
    assert_eq!(status(&house, &stranger, "GET", "/things").0, 403);
}

#[test]
fn a_key_that_is_unknown_wrong_or_gone_is_refused() {
    let house = House::new();
    let Who::Key(good) = house.operator("eve", Role::Viewer) else {
        unreachable!()
    };
    let other = aws_credential_types::Credentials::new(
        good.access_key_id(),
        "not the secret",
        None,
        None,
        "tests",
    );
    assert_eq!(
        status(&house, &Who::Key(other), "GET", "/things"),
        (403, "SignatureDoesNotMatch".into())
    );
    let unknown = aws_credential_types::Credentials::new(
        "AKIAUNKNOWN",
        good.secret_access_key(),
        None,
        None,
        "tests",
    );
    assert_eq!(
        status(&house, &Who::Key(unknown), "GET", "/things"),
        (403, "UnrecognizedClientException".into())
    );
    let good = Who::Key(good);
    assert_eq!(status(&house, &good, "GET", "/things").0, 200);
    house.ask("DELETE", "/muster/v1/operators/eve", &NONE);
    assert_eq!(
        status(&house, &good, "GET", "/things"),
        (403, "UnrecognizedClientException".into())
    );
}

#[test]
fn a_wrong_signature_is_not_mended_by_a_certificate() {
    let house = House::new();
    let head = [
        ("host".to_owned(), "localhost".to_owned()),
        ("authorization".to_owned(), "AWS4-HMAC-SHA256 x".to_owned()),
    ];
    let reply = house.send(&house.admin_certificate(), "GET", "/things", &head, b"");
    assert_eq!(reply.status, 403);
    assert_eq!(reply.error, "IncompleteSignatureException");
}

#[test]
fn what_was_signed_is_what_is_done() {
    let house = House::new();
    let Who::Key(key) = house.admin() else {
        unreachable!()
    };
    let host = ("host".to_owned(), "localhost".to_owned());
    let body = br#"{"attributePayload":{"attributes":{"room":"hall"}}}"#;
    let mut head = vec![host];
    head.extend(signed_headers(&key, "POST", "/things/lamp-1", &head, body));
    let send = |target: &str, body: &[u8]| {
        let reply = house.send(&Who::Nobody, "POST", target, &head, body);
        (reply.status, reply.error)
    };
    let mismatch = (403, "SignatureDoesNotMatch".to_owned());
    let other = br#"{"attributePayload":{"attributes":{"room":"yard"}}}"#;
    assert_eq!(send("/things/lamp-1", other), mismatch);
    assert_eq!(send("/things/lamp-2", body), mismatch);
    assert_eq!(send("/things/lamp-1?x=1", body), mismatch);
    // Normalised, these two would be the path that was signed; they are refused unjudged.
    for target in ["/x/../things/lamp-1", "//things/lamp-1", "/things/./lamp-1"] {
        let (status, _) = send(target, body);
        assert!((400..=404).contains(&status), "{target}: {status}");
    }
    assert_eq!(send("/things/lamp-1", body).0, 200);
    assert!(house.fleet.things(None, 10).unwrap().items.len() == 1);
}

#[test]
fn roles_end_where_they_end() {
    let house = House::new();
    let viewer = house.operator("viewer", Role::Viewer);
    let operator = house.operator("operator", Role::Operator);
    let denied = (403, "AccessDeniedException".to_owned());
    assert_eq!(status(&house, &viewer, "GET", "/things").0, 200);
    assert_eq!(status(&house, &viewer, "POST", "/things/a"), denied);
    assert_eq!(status(&house, &operator, "POST", "/things/a").0, 200);
    assert_eq!(status(&house, &operator, "POST", "/policies/p"), denied);
    assert_eq!(
        status(&house, &operator, "GET", "/muster/v1/operators"),
        denied
    );
    let reply = house.call(&viewer, "DELETE", "/things/a", &NONE);
    let message = reply.body["message"].as_str().unwrap();
    assert_eq!(
        message,
        "operator viewer has the role viewer; DeleteThing needs operator"
    );
    assert_eq!(status(&house, &viewer, "GET", "/things/a").0, 200);
}

/// Who may not make policies makes none on the way to something else either.
#[test]
fn an_operator_brings_no_policy_in_a_template() {
    let house = House::new();
    let operator = house.operator("operator", Role::Operator);
    let wide = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]});
    let template = |policy: &Value| {
        let body = json!({"Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "lamp-1"}},
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateSigningRequest": "none"}},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": policy},
        }});
        json!({"templateBody": body.to_string()})
    };
    for document in [wide.clone(), json!(wide.to_string())] {
        let body = template(&json!({"PolicyDocument": document}));
        let reply = house.call(&operator, "POST", "/things", &body);
        assert_eq!(reply.status, 403, "{}", reply.body);
        let message = reply.body["message"].as_str().unwrap();
        assert!(
            message.contains("PolicyName") && message.contains("needs admin"),
            "{message}"
        );
    }
    // Of a policy that exists the role is no matter: here it is the request that is none.
    let named = template(&json!({"PolicyName": "device-default"}));
    let reply = house.call(&operator, "POST", "/things", &named);
    assert_eq!(
        reply.error, "ResourceRegistrationFailureException",
        "{}",
        reply.body
    );
}

#[test]
fn operators_are_made_by_admins_over_the_api() {
    let house = House::new();
    let eve = json!({"name": "eve", "role": "viewer"});
    let made = house.ask("POST", "/muster/v1/operators", &eve);
    assert!(
        made["credentials"]
            .as_str()
            .unwrap()
            .starts_with("[default]\n")
    );
    assert_eq!(
        house.refused("POST", "/muster/v1/operators", &eve),
        (409, "ResourceAlreadyExistsException".into())
    );
    let certificate = Who::Certificate {
        chain_pem: made["certificatePem"].as_str().unwrap().into(),
        key_pem: made["privateKey"].as_str().unwrap().into(),
    };
    assert_eq!(status(&house, &certificate, "GET", "/things").0, 200);
    let listed = house.ask("GET", "/muster/v1/operators", &NONE);
    assert_eq!(listed["operators"][1]["name"], "eve");
    assert!(!listed.to_string().contains("ecret"));
    for bad in [
        json!({"name": "../eve", "role": "viewer"}),
        json!({"name": "mallory", "role": "root"}),
    ] {
        assert_eq!(house.refused("POST", "/muster/v1/operators", &bad).0, 400);
    }
    assert_eq!(
        house.refused("DELETE", "/muster/v1/operators/admin", &NONE),
        (409, "DeleteConflictException".into())
    );
}

#[test]
fn unknown_paths_and_verbs_have_the_same_shape() {
    let house = House::new();
    assert_eq!(
        house.refused("GET", "/nothing/here", &NONE),
        (404, "UnknownOperationException".into())
    );
    assert_eq!(
        house.refused("PATCH", "/policies", &NONE),
        (405, "UnsupportedOperationException".into())
    );
}

#[test]
fn bodies_are_bounded() {
    let house = House::new();
    let whole = |bytes: usize| json!({"x": "y".repeat(bytes - 8)});
    assert_eq!(serde_json::to_vec(&whole(100)).unwrap().len(), 100);
    assert_eq!(
        house.refused("POST", "/things/a", &whole(1024 * 1024)).0,
        400
    );
    let over = house.call(
        &house.admin_certificate(),
        "POST",
        "/things/a",
        &whole(1024 * 1024 + 1),
    );
    assert_eq!(over.status, 413);
    assert_eq!(over.error, "RequestEntityTooLargeException");
}

#[test]
fn heads_are_bounded() {
    let house = House::new();
    // Beside these a request has host, content-length and connection: 64 in all are read.
    let send = |extra: usize| {
        let mut head = vec![("host".to_owned(), "localhost".to_owned())];
        head.extend((0..extra).map(|at| (format!("x-{at}"), "y".to_owned())));
        house
            .send(&Who::Nobody, "GET", "/things", &head, b"")
            .status
    };
    assert_eq!(send(61), 403);
    assert_eq!(send(62), 431);
}

#[test]
fn draining_lets_the_answer_under_way_finish() {
    let mut house = House::new();
    let mut stream = house.connect(&Who::Nobody);
    let head = b"GET /things HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(head).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 403");
    // An idle connection does not hold the stop, and nobody is accepted after it.
    let control = house.control.take().unwrap();
    assert!(control.drain(Duration::from_secs(20)));
    assert!(std::net::TcpStream::connect(house.https).is_err());
    assert!(std::net::TcpStream::connect(house.http).is_err());
}
