"""Why a message was denied: asked later, under another clock, from another place."""

import json
import re

import pytest

from api import iot
from clients import Refused
from devices import eventually
from server import allow, deny, document

NOT_AUTHORIZED = 0x87


def test_a_denial_in_the_log_is_explained_by_the_policy_of_then(server, connect):
    server.policy("p", document(allow("Connect", "*"), {**deny("Publish", "topic/secret/*"), "Sid": "NoSecrets"}))
    identity = server.device("lamp", "--policy", "p")
    client = connect(server, identity)
    assert client.publish("secret/x") == NOT_AUTHORIZED
    assert client.subscribe("a/#") == NOT_AUTHORIZED

    def ids():
        lines = [line for line in server.stderr().splitlines() if "denied: " in line]
        return [re.search(r'denial="?([0-9a-f]+-[0-9a-f]+)', line)[1] for line in lines]

    publish, subscribe = eventually(lambda: len(ids()) >= 2 and ids()[:2], server.stderr)
    server.update_policy("p", document(allow("*", "*")))
    assert client.publish("secret/x") in (0, 0x10)

    why = eventually(lambda: told(server, publish), "the denial to be kept")
    assert (why["decision"], why["thingName"], why["clientId"]) == ("ExplicitDeny", "lamp", "lamp")
    spoke = why["statements"][0]
    assert (spoke["policy"], spoke["version"], spoke["sid"], spoke["effect"]) == ("p", 1, "NoSecrets", "Deny")
    assert "no Allow outweighs a Deny" in server.cli("policy", "explain", "--denial", publish)
    # It is there after a restart, too.
    server.restart()
    assert "topicfilter/a/#" in server.cli("policy", "explain", "--denial", subscribe)
    assert "is not kept" in server.refused("policy", "explain", "--denial", "0-0")
    now = server.json("policy", "explain", "--device", "lamp", "--action", "publish", "--topic", "secret/x")
    assert (now["decision"], now["statements"][0]["version"]) == ("Allow", 2)


def test_a_delivery_that_is_withheld_is_explained_later(server, connect):
    server.policy("p", document(allow("*", "*"), {**deny("Receive", "topic/a/secret"), "Sid": "NotForLamps"}))
    server.policy("all", document(allow("*", "*")))
    lamp = connect(server, server.device("lamp", "--policy", "p"))
    sender = connect(server, server.device("sender", "--policy", "all"))
    assert lamp.subscribe("a/secret") in (0, 1, 2)

    def denial(said):
        found = [line for line in server.stderr().splitlines() if said in line]
        return found and re.search(r'denial="?([0-9a-f]+-[0-9a-f]+)', found[0])[1]

    assert sender.publish("a/secret") == 0
    withheld = eventually(lambda: denial("delivery denied"), server.stderr)
    why = eventually(lambda: told(server, withheld), "the denial to be kept")
    assert (why["decision"], why["action"], why["thingName"]) == ("ExplicitDeny", "iot:Receive", "lamp")
    assert "NotForLamps" in [statement["sid"] for statement in why["statements"]]


def told(server, denial):
    done = server.run("policy", "explain", "--denial", denial, "--json")
    return done.returncode == 0 and json.loads(done.stdout)


def test_a_decision_is_explained_for_another_moment_place_and_message(shared, fresh_name):
    policy, name = fresh_name("when"), fresh_name()
    shared.policy(policy, document({**allow("Publish", "*"), "Condition": {
        "DateLessThan": {"muster:TimeOfDay[Europe/Berlin]": "18:00"},
        "IpAddress": {"aws:SourceIp": "10.0.0.0/8"},
        "NumericLessThan": {"muster:MessageSize": "100"}}}))
    shared.device(name, "--policy", policy)
    ask = ("policy", "explain", "--device", name, "--action", "publish", "--topic", "t", "--source-ip", "10.1.2.3")

    def decide(*more):
        return shared.json(*ask, *more)["decision"]

    assert decide("--at", "2026-06-01T15:59:59Z", "--size", "99") == "Allow"
    assert decide("--at", "2026-06-01T16:00:00Z", "--size", "99") == "ImplicitDeny"
    assert decide("--at", "2026-06-01T15:59:59Z", "--size", "100") == "ImplicitDeny"
    unknown = shared.json("policy", "explain", "--device", name, "--action", "publish", "--topic", "t")
    assert sorted(unknown["missingContext"]) == ["aws:SourceIp", "muster:MessageSize"]
    assert "no moment" in shared.refused(*ask, "--at", "soon")


