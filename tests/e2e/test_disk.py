"""Disks that are full, read-only, slow or damaged: a clear word, no acknowledgement of what is not safe, and whoever
needs no disk is served meanwhile."""

import errno
import itertools
import shutil
import subprocess
import time

import pytest

import wire
from api import connection
from clients import Paho
from disk import Faults, SmallDisk
from server import EVERYTHING, NotReady, Server
from wire import Wire

DISK_BYTES = 64 << 20
WINDOW = 20  # messages a publisher may have unacknowledged
CANNOT = "the journal cannot be written; nothing is acknowledged until it can"
CAN_AGAIN = "the journal can be written again"
needs_mount = pytest.mark.skipif(not SmallDisk.possible(), reason="a small file system needs root to be mounted")


def wait_for(condition, what, limit=20):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class House:
    """A server with a sender, a receiver that is away with a session that lasts, and two whose messages need no disk."""

    def __init__(self, server):
        self.server = server
        server.policy("all", EVERYTHING)
        self.people = {name: server.device(name, "--policy", "all") for name in ("sender", "away", "here", "near")}
        self.numbers = itertools.count(1)
        self.acknowledged, self.waiting = [], []
        self.last = 0  # that the one who is away has heard
        away = self._away()
        away.subscribe("q", 1)
        away.disconnect()
        self.open()

    def open(self):
        self.here = Paho(self.server, self.people["here"]).connect()
        self.here.subscribe("live")
        self.near = Paho(self.server, self.people["near"], version=4).connect()
        self.sender = Wire(self.server, self.people["sender"])
        assert self.sender.open("sender") == 0

    def close(self):
        self.here.close()
        self.near.close()
        self.sender.close()

    def _away(self):
        return Paho(self.server, self.people["away"], clean=False, expiry=86_400).connect()

    def keep(self, count, size=1000):
        """Publishes and waits for the answers, no more at once than may be in flight."""
        for _ in range(0, count, WINDOW):
            self.publish(min(count, WINDOW), size)
            self.answers()

    def publish(self, count=1, size=1000):
        """To the one who is away; nothing is waited for."""
        for _ in range(count):
            number = next(self.numbers)
            self.waiting.append(number)
            self.sender.send(wire.publish("q", f"{number} ".encode().ljust(size, b"x"), qos=1, packet_id=number))

    def answers(self):
        """Waits for the PUBACK of everything published."""
        while self.waiting:
            kind, _, body = self.sender.packet()
            assert kind == wire.PUBACK and (len(body) == 2 or body[2] < 0x80), (kind, body)
            number = int.from_bytes(body[:2], "big")
            self.waiting.remove(number)
            self.acknowledged.append(number)

    def answers_nothing(self):
        """The sender is served, and its messages are not acknowledged."""
        self.sender.send(wire.PING)
        kind, _, _ = self.sender.packet()
        assert kind == wire.PINGRESP, kind

    def others_are_served(self):
        for qos in (0, 1, 2):
            self.near.publish("live", b"x", qos=qos)
            assert self.here.message().payload == b"x"

    def all_is_there(self):
        """What was acknowledged arrives, in order, each once; what was not may."""
        away = self._away()
        assert away.session_present
        for number in self.acknowledged:
            heard = self.last
            while heard <= self.last:  # after a crash it may come once more
                heard = int(away.payload().split()[0])
            assert heard == number
            self.last = heard
        away.disconnect()
        self.acknowledged.clear()


@pytest.fixture
def small(tmp_path):
    home = tmp_path / "small"
    home.mkdir()
    with SmallDisk(home / "data", DISK_BYTES) as disk:
        server = Server(home)
        try:
            yield server, disk
        finally:
            server.stop()


@needs_mount
def test_a_full_disk_is_said_nothing_is_acknowledged_and_with_room_service_returns(small):
    server, disk = small
    house = House(server)
    house.keep(40)
    disk.fill()
    house.publish(1, size=100_000)
    wait_for(lambda: CANNOT in server.stderr() and "No space left on device" in server.stderr(), "the log says nothing")
    house.answers_nothing()
    # What comes when the disk is known to be full is not taken: its sender is read on when there is room.
    house.publish(2, size=100_000)
    house.others_are_served()
    # A change of the registry is refused before it is begun, with the mend.
    for refused in (["device", "create", "late"], ["device", "revoke", "near", "--yes"]):
        assert "make room" in server.refused(*refused)
    assert server.json("status")["broker"]["connected"] >= 3
    house.others_are_served()
    disk.free()
    house.answers()
    server.said(CAN_AGAIN)
    house.keep(40)
    late = server.device("late", "--policy", "all")
    Paho(server, late).connect().close()
    assert "late" in server.cli("device", "list")
    house.all_is_there()
    # And nothing of it was for this life only.
    server.kill9()
    server.start()
    house.open()
    assert "late" in server.cli("device", "list")
    house.keep(5)
    house.all_is_there()
    house.close()


