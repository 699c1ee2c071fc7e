"""Muster's own condition keys on live connections."""

import datetime
import hashlib
import json
import ssl
import time

import pytest

import wire
from clients import Refused, tls_context
from devices import eventually
from server import allow, document
from test_est import REENROL, Est

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
    ({"Bool": {"muster:Attested": "false"}}, True),
    ({"Null": {"muster:LastViolationAge": "true"}}, True),
    ({"NumericGreaterThanIfExists": {"muster:LastViolationAge": "0"}}, False),
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


@pytest.fixture
def trusted(shared, fresh_name):
    """A device that may do everything while it is attested, and connect always."""
    policy = fresh_name("trusted")
    shared.policy(policy, document(
        allow("Connect", "*"),
        when(["Publish", "Receive", "Subscribe"], "*", {"Bool": {"muster:Attested": "true"}})))
    return shared.device(fresh_name(), "--policy", policy)


def certificate_id(identity):
    """SHA-256 of the certificate that stands first in its file."""
    first = identity.certificate.read_text().partition("-----END CERTIFICATE-----")
    first = first[0][first[0].index("-----BEGIN"):] + first[1]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


def posture(server, name):
    return server.json("device", "show", name)["posture"]


def test_an_attestation_opens_until_its_end(shared, trusted, connect):
    name = trusted.name
    client = connect(shared, trusted)
    assert client.publish("t") == NOT_AUTHORIZED
    assert posture(shared, name) == {"quarantined": False, "attested": False}
    given = shared.json("device", "attest", name, "--for", "1h", "--by", "TPM quote, verifier.plant")
    assert given["certificateId"] == trusted.id
    assert client.publish("t") in SUCCESS and client.subscribe("t", qos=0) == 0
    shown = posture(shared, name)
    assert shown["attested"] and shown["attestation"]["certificateIds"] == [trusted.id]
    assert 3500 < shown["attestation"]["until"] - shown["attestation"]["since"] <= 3600
    assert "TPM quote" in shared.cli("device", "show", name)
    # Nobody says anything more: the clock alone takes it away, subscription and all.
    shared.cli("device", "attest", name, "--for", "3s")
    eventually(lambda: client.publish("t") == NOT_AUTHORIZED, lambda: posture(shared, name), 30)
    eventually(lambda: not posture(shared, name)["attested"], lambda: posture(shared, name), 10)
    shared.said("subscription removed", name)
    assert "not attested any more" in shared.cli("device", "show", name)
    why = shared.cli("policy", "explain", "--device", name, "--action", "publish", "--topic", "t")
    assert 'muster:Attested is not met, the key being "false"' in why, why


def test_an_attestation_is_taken_back_and_ends_with_a_quarantine(shared, trusted, connect):
    name = trusted.name
    client = connect(shared, trusted)
    for take in (("device", "attest", name, "--withdraw"), ("device", "quarantine", name, "--reason", "odd traffic")):
        shared.cli("device", "attest", name)
        assert client.publish("t") in SUCCESS
        shared.cli(*take)
        assert client.publish("t") == NOT_AUTHORIZED
    shared.cli("device", "quarantine", name, "--lift")
    assert client.publish("t") == NOT_AUTHORIZED


def test_an_attestation_is_for_one_certificate(shared, trusted, connect):
    shared.cli("device", "attest", trusted.name, "--certificate", trusted.id)
    assert connect(shared, trusted).publish("t") in SUCCESS
    out = shared.home / f"{trusted.name}-replaced"
    shared.cli("device", "replace", trusted.name, "--yes", "--out", str(out))
    replaced = type(trusted)(out / f"{trusted.name}.crt", out / f"{trusted.name}.key", out / "root.crt", trusted.name)
    assert connect(shared, replaced).publish("t") == NOT_AUTHORIZED
    assert not posture(shared, trusted.name)["attested"]
    assert "is REVOKED" in shared.refused("device", "attest", trusted.name, "--certificate", trusted.id)


def test_an_attestation_goes_with_the_key_over_a_renewal(shared, trusted, connect, tmp_path):
    est = Est(shared, tmp_path)
    shared.cli("device", "attest", trusted.name)

    def renewed(identity, key):
        status, _, body = est.call(REENROL, est.request(f"/CN={identity.name}", key), identity=identity)
        assert status == 200, body
        return est.identity(identity.name, body, key)

    # Over the same key it is the same device, while both certificates are good and afterwards.
    again = renewed(trusted, trusted.key)
    for identity in (again, trusted):
        client = connect(shared, identity)
        assert client.publish("t") in SUCCESS
        client.close()
    shown = posture(shared, trusted.name)
    assert shown["attested"] and set(shown["attestation"]["certificateIds"]) == {trusted.id, certificate_id(again)}
    # Over a new key nobody has verified anything yet; the one before it keeps what it had.
    other = renewed(again, est.key())
    assert connect(shared, again).publish("t") in SUCCESS
    client = connect(shared, other)
    assert client.publish("t") == NOT_AUTHORIZED
    assert certificate_id(other) not in posture(shared, trusted.name)["attestation"]["certificateIds"]
    shared.cli("device", "attest", trusted.name, "--certificate", certificate_id(other))
    assert client.publish("t") in SUCCESS


