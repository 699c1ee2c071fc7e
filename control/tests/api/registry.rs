//! Every operation of the registry, through HTTPS.

use crate::house::{ACCOUNT, House};
use serde_json::{Value, json};

const NONE: Value = Value::Null;

fn encoded(arn: &str) -> String {
    arn.replace(':', "%3A").replace('/', "%2F")
}

#[test]
fn things_come_are_listed_and_go() {
    let house = House::new();
    let attributes = json!({"attributePayload": {"attributes": {"room": "hall"}}});
    let made = house.ask("POST", "/things/lamp-1", &attributes);
    let arn = format!("arn:aws:iot:eu-central-1:{ACCOUNT}:thing/lamp-1");
    assert_eq!(made["thingArn"], arn);
    assert_eq!(
        house.ask("POST", "/things/lamp-1", &attributes),
        made,
        "the same again is no error"
    );
    let reply = house.call(&house.admin(), "POST", "/things/lamp-1", &json!({}));
    assert_eq!(reply.status, 409);
    assert_eq!(reply.error, "ResourceAlreadyExistsException");
    assert_eq!(reply.body["resourceArn"], arn);
    assert_eq!(reply.body["resourceId"], "lamp-1");

    let thing = house.ask("GET", "/things/lamp-1", &NONE);
    assert_eq!(thing["defaultClientId"], "lamp-1");
    assert_eq!(thing["attributes"]["room"], "hall");
    assert_eq!(thing["version"], 1);
    assert_eq!(thing["thingId"], made["thingId"]);

    for name in ["lamp-2", "lamp-3"] {
        house.ask("POST", &format!("/things/{name}"), &NONE);
    }
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let page = house.ask("GET", &format!("/things?maxResults=2{token}"), &NONE);
        for thing in page["things"].as_array().unwrap() {
            names.push(thing["thingName"].as_str().unwrap().to_owned());
        }
        match page["nextToken"].as_str() {
            Some(next) => token = format!("&nextToken={}", next.replace('=', "%3D")),
            None => break,
        }
    }
    assert_eq!(names, ["lamp-1", "lamp-2", "lamp-3"]);

    assert_eq!(
        house.refused("DELETE", "/things/lamp-1?expectedVersion=7", &NONE),
        (409, "VersionConflictException".into())
    );
    house.ask("DELETE", "/things/lamp-1?expectedVersion=1", &NONE);
    assert_eq!(
        house.refused("GET", "/things/lamp-1", &NONE),
        (404, "ResourceNotFoundException".into())
    );
}

#[test]
fn groups_hold_things() {
    let house = House::new();
    let properties = json!({"thingGroupProperties": {"thingGroupDescription": "The hall's lamps"}});
    let made = house.ask("POST", "/thing-groups/hall", &properties);
    assert_eq!(
        house.ask("POST", "/thing-groups/hall", &properties),
        made,
        "the same again is no error"
    );
    assert_eq!(
        house.refused("POST", "/thing-groups/hall", &json!({})),
        (409, "ResourceAlreadyExistsException".into())
    );
    house.ask("POST", "/things/lamp-1", &NONE);
    house.ask("POST", "/things/lamp-2", &NONE);
    let add = "/thing-groups/addThingToThingGroup";
    house.ask(
        "PUT",
        add,
        &json!({"thingGroupName": "hall", "thingName": "lamp-1"}),
    );
    let by_arn = json!({
        "thingGroupArn": made["thingGroupArn"],
        "thingArn": format!("arn:aws:iot:other:{ACCOUNT}:thing/lamp-2"),
    });
    house.ask("PUT", add, &by_arn);
    let two = json!({"thingGroupName": "yard", "thingGroupArn": made["thingGroupArn"], "thingName": "lamp-1"});
    assert_eq!(house.refused("PUT", add, &two).0, 400);

    let members = house.ask("GET", "/thing-groups/hall/things?maxResults=1", &NONE);
    assert_eq!(members["things"], json!(["lamp-1"]));
    assert!(members["nextToken"].is_string());
    assert_eq!(
        house.ask("GET", "/things/lamp-2/thing-groups", &NONE)["thingGroups"][0]["groupName"],
        "hall"
    );
    assert_eq!(
        house.ask("GET", "/thing-groups", &NONE)["thingGroups"][0]["groupName"],
        "hall"
    );
    let shown = house.ask("GET", "/thing-groups/hall", &NONE);
    assert_eq!(
        shown["thingGroupProperties"]["thingGroupDescription"],
        "The hall's lamps"
    );
    assert!(shown["thingGroupMetadata"]["creationDate"].is_number());

    let leave = json!({"thingGroupName": "hall", "thingName": "lamp-1"});
    house.ask("PUT", "/thing-groups/removeThingFromThingGroup", &leave);
    assert_eq!(
        house.ask("GET", "/thing-groups/hall/things", &NONE)["things"],
        json!(["lamp-2"])
    );
    house.ask("DELETE", "/thing-groups/hall", &NONE);
    assert_eq!(
        house.refused("GET", "/thing-groups/hall/things", &NONE).0,
        404
    );
}

