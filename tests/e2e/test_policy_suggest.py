"""From what devices did: the least policy for it, and what a change would have broken."""

import json
import time

import pytest

from clients import Paho, Refused
from server import allow, document

SUCCESS = (0, 0x10)
NOT_AUTHORIZED = 0x87
DEVICES = 50


@pytest.fixture
def busy(server, connect):
    """Fifty devices under an allow-all that have done their work."""
    server.policy("wide", document(allow("*", "*")))
    server.cli("group", "create", "hall")
    identities = [server.device(f"lamp-{n:02}", "--policy", "wide", "--group", "hall") for n in range(DEVICES)]
    for identity in identities:
        work(connect(server, identity)).close()
    return identities


def work(client: Paho):
    name = client.identity.name
    assert client.subscribe(f"cmd/{name}/#") == 1
    assert client.publish(f"dt/{name}/light", b"on") in SUCCESS
    assert client.publish(f"dt/{name}/state", b"on", retain=True) in SUCCESS
    assert client.publish(f"cmd/{name}/echo", b"x") in SUCCESS
    assert client.payload() == b"x"
    return client


def test_the_suggestion_allows_what_was_done_and_keeps_devices_apart(server, busy, connect, tmp_path):
    told = server.json("policy", "suggest", "--group", "hall")
    assert told["devices"] == DEVICES and told["decisions"] == 7 * DEVICES and told["missing"] == []
    assert [(r["policy"], r["resource"]) for r in told["removes"]] == [("wide", "*")]
    assert "lamp-" not in told["policyDocument"]
    least = tmp_path / "least.json"
    least.write_text(told["policyDocument"])
    changed = server.json("policy", "simulate", str(least), "--attach-to", "hall", "--alone")
    assert (changed["principals"], changed["decisions"], changed["changed"]) == (DEVICES, 7 * DEVICES, 0)
    server.cli("policy", "update", "wide", str(least))
    for identity in busy[:5]:
        client = work(connect(server, identity))
        other = busy[-1].name
        assert client.publish(f"dt/{other}/light") == NOT_AUTHORIZED
        assert client.subscribe(f"cmd/{other}/#") == NOT_AUTHORIZED
        assert client.subscribe("cmd/+/#") == NOT_AUTHORIZED
    proven = server.json("policy", "prove", "--owned", "dt/${thing}/#", "--owned", "cmd/${thing}/#")
    assert all(r["outcome"] == "holds" and r["forAnyName"] for r in proven["results"])


def test_a_change_is_simulated_before_it_is_made(server, connect, tmp_path):
    server.policy("wide", document(allow("*", "*")))
    for n in range(3):
        work(connect(server, server.device(f"lamp-{n}", "--policy", "wide"))).close()
    narrow = tmp_path / "narrow.json"
    narrow.write_text(json.dumps(document(allow(["Connect", "Subscribe", "Receive"], "*"), allow("Publish", "topic/dt/*"))))
    told = server.json("policy", "simulate", str(narrow), "--as", "wide")
    # Of each device: the echo, and that its state is retained.
    assert (told["decisions"], told["changed"], told["nowDenied"], told["devices"]) == (21, 6, 6, 3)
    assert {(e["action"], e["topic"].split("/")[0]) for e in told["examples"]} == {
        ("iot:Publish", "cmd"), ("iot:RetainPublish", "dt")}
    text = server.cli("policy", "simulate", str(narrow), "--as", "wide")
    assert text.startswith("6 of 21 recorded decisions would change, on 3 devices: 6 denied, 0 allowed")
    # Nothing has changed, and what was recorded is there after a restart.
    assert json.loads(server.json("policy", "show", "wide")["policyDocument"]) == document(allow("*", "*"))
    server.restart()
    assert server.json("policy", "simulate", str(narrow), "--as", "wide")["changed"] == 6


