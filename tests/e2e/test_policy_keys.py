"""Muster's own condition keys on live connections."""

import datetime
import ssl

import pytest

from clients import Refused, tls_context
from server import allow, document

NOT_AUTHORIZED = 0x87
SUCCESS = (0, 0x10)


def when(action, resource, condition, effect="Allow"):
    return {**allow(action, resource), "Effect": effect, "Condition": condition}


@pytest.fixture
def named(shared, fresh_name):
    """Networks of the test's own, forgotten afterwards."""
    names = []

    def make(*ranges, name=None):
        name = name or fresh_name("net")
        shared.cli("network", "set", name, *ranges)
        names.append(name)
        return name

    yield make
    for name in set(names):
        shared.run("network", "delete", name, "--yes")


def test_a_network_is_named_and_changes_under_a_live_session(shared, fresh_name, connect, named):
    plant, policy = named("127.0.0.0/8"), fresh_name("plant")
    shared.policy(policy, document(when("*", "*", {"ForAnyValue:StringEquals": {"muster:SourceNetwork": plant}})))
    identity = shared.device(fresh_name(), "--policy", policy)
    client = connect(shared, identity)
    assert client.publish("t") in SUCCESS
    assert plant in [n["name"] for n in shared.json("network", "list")["networks"]]
    named("10.0.0.0/8", name=plant)
    assert client.ended.get(timeout=30).reason == NOT_AUTHORIZED
    with pytest.raises(Refused):
        connect(shared, identity)
    assert "10.0.0.0/40" in shared.refused("network", "set", plant, "10.0.0.0/40")


def test_quarantine_takes_and_gives_back_at_once(shared, fresh_name, connect):
    policy = fresh_name("healthy")
    shared.policy(policy, document(
        allow("Connect", "*"),
        when(["Publish", "Receive", "Subscribe"], "*", {"Bool": {"muster:Quarantined": "false"}})))
    identity = shared.device(fresh_name(), "--policy", policy)
    client = connect(shared, identity)
    assert client.publish("t") in SUCCESS
    shared.cli("device", "quarantine", identity.name, "--reason", "odd traffic")
    assert client.publish("t") == NOT_AUTHORIZED
    shared.cli("device", "quarantine", identity.name, "--lift")
    assert client.publish("t") in SUCCESS


def test_size_qos_and_retain_are_judged_message_by_message(shared, fresh_name, connect):
    policy = fresh_name("small")
    shared.policy(policy, document(
        allow("Connect", "*"),
        when(["Publish", "RetainPublish", "Receive"], "*", {"NumericLessThanEquals": {"muster:MessageSize": "10"}}),
        when("Publish", "*", {"Bool": {"muster:Retain": "true"}}, effect="Deny"),
        when("Subscribe", "*", {"NumericLessThan": {"muster:QoS": "1"}})))
    client = connect(shared, shared.device(fresh_name(), "--policy", policy))
    topic = fresh_name("t")
    assert [client.publish(topic, b"x" * size) in SUCCESS for size in (10, 11, 10)] == [True, False, True]
    assert client.publish(topic, b"x", retain=True) == NOT_AUTHORIZED
    assert client.subscribe(topic, qos=1) == NOT_AUTHORIZED
    assert client.subscribe(topic, qos=0) == 0
    # What others send is judged by the same rule when it is delivered.
    loud = connect(shared, shared.device(fresh_name(), "--policy", "everything"))
    assert loud.publish(topic, b"x" * 11) in SUCCESS
    assert loud.publish(topic, b"short") in SUCCESS
    assert client.payload() == b"short"


def test_the_clock_of_a_zone_ends_a_live_session(shared, fresh_name, connect):
    zone = "muster:TimeOfDay[Asia/Kolkata]"
    clock = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    until = datetime.datetime.now(clock).replace(microsecond=0) + datetime.timedelta(seconds=5)
    condition = {"DateLessThan": {zone: until.strftime("%H:%M:%S")}}
    if until.time() < datetime.time(0, 1):
        condition = {"DateGreaterThan": {zone: "12:00"}}  # the day ends in this minute
    policy = fresh_name("hours")
    shared.policy(policy, document(when("*", "*", condition)))
    client = connect(shared, shared.device(fresh_name(), "--policy", policy))
    assert client.publish("t") in SUCCESS
    assert client.ended.get(timeout=120).reason == NOT_AUTHORIZED
    assert datetime.datetime.now(clock) >= until or until.time() < datetime.time(0, 1)


@pytest.mark.parametrize("condition,met", [
    ({"StringEquals": {"muster:Listener": "mqtt"}}, True),
    ({"StringEquals": {"muster:Listener": "wss"}}, False),
    ({"StringEquals": {"muster:TlsVersion": "1.3"}}, True),
    ({"NumericLessThan": {"muster:TlsVersion": "1.3"}}, False),
    ({"StringEquals": {"muster:CertificateKeyKind": "P-256"}}, True),
    ({"NumericLessThan": {"muster:CertificateAge": "86400"}}, True),
    ({"NumericLessThan": {"muster:CertificateRemainingLife": "60"}}, False),
    ({"StringEquals": {"muster:Weekday": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]}}, True),
    ({"BoolIfExists": {"muster:Attested": "true"}}, False),
    ({"Null": {"muster:Attested": "true"}}, True),
])
def test_a_condition_is_judged_by_the_live_connection(shared, fresh_name, connect, condition, met):
    policy = fresh_name("own")
    shared.policy(policy, document(when("Connect", "*", condition)))
    identity = shared.device(fresh_name(), "--policy", policy)
    if met:
        connect(shared, identity)
    else:
        with pytest.raises(Refused) as refused:
            connect(shared, identity)
        assert refused.value.reason == NOT_AUTHORIZED


def test_an_older_tls_is_told_apart(shared, fresh_name, connect):
    policy = fresh_name("modern")
    shared.policy(policy, document(when("Connect", "*", {"StringEquals": {"muster:TlsVersion": "1.2"}})))
    identity = shared.device(fresh_name(), "--policy", policy)
    connect(shared, identity, context=tls_context(identity, version=ssl.TLSVersion.TLSv1_2)).close()
    with pytest.raises(Refused):
        connect(shared, identity)
