"""The policy language on live connections: what a condition asks is what the connection is."""

import json
import subprocess
import time

import pytest

from api import iot
from clients import Refused
from devices import eventually
from server import MUSTER

ALL = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
NOT_AUTHORIZED = 0x87


def document(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def when(condition, effect="Allow", action="iot:Connect", resource="*"):
    return {"Effect": effect, "Action": action, "Resource": resource, "Condition": condition}


CONDITIONS = [
    ({"StringEquals": {"iot:Connection.Thing.Attributes[room]": "kitchen"}}, True),
    ({"StringEquals": {"iot:Connection.Thing.Attributes[room]": "hall"}}, False),
    ({"Bool": {"iot:Connection.Thing.IsAttached": "true"}}, True),
    ({"StringEquals": {"iot:Certificate.Subject.CommonName": "${iot:ClientId}"}}, True),
    ({"StringLike": {"iot:Certificate.Issuer.CommonName": "*"}}, True),
    ({"Null": {"iot:Certificate.SerialNumber": "false"}}, True),
    ({"Null": {"iot:Certificate.Subject.Title": "false"}}, False),
    ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
    ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, False),
    ({"StringEquals": {"iot:DomainName": "localhost"}}, True),
    ({"StringEquals": {"iot:DomainName": "other.example"}}, False),
    ({"ForAnyValue:StringEquals": {"iot:ConnectAttributes": "PersistentConnect"}}, False),
    ({"ForAllValues:StringEquals": {"iot:ConnectAttributes": []}}, True),
    ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, False),
    ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
]


@pytest.mark.parametrize("condition,met", CONDITIONS)
def test_a_condition_is_judged_by_the_live_connection(shared, fresh_name, connect, condition, met):
    name, policy = fresh_name(), fresh_name("when")
    shared.policy(policy, document(when(condition)))
    identity = shared.device(name, "--policy", policy, "--attribute", "room=kitchen")
    if met:
        connect(shared, identity)
    else:
        with pytest.raises(Refused) as refused:
            connect(shared, identity)
        assert refused.value.reason == NOT_AUTHORIZED


def test_persistent_sessions_and_wills_can_be_forbidden(shared, fresh_name, connect):
    policy = fresh_name("plain")
    shared.policy(policy, document(
        when({"ForAllValues:StringEquals": {"iot:ConnectAttributes": ["LastWill"]}}),
        when({"ArnNotLike": {"iot:LastWillTopic": "arn:aws:iot:us-east-1:000000000000:topic/will/*"}},
             effect="Deny"),
        {"Effect": "Allow", "Action": "iot:Publish", "Resource": "*"},
    ))
    identity = shared.device(fresh_name(), "--policy", policy)
    connect(shared, identity, will=("will/a", {"payload": b"x"})).close()
    for how in ({"expiry": 60, "will": ("will/a", {"payload": b"x"})}, {"will": ("other", {"payload": b"x"})}):
        with pytest.raises(Refused) as refused:
            connect(shared, identity, **how)
        assert refused.value.reason == NOT_AUTHORIZED


def test_a_moment_in_a_policy_ends_a_live_connection(shared, fresh_name, connect):
    policy = fresh_name("until")
    end = int(time.time()) + 4
    shared.policy(policy, document(when({"DateLessThan": {"aws:EpochTime": str(end)}})))
    client = connect(shared, shared.device(fresh_name(), "--policy", policy))
    ended = client.ended.get(timeout=30)
    assert ended.reason == NOT_AUTHORIZED
    assert time.time() >= end


