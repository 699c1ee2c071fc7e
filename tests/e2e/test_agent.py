"""What a device does not believe, even from a server with the right certificate; and what it takes up again after a power cut."""

import datetime
import json
import os
import subprocess

import pytest

from api import iot
from devices import Agent, StolenServer, eventually, outcome, thing_arn
from release import HARDWARE, Team, edited, flipped, opened, unsigned
from server import AGENT, Server, muster
from test_mistakes import clock

IMAGE = b"light" * 1000
BIG = os.urandom(5 << 20)


@pytest.fixture
def team(tmp_path):
    """The release team that the devices trust."""
    return Team(tmp_path / "team")


class House:
    """A server with a release team of its own. Its rollouts are what reaches the devices; what they fetch comes from elsewhere."""

    def __init__(self, home):
        self.server, self.team = Server(home), Team(home / "team")
        self.server.cli("firmware", "trust", self.team.root())
        self.client, self.versions = iot(self.server), set()

    def device(self, name):
        """A device alone in a group of the same name, trusting nobody's firmware yet."""
        self.server.cli("group", "create", name)
        identity = self.server.device(name, "--group", name)
        (identity.certificate.parent / "firmware-root.json").unlink()
        return identity

    def order(self, thing, name, version):
        """Rolls a version out to one device; returns the job."""
        if (name, version) not in self.versions:
            self.server.cli("firmware", "add", self.team.package(name, version, b"never seen"))
            self.versions.add((name, version))
        return self.server.json("rollout", "start", name, version, "--group", thing)["id"] + "-wave-1"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.server.stop()


@pytest.fixture
def stolen(house, tmp_path):
    server = StolenServer(house.server, tmp_path / "stolen")
    yield server
    server.close()


@pytest.fixture
def agent(house, fresh_name, tmp_path):
    """Starts agents that take firmware from a server of the test's choice."""
    made = []

    def make(*flags, source=None, **how):
        identity = house.device(fresh_name())
        made.append(Agent(house.server, identity, tmp_path / identity.name, *flags, https_port=source and source.port, **how))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def install(house):
    """Orders an install on one device and waits for its end: status and details."""
    def give(agent, name, version, wait=True):
        job = house.order(agent.name, name, version)
        return outcome(house.client, job, agent.name) if wait else job
    return give


