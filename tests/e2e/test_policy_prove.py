"""Claims about all devices: proven, or refuted by what a real device then does."""

import json
import shlex

import pytest

from api import call, iot
from server import allow, deny, document

THING = "${iot:Connection.Thing.ThingName}"
SUCCESS = (0, 0x10)


@pytest.fixture
def prove(server):
    """Asks for proofs; returns what `policy prove --json` prints, whatever its exit code."""

    def ask(*claim):
        done = server.run("policy", "prove", "--json", *claim)
        told = json.loads(done.stdout)
        assert (done.returncode == 0) == told["holds"], done
        return told["results"]

    return ask


def test_the_default_keeps_devices_apart(server, prove):
    for name in ("lamp-1", "lamp-2"):
        server.device(name)
    results = prove()
    assert [r["claim"]["owned"] for r in results] == ["dt/${thing}/#", "cmd/${thing}/#", "$aws/things/${thing}/#"]
    assert all(r["outcome"] == "holds" and r["forAnyName"] for r in results), results


def test_a_counter_example_is_what_a_device_can_do(server, prove, connect):
    server.policy("careless", document(
        allow("Connect", f"client/{THING}"), allow(["Publish", "Receive"], f"topic/dt/{THING}*"),
        allow("Subscribe", f"topicfilter/dt/{THING}*")))
    identities = {name: server.device(name, "--policy", "careless") for name in ("lamp-1", "lamp-2")}
    [today] = prove("--owned", "dt/${thing}/#")
    assert today["outcome"] == "holds" and not today["forAnyName"]
    server.device("lamp-10")
    [broken] = prove("--owned", "dt/${thing}/#")
    assert (broken["outcome"], broken["thing"], broken["other"]) == ("broken", "lamp-1", "lamp-10")
    why = server.json("policy", "explain", "--device", broken["thing"], "--action", "publish", "--topic", broken["topic"])
    assert why["decision"] == "Allow"
    client = connect(server, identities["lamp-1"])
    assert client.publish(broken["topic"]) in SUCCESS
    [filters] = prove("--owned", "dt/${thing}/#", "--action", "subscribe")
    assert client.subscribe(filters["topic"]) == 1
    # A Deny, and the proof is there again.
    server.update_policy("careless", document(
        allow("Connect", f"client/{THING}"), allow(["Publish", "Receive"], f"topic/dt/{THING}*"),
        {"Effect": "Deny", "Action": ["iot:Publish", "iot:Receive"], "NotResource": f"arn:aws:iot:*:*:topic/dt/{THING}/*"}))
    assert [r["outcome"] for r in prove("--owned", "dt/${thing}/#")] == ["holds"]
    assert client.publish(broken["topic"]) == 0x87


