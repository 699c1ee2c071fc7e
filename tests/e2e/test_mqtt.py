"""MQTT 3.1.1 and 5.0 as clients see them."""

import socket
import ssl
import struct
import time

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import wire
from clients import MosquittoSub, mosquitto_pub, proves_silence, tls_context
from server import EVERYTHING
from wire import Wire

VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5.0"])
DOORS = pytest.mark.parametrize("websocket", [False, True], ids=["tls", "websocket"])


@pytest.fixture
def pair(device, connect, shared):
    """Two devices that may do everything, connected: `pair(version=4)`."""
    return lambda **how: tuple(connect(shared, device("--policy", "everything"), **how) for _ in range(2))


def topic_of(client, leaf="x"):
    return f"t/{client.identity.name}/{leaf}"


# -- messages

# [MQTT-3.3.4-1, 4.2.0-1] [MQTT311-3.3.4-1, 7.0.0-2, 7.1.1-1]
@VERSIONS
@DOORS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_go_both_ways(pair, version, websocket, qos):
    one, other = pair(version=version, websocket=websocket)
    for sender, receiver in ((one, other), (other, one)):
        topic = topic_of(sender)
        assert receiver.subscribe(topic, qos=qos) == qos
        assert sender.publish(topic, b"payload \x00\xff", qos=qos) == 0
        message = receiver.message()
        assert (message.topic, message.payload, message.qos, message.retain) == (topic, b"payload \x00\xff", qos, False)


# [MQTT-3.8.4-8] [MQTT311-3.8.4-6]
@VERSIONS
@pytest.mark.parametrize("sent, subscribed, heard", [(1, 0, 0), (0, 1, 0), (1, 1, 1), (1, 2, 1), (2, 1, 1), (2, 2, 2)])
def test_a_delivery_has_the_lower_qos(pair, version, sent, subscribed, heard):
    sender, receiver = pair(version=version)
    assert receiver.subscribe(topic_of(sender), qos=subscribed) == subscribed
    sender.publish(topic_of(sender), b"x", qos=sent)
    assert receiver.message().qos == heard


def test_the_versions_speak_with_each_other(shared, device, connect):
    old = connect(shared, device("--policy", "everything"), version=4)
    new = connect(shared, device("--policy", "everything"), version=5)
    for sender, receiver in ((old, new), (new, old)):
        receiver.subscribe(topic_of(sender))
        assert sender.publish(topic_of(sender), b"hello") == 0
        assert receiver.payload() == b"hello"


@pytest.mark.parametrize("pattern, topic", [
    ("a/+/c", "a/b/c"), ("a/#", "a/b/c/d"), ("a/#", "a"), ("+/+", "/x"), ("a//b", "a//b"), ("#", "x"), ("+", "ü")])
def test_filters_match_as_the_standard_says(pair, pattern, topic):
    sender, receiver = pair()
    prefix = f"m/{sender.identity.name}/"
    receiver.subscribe(prefix + pattern)
    sender.publish(prefix + topic, b"hit")
    assert receiver.message().topic == prefix + topic


@pytest.mark.parametrize("pattern, topic", [("a/+", "a"), ("a/+", "a/b/c"), ("a/b", "a/B"), ("a/b", "a/b/"), ("+", "a/b")])
def test_filters_do_not_match_more(pair, pattern, topic):
    sender, receiver = pair()
    prefix = f"m/{sender.identity.name}/"
    receiver.subscribe(prefix + pattern)
    receiver.subscribe(topic_of(sender))
    sender.publish(prefix + topic, b"miss")
    proves_silence(sender, topic_of(sender), receiver)


@VERSIONS
def test_a_message_that_matches_twice_comes_for_a_reason_and_unsubscribing_ends_it(pair, version):
    sender, receiver = pair(version=version)
    receiver.subscribe(topic_of(sender, "x"))
    receiver.subscribe(topic_of(sender, "marker"))
    sender.publish(topic_of(sender), b"1")
    assert receiver.payload() == b"1"
    receiver.unsubscribe(topic_of(sender, "x"))
    sender.publish(topic_of(sender), b"2")
    proves_silence(sender, topic_of(sender, "marker"), receiver)