def test_what_is_explained_is_what_the_server_does(shared, fresh_name, connect):
    policy, name = fresh_name("as-served"), fresh_name()
    shared.policy(policy, document(
        {**allow("Connect", "*"), "Condition": {"ForAllValues:StringNotEquals": {"iot:ConnectAttributes": ["LastWill"]},
                                                "StringEquals": {"muster:Listener": "mqtt", "iot:DomainName": "localhost"}}},
        allow("Publish", "topic/dt/${iot:Connection.Thing.ThingName}/*")))
    identity = shared.device(name, "--policy", policy)
    client = connect(shared, identity)
    topic = f"dt/{name}/t"
    publish = ("policy", "explain", "--device", name, "--action", "publish", "--topic", topic)
    assert client.publish(topic) in (0, 0x10)
    told = shared.json(*publish)
    assert told["decision"] == "Allow" and told["certificateUsable"]
    assert f'iot:Connection.Thing.ThingName "{name}"' in told["text"], told["text"]
    assert told["statements"][0]["variables"] == [{"name": "iot:Connection.Thing.ThingName", "value": name, "resolved": True}]
    # A message to be retained needs more.
    assert client.publish(topic, retain=True) == 0x87
    retained = shared.json(*publish, "--retain")
    assert (retained["decision"], retained["action"]) == ("ImplicitDeny", "iot:RetainPublish"), retained
    # What the connection is can be said.
    ask = ("policy", "explain", "--device", name, "--action", "connect", "--listener", "mqtt", "--domain-name", "localhost")
    assert shared.json(*ask)["decision"] == "Allow"
    assert shared.json(*ask, "--will-topic", "t")["decision"] == "ImplicitDeny"
    assert shared.json(*ask[:-1], "elsewhere")["decision"] == "ImplicitDeny"
    assert "mqtt, wss or https" in shared.refused(*ask[:6], "--listener", "coap")
    assert "1.2 or 1.3" in shared.refused(*ask, "--tls-version", "1.1")
    # Past its end, and revoked, a certificate can do nothing.
    later = shared.json(*publish, "--at", "2099-01-01T00:00:00Z")
    assert not later["certificateUsable"] and "has ended by then" in later["text"]
    shared.cli("device", "revoke", name, "--yes")
    revoked = shared.json(*publish)
    assert not revoked["certificateUsable"] and revoked["text"].startswith("its certificate is REVOKED"), revoked["text"]