def yesterday():
    return (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_device_refuses_each_bad_image_in_its_own_words(team, stolen, agent, install):
    lamp = agent("--trust", team.root("first", "second", threshold=2), source=stolen)

    def signed(version, *keys, image=IMAGE, **how):
        return opened(team.package("lamp", version, image, *(keys or ("first", "second")), **how))

    manifest, image = signed("1.0.0", more=["--counter", "3"])
    stolen.serve("lamp", "1.0.0", manifest, image)
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    before = lamp.status()
    assert before == {"name": "lamp", "version": "1.0.0", "slot": "a", "trial": False, "confirmed": True}

    manifest, image = signed("2.0.0", more=["--counter", "3"])
    other, _ = signed("3.0.0", more=["--counter", "3"])
    cases = {
        "a flipped byte": (manifest, flipped(image), "FAILED", "is not what was signed"),
        "a flipped byte at the end": (manifest, flipped(image, -1), "FAILED", "is not what was signed"),
        "another image": (manifest, b"dark!" * 1000, "FAILED", "is not what was signed"),
        "an image cut off": (manifest, image[:-1], "FAILED", "size mismatch"),
        "endless data": (manifest, image + bytes(100_000), "FAILED", "size mismatch"),
        "no signature": (unsigned(manifest), image, "REJECTED", "is unsigned: it carries no signature"),
        "an edited manifest": (edited(manifest, counter=9), image, "REJECTED", "it was changed after it was signed"),
        "a stranger's key": (*signed("2.0.0", "thief"), "REJECTED", "which is not trusted"),
        "one signature short": (*signed("2.0.0", "first"), "REJECTED", "is one signature short: it has 1 of the 2"),
        "an expired manifest": (*signed("2.0.0", more=["--expires", yesterday()]), "REJECTED", "expired at"),
        "the wrong hardware": (*signed("2.0.0", hardware="board-2"), "REJECTED", "it is made for hardware board-2; this is board-1"),
        "a lower counter": (*signed("2.0.0", more=["--counter", "2"]), "REJECTED", "its security counter 2 is lower than 3"),
        "a version it cannot come from": (
            *signed("2.0.0", more=["--counter", "3", "--requires", "1.5.0"]), "REJECTED", "it requires version 1.5.0 or newer"),
        "another version's manifest": (other, image, "REJECTED", "the job asks for lamp 2.0.0"),
        "no document at all": (b"<html>", image, "REJECTED", "cannot be read"),
    }
    for what, (manifest_served, image_served, status, words) in cases.items():
        stolen.serve("lamp", "2.0.0", manifest_served, image_served)
        ended, said = install(lamp, "lamp", "2.0.0")
        assert ended == status and words in said["reason"], f"{what}: {ended} {said}"
        assert lamp.status() == before, what
    assert lamp.tried("2.0.0") == 0, "none of them was ever run"

    stolen.serve("lamp", "2.0.0", manifest, image)
    assert install(lamp, "lamp", "2.0.0")[0] == "SUCCEEDED", "the right one is still welcome"
    assert lamp.status()["version"] == "2.0.0" and lamp.status()["slot"] == "b"


def test_a_confirmed_image_that_is_not_what_was_signed_is_told_of_from_the_next_start_on(team, stolen, agent, install):
    lamp = agent("--trust", team.root(), source=stolen)
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE)))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    good = {"name": "lamp", "version": "1.0.0", "slot": "a", "trial": False, "confirmed": True}
    slot = lamp.state / "slots/a"
    image, manifest = slot / "image", slot / "manifest.json"
    whole, papers = image.read_bytes(), manifest.read_bytes()

    def starts_with(status):
        lamp.start()
        eventually(lambda: lamp.status() == status, lambda: f"{lamp.status()} {lamp.said()}")
        assert lamp.stop() == 0

    lamp.stop()
    for spoil, words in (
        (lambda: image.write_bytes(flipped(whole, -1)), "the image in slot a is not what was signed any more"),
        (image.unlink, "the image in slot a is gone"),
        (lambda: image.write_bytes(whole[:-1]), "the image in slot a is not what was signed any more"),
        (manifest.unlink, "the manifest in slot a is gone"),
        (lambda: manifest.write_bytes(papers[:-9]), "the manifest in slot a is not that of lamp 1.0.0"),
    ):
        spoil()
        starts_with({**good, "confirmed": False, "damage": words})
        plain = subprocess.run([AGENT, "status", "--state", str(lamp.state)], capture_output=True, text=True, timeout=30, check=True).stdout
        assert plain == f"lamp 1.0.0 in slot a, damaged: {words}; order its version again\n"
        assert f"{words}; order its version again" in lamp.said()
        image.write_bytes(whole)
        manifest.write_bytes(papers)
        # Who puts it back has mended it too.
        starts_with(good)
    image.unlink()
    lamp.start()
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    assert lamp.status() == {**good, "slot": "b"}


def test_an_image_that_the_disk_has_spoilt_is_mended_by_ordering_its_version_again(team, stolen, agent, install):
    lamp = agent("--trust", team.root(), source=stolen)
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE)))
    for slot, spoil in (("a", lambda image: image.write_bytes(bytes(len(IMAGE)))), ("b", lambda image: image.unlink()), ("a", None)):
        assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
        assert lamp.status()["slot"] == slot and lamp.status()["confirmed"]
        image = lamp.state / "slots" / slot / "image"
        assert image.read_bytes() == IMAGE
        if spoil:
            spoil(image)
    assert lamp.tried("1.0.0") == 3
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED" and lamp.tried("1.0.0") == 3, "a good one is left alone"


