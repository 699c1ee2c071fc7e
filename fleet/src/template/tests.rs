use super::*;
use proptest::prelude::*;
use serde_json::json;

fn with(config: Value) -> Value {
    json!({
        "Parameters": {
            "SerialNumber": {"Type": "String"},
            "Location": {"Type": "String", "Default": "Seattle"},
        },
        "Mappings": {"Sites": {"Seattle": {"Url": "https://sea.example", "Floors": 3}}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {
                "ThingName": {"Fn::Join": ["", ["lamp-", {"Ref": "SerialNumber"}]]},
                "AttributePayload": {"version": "v1", "serial": {"Ref": "SerialNumber"}},
                "ThingGroups": ["lamps", {"Ref": "Location"}],
            }},
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
                "CertificateId": {"Ref": CERTIFICATE_ID}, "Status": "Active",
            }},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device-default"}},
        },
        "DeviceConfiguration": {"x": config},
    })
}

fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut given: BTreeMap<String, String> = [(CERTIFICATE_ID.to_owned(), "ab".to_owned())].into();
    given.extend(
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
    );
    given
}

fn told(config: Value) -> Result<String, TemplateError> {
    let template = Template::parse(&with(config).to_string())?;
    let provision = template.evaluate(&given(&[("SerialNumber", "a-b-c")]))?;
    Ok(provision.configuration["x"].clone())
}

#[test]
fn a_whole_template() {
    let template = Template::parse(&with(json!("y")).to_string()).unwrap();
    let provision = template.evaluate(&given(&[("SerialNumber", "7")])).unwrap();
    assert_eq!(provision.thing.name, "lamp-7");
    assert_eq!(provision.thing.groups, ["Seattle", "lamps"]);
    assert_eq!(provision.thing.attributes["serial"], "7");
    assert_eq!(provision.thing.existing, None);
    assert_eq!(
        provision.certificate.source,
        CertificateSource::Id("ab".into())
    );
    assert!(provision.certificate.active);
    assert_eq!(
        provision.policies,
        [PolicyPlan::Named("device-default".into())]
    );
}