# [MQTT-4.6.0-5, -6]
def test_messages_keep_their_order(pair):
    sender, receiver = pair()
    receiver.subscribe(topic_of(sender))
    for number in range(500):
        sender.client.publish(topic_of(sender), str(number), qos=1)
    assert [int(receiver.payload()) for _ in range(500)] == list(range(500))


def test_a_payload_of_the_largest_size_arrives_whole(pair):
    sender, receiver = pair()
    receiver.subscribe(topic_of(sender))
    payload = bytes(range(256)) * 4000
    assert sender.publish(topic_of(sender), payload) == 0
    assert receiver.payload() == payload


# [MQTT-3.3.2-4, -15, -16, -17, -18, -20]
def test_properties_travel_with_the_message(pair):
    sender, receiver = pair()
    receiver.subscribe(topic_of(sender))
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "text/plain"
    properties.ResponseTopic = "answer/here"
    properties.CorrelationData = b"\x01\x02"
    properties.PayloadFormatIndicator = 1
    properties.UserProperty = [("a", "1"), ("a", "2")]
    sender.publish(topic_of(sender), b"x", properties=properties)
    got = receiver.message().properties
    assert (got.ContentType, got.ResponseTopic, got.CorrelationData, got.PayloadFormatIndicator) == ("text/plain", "answer/here", b"\x01\x02", 1)
    assert got.UserProperty == [("a", "1"), ("a", "2")]


# [MQTT-3.3.1-13, 3.8.3-3]
def test_no_local_and_retain_as_published_are_kept(pair):
    sender, receiver = pair()
    sender.subscribe(topic_of(sender), options={"noLocal": True})
    sender.subscribe(topic_of(sender, "marker"))
    receiver.subscribe(topic_of(sender), options={"retainAsPublished": True})
    sender.publish(topic_of(sender), b"x", retain=True)
    assert receiver.message().retain
    proves_silence(sender, topic_of(sender, "marker"), sender)
    sender.publish(topic_of(sender), b"", retain=True)


# -- retained messages

# [MQTT-3.3.1-5, -12] [MQTT311-3.3.1-5, -6, -7, -8, -9]
@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_last_retained_message_greets_a_new_subscription(pair, version, qos):
    sender, receiver = pair(version=version)
    topic = topic_of(sender)
    for payload in (b"old", b"new"):
        sender.publish(topic, payload, qos=qos, retain=True)
    # Of QoS 0 nothing says that it has arrived; what is acknowledged behind it does.
    sender.publish(topic_of(sender, "flush"), b"")
    receiver.subscribe(topic)
    message = receiver.message()
    assert (message.payload, message.retain) == (b"new", True)
    sender.publish(topic, b"live", retain=True)
    message = receiver.message()
    assert (message.payload, message.retain) == (b"live", False)


# [MQTT-3.3.1-6, -7] [MQTT311-3.3.1-10, -11]
@VERSIONS
def test_an_empty_retained_message_clears_it(pair, version):
    sender, receiver = pair(version=version)
    sender.publish(topic_of(sender), b"kept", retain=True)
    sender.publish(topic_of(sender), b"", retain=True)
    receiver.subscribe(topic_of(sender))
    proves_silence(sender, topic_of(sender), receiver)


def test_retain_handling_is_kept(pair):
    sender, receiver = pair()
    sender.publish(topic_of(sender), b"kept", retain=True)
    receiver.subscribe(topic_of(sender), options={"retainHandling": 2})
    receiver.subscribe(topic_of(sender), options={"retainHandling": 1})
    proves_silence(sender, topic_of(sender), receiver)
    receiver.subscribe(topic_of(sender), options={"retainHandling": 0})
    assert receiver.payload() == b"kept"


