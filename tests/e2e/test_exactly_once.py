"""QoS 2 packet by packet: once, whoever of the two ends is lost in between."""

import struct

import pytest

import wire
from server import EVERYTHING
from wire import PUBCOMP, PUBLISH, PUBREC, PUBREL, Wire, answer

VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5.0"])
LASTING = b"\x11" + struct.pack(">I", 300)


def keep(version):
    """How a client asks for a session that outlives its connection."""
    return {"version": version, "clean": False, **({"properties": LASTING} if version == 5 else {})}


def packet_id(body):
    return struct.unpack(">H", body[:2])[0]


class Receiver:
    """Reads a delivery's packet identifier behind its topic."""

    @staticmethod
    def delivery(packet):
        kind, flags, body = packet
        assert kind == PUBLISH, kind
        size = struct.unpack(">H", body[:2])[0]
        number = struct.unpack(">H", body[2 + size:4 + size])[0]
        return flags >> 1 & 3, bool(flags & 8), number, body


@pytest.fixture
def people(server, connect):
    """A server of its own with two devices that may do everything."""
    server.policy("all", EVERYTHING)
    return server.device("sender", "--policy", "all"), server.device("receiver", "--policy", "all")


# [MQTT-4.3.3-8, -10, -11, -12] [MQTT311-4.3.3-2]
@VERSIONS
def test_the_four_packets_of_a_publisher(shared, device, connect, version):
    identity = device("--policy", "everything")
    reader = connect(shared, device("--policy", "everything"))
    reader.subscribe(f"t/{identity.name}/#", qos=2)
    with Wire(shared, identity) as client:
        assert client.open(identity.name, version=version) == 0
        # What comes again under a number that is taken is the message that is there, whatever it says.
        for dup, payload in ((False, b"once"), (True, b"once"), (True, b"another")):
            client.send(wire.publish(f"t/{identity.name}/x", payload, qos=2, packet_id=7, version=version, dup=dup))
            kind, _, body = client.packet()
            assert (kind, packet_id(body)) == (PUBREC, 7)
        for reason in (b"", b"\x92"):
            client.send(answer(PUBREL, 7))
            kind, _, body = client.packet()
            # The second finds nothing; 3.1.1 has one word for both.
            assert (kind, body) == (PUBCOMP, b"\x00\x07" + (reason if version == 5 else b""))
        client.send(wire.publish(f"t/{identity.name}/x", b"end", qos=2, packet_id=7, version=version))
        assert client.packet()[0] == PUBREC
        client.send(answer(PUBREL, 7))
        assert client.packet()[0] == PUBCOMP
    assert [reader.payload(), reader.payload()] == [b"once", b"end"]


# [MQTT-4.3.3-1, -2, -4] [MQTT311-4.3.3-1]
@VERSIONS
def test_the_four_packets_of_a_receiver_and_numbers_from_one(shared, device, connect, version):
    identity, sender = device("--policy", "everything"), connect(shared, device("--policy", "everything"))
    topic = f"t/{identity.name}/x"
    with Wire(shared, identity) as client:
        assert client.open(identity.name, version=version) == 0
        client.send(wire.subscribe(topic, qos=2, version=version))
        assert client.packet()[2][-1] == 2
        for number in (1, 2):
            sender.publish(topic, b"x", qos=2)
            qos, dup, found, _ = Receiver.delivery(client.packet())
            assert (qos, dup, found) == (2, False, number)
            for _ in range(2):
                client.send(answer(PUBREC, number))
                kind, _, body = client.packet()
                assert (kind, body) == (PUBREL, struct.pack(">H", number))
            client.send(answer(PUBCOMP, number))
        assert client.ping()


@pytest.mark.parametrize("wrong", [wire.PUBACK, PUBCOMP])
def test_the_wrong_acknowledgement_ends_the_connection(shared, device, connect, wrong):
    identity, sender = device("--policy", "everything"), connect(shared, device("--policy", "everything"))
    topic = f"t/{identity.name}/x"
    with Wire(shared, identity) as client:
        assert client.open(identity.name) == 0
        client.send(wire.subscribe(topic, qos=2))
        client.packet()
        sender.publish(topic, b"x", qos=2)
        client.packet()
        client.send(answer(wrong, 1))
        assert client.reason_of_end() == 0x82


