"""Delta images: a device that has the version before fetches a patch, and the whole image wherever that is of no use."""

import os
import random

import pytest

from devices import Agent, StolenServer, eventually, outcome
from release import HARDWARE, Team, flipped
from server import Server, muster

SIZE = 1_500_000


@pytest.fixture(scope="module")
def images():
    """Three versions of which each has most of the one before in it."""
    draw = random.Random(8)
    first = bytearray(os.urandom(SIZE))
    second = first[:400_000] + os.urandom(900) + first[400_000:]
    for _ in range(200):
        second[draw.randrange(len(second))] ^= 0x20
    third = second[700_000:] + second[:700_000]
    return {"1.0.0": bytes(first), "2.0.0": bytes(second), "3.0.0": bytes(third)}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("house"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def packages(house, images, tmp_path_factory):
    """The release team's packages; each after the first has a delta from the one before."""
    team, made, before = Team(tmp_path_factory.mktemp("team")), {}, None
    house.cli("firmware", "trust", team.root())
    for version, image in images.items():
        more = ["--delta-from", f"{before[0]}={before[1]}"] if before else []
        made[version] = team.package("lamp", version, image, more=more)
        house.cli("firmware", "add", made[version])
        old = team.home / f"old-{version}"
        old.write_bytes(image)
        before = version, old
    return made


@pytest.fixture
def lamp(house, packages, fresh_name, tmp_path):
    """An agent, and a server in between that counts what it fetches."""
    between = StolenServer(house, tmp_path / "between")
    name = fresh_name()
    house.cli("group", "create", name)
    agent = Agent(house, house.device(name, "--group", name), tmp_path / name, https_port=between.port)
    agent.between = between
    yield agent
    agent.stop()
    between.close()


def members(package):
    import tarfile
    with tarfile.open(package) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}


def serve(lamp, packages, version, before, **changed):
    parts = {**members(packages[version]), **changed}
    lamp.between.serve("lamp", version, parts["manifest.json"], parts["image"])
    lamp.between.documents[f"/firmware/lamp/{version}/delta/{before}"] = parts.get("delta.0")


def install(house, lamp, version):
    from api import iot
    rollout = house.json("rollout", "start", "lamp", version, "--group", lamp.name)["id"]
    status, said = outcome(iot(house), f"{rollout}-wave-1", lamp.name)
    assert status == "SUCCEEDED", (said, lamp.said())
    assert lamp.status()["version"] == version


def asked(lamp, what):
    return [path for path, _ in lamp.between.asked if path.endswith(what)]


def runs(lamp, image):
    slot = lamp.status()["slot"]
    assert (lamp.state / "slots" / slot / "image").read_bytes() == image
    assert list((lamp.state / "download").iterdir()) == []


def test_an_update_from_the_version_before_fetches_a_fraction(house, packages, images, fresh_name, tmp_path):
    """From the real server, to the end: what it sent is what its own socket says."""
    shown = house.json("firmware", "show", "lamp", "2.0.0")
    delta, = shown["deltas"]
    assert delta["from"] == "1.0.0" and delta["size"] < SIZE / 10
    name = fresh_name()
    house.cli("group", "create", name)
    lamp = Agent(house, house.device(name, "--group", name), tmp_path / name)
    try:
        install(house, lamp, "1.0.0")
        runs(lamp, images["1.0.0"])
        for version in ("2.0.0", "3.0.0"):
            install(house, lamp, version)
            runs(lamp, images[version])
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{lamp.process.pid}/status"))
        assert int(status["VmHWM"].split()[0]) * 1024 < 20_000_000, status["VmHWM"]
        # Back, and to where there is no delta from: whole.
        install(house, lamp, "1.0.0")
        runs(lamp, images["1.0.0"])
        said = lamp.said()
        assert said.count("a delta of ") == 2 and f"a delta of {delta['size']} bytes, in the place of {len(images['2.0.0'])}" in said
    finally:
        lamp.stop()


def test_only_the_delta_is_asked_for(house, lamp, packages, images):
    serve(lamp, packages, "1.0.0", "-")
    install(house, lamp, "1.0.0")
    serve(lamp, packages, "2.0.0", "1.0.0")
    lamp.between.asked.clear()
    install(house, lamp, "2.0.0")
    runs(lamp, images["2.0.0"])
    assert asked(lamp, "/delta/1.0.0") and not asked(lamp, "/image")