def test_retained_messages_survive_a_restart(server, connect):
    lamp = server.device("lamp-1")
    connect(server, lamp).publish("dt/lamp-1/kept", b"still here", retain=True)
    server.kill9()
    server.start()
    server.policy("all", EVERYTHING)
    reader = connect(server, server.device("reader", "--policy", "all"))
    reader.subscribe("dt/#")
    assert reader.payload() == b"still here"


# -- wills

# [MQTT-3.1.2-8] [MQTT311-3.1.2-8]
@VERSIONS
@DOORS
def test_a_will_is_published_when_the_connection_is_lost(shared, device, connect, version, websocket):
    heir = connect(shared, device("--policy", "everything"))
    identity = device("--policy", "everything")
    topic = f"will/{identity.name}"
    heir.subscribe(topic)
    lost = connect(shared, identity, version=version, websocket=websocket, will=(topic, {"payload": b"gone", "qos": 1}))
    lost.drop()
    assert heir.payload() == b"gone"


# [MQTT-3.14.4-3] [MQTT311-3.14.4-3]
@VERSIONS
def test_a_goodbye_takes_the_will_back(shared, device, connect, version):
    heir = connect(shared, device("--policy", "everything"))
    identity = device("--policy", "everything")
    topic = f"will/{identity.name}"
    heir.subscribe(topic)
    connect(shared, identity, version=version, will=(topic, {"payload": b"gone", "qos": 1})).disconnect()
    proves_silence(heir, topic, heir)


# [MQTT-3.1.2-15]
def test_a_retained_will_is_retained(shared, device, connect):
    identity, reader = device("--policy", "everything"), connect(shared, device("--policy", "everything"))
    topic = f"will/{identity.name}"
    reader.subscribe(topic)
    connect(shared, identity, will=(topic, {"payload": b"gone", "qos": 1, "retain": True})).drop()
    assert reader.payload() == b"gone"
    late = connect(shared, device("--policy", "everything"))
    late.subscribe(topic)
    message = late.message()
    assert (message.payload, message.retain) == (b"gone", True)


# -- keep alive

# [MQTT-3.1.2-20, -22] [MQTT311-3.1.2-23, -24]
@VERSIONS
def test_silence_of_one_and_a_half_keep_alives_ends_the_connection(shared, device, version):
    identity = device()
    with Wire(shared, identity) as quiet:
        assert quiet.open(identity.name, version=version, keep_alive=2) == 0
        begun = time.monotonic()
        reason = quiet.reason_of_end()
        waited = time.monotonic() - begun
    assert 2.9 <= waited < 6, waited
    assert reason == (0x8D if version == 5 else None)


def test_a_ping_is_answered_and_counts_as_life(shared, device):
    identity = device()
    with Wire(shared, identity) as quiet:
        assert quiet.open(identity.name, keep_alive=1) == 0
        for _ in range(200):
            assert quiet.ping()


# -- sessions

# [MQTT-3.1.2-5, -23] [MQTT311-3.1.2-4, -5]
@VERSIONS
def test_a_persistent_session_keeps_what_came_while_it_was_away(shared, device, connect, version):
    sender, identity = connect(shared, device("--policy", "everything")), device("--policy", "everything")
    how = {"version": version, "clean": False, **({"expiry": 300} if version == 5 else {})}
    client = connect(shared, identity, **how)
    assert not client.session_present
    client.subscribe(topic_of(sender), qos=1)
    client.disconnect()
    for payload in (b"1", b"2", b"3"):
        assert sender.publish(topic_of(sender), payload, qos=1) == 0
    back = connect(shared, identity, **how)
    assert back.session_present
    assert [back.payload() for _ in range(3)] == [b"1", b"2", b"3"]
    sender.publish(topic_of(sender), b"live")
    assert back.payload() == b"live"


