"""One device under device-default asks the server as fast as it can: it is refused, and nobody else notices."""

import itertools
import json
import struct
import threading

import wire
from server import EVERYTHING
from test_rubbish import MB, memory, reset_peak
from wire import Closed, Wire

ALIAS = b"\x23\x00\x01"
LOG_BYTES = 200_000


def message(body):
    """Topic and payload of a QoS 1 PUBLISH of MQTT 5, and its packet identifier."""
    size = struct.unpack(">H", body[:2])[0]
    topic, rest = body[2:2 + size].decode(), body[2 + size:]
    assert rest[2] < 128
    return topic, rest[3 + rest[2]:], struct.unpack(">H", rest[:2])[0]


class Asking:
    """A device that asks for its jobs and waits for the answer."""

    def __init__(self, server, identity):
        self.wire, self.name = Wire(server, identity), identity.name
        assert self.wire.open(identity.name) == 0

    def ask(self):
        """The answer's ending, and what it says."""
        self.wire.send(wire.publish(f"$aws/things/{self.name}/jobs/get", b"{}", qos=1))
        while True:
            kind, _, body = self.wire.packet()
            if kind == wire.PUBLISH:
                topic, payload, packet_id = message(body)
                self.wire.send(wire.answer(wire.PUBACK, packet_id))
                return topic.rsplit("/", 1)[1], json.loads(payload)


class Flood(threading.Thread):
    """Sends the same again and again, and reads what comes without looking at it, until it is stopped or closed."""

    def __init__(self, server, identity, data, begin=b""):
        super().__init__(daemon=True)
        self.server, self.identity, self.data, self.begin = server, identity, data, begin
        self.ending, self.sent, self.under_way = False, 0, threading.Event()

    def run(self):
        while not self.ending:
            try:
                with Wire(self.server, self.identity) as client:
                    assert client.open(self.identity.name, properties=b"\x21\x00\x01") == 0
                    client.exchange(self.pieces())
            except Closed:
                # A server may well close such a connection: then there is the next one.
                self.under_way.set()

    def pieces(self):
        if self.begin:
            yield self.begin
        while not self.ending:
            yield self.data
            self.sent += 1
            if self.sent > 20:
                self.under_way.set()

    def __enter__(self):
        self.start()
        assert self.under_way.wait(60)
        return self

    def __exit__(self, *_):
        self.ending = True
        self.join(60)


def test_requests_of_one_device_take_no_answers_from_others(server):
    loud, quiet = server.device("loud"), server.device("quiet")
    asking = Asking(server, quiet)
    assert asking.ask()[0] == "accepted"
    many = wire.publish("$aws/things/loud/jobs/get") * 500
    before = memory(server)
    with Flood(server, loud, many):
        answers = [asking.ask() for _ in range(40)]
    assert [ending for ending, _ in answers] == ["accepted"] * 40, answers
    assert memory(server) - before < 128 * MB
    assert len(server.stderr()) < LOG_BYTES


def test_who_asks_too_much_is_told_so(server):
    loud, count = server.device("loud"), 20_000
    many = (wire.publish("$aws/things/loud/jobs/get", qos=1, packet_id=number + 1) for number in range(count))
    codes, acknowledged = set(), 0

    def take(kind, body):
        nonlocal acknowledged
        if kind == wire.PUBLISH:
            _, payload, packet_id = message(body)
            codes.add(json.loads(payload).get("code", "accepted"))
            return wire.answer(wire.PUBACK, packet_id)
        acknowledged += kind == wire.PUBACK
        return next(many, b"") if acknowledged < count else None

    with Wire(server, loud) as client:
        assert client.open("loud", keep_alive=600) == 0
        # As many at once as the server's Receive Maximum lets a client send.
        client.exchange(itertools.islice(many, 20), take)
    # Who waits for answers is not read on, so most of them are answered, only later.
    assert "accepted" in codes and codes <= {"accepted", "RequestThrottled"}, codes