@pytest.mark.parametrize("what, words", [
    ("another patch", "the delta of lamp 2.0.0 from 1.0.0 is not what was signed"),
    ("half of it", "size mismatch"),
    ("more of it", "size mismatch"),
    ("none", "404"),
])
def test_a_bad_delta_is_refused_and_the_whole_image_comes(house, lamp, packages, images, what, words):
    serve(lamp, packages, "1.0.0", "-")
    install(house, lamp, "1.0.0")
    patch = members(packages["2.0.0"])["delta.0"]
    bad = {"another patch": flipped(patch), "half of it": patch[:len(patch) // 2], "more of it": patch + bytes(90_000), "none": None}[what]
    serve(lamp, packages, "2.0.0", "1.0.0", **{"delta.0": bad})
    install(house, lamp, "2.0.0")
    runs(lamp, images["2.0.0"])
    assert "no use of the delta from 1.0.0" in lamp.said() and words in lamp.said(), lamp.said()
    assert asked(lamp, "lamp/2.0.0/image")


def test_an_old_image_that_is_not_what_it_was_is_no_harm(house, lamp, packages, images):
    serve(lamp, packages, "1.0.0", "-")
    install(house, lamp, "1.0.0")
    slot = lamp.state / "slots" / lamp.status()["slot"] / "image"
    for torn in (flipped(images["1.0.0"], 1_200_000), images["1.0.0"][:100_000]):
        slot.write_bytes(torn)
    serve(lamp, packages, "2.0.0", "1.0.0")
    install(house, lamp, "2.0.0")
    runs(lamp, images["2.0.0"])
    assert "the delta cannot be applied: it reads " in lamp.said() or "has another SHA-256 than was signed" in lamp.said()


def test_a_power_cut_while_the_delta_comes_goes_on_where_it_was(house, lamp, packages, images):
    serve(lamp, packages, "1.0.0", "-")
    install(house, lamp, "1.0.0")
    serve(lamp, packages, "2.0.0", "1.0.0")
    path = "/firmware/lamp/2.0.0/delta/1.0.0"
    patch = lamp.between.documents[path]
    lamp.between.stall[path] = len(patch) // 2
    house.json("rollout", "start", "lamp", "2.0.0", "--group", lamp.name)
    assert lamp.between.stalled.wait(60)
    eventually(lambda: any(f.stat().st_size for f in (lamp.state / "download").iterdir()), "some of the delta on the disk")
    lamp.kill9()
    del lamp.between.stall[path]
    lamp.start()
    eventually(lambda: lamp.status()["version"] == "2.0.0" and lamp.status()["confirmed"], lamp.said)
    runs(lamp, images["2.0.0"])
    assert [start for where, start in lamp.between.asked if where == path][-1] is not None
    assert not asked(lamp, "lamp/2.0.0/image")


def test_mistakes_with_deltas_are_named(tmp_path, packages, house):
    team = Team(tmp_path / "team")
    (team.home / "image").write_bytes(b"new" * 100)
    (team.home / "old").write_bytes(b"old" * 100)

    def sign(*flags):
        return muster("firmware", "sign", team.home / "image", "--name", "lamp", "--version", "2", "--hardware", HARDWARE, "--key", team.key(),
                      *flags, "--out", team.home / "out")

    for flag, words in [("1.0", "write it as VERSION=IMAGE"), ("1.0=nowhere", "nowhere"), ("/=old", "--delta-from"),
                        (f"2={team.home / 'old'}", "its own version's")]:
        done = sign("--delta-from", flag)
        assert done.returncode != 0 and words in done.stderr, done.stderr
    # One that saves nothing is left out and said.
    (team.home / "noise").write_bytes(os.urandom(300))
    done = sign("--delta-from", f"1.0={team.home / 'noise'}", "--delta-from", f"1.1={team.home / 'old'}")
    assert done.returncode == 0, done.stderr
    assert "delta from 1.1" in done.stdout or "no delta from 1.1" in done.stdout, done.stdout