@needs_mount
def test_a_crash_on_a_full_disk_loses_nothing_acknowledged(small):
    server, disk = small
    house = House(server)
    house.keep(40)
    disk.fill()
    house.publish(20, size=100_000)
    wait_for(lambda: CANNOT in server.stderr(), "the log says nothing")
    server.kill9()
    # Full as it is, it starts or says why not; with room it starts.
    try:
        server.start()
        server.kill9()
    except NotReady as refused:
        assert "No space left" in refused.stderr or "make room" in refused.stderr, refused.stderr
    disk.free()
    server.start()
    house.close()
    house.open()
    house.waiting.clear()
    away = house._away()
    assert [int(away.payload().split()[0]) for _ in house.acknowledged] == house.acknowledged
    away.disconnect()
    house.close()


@needs_mount
def test_a_read_only_disk_is_refused_at_the_start_and_left_as_it_is(small):
    server, disk = small
    house = House(server)
    house.keep(5)
    house.close()
    assert server.terminate() == 0
    disk.read_only(True)
    with pytest.raises(NotReady) as refused:
        server.start()
    assert refused.value.code != 0
    said = refused.value.stderr.strip().splitlines()[-1]
    assert "Read-only file system" in said and str(server.data) in said, said
    disk.read_only(False)
    server.start()
    house.open()
    house.all_is_there()
    house.close()


def test_a_file_that_may_not_grow_is_a_full_disk(make_server):
    """The same without a mount: a limit on the size of files, as `ulimit -f` sets it."""
    server = make_server(wrapper=["sh", "-c", 'trap "" XFSZ; exec "$@"', "sh"])
    house = House(server)
    house.keep(10)
    limit(server, 100_000)
    house.publish(3, size=100_000)
    wait_for(lambda: CANNOT in server.stderr() and "File too large" in server.stderr(), "the log says nothing")
    house.answers_nothing()
    house.others_are_served()
    limit(server, "unlimited")
    house.answers()
    house.all_is_there()
    house.close()


def limit(server, size):
    subprocess.run(["prlimit", "--pid", str(server.process.pid), f"--fsize={size}:unlimited"], check=True)


@pytest.mark.parametrize("what, number", [("write", errno.EROFS), ("write", errno.EIO), ("sync", errno.EIO)],
                         ids=["read-only", "write fails", "sync fails"])
def test_a_disk_that_fails_acknowledges_nothing_and_works_again(make_server, tmp_path, what, number):
    faults = Faults(tmp_path)
    server = make_server(env=faults.env)
    house = House(server)
    house.keep(20)
    faults.set(what, number)
    house.publish(5)
    wait_for(lambda: CANNOT in server.stderr(), "the log says nothing")
    house.answers_nothing()
    house.others_are_served()
    faults.set()
    house.answers()
    server.said(CAN_AGAIN)
    house.keep(20)
    house.all_is_there()
    house.close()


def post(server, who, patience):
    """The status of a message that is retained over HTTPS; None where it has hung up before it was answered."""
    line = connection(server, who)
    try:
        line.request("POST", "/topics/dt%2Fposts?qos=1&retain=true", b"q" * 50_000)
        line.sock.settimeout(patience)
        return line.getresponse().status
    except TimeoutError:
        return None
    finally:
        line.close()


def test_messages_that_wait_for_a_disk_that_fails_have_an_end_though_whoever_sent_them_hangs_up(make_server, tmp_path):
    faults = Faults(tmp_path)
    server = make_server(env=faults.env)
    server.policy("all", EVERYTHING)
    lamp, other = (server.device(name, "--policy", "all") for name in ("lamp", "other"))
    assert post(server, lamp, 30) == 200
    faults.set("write", errno.EIO)
    wait_for(lambda: post(server, lamp, 0.1) == 429, "as many wait as come", limit=60)
    assert post(server, other, 0.5) is None, "others have places of their own"
    faults.set()
    server.said(CAN_AGAIN)
    wait_for(lambda: post(server, lamp, 30) == 200, "no place is free again")
    assert post(server, other, 30) == 200


def test_a_registry_whose_disk_fails_says_so_and_after_a_restart_all_acknowledged_is_there(make_server, tmp_path):
    faults = Faults(tmp_path)
    server = make_server(env=faults.env)
    house = House(server)
    faults.set("sync", errno.EIO)
    said = server.refused("device", "create", "doubtful")
    assert "log" in said, said
    server.said("the tables accept no more changes until the next start")
    server.refused("status")
    house.others_are_served()
    faults.set()
    # What a disk made of a sync that failed nobody knows: only a restart mends it.
    server.refused("device", "create", "late")
    house.close()
    server.restart()
    listed = server.cli("device", "list")
    assert all(name in listed for name in house.people) and "late" not in listed
    assert server.cli("status").strip() == "running"
    server.device("late")