# [MQTT-4.3.3-10, -11] [MQTT311-4.3.3-2]
@VERSIONS
@pytest.mark.parametrize("crash", [False, True], ids=["reconnect", "kill -9"])
def test_a_publisher_goes_on_between_pubrec_and_pubrel(server, people, connect, version, crash):
    sender, receiver = people
    with Wire(server, receiver) as reader:
        assert reader.open("receiver", **keep(version)) == 0
        reader.send(wire.subscribe("t/#", qos=2, version=version))
        reader.packet()
    with Wire(server, sender) as client:
        assert client.open("sender", **keep(version)) == 0
        client.send(wire.publish("t/x", b"once", qos=2, packet_id=9, version=version))
        assert client.packet()[0] == PUBREC
    if crash:
        server.kill9()
        server.start()
    with Wire(server, sender) as client:
        assert client.open("sender", **keep(version)) == 0
        # It has not heard the PUBREC, or it has: either way the message is one.
        client.send(wire.publish("t/x", b"once", qos=2, packet_id=9, version=version, dup=True))
        assert client.packet()[0] == PUBREC
        client.send(answer(PUBREL, 9))
        assert client.packet()[0] == PUBCOMP
    if crash:
        server.kill9()
        server.start()
    with Wire(server, sender) as client:
        assert client.open("sender", **keep(version)) == 0
        client.send(answer(PUBREL, 9))
        assert client.packet()[0] == PUBCOMP
        client.send(wire.publish("t/x", b"end", qos=1, packet_id=10, version=version))
        assert client.packet()[0] == wire.PUBACK
    with Wire(server, receiver) as reader:
        assert reader.open("receiver", **keep(version)) == 0
        payloads = []
        while not payloads or payloads[-1] != b"end":
            qos, _, number, body = Receiver.delivery(reader.packet())
            payloads.append(b"end" if body.endswith(b"end") else body[-4:])
            if qos == 2:
                reader.send(answer(PUBREC, number))
        assert payloads == [b"once", b"end"]


# [MQTT-4.3.3-3, -5, -6, 4.4.0-1, 4.6.0-1] [MQTT311-4.3.3-1, 4.4.0-1, 4.6.0-1]
@VERSIONS
@pytest.mark.parametrize("crash", [False, True], ids=["reconnect", "kill -9"])
def test_a_delivery_goes_on_under_its_number(server, people, connect, version, crash):
    sender, receiver = people

    def again():
        if crash:
            server.kill9()
            server.start()
        client = Wire(server, receiver)
        assert client.open("receiver", **keep(version)) == 0
        return client

    with Wire(server, receiver) as client:
        assert client.open("receiver", **keep(version)) == 0
        client.send(wire.subscribe("t/#", qos=2, version=version))
        client.packet()
        publisher = connect(server, sender)
        for payload in (b"one", b"two", b"three"):
            publisher.publish("t/x", payload, qos=2)
        numbers = [Receiver.delivery(client.packet())[2] for _ in range(3)]
        assert numbers == [1, 2, 3]
    # Nothing of it was answered: the same three again, marked.
    with again() as client:
        for number, payload in zip((1, 2, 3), (b"one", b"two", b"three")):
            qos, dup, found, body = Receiver.delivery(client.packet())
            assert (qos, dup, found) == (2, True, number) and body.endswith(payload)
        client.send(answer(PUBREC, 1))
        kind, _, body = client.packet()
        assert (kind, packet_id(body)) == (PUBREL, 1)
    # The first is past its PUBREC, so it never comes as PUBLISH any more.
    with again() as client:
        kind, _, body = client.packet()
        assert (kind, packet_id(body)) == (PUBREL, 1)
        client.send(answer(PUBCOMP, 1))
        assert [Receiver.delivery(client.packet())[2] for _ in range(2)] == [2, 3]
        for number in (2, 3):
            client.send(answer(PUBREC, number))
            assert client.packet()[0] == PUBREL
            client.send(answer(PUBCOMP, number))
        assert client.ping()
    with again() as client:
        # A PUBCOMP needs no disk: after a crash its PUBREL may come once more, the message never.
        seen = []
        client.send(wire.PING)
        while (packet := client.packet())[0] != wire.PINGRESP:
            seen.append(packet[0])
        assert set(seen) <= ({PUBREL} if crash else set()), seen


def test_a_will_of_qos_2_arrives_once(shared, device, connect):
    heir, identity = connect(shared, device("--policy", "everything")), device("--policy", "everything")
    heir.subscribe(f"will/{identity.name}", qos=2)
    connect(shared, identity, will=(f"will/{identity.name}", {"payload": b"gone", "qos": 2})).drop()
    message = heir.message()
    assert (message.payload, message.qos) == (b"gone", 2)


def test_a_refused_message_of_qos_2_is_refused_by_its_pubrec(shared, device):
    identity = device()
    with Wire(shared, identity) as client:
        assert client.open(identity.name) == 0
        client.send(wire.publish("not/mine", b"x", qos=2, packet_id=3))
        kind, _, body = client.packet()
        assert (kind, packet_id(body), body[2]) == (PUBREC, 3, 0x87)
        client.send(answer(PUBREL, 3))
        assert client.packet()[2] == b"\x00\x03\x92"


# [MQTT-3.3.4-7]
def test_more_than_the_receive_maximum_ends_the_connection(shared, device):
    identity = device("--policy", "everything")
    with Wire(shared, identity) as client:
        assert client.open(identity.name) == 0
        # Held until their PUBREL, they count.
        for number in range(1, 21):
            client.send(wire.publish("t/x", b"x", qos=2, packet_id=number))
            assert client.packet()[0] == PUBREC
        client.send(wire.publish("t/x", b"x", qos=1, packet_id=21))
        assert client.reason_of_end() == 0x93
