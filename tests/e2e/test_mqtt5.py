"""What MQTT 5 adds to a subscription and a topic: shared subscriptions, identifiers, aliases."""

import collections
import struct

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import wire
from clients import proves_silence
from server import EVERYTHING, allow, document
from wire import PUBLISH, Wire

TOPIC_ALIAS = 0x23


def alias(number):
    return bytes([TOPIC_ALIAS]) + struct.pack(">H", number)


@pytest.fixture
def everything(shared, device, connect):
    """Connects a device that may do everything."""
    return lambda **how: connect(shared, device("--policy", "everything"), **how)


# -- shared subscriptions

@pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5.0"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_message_goes_to_one_of_the_group(everything, version, qos):
    sender = everything()
    topic = f"t/{sender.identity.name}/x"
    group = [everything(version=version) for _ in range(3)]
    alone, other = everything(), everything()
    for member in group:
        assert member.subscribe(f"$share/g/{topic}", qos=qos) == qos
    assert other.subscribe(f"$share/h/{topic}", qos=qos) == qos
    alone.subscribe(topic, qos=qos)
    for number in range(30):
        sender.publish(topic, str(number), qos=max(qos, 1))
    for whole in (alone, other):
        assert [int(whole.payload()) for _ in range(30)] == list(range(30))
    heard = collections.Counter()
    for member in group:
        for _ in range(10):  # they take turns
            heard[int(member.payload())] += 1
    assert heard == {number: 1 for number in range(30)}


def test_a_member_that_leaves_is_left_out(everything):
    sender, one, other = everything(), everything(), everything()
    topic = f"t/{sender.identity.name}/x"
    for member in (one, other):
        member.subscribe(f"$share/g/{topic}")
    one.unsubscribe(f"$share/g/{topic}")
    for number in range(4):
        sender.publish(topic, str(number))
    assert [int(other.payload()) for _ in range(4)] == [0, 1, 2, 3]
    other.unsubscribe(f"$share/g/{topic}")
    one.subscribe(topic + "/marker")
    sender.publish(topic, b"nobody")
    proves_silence(sender, topic + "/marker", one)


def test_a_shared_subscription_gets_nothing_retained(everything):
    sender, member = everything(), everything()
    topic = f"t/{sender.identity.name}/x"
    sender.publish(topic, b"kept", retain=True)
    member.subscribe(f"$share/g/{topic}")
    member.subscribe(topic + "/marker")
    proves_silence(sender, topic + "/marker", member)
    sender.publish(topic, b"", retain=True)


def test_a_member_that_may_not_receive_is_skipped_and_nothing_is_lost(server, connect):
    server.policy("all", EVERYTHING)
    server.policy("deaf", document(
        allow("Connect", "client/*"), allow("Subscribe", "topicfilter/*"), allow("Receive", "topic/other")))
    sender = connect(server, server.device("sender", "--policy", "all"))
    deaf = connect(server, server.device("deaf", "--policy", "deaf"))
    able = connect(server, server.device("able", "--policy", "all"))
    for member in (deaf, able):
        assert member.subscribe("$share/g/t/x") == 1
    for number in range(10):
        sender.publish("t/x", str(number))
    assert sorted(int(able.payload()) for _ in range(10)) == list(range(10))
    assert deaf.alive()


def test_what_waits_for_a_member_that_ends_goes_to_another(server, connect):
    server.policy("all", EVERYTHING)
    sender = connect(server, server.device("sender", "--policy", "all"))
    away = connect(server, server.device("away", "--policy", "all"), clean=False, expiry=300)
    away.subscribe("$share/g/t/x")
    away.disconnect()
    for number in range(3):
        sender.publish("t/x", str(number))  # nobody else is there: it waits
    able = connect(server, server.device("able", "--policy", "all"))
    able.subscribe("$share/g/t/x")
    server.run("device", "revoke", "away", "--yes")
    assert sorted(int(able.payload()) for _ in range(3)) == [0, 1, 2]


