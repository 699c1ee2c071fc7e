"""Whoever takes the server's log may stop to read it: nothing that is served waits for that."""

import os
import select
import threading

import pytest

import wire
from server import EVERYTHING, START_LIMIT_S
from wire import Wire


class Stalled:
    """What the server's standard error is: a full pipe that nobody reads, until `read` is called."""

    def __init__(self, home):
        self.path = home / "stderr"
        os.mkfifo(self.path)
        self.end = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self.fill()

    @property
    def wrapper(self):
        return ("sh", "-c", 'exec "$@" 2>"$0"', str(self.path))

    def fill(self):
        for size in (4096, 1):
            try:
                while True:
                    os.write(self.end, b"-" * size)
            except BlockingIOError:
                """It is full."""

    def read_until(self, words):
        text = b""
        while words not in text:
            assert select.select([self.end], [], [], START_LIMIT_S)[0], text[-2000:]
            text += os.read(self.end, 1 << 16)
        return text


@pytest.fixture
def stalled(tmp_path):
    pipe = Stalled(tmp_path)
    yield pipe
    os.close(pipe.end)


def test_nobody_waits_for_a_log_that_is_not_read(make_server, stalled):
    server = make_server(wrapper=stalled.wrapper)
    server.policy("everything", EVERYTHING)
    lamp, other = (server.device(name, "--policy", "everything") for name in ("lamp", "other"))
    stranger = server.device("stranger")
    with Wire(server, lamp) as client, Wire(server, other) as sender:
        assert client.open("lamp") == 0 and sender.open("other") == 0
        client.send(wire.subscribe("t", 0))
        assert client.packet()[0] == wire.SUBACK
        # A refusal is a line of the log by the thread that serves.
        with Wire(server, stranger) as refused:
            assert refused.open("lamp") == 0x87
        sender.send(wire.publish("t", b"on", qos=1))
        assert sender.packet()[0] == wire.PUBACK and client.packet()[0] == wire.PUBLISH
        server.cli("device", "revoke", "lamp", "--yes")
        client.reason_of_end()
        assert sender.ping()
    assert server.terminate() == 0


def test_what_was_said_meanwhile_is_there_when_it_is_read(make_server, stalled):
    server = make_server(wrapper=stalled.wrapper, env={"MUSTER_LOG": "debug"})
    lamp = server.device("lamp")
    with Wire(server, lamp) as client:
        assert client.open("lamp") == 0
    stalled.read_until(b"lamp")
    # To the last word.
    rest = []
    reader = threading.Thread(target=lambda: rest.append(stalled.read_until(b"stopped")))
    reader.start()
    assert server.terminate() == 0
    reader.join(START_LIMIT_S)
    assert b"draining" in rest[0]
