"""Things found by what they are, groups whose query says who is in them, and what that means for live sessions: boto3
and paho, unmodified."""

import json

import pytest
from botocore.exceptions import ClientError

from api import iot
from clients import Refused
from devices import eventually
from server import allow, document


def code_of(error):
    return error.value.response["Error"]["Code"]


def found(client, query, **how):
    """Names of all things that fit, page by page."""
    names, token = [], {}
    while True:
        page = client.search_index(queryString=query, **token, **how)
        names += [t["thingName"] for t in page["things"]]
        if "nextToken" not in page:
            return names
        token = {"nextToken": page["nextToken"]}


def members(client, group):
    return [t for p in client.get_paginator("list_things_in_thing_group").paginate(thingGroupName=group) for t in p["things"]]


def active(client, group):
    eventually(lambda: client.describe_thing_group(thingGroupName=group)["status"] == "ACTIVE", f"{group} is filled")


def test_things_are_found_by_name_type_attribute_group_and_connection(server, connect):
    client = iot(server)
    client.create_thing_type(thingTypeName="lamp")
    client.create_thing_group(thingGroupName="hall")
    for n in range(12):
        client.create_thing(thingName=f"lamp-{n:02}", thingTypeName="lamp", attributePayload={"attributes": {"site": "bonn" if n % 2 else "ulm", "rev": str(n)}})
    client.create_thing(thingName="door-1", attributePayload={"attributes": {"site": "bonn"}})
    for name in ("lamp-03", "door-1"):
        client.add_thing_to_thing_group(thingGroupName="hall", thingName=name)
    odd = [f"lamp-{n:02}" for n in range(1, 12, 2)]
    for query, names in {
        "thingName:lamp-0*": [f"lamp-{n:02}" for n in range(10)],
        "thingName:*-1": ["door-1"],
        "thingTypeName:lamp AND attributes.site:bonn": odd,
        "attributes.site:bonn -thingName:door*": odd,
        "thingTypeName:lamp AND attributes.rev:[3 TO 10}": [f"lamp-{n:02}" for n in range(3, 10)],
        "attributes.rev > 9": ["lamp-10", "lamp-11"],
        "thingGroupNames:hall": ["door-1", "lamp-03"],
        "thingGroupNames:hall AND NOT thingTypeName:lamp": ["door-1"],
        "(thingName:lamp-00 OR thingName:lamp-01) AND attributes.site:ulm": ["lamp-00"],
        "thingName:nobody": [],
        "connectivity.connected:true": [],
    }.items():
        assert found(client, query) == names, query
        assert found(client, query, maxResults=2) == names, query
    assert len(found(client, "*")) == 13

    lamp = server.device("lamp-99", "--attribute", "site=bonn")
    session = connect(server, lamp)
    (shown,) = client.search_index(queryString="connectivity.connected:true")["things"]
    assert shown["thingName"] == "lamp-99" and shown["connectivity"]["connected"] is True and shown["connectivity"]["timestamp"]
    assert shown["thingId"] == client.describe_thing(thingName="lamp-99")["thingId"] and shown["attributes"] == {"site": "bonn"}
    second = connect(server, lamp)
    session.end()
    assert found(client, "connectivity.connected:true") == ["lamp-99"], "one connection after the other"
    second.disconnect()
    eventually(lambda: found(client, "connectivity.connected:true") == [], "it is connected no more")

    assert client.describe_index(indexName="AWS_Things")["indexStatus"] == "ACTIVE"
    assert client.list_indices()["indexNames"] == ["AWS_Things"]
    for query in ("", "shadow.reported.x:1", "thingName:", "(a", "attributes.x:[1 TO"):
        with pytest.raises(ClientError) as refused:
            client.search_index(queryString=query or " ")
        assert code_of(refused) == "InvalidQueryException", query
    with pytest.raises(ClientError) as refused:
        client.search_index(queryString="*", indexName="AWS_ThingGroups")
    assert code_of(refused) == "ResourceNotFoundException"
    assert json.loads(server.cli("device", "search", "thingGroupNames:hall", "--json"))["things"][0]["thingName"] == "door-1"


