"""From what devices did: the least policy for it, and what a change would have broken."""

import json

import pytest

from clients import Paho
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