# [MQTT-3.8.3-4]
def test_no_local_on_a_shared_subscription_is_a_protocol_error(shared, device):
    identity = device("--policy", "everything")
    with Wire(shared, identity) as client:
        assert client.open(identity.name) == 0
        client.send(wire.subscribe("$share/g/t", qos=0b100))
        assert client.reason_of_end() == 0x82


# -- subscription identifiers

def subscribe(client, topic, identifier, qos=1):
    properties = Properties(PacketTypes.SUBSCRIBE)
    properties.SubscriptionIdentifier = identifier
    assert client.subscribe(topic, qos=qos, properties=properties) == qos


# [MQTT-3.3.4-2, -3, -4, 3.8.4-3]
def test_overlapping_subscriptions_give_one_copy_with_all_identifiers(everything):
    sender, reader = everything(), everything()
    name = sender.identity.name
    subscribe(reader, f"t/{name}/#", 268_435_455, qos=0)
    subscribe(reader, f"t/{name}/+", 7, qos=2)
    reader.subscribe(f"t/{name}/x", qos=1)
    sender.publish(f"t/{name}/x", b"x", qos=2)
    message = reader.message()
    assert (sorted(message.properties.SubscriptionIdentifier), message.qos) == ([7, 268_435_455], 2)
    sender.publish(f"t/{name}/x/y", b"y")
    assert reader.message().properties.SubscriptionIdentifier == [268_435_455]
    subscribe(reader, f"t/{name}/#", 9)  # replaces the one before
    sender.publish(f"t/{name}/x/y", b"y")
    assert reader.message().properties.SubscriptionIdentifier == [9]


def test_identifiers_come_with_retained_queued_and_kept_messages(server, connect):
    server.policy("all", EVERYTHING)
    sender, identity = connect(server, server.device("sender", "--policy", "all")), server.device("reader", "--policy", "all")
    sender.publish("t/kept", b"kept", retain=True)
    reader = connect(server, identity, clean=False, expiry=300)
    subscribe(reader, "t/#", 5, qos=2)
    assert reader.message().properties.SubscriptionIdentifier == [5]
    reader.disconnect()
    sender.publish("t/x", b"queued", qos=2)
    server.kill9()
    server.start()
    reader = connect(server, identity, clean=False, expiry=300)
    message = reader.message()
    assert (message.payload, message.properties.SubscriptionIdentifier) == (b"queued", [5])
    connect(server, server.device("late", "--policy", "all")).publish("t/x", b"live")
    assert reader.message().properties.SubscriptionIdentifier == [5]


# -- topic aliases

# [MQTT-3.2.2-17, 3.3.2-9, -12]
def test_a_client_may_name_ten_topics(shared, device, everything):
    identity, reader = device("--policy", "everything"), everything()
    reader.subscribe(f"t/{identity.name}/#")
    with Wire(shared, identity) as client:
        assert client.open(identity.name) == 0
        for number in (1, 10):
            client.send(wire.publish(f"t/{identity.name}/{number}", b"named", properties=alias(number)))
        for number in (10, 1):
            client.send(wire.publish("", b"by alias", properties=alias(number)))
        client.send(wire.publish(f"t/{identity.name}/new", b"renamed", properties=alias(1)))
        client.send(wire.publish("", b"by alias", properties=alias(1)))
        client.ping()
        topics = [reader.message().topic.rsplit("/", 1)[1] for _ in range(6)]
        assert topics == ["1", "10", "10", "1", "new", "new"]
        client.send(wire.publish("t/x", b"", properties=alias(11)))
        assert client.reason_of_end() == 0x94


@pytest.mark.parametrize("properties, reason", [(alias(0), 0x94), (alias(3), 0x82), (b"", 0x82)])
def test_an_alias_that_means_nothing_ends_the_connection(shared, device, properties, reason):
    identity = device("--policy", "everything")
    with Wire(shared, identity) as client:
        assert client.open(identity.name) == 0
        client.send(wire.publish("", b"", properties=properties))
        assert client.reason_of_end() == reason