def test_a_device_refuses_half_of_a_set_and_another_firmware_in_the_place_of_its_own(team, stolen, agent, install):
    lamp = agent("--trust", team.root(), "--component", "radio=2.0.0", source=stolen)

    def serve(name, version, *more):
        stolen.serve(name, version, *opened(team.package(name, version, IMAGE + version.encode(), more=more)))

    serve("lamp", "1.0.0")
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    before = lamp.status()
    serve("lamp", "2.0.0", "--requires", "1.0.0", "--requires", "radio=2.1.0", "--notes", "speaks as radio 2.1 does")
    serve("radio", "2.1.0")
    serve("radio", "3.0.0", "--requires", "0.5.0")
    for name, version, words in (
        ("lamp", "2.0.0", "it requires radio 2.1.0 or newer; this device has 2.0.0"),
        ("radio", "2.1.0", "this device runs lamp 1.0.0; radio 2.1.0 is another firmware and would take its place"),
    ):
        ended, said = install(lamp, name, version)
        assert ended == "REJECTED" and words in said["reason"], said
        assert lamp.status() == before
    # The other half has come, by whatever way it comes.
    lamp.stop()
    lamp.command[lamp.command.index("radio=2.0.0")] = "radio=2.1.0"
    lamp.start()
    assert install(lamp, "lamp", "2.0.0")[0] == "SUCCEEDED"
    # What another firmware requires of itself is not what this one has.
    bare = agent("--trust", team.root(), source=stolen)
    ended, said = install(bare, "radio", "3.0.0")
    assert ended == "REJECTED" and "it requires version 0.5.0 or newer; this device has none" in said["reason"], said


def test_a_state_that_is_lost_after_a_failed_trial_leaves_what_was_confirmed(team, stolen, agent, install):
    lamp = agent("--trust", team.root(), source=stolen)
    for version, counter in (("1.0.0", 7), ("1.1.0", 8), ("1.2.0", 7)):
        bad = f"\nsick {lamp.name}\n".encode() if version == "1.1.0" else b""
        stolen.serve("lamp", version, *opened(team.package("lamp", version, IMAGE + version.encode() + bad, more=["--counter", counter])))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    before = lamp.status()
    assert install(lamp, "lamp", "1.1.0")[0] == "FAILED" and lamp.status() == before
    lamp.stop()
    (lamp.state / "state.json").unlink()
    lamp.start()
    eventually(lambda: lamp.status() == before, lambda: f"{lamp.status()} {lamp.said()}")
    # Its counter is that of what was confirmed, and the next image does not go over it.
    assert install(lamp, "lamp", "1.2.0")[0] == "SUCCEEDED"
    assert lamp.status() == {**before, "version": "1.2.0", "slot": "b"}
    assert (lamp.state / "slots/a/image").read_bytes() == IMAGE + b"1.0.0"


