"""What an operator sets of policies in the configuration file."""

import json

import pytest

from api import iot
from clients import proves_silence
from server import allow, document

NOT_AUTHORIZED = 0x87
SUCCESS = (0, 0x10)


def test_a_lost_subscription_ends_the_session_where_that_is_configured(make_server, connect, tmp_path):
    config = tmp_path / "muster.toml"
    config.write_text('[policy]\nlost_subscription = "disconnect"\n')
    server = make_server("--config", str(config))
    wide = allow(["Connect", "Publish", "Receive"], "*")
    server.policy("both", document(wide, allow("Subscribe", "topicfilter/a/*", "topicfilter/b/*")))
    watcher = connect(server, server.device("watcher", "--policy", "both"))
    client = connect(server, server.device("lamp", "--policy", "both"), clean=False, expiry=600)
    assert client.subscribe("a/x") == 1 and watcher.subscribe("b/y") == 1
    server.update_policy("both", document(wide, allow("Subscribe", "topicfilter/b/*")))
    end = client.ended.get(timeout=30)
    assert end.reason == NOT_AUTHORIZED and "iot:Subscribe" in end.text and "a/x" in end.text
    # It is gone from the session, which goes on without it; whose subscriptions are granted notices nothing.
    again = connect(server, client.identity, clean=False, expiry=600)
    assert again.session_present and again.subscribe("a/x") == NOT_AUTHORIZED
    assert again.publish("a/x", "lost") in SUCCESS and again.publish("b/y", "heard") in SUCCESS
    assert watcher.payload() == b"heard"
    assert again.subscribe("b/z") == 1
    proves_silence(watcher, "b/z", again)
    assert watcher.ended.empty()


def test_who_was_away_when_a_subscription_was_lost_is_told_as_who_was_not(make_server, connect, tmp_path):
    config = tmp_path / "muster.toml"
    config.write_text('[policy]\nlost_subscription = "disconnect"\n')
    server = make_server("--config", str(config))
    wide = allow(["Connect", "Publish", "Receive"], "*")
    server.policy("both", document(wide, allow("Subscribe", "topicfilter/*")))
    server.policy("watching", document(wide, allow("Subscribe", "topicfilter/*")))
    watcher = connect(server, server.device("watcher", "--policy", "watching"))
    client = connect(server, server.device("lamp", "--policy", "both"), clean=False, expiry=600)
    assert client.subscribe("a/x") == 1 and client.subscribe("b/y") == 1
    client.disconnect()
    assert watcher.subscribe("$aws/events/subscriptions/unsubscribed/lamp") == 1
    server.update_policy("both", document(wide, allow("Subscribe", "topicfilter/b/*")))
    back = connect(server, client.identity, clean=False, expiry=600)
    assert back.session_present
    end = back.ended.get(timeout=30)
    assert end.reason == NOT_AUTHORIZED and "iot:Subscribe" in end.text and "a/x" in end.text
    assert json.loads(watcher.payload())["topics"] == ["a/x"]
    # Told once: the session goes on without it.
    again = connect(server, client.identity, clean=False, expiry=600)
    assert again.session_present and again.publish("b/y", "heard") in SUCCESS
    assert again.payload() == b"heard"
    proves_silence(watcher, "b/y", again)
    assert again.ended.empty()


def test_the_bounds_on_policies_are_the_operators(make_server, tmp_path):
    config = tmp_path / "muster.toml"
    config.write_text("[policy]\ndocument_bytes = 2048\nversions = 2\nattached = 1\n")
    server = make_server("--config", str(config))
    small, client = document(allow("Publish", "topic/a")), iot(server)
    server.policy("p", small)
    server.policy("q", small)
    client.create_policy_version(policyName="p", policyDocument=json.dumps(small))
    with pytest.raises(client.exceptions.VersionsLimitExceededException):
        client.create_policy_version(policyName="p", policyDocument=json.dumps(small))
    server.device("lamp", "--policy", "p")
    assert "1" in server.refused("policy", "attach", "q", "--device", "lamp")
    large = tmp_path / "large.json"
    large.write_text(json.dumps(document(allow("Publish", *(f"topic/{n}" for n in range(100))))))
    assert "2048" in server.refused("policy", "create", "large", str(large))
    # What was taken under wider bounds goes on, and under wider ones more is taken.
    config.write_text("[policy]\ndocument_bytes = 300_000\nversions = 2\nattached = 2\n")
    server.restart()
    server.cli("policy", "attach", "q", "--device", "lamp")
    large.write_text(json.dumps(document(allow("Publish", *(f"topic/{n}" for n in range(3_000))))))
    server.cli("policy", "create", "large", str(large))
    config.write_text("[policy]\ndocument_bytes = 2048\nversions = 2\nattached = 2\n")
    server.restart()
    server.cli("device", "create", "horn", "--policy", "large", cwd=tmp_path)
    explain = ("policy", "explain", "--device", "horn", "--action", "publish", "--topic", "2999")
    assert server.json(*explain)["decision"] == "Allow"


def test_a_policy_of_another_account_is_told_of_though_aws_tools_hear_nothing(make_server):
    server = make_server()
    foreign = document(allow("Publish", "*"))
    foreign["Statement"][0]["Resource"] = ["arn:aws:iot:us-east-1:123456789012:*"]
    assert "nothing found" in server.cli("policy", "lint", "--registered")
    iot(server).create_policy(policyName="ported", policyDocument=json.dumps(foreign))
    assert "ported" in server.said("matches nothing", "123456789012")
    found = server.run("policy", "lint", "--registered")
    assert found.returncode == 1 and "policy ported: line 1" in found.stdout and "000000000000" in found.stdout, found.stdout
    audit = server.run("audit", "run", "--check", "policy-matches-nothing")
    assert audit.returncode == 3 and "policy ported version 1 statement 1" in audit.stdout, audit.stdout
