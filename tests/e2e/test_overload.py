"""Fifty publishers at full speed, one receiver that reads ten messages a second, and others that lose nothing."""

import select
import struct
import time

import wire
from server import EVERYTHING
from test_rubbish import MB, memory, reset_peak
from wire import Wire

PUBLISHERS, MESSAGES, PAYLOAD_BYTES, WINDOW = 50, 1000, 1000, 20
QUEUE_MESSAGES, QUEUE_MB, IN_FLIGHT = 10_000, 16, 2000
SLOW_PER_S = 10


class Publisher:
    """Keeps its window full: QoS 1, numbered, with no other pause than the acknowledgements."""

    def __init__(self, server, identity, number):
        self.wire = Wire(server, identity)
        assert self.wire.open(f"pub-{number}", version=4) == 0
        self.wire.socket.setblocking(False)
        self.number, self.sent, self.acknowledged, self.rest = number, 0, 0, b""

    def turn(self):
        self.acknowledged += read(self.wire).count(b"\x40\x02") if self.sent else 0
        batch = []
        while self.sent < MESSAGES and self.sent - self.acknowledged < WINDOW:
            self.sent += 1
            body = struct.pack(">HH", self.number, self.sent).ljust(PAYLOAD_BYTES, b"x")
            batch.append(wire.publish("load", body, qos=1, packet_id=self.sent, version=4))
        self.rest += b"".join(batch)
        try:
            while self.rest:
                self.rest = self.rest[self.wire.socket.send(self.rest):]
        except (BlockingIOError, ConnectionError, OSError) as error:
            assert getattr(error, "errno", None) in (None, 2, 3, 11), error


def read(client):
    """What is there now."""
    data = b""
    try:
        while part := client.socket.recv(1 << 18):
            data += part
        raise AssertionError("the server closed the connection")
    except OSError as error:
        assert getattr(error, "errno", None) in (2, 3, 11), error
    return data


class Receiver:
    """Counts what comes, publisher by publisher, and acknowledges it."""

    def __init__(self, server, identity, name, qos):
        self.wire = Wire(server, identity)
        assert self.wire.open(name, version=4) == 0
        self.wire.send(wire.subscribe("load", qos, version=4))
        assert self.wire.packet()[2][-1] == qos
        self.length = len(wire.publish("load", bytes(PAYLOAD_BYTES), qos=qos, version=4))
        self.qos, self.heard, self.last, self.buffer = qos, 0, [0] * PUBLISHERS, b""

    def take(self, data):
        self.buffer += data
        acks, at = [], 0
        while at + self.length <= len(self.buffer):
            one = self.buffer[at:at + self.length]
            at += self.length
            publisher, number = struct.unpack(">HH", one[self.length - PAYLOAD_BYTES:][:4])
            assert number > self.last[publisher], "out of order, or twice"
            self.last[publisher] = number
            self.heard += 1
            if self.qos:
                acks.append(wire.answer(wire.PUBACK, struct.unpack(">H", one[-PAYLOAD_BYTES - 2:-PAYLOAD_BYTES])[0]))
        self.buffer = self.buffer[at:]
        if acks:
            self.wire.socket.setblocking(True)
            self.wire.send(b"".join(acks))
            self.wire.socket.setblocking(False)

    def turn(self):
        self.take(read(self.wire))


def test_fifty_publishers_and_one_slow_receiver(make_server, tmp_path, record_property):
    config = tmp_path / "muster.toml"
    config.write_text(f"[limits]\nsession_queue_messages = {QUEUE_MESSAGES}\nsession_queue_bytes = {QUEUE_MB * MB}\n"
                      f"session_inflight_messages = {IN_FLIGHT}\n")
    server = make_server("--config", str(config))
    server.policy("all", EVERYTHING)
    identity = server.device("load", "--policy", "all")
    publishers = [Publisher(server, identity, number) for number in range(PUBLISHERS)]
    others = [Receiver(server, identity, f"other-{qos}", qos) for qos in (0, 1)]
    slow = Receiver(server, identity, "slow", qos=1)
    for client in others:
        client.wire.socket.setblocking(False)
    reset_peak(server)
    before, begun, due = memory(server), time.monotonic(), 0.0
    total = PUBLISHERS * MESSAGES
    while any(p.acknowledged < MESSAGES for p in publishers) or any(r.heard < total for r in others):
        waiting = [p.wire.socket for p in publishers] + [r.wire.socket for r in others]
        select.select(waiting, [], [], 0.05)
        for receiver in others:
            receiver.turn()
        for publisher in publishers:
            publisher.turn()
            if publisher.number % 10 == 0:
                for receiver in others:
                    receiver.turn()
        elapsed = time.monotonic() - begun
        assert elapsed < 120, [r.heard for r in others]
        if elapsed > due:
            # One message, and a tenth of a second later the next.
            due = elapsed + 1 / SLOW_PER_S
            slow.wire.socket.setblocking(True)
            slow.take(slow.wire.socket.recv(slow.length))
            slow.wire.socket.setblocking(False)
    took = time.monotonic() - begun
    peak = memory(server, "VmHWM")
    assert [r.heard for r in others] == [total, total]
    status = server.json("status")
    dropped = status["broker"]["droppedQueueFull"]
    assert dropped > 0
    # And it is said whose they were.
    assert [(queue["clientId"], queue["dropped"]) for queue in status["fullQueues"]] == [("slow", dropped)]
    assert f"queue of slow (thing load) was full: {dropped} messages dropped" in server.cli("status")
    # Three queues; for each connection what is read at once, what is written at once and what TLS holds.
    bound = 3 * QUEUE_MB * MB + (PUBLISHERS + 3) * 3 * 65_536 + 16 * MB
    assert peak - before < bound, f"{peak - before} bytes more at the peak, the bounds add up to {bound}"
    # Every message was delivered to the slow one, or counted as dropped.
    slow.wire.socket.settimeout(20)
    while slow.heard + dropped < total:
        slow.take(slow.wire.socket.recv(1 << 16))
        slow.wire.socket.settimeout(20)
    assert slow.heard + dropped == total
    record_property(
        "measured", f"{PUBLISHERS} publishers at full speed: {total} messages of {PAYLOAD_BYTES} bytes in {took:.1f} s to each of 2 receivers, none lost; "
        f"a third at {SLOW_PER_S}/s: {dropped} dropped and counted; memory {before / MB:.0f} MB before, {peak / MB:.0f} MB at most (bounds: {bound / MB:.0f} MB more)")
    for client in publishers + others + [slow]:
        client.wire.close()