# [MQTT-3.1.2-26, 3.3.2-11]
def test_a_client_that_takes_aliases_gets_them_from_the_first_message(shared, device, everything):
    identity, sender = device("--policy", "everything"), everything()
    with Wire(shared, identity) as client:
        assert client.open(identity.name, properties=b"\x22\x00\x01") == 0  # Topic Alias Maximum 1
        client.send(wire.subscribe(f"t/{identity.name}/#"))
        client.packet()
        for leaf in ("a", "a", "b", "a"):
            sender.publish(f"t/{identity.name}/{leaf}", b"x")
        seen = []
        for _ in range(4):
            kind, _, body = client.packet()
            assert kind == PUBLISH
            size = struct.unpack(">H", body[:2])[0]
            topic, properties = body[2:2 + size].decode(), body[3 + size:3 + size + body[2 + size]]
            seen.append((topic.rsplit("/", 1)[-1], properties))
        assert seen == [("a", alias(1)), ("", alias(1)), ("b", b""), ("", alias(1))]


def test_the_connack_says_what_is_granted(everything):
    properties = everything().properties
    assert not hasattr(properties, "MaximumQoS")  # left out it is 2
    assert not hasattr(properties, "SharedSubscriptionAvailable")
    assert not hasattr(properties, "SubscriptionIdentifierAvailable")
    assert (properties.ReceiveMaximum, properties.TopicAliasMaximum) == (20, 10)


# -- what else MQTT 5 tells

@pytest.mark.parametrize("qos, kind", [(1, wire.PUBACK), (2, wire.PUBREC)])
def test_a_publisher_hears_that_nobody_listens(shared, device, everything, qos, kind):
    identity = device("--policy", "everything")
    with Wire(shared, identity) as client:
        assert client.open(identity.name) == 0
        topic = f"t/{identity.name}/x"
        client.send(wire.publish(topic, b"x", qos=qos, packet_id=1))
        assert client.packet() == (kind, 0, b"\x00\x01\x10")
        reader = everything()
        reader.subscribe(topic)
        client.send(wire.publish(topic, b"x", qos=qos, packet_id=2))
        assert client.packet() == (kind, 0, b"\x00\x02")


def test_dollar_topics_but_the_servers_own_are_the_policys_to_allow(shared, device, everything):
    identity, wide, narrow = device("--policy", "everything"), everything(), everything()
    name = identity.name
    narrow.subscribe(f"${name}/x")
    wide.subscribe("+/x")
    wide.subscribe(f"{name}/marker")
    sender = everything()
    assert sender.publish(f"${name}/x", b"x") == 0
    assert narrow.payload() == b"x"
    proves_silence(sender, f"{name}/marker", wide)
    for own in ("$SYS/x", "$share/x", "$aws"):
        with Wire(shared, identity) as client:
            assert client.open(name) == 0
            client.send(wire.publish(own, b"x"))
            assert client.reason_of_end() == 0x90, own


def test_aws_ways_are_a_configuration_away(make_server, connect, tmp_path):
    config = tmp_path / "aws.toml"
    config.write_text("[compat]\naws = true\n")
    server = make_server("--config", str(config))
    server.policy("all", EVERYTHING)
    sender = connect(server, server.device("sender", "--policy", "all"))
    reader = connect(server, server.device("reader", "--policy", "all"))
    assert (reader.properties.MaximumQoS, reader.properties.SubscriptionIdentifierAvailable) == (1, 0)
    sender.publish("t/x", b"kept", retain=True)
    assert reader.subscribe("t/x/#", qos=2) == 1
    assert reader.subscribe("t/+") == 1
    sender.publish("t/x", b"live")
    assert reader.payload() == b"live"  # nothing retained for a wildcard; once, not for t/x/# too
    reader.subscribe("t/x")
    assert reader.payload() == b"kept"