def test_a_device_refuses_a_root_that_its_first_did_not_sign(team, stolen, agent, install):
    first = team.root("first")
    lamp = agent("--trust", first, source=stolen)
    forged = team.root("thief", previous=team.root("thief"))
    stolen.documents["/firmware/root/2.json"] = forged.read_bytes()
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE, "thief")))
    status, said = install(lamp, "lamp", "1.0.0")
    assert status == "REJECTED" and "is not signed by the trusted root version 1" in said["reason"], said
    assert lamp.status()["version"] is None and lamp.trials() == []
    # Nor by hand.
    lamp.stop()
    done = subprocess.run([*lamp.command[:-2], "--trust", str(forged)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0 and "only what that one signed is believed" in done.stderr, done.stderr


def test_every_key_on_the_server_together_makes_no_image_acceptable(house, team, stolen, agent, install):
    root = team.root(more=["--online", house.server.data / "firmware/online.pub"])
    lamp = agent("--trust", root, source=stolen)
    file, signed = team.home / "own-image", []
    file.write_bytes(b"the thief's own")
    for path in sorted(house.server.data.rglob("*")):
        if not path.is_file() or b"PRIVATE KEY" not in path.read_bytes():
            continue
        out = team.home / f"by-{path.name}"
        done = muster("firmware", "sign", file, "--name", "lamp", "--version", "1.0.0", "--hardware", HARDWARE,
                      "--key", path, "--out", out)
        if done.returncode == 0:
            signed.append(path.name)
            stolen.serve("lamp", "1.0.0", *opened(out))
            status, said = install(lamp, "lamp", "1.0.0")
            assert status == "REJECTED" and "which is not trusted" in said["reason"], f"{path.name}: {status} {said}"
    assert "online.key" in signed, "the one that the trust root names, for what is newest"
    assert lamp.trials() == []


def test_a_frozen_view_of_the_past_ends_with_what_was_signed_offline(team, stolen, agent, install):
    lamp = agent("--trust", team.root(), source=stolen)

    def signed_ago(days):
        """Signed that long ago, with the expiry a signature has when nobody says otherwise."""
        file, out = team.home / "frozen-image", team.home / f"signed-{days}-days-ago"
        file.write_bytes(IMAGE)
        done = muster("firmware", "sign", file, "--name", "lamp", "--version", "1.0.0", "--hardware", HARDWARE,
                      "--key", team.key(), "--out", out, wrapper=["faketime", f"{days} days ago"])
        assert done.returncode == 0, done.stderr
        return opened(out)

    stolen.serve("lamp", "1.0.0", *signed_ago(91))
    status, said = install(lamp, "lamp", "1.0.0")
    assert status == "REJECTED" and "expired at" in said["reason"], said
    stolen.serve("lamp", "1.0.0", *signed_ago(89))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"


def test_a_device_that_wakes_in_1970_updates_and_believes_no_old_signature(house, team, stolen, agent, install):
    lamp = agent("--trust", team.root(), source=stolen, wrapper=clock("@1970-01-02 00:00:00"))
    # Over by any time after the device's own certificate was made, though not by the device's clock.
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE, more=["--expires", yesterday()])))
    status, said = install(lamp, "lamp", "1.0.0")
    assert status == "REJECTED" and "expired at" in said["reason"], said
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE)))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED", lamp.said()
    assert "1970-01-0" in lamp.said(), "its own clock stands there"


def test_a_thief_may_choose_among_what_the_team_signed_with_one_counter(team, stolen, agent, install):
    """The limit of what is defended, as SECURITY.md states it."""
    lamp = agent("--trust", team.root(), source=stolen)
    for version in ("1.0.0", "2.0.0", "1.0.0"):
        stolen.serve("lamp", version, *opened(team.package("lamp", version, version.encode() * 1000)))
        assert install(lamp, "lamp", version)[0] == "SUCCEEDED"
        assert lamp.status()["version"] == version
    stolen.serve("lamp", "3.0.0", *opened(team.package("lamp", "3.0.0", IMAGE, more=["--counter", "1"])))
    assert install(lamp, "lamp", "3.0.0")[0] == "SUCCEEDED"
    stolen.serve("lamp", "2.0.0", *opened(team.package("lamp", "2.0.0", IMAGE)))
    status, said = install(lamp, "lamp", "2.0.0")
    assert status == "REJECTED" and "its security counter 0 is lower than 1" in said["reason"], said


