"""A whole fleet in bad weather: some devices killed in mid-download, some away until later, some sick, the server killed in each phase.

A recorder beside each device writes down what was put on trial there and when. In the end it must show that the good
version reached all, that the bad one stopped in its first wave and was undone, and that nothing was installed twice,
unsigned or outside its window.
"""

import datetime
import hashlib
import os

import pytest

from api import iot
from devices import Agent, eventually
from holdup import Holdup
from release import Team
from server import Server

DEVICES = 16
FIRST_WAVE = 4
AWAY = 3
IMAGE_BYTES = 2 << 20
LIMIT_S = 180
WINDOW_S = 90
FINAL = ("succeeded", "rolled-back", "aborted")

# Writes down when what was on trial, then waits for the gate; a sick one says so in words of its own.
RECORDER = (
    'echo "$(date +%s.%N) $MUSTER_VERSION $(sha256sum <"$MUSTER_IMAGE" | cut -d" " -f1)" >>"$MUSTER_STATE/trials"; '
    'flock -s "$MUSTER_STATE/gate" true; '
    'if grep -aqx "sick $(basename "$MUSTER_STATE")" "$MUSTER_IMAGE"; then '
    'echo "the lamp of $(basename "$MUSTER_STATE") stays dark" >&2; exit 3; fi'
)


class Fleet:
    """A server, a release team, sixteen recorded agents behind a network that can be held up."""

    def __init__(self, home):
        self.server, self.team = Server(home), Team(home / "team")
        self.server.cli("firmware", "trust", self.team.root())
        self.server.cli("group", "create", "hall")
        self.network = Holdup(self.server.port("https"), after=IMAGE_BYTES // 4)
        self.signed, self.agents = {}, {}
        for number in range(DEVICES):
            identity = self.server.device(f"lamp-{number}", "--group", "hall")
            self.agents[identity.name] = Agent(
                self.server, identity, home / "state" / identity.name, health=RECORDER, https_port=self.network.port)

    def release(self, version, sick=()):
        """Signs and adds a version, bad for the devices in `sick`."""
        image = b"\n".join([os.urandom(32).hex().encode(), *(f"sick {name}".encode() for name in sick), os.urandom(IMAGE_BYTES)])
        self.signed[hashlib.sha256(image).hexdigest()] = version
        self.server.cli("firmware", "add", self.team.package("lamp", version, image))
        return image[:64]

    def start(self, version, *flags):
        return self.server.json("rollout", "start", "lamp", version, "--group", "hall", "--abort-failed", "25", *flags)["id"]

    def show(self, rollout):
        return self.server.json("rollout", "show", rollout)

    def until(self, rollout, look, what):
        shown = {}

        def seen():
            shown.update(self.show(rollout))
            return look(shown)

        eventually(seen, lambda: f"{what}; it stands so: {shown}", LIMIT_S)
        return shown

    def finish(self, rollout):
        return self.until(rollout, lambda r: r["state"] in FINAL, "the rollout to end")

    def crash(self):
        """The server dies as in a power cut, and comes back."""
        self.server.kill9()
        self.server.start()

    def versions(self, names=None):
        return {name: self.agents[name].status()["version"] for name in names or self.agents}

    def records(self):
        """Device, time, version and hash of each trial there ever was."""
        found = []
        for name, agent in self.agents.items():
            for when, rest in agent.trials():
                version, digest = rest.split()
                found.append((name, when, version, digest))
        return found

    def tried(self, version):
        """Device → how often the version was on trial there."""
        counts = {}
        for name, _, tried, _ in self.records():
            if tried == version:
                counts[name] = counts.get(name, 0) + 1
        return counts


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path)
    yield made
    made.network.close()
    for agent in made.agents.values():
        if agent.process.poll() is None:
            agent.stop()
    made.server.stop()


def next_window():
    """A window that is shut now and for 20 seconds more, and opens every third minute."""
    now = datetime.datetime.now(datetime.timezone.utc)
    phase = (now.minute + (1 if now.second <= 40 else 2)) % 3
    return f"{phase}-59/3 * * * */{WINDOW_S}s", phase


def is_open(when, phase):
    """Whether that time lies in the window; the recorder's clock is read a moment after the device began."""
    since = (when - phase * 60) % 180
    return since <= WINDOW_S


