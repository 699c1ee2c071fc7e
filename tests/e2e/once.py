"""A publisher and a receiver of QoS 2 that keep their half of the session over any number of connections, so that what
arrives twice or never is the server's doing."""

import struct
import threading
import time

import wire
from wire import PINGRESP, PUBCOMP, PUBLISH, PUBREC, PUBREL, Wire, answer

WINDOW = 15
LASTING = b"\x11" + struct.pack(">I", 86_400)


def number_at(body, at):
    return struct.unpack(">H", body[at:at + 2])[0]


class Client:
    """One end with a session that lasts. `work` runs on a thread of its own, once per life of the server."""

    def __init__(self, server, identity, version):
        self.server, self.identity, self.version = server, identity, version
        self.known = False  # whether the server must remember the session
        self.fault = None

    def connect(self):
        client = Wire(self.server, self.identity)
        how = {"properties": LASTING} if self.version == 5 else {}
        client.send(wire.connect(self.identity.name, version=self.version, clean=False, **how))
        kind, _, body = client.packet()
        assert kind == wire.CONNACK and body[1] == 0, body
        assert bool(body[0]) == self.known, "the session was forgotten" if self.known else "a session from nowhere"
        self.known = True
        return client

    def begin(self, *arguments):
        self.thread = threading.Thread(target=self._guarded, args=arguments, daemon=True)
        self.thread.start()

    def _guarded(self, *arguments):
        try:
            with self.connect() as client:
                self.work(client, *arguments)
        except (wire.Closed, OSError):
            pass  # the server is gone
        except BaseException as fault:  # shown by end()
            self.fault = fault

    def end(self):
        self.thread.join(30)
        assert not self.thread.is_alive()
        if self.fault:
            raise self.fault


class Publisher(Client):
    """Publishes numbers; what is not completed goes on where it was with the next connection."""

    def __init__(self, *who):
        super().__init__(*who)
        self.topic = f"once/{self.identity.name}"
        self.next, self.next_id = 1, 1
        self.open = {}  # packet id → number, None once it is released; in order
        self.completed = 0

    def _publish(self, client, packet_id, number, dup):
        payload = f"{self.identity.name} {number}".encode()
        client.send(wire.publish(self.topic, payload, qos=2, packet_id=packet_id, version=self.version, dup=dup))

    def work(self, client, enough):
        for packet_id, number in self.open.items():
            if number is None:
                client.send(answer(PUBREL, packet_id))
            else:
                self._publish(client, packet_id, number, dup=True)
        while True:
            while len(self.open) < WINDOW and not enough(self):
                packet_id, number = self.next_id, self.next
                self.next, self.next_id = self.next + 1, self.next_id % 65_535 + 1
                self.open[packet_id] = number
                self._publish(client, packet_id, number, dup=False)
            if not self.open:
                return
            kind, _, body = client.packet()
            packet_id = number_at(body, 0)
            if kind == PUBREC:
                assert len(body) == 2 or body[2] < 0x80, f"refused with {body[2]:#x}"
                self.open[packet_id] = None
                client.send(answer(PUBREL, packet_id))
            elif kind == PUBCOMP:
                self.open.pop(packet_id, None)
                self.completed += 1


class Receiver(Client):
    """Takes a message at its PUBLISH, once per identifier until the PUBREL."""

    def __init__(self, *who):
        super().__init__(*who)
        self.held = set()
        self.heard = {}  # publisher → numbers in order of arrival
        self.again = 0   # PUBLISH packets that were sent again

    def subscribe(self):
        with self.connect() as client:
            client.send(wire.subscribe("once/#", qos=2, version=self.version))
            assert client.packet()[2][-1] == 2

    def work(self, client, enough):
        client.socket.settimeout(0.2)
        asked = time.monotonic()
        while not enough(self):
            try:
                kind, _, body = client.packet()
            except TimeoutError:
                assert time.monotonic() - asked < 30, "the server is silent"
                client.send(wire.PING)
                continue
            asked = time.monotonic()
            if kind == PUBLISH:
                at = 2 + number_at(body, 0)
                packet_id, at = number_at(body, at), at + 2
                if self.version == 5:
                    at += 1 + body[at]
                if packet_id in self.held:
                    self.again += 1
                else:
                    self.held.add(packet_id)
                    publisher, number = body[at:].decode().split()
                    self.heard.setdefault(publisher, []).append(int(number))
                client.send(answer(PUBREC, packet_id))
            elif kind == PUBREL:
                packet_id = number_at(body, 0)
                self.held.discard(packet_id)
                client.send(answer(PUBCOMP, packet_id))
            else:
                assert kind == PINGRESP, kind