def test_reserved_topics_and_requests_are_short(server):
    """376 KiB took 3 GB of memory once, and 220 KiB wrote a gigabyte of log."""
    loud = server.device("loud")
    start = "$aws/things/loud/jobs/"
    longest = start + "x" * (512 - len(start) - 4) + "/get"
    too_long = start + "x" * (65_535 - len(start) - 4) + "/get"
    before, log = memory(server), len(server.stderr())
    reset_peak(server)
    for qos, refusal in ((0, 0x90), (1, 0x90)):
        for topic in (too_long, longest + "x", start + "a/b/c/d/e/f"):
            with Wire(server, loud) as client:
                assert client.open("loud", properties=b"\x21\x00\x01") == 0
                many = wire.publish("", qos=qos, properties=ALIAS) * 40_000
                try:
                    client.send(wire.publish(topic, qos=qos, properties=ALIAS))
                    if qos:
                        kind, _, body = client.packet()
                        assert kind == wire.PUBACK and body[2] == refusal, (kind, body)
                    else:
                        client.send(many)
                        client.ping()
                except Closed:
                    pass
                if not qos:
                    assert client.reason_of_end() in (refusal, None)
    with Wire(server, loud) as client:
        assert client.open("loud") == 0
        client.send(wire.publish(start + "get", bytes(128 * 1024 + 1), qos=1))
        kind, _, body = client.packet()
        assert kind == wire.PUBACK and body[2] == 0x97, (kind, body)
        # Longer than jobs read: the room says so itself.
        client.send(wire.publish(start + "get", bytes(128 * 1024), qos=1))
        answered = [client.packet() for _ in range(2)]
        assert {kind for kind, _, _ in answered} == {wire.PUBACK, wire.PUBLISH}, answered
        kind, _, body = next(packet for packet in answered if packet[0] == wire.PUBLISH)
        assert kind == wire.PUBLISH and json.loads(message(body)[1])["code"] == "InvalidRequest", (kind, body)
    assert memory(server, "VmHWM") - before < 64 * MB
    assert len(server.stderr()) - log < LOG_BYTES


def test_refusals_of_long_topics_cost_little_and_are_cut_in_the_log(server):
    loud = server.device("loud")
    log, count = len(server.stderr()), 7000
    topic = "x/" * 60 + "y" * 65_000
    with Wire(server, loud) as client:
        assert client.open("loud", keep_alive=600) == 0
        begun = cpu(server)
        first = wire.publish(topic, qos=1, properties=ALIAS)
        many = [wire.publish("", qos=1, packet_id=number % 60_000 + 1, properties=ALIAS) for number in range(count - 1)]
        refused = 0

        def take(kind, body):
            nonlocal refused
            assert kind == wire.PUBACK and body[2] == 0x87, (kind, body)
            refused += 1
            return b"" if refused < count else None

        client.exchange([first, b"".join(many)], take)
        long_cpu = cpu(server) - begun
        # As many of a short one, which are explained only so often as well.
        begun = cpu(server)
        client.send(wire.publish("x/y", qos=1, properties=ALIAS) + b"".join(many))
        for _ in range(count):
            assert client.packet()[0] == wire.PUBACK
        short_cpu = cpu(server) - begun
    assert long_cpu < 5 * short_cpu + 0.3, (long_cpu, short_cpu)
    assert len(server.stderr()) - log < LOG_BYTES


def cpu(server):
    """Seconds that the server's threads have computed."""
    fields = open(f"/proc/{server.process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_subscriptions_of_one_device_hide_no_events_of_others(server):
    server.policy("all", EVERYTHING)
    observer, loud, quiet = server.device("observer", "--policy", "all"), server.device("loud"), server.device("quiet")
    heard, ready = [], threading.Event()
    watching = Wire(server, observer)
    assert watching.open("observer") == 0
    # Of QoS 1: these wait, where others of QoS 0 are left out for one that reads too slowly.
    watching.send(wire.subscribe("$aws/events/presence/+/quiet", qos=1))
    watching.send(wire.subscribe("$aws/events/subscriptions/+/loud", packet_id=2))
    for _ in range(2):
        assert watching.packet()[0] == wire.SUBACK

    def watch():
        while len(heard) < 40:
            kind, flags, body = watching.packet()
            if kind != wire.PUBLISH:
                continue
            size = struct.unpack(">H", body[:2])[0]
            topic = body[2:2 + size].decode()
            if "/presence/" in topic:
                heard.append(topic.split("/")[3])
                watching.send(wire.answer(wire.PUBACK, struct.unpack(">H", body[2 + size:4 + size])[0]))
            else:
                ready.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    topic = wire.string("cmd/loud/a")
    both = wire.packet(wire.SUBSCRIBE, b"\0\1\0" + topic + b"\0", flags=2) + wire.packet(10, b"\0\1\0" + topic, flags=2)
    with Flood(server, loud, both * 500):
        assert ready.wait(30)
        for _ in range(20):
            with Wire(server, quiet) as client:
                assert client.open("quiet") == 0
                client.send(wire.packet(wire.DISCONNECT, b""))
        watcher.join(60)
    assert sorted(heard) == ["connected"] * 20 + ["disconnected"] * 20
    watching.close()
    assert len(server.stderr()) < LOG_BYTES