@pytest.mark.timeout(600)
def test_a_fleet_in_bad_weather(fleet):
    things, windowed = iot(fleet.server), []
    fleet.release("1.0.0")
    shown = fleet.finish(fleet.start("1.0.0"))
    assert shown["state"] == "succeeded" and set(fleet.versions().values()) == {"1.0.0"}

    # -- a good version, in a window, in two waves, with the server killed in each phase
    fleet.release("2.0.0")
    plan = fleet.server.json("rollout", "start", "lamp", "2.0.0", "--group", "hall", "--wave", FIRST_WAVE, "--wave", "100%", "--dry-run")
    first = sorted(thing["thing"] for thing in plan["waves"][0]["things"])
    away = [name for name in fleet.agents if name not in first][:AWAY]
    for name in away:
        fleet.agents[name].stop()
    fleet.network.hold()
    window, phase = next_window()
    rollout = fleet.start("2.0.0", "--wave", str(FIRST_WAVE), "--wave", "100%", "--window", window, "--soak", "3s", "--success", "75")
    windowed.append((rollout, "2.0.0", phase))
    fleet.crash()  # before the window opens
    assert set(e["status"] for e in fleet.show(rollout)["executions"]) == {"WAITING"}
    assert fleet.tried("2.0.0") == {}

    # In mid-download the server dies, and so does a device.
    eventually(lambda: len(fleet.network.held) >= FIRST_WAVE, "the first wave to be in its downloads", LIMIT_S)
    cut = fleet.agents[first[0]]
    eventually(lambda: any(part.stat().st_size for part in (cut.state / "download").iterdir()), "a part of the image to be there")
    cut.kill9()
    fleet.crash()
    gates = {name: fleet.agents[name].gate() for name in first}
    fleet.network.release()
    cut.start()

    # On trial, the server dies again; then in the soak between the waves.
    eventually(lambda: set(fleet.tried("2.0.0")) == set(first), "the first wave to be on trial", LIMIT_S)
    fleet.crash()
    for gate in gates.values():
        gate.open()
    fleet.until(rollout, lambda r: r["waves"][0]["state"] == "done", "the first wave to be good")
    fleet.crash()
    # In the second wave.
    fleet.until(rollout, lambda r: r["waves"][1]["state"] in ("running", "done"), "the second wave to begin")
    fleet.crash()
    shown = fleet.until(rollout, lambda r: r["state"] == "succeeded" and sum(w["succeeded"] for w in r["waves"]) == DEVICES - AWAY, "all that are there")
    assert {e["status"] for e in shown["executions"] if e["thing"] in away} <= {"QUEUED", "WAITING"}
    assert set(fleet.versions(away).values()) == {"1.0.0"}
    # And after the end, with devices still away.
    fleet.crash()
    for name in away:
        fleet.agents[name].start()
    shown = fleet.until(rollout, lambda r: all(e["status"] == "SUCCEEDED" for e in r["executions"]), "those who were away")
    assert set(fleet.versions().values()) == {"2.0.0"}
    assert fleet.tried("2.0.0") == dict.fromkeys(fleet.agents, 1)

    # -- a bad version: half of the first wave is sick of it, one that took it well leaves before it can be sent back
    sick, well = first[:2], first[2:]
    mark = fleet.release("3.0.0", sick=[*sick, *(name for name in fleet.agents if name not in first)])
    gates = {name: fleet.agents[name].gate() for name in sick}
    rollout = fleet.start("3.0.0", "--wave", str(FIRST_WAVE), "--wave", "100%")
    fleet.until(rollout, lambda r: r["waves"][0]["succeeded"] == len(well) and set(fleet.tried("3.0.0")) == set(first), "the well ones to have it")
    fleet.crash()
    leaver = fleet.agents[well[0]]
    leaver.stop()
    for gate in gates.values():
        gate.open()
    fleet.until(rollout, lambda r: r["state"] == "rolling-back", "the abort")
    fleet.crash()
    fleet.until(rollout, lambda r: fleet.agents[well[1]].status()["version"] == "2.0.0", "the one that is there to go back")
    shown = fleet.show(rollout)
    assert shown["state"] == "rolling-back", "one has not gone back yet"
    fleet.crash()
    leaver.start()
    shown = fleet.finish(rollout)
    assert shown["state"] == "rolled-back" and [w["state"] for w in shown["waves"]] == ["aborted", "waiting"]
    assert "abort the rollout" in shown["reason"]
    assert set(fleet.versions().values()) == {"2.0.0"}
    # The report names each device and why.
    told = {e["thing"]: e for e in shown["executions"]}
    for name in sick:
        assert told[name]["status"] == "FAILED" and told[name]["reason"] == f"health command: exit 3: the lamp of {name} stays dark"
        assert told[name]["version"] == "2.0.0" and "rollback" not in told[name], "it fell back by itself"
    for name in well:
        assert (told[name]["status"], told[name]["rollback"], told[name]["version"]) == ("SUCCEEDED", "SUCCEEDED", "2.0.0")
    assert {told[name]["status"] for name in fleet.agents if name not in first} == {"WAITING"}
    report = fleet.server.cli("rollout", "export", rollout)
    assert all(f"the lamp of {name} stays dark" in report for name in sick)
    assert not any(fleet.agents[name].holds(mark) for name in fleet.agents if name not in first), "the others never saw it"

    # -- what the recorder says of all of it
    for name, _, version, digest in fleet.records():
        assert fleet.signed.get(digest) == version, f"{name} tried {version} with bytes nobody signed"
    assert fleet.tried("1.0.0") == dict.fromkeys(fleet.agents, 1)
    assert fleet.tried("3.0.0") == dict.fromkeys(first, 1)
    assert fleet.tried("2.0.0") == {name: 2 if name in well else 1 for name in fleet.agents}, "again only on the way back"
    for rollout, version, phase in windowed:
        for wave in (1, 2):
            for execution in things.list_job_executions_for_job(jobId=f"{rollout}-wave-{wave}")["executionSummaries"]:
                began = execution["jobExecutionSummary"]["startedAt"].timestamp()
                assert is_open(began, phase), f"{execution['thingArn']} began at {began}"
        firsts = {}
        for name, when, tried, _ in fleet.records():
            if tried == version:
                firsts.setdefault(name, when)
        assert len(firsts) == DEVICES