def test_a_slow_sync_holds_back_acknowledgements_and_nobody_else(make_server, tmp_path):
    faults = Faults(tmp_path)
    server = make_server(env=faults.env)
    house = House(server)
    house.keep(20)
    faults.set("slow", 1500)
    begun = time.monotonic()
    house.publish(20)
    # Several round trips of the others fit into one sync.
    house.others_are_served()
    house.others_are_served()
    house.answers_nothing()
    assert house.waiting
    served = time.monotonic() - begun
    house.answers()
    acknowledged = time.monotonic() - begun
    assert served < acknowledged and acknowledged >= 1.5
    faults.set()
    house.all_is_there()
    house.close()


# -- what lies on the disk is not what was written

def segments(server):
    return sorted((server.data / "journals/broker").glob("*.log"))


@pytest.fixture
def kept(server):
    """A server that was stopped, with messages in its journal that were acknowledged."""
    house = House(server)
    house.keep(30)
    house.close()
    return house


@pytest.mark.parametrize("tail", [b"\x00" * 700, bytes(range(256)) * 3, b"\x01"], ids=["zeros", "noise", "one byte"])
def test_a_torn_last_write_is_cut_and_nothing_acknowledged_goes_with_it(kept, tail):
    server = kept.server
    server.kill9()
    with open(segments(server)[-1], "ab") as segment:
        segment.write(tail)
    server.start()
    server.said("cutting a torn tail")
    kept.open()
    kept.keep(5)
    kept.all_is_there()
    kept.close()


def damaged(server, path, damage):
    """Starts on a damaged file; returns what was said, None where it started. The file is whole again then."""
    backup = server.home / "backup"
    shutil.copytree(path.parent, backup)
    path.write_bytes(damage(path.read_bytes()))
    try:
        server.start()
        return None
    except NotReady as refused:
        assert refused.code != 0 and "panicked" not in refused.stderr, refused.stderr
        shutil.rmtree(path.parent)
        backup.rename(path.parent)
        return refused.stderr.strip().splitlines()[-1]


def flipped(part):
    def flip(whole):
        at = int(len(whole) * part)
        return whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1:]
    return flip


@pytest.mark.parametrize("damage", [
    pytest.param(flipped(0.0), id="header"), pytest.param(flipped(0.1), id="bit near the beginning"),
    pytest.param(flipped(0.5), id="bit in the middle"), pytest.param(lambda whole: whole[:20], id="header cut"),
    pytest.param(lambda whole: whole[:1000] + bytes(1000) + whole[2000:], id="hole")])
def test_a_damaged_journal_is_refused_by_name_and_place(kept, damage):
    server = kept.server
    server.terminate()
    path = segments(server)[-1]
    said = damaged(server, path, damage)
    assert said is not None, "it started on a damaged journal"
    assert str(path) in said and "damaged at offset" in said and "backup" in said, said
    server.start()
    kept.open()
    kept.all_is_there()
    kept.close()


def test_a_missing_segment_or_journal_is_not_taken_for_an_empty_one(make_server):
    server = make_server()
    house = House(server)
    # More than one segment of 64 MiB.
    house.keep(700, size=100_000)
    house.close()
    server.terminate()
    first, *more = segments(server)
    assert more
    for missing in more:
        aside = server.home / missing.name
        shutil.move(missing, aside)
        with pytest.raises(NotReady) as refused:
            server.start()
        assert "damaged" in refused.value.stderr, refused.value.stderr
        shutil.move(aside, missing)
    server.start()
    house.open()
    house.all_is_there()
    house.close()


@pytest.mark.parametrize("part", [0.1, 0.4, 0.7, 0.95])
@pytest.mark.parametrize("kind", ["cut", "bit"])
def test_a_damaged_registry_is_refused_or_whole(server, kind, part):
    """A cut log or a flipped bit must not make devices, or their revocations, be forgotten in silence."""
    names = {f"lamp-{n}" for n in range(8)}
    for name in names:
        server.device(name)
    server.cli("device", "revoke", "lamp-3", "--yes")
    server.terminate()
    path, = server.data.glob("tables.*/db")
    said = damaged(server, path, flipped(part) if kind == "bit" else lambda whole: whole[:int(len(whole) * part)])
    if said is not None:
        assert str(server.data) in said, said
        server.start()
    listed = server.cli("device", "list")
    assert all(name in listed for name in names)
    assert "REVOKED" in server.cli("device", "show", "lamp-3")