# [MQTT-3.1.2-4, 3.2.2-2] [MQTT311-3.1.2-6, 3.2.2-1]
@VERSIONS
def test_a_clean_start_finds_nothing(shared, device, connect, version):
    sender, identity = connect(shared, device("--policy", "everything")), device("--policy", "everything")
    how = {"version": version, **({"expiry": 300} if version == 5 else {})}
    client = connect(shared, identity, clean=False, **how)
    client.subscribe(topic_of(sender))
    client.disconnect()
    sender.publish(topic_of(sender), b"lost")
    client = connect(shared, identity, clean=True, **how)
    assert not client.session_present
    client.subscribe(topic_of(sender, "marker"))
    proves_silence(sender, topic_of(sender, "marker"), client)
    client.disconnect()


def test_a_session_of_version_5_ends_with_its_expiry_of_zero(shared, device, connect):
    identity = device("--policy", "everything")
    client = connect(shared, identity, clean=False, expiry=0)
    client.subscribe("x")
    client.disconnect()
    assert not connect(shared, identity, clean=False, expiry=0).session_present


# [MQTT-3.3.1-1, 4.4.0-1]
def test_what_was_sent_and_not_acknowledged_comes_again_marked_as_duplicate(shared, device, connect):
    sender, identity = connect(shared, device("--policy", "everything")), device("--policy", "everything")
    expiry = b"\x11" + struct.pack(">I", 300)
    with Wire(shared, identity) as first:
        assert first.open(identity.name, clean=False, properties=expiry) == 0
        first.send(wire.subscribe(topic_of(sender), qos=1))
        assert first.packet()[0] == wire.SUBACK
        sender.publish(topic_of(sender), b"once or more")
        kind, flags, _ = first.packet()
        assert kind == wire.PUBLISH and not flags & 8
    with Wire(shared, identity) as again:
        assert again.open(identity.name, clean=False, properties=expiry) == 0
        kind, flags, body = again.packet()
        assert kind == wire.PUBLISH and flags & 8 and body.endswith(b"once or more")


def test_a_persistent_session_survives_a_kill(server, connect):
    lamp = server.device("lamp-1")
    server.policy("all", EVERYTHING)
    sender = server.device("sender", "--policy", "all")
    client = connect(server, lamp, clean=False, expiry=300)
    client.subscribe("cmd/lamp-1/x")
    client.disconnect()
    assert connect(server, sender).publish("cmd/lamp-1/x", b"kept") == 0
    server.kill9()
    server.start()
    back = connect(server, lamp, clean=False, expiry=300)
    assert back.session_present
    assert back.payload() == b"kept"


# [MQTT-3.1.4-3]
def test_the_same_client_takes_its_session_over(shared, device, connect):
    identity = device()
    first = connect(shared, identity)
    second = connect(shared, identity)
    assert first.end().reason == 0x8E
    assert second.publish(f"dt/{identity.name}/x") == 0


def test_the_same_client_id_of_another_thing_disturbs_nobody(shared, device, connect):
    first = connect(shared, device("--policy", "everything"), client_id="same")
    second = connect(shared, device("--policy", "everything"), client_id="same")
    for client in (first, second):
        assert client.publish("x", b"") == 0


def test_an_empty_client_id_is_given_one_where_the_policy_lets_it(shared, device, connect):
    client = connect(shared, device("--policy", "everything"), client_id="")
    assert client.properties.AssignedClientIdentifier


# -- TLS

@pytest.mark.parametrize("version", [wire.TLS12, wire.TLS13], ids=["1.2", "1.3"])
@DOORS
def test_tls_1_2_and_1_3_are_served(shared, device, connect, version, websocket):
    identity = device()
    client = connect(shared, identity, websocket=websocket, context=tls_context(identity, version=version))
    secure = client.client.socket()
    # paho wraps the TLS socket for WebSocket and keeps it inside.
    secure = getattr(secure, "_socket", secure)
    assert secure.version() == {wire.TLS12: "TLSv1.2", wire.TLS13: "TLSv1.3"}[version]
    assert client.publish(f"dt/{identity.name}/x") == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_1_1_is_not(shared, device):
    identity = device()
    context = tls_context(identity)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(wire.Closed):
        Wire(shared, identity, context=context)


