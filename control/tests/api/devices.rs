//! Devices as one object, explanations, and what the plain listener serves.

use serde_json::{Value, json};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::house::House;

const NONE: Value = Value::Null;
const DEVICES: &str = "/muster/v1/devices";

#[test]
fn a_device_is_enrolled_shown_replaced_revoked_and_deleted() {
    let house = House::new();
    house.ask("POST", "/thing-groups/hall", &NONE);
    let wish = json!({"thingName": "lamp-1", "groupName": "hall", "attributes": {"room": "hall"}});
    let made = house.ask("POST", DEVICES, &wish);
    assert_eq!(made["mqttPort"], 8883);
    assert_eq!(made["rootPem"], house.authority.root_pem());
    let chain = made["certificatePem"].as_str().unwrap();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(made["privateKey"].is_string());
    assert_eq!(
        house.refused("POST", DEVICES, &wish),
        (409, "ResourceAlreadyExistsException".into())
    );

    let shown = house.ask("GET", &format!("{DEVICES}/lamp-1"), &NONE);
    assert_eq!(shown["groups"], json!(["hall"]));
    let certificate = &shown["certificates"][0];
    assert_eq!(certificate["status"], "ACTIVE");
    assert_eq!(certificate["policies"], json!(["device-default"]));
    assert_eq!(certificate["certificateId"], made["certificateId"]);

    let next = house.ask("POST", &format!("{DEVICES}/lamp-1/replace"), &NONE);
    assert_ne!(next["certificateId"], made["certificateId"]);
    let revoke = format!("{DEVICES}/lamp-1/revoke");
    assert_eq!(
        house
            .refused("POST", &revoke, &json!({"reason": "bored"}))
            .0,
        400
    );
    let gone = house.ask("POST", &revoke, &json!({"reason": "keyCompromise"}));
    assert_eq!(gone["revoked"], json!([next["certificateId"]]));
    assert_eq!(house.refused("POST", &revoke, &NONE).0, 400);
    let listed = house.ask("GET", DEVICES, &NONE);
    let certificates = listed["devices"][0]["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 2);
    assert!(certificates.iter().all(|one| one["status"] == "REVOKED"));

    house.ask("DELETE", &format!("{DEVICES}/lamp-1"), &NONE);
    assert_eq!(
        house.refused("GET", &format!("{DEVICES}/lamp-1"), &NONE).0,
        404
    );
}

#[test]
fn a_device_needs_what_it_names() {
    let house = House::new();
    for bad in [
        json!({"thingName": "lamp-1", "policyName": "none"}),
        json!({"thingName": "lamp-1", "groupName": "none"}),
    ] {
        assert_eq!(
            house.refused("POST", DEVICES, &bad),
            (404, "ResourceNotFoundException".into())
        );
    }
    for bad in [
        json!({}),
        json!({"thingName": "../lamp"}),
        json!({"thingName": "lamp-1", "colour": "red"}),
        json!({"thingName": "lamp-1", "certificateSigningRequest": "nonsense"}),
    ] {
        assert_eq!(house.refused("POST", DEVICES, &bad).0, 400, "{bad}");
    }
    assert_eq!(house.ask("GET", DEVICES, &NONE)["devices"], json!([]));
}

#[test]
fn a_violation_lies_between_1970_and_now() {
    let house = House::new();
    house.ask("POST", DEVICES, &json!({"thingName": "lamp-1"}));
    let violation = format!("{DEVICES}/lamp-1/violation");
    for at in ["1960-01-01T00:00:00Z", "9000-01-01T00:00:00Z", "noon"] {
        let body = json!({"at": at, "reason": "loud"});
        let refused = house.refused("PUT", &violation, &body);
        assert_eq!(refused, (400, "InvalidRequestException".into()), "{at}");
    }
    let body = json!({"at": "2020-01-01T00:00:00Z", "reason": "loud"});
    assert_eq!(
        house.ask("PUT", &violation, &body)["lastViolation"],
        1_577_836_800
    );
}

#[test]
fn decisions_are_explained() {
    let house = House::new();
    house.ask("POST", DEVICES, &json!({"thingName": "lamp-1"}));
    let explain = |question: Value| house.ask("POST", "/muster/v1/policies/explain", &question);
    let own = explain(json!({"thingName": "lamp-1", "action": "publish", "topic": "dt/lamp-1/t"}));
    assert_eq!(own["certificateStatus"], "ACTIVE");
    assert!(
        own["text"].as_str().unwrap().contains("device-default"),
        "{own}"
    );
    let other =
        explain(json!({"thingName": "lamp-1", "action": "publish", "topic": "dt/lamp-2/t"}));
    assert_ne!(own["decision"], other["decision"]);
    let connect = explain(json!({"thingName": "lamp-1", "action": "iot:Connect"}));
    assert_eq!(connect["decision"], own["decision"]);
    for bad in [
        json!({"thingName": "lamp-1", "action": "publish"}),
        json!({"thingName": "lamp-1", "action": "fly", "topic": "t"}),
        json!({"thingName": "lamp-1", "action": "connect", "topic": "t"}),
        json!({"thingName": "lamp-1", "action": "publish", "topic": "dt/lamp-1/#"}),
        json!({"thingName": "lamp-1", "action": "receive", "topic": "cmd/+/t"}),
        json!({"thingName": "lamp-1", "action": "retainpublish", "topic": "dt/lamp-1/+"}),
        json!({"thingName": "lamp-1", "action": "publish", "topic": ""}),
        json!({"thingName": "lamp-1", "action": "subscribe", "topic": "cmd/#/t"}),
    ] {
        assert_eq!(
            house.refused("POST", "/muster/v1/policies/explain", &bad).0,
            400
        );
    }
}

#[test]
fn the_plain_listener_serves_the_authority_and_nothing_else() {
    let house = House::new();
    let root = house.plain("GET", "/root.crt");
    assert_eq!(root.status, 200);
    assert_eq!(root.bytes, house.authority.root_der().to_vec());
    assert_eq!(
        house.plain("GET", "/issuing.crt").bytes,
        house.authority.issuing_der().to_vec()
    );
    assert!(house.plain("HEAD", "/root.crt").bytes.is_empty());
    for (method, target, status) in [
        ("GET", "/", 404),
        ("GET", "/things", 404),
        ("GET", "/crl/1.crl", 404),
        ("GET", "/../root.crt", 404),
        ("POST", "/root.crt", 405),
        ("DELETE", "/crl/0.crl", 405),
    ] {
        assert_eq!(house.plain(method, target).status, status, "{target}");
    }
}

#[test]
fn the_revocation_list_says_at_once_what_was_revoked() {
    let house = House::new();
    let list = || {
        let reply = house.plain("GET", "/crl/0.crl");
        assert_eq!(reply.status, 200);
        assert!(reply.head.contains("application/pkix-crl"));
        reply.bytes
    };
    let read = |der: &[u8]| {
        let (_, list) = CertificateRevocationList::from_der(der).unwrap();
        let issuing = house.authority.issuing_der();
        let (_, issuing) = X509Certificate::from_der(&issuing).unwrap();
        list.verify_signature(issuing.public_key()).unwrap();
        let serials: Vec<Vec<u8>> = list
            .iter_revoked_certificates()
            .map(|one| one.raw_serial().to_vec())
            .collect();
        (list.crl_number().cloned().unwrap(), serials)
    };
    let before = list();
    assert_eq!(before, list(), "nothing changed, nothing is signed again");
    let (first, serials) = read(&before);
    assert!(serials.is_empty());

    house.ask("POST", DEVICES, &json!({"thingName": "lamp-1"}));
    assert_eq!(before, list());
    house.ask("POST", &format!("{DEVICES}/lamp-1/revoke"), &NONE);
    let (second, serials) = read(&list());
    assert!(second > first);
    assert_eq!(serials.len(), 1);

    // Deleted, it stays revoked.
    house.ask("DELETE", &format!("{DEVICES}/lamp-1"), &NONE);
    assert_eq!(read(&list()).1, serials);
}