def test_what_depends_on_the_unrecorded_is_told_apart(server, connect, tmp_path):
    """Neither size nor address is in the record: a condition on them makes a change possible, not certain."""
    server.policy("wide", document(allow("*", "*")))
    for n in range(3):
        work(connect(server, server.device(f"lamp-{n}", "--policy", "wide"))).close()
    rest = allow(["Connect", "Subscribe", "Receive", "RetainPublish"], "*")
    small = {**allow("Publish", "topic/dt/*"), "Condition": {"NumericLessThan": {"muster:MessageSize": "1000"}}}
    away = {**allow("Subscribe", "*"), "Effect": "Deny", "Condition": {"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}}
    narrow = tmp_path / "narrow.json"
    narrow.write_text(json.dumps(document(rest, small, away)))
    told = server.json("policy", "simulate", str(narrow), "--as", "wide")
    # Certain is only that nobody echoes any more. Open are what is sent below dt and, to a Deny, each subscription.
    assert (told["changed"], told["nowDenied"], told["devices"]) == (3, 3, 3)
    assert {e["topic"].split("/")[0] for e in told["examples"]} == {"cmd"}
    undecided = told["undecided"]
    assert (undecided["decisions"], undecided["devices"]) == (9, 3)
    assert undecided["on"] == {"muster:MessageSize": 6, "aws:SourceIp": 3}
    assert {(e["action"], *e["on"], e["wasAllowed"]) for e in undecided["examples"]} == {
        ("iot:Publish", "muster:MessageSize", True), ("iot:Subscribe", "aws:SourceIp", True)}
    text = server.cli("policy", "simulate", str(narrow), "--as", "wide")
    assert "9 more, on 3 devices, would change or not by what is not recorded: aws:SourceIp (3), muster:MessageSize (6)" in text
    # What has the same condition before and after does not change by it.
    server.cli("policy", "update", "wide", str(narrow))
    told = server.json("policy", "simulate", str(narrow), "--as", "wide")
    assert (told["changed"], told["undecided"]["decisions"]) == (0, 0)


def test_a_decision_on_the_message_is_recorded_as_it_came_out(server, connect, tmp_path):
    """Where a policy asks how large a message is, what is recorded is what was decided of the message itself."""
    small = {**allow(["Publish", "Receive"], "*"), "Condition": {"NumericLessThan": {"muster:MessageSize": "10"}}}
    server.policy("small", document(allow(["Connect", "Subscribe"], "*"), small))
    client = connect(server, server.device("lamp", "--policy", "small"))
    assert client.subscribe("cmd/#") == 1
    assert client.publish("cmd/a", b"small") in SUCCESS and client.payload() == b"small"
    assert client.publish("cmd/b", b"x" * 10) == NOT_AUTHORIZED
    told = server.json("policy", "suggest", "--device", "lamp")
    statements = json.loads(told["policyDocument"])["Statement"]
    allowed = {(action, resource.rpartition(":")[2]) for s in statements
               for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
               for resource in ([s["Resource"]] if isinstance(s["Resource"], str) else s["Resource"])}
    assert ("iot:Publish", "topic/cmd/a") in allowed and ("iot:Receive", "topic/cmd/a") in allowed
    assert not any("cmd/b" in resource for _, resource in allowed)


def test_the_client_id_of_the_record_counts(server, connect, tmp_path):
    """A session's client id stands in `${iot:ClientId}`: that of the record, which need not be the thing's name."""
    server.policy("wide", document(allow("*", "*")))
    identity = server.device("lamp", "--policy", "wide")
    client = connect(server, identity, client_id="other")
    assert client.publish("dt/other/x") in SUCCESS
    client.close()
    own = tmp_path / "own.json"
    own.write_text(json.dumps(document(allow("Connect", "client/${iot:ClientId}"), allow("Publish", "topic/dt/${iot:ClientId}/*"))))
    told = server.json("policy", "simulate", str(own), "--as", "wide")
    assert (told["decisions"], told["changed"], told["undecided"]["decisions"]) == (2, 0, 0)
    # Of two client ids nobody knows under which it was.
    connect(server, identity, client_id="lamp").close()
    told = server.json("policy", "simulate", str(own), "--as", "wide")
    assert (told["decisions"], told["changed"], told["undecided"]["on"]) == (3, 0, {"iot:ClientId": 1})


def test_of_more_topics_than_are_kept_each_device_keeps_its_own(server, connect, tmp_path):
    """Past the topics that are kept of a device they are summed up, and still nobody reaches what is another's."""
    server.policy("wide", document(allow("*", "*")))
    server.cli("group", "create", "hall")
    identities = [server.device(f"meter-{n}", "--policy", "wide", "--group", "hall") for n in range(2)]
    for identity in identities:
        client, name = connect(server, identity), identity.name
        for n in range(400):
            assert client.publish(f"v1/devices/{name}/m/{n}") in SUCCESS
            assert client.publish(f"all/of/them/{n}") in SUCCESS
        for n in range(300):
            assert client.subscribe(f"in/{name}/{n}") == 1
        client.close()
    told = server.json("policy", "suggest", "--group", "hall")
    # What is nobody's in particular and too much is told, and granted to nobody.
    assert {one["topic"] for one in told["missing"]} <= {"all/of/#"} and "all/of/*" not in told["policyDocument"]
    least = tmp_path / "least.json"
    least.write_text(told["policyDocument"])
    server.cli("policy", "update", "wide", str(least))
    client, other = connect(server, identities[0]), identities[1].name
    assert client.subscribe(f"in/{client.identity.name}/299") == 1
    assert client.publish(f"v1/devices/{client.identity.name}/m/399") in SUCCESS
    assert client.publish(f"v1/devices/{other}/m/1") == NOT_AUTHORIZED
    assert client.subscribe(f"in/{other}/1") == NOT_AUTHORIZED


def test_what_is_done_again_and_again_is_counted(server, connect, tmp_path):
    server.policy("wide", document(allow("*", "*")))
    client = connect(server, server.device("lamp", "--policy", "wide"))
    assert client.subscribe("c/#") == 1
    for _ in range(50):
        assert client.publish("c/x", b"on") in SUCCESS
        assert client.payload() == b"on"
    client.close()
    nothing = tmp_path / "nothing.json"
    nothing.write_text(json.dumps(document(allow("Connect", "*"))))
    deadline = time.monotonic() + 60
    while True:
        # The connection tells it at its end, of which nothing else tells us.
        told = server.json("policy", "simulate", str(nothing), "--as", "wide")
        counts = {one["action"]: one["count"] for one in told["examples"]}
        if counts == {"iot:Publish": 50, "iot:Receive": 50, "iot:Subscribe": 1}:
            break
        assert time.monotonic() < deadline, counts
    assert "does not exist" in server.refused("policy", "simulate", str(nothing), "--as", "no-such-policy")


def test_groups_below_are_of_the_group(server, connect, tmp_path):
    """A policy on a group counts for all groups below it, so what they did counts too."""
    server.policy("wide", document(allow("*", "*")))
    server.cli("group", "create", "plant")
    server.cli("group", "create", "hall", "--parent", "plant")
    server.cli("group", "create", "row", "--parent", "hall")
    for n, group in enumerate(["plant", "hall", "row"]):
        work(connect(server, server.device(f"lamp-{n}", "--policy", "wide", "--group", group))).close()
    work(connect(server, server.device("apart", "--policy", "wide"))).close()
    told = server.json("policy", "suggest", "--group", "plant")
    assert (told["devices"], told["decisions"], told["missing"]) == (3, 21, [])
    assert server.json("policy", "suggest", "--group", "row")["devices"] == 1
    nothing = tmp_path / "nothing.json"
    nothing.write_text(json.dumps(document(allow("Connect", "*"))))
    told = server.json("policy", "simulate", str(nothing), "--attach-to", "plant", "--alone")
    assert (told["principals"], told["devices"], told["decisions"]) == (3, 3, 21)
    assert {example["thing"] for example in told["examples"]} == {"lamp-0", "lamp-1", "lamp-2"}


def test_recording_can_be_switched_off(make_server, connect, tmp_path):
    config = tmp_path / "muster.toml"
    config.write_text("[policy]\nrecord_decisions = false\n")
    server = make_server("--config", str(config))
    server.policy("wide", document(allow("*", "*")))
    work(connect(server, server.device("lamp", "--policy", "wide")))
    assert "nothing was recorded" in server.refused("policy", "suggest")


def test_a_server_that_does_not_record_says_so(make_server, tmp_path):
    config = tmp_path / "muster.toml"
    config.write_text("[policy]\nrecord_decisions = false\n")
    server = make_server("--config", str(config))
    file = tmp_path / "p.json"
    file.write_text(json.dumps(document(allow("Connect", "*"))))
    server.cli("policy", "create", "p", str(file))
    server.device("lamp", "--policy", "p")
    assert "recording is off" in server.refused("policy", "suggest", "--device", "lamp")
    assert "record_decisions = false" in server.cli("policy", "simulate", str(file), "--as", "p")


def test_a_will_is_in_the_record(server, connect, tmp_path):
    """A last will is judged at CONNECT: what forgets it shuts its device out for good."""
    server.policy("wide", document(allow("*", "*")))
    identities = [server.device(f"lamp-{n}", "--policy", "wide") for n in range(2)]
    def will(identity):
        return f"status/{identity.name}", {"payload": b"off", "retain": True}
    for identity in identities:
        connect(server, identity, will=will(identity)).close()
    told = server.json("policy", "suggest")
    assert (told["decisions"], told["missing"]) == (6, [])
    # A change that takes away the will's topic alone.
    narrow = tmp_path / "narrow.json"
    away = {**allow(["Publish", "RetainPublish"], "topic/status/*"), "Effect": "Deny"}
    narrow.write_text(json.dumps(document(allow("*", "*"), away)))
    changed = server.json("policy", "simulate", str(narrow), "--as", "wide")
    assert (changed["changed"], changed["devices"]) == (4, 2)
    least = tmp_path / "least.json"
    least.write_text(told["policyDocument"])
    server.cli("policy", "update", "wide", str(least))
    for identity in identities:
        connect(server, identity, will=will(identity)).close()
    # One that is refused is in it too, as refused.
    with pytest.raises(Refused):
        connect(server, identities[0], will=("other/x", {"payload": b"off"}))
    wider = tmp_path / "wider.json"
    wider.write_text(json.dumps(document(allow("*", "*"))))
    changed = server.json("policy", "simulate", str(wider), "--as", "wide")
    assert [(e["action"], e["topic"]) for e in changed["examples"]] == [("iot:Publish", "other/x")]
