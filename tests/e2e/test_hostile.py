"""Bad input at every door while a healthy device is served throughout."""

import contextlib
import os
import random
import re
import select
import socket
import ssl
import struct
import threading
import time
import urllib.request

import pytest

import api
import wire
from clients import WAIT_S, tls_context
from wire import Closed, WebSocket, Wire

NOISE_S = float(os.environ.get("MUSTER_NOISE_S", "60"))
# More than any port has places for.
HALF_OPEN = 1200
PORTS = ("mqtt", "wss", "https", "http")
# The start of a TLS 1.2 or 1.3 handshake record that promises more than ever comes.
BROKEN_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32))


class Healthy:
    """A device that sends to itself all the time; every message must come back, on the same connection."""

    def __init__(self, server, identity):
        self.wire = Wire(server, identity)
        assert self.wire.open(identity.name) == 0
        self.topic = f"health/{identity.name}"
        self.wire.send(wire.subscribe(self.topic, qos=1))
        assert self.wire.packet()[0] == wire.SUBACK
        self.rounds, self.slowest, self.fault = 0, 0.0, None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._over.is_set():
                began = time.perf_counter()
                self.round(struct.pack(">I", self.rounds))
                self.slowest = max(self.slowest, time.perf_counter() - began)
                self.rounds += 1
                self._over.wait(0.005)
        except Exception as fault:  # shown by check()
            self.fault = fault

    def round(self, payload):
        self.wire.send(wire.publish(self.topic, payload, qos=1, packet_id=self.rounds % 65535 + 1))
        acknowledged = heard = False
        while not (acknowledged and heard):
            kind, _, body = self.wire.packet()
            if kind == wire.PUBACK:
                acknowledged = True
            elif kind == wire.PUBLISH:
                assert body.endswith(payload)
                size = struct.unpack(">H", body[:2])[0]
                self.wire.send(wire.packet(wire.PUBACK, body[2 + size:4 + size]))
                heard = True

    def check(self):
        """Ends it; returns the rounds and the slowest one in milliseconds."""
        self._over.set()
        self._thread.join(WAIT_S + 5)
        assert self.fault is None, f"the healthy device was not served: {self.fault!r} after {self.rounds} rounds"
        assert self.wire.ping()
        self.wire.close()
        return self.rounds, self.slowest * 1000


@pytest.fixture
def healthy(shared, device):
    one = Healthy(shared, device("--policy", "everything"))
    yield one
    one._over.set()
    one.wire.close()


def everything_still_works(server, device):
    """New devices, both doors, and the API; no panic was logged."""
    lamp = device()
    for door in (Wire, WebSocket):
        with door(server, lamp) as client:
            assert client.open(lamp.name) == 0 and client.ping()
    assert server.cli("status").strip() == "running"
    assert server.process.poll() is None
    assert "panicked" not in server.stderr()


def garbage(chance):
    """Bytes that look like nothing, or like the beginning of something."""
    size = chance.choice((1, 7, 64, 1500, 20000))
    start = chance.choice((b"", b"\x10", b"\x30", BROKEN_HELLO, b"\x16\x03\x03\x40\x00", b"GET / HTTP/1.1\r\n", b"POST /things/x HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
                           wire.connect("x"), b"\x10\xff\xff\xff\x7f"))
    return start + chance.randbytes(size)


def shout(place, chance, secure=None):
    with contextlib.suppress(OSError), socket.create_connection(place, timeout=2) as raw:
        raw.settimeout(2)
        stream = secure(raw) if secure else raw
        stream.sendall(garbage(chance))
        with contextlib.suppress(OSError):
            stream.recv(4096)
        stream.close()


