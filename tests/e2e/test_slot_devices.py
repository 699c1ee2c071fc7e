"""Slots that are devices: files stand in for the two partitions of a board; where the system lets us, real loop devices too."""

import os
import subprocess

import pytest

from devices import eventually, outcome
from release import opened
from test_agent import agent, house, install, stolen, team  # noqa: F401 - fixtures

ROOM = 3 << 20
BEFORE = b"\xee"

# The image is the first bytes of a device; how many, the state does not say: the health command knows its own.
HEALTH = 'echo "0 $MUSTER_VERSION" >>"$MUSTER_STATE/trials"; echo "$MUSTER_SLOT $MUSTER_IMAGE" >>"$MUSTER_STATE/where"; head -c 4 "$MUSTER_IMAGE" | grep -q good'


def image(mark):
    return b"good" + mark + os.urandom(1 << 20)


@pytest.fixture
def partitions(tmp_path):
    paths = [tmp_path / "p2", tmp_path / "p3"]
    for path in paths:
        path.write_bytes(BEFORE * ROOM)
    return paths


@pytest.fixture
def lamp(agent, team, stolen, partitions):  # noqa: F811
    return agent("--trust", team.root("first"), "--slot-a", partitions[0], "--slot-b", partitions[1], source=stolen, health=HEALTH)


def test_images_go_to_the_devices_in_turn_and_a_bad_one_is_given_up(team, stolen, lamp, install, partitions):  # noqa: F811
    first, second = image(b"one"), image(b"two, and longer")
    for version, content in (("1.0.0", first), ("2.0.0", second), ("3.0.0", b"evil" + second)):
        stolen.serve("lamp", version, *opened(team.package("lamp", version, content)))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    assert install(lamp, "lamp", "2.0.0")[0] == "SUCCEEDED"
    for path, content in zip(partitions, (first, second)):
        assert path.read_bytes() == content + BEFORE * (ROOM - len(content)), "the image, and behind it what was there"
    assert (lamp.state / "where").read_text().split() == ["a", str(partitions[0]), "b", str(partitions[1])]
    ended, said = install(lamp, "lamp", "3.0.0")
    assert (ended, said["step"]) == ("FAILED", "fell-back"), said
    assert lamp.status() == {"name": "lamp", "version": "2.0.0", "slot": "b", "trial": False, "confirmed": True}
    assert partitions[1].read_bytes().startswith(second), "what runs is not touched"
    assert not any((lamp.state / "download").iterdir()) and not list(lamp.state.glob("slots/*/image"))


def test_an_image_that_has_no_room_is_refused_before_it_is_fetched(team, stolen, lamp, install, partitions):  # noqa: F811
    content = os.urandom(ROOM + 1)
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", content)))
    ended, said = install(lamp, "lamp", "1.0.0")
    assert ended == "FAILED" and f"has room for {ROOM} bytes, the image has {ROOM + 1}" in said["reason"], said
    assert not any(path.endswith("/image") for path, _ in stolen.asked)
    assert partitions[0].read_bytes() == BEFORE * ROOM


def test_a_device_that_is_gone_is_named_and_the_next_try_works(team, stolen, lamp, install, partitions):  # noqa: F811
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", image(b""))))
    away = partitions[0].with_suffix(".away")
    partitions[0].rename(away)
    ended, said = install(lamp, "lamp", "1.0.0")
    assert ended == "FAILED" and "the device's disk" in said["reason"], said
    away.rename(partitions[0])
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"


def test_a_power_cut_on_the_way_to_the_device_ends_on_a_whole_image(house, team, stolen, lamp, install, partitions):  # noqa: F811
    content = image(b"one")
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", content)))
    path = "/firmware/lamp/1.0.0/image"
    stolen.stall[path] = len(content) - 10
    job = install(lamp, "lamp", "1.0.0", wait=False)
    assert stolen.stalled.wait(60)
    lamp.kill9()
    assert partitions[0].read_bytes() == BEFORE * ROOM, "nothing that is not verified goes to a device"
    del stolen.stall[path]
    lamp.start()
    assert outcome(house.client, job, lamp.name)[0] == "SUCCEEDED"
    assert partitions[0].read_bytes().startswith(content)


def test_mistakes_with_devices_are_named(agent, partitions, tmp_path):  # noqa: F811
    board = agent(start=False)

    def said(*flags):
        done = subprocess.run([*board.command, *map(str, flags)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        assert done.returncode != 0, done.stderr
        return done.stderr

    assert "--slot-b" in said("--slot-a", partitions[0])
    assert "the device of slot a too" in said("--slot-a", partitions[0], "--slot-b", partitions[0])
    assert "must name a partition" in said("--slot-a", partitions[0], "--slot-b", tmp_path / "none")
    assert "neither a block device nor a file" in said("--slot-a", "/dev/null", "--slot-b", partitions[0])
    board.process = board.start().process
    eventually(lambda: board.process.poll() is None, "an agent without devices starts")


@pytest.fixture
def loops(partitions):
    """The partitions as block devices of the kernel."""
    made = []
    try:
        for path in partitions:
            done = subprocess.run(["losetup", "--find", "--show", path], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"no loop devices here: {done.stderr.strip()}")
            made.append(done.stdout.strip())
        yield made
    finally:
        for device in made:
            subprocess.run(["losetup", "--detach", device], stdin=subprocess.DEVNULL, check=True)


def test_block_devices_of_the_kernel(team, stolen, agent, install, loops, partitions):  # noqa: F811
    lamp = agent("--trust", team.root("first"), "--slot-a", loops[0], "--slot-b", loops[1], source=stolen, health=HEALTH)
    content = image(b"one")
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", content)))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    assert partitions[0].read_bytes().startswith(content) and partitions[1].read_bytes() == BEFORE * ROOM


@pytest.fixture
def mounted(loops, tmp_path):
    """Slot a's device with a file system on it, mounted; called, it is unmounted."""
    there = tmp_path / "mounted"
    there.mkdir()

    def run(*command):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"{command[0]}: {done.stderr.strip()}")

    run("mkfs.ext4", "-q", "-F", loops[0])
    run("mount", "-o", "sync", loops[0], str(there))
    (there / "mine").write_text("mine")

    def unmount():
        if os.path.ismount(there):
            subprocess.run(["umount", str(there)], stdin=subprocess.DEVNULL, check=True)

    yield there, unmount
    unmount()


def test_a_device_that_is_mounted_is_not_written_to(team, stolen, agent, install, loops, mounted, partitions):  # noqa: F811
    there, unmount = mounted
    lamp = agent("--trust", team.root("first"), "--slot-a", loops[0], "--slot-b", loops[1], source=stolen, health=HEALTH)
    content = image(b"one")
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", content)))
    ended, said = install(lamp, "lamp", "1.0.0")
    assert ended == "FAILED" and f"{loops[0]}: " in said["reason"] and "it is mounted" in said["reason"] and "unmount it" in said["reason"], said
    assert lamp.status()["version"] is None and lamp.trials() == []
    assert (there / "mine").read_text() == "mine" and content[:64] not in partitions[0].read_bytes()
    unmount()
    assert subprocess.run(["fsck.ext4", "-f", "-n", loops[0]], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    # The same agent, once nothing else has it.
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    assert partitions[0].read_bytes().startswith(content)