def test_live_sessions_follow_a_query(server, connect):
    client = iot(server)
    server.policy("may-report", document(allow("Publish", "topic/reports")))
    lamps = [server.device(f"lamp-{n}", "--attribute", f"site={site}") for n, site in enumerate(("bonn", "ulm", "bonn"))]
    made = client.create_dynamic_thing_group(thingGroupName="in-bonn", queryString="attributes.site:bonn", queryVersion="2017-09-30",
                                             thingGroupProperties={"thingGroupDescription": "all of Bonn"})
    assert made["queryString"] == "attributes.site:bonn" and made["indexName"] == "AWS_Things" and made["thingGroupArn"].endswith("thinggroup/in-bonn")
    active(client, "in-bonn")
    assert members(client, "in-bonn") == ["lamp-0", "lamp-2"]
    sessions = [connect(server, lamp) for lamp in lamps]

    def may():
        return [session.publish("reports", "x") == 0 for session in sessions]

    assert may() == [False, False, False]
    client.attach_policy(policyName="may-report", target=made["thingGroupArn"])
    assert may() == [True, False, True]
    # What a thing becomes, it is for its live session when the change is answered.
    client.update_thing(thingName="lamp-0", attributePayload={"attributes": {"site": "ulm"}})
    client.update_thing(thingName="lamp-1", attributePayload={"attributes": {"site": "bonn"}})
    assert may() == [False, True, True]
    assert [g["groupName"] for g in client.list_thing_groups_for_thing(thingName="lamp-1")["thingGroups"]] == ["in-bonn"]
    # A new thing is in it from its first moment.
    late = connect(server, server.device("lamp-3", "--attribute", "site=bonn"))
    assert late.publish("reports", "x") == 0
    # Another query.
    client.update_dynamic_thing_group(thingGroupName="in-bonn", queryString="attributes.site:ulm", thingGroupProperties={}, expectedVersion=1)
    active(client, "in-bonn")
    assert members(client, "in-bonn") == ["lamp-0"] and may() == [True, False, False] and late.publish("reports", "x") == 0x87
    # Static groups count, and change at once.
    client.create_thing_group(thingGroupName="hall")
    client.update_dynamic_thing_group(thingGroupName="in-bonn", queryString="thingGroupNames:hall", thingGroupProperties={})
    active(client, "in-bonn")
    client.add_thing_to_thing_group(thingGroupName="hall", thingName="lamp-2")
    assert may() == [False, False, True]
    client.remove_thing_from_thing_group(thingGroupName="hall", thingName="lamp-2")
    assert may() == [False, False, False]
    # It survives a crash.
    client.add_thing_to_thing_group(thingGroupName="hall", thingName="lamp-2")
    server.kill9()
    server.start()
    client = iot(server)
    sessions = [connect(server, lamp) for lamp in lamps]
    assert may() == [False, False, True]
    # And goes with what hangs on it.
    client.delete_dynamic_thing_group(thingGroupName="nobody")
    client.delete_dynamic_thing_group(thingGroupName="in-bonn")
    assert may() == [False, False, False]
    assert client.list_targets_for_policy(policyName="may-report")["targets"] == []
    assert [g["groupName"] for g in client.list_thing_groups_for_thing(thingName="lamp-2")["thingGroups"]] == ["hall"]
    client.create_thing_group(thingGroupName="in-bonn")
    assert members(client, "in-bonn") == []


def test_a_dynamic_group_is_changed_by_its_query_alone(server):
    client = iot(server)
    server.device("lamp-1")
    client.create_thing_group(thingGroupName="static")
    client.create_dynamic_thing_group(thingGroupName="all", queryString="*")
    active(client, "all")
    assert members(client, "all") == ["lamp-1"]
    for attempt in (
        lambda: client.add_thing_to_thing_group(thingGroupName="all", thingName="lamp-1"),
        lambda: client.remove_thing_from_thing_group(thingGroupName="all", thingName="lamp-1"),
        lambda: client.update_thing_groups_for_thing(thingName="lamp-1", thingGroupsToRemove=["all"]),
        lambda: client.update_thing_group(thingGroupName="all", thingGroupProperties={}),
        lambda: client.delete_thing_group(thingGroupName="all"),
        lambda: client.create_thing_group(thingGroupName="below", parentGroupName="all"),
        lambda: client.update_dynamic_thing_group(thingGroupName="static", thingGroupProperties={}),
        lambda: client.delete_dynamic_thing_group(thingGroupName="static"),
    ):
        with pytest.raises(ClientError) as refused:
            attempt()
        assert code_of(refused) == "InvalidRequestException", refused.value
    for attempt, code in (
        (lambda: client.create_dynamic_thing_group(thingGroupName="all", queryString="*"), "ResourceAlreadyExistsException"),
        (lambda: client.create_dynamic_thing_group(thingGroupName="x", queryString="thingName:"), "InvalidQueryException"),
        (lambda: client.update_dynamic_thing_group(thingGroupName="all", queryString="(", thingGroupProperties={}), "InvalidQueryException"),
        (lambda: client.update_dynamic_thing_group(thingGroupName="all", thingGroupProperties={}, expectedVersion=9), "VersionConflictException"),
        (lambda: client.update_dynamic_thing_group(thingGroupName="nobody", thingGroupProperties={}), "ResourceNotFoundException"),
    ):
        with pytest.raises(ClientError) as refused:
            attempt()
        assert code_of(refused) == code
    # Ten static groups are still ten, whatever queries add.
    for n in range(10):
        client.create_thing_group(thingGroupName=f"g{n}")
        client.add_thing_to_thing_group(thingGroupName=f"g{n}", thingName="lamp-1")
    assert len(client.list_thing_groups_for_thing(thingName="lamp-1")["thingGroups"]) == 11
    server.cli("device", "delete", "lamp-1", "--yes")
    assert members(client, "all") == []
    server.cli("group", "create", "by-cli", "--query", "thingName:lamp*")
    server.cli("group", "delete", "by-cli", "--yes")