def test_test_authorization_names_what_it_does_not_know(shared, fresh_name):
    policy = fresh_name("where")
    shared.policy(policy, document({**allow("Connect", "client/${iot:Connection.Thing.Attributes[site]}"), "Condition": {
        "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}))
    identity = shared.device(fresh_name(), "--policy", policy)
    aws = iot(shared)
    principal = aws.list_thing_principals(thingName=identity.name)["principals"][0]
    [result] = aws.test_authorization(principal=principal, clientId=identity.name, authInfos=[
        {"actionType": "CONNECT", "resources": [f"arn:aws:iot:local:000000000000:client/{identity.name}"]}])["authResults"]
    assert result["authDecision"] == "IMPLICIT_DENY"
    assert sorted(result["missingContextValues"]) == ["aws:SourceIp", "iot:Connection.Thing.Attributes[site]"]


def test_each_certificate_of_a_device_is_explained(shared, fresh_name):
    name, aws = fresh_name(), iot(shared)
    aws.create_thing(thingName=name)
    ids = []
    for topic in ("a", "b"):
        policy = fresh_name(topic)
        shared.policy(policy, document(allow("Publish", f"topic/{topic}")))
        made = aws.create_keys_and_certificate(setAsActive=True)
        aws.attach_thing_principal(thingName=name, principal=made["certificateArn"])
        aws.attach_policy(policyName=policy, target=made["certificateArn"])
        ids.append(made["certificateId"])
    ask = ("policy", "explain", "--device", name, "--action", "publish", "--topic", "a")
    told = shared.json(*ask)
    this, [other] = told["certificateId"], told["otherCertificates"]
    assert {this, other["certificateId"]} == set(ids) and other["certificateUsable"]
    assert {told["decision"], other["decision"]} == {"Allow", "ImplicitDeny"}
    assert f"(--certificate {other['certificateId'][:12]})" in told["text"] and "otherwise" in told["text"], told["text"]
    decisions = [shared.json(*ask, "--certificate", one[:12])["decision"] for one in ids]
    assert decisions == ["Allow", "ImplicitDeny"]
    said = shared.refused(*ask, "--certificate", "0" * 64)
    assert ids[0][:12] in said and ids[1][:12] in said, said
    # One that can do nothing is told of, and not in the sentence.
    aws.update_certificate(certificateId=ids[1], newStatus="INACTIVE")
    told = shared.json(*ask)
    assert (told["certificateId"], told["decision"]) == (ids[0], "Allow")
    assert [one["certificateUsable"] for one in told["otherCertificates"]] == [False] and "--certificate" not in told["text"]


def test_a_device_is_told_that_a_condition_is_unmet(shared, fresh_name, connect):
    policy = fresh_name("small")
    shared.policy(policy, document(allow("Connect", "*"), {**allow("Publish", "topic/s"), "Condition": {
        "NumericLessThan": {"muster:MessageSize": "5"}}}))
    client = connect(shared, shared.device(fresh_name(), "--policy", policy))
    assert client.publish("s", b"1234") in (0, 0x10)
    assert client.publish("s", b"12345") == NOT_AUTHORIZED
    eventually(lambda: f"unmet condition of statement 2 of policy {policy}: iot:Publish on topic/s" in shared.stderr(), shared.stderr)


def test_a_connection_with_a_will_and_a_retained_message_are_explained_whole(shared, fresh_name, connect):
    """What is asked of the server at once is explained at once, and one statement mends it."""
    policy, name = fresh_name("will"), fresh_name()
    connects = allow("Connect", "*")
    shared.policy(policy, document(connects))
    identity = shared.device(name, "--policy", policy)
    will = ("w/x", {"payload": b"off", "retain": True})
    ask = ("policy", "explain", "--device", name, "--action", "connect")
    assert shared.json(*ask)["decision"] == "Allow"
    told = shared.json(*ask, "--will-topic", "w/x", "--retain")
    assert (told["decision"], told["action"], told["resource"]) == ("ImplicitDeny", "iot:Publish", "topic/w/x")
    with pytest.raises(Refused) as refused:
        connect(shared, identity, will=will)
    assert refused.value.reason == 0x87
    publish = shared.json("policy", "explain", "--device", name, "--action", "publish", "--topic", "w/x", "--retain")
    assert publish["missingGrant"] == told["missingGrant"]
    shared.update_policy(policy, document(connects, told["missingGrant"]))
    assert shared.json(*ask, "--will-topic", "w/x", "--retain")["decision"] == "Allow"
    connect(shared, identity, will=will).close()
    # What is not known of an action is not taken for known.
    asks = ("policy", "explain", "--device", name, "--topic", "t", "--action")
    assert "messageSize: iot:Subscribe has none" in shared.refused(*asks, "subscribe", "--size", "5")
    assert "willTopic" in shared.refused(*ask, "--retain")
    assert "nobody asks for iot:Receive over HTTPS" in shared.refused(*asks, "receive", "--listener", "https")
    assert shared.json("policy", "explain", "--device", name, "--action", "listretainedmessages")["resource"] == "*"