def test_a_simulation_takes_a_device_for_as_attested_as_it_is(shared, fresh_name, connect, tmp_path):
    wide, name, new = fresh_name("wide"), fresh_name(), tmp_path / "attested.json"
    shared.policy(wide, document(allow("*", "*")))
    client = connect(shared, shared.device(name, "--policy", wide))
    assert client.publish("t") in SUCCESS
    new.write_text(json.dumps(document(
        allow("Connect", "*"), when("Publish", "*", {"Bool": {"muster:Attested": "true"}}))))

    def told():
        return shared.json("policy", "simulate", str(new), "--device", name, "--alone")

    lost = told()
    assert (lost["decisions"], lost["changed"], lost["nowDenied"], lost["undecided"]["decisions"]) == (2, 1, 1, 0), lost
    assert lost["examples"][0]["action"] == "iot:Publish" and "muster:Attested" in lost["examples"][0]["text"]
    shared.cli("device", "attest", name)
    assert told()["changed"] == 0
    shared.cli("device", "attest", name, "--withdraw")
    assert told()["changed"] == 1


def test_a_slip_in_an_attestation_or_a_violation_is_named(shared, trusted):
    name = trusted.name
    for slip, words in [
        (("attest", name, "--for", "721h"), "policy.attestation_max_seconds"),
        (("attest", name, "--until", "2020-01-01T00:00:00Z"), "past"),
        (("attest", name, "--until", "soon"), "no moment"),
        (("attest", name, "--by", " "), "by: say it in words"),
        (("attest", name, "--certificate", "0" * 64), "does not exist"),
        (("attest", "nobody"), "thing nobody does not exist"),
        (("violation", name, "--reason", ""), "reason: say it in words"),
        (("violation", name, "--reason", "x" * 257), "at most 256 characters"),
        (("violation", name, "--reason", "x", "--at", "2999-01-01T00:00:00Z"), "still to come"),
        (("violation", "nobody", "--reason", "x"), "thing nobody does not exist"),
    ]:
        assert words in shared.refused("device", *slip), slip
    assert posture(shared, name) == {"quarantined": False, "attested": False}


@pytest.fixture
def sound(shared, fresh_name):
    """A device that may do everything until it has violated."""
    policy = fresh_name("sound")
    shared.policy(policy, document(
        allow("*", "*"),
        when("*", "*", {"NumericLessThan": {"muster:LastViolationAge": "3600"}}, effect="Deny")))
    return shared.device(fresh_name(), "--policy", policy)


def test_a_violation_that_a_monitor_saw_ends_a_live_session(shared, sound, connect):
    client = connect(shared, sound)
    assert client.publish("t") in SUCCESS
    ago = lambda **what: (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**what)).strftime("%Y-%m-%dT%H:%M:%SZ")
    shared.cli("device", "violation", sound.name, "--reason", "scanned, long ago", "--at", ago(hours=2))
    assert client.publish("t") in SUCCESS
    shared.cli("device", "violation", sound.name, "--reason", "scans the network")
    assert client.ended.get(timeout=30).reason == NOT_AUTHORIZED
    with pytest.raises(Refused):
        connect(shared, sound)
    # An earlier one that is told late changes nothing.
    late = shared.json("device", "violation", sound.name, "--reason", "earlier", "--at", ago(hours=1))
    assert late["reason"] == "scans the network"
    last = posture(shared, sound.name)["lastViolation"]
    assert (last["reason"], last["seenBy"]) == ("scans the network", "operator")
    assert "last violation" in shared.cli("device", "show", sound.name)


@pytest.mark.parametrize("misdeed,words", [
    (lambda line: line.send(b"\x30\x03\x00\x01\xff"), "broke the protocol"),
    (lambda line: line.send(wire.connect("again")), "broke the protocol"),
    (lambda line: line.send(wire.publish("$SYS/broker/load", b"1", qos=1)), "topic of the server"),
], ids=["malformed", "second-connect", "reserved"])
def test_the_broker_notes_what_no_sound_device_does(shared, sound, misdeed, words):
    with wire.Wire(shared, sound) as line:
        assert line.open(sound.name) == 0
        misdeed(line)
        line.reason_of_end()
    seen = lambda: posture(shared, sound.name).get("lastViolation")
    eventually(lambda: seen() is not None, lambda: posture(shared, sound.name), 30)
    assert words in seen()["reason"] and seen()["seenBy"] == "broker"
    assert time.time() - seen()["at"] < 60
    with wire.Wire(shared, sound) as line:
        assert line.open(sound.name) == NOT_AUTHORIZED
    shared.said("violation: it", f"thing={sound.name}")


def test_a_denial_or_a_lost_line_is_no_violation(shared, fresh_name):
    policy = fresh_name("narrow")
    shared.policy(policy, document(allow("Connect", "*")))
    identity = shared.device(fresh_name(), "--policy", policy)
    with wire.Wire(shared, identity) as line:
        assert line.open(identity.name) == 0
        line.send(wire.publish("t", b"x", qos=1) + wire.publish("$aws/things/other/jobs/get", b"{}", qos=1, packet_id=2))
        assert [line.packet()[0] for _ in range(2)] == [wire.PUBACK] * 2
        # Had either been noted, this would not be: one is kept a minute.
        line.send(wire.connect("again"))
        line.reason_of_end()
    seen = lambda: posture(shared, identity.name).get("lastViolation")
    eventually(lambda: seen() is not None, lambda: posture(shared, identity.name), 30)
    assert "broke the protocol" in seen()["reason"]