# -- many certificates at once

@pytest.mark.parametrize("how", ["group", "query", "certificate"])
def test_many_certificates_are_switched_off_on_and_revoked(server, connect, how):
    client = iot(server)
    client.create_thing_group(thingGroupName="hall")
    client.create_thing_group(thingGroupName="corner", parentGroupName="hall")
    hit = [server.device(f"lamp-{n}", "--group", "hall" if n else "corner", "--attribute", "site=hall") for n in range(3)]
    spared = server.device("spared")
    whose = {"group": ["--group", "hall"], "query": ["--query", "attributes.site:hall"],
             "certificate": [flag for lamp in hit for flag in ("--certificate", lamp.id)]}[how]

    def states():
        return [client.describe_certificate(certificateId=lamp.id)["certificateDescription"]["status"] for lamp in [*hit, spared]]

    live = [connect(server, lamp) for lamp in hit]
    beside = connect(server, spared)
    would = server.json("device", "deactivate", *whose, "--dry-run")
    assert sorted(would["changed"]) == sorted(lamp.id for lamp in hit) and would["dryRun"] is True
    assert states() == ["ACTIVE"] * 4 and all(session.alive() for session in live)
    assert "--yes" in server.refused("device", "deactivate", *whose)
    server.cli("device", "deactivate", *whose, "--yes")
    assert [session.end().reason for session in live] == [0x98] * 3 and beside.alive()
    assert states() == ["INACTIVE"] * 3 + ["ACTIVE"]
    server.cli("device", "activate", *whose)
    live = [connect(server, lamp) for lamp in hit]
    # Revoked is for ever: what is undone is only what was INACTIVE.
    done = server.json("device", "revoke", *whose, "--yes", "--reason", "cessationOfOperation")
    assert len(done["changed"]) == 3
    assert [session.end().reason for session in live] == [0x98] * 3 and beside.alive()
    assert server.json("device", "revoke", *whose, "--yes")["changed"] == []
    assert server.json("device", "activate", *whose) == {"changed": [], "untouched": 3, "dryRun": False}
    assert states() == ["REVOKED"] * 3 + ["ACTIVE"]
    with pytest.raises(Refused):
        connect(server, hit[0])
    assert server.run("audit", "run").returncode == 0


def test_who_may_go_from_which_state_to_which(shared, device):
    client = iot(shared)
    lamp = device()
    for state in ("INACTIVE", "ACTIVE", "INACTIVE", "REVOKED"):
        client.update_certificate(certificateId=lamp.id, newStatus=state)
    for state in ("ACTIVE", "INACTIVE"):
        with pytest.raises(ClientError) as refused:
            client.update_certificate(certificateId=lamp.id, newStatus=state)
        assert code_of(refused) == "CertificateStateException"
    client.update_certificate(certificateId=lamp.id, newStatus="REVOKED")
    other = device()
    for state in ("PENDING_ACTIVATION", "PENDING_TRANSFER", "REGISTER_INACTIVE"):
        with pytest.raises(ClientError) as refused:
            client.update_certificate(certificateId=other.id, newStatus=state)
        assert code_of(refused) in ("CertificateStateException", "InvalidRequestException")
    for wrong in (["--group", "nowhere"], ["--query", "("], ["--ca", "0" * 64], ["--certificate", "f" * 64], []):
        assert shared.refused("device", "revoke", *wrong, "--yes")


def test_a_group_of_who_is_connected(server, connect):
    """Its members come and go with their connections, and its policy with them."""
    client = iot(server)
    server.policy("lamps", {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["iot:Connect", "iot:Subscribe", "iot:Receive"], "Resource": "*"}]})
    server.policy("speak", {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Publish", "Resource": "*"}]})
    lamps = [server.device(f"lamp-{n}", "--policy", "lamps") for n in range(3)]
    client.create_dynamic_thing_group(thingGroupName="online", queryString="connectivity.connected:true")
    client.create_dynamic_thing_group(thingGroupName="offline", queryString="NOT connectivity.connected:true")
    server.cli("policy", "attach", "speak", "--group", "online")
    for name, expected in (("online", []), ("offline", ["lamp-0", "lamp-1", "lamp-2"])):
        active(client, name)
        assert members(client, name) == expected
    one = connect(server, lamps[1])
    eventually(lambda: members(client, "online") == ["lamp-1"], "it has come in")
    assert members(client, "offline") == ["lamp-0", "lamp-2"]
    # It may speak because it is connected, as soon as it is known to be.
    eventually(lambda: one.publish("anywhere") == 0, "its policy has come with it")
    one.close()
    eventually(lambda: members(client, "online") == [], "it has gone")
    two = connect(server, lamps[2])
    eventually(lambda: members(client, "online") == ["lamp-2"], "another")
    server.kill9()
    two.close()
    server.start()
    eventually(lambda: members(client, "online") == [], "after a crash nobody is connected")
    eventually(lambda: members(client, "offline") == ["lamp-0", "lamp-1", "lamp-2"], "and all are away")