@pytest.mark.parametrize("offered, chosen", [(["mqtt"], "mqtt"), (["x-amzn-mqtt-ca"], "x-amzn-mqtt-ca"), (None, None)])
def test_alpn(shared, device, offered, chosen):
    identity = device()
    with Wire(shared, identity, alpn=offered) as client:
        assert client.socket.selected_alpn_protocol() == chosen
        assert client.open(identity.name) == 0


def test_another_alpn_is_refused(shared, device):
    with pytest.raises(wire.Closed):
        Wire(shared, device(), alpn=["h2"]).open("x")


def test_plain_text_is_not_spoken_on_any_mqtt_port(shared):
    for listener in ("mqtt", "wss"):
        with socket.create_connection(shared.place(listener), timeout=15) as plain:
            plain.sendall(wire.connect("lamp"))
            heard = b""
            try:
                while data := plain.recv(1024):
                    heard += data
            except ConnectionResetError:
                pass
            # A TLS alert at most, never a CONNACK.
            assert heard[:1] in (b"", b"\x15"), heard


# -- mosquitto's own clients

@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@pytest.mark.parametrize("tls", ["tlsv1.2", "tlsv1.3"])
def test_mosquitto_clients(shared, device, version, tls):
    receiver, sender = device("--policy", "everything"), device("--policy", "everything")
    topic = f"t/{sender.name}/x"
    flags = ("-V", version, "--tls-version", tls)
    with MosquittoSub(shared, receiver, topic, "-q", "2", *flags) as heard:
        for qos in "012":
            done = mosquitto_pub(shared, sender, "-t", topic, "-m", f"qos{qos}", "-q", qos, *flags)
            assert done.returncode == 0, done.stderr
            assert heard.message() == f"{topic} qos{qos}"


# -- WebSocket

def test_any_websecurepath_is_taken(shared, device, connect):
    for path in ("/mqtt", "/", "/some/where?x=1"):
        identity = device()
        assert connect(shared, identity, websocket=True, path=path).publish(f"dt/{identity.name}/x") == 0


# [MQTT-6.0.0-3, -4] [MQTT311-6.0.0-3, -4]
def test_the_websecuresubprotocol_is_mqtt_and_no_other(shared, device):
    with wire.WebSocket(shared, device()) as good:
        assert good.answer.startswith("HTTP/1.1 101") and "sec-websocket-protocol: mqtt" in good.answer.lower()
    for protocol in ("chat", None):
        with wire.WebSocket(shared, device(), protocol=protocol) as bad:
            assert bad.answer.startswith("HTTP/1.1 400"), bad.answer


# [MQTT-6.0.0-2] [MQTT311-6.0.0-2]
def test_a_packet_may_be_spread_over_websecureframes(shared, device):
    identity = device()
    with wire.WebSocket(shared, identity) as client:
        packet = wire.connect(identity.name)
        for at in range(len(packet)):
            client.send(packet[at:at + 1])
        assert client.packet()[0] == wire.CONNACK


# -- authentication beside the certificate is refused

# [MQTT-4.12.0-1]
def test_enhanced_authentication_is_refused(shared, device):
    identity = device()
    with Wire(shared, identity) as client:
        assert client.open(identity.name, properties=b"\x15" + wire.string("SCRAM")) == 0x8C


# [MQTT-4.12.0-7]
def test_auth_packets_are_refused(shared, device):
    identity = device()
    with Wire(shared, identity) as client:
        assert client.open(identity.name) == 0
        client.send(wire.packet(15, b""))
        assert client.reason_of_end() == 0x82
