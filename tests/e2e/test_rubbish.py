"""Whatever a device sends, the others are served and the server's memory stays what it was."""

import os
import random
import socket
import struct
import time

import pytest

import wire
from clients import WAIT_S, Paho, tls_context
from devices import eventually
from rubbish import Inputs
from server import EVERYTHING
from wire import Closed, WebSocket, Wire, packet, string

INPUTS = int(os.environ.get("MUSTER_RUBBISH_INPUTS", "10000"))
SEED = int(os.environ.get("MUSTER_RUBBISH_SEED", random.SystemRandom().randrange(1 << 32)))
VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5.0"])
MB = 1 << 20


def memory(server, what="VmRSS"):
    """In bytes: resident now, or (`VmHWM`) at most since `reset_peak`."""
    for line in open(f"/proc/{server.process.pid}/status"):
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(what)


def reset_peak(server):
    with open(f"/proc/{server.process.pid}/clear_refs", "w") as control:
        control.write("5")


class Healthy:
    """A client that wants nothing but its own messages back."""

    def __init__(self, server, identity):
        self.wire, self.count = Wire(server, identity), 0
        assert self.wire.open(identity.name) == 0
        self.topic = f"healthy/{identity.name}"
        self.wire.send(wire.subscribe(self.topic))
        assert self.wire.packet()[0] == wire.SUBACK

    def is_served(self):
        self.count += 1
        payload = str(self.count).encode()
        self.wire.send(wire.publish(self.topic, payload))
        kind, _, body = self.wire.packet()
        assert kind == wire.PUBLISH and body.endswith(payload), (kind, body)


@pytest.fixture
def guarded(make_server, tmp_path):
    """A server that forgets sessions after two seconds, so that what nonsense leaves behind goes; a device that may do
    everything; and a healthy client."""
    config = tmp_path / "muster.toml"
    config.write_text("[limits]\nsession_expiry_seconds = 2\nsession_queue_messages = 1000\nretained_messages = 1000\n")
    server = make_server("--config", str(config))
    server.policy("all", EVERYTHING)
    healthy = Healthy(server, server.device("healthy", "--policy", "all"))
    yield server, server.device("rude", "--policy", "all"), healthy
    healthy.is_served()
    healthy.wire.close()


def give(server, identity, contexts, websocket, data):
    """Sends it all, says that nothing more comes, reads to the end."""
    how = {"context": contexts[websocket], "session": contexts.get(("session", websocket))}
    client = WebSocket(server, identity, **how) if websocket else Wire(server, identity, **how)
    with client:
        try:
            client.socket.sendall(data)
            socket.socket.shutdown(client.socket, socket.SHUT_WR)
            while client.socket.recv(65_536):
                pass
        except TimeoutError:
            raise
        except OSError:
            pass  # closed by the server, with or without a word
        contexts["session", websocket] = client.socket.session