#[test]
fn certificates_are_made_described_changed_and_deleted() {
    let house = House::new();
    let made = house.ask("POST", "/keys-and-certificate?setAsActive=true", &NONE);
    let id = made["certificateId"].as_str().unwrap();
    assert!(
        made["keyPair"]["PrivateKey"]
            .as_str()
            .unwrap()
            .contains("PRIVATE KEY")
    );
    assert!(
        made["keyPair"]["PublicKey"]
            .as_str()
            .unwrap()
            .contains("PUBLIC KEY")
    );
    let path = format!("/certificates/{id}");
    let shown = &house.ask("GET", &path, &NONE)["certificateDescription"];
    assert_eq!(shown["status"], "ACTIVE");
    assert_eq!(shown["certificatePem"], made["certificatePem"]);
    assert!(shown["validity"]["notAfter"].is_number());

    let bad = json!({"certificateSigningRequest": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"});
    assert_eq!(
        house.refused("POST", "/certificates", &bad),
        (400, "InvalidRequestException".into())
    );

    let list = house.ask("GET", "/certificates?pageSize=1", &NONE);
    assert_eq!(list["certificates"][0]["certificateId"], id);
    assert_eq!(
        house.refused("DELETE", &path, &NONE),
        (406, "CertificateStateException".into())
    );
    house.ask("PUT", &format!("{path}?newStatus=INACTIVE"), &NONE);
    assert_eq!(
        house
            .refused("PUT", &format!("{path}?newStatus=GONE"), &NONE)
            .0,
        400
    );
    let arn = made["certificateArn"].as_str().unwrap();
    house.ask(
        "PUT",
        "/target-policies/device-default",
        &json!({"target": arn}),
    );
    assert_eq!(
        house.refused("DELETE", &path, &NONE),
        (409, "DeleteConflictException".into())
    );
    house.ask("DELETE", &format!("{path}?forceDelete=true"), &NONE);
    assert_eq!(house.refused("GET", &path, &NONE).0, 404);
    assert_eq!(house.refused("GET", "/certificates/xyz", &NONE).0, 400);
}

#[test]
fn policies_are_made_attached_listed_and_deleted() {
    let house = House::new();
    let document = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}
    ]})
    .to_string();
    let body = json!({"policyDocument": document});
    let made = house.ask("POST", "/policies/a%2Bb%3D%40.c", &body);
    assert_eq!(made["policyName"], "a+b=@.c");
    assert_eq!(made["policyVersionId"], "1");
    let shown = house.ask("GET", "/policies/a+b=@.c", &NONE);
    assert_eq!(shown["policyDocument"], document);
    assert_eq!(
        house.refused("POST", "/policies/a%2Bb%3D%40.c", &body),
        (409, "ResourceAlreadyExistsException".into())
    );
    let bad = json!({"policyDocument": document.replace("Effect", "Affect")});
    assert_eq!(
        house.refused("POST", "/policies/bad", &bad),
        (400, "MalformedPolicyException".into())
    );
    assert_eq!(house.refused("GET", "/policies/bad", &NONE).0, 404);

    let certificate = house.ask("POST", "/keys-and-certificate", &NONE);
    let arn = certificate["certificateArn"].as_str().unwrap();
    let target = json!({"target": arn});
    house.ask("PUT", "/target-policies/a%2Bb%3D%40.c", &target);
    let attached = format!("/attached-policies/{}", encoded(arn));
    let names = &house.ask("POST", &attached, &NONE)["policies"];
    assert_eq!(names[0]["policyName"], "a+b=@.c");
    assert_eq!(
        house.refused("DELETE", "/policies/a%2Bb%3D%40.c", &NONE),
        (409, "DeleteConflictException".into())
    );
    house.ask("POST", "/target-policies/a%2Bb%3D%40.c", &target);
    assert_eq!(house.ask("POST", &attached, &NONE)["policies"], json!([]));
    house.ask("DELETE", "/policies/a%2Bb%3D%40.c", &NONE);
    let left = &house.ask("GET", "/policies", &NONE)["policies"];
    assert_eq!(left[0]["policyName"], "device-default");
    assert_eq!(left.as_array().unwrap().len(), 1);

    let nowhere = json!({"target": arn.replace(ACCOUNT, "111111111111")});
    assert_eq!(
        house
            .refused("PUT", "/target-policies/device-default", &nowhere)
            .0,
        400
    );
}