@pytest.mark.parametrize("condition,holds", [
    # What the registry knows settles it.
    ({"StringEquals": {"iot:Connection.Thing.Attributes[zone]": "yard"}}, True),
    ({"StringEquals": {"iot:Connection.Thing.Attributes[zone]": "hall"}}, False),
    ({"StringEquals": {"iot:Connection.Thing.ThingTypeName": "pump"}}, True),
    ({"StringEquals": {"muster:EnrolmentWay": "claim"}}, True),
    ({"StringEquals": {"muster:EnrolmentWay": "operator"}}, False),
    # The rest is said with its value, and the command that is printed gives it.
    ({"NumericLessThan": {"muster:MessageSize": "10"}}, False),
    ({"NumericEquals": {"muster:QoS": "1"}}, False),
    ({"StringEquals": {"muster:Listener": "mqtt"}}, False),
    ({"Bool": {"muster:Quarantined": "true"}}, False),
    ({"StringEquals": {"muster:FirmwareVersion": "2.0"}}, False),
    ({"NumericLessThan": {"muster:LastViolationAge": "60"}}, False),
    ({"IpAddress": {"aws:SourceIp": "10.1.0.0/16"}}, False),
    ({"StringLike": {"iot:DomainName": "*.example"}}, False),
    ({"ForAnyValue:StringEquals": {"iot:ConnectAttributes": "PersistentConnect"}}, False),
    ({"DateGreaterThan": {"aws:CurrentTime": "2090-01-01T00:00:00Z"}}, False),
    ({"NumericLessThan": {"muster:MessageSize": "10"}, "StringEquals": {"muster:Listener": "wss"}}, False),
    # What nothing can be breaks nothing.
    ({"NumericEquals": {"muster:QoS": "3"}}, True),
    ({"NumericLessThan": {"muster:MessageSize": "0"}}, True),
    ({"DateLessThan": {"aws:CurrentTime": "2001-01-01T00:00:00Z"}}, True),
])
def test_conditions_are_judged_by_the_registry_or_told(server, condition, holds):
    server.policy("wide", document(allow("Connect", f"client/{THING}"), {**allow("Publish", "topic/own/*"), "Condition": condition}))
    for name in ("one", "two"):
        server.device(name, "--policy", "wide", "--attribute", "zone=hall")
    done = server.run("policy", "prove", "--owned", "own/${thing}/#")
    assert (done.returncode == 0) == holds, done.stdout
    if holds:
        return
    for operator, asked in condition.items():
        [(key, value)] = asked.items()
        settled = key.startswith("iot:Connection") or key == "muster:EnrolmentWay"
        assert (f'where its condition {operator} {key} "{value}" is met' in done.stdout) != settled, done.stdout
    see = done.stdout.split("see: muster ")[1].splitlines()[0]
    assert server.json(*shlex.split(see))["decision"] == "Allow", see


def test_a_command_gives_what_leaves_a_deny_silent(server):
    deny = {"Effect": "Deny", "Action": "iot:Publish", "Resource": "*", "Condition": {"Bool": {"muster:Quarantined": "false"}}}
    server.policy("wide", document(allow("Connect", f"client/{THING}"), allow("Publish", "topic/own/*"), deny))
    for name in ("one", "two"):
        server.device(name, "--policy", "wide")
    done = server.run("policy", "prove", "--owned", "own/${thing}/#")
    see = done.stdout.split("see: muster ")[1].splitlines()[0]
    assert "--quarantined true" in see and server.json(*shlex.split(see))["decision"] == "Allow", see


def test_what_is_to_be_kept_is_kept_whatever_attributes_become(server, tmp_path):
    server.cli("policy", "invariant", "set", "apart", "--owned", "own/${thing}/#")
    server.policy("plain", document(allow("Connect", f"client/{THING}")))
    server.device("one", "--policy", "plain", "--attribute", "zone=hall")
    by_zone = tmp_path / "by-zone.json"
    by_zone.write_text(json.dumps(document({**allow("Publish", "topic/own/*"), "Condition": {
        "StringEquals": {"iot:Connection.Thing.Attributes[zone]": "yard"}}})))
    assert "apart" in server.refused("policy", "create", "by-zone", str(by_zone), "--keep-proofs")


def test_what_is_to_be_pasted_survives_a_shell(server):
    server.policy("wide", document(allow("Connect", f"client/{THING}"), allow("Publish", "topic/$aws/x/*")))
    server.device("one", "--policy", "wide")
    done = server.run("policy", "prove", "--topic", "$aws/x/#")
    see = done.stdout.split("see: muster ")[1].splitlines()[0]
    words = shlex.split(see)
    assert "'$aws/x" in see and words[words.index("--topic") + 1].startswith("$aws/x"), see
    assert server.json(*words)["decision"] == "Allow"


def test_a_group_alone_reaches_its_topics(server, prove):
    server.policy("ops", document(allow("Publish", "topic/ops/*")))
    server.cli("group", "create", "ops")
    server.cli("policy", "attach", "ops", "--group", "ops")
    server.device("console", "--group", "ops")
    server.device("lamp")
    claim = ("--topic", "ops/#", "--only-group", "ops")
    assert [r["outcome"] for r in prove(*claim)] == ["holds"]
    server.cli("policy", "attach", "ops", "--device", "lamp")
    [broken] = prove(*claim)
    assert (broken["outcome"], broken["thing"]) == ("broken", "lamp")
    assert [r["outcome"] for r in prove("--topic", "secret/#")] == ["holds"]