@pytest.mark.timeout(180 + INPUTS // 20)
def test_malformed_inputs_disturb_nobody_and_leave_nothing(guarded, record_property):
    server, rude, healthy = guarded
    inputs = Inputs(SEED, rude.name)
    contexts = {False: tls_context(rude), True: tls_context(rude)}
    # What a server needs once, for any traffic, it has after the first tenth.
    before, begun = None, time.monotonic()
    for number in range(INPUTS):
        if number == INPUTS // 10:
            before = memory(server)
        websocket, data = inputs[number]
        try:
            give(server, rude, contexts, websocket, data)
            healthy.is_served()
        except (AssertionError, Closed, OSError) as fault:
            raise AssertionError(f"input {number} of MUSTER_RUBBISH_SEED={SEED} ({'frames' if websocket else 'bytes'}): {data.hex()}") from fault
    took = time.monotonic() - begun
    deadline = time.monotonic() + 20
    while (after := memory(server)) > before * 1.1 + 4 * MB and time.monotonic() < deadline:
        time.sleep(0.2)  # sessions that are still to be forgotten
        healthy.is_served()
    assert after <= before * 1.1 + 4 * MB, f"{before} bytes resident before, {after} after {INPUTS} inputs"
    assert "panicked" not in server.stderr()
    broker = server.json("status")["broker"]
    record_property(
        "measured", f"{INPUTS} malformed inputs over mutual TLS, a quarter in WebSocket frames, in {took:.0f} s (seed {SEED}): "
        f"resident {before / MB:.1f} MB before, {after / MB:.1f} MB after; {broker['connectsRefused']} refused, {broker['connected']} connected")


# -- memory and time, one by one

@VERSIONS
def test_qos_2_identifiers_never_released_are_bounded(guarded, version):
    """CVE-2023-28366: a client that publishes QoS 2 and never sends a PUBREL."""
    server, rude, healthy = guarded
    payload = bytes(100_000)
    reset_peak(server)
    before = memory(server)
    for _ in range(20):
        with Wire(server, rude) as client:
            assert client.open(rude.name, version=version, clean=False) == 0
            reason = None
            try:
                for packet_id in range(1, 1000):
                    client.send(wire.publish("a", payload, qos=2, packet_id=packet_id, version=version))
                    if packet_id % 20 == 0:
                        client.send(wire.PING)
            except Closed:
                pass
            reason = client.reason_of_end()
        assert reason in (0x93, 0x97, None), reason
        healthy.is_served()
    # What one session may hold, 32 MiB, and what may wait for the disk, 64 MiB, at most; however often it is tried.
    assert memory(server, "VmHWM") - before < 128 * MB


def test_will_properties_do_not_leak(guarded):
    """CVE-2023-3592: CONNECTs with bad will properties."""
    server, rude, healthy = guarded
    context = tls_context(rude)
    flood = (b"\x26" + string("k" * 1000) + string("v" * 1000)) * 60
    bad = [flood + b"\x01\x07", flood + b"\x18\0\0\0\1" * 2, flood + b"\x23\0\1", flood * 2, flood[:-1]]
    session, before = None, None
    for number in range(400):
        if number == 50:
            before = memory(server)
        properties = bad[number % len(bad)]
        tail = wire.length(len(properties)) + properties + string("will") + string("gone")
        with Wire(server, rude, context=context, session=session) as client:
            code = client.open(rude.name, flags=4, tail=tail) if number % 5 != 4 else None
            assert code is None or code >= 0x80, code
            session = client.socket.session
    healthy.is_served()
    assert memory(server) - before < 8 * MB


def test_user_properties_are_bounded(guarded):
    server, rude, healthy = guarded
    one = b"\x26" + string("k") + string("v")
    with Wire(server, rude) as client:
        assert client.open(rude.name) == 0
        client.send(wire.publish("a", b"", qos=1, properties=one * 64))
        assert client.packet()[0] == wire.PUBACK
        client.send(wire.publish("a", b"", qos=1, packet_id=2, properties=one * 65))
        assert client.reason_of_end() in (0x97, 0x82, 0x95)
    with Wire(server, rude) as client:
        assert client.open(rude.name, properties=one * 65) >= 0x80
    healthy.is_served()


@VERSIONS
def test_topics_of_65535_bytes_and_of_30000_levels(guarded, version):
    server, rude, healthy = guarded
    long, deep = "x" * 65_535, "/" * 30_000
    with Wire(server, rude) as client:
        assert client.open(rude.name, version=version) == 0
        client.send(wire.subscribe(long, 1, 1, version))
        assert client.packet()[2][-1] == 1
        client.send(wire.publish(long, b"far", version=version))
        kind, _, body = client.packet()
        assert kind == wire.PUBLISH and body.endswith(b"far")
    for bad in (wire.subscribe(deep, 1, 1, version), wire.subscribe("+/" * 30_000 + "#", 1, 1, version), wire.publish(deep, b"", version=version)):
        with Wire(server, rude) as client:
            assert client.open(rude.name, version=version) == 0
            begun = time.monotonic()
            client.send(bad)
            try:
                kind, _, body = client.packet()
                refused = kind == wire.DISCONNECT or kind == wire.SUBACK and body[-1] >= 0x80
            except Closed:
                refused = version == 4
            assert refused
            assert time.monotonic() - begun < 5
        healthy.is_served()


def deep(number):
    """A topic of 128 levels, which is the most there may be, in 260 bytes."""
    return f"{number:05}" + "/a" * 127


def test_filters_of_many_levels_cost_their_bytes(guarded):
    """A megabyte of them took 244 MB once: a node for each level."""
    server, rude, healthy = guarded
    before = memory(server)
    with Wire(server, rude) as client:
        assert client.open(rude.name) == 0
        for packet_id in range(1, 9):
            filters = b"".join(string(deep(500 * packet_id + n)) + b"\0" for n in range(500))
            client.send(packet(8, struct.pack(">H", packet_id) + b"\0" + filters, flags=2))
            kind, _, body = client.packet()
            assert kind == wire.SUBACK and body[3:] == bytes(500)
        healthy.is_served()
        assert memory(server) - before < 32 * MB
        client.send(wire.publish(deep(600), b"far"))
        kind, _, body = client.packet()
        assert kind == wire.PUBLISH and body.endswith(b"far")


def test_retained_messages_under_many_levels_cost_their_bytes(guarded):
    """A thousand of them, 260 KiB, took 72 MB once, and again at every start."""
    server, rude, healthy = guarded
    before = memory(server)
    with Wire(server, rude) as client:
        assert client.open(rude.name) == 0
        for number in range(1000):
            client.send(wire.publish(deep(number), b"1", qos=1, retain=True))
            kind, _, body = client.packet()
            assert kind == wire.PUBACK and body[2:3] in (b"", b"\0", b"\x10"), body
    healthy.is_served()
    assert memory(server) - before < 24 * MB


def test_a_hundred_thousand_subscriptions_of_one_client_are_bounded(guarded):
    server, rude, healthy = guarded
    granted, refused = 0, 0
    before = memory(server)
    with Wire(server, rude) as client:
        assert client.open(rude.name) == 0
        for packet_id in range(1, 101):
            filters = b"".join(string(f"{packet_id}/{n}/+/#") + b"\0" for n in range(1000))
            client.send(packet(8, struct.pack(">H", packet_id) + b"\0" + filters, flags=2))
            kind, _, body = client.packet()
            assert kind == wire.SUBACK and len(body) == 1003
            granted += body[3:].count(0)
            refused += body[3:].count(0x97)
            healthy.is_served()
    assert (granted, refused) == (20_000, 80_000)
    assert memory(server) - before < 64 * MB


def test_a_thousand_subscriptions_to_long_filters_are_bounded_in_bytes(guarded):
    server, rude, healthy = guarded
    granted, refused = 0, 0
    with Wire(server, rude) as client:
        assert client.open(rude.name) == 0
        for packet_id in range(1, 1001):
            long = string(f"{packet_id:04}/" + "x" * 59_995)
            client.send(packet(8, struct.pack(">H", packet_id) + b"\0" + long + b"\0", flags=2))
            kind, _, body = client.packet()
            assert kind == wire.SUBACK
            granted += body[3:].count(0)
            refused += body[3:].count(0x97)
        healthy.is_served()
    assert (granted, refused) == (MB // 60_000, 1000 - MB // 60_000)


def test_the_alias_table_is_bounded(guarded):
    server, rude, healthy = guarded
    alias = lambda n: b"\x23" + struct.pack(">H", n)
    with Wire(server, rude) as client:
        assert client.open(rude.name) == 0
        for number in range(1, 1001):
            client.send(wire.publish(f"long/{'x' * 1000}/{number}", b"", properties=alias(number % 10 + 1)))
        assert client.ping()
        client.send(wire.publish("a", b"", properties=alias(11)))
        assert client.reason_of_end() == 0x94
    for bad in (alias(0), alias(65_535)):
        with Wire(server, rude) as client:
            assert client.open(rude.name) == 0
            client.send(wire.publish("a", b"", properties=bad))
            assert client.reason_of_end() in (0x94, 0x82)
    healthy.is_served()


@VERSIONS
def test_a_packet_of_268_mb_that_never_comes_costs_nothing(guarded, version):
    server, rude, healthy = guarded
    before = memory(server)
    clients = []
    for _ in range(20):
        client = Wire(server, rude)
        assert client.open(f"rude-{len(clients)}", version=version) == 0
        # Within the bound: the server waits for it, with no more memory than has come.
        client.send(b"\x30" + wire.length(MB - 10) + b"\0\1a" + bytes(10))
        clients.append(client)
    with Wire(server, rude) as client:
        assert client.open(rude.name, version=version) == 0
        client.send(b"\x30\xff\xff\xff\x7f")
        assert client.reason_of_end() == (0x95 if version == 5 else None)
    healthy.is_served()
    assert memory(server) - before < 20 * MB
    for client in clients:
        client.close()


def test_a_reader_that_sleeps_is_bounded_and_the_drops_are_counted(guarded):
    """QoS 0, 1 and 2 for a socket that nobody reads."""
    server, rude, healthy = guarded
    reset_peak(server)
    before = memory(server)
    with Wire(server, rude) as sleeper, Wire(server, rude) as sender:
        assert sleeper.open("sleeper") == 0 and sender.open("sender") == 0
        sleeper.send(wire.subscribe("flood", 2))
        assert sleeper.packet()[0] == wire.SUBACK
        payload = bytes(10_000)
        for packet_id in range(1, 3001):
            sender.send(wire.publish("flood", payload, qos=0) + wire.publish("flood", payload, qos=1, packet_id=packet_id))
            assert sender.packet()[0] == wire.PUBACK
        healthy.is_served()
        broker = server.json("status")["broker"]
        # 1,000 may wait.
        assert broker["droppedQueueFull"] + broker["droppedQos0Full"] > 4000, broker
        assert memory(server, "VmHWM") - before < 64 * MB


def test_one_device_cannot_take_the_room_for_what_all_retain(make_server, connect, tmp_path):
    config = tmp_path / "muster.toml"
    config.write_text("[limits]\nretained_messages = 50\nthing_retained_messages = 10\n")
    server = make_server("--config", str(config))
    greedy, modest = (connect(server, server.device(name)) for name in ("greedy", "modest"))
    for number in range(40):
        told = greedy.publish(f"dt/greedy/{number}", b"1", retain=True)
        assert told == (0 if number < 10 else 0x97), number
    assert modest.publish("dt/modest/state", b"1", retain=True) == 0
    # It may put another in the place of one, and take one away.
    assert greedy.publish("dt/greedy/0", b"2", retain=True) == 0
    assert greedy.publish("dt/greedy/40", b"1", retain=True) == 0x97
    assert greedy.publish("dt/greedy/1", b"", retain=True) == 0
    assert greedy.publish("dt/greedy/40", b"1", retain=True) == 0
    assert server.json("status")["broker"]["refusedRetain"] == 31
    server.said("a message is not retained", "thing greedy")
    said = [line for line in server.stderr().splitlines() if "a message is not retained" in line]
    assert len(said) <= 31 and "thing greedy" in said[0], said


def test_wills_of_those_who_are_away_are_not_held_in_memory(make_server):
    """Each may be 64 KiB, and there may be a million of them."""
    away, each = 200, 60_000
    server = make_server()
    server.policy("everything", EVERYTHING)
    gateway = server.device("gateway", "--policy", "everything")
    context = tls_context(gateway)

    def leave(client_id, payload):
        delay = b"\x18" + struct.pack(">I", 4_000)
        will = wire.length(len(delay)) + delay + string("dt/will") + string(payload)
        with Wire(server, gateway, context=context) as client:
            assert client.open(client_id, properties=b"\x11" + struct.pack(">I", 4_000), flags=4 | 1 << 3, tail=will) == 0

    for number in range(away):
        leave(f"gateway-{number}", b"x")
    before = memory(server)
    for number in range(away):
        leave(f"gateway-{number}", bytes(each))
    eventually(lambda: memory(server) - before <= away * each / 2,
               lambda: f"{(memory(server) - before) / MB:.0f} MB for {away * each / MB:.0f} MB of wills", limit=2 * WAIT_S)
    # They are there: one that is taken up and ended says its own.
    with Wire(server, gateway, context=context) as hearer:
        assert hearer.open("hearer") == 0
        hearer.send(wire.subscribe("dt/will"))
        assert hearer.packet()[0] == wire.SUBACK
        with Wire(server, gateway, context=context) as back:
            assert back.open("gateway-7") == 0
            kind, _, body = hearer.packet()
        assert kind == wire.PUBLISH and body.endswith(bytes(each))
