"""MQTT packets by hand over sockets of our own: for what no well-behaved client would send, and for many sessions."""

import base64
import os
import select
import socket
import ssl
import struct

from clients import WAIT_S, tls_context

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 8, 9, 12, 13, 14


def length(number):
    """A variable byte integer."""
    out = b""
    while True:
        number, digit = divmod(number, 128)
        out += bytes([digit | (0x80 if number else 0)])
        if not number:
            return out


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind, body, flags=0):
    return bytes([kind << 4 | flags]) + length(len(body)) + body


def connect(client_id, version=5, clean=True, keep_alive=60, properties=b"", flags=0, tail=b""):
    flags |= 2 if clean else 0
    body = string("MQTT") + bytes([version, flags]) + struct.pack(">H", keep_alive)
    if version == 5:
        body += length(len(properties)) + properties
    return packet(CONNECT, body + string(client_id) + tail)


def publish(topic, payload=b"", qos=0, packet_id=1, version=5, properties=b"", retain=False, dup=False):
    body = string(topic)
    if qos:
        body += struct.pack(">H", packet_id)
    if version == 5:
        body += length(len(properties)) + properties
    return packet(PUBLISH, body + payload, flags=dup << 3 | qos << 1 | retain)


def subscribe(topic, qos=0, packet_id=1, version=5, properties=b""):
    body = struct.pack(">H", packet_id)
    if version == 5:
        body += length(len(properties)) + properties
    return packet(SUBSCRIBE, body + string(topic) + bytes([qos]), flags=2)


def answer(kind, packet_id):
    """PUBACK, PUBREC, PUBREL or PUBCOMP, with success."""
    return packet(kind, struct.pack(">H", packet_id), flags=2 if kind == PUBREL else 0)


PING = packet(PINGREQ, b"")


class Closed(Exception):
    """The peer closed the connection, or reset it, or sent a TLS alert (its text is the message)."""