def test_what_a_group_above_has_counts(server, prove):
    server.policy("fleetwide", document(allow("Publish", "topic/above/*")))
    server.cli("group", "create", "above")
    server.cli("group", "create", "below", "--parent", "above")
    server.cli("policy", "attach", "fleetwide", "--group", "above")
    server.device("heir", "--group", "below")
    [broken] = prove("--topic", "above/#")
    assert (broken["outcome"], broken["thing"]) == ("broken", "heir")
    assert [r["outcome"] for r in prove("--topic", "above/#", "--only-group", "above")] == ["holds"]


def test_who_gets_a_policy_is_held_to_the_invariants_too(server, prove):
    server.device("lamp-1")
    server.device("lamp-2")
    server.cli("policy", "invariant", "set", "hall-only", "--topic", "hall/#", "--only-group", "hall")
    server.policy("hall", document(allow(["Connect", "Publish"], "*")))
    server.policy("never", document(deny("Publish", "topic/hall", "topic/hall/*")))
    for group in ("hall", "yard"):
        server.cli("group", "create", group)
    kept = "--keep-proofs"
    said = server.refused("policy", "attach", "hall", "--device", "lamp-1", kept)
    assert "policy hall attached to cert:" in said and "would break invariant hall-only" in said
    server.cli("policy", "attach", "hall", "--group", "hall", kept)
    server.cli("group", "add", "hall", "lamp-1", kept)
    # A Deny is what keeps the claim here: neither it nor the group can go.
    server.cli("policy", "attach", "never", "--group", "yard", kept)
    server.cli("group", "add", "yard", "lamp-2", kept)
    server.cli("policy", "attach", "hall", "--device", "lamp-2", kept)
    assert "policy never detached from group:yard would break" in server.refused("policy", "detach", "never", "--group", "yard", kept)
    assert "device lamp-2 out of group yard would break" in server.refused("group", "remove", "yard", "lamp-2", kept)
    assert [r["outcome"] for r in prove()] == ["holds"]
    assert call(server, "PUT", "/thing-groups/removeThingFromThingGroup", {
        "thingGroupName": "yard", "thingName": "lamp-2", "keepProofs": True})[:2] == (409, "InvariantBrokenException")
    server.cli("group", "remove", "yard", "lamp-2")
    assert [r["outcome"] for r in prove()] == ["broken"]


def test_whoever_a_query_may_bring_into_a_group_is_held_to_the_invariants(server, prove):
    """A dynamic group's members come and go with attributes, which are held against no claim: so with --keep-proofs a policy
    of such a group is judged as if anybody could have it, or lose it."""
    client = iot(server)
    for name in ("lamp-1", "lamp-2"):
        server.device(name)
    server.cli("policy", "invariant", "set", "hall-only", "--topic", "hall/#", "--only-group", "hall")
    server.cli("group", "create", "hall")
    client.create_dynamic_thing_group(thingGroupName="bonn", queryString="attributes.site:bonn")
    server.policy("wide", document(allow("Publish", "topic/hall/*")))
    server.policy("never", document(deny("Publish", "topic/hall/*")))
    # Nobody is in it, and the claim holds today; tomorrow an attribute may bring lamp-1 in.
    said = server.refused("policy", "attach", "wide", "--group", "bonn", "--keep-proofs")
    assert "policy wide attached to group:bonn would break invariant hall-only" in said, said
    server.cli("policy", "attach", "wide", "--group", "bonn")
    assert [r["outcome"] for r in prove()] == ["holds"]
    client.update_thing(thingName="lamp-1", attributePayload={"attributes": {"site": "bonn"}})
    assert [r["outcome"] for r in prove()] == ["broken"]
    server.cli("policy", "detach", "wide", "--group", "bonn")
    # What such a group denies keeps no claim: who leaves it has it no more.
    server.cli("policy", "attach", "never", "--group", "bonn", "--keep-proofs")
    said = server.refused("policy", "attach", "wide", "--device", "lamp-1", "--keep-proofs")
    assert "would break invariant hall-only" in said, said
    # The claim's own group may be one: who is in it may.
    client.create_dynamic_thing_group(thingGroupName="ulm", queryString="attributes.site:ulm")
    server.cli("policy", "invariant", "set", "hall-only", "--topic", "hall/#", "--only-group", "ulm")
    server.cli("policy", "attach", "wide", "--group", "ulm", "--keep-proofs")
    client.update_thing(thingName="lamp-2", attributePayload={"attributes": {"site": "ulm"}})
    assert [r["outcome"] for r in prove()] == ["holds"]