def test_a_subscription_is_granted_whole_or_not_at_all(shared, fresh_name, connect):
    policy = fresh_name("part")
    shared.policy(policy, document(
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": [
            "arn:aws:iot:*:*:topicfilter/a/*", "arn:aws:iot:*:*:topicfilter/b/?"]},
        {"Effect": "Deny", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:*:*:topicfilter/a/secret/*"},
    ))
    client = connect(shared, shared.device(fresh_name(), "--policy", policy))
    granted = {topic: client.subscribe(topic) for topic in ("a/#", "a/+/x", "a/+", "a/open/#", "a/secret/x", "b/c", "b/+", "b/#")}
    assert {topic: code == 1 for topic, code in granted.items()} == {
        "a/#": False, "a/+/x": False, "a/+": True, "a/open/#": True, "a/secret/x": False,
        "b/c": True, "b/+": False, "b/#": False}


def test_versions_targets_and_test_authorization(shared, fresh_name, connect):
    aws, name, group = iot(shared), fresh_name("versions"), fresh_name("group")
    statements = [ALL, {"Effect": "Deny", "Action": "iot:Publish", "Resource": "arn:aws:iot:*:*:topic/no"}]
    aws.create_policy(policyName=name, policyDocument=json.dumps(document(ALL)))
    made = aws.create_policy_version(policyName=name, policyDocument=json.dumps(document(*statements)))
    assert (made["policyVersionId"], made["isDefaultVersion"]) == ("2", False)
    for _ in range(3):
        aws.create_policy_version(policyName=name, policyDocument=json.dumps(document(ALL)))
    with pytest.raises(aws.exceptions.VersionsLimitExceededException):
        aws.create_policy_version(policyName=name, policyDocument=json.dumps(document(ALL)))
    with pytest.raises(aws.exceptions.DeleteConflictException):
        aws.delete_policy_version(policyName=name, policyVersionId="1")
    listed = aws.list_policy_versions(policyName=name)["policyVersions"]
    assert [(v["versionId"], v["isDefaultVersion"]) for v in listed] == [
        ("1", True), ("2", False), ("3", False), ("4", False), ("5", False)]

    arn = aws.create_thing_group(thingGroupName=group)["thingGroupArn"]
    aws.attach_policy(policyName=name, target=arn)
    assert aws.list_targets_for_policy(policyName=name)["targets"] == [arn]
    identity = shared.device(fresh_name(), "--group", group)
    principal = aws.list_thing_principals(thingName=identity.name)["principals"][0]
    effective = aws.get_effective_policies(principal=principal)["effectivePolicies"]
    assert sorted(p["policyName"] for p in effective) == sorted([name, "device-default"])

    client = connect(shared, identity)
    assert client.publish("no") in (0, 0x10)
    question = {
        "principal": principal, "clientId": identity.name,
        "authInfos": [{"actionType": "PUBLISH", "resources": [f"arn:aws:iot:eu-central-1:000000000000:topic/{topic}"]}
                      for topic in ("no", "yes")],
    }
    decide = lambda **more: [r["authDecision"] for r in aws.test_authorization(**question, **more)["authResults"]]
    assert decide() == ["ALLOWED", "ALLOWED"]
    assert decide(policyNamesToSkip=[name]) == ["IMPLICIT_DENY", "IMPLICIT_DENY"]
    aws.set_default_policy_version(policyName=name, policyVersionId="2")
    assert decide() == ["EXPLICIT_DENY", "ALLOWED"]
    assert client.publish("no") == NOT_AUTHORIZED
    assert aws.get_policy_version(policyName=name, policyVersionId="2")["isDefaultVersion"]
    aws.delete_policy_version(policyName=name, policyVersionId="1")
    with pytest.raises(aws.exceptions.ResourceNotFoundException):
        aws.get_policy_version(policyName=name, policyVersionId="1")


def test_what_is_attached_above_tags_and_the_older_operations(shared, fresh_name):
    aws, above, below = iot(shared), fresh_name("above"), fresh_name("below")
    parent = aws.create_thing_group(thingGroupName=above)["thingGroupArn"]
    child = aws.create_thing_group(thingGroupName=below, parentGroupName=above)["thingGroupArn"]
    # Made in another order than that of their names.
    names = [fresh_name(letter) for letter in "cab"]
    tags = [{"Key": "team", "Value": "ops"}]
    for name in names:
        arn = aws.create_policy(policyName=name, policyDocument=json.dumps(document(ALL)), tags=tags)["policyArn"]
    one, two, own = names
    aws.attach_policy(policyName=one, target=parent)
    aws.attach_policy(policyName=two, target=child)
    identity = shared.device(fresh_name(), "--group", below, "--policy", own)
    listed = lambda target, **how: {p["policyName"] for p in aws.list_attached_policies(target=target, **how)["policies"]}  # noqa: E731
    assert listed(child) == {two} and listed(child, recursive=True) == {one, two}
    assert listed(identity.arn) == {own} and listed(identity.arn, recursive=True) == set(names)
    pages = aws.get_paginator("list_attached_policies").paginate(target=identity.arn, recursive=True, PaginationConfig={"PageSize": 1})
    assert [p["policyName"] for page in pages for p in page["policies"]] == sorted(names)

    made = lambda **how: [p["policyName"] for page in aws.get_paginator("list_policies").paginate(  # noqa: E731
        PaginationConfig={"PageSize": 2}, **how) for p in page["policies"] if p["policyName"] in names]
    assert made(ascendingOrder=True) == names and made(ascendingOrder=False) == names[::-1] and made() == sorted(names)

    assert aws.list_tags_for_resource(resourceArn=arn)["tags"] == tags
    aws.tag_resource(resourceArn=arn, tags=[{"Key": "site", "Value": "bonn"}])
    aws.untag_resource(resourceArn=arn, tagKeys=["team"])
    aws.create_policy_version(policyName=own, policyDocument=json.dumps(document(ALL)))
    assert aws.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "site", "Value": "bonn"}]
    for wrong in (lambda: aws.tag_resource(resourceArn=arn, tags=[{"Key": "aws:x", "Value": ""}]),
                  lambda: aws.tag_resource(resourceArn=arn, tags=[{"Key": f"k{n}", "Value": ""} for n in range(50)])):
        with pytest.raises(aws.exceptions.InvalidRequestException):
            wrong()
    with pytest.raises(aws.exceptions.ResourceNotFoundException):
        aws.tag_resource(resourceArn=arn + "x", tags=tags)

    principal = {"principal": identity.arn}
    aws.attach_principal_policy(policyName=one, **principal)
    assert {p["policyName"] for p in aws.list_principal_policies(**principal)["policies"]} == {one, own}
    assert aws.list_policy_principals(policyName=one)["principals"] == [identity.arn], "a group is no principal"
    aws.detach_principal_policy(policyName=one, **principal)
    assert aws.list_policy_principals(policyName=one)["principals"] == []


def test_test_authorization_as_awss_model_has_it(shared, fresh_name):
    aws, speaks, silent = iot(shared), fresh_name("speaks"), fresh_name("silent")
    shared.policy(speaks, document({"Effect": "Allow", "Action": "iot:Publish", "Resource": "arn:aws:iot:*:*:topic/yes"}))
    shared.policy(silent, document({"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}))
    identity = shared.device(fresh_name(), "--policy", speaks)
    aws.attach_policy(policyName=silent, target=identity.arn)

    def ask(**info):
        return aws.test_authorization(principal=identity.arn, clientId=identity.name, authInfos=[info])["authResults"][0]

    def arn(resource):
        return f"arn:aws:iot:local:000000000000:{resource}"

    quiet = lambda result: [p["policyName"] for p in result["denied"]["implicitDeny"]["policies"]]  # noqa: E731
    denied = ask(actionType="PUBLISH", resources=[arn("topic/no")])
    assert denied["authDecision"] == "IMPLICIT_DENY" and quiet(denied) == sorted([silent, speaks])
    assert quiet(ask(actionType="PUBLISH", resources=[arn("topic/yes")])) == [silent]
    assert ask(resources=[arn("client/x")])["authDecision"] == "ALLOWED"
    assert ask(resources=[arn("topicfilter/x")])["authDecision"] == "IMPLICIT_DENY"
    with pytest.raises(aws.exceptions.InvalidRequestException) as refused:
        ask(resources=[arn("topic/yes")])
    assert "PUBLISH or RECEIVE" in str(refused.value)


def test_lint_names_what_is_seldom_meant(tmp_path):
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(document(
        {"Sid": "Wide", "Effect": "Allow", "Action": "iot:Publish", "Resource": "arn:aws:iot:*:*:topic/*"}), indent=1))
    run = subprocess.run([MUSTER, "policy", "lint", str(file)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert 'line 4, statement 1 "Wide"' in run.stdout and "any topic" in run.stdout


def test_making_a_policy_warns_of_what_lint_finds(shared, fresh_name, tmp_path):
    name, file = fresh_name("foreign"), tmp_path / "p.json"
    file.write_text(json.dumps(document({**ALL, "Resource": "arn:aws:iot:us-east-1:123456789012:*"})))
    for verb in ("create", "update"):
        done = shared.run("policy", verb, name, str(file))
        assert done.returncode == 0 and "allows nothing here: this server's account is 000000000000" in done.stderr, done
    clean = tmp_path / "clean.json"
    clean.write_text(json.dumps(document({**ALL, "Action": "iot:Publish", "Resource": "arn:aws:iot:*:*:topic/a/b"})))
    done = shared.run("policy", "create", fresh_name("clean"), str(clean))
    assert done.returncode == 0 and done.stderr == "", done


def lint(*arguments):
    return subprocess.run([MUSTER, "policy", "lint", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_lint_takes_what_the_server_takes(tmp_path):
    file, config = tmp_path / "p.json", tmp_path / "muster.toml"
    config.write_text("[policy]\ndocument_bytes = 100_000\n")
    file.write_text(json.dumps(document({**ALL, "Resource": "arn:aws:iot:*:*:topic/" + "a" * 70_000})))
    done = lint(file)
    assert done.returncode == 1 and "65536 are the limit" in done.stderr, done
    assert lint("--config", config, file).returncode == 0
    config.write_text("[policy]\ndocument_bytes = 100_000\ndocument_visible_chars = 2_048\n")
    assert "2048 are the limit" in lint("--config", config, file).stderr
    file.write_bytes(json.dumps(document(ALL)).encode()[:-2] + b"\n \xe9")
    assert "line 2, column 2: the byte 0xe9 here is no UTF-8" in lint(file).stderr
    file.write_text(json.dumps(document({**ALL, "Action": "iot:Publish", "Resource": "arn:aws:iot:*:1:topic/a"})))
    assert lint(file).returncode == 0
    assert "this server's account is 2" in lint("--account", "2", file).stdout


def test_detaching_what_is_not_there_and_many_resources_are_as_with_aws(shared, fresh_name):
    policy, aws = fresh_name("p"), iot(shared)
    shared.policy(policy, document(ALL))
    target = shared.device(fresh_name(), "--policy", policy).arn
    with pytest.raises(aws.exceptions.InvalidRequestException, match="does not exist"):
        aws.detach_policy(policyName=fresh_name("none"), target=target)
    topics = [f"arn:aws:iot:local:000000000000:topic/{n}" for n in range(50)]
    [result] = aws.test_authorization(principal=target, authInfos=[{"actionType": "PUBLISH", "resources": topics}])["authResults"]
    assert result["authDecision"] == "ALLOWED"
    with pytest.raises(aws.exceptions.InvalidRequestException, match="1000"):
        aws.test_authorization(principal=target, authInfos=[{"actionType": "PUBLISH", "resources": 21 * topics}])


def test_a_group_goes_with_what_its_policies_said(shared, fresh_name, connect):
    aws, group = iot(shared), fresh_name("group")
    connects, gives = fresh_name("connects"), fresh_name("gives")
    shared.policy(connects, document({**ALL, "Action": "iot:Connect"}))
    shared.policy(gives, document({**ALL, "Action": "iot:Publish"}))
    lamp = shared.device(fresh_name(), "--policy", connects)
    client = connect(shared, lamp)
    for make, delete in (
        (lambda: (aws.create_thing_group(thingGroupName=group),
                  aws.add_thing_to_thing_group(thingGroupName=group, thingName=lamp.name)), aws.delete_thing_group),
        (lambda: aws.create_dynamic_thing_group(thingGroupName=group, queryString=f"thingName:{lamp.name}"),
         aws.delete_dynamic_thing_group),
    ):
        make()
        target = f"arn:aws:iot:local:000000000000:thinggroup/{group}"
        aws.attach_policy(policyName=gives, target=target)
        eventually(lambda: client.publish("a") in (0, 0x10), "the group's policy to count")
        delete(thingGroupName=group)
        assert client.publish("a") == NOT_AUTHORIZED
        assert aws.list_targets_for_policy(policyName=gives)["targets"] == []
        # A group that comes by its name gets nothing of it.
        make()
        assert aws.list_attached_policies(target=target)["policies"] == []
        delete(thingGroupName=group)
    aws.delete_policy(policyName=gives)