def test_a_minute_of_random_bytes_at_every_port(shared, device, healthy, record_property):
    lamp = device()
    trusting = ssl.create_default_context(cafile=str(lamp.root))
    trusting.load_cert_chain(str(lamp.certificate), str(lamp.key))
    until = time.monotonic() + NOISE_S
    shouted = [0] * 7

    def secure(raw):
        return trusting.wrap_socket(raw, server_hostname="localhost")

    def session(raw):
        """Garbage of somebody who was let in."""
        stream = secure(raw)
        stream.sendall(wire.connect(lamp.name))
        stream.recv(64)
        return stream

    def noise(index, port, how):
        chance = random.Random(index)
        while time.monotonic() < until:
            shout(shared.place(port), chance, how)
            shouted[index] += 1

    places = [(port, None) for port in PORTS] + [("mqtt", secure), ("mqtt", session), ("https", secure)]
    threads = [threading.Thread(target=noise, args=(index, *place), daemon=True) for index, place in enumerate(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(NOISE_S + 30)
        assert not thread.is_alive()
    rounds, slowest = healthy.check()
    assert min(shouted) > 0 and rounds > 10
    record_property("measured", f"{NOISE_S:.0f} s of noise: {sum(shouted)} connections of garbage, {rounds} round trips of a healthy device, slowest {slowest:.0f} ms")
    everything_still_works(shared, device)


@pytest.mark.parametrize("port", ["mqtt", "wss", "https", "http"])
def test_a_thousand_half_open_handshakes(shared, device, healthy, port, record_property):
    """Who is connected is served, and who comes gets in at that very port: devices, operators, whoever asks for a list."""
    held, begun = [], b"GET /crl" if port == "http" else BROKEN_HELLO
    try:
        for number in range(HALF_OPEN):
            raw = socket.create_connection(shared.place(port), timeout=WAIT_S)
            held.append(raw)
            with contextlib.suppress(OSError):
                raw.sendall(begun[: 1 + number % len(begun)] if number % 2 else b"")
        before = healthy.rounds
        deadline = time.monotonic() + WAIT_S
        while healthy.rounds < before + 20:
            assert time.monotonic() < deadline and healthy.fault is None, f"not served beside {HALF_OPEN} half-open handshakes: {healthy.fault!r}"
            time.sleep(0.01)
        everything_still_works(shared, device)
        shared.cli("device", "revoke", device().name, "--yes")
        with urllib.request.urlopen(f"http://localhost:{shared.port('http')}/crl/0.crl", timeout=WAIT_S) as answer:
            assert answer.status == 200 and answer.read()
        # They are given up by themselves: each is closed by the server while we only listen.
        for raw in held:
            raw.settimeout(WAIT_S + 15)
            with contextlib.suppress(ConnectionError):
                while raw.recv(4096):
                    pass
        everything_still_works(shared, device)
    finally:
        for raw in held:
            raw.close()
    rounds, slowest = healthy.check()
    record_property("measured", f"{HALF_OPEN} half-open handshakes at {port}: {rounds} round trips of a healthy device, slowest {slowest:.0f} ms")


def test_one_address_that_floods_makes_room_by_itself(make_server, tmp_path):
    """Who came before all of them keeps its place, though it has not said a word; who comes from elsewhere gets in."""
    seats = 40
    config = tmp_path / "muster.toml"
    config.write_text(f"[limits]\nhandshakes_in_flight = {seats}\nhandshake_seconds = 120\n")
    server = make_server("--config", str(config))
    lamp = server.device("lamp-1")
    place = ("127.0.0.1", server.port("mqtt"))
    first = socket.create_connection(place, timeout=WAIT_S)
    held, closed = [], set()
    try:
        while len(held) < 5 * seats:
            raw = socket.create_connection(place, timeout=WAIT_S, source_address=("127.0.0.2", 0))
            raw.sendall(BROKEN_HELLO[:1])
            held.append(raw)
        deadline = time.monotonic() + 2 * WAIT_S
        while len(closed) < seats:
            assert time.monotonic() < deadline, f"{len(closed)} of the flood were closed"
            for raw in select.select([raw for raw in held if raw not in closed], [], [], 1)[0]:
                with contextlib.suppress(ConnectionError):
                    assert raw.recv(1) == b""
                closed.add(raw)
            with Wire(server, lamp) as client:
                assert client.open(lamp.name) == 0 and client.ping()
        assert not select.select([first], [], [], 0)[0], "closed, or written to"
        with tls_context(lamp).wrap_socket(first, server_hostname="localhost") as stream:
            stream.sendall(wire.connect(lamp.name))
            assert stream.recv(1) == b"\x20"
    finally:
        for raw in (first, *held):
            raw.close()
    server.said("to make room", "127.0.0.2")
    assert not any("127.0.0.1" in line for line in server.stderr().splitlines() if "to make room" in line)


def test_one_certificate_has_few_places_at_the_api_and_none_once_it_is_revoked(server):
    most, more = 32, 8
    lamp, other = server.device("lamp-1"), server.device("lamp-2")

    def answers(client):
        client.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while b"\r\n\r\n" not in client.buffer:
            client.fill()
        answered, client.buffer = client.buffer.startswith(b"HTTP/1.1 404"), b""
        return answered

    with contextlib.ExitStack() as all_of_them:
        held = [all_of_them.enter_context(Wire(server, lamp, listener="https")) for _ in range(most)]
        assert all(answers(client) for client in held)
        held += [all_of_them.enter_context(Wire(server, lamp, listener="https")) for _ in range(more)]
        for client in held[:more]:
            with pytest.raises(Closed):
                client.fill()
        assert all(answers(client) for client in held[more:])
        assert api.send(server, "GET", "/.well-known/est/cacerts", identity=other)[0] == 200
        server.cli("device", "revoke", lamp.name, "--yes")
        for client in held[more:]:
            with pytest.raises(Closed):
                client.fill()
                client.fill()
    server.said("as many as it may")


def test_refused_requests_do_not_fill_the_log(server):
    """Nobody needs a credential to be refused, so most of a flood is counted only."""
    context = ssl.create_default_context(cafile=server.root)

    def refused(count):
        with socket.create_connection(server.place("https"), timeout=WAIT_S) as raw, context.wrap_socket(raw, server_hostname="localhost") as stream:
            # In portions, by one thread: a TLS connection of Python's is not to be read and written at once.
            while count > 0:
                portion = min(count, 50)
                stream.sendall(b"GET /things HTTP/1.1\r\nHost: localhost\r\n\r\n" * portion)
                answers = b""
                while answers.count(b"HTTP/1.1 403") < portion:
                    more = stream.recv(65536)
                    assert more, "the server closed the connection"
                    answers += more
                count -= portion

    def left_out():
        lines = [line for line in server.stderr().splitlines() if "request refused" in line]
        return len(lines), sum(int(re.search(r"left_out=(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", line))[1]) for line in lines)

    asked = 2000
    refused(asked)
    deadline = time.monotonic() + WAIT_S
    while not left_out()[1]:
        assert time.monotonic() < deadline, "what was left out is said in a later line"
        refused(1)
        asked += 1
        time.sleep(0.05)
    lines, others = left_out()
    assert lines < asked / 4 and asked / 2 < lines + others <= asked


@pytest.mark.parametrize("qos", [0, 1])
def test_a_client_that_never_reads(shared, device, healthy, qos):
    """It is sent far more than its socket holds; neither the sender nor anybody else waits for it."""
    deaf, sender, hearer = (device("--policy", "everything") for _ in range(3))
    topic = f"flood/{deaf.name}"
    with Wire(shared, deaf) as silent, Wire(shared, sender) as source, Wire(shared, hearer) as other:
        for client, who in ((silent, deaf), (source, sender), (other, hearer)):
            assert client.open(who.name) == 0
        silent.send(wire.subscribe(topic, qos=qos))
        other.send(wire.subscribe(topic, qos=0))
        assert silent.packet()[0] == wire.SUBACK and other.packet()[0] == wire.SUBACK
        payload, count, heard = bytes(64 * 1024), 400, 0
        for number in range(1, count + 1):
            source.send(wire.publish(topic, payload, qos=1, packet_id=number))
            assert source.packet()[0] == wire.PUBACK
            kind, _, _ = other.packet()
            assert kind == wire.PUBLISH
            heard += 1
        assert heard == count
        assert source.ping() and other.ping()
    healthy.check()
    everything_still_works(shared, device)


def slow(server, identity):
    """One byte of a CONNECT per moment: it is cut off at the deadline of the handshake."""
    with Wire(server, identity) as client:
        began = time.monotonic()
        try:
            for byte in wire.connect(identity.name):
                client.send(bytes([byte]))
                client.socket.settimeout(1)
                with contextlib.suppress(TimeoutError):
                    client.fill()
        except Closed:
            return time.monotonic() - began
    return None


def test_one_byte_per_second_is_not_waited_for(shared, device, healthy):
    assert slow(shared, device()) is not None
    healthy.check()


def sized(number):
    return wire.length(number)


BAD = {
    "five bytes of length": b"\x30\x80\x80\x80\x80\x01",
    "overlong length": b"\xc0\x80\x00",
    "268 MB and then nothing": b"\x30" + sized(268_435_455) + b"\x00\x01a",
    "empty topic": b"\x30\x03\x00\x00\x00",
    "bad UTF-8 in a topic": wire.publish(b"a\xff\xfe"),
    "a surrogate in a topic": wire.publish(b"a\xed\xa0\x80"),
    "U+0000 in a topic": wire.publish(b"a\0b"),
    "a wildcard in a topic": wire.publish("a/#"),
    "QoS 3": b"\x36\x07\x00\x01a\x00\x01\x00x",
    "packet id 0": wire.publish("a", qos=1, packet_id=0),
    "reserved bits of SUBSCRIBE": b"\x80" + wire.subscribe("a")[1:],
    "reserved packet type 0": b"\x00\x00",
    "AUTH unasked": b"\xf0\x00",
    "CONNACK from a client": b"\x20\x03\x00\x00\x00",
    "SUBACK from a client": b"\x90\x04\x00\x01\x00\x00",
    "PINGRESP from a client": b"\xd0\x00",
    "a second CONNECT": wire.connect("again"),
    "a property twice": wire.publish("a", properties=b"\x01\x00\x01\x00"),
    "a property of another packet": wire.publish("a", properties=b"\x11\x00\x00\x00\x01"),
    "an unknown property": wire.publish("a", properties=b"\x7f\x00"),
    "properties longer than the packet": b"\x30\x05\x00\x01a\x7fx",
    "SUBSCRIBE of nothing": b"\x82\x03\x00\x01\x00",
    "a bad filter": wire.subscribe("a/#/b"),
    "a topic of 30,000 levels": wire.publish("/" * 30_000),
    "a filter of 30,000 levels": wire.subscribe("/" * 30_000),
    "a PUBACK of what was never sent with a bad reason": b"\x40\x03\x00\x01\x55",
}


@pytest.mark.parametrize("door", [Wire, WebSocket], ids=["tls", "websocket"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_what_the_standard_forbids_ends_that_connection_only(shared, device, bad, door):
    lamp = device("--policy", "everything")
    with door(shared, lamp) as client:
        assert client.open(lamp.name) == 0
        client.send(bad)
        reason = client.reason_of_end()
        assert reason is not None and reason >= 0x80, reason
    with door(shared, lamp) as client:
        assert client.open(lamp.name) == 0 and client.ping()
    assert "panicked" not in shared.stderr()


FIRST = {
    "PUBLISH": wire.publish("a", b"x"),
    "PINGREQ": wire.PING,
    "a large packet that is no CONNECT": b"\x30" + sized(200_000_000) + bytes(4096),
    "a CONNECT that claims 268 MB": b"\x10" + sized(268_435_455) + bytes(4096),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "MQTT 3.1": b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x03abc",
    "MQTT 6": b"\x10\x0f\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x03abc",
    "CONNECT with the reserved flag": b"\x10\x10\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x03abc",
    "a protocol name of nothing": b"\x10\x0c\x00\x00\x05\x02\x00\x3c\x00\x00\x03abc",
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST.keys())
def test_what_is_no_connect_opens_nothing(shared, device, first):
    with Wire(shared, device("--policy", "everything")) as client:
        with contextlib.suppress(Closed):
            client.send(first)
        reason = client.reason_of_end()
        assert reason is None or reason != 0, reason


def test_a_session_takes_so_many_subscriptions_and_no_more(shared, device, healthy):
    """The bound is 20,000; what is beyond is refused one by one and the session goes on."""
    with Wire(shared, device("--policy", "everything")) as client:
        assert client.open("many") == 0
        granted = refused = 0
        for start in range(0, 20_100, 100):
            filters = b"".join(wire.string(f"many/{number}") + b"\x00" for number in range(start, start + 100))
            client.send(wire.packet(wire.SUBSCRIBE, struct.pack(">H", 1) + b"\x00" + filters, flags=2))
            kind, _, body = client.packet()
            assert kind == wire.SUBACK
            codes = body[-100:]
            granted += codes.count(0)
            refused += sum(1 for code in codes if code == 0x97)
        assert (granted, refused) == (20_000, 100)
        assert client.ping()
    healthy.check()


def test_a_session_takes_fifty_shared_subscriptions_and_no_more(shared, device, healthy):
    """Each would be a copy of every message."""
    with Wire(shared, device("--policy", "everything")) as client:
        assert client.open("sharer") == 0
        filters = b"".join(wire.string(f"$share/{number}/one/topic") + b"\x00" for number in range(60))
        client.send(wire.packet(wire.SUBSCRIBE, struct.pack(">H", 1) + b"\x00" + filters, flags=2))
        kind, _, body = client.packet()
        assert kind == wire.SUBACK
        assert body[-60:] == bytes(50) + b"\x97" * 10
        client.send(wire.publish("one/topic", b"!"))
        assert [client.packet()[0] for _ in range(50)] == [wire.PUBLISH] * 50
        assert client.ping()
    healthy.check()


def test_what_is_retained_is_sent_once_for_a_filter_that_is_named_a_thousand_times(shared, device, healthy):
    """A SUBSCRIBE of 20 KB is answered with what there is, not with a thousand times as much."""
    owner = device("--policy", "everything")
    topic, kept = f"kept/{owner.name}", 200
    with Wire(shared, owner) as client:
        assert client.open(owner.name) == 0
        for number in range(kept):
            client.send(wire.publish(f"{topic}/{number}", b"1", qos=1, packet_id=1, retain=True))
            assert client.packet()[0] == wire.PUBACK
        filters = (wire.string(f"{topic}/#") + b"\x00") * 900
        client.send(wire.packet(wire.SUBSCRIBE, struct.pack(">H", 1) + b"\x00" + filters, flags=2) + wire.PING)
        packets = [client.packet() for _ in range(1 + kept + 1)]
        found = [body for kind, _, body in packets if kind == wire.PUBLISH]
        assert len(found) == len(set(found)) == kept
        # Nothing comes behind them.
        client.send(wire.PING)
        assert client.packet()[0] == wire.PINGRESP
    healthy.check()


def test_a_device_that_subscribes_wildly_holds_up_nobody(shared, device, healthy):
    """Four thousand subscriptions that overlap and do not match in the end; others have their turn all the while."""
    levels, others = 12, [device("--policy", "everything") for _ in range(3)]
    crowd = [Healthy(shared, other) for other in others]
    with Wire(shared, device("--policy", "everything")) as client:
        assert client.open("wild") == 0
        for start in range(0, 1 << levels, 512):
            names = ("/".join("a+"[number >> at & 1] for at in range(levels)) for number in range(start, start + 512))
            filters = b"".join(wire.string(f"{name}/x") + b"\x00" for name in names)
            client.send(wire.packet(wire.SUBSCRIBE, struct.pack(">H", 1) + b"\x00" + filters, flags=2))
            assert client.packet()[0] == wire.SUBACK
        before = [other.rounds for other in crowd]
        rounds, deadline = [0], time.monotonic() + WAIT_S
        # While it is at it: what they do afterwards does not count, so it goes on until they have done enough or may not.
        while min(rounds) < 3:
            client.send(b"".join(wire.publish("a/" * levels + f"{number:x}", b"") for number in range(300)) + wire.PING)
            assert client.packet()[0] == wire.PINGRESP
            rounds = [other.rounds - then for other, then in zip(crowd, before, strict=True)]
            assert time.monotonic() < deadline, rounds
    for other in crowd:
        other.check()
    healthy.check()


def test_a_flood_of_refused_connects_costs_others_nothing(shared, device, healthy):
    lamp = device()
    for _ in range(200):
        with Wire(shared, lamp) as client:
            assert client.open("somebody-else") == 0x87
    shared.said("somebody-else")
    lines = [line for line in shared.stderr().splitlines() if "somebody-else" in line]
    assert len(lines) <= 200
    rounds, _ = healthy.check()
    assert rounds > 0


@pytest.mark.parametrize("head", [
    b"GET /things HTTP/1.1\r\nHost: x\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(500)) + b"\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /things/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST /things/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"\x00\x01\x02\r\n\r\n",
    b"GET /crl/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
], ids=["headers", "path", "chunk", "two lengths", "bytes", "traversal"])
@pytest.mark.parametrize("port", ["https", "http"])
def test_bad_requests_are_answered_4xx_or_closed(shared, head, port):
    with socket.create_connection(shared.place(port), timeout=WAIT_S) as raw:
        stream = raw
        if port == "https":
            stream = ssl.create_default_context(cafile=str(shared.root)).wrap_socket(raw, server_hostname="localhost")
        answer = b""
        with contextlib.suppress(OSError):
            stream.sendall(head)
            stream.settimeout(WAIT_S + 10)
            answer = stream.recv(4096)
        assert answer == b"" or answer.split(b" ")[1][:1] == b"4", answer
        stream.close()
    status, _, _ = api.call(shared, "GET", "/muster/v1/status")
    assert status == 200


# -- fail-open configuration

@pytest.mark.parametrize("place, damage", [
    ("ca/issuing.key", b""), ("ca/issuing.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ("ca/issuing.crt", b""), ("ca/root.crt", b"junk"), ("operators/operators.json", b""), ("operators/operators.json", b"{"),
    ("firmware/online.key", b""), ("tables.1/db", b"\x00" * 512), ("tables.1/db", b""), ("tables.mark", b"many")])
def test_a_damaged_file_stops_the_start_with_its_name_and_is_not_replaced(server, place, damage):
    from server import NotReady

    server.device("lamp-1")
    server.terminate()
    file = server.data / place
    assert file.exists(), sorted(str(p.relative_to(server.data)) for p in server.data.rglob("*"))
    file.write_bytes(damage)
    for _ in range(2):
        with pytest.raises(NotReady) as refused:
            server.start()
        assert refused.value.code == 1 and "panicked" not in refused.value.stderr, refused.value
        named = "the database" if place == "tables.1/db" else place
        assert named in refused.value.stderr.splitlines()[-1], refused.value.stderr
    if place != "tables.1/db":  # sled begins its log anew as it looks
        assert file.read_bytes() == damage, "what was damaged must stay for who can mend it"


@pytest.mark.parametrize("text, word", [
    ("mqqt = '127.0.0.1:0'", "mqqt"), ("[limits]\nconections = 5", "conections"), ("[limits]\nconnections = 0", "limits.connections"),
    ("[limits", "configuration file"), ("\x00", "configuration file"), ("mqtt = true", "mqtt")])
def test_a_configuration_that_is_not_understood_whole_stops_the_start(make_server, tmp_path, text, word):
    from server import NotReady

    file = tmp_path / "muster.toml"
    file.write_text(text)
    server = make_server("--config", str(file), start=False)
    with pytest.raises(NotReady) as refused:
        server.start()
    assert refused.value.code == 1 and word in refused.value.stderr, refused.value
    assert not (server.data / "ca").exists(), "nothing was made under a configuration that was not understood"


@pytest.mark.parametrize("name", ["a b", ""])
def test_a_name_that_no_certificate_can_have_is_refused_before_anything_is_made(make_server, name):
    from server import NotReady

    server = make_server("--name", name, start=False)
    with pytest.raises(NotReady) as refused:
        server.start()
    assert refused.value.code == 1 and "--name" in refused.value.stderr and "URL" not in refused.value.stderr, refused.value
    assert not server.data.exists()


# -- WebSocket frames

PACKET = wire.PING
FRAMES = {
    "text": lambda ws: ws.send(PACKET, opcode=1),
    "unmasked": lambda ws: ws.send(PACKET, masked=False),
    "a continuation of nothing": lambda ws: ws.send(PACKET, opcode=0),
    "a reserved opcode": lambda ws: ws.send(PACKET, opcode=3),
    "a second beginning": lambda ws: (ws.send(PACKET[:1], final=False), ws.send(PACKET, opcode=2)),
    "a fragmented ping": lambda ws: ws.send(b"x", opcode=9, final=False),
    "a ping of 200 bytes": lambda ws: ws.send(bytes(200), opcode=9),
    "reserved bits": lambda ws: ws.socket.sendall(b"\xf2\x82\0\0\0\0\xc0\x00"),
    "2^63 bytes and then nothing": lambda ws: ws.socket.sendall(b"\x82\xff\x7f" + b"\xff" * 7 + b"\0\0\0\0"),
    "a packet beyond the bound in fragments": lambda ws: [ws.send(bytes(60_000), opcode=0 if n else 2, final=False) for n in range(200)],
}


@pytest.mark.parametrize("bad", FRAMES.values(), ids=FRAMES.keys())
def test_bad_websocket_frames_end_that_connection_only(shared, device, bad):
    lamp = device()
    with WebSocket(shared, lamp) as client:
        assert client.open(lamp.name) == 0
        with contextlib.suppress(Closed, OSError):
            bad(client)
        client.reason_of_end()
    with WebSocket(shared, lamp) as client:
        assert client.open(lamp.name) == 0 and client.ping()
    assert "panicked" not in shared.stderr()


def test_a_packet_in_many_fragments_is_whole(shared, device):
    """The same in good order, so that the cases above prove something."""
    lamp = device("--policy", "everything")
    with WebSocket(shared, lamp) as client:
        assert client.open(lamp.name) == 0
        for number, byte in enumerate(PACKET):
            client.send(bytes([byte]), opcode=0 if number else 2, final=number == len(PACKET) - 1)
        assert client.packet()[0] == wire.PINGRESP