def test_what_breaks_an_invariant_is_refused_where_proofs_are_kept(server, prove, tmp_path):
    server.device("lamp-1")
    server.cli("policy", "invariant", "set", "own-data", "--owned", "dt/${thing}/#")
    assert [r["name"] for r in prove()] == ["own-data"]
    assert "own-data: no device reaches another's dt/${thing}/#" in server.cli("policy", "invariant", "list")
    wide, tight = tmp_path / "wide.json", tmp_path / "tight.json"
    wide.write_text(json.dumps(document(allow("Publish", "topic/dt/*"))))
    tight.write_text(json.dumps(document(allow("Publish", f"topic/dt/{THING}/x"), deny("Publish", "topic/dt/*/y"))))
    said = server.refused("policy", "create", "wide", str(wide), "--keep-proofs")
    assert "would break invariant own-data" in said and "topic/dt/*" in said
    assert "wide" not in server.cli("policy", "list")
    server.cli("policy", "create", "tight", str(tight), "--keep-proofs")
    assert "would break" in server.refused("policy", "update", "tight", str(wide), "--keep-proofs")
    assert "would break" in server.refused("policy", "update", "device-default", str(wide), "--keep-proofs")
    assert all(r["outcome"] == "holds" for r in prove())
    status, kind, _ = call(server, "POST", "/policies/more", {"policyDocument": wide.read_text(), "keepProofs": True})
    assert (status, kind) == (409, "InvariantBrokenException")
    iot(server).create_policy(policyName="wide", policyDocument=wide.read_text())
    server.cli("policy", "invariant", "delete", "own-data")
    assert "${thing} once" in server.refused("policy", "prove", "--owned", "dt/#")
    assert "neither" in call(server, "PUT", "/muster/v1/invariants/x", {})[2]["message"]


def test_what_others_broke_before_is_not_held_against_a_change(server, tmp_path):
    server.cli("policy", "invariant", "set", "apart", "--owned", "own/${thing}/#")
    server.policy("wide", document(allow("Connect", f"client/{THING}"), allow("Publish", "topic/own/*")))
    for name in ("one", "two"):
        server.device(name, "--policy", "wide")
    server.device("three")
    narrow, wider = tmp_path / "narrow.json", tmp_path / "wider.json"
    narrow.write_text(json.dumps(document(allow("Publish", f"topic/own/{THING}/x"))))
    wider.write_text(json.dumps(document(allow("Publish", "topic/own/*"))))
    server.cli("policy", "create", "narrow", str(narrow), "--keep-proofs")
    server.cli("policy", "attach", "narrow", "--device", "three", "--keep-proofs")
    # What the change itself breaks is.
    assert "would break invariant apart" in server.refused("policy", "attach", "wide", "--device", "three", "--keep-proofs")
    assert "would break invariant apart" in server.refused("policy", "update", "narrow", str(wider), "--keep-proofs")
    # Those whom it touches break the claim anyway: it is no mend, and not what breaks it.
    said = server.refused("policy", "attach", "narrow", "--device", "one", "--keep-proofs")
    assert "leaves broken what is broken without it already, invariant apart" in said and "policy wide" in said, said
    server.update_policy("wide", document(allow("Connect", f"client/{THING}")))
    server.cli("policy", "attach", "narrow", "--device", "one", "--keep-proofs")
