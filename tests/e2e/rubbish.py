"""Inputs that are nearly right: valid conversations of MQTT 3.1.1 and 5.0 with something broken in them, from a seed."""

import random
import struct

import wire
from wire import PUBACK, PUBCOMP, PUBREC, PUBREL, answer, packet, string

SPECIAL = [0x00, 0x01, 0x7F, 0x80, 0xFF, 0x10, 0x30, 0xE0]


def conversation(chance, client_id, version):
    """Packets of a client, in an order that makes sense."""
    v5 = version == 5
    props = lambda *given: wire.length(len(b"".join(given))) + b"".join(given) if v5 else b""
    number = lambda n: struct.pack(">H", n)
    expiry = b"\x11" + struct.pack(">I", chance.choice([0, 1, 2]))
    will = chance.random() < 0.3
    connect = wire.connect(
        client_id, version=version, clean=chance.random() < 0.7,
        properties=expiry + b"\x21" + number(5) + b"\x22" + number(5) if v5 else b"",
        flags=0x0C if will else 0, tail=props(b"\x18\0\0\0\1") + string("will") + string("gone") if will else b"")
    packets = [connect]
    for packet_id in range(1, chance.randint(2, 7)):
        qos = chance.randint(0, 2)
        more = b""
        if v5:
            more = chance.choice([b"", b"\x01\x01", b"\x02\0\0\0\x09", b"\x23\0\x01", b"\x26" + string("k") + string("v"),
                                  b"\x03" + string("text"), b"\x08" + string("answer") + b"\x09" + string(b"\x01")])
        topic = chance.choice(["a", "a/b", "a/+", "$aws/x", "ä/ö", "a" * 200])
        packets.append(chance.choice([
            wire.publish(topic, chance.randbytes(chance.choice([0, 10, 200])), qos=qos, packet_id=packet_id, version=version,
                         properties=more, retain=chance.random() < 0.2, dup=qos > 0 and chance.random() < 0.2),
            wire.subscribe(chance.choice(["a/#", "+/+", "$share/g/a", "#"]), qos, packet_id, version, b"\x0b\x05" if v5 else b""),
            packet(10, number(packet_id) + props() + string("a/#"), flags=2),
            answer(chance.choice([PUBACK, PUBREC, PUBREL, PUBCOMP]), packet_id),
            wire.PING,
        ]))
    packets.append(packet(14, b"\x04" if v5 and chance.random() < 0.5 else b""))
    return packets


def broken(chance, packets):
    """The same with one to four things wrong: a byte, a length, an order, an end."""
    packets = [bytearray(p) for p in packets]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(packets))
        one = packets[at]
        if len(one) < 2:
            continue
        place = chance.randrange(len(one))
        match chance.randrange(11):
            case 0:
                one[place] ^= 1 << chance.randrange(8)
            case 1:
                one[place] = chance.choice(SPECIAL)
            case 2:
                del one[place:]
            case 3:
                one[place:place] = chance.randbytes(chance.randint(1, 20))
            case 4:
                del one[place:place + chance.randint(1, 8)]
            case 5:
                # A remaining length that is overlong, too long by far, or off by one.
                one[1:2] = chance.choice([bytes([one[1] | 0x80, 0]), b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\x01", bytes([one[1] + 1 & 0x7F])])
            case 6:
                packets.insert(at, bytearray(chance.choice(packets)))
            case 7:
                chance.shuffle(packets)
            case 8:
                one[0] = chance.randrange(256)
            case 9:
                one[place:] = one[:place] * 2
            case 10:
                one[place:place + 2] = chance.choice([b"\0\0", b"\xff\xff", b"\xc0\x80", b"\xed\xa0", b"+#"])
    return b"".join(packets)


def frames(chance, data):
    """The bytes in WebSocket frames of a client, now and then with something wrong in a frame."""
    out = b""
    while data:
        size = chance.randint(1, max(1, len(data)))
        part, data = data[:size], data[size:]
        first, masked = 0x82, 0x80
        if chance.random() < 0.1:
            first = chance.randrange(256)
        if chance.random() < 0.05:
            masked = 0
        claimed = len(part) if chance.random() > 0.05 else chance.choice([0, 125, 126, 65_535, 1 << 40, (1 << 64) - 1])
        if claimed < 126:
            head = bytes([first, masked | claimed])
        elif claimed < 65_536:
            head = bytes([first, masked | 126]) + struct.pack(">H", claimed)
        else:
            head = bytes([first, masked | 127]) + struct.pack(">Q", claimed)
        mask = chance.randbytes(4) if masked else b""
        out += head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(part)) if masked else head + part
    return out


class Inputs:
    """Input `n` of a seed is always the same."""

    def __init__(self, seed, client_id):
        self.seed, self.client_id = seed, client_id

    def __getitem__(self, n):
        """Whether it goes through a WebSocket, and the bytes."""
        chance = random.Random(f"{self.seed} {n}")
        data = broken(chance, conversation(chance, self.client_id, chance.choice([4, 5])))
        websocket = n % 4 == 3
        return websocket, frames(chance, data) if websocket else data