#[test]
fn functions() {
    for (expression, expected) in [
        (json!("plain"), "plain"),
        (json!(3), "3"),
        (json!({"Ref": "Location"}), "Seattle"),
        (
            json!({"Fn::Join": ["/", ["a", {"Ref": "SerialNumber"}]]}),
            "a/a-b-c",
        ),
        (json!({"Fn::Join": ["", []]}), ""),
        (
            json!({"Fn::Join": ["+", {"Fn::Split": ["-", {"Ref": "SerialNumber"}]}]}),
            "a+b+c",
        ),
        (json!({"Fn::Select": [1, ["a", "b"]]}), "b"),
        (
            json!({"Fn::Select": ["2", {"Fn::Split": ["-", {"Ref": "SerialNumber"}]}]}),
            "c",
        ),
        (json!({"Fn::Sub": "no-${SerialNumber}!"}), "no-a-b-c!"),
        (
            json!({"Fn::Sub": ["${a}${Location}${!iot:ClientId}", {"a": {"Ref": "SerialNumber"}}]}),
            "a-b-cSeattle${iot:ClientId}",
        ),
        (
            json!({"Fn::FindInMap": ["Sites", {"Ref": "Location"}, "Url"]}),
            "https://sea.example",
        ),
        (
            json!({"Fn::FindInMap": ["Sites", "Seattle", "Floors"]}),
            "3",
        ),
    ] {
        assert_eq!(told(expression.clone()).unwrap(), expected, "{expression}");
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    for (expression, words) in [
        (json!(null), "DeviceConfiguration.x is a text"),
        (json!(["a"]), "is a text"),
        (
            json!({"Ref": "Serial"}),
            "DeviceConfiguration.x.Ref names \"Serial\"",
        ),
        (json!({"Fn::GetAtt": ["a", "b"]}), "is no function"),
        (json!({"Fn::Split": ["-", "a"]}), "gives a list"),
        (json!({"Fn::Join": ["-"]}), "takes [separator, list]"),
        (json!({"Fn::Join": ["-", "a"]}), "takes a list"),
        (
            json!({"Fn::Join": ["-", {"Fn::Split": ["", "a"]}]}),
            "separator is not empty",
        ),
        (json!({"Fn::Select": [5, ["a"]]}), "list of 1"),
        (json!({"Fn::Select": ["-1", ["a"]]}), "list of 1"),
        (
            json!({"Fn::Sub": "${Nobody}"}),
            "neither among its values nor a parameter",
        ),
        (json!({"Fn::Sub": "${open"}), "not closed"),
        (
            json!({"Fn::FindInMap": ["Sights", "a", "b"]}),
            "Mappings does not have",
        ),
        (
            json!({"Fn::FindInMap": ["Sites", "Bonn", "Url"]}),
            "under \"Bonn\"",
        ),
    ] {
        let error = told(expression.clone()).unwrap_err().to_string();
        assert!(error.contains(words), "{expression}: {error}");
    }
}

#[test]
fn parameters_are_all_there_and_no_others() {
    let template = Template::parse(&with(json!("y")).to_string()).unwrap();
    for (pairs, words) in [
        (&[][..], "parameter SerialNumber is missing"),
        (
            &[("SerialNumber", "1"), ("Serial", "1")][..],
            "not one of this template",
        ),
        (
            &[("SerialNumber", &"x".repeat(PARAMETER_LIMIT_BYTES + 1)[..])][..],
            "more than 2048",
        ),
    ] {
        let error = template.evaluate(&given(pairs)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_parameter_cannot_widen_a_policy() {
    let mut body = with(json!("y"));
    body["Resources"]["policy"]["Properties"] = json!({"PolicyDocument": {"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "iot:Publish",
        "Resource": {"Fn::Sub": "arn:aws:iot:*:000000000000:topic/${SerialNumber}/${!iot:ClientId}"},
    }]}});
    let object = Template::parse(&body.to_string()).unwrap();
    body["Resources"]["policy"]["Properties"] = json!({"PolicyDocument": {"Fn::Sub":
        "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"iot:Publish\",\"Resource\":\"arn:aws:iot:*:000000000000:topic/${SerialNumber}\"}]}"}});
    let text = Template::parse(&body.to_string()).unwrap();
    for template in [&object, &text] {
        let provision = template.evaluate(&given(&[("SerialNumber", "7")])).unwrap();
        let PolicyPlan::Document(document) = &provision.policies[0] else {
            panic!("{provision:?}")
        };
        assert!(document.contains(":topic/7"), "{document}");
        policy::Policy::parse(document).unwrap();
        for bad in [
            "*",
            "?",
            "a\"",
            "a/b",
            "${iot:ClientId}",
            "#",
            "+",
            "\\",
            "\n",
        ] {
            let error = template
                .evaluate(&given(&[("SerialNumber", bad)]))
                .unwrap_err();
            assert!(
                error.to_string().contains("would mean something"),
                "{error}"
            );
        }
    }
}

#[test]
fn resources_are_one_thing_one_certificate_and_known_fields() {
    for (change, words) in [
        (json!({"thing": null}), "needs an AWS::IoT::Thing"),
        (
            json!({"certificate": null}),
            "needs an AWS::IoT::Certificate",
        ),
        (
            json!({"second": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "a"}}}),
            "one thing",
        ),
        (
            json!({"odd": {"Type": "AWS::S3::Bucket", "Properties": {}}}),
            "Resources.odd.Type",
        ),
        (
            json!({"thing": {"Type": "AWS::IoT::Thing", "Properties": {}}}),
            "ThingName is missing",
        ),
        (
            json!({"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "a", "Colour": "b"}}}),
            "\"Colour\"",
        ),
        (
            json!({"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "a", "BillingGroup": "b"}}}),
            "BillingGroup is not supported",
        ),
        (
            json!({"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "a"},
            "OverrideSettings": {"ThingTypeName": "MERGE"}}}),
            "DO_NOTHING, REPLACE or FAIL",
        ),
        (
            json!({"certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"Status": "ACTIVE"}}}),
            "one of CertificateId",
        ),
        (
            json!({"policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "a", "PolicyDocument": "b"}}}),
            "one of PolicyName and PolicyDocument",
        ),
    ] {
        let mut body = with(json!("y"));
        let resources = body["Resources"].as_object_mut().unwrap();
        for (name, resource) in change.as_object().unwrap() {
            if resource.is_null() {
                resources.remove(name);
            } else {
                resources.insert(name.clone(), resource.clone());
            }
        }
        let error = Template::parse(&body.to_string()).unwrap_err().to_string();
        assert!(error.contains(words), "{change}: {error}");
    }
}

#[test]
fn a_certificate_is_attached_as_the_template_says() {
    let attached = |value: Option<&str>| {
        let mut body = with(json!("y"));
        let properties = &mut body["Resources"]["certificate"]["Properties"];
        if let Some(value) = value {
            properties["ThingPrincipalType"] = value.into();
        }
        let template = Template::parse(&body.to_string()).unwrap();
        let plan = template.evaluate(&given(&[("SerialNumber", "1")]));
        plan.map(|plan| plan.certificate.attachment)
    };
    assert_eq!(attached(None).unwrap(), Attachment::Exclusive);
    assert_eq!(
        attached(Some("EXCLUSIVE_THING")).unwrap(),
        Attachment::Exclusive
    );
    assert_eq!(
        attached(Some("NON_EXCLUSIVE_THING")).unwrap(),
        Attachment::NonExclusive
    );
    let said = attached(Some("exclusive")).unwrap_err().to_string();
    assert!(said.contains("ThingPrincipalType"), "{said}");
}

#[test]
fn bounds() {
    assert!(Template::parse(&" ".repeat(BODY_LIMIT_BYTES + 1)).is_err());
    let nested =
        |levels: usize| (0..levels).fold(json!("a"), |inner, _| json!({"Fn::Join": ["", [inner]]}));
    assert_eq!(told(nested(DEPTH_LIMIT_LEVELS)).unwrap(), "a");
    let error = told(nested(DEPTH_LIMIT_LEVELS + 1))
        .unwrap_err()
        .to_string();
    assert!(error.contains("nested deeper"), "{error}");
    let wide: Vec<Value> = (0..20).map(|_| json!({"Ref": "SerialNumber"})).collect();
    let template = Template::parse(&with(json!({"Fn::Join": ["", wide]})).to_string()).unwrap();
    let long = "x".repeat(PARAMETER_LIMIT_BYTES);
    let error = template
        .evaluate(&given(&[("SerialNumber", &long)]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than 32768 bytes"), "{error}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("Ref".to_owned()),
        Just("Fn::Join".to_owned()),
        Just("Fn::Select".to_owned()),
        Just("Fn::Sub".to_owned()),
        Just("Fn::Split".to_owned()),
        Just("Fn::FindInMap".to_owned()),
        Just("SerialNumber".to_owned()),
        Just("Sites".to_owned()),
        "[${}!A-Za-z]{0,8}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        word.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(word.clone(), inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever stands in an expression: a text within bounds, or an error; never a panic.
    #[test]
    fn any_expression_ends(expression in any_json(), serial in ".{0,40}") {
        let Ok(template) = Template::parse(&with(expression).to_string()) else { return Ok(()) };
        if let Ok(provision) = template.evaluate(&given(&[("SerialNumber", &serial)])) {
            prop_assert!(provision.configuration["x"].len() <= TEXT_LIMIT_BYTES);
        }
    }

    /// A template of any shape is refused or understood.
    #[test]
    fn any_document_ends(document in any_json(), text in ".{0,200}") {
        let _ = Template::parse(&document.to_string());
        let _ = Template::parse(&text);
    }

    /// Splitting and joining by the same separator gives the text back.
    #[test]
    fn split_and_join_are_inverse(serial in "[a-z-]{0,60}") {
        let body = with(json!({"Fn::Join": ["-", {"Fn::Split": ["-", {"Ref": "SerialNumber"}]}]}));
        let template = Template::parse(&body.to_string()).unwrap();
        let provision = template.evaluate(&given(&[("SerialNumber", &serial)])).unwrap();
        prop_assert_eq!(&provision.configuration["x"], &serial);
    }
}