def test_what_a_stolen_server_tried_is_told_to_one_that_has_recovered(house, team, stolen, agent, install):
    lamp = agent("--trust", team.root("first"), source=stolen)
    manifest, image = opened(team.package("lamp", "1.0.0", BIG))
    stolen.serve("lamp", "1.0.0", manifest, flipped(image))
    stolen.stall["/firmware/lamp/1.0.0/image"] = 1000
    job = install(lamp, "lamp", "1.0.0", wait=False)
    assert stolen.stalled.wait(60)
    house.server.kill9()
    stolen.stall.clear()
    stolen.over.set()
    eventually(lambda: "is not what was signed" in lamp.said(), "the device to refuse it, with nobody to tell")
    house.server.start()
    status, said = outcome(house.client, job, lamp.name)
    assert status == "FAILED" and "is not what was signed" in said["reason"], said
    assert lamp.status()["version"] is None and lamp.trials() == []


def test_a_device_follows_a_successor_that_its_root_signed(team, stolen, agent, install):
    first = team.root("first")
    lamp = agent("--trust", first, source=stolen)
    second = team.root("second", previous=first, retire=["first"])
    stolen.documents["/firmware/root/2.json"] = second.read_bytes()
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE, "second")))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    stolen.serve("lamp", "2.0.0", *opened(team.package("lamp", "2.0.0", IMAGE, "first")))
    status, said = install(lamp, "lamp", "2.0.0")
    assert status == "REJECTED" and "trust root version 2 does not name it" in said["reason"], said
    # It stays so where the new root is kept from it.
    lamp.stop()
    del stolen.documents["/firmware/root/2.json"]
    lamp.start()
    status, said = install(lamp, "lamp", "2.0.0")
    assert status == "REJECTED" and "trust root version 2 does not name it" in said["reason"], said


def test_a_device_without_a_root_takes_the_servers_first_once_and_says_so(team, stolen, agent, install):
    lamp = agent(source=stolen)
    stolen.documents["/firmware/root/1.json"] = team.root("first").read_bytes()
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE)))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    assert "took version 1 from the server, this once" in lamp.said()
    stolen.documents["/firmware/root/1.json"] = team.root("thief").read_bytes()
    stolen.serve("lamp", "2.0.0", *opened(team.package("lamp", "2.0.0", IMAGE, "thief")))
    assert install(lamp, "lamp", "2.0.0")[0] == "REJECTED"


def test_a_power_cut_in_mid_download_goes_on_where_it_was(house, team, stolen, agent, install):
    lamp = agent("--trust", team.root("first"), source=stolen)
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", BIG)))
    path = "/firmware/lamp/1.0.0/image"
    stolen.stall[path] = len(BIG) // 2
    job = install(lamp, "lamp", "1.0.0", wait=False)
    assert stolen.stalled.wait(60)
    downloads = lamp.state / "download"
    # What was sent is on the device once its files have it.
    eventually(lambda: sum(f.stat().st_size for f in downloads.iterdir()) > len(BIG) // 3, "half the image on the device's disk")
    lamp.kill9()
    del stolen.stall[path]
    lamp.start()
    assert outcome(house.client, job, lamp.name)[0] == "SUCCEEDED"
    first, *rest = [asked for where, asked in stolen.asked if where == path]
    assert first is None and len(rest) == 1, stolen.asked
    resumed = int(rest[0].removeprefix("bytes=").removesuffix("-"))
    assert resumed >= len(BIG) // 3, f"it began again at byte {resumed}"
    assert (lamp.state / "slots/a/image").read_bytes() == BIG
    assert lamp.tried("1.0.0") == 1


def test_memory_does_not_depend_on_the_image(house, team, stolen, agent, install, record_property):
    """The most that was ever resident, image by image: the second is many times the first. MUSTER_IMAGE_MIB says how large."""
    lamp = agent("--trust", team.root("first"), source=stolen)

    def peak(version, size):
        stolen.serve("lamp", version, *opened(team.package("lamp", version, os.urandom(size))))
        assert install(lamp, "lamp", version)[0] == "SUCCEEDED"
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{lamp.process.pid}/status"))
        return int(status["VmHWM"].split()[0]) * 1024

    mib = int(os.environ.get("MUSTER_IMAGE_MIB", "64"))
    small, large = peak("1.0.0", 4 << 20), peak("2.0.0", mib << 20)
    record_property("measured", f"an agent that installed 4 MiB had {small / 1e6:.1f} MB resident at most, with {mib} MiB {large / 1e6:.1f} MB")
    assert large < 20_000_000, f"{large} bytes"
    assert large - small < 2 << 20, f"{small} bytes, then {large}"


def test_a_power_cut_in_the_trial_ends_on_a_whole_image(house, team, stolen, agent, install):
    lamp = agent("--trust", team.root("first"), source=stolen)
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE)))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    stolen.serve("lamp", "2.0.0", *opened(team.package("lamp", "2.0.0", b"second" * 1000)))
    with lamp.gate():
        job = install(lamp, "lamp", "2.0.0", wait=False)
        eventually(lambda: lamp.tried("2.0.0") == 1, "the trial to begin")
        assert lamp.status() == {"name": "lamp", "version": "2.0.0", "slot": "b", "trial": True, "confirmed": False}
        lamp.kill9()
        lamp.start()
        eventually(lambda: lamp.tried("2.0.0") == 2, "the trial to begin again")
        lamp.kill9()
    # Twice cut off: it is given up.
    lamp.start()
    status, said = outcome(house.client, job, lamp.name)
    assert (status, said["step"]) == ("FAILED", "fell-back"), said
    assert lamp.status() == {"name": "lamp", "version": "1.0.0", "slot": "a", "trial": False, "confirmed": True}
    assert lamp.tried("2.0.0") == 2