#[test]
fn policies_get_versions() {
    let house = House::new();
    let document = |action: &str| {
        let text = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": action, "Resource": "*"}
        ]});
        json!({"policyDocument": text.to_string()})
    };
    house.ask("POST", "/policies/p", &document("iot:Connect"));
    for version in 2..=5 {
        let made = house.ask(
            "POST",
            "/policies/p/version?setAsDefault=true",
            &document("iot:Publish"),
        );
        assert_eq!(made["policyVersionId"], version.to_string());
    }
    assert_eq!(
        house.refused("POST", "/policies/p/version", &document("iot:Publish")),
        (409, "VersionsLimitExceededException".into())
    );
    let made = house.ask("PUT", "/muster/v1/policies/p", &document("iot:Receive"));
    assert_eq!(made["policyVersionId"], "6");
    let shown = house.ask("GET", "/policies/p", &NONE);
    assert_eq!(shown["defaultVersionId"], "6");
    assert!(
        shown["policyDocument"]
            .as_str()
            .unwrap()
            .contains("iot:Receive")
    );
}

#[test]
fn a_certificate_belongs_to_one_thing() {
    let house = House::new();
    for name in ["lamp-1", "lamp-2"] {
        house.ask("POST", &format!("/things/{name}"), &NONE);
    }
    let made = house.ask("POST", "/keys-and-certificate?setAsActive=true", &NONE);
    let arn = made["certificateArn"].as_str().unwrap();
    let principal = [("x-amzn-principal", arn)];
    let call = |method: &str, target: &str| {
        house.call_with(&house.admin(), method, target, &principal, &NONE)
    };
    assert_eq!(call("PUT", "/things/lamp-1/principals").status, 200);
    assert_eq!(call("PUT", "/things/lamp-2/principals").status, 400);
    let listed = house.ask("GET", "/things/lamp-1/principals", &NONE);
    assert_eq!(listed["principals"], json!([arn]));
    assert_eq!(house.refused("DELETE", "/things/lamp-1", &NONE).0, 400);
    assert_eq!(call("DELETE", "/things/lamp-2/principals").status, 404);
    assert_eq!(call("DELETE", "/things/lamp-1/principals").status, 200);
    house.ask("DELETE", "/things/lamp-1", &NONE);
    assert_eq!(
        house.refused("PUT", "/things/lamp-2/principals", &NONE).0,
        400
    );
}

#[test]
fn endpoints_are_told() {
    let house = House::new();
    let address = |kind: &str| {
        let target = format!("/endpoint?endpointType={}", kind.replace(':', "%3A"));
        house.ask("GET", &target, &NONE)["endpointAddress"].clone()
    };
    assert_eq!(address("iot:Data-ATS"), "localhost:8883");
    assert_eq!(address("iot:Data"), "localhost:8883");
    assert_eq!(
        address("iot:Jobs"),
        format!("localhost:{}", house.https.port())
    );
    for bad in ["iot%3ACredentialProvider", "s3"] {
        let target = format!("/endpoint?endpointType={bad}");
        assert_eq!(house.refused("GET", &target, &NONE).0, 400);
    }
}

#[test]
fn what_aws_knows_and_is_not_done_is_refused_by_name() {
    let house = House::new();
    for (method, target, body, name) in [
        (
            "POST",
            "/things/a",
            json!({"billingGroupName": "b"}),
            "billingGroupName",
        ),
        ("GET", "/jobs?thingGroupId=g", NONE, "thingGroupId"),
    ] {
        let reply = house.call(&house.admin(), method, target, &body);
        assert_eq!(reply.status, 400, "{target}");
        assert_eq!(reply.error, "InvalidRequestException");
        let message = reply.body["message"].as_str().unwrap();
        assert_eq!(message, format!("{name} is not supported yet"));
    }
    for (method, target, body) in [
        ("POST", "/things/a", json!({"colour": "red"})),
        ("POST", "/things/a", json!([])),
        (
            "POST",
            "/things/a",
            json!({"attributePayload": {"merge": true}}),
        ),
        ("GET", "/things?colour=red", NONE),
        ("GET", "/things?maxResults=1&maxResults=2", NONE),
        ("GET", "/things?maxResults=251", NONE),
        ("GET", "/things?nextToken=AAAA", NONE),
        ("DELETE", "/things/a", json!({"force": true})),
        ("POST", "/things/a%20b", NONE),
    ] {
        let refusal = house.refused(method, target, &body);
        assert_eq!(refusal, (400, "InvalidRequestException".into()), "{target}");
    }
    assert_eq!(house.ask("GET", "/things", &NONE)["things"], json!([]));
}