class Wire:
    """One TLS connection. `session` resumes an earlier one's TLS session."""

    def __init__(self, server, identity, listener="mqtt", version=None, session=None, context=None, alpn=None, name="localhost"):
        self.context = context or tls_context(identity, version=version)
        if alpn:
            self.context.set_alpn_protocols(alpn)
        self.buffer = b""
        raw = socket.create_connection(server.place(listener), timeout=WAIT_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket = self.context.wrap_socket(raw, server_hostname=name, session=session)
        except OSError as error:
            raw.close()
            raise Closed(str(error)) from error

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from error

    def fill(self):
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise
        except OSError as error:
            raise Closed(str(error)) from error
        if not data:
            raise Closed("end of stream")
        self.buffer += data

    def read(self, count):
        while len(self.buffer) < count:
            self.fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def exchange(self, outgoing, take=None):
        """Writes each of `outgoing` and reads meanwhile, so that neither end waits for the other. (Two threads may not:
        a TLS connection is no two halves.) `take(kind, body)` is given each packet and returns what is to be sent for
        it, `None` to end; without it what comes is thrown away, and all is over when everything has been sent."""
        outgoing, left, waiting = iter(outgoing), b"", True
        self.socket.settimeout(0)
        try:
            while True:
                if not left and waiting:
                    left = next(outgoing, b"")
                    waiting = bool(left)
                if not left and take is None:
                    return
                sent = self._now(lambda: self.socket.send(left[:16_384])) if left else None
                left = left[sent or 0:]
                came = self._now(lambda: self.socket.recv(65_536))
                if came == b"":
                    raise Closed("end of stream")
                if came and take:
                    self.buffer += came
                    while (whole := self._whole()) is not None:
                        answer = take(*whole)
                        if answer is None:
                            return
                        left += answer
                if not sent and not came:
                    # Whichever way it can go on; a TLS connection may have to write in order to read.
                    ready = select.select([self.socket], [self.socket] if left else [], [], WAIT_S)
                    if not any(ready):
                        raise TimeoutError("nothing was taken and nothing came")
        finally:
            self.socket.settimeout(WAIT_S)

    def _now(self, step):
        """What a step without waiting made, `None` if it had to wait."""
        try:
            return step()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            raise Closed(str(error)) from error

    def _whole(self):
        """The packet that the buffer begins with, out of it, if it is there as a whole: kind, body."""
        size = 0
        for at, digit in enumerate(self.buffer[1:5], 1):
            size |= (digit & 0x7F) << 7 * (at - 1)
            if digit & 0x80:
                continue
            if len(self.buffer) < at + 1 + size:
                return None
            head, body, self.buffer = self.buffer[0], self.buffer[at + 1:at + 1 + size], self.buffer[at + 1 + size:]
            return head >> 4, body
        return None

    def packet(self):
        """The next packet: kind, flags, body."""
        head = self.read(1)[0]
        size, shift = 0, 0
        while True:
            digit = self.read(1)[0]
            size |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                break
        return head >> 4, head & 15, self.read(size)

    def open(self, client_id, **how):
        """Connects; returns the CONNACK's reason code."""
        self.send(connect(client_id, **how))
        kind, _, body = self.packet()
        assert kind == CONNACK, kind
        return body[1]

    def ping(self):
        """Whether the session is served: a PINGREQ is answered."""
        self.send(PING)
        while True:
            kind, _, _ = self.packet()
            if kind == PINGRESP:
                return True

    def reason_of_end(self):
        """Reads to the end; the reason code of the DISCONNECT, None where the server just closed."""
        reason = None
        try:
            while True:
                kind, _, body = self.packet()
                if kind == DISCONNECT:
                    reason = body[0] if body else 0
                elif kind == CONNACK:
                    reason = body[1]
        except Closed:
            return reason

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class WebSocket(Wire):
    """The same over WebSocket, frame by frame."""

    def __init__(self, server, identity, protocol="mqtt", path="/mqtt", **how):
        super().__init__(server, identity, listener="wss", **how)
        self.frames = b""
        key = base64.b64encode(os.urandom(16)).decode()
        offer = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
        self.socket.sendall((
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n").encode())
        while b"\r\n\r\n" not in self.frames:
            self._receive()
        head, _, self.frames = self.frames.partition(b"\r\n\r\n")
        self.answer = head.decode()

    def _receive(self):
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise
        except OSError as error:
            raise Closed(str(error)) from error
        if not data:
            raise Closed("end of stream")
        self.frames += data

    def send(self, data, opcode=2, final=True, masked=True):
        head = bytes([(0x80 if final else 0) | opcode])
        size = len(data)
        bit = 0x80 if masked else 0
        if size < 126:
            head += bytes([bit | size])
        elif size < 65536:
            head += bytes([bit | 126]) + struct.pack(">H", size)
        else:
            head += bytes([bit | 127]) + struct.pack(">Q", size)
        if masked:
            mask = os.urandom(4)
            data = mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        try:
            self.socket.sendall(head + data)
        except OSError as error:
            raise Closed(str(error)) from error

    def frame(self):
        """The next frame: opcode and payload."""
        while True:
            if len(self.frames) >= 2:
                size, at = self.frames[1] & 0x7F, 2
                if size == 126 and len(self.frames) >= 4:
                    size, at = struct.unpack(">H", self.frames[2:4])[0], 4
                elif size == 127 and len(self.frames) >= 10:
                    size, at = struct.unpack(">Q", self.frames[2:10])[0], 10
                elif size >= 126:
                    size = None
                if size is not None and len(self.frames) >= at + size:
                    opcode, payload = self.frames[0] & 15, self.frames[at:at + size]
                    self.frames = self.frames[at + size:]
                    return opcode, payload
            self._receive()

    def fill(self):
        opcode, payload = self.frame()
        if opcode == 8:
            self.close_code = struct.unpack(">H", payload[:2])[0] if payload else None
            raise Closed(f"close frame {self.close_code}")
        if opcode == 2:
            self.buffer += payload


TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