def test_a_device_says_how_its_confirmed_image_is(house, team, stolen, agent, install):
    health = 'test ! -e "$MUSTER_STATE/broken" || { echo "the lamp is dark" >&2; exit 1; }'
    lamp = agent("--trust", team.root("first"), "--health-every", 1, source=stolen, health=health)
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE)))
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    (lamp.state / "broken").touch()
    eventually(lambda: "the confirmed image is not well: health command: exit 1: the lamp is dark" in lamp.said(), lamp.said)
    assert lamp.status()["confirmed"], "a confirmed image is kept whatever it says"
    # The next job goes on as ever.
    assert install(lamp, "lamp", "1.0.0")[0] == "SUCCEEDED"
    bad = list(lamp.command)
    bad[bad.index("--health-every") + 1] = "90000"
    done = subprocess.run(bad, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0 and "--health-every 90000s: must be between" in done.stderr, done.stderr


def test_a_health_command_that_hangs_counts_as_sick(team, stolen, agent, install):
    lamp = agent("--trust", team.root("first"), "--health-timeout", 1, source=stolen)
    stolen.serve("lamp", "1.0.0", *opened(team.package("lamp", "1.0.0", IMAGE)))
    with lamp.gate():
        status, said = install(lamp, "lamp", "1.0.0")
    assert (status, said["step"]) == ("FAILED", "fell-back") and "no answer within 1 s" in said["reason"], said
    assert lamp.status()["version"] is None


def test_a_job_that_is_no_install_is_rejected(house, agent, fresh_name):
    lamp, job = agent(), fresh_name("dance")
    house.client.create_job(jobId=job, targets=[thing_arn(lamp.name)], document='{"operation":"dance"}')
    status, said = outcome(house.client, job, lamp.name)
    assert status == "REJECTED" and "dance" in said["reason"]


def test_one_state_directory_has_one_agent(agent):
    lamp = agent()
    eventually(lambda: "connected to" in lamp.said(), "the first agent to be at work")
    second = subprocess.run(lamp.command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert second.returncode != 0 and "in use by another muster-agent" in second.stderr
    assert lamp.stop() == 0


def test_before_the_first_image_status_is_null(tmp_path):
    done = subprocess.run([AGENT, "status", "--state", str(tmp_path), "--json"], capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout) == {"name": None, "version": None, "slot": None, "trial": False, "confirmed": False}
