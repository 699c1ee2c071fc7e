"""Twenty devices with real agents: waves, a bad image that undoes itself, and a server that dies in the middle."""

import datetime
import itertools
import os

import pytest

from devices import Agent, eventually
from release import Team
from server import Server

DEVICES = 20
FIRST_WAVE = 2
ROLLOUT_LIMIT_S = 120
VERSIONS = itertools.count(1)


class Fleet:
    """A server, a release team and twenty agents in the group `hall`."""

    def __init__(self, home):
        self.server = Server(home)
        self.team = Team(home / "team")
        self.server.cli("firmware", "trust", self.team.root())
        self.server.cli("group", "create", "hall")
        self.agents = {}
        for number in range(DEVICES):
            identity = self.server.device(f"lamp-{number}", "--group", "hall")
            self.agents[identity.name] = Agent(self.server, identity, home / "state" / identity.name)

    def add(self, sick=(), size=4000):
        """Releases the next version, bad for the devices in `sick`; returns it and a mark only its image has."""
        version = f"1.{next(VERSIONS)}.0"
        mark = os.urandom(24)
        image = mark.join([b"\n"] * 2) + b"".join(b"sick %s\n" % name.encode() for name in sick)
        self.server.cli("firmware", "add", self.team.package("lamp", version, image.ljust(size, b"\0")))
        return version, mark

    def start(self, version, *flags):
        waves = () if "--wave" in flags else ("--wave", "10%", "--wave", "100%")
        return self.server.json(
            "rollout", "start", "lamp", version, "--group", "hall", *waves, "--abort-failed", "20", *flags)["id"]

    def show(self, rollout):
        return self.server.json("rollout", "show", rollout)

    def until(self, rollout, look, what):
        """Shows the rollout until `look` likes it; returns how it then stands."""
        shown = {}

        def seen():
            shown.update(self.show(rollout))
            return look(shown)

        eventually(seen, lambda: f"{what}; it stands so: {shown}", ROLLOUT_LIMIT_S)
        return shown

    def finish(self, rollout):
        return self.until(rollout, lambda r: r["state"] in ("succeeded", "rolled-back", "aborted"), "the rollout to end")

    def deploy(self):
        """A version all twenty have; returns it."""
        version, _ = self.add()
        assert self.finish(self.start(version))["state"] == "succeeded"
        return version

    def versions(self):
        return {agent.status()["version"] for agent in self.agents.values()}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    yield made
    for agent in made.agents.values():
        agent.stop()
    made.server.stop()


def by_wave(shown):
    """Wave name → the names of its things."""
    waves = {wave["name"]: set() for wave in shown["waves"]}
    for execution in shown["executions"]:
        waves[execution["wave"]].add(execution["thing"])
    return waves


def status_of(shown):
    return {execution["thing"]: execution["status"] for execution in shown["executions"]}


@pytest.mark.timeout(300)
def test_a_good_image_reaches_all_twenty_in_two_waves(fleet):
    version, _ = fleet.add()
    rollout = fleet.start(version)
    shown = fleet.finish(rollout)
    assert shown["state"] == "succeeded" and shown["id"] == rollout
    assert [(w["name"], w["state"], w["total"], w["succeeded"], w["failed"], w["in_progress"], w["queued"]) for w in shown["waves"]] == [
        ("10%", "done", FIRST_WAVE, FIRST_WAVE, 0, 0, 0), ("100%", "done", DEVICES - FIRST_WAVE, DEVICES - FIRST_WAVE, 0, 0, 0)]
    assert {tuple(sorted(e.items())) for e in ({k: e[k] for k in ("status", "version")} for e in shown["executions"])} == {
        (("status", "SUCCEEDED"), ("version", version))}
    assert all({"thing", "wave", "status", "version", "reason"} <= e.keys() for e in shown["executions"])
    waves = by_wave(shown)
    assert len(waves["10%"]) == FIRST_WAVE and waves["10%"] | waves["100%"] == set(fleet.agents)

    for agent in fleet.agents.values():
        status = agent.status()
        assert status.pop("slot") in ("a", "b")
        assert status == {"name": "lamp", "version": version, "trial": False, "confirmed": True}
        assert agent.tried(version) == 1
    when = {name: when for name, agent in fleet.agents.items() for when, tried in agent.trials() if tried == version}
    assert max(when[name] for name in waves["10%"]) < min(when[name] for name in waves["100%"]), "the second wave waits for the first"


@pytest.mark.timeout(300)
def test_no_second_wave_before_the_first_is_done(fleet):
    version, mark = fleet.add()
    first = by_wave(fleet.finish(fleet.start(fleet.deploy())))["10%"]
    held = sorted(first)[0]
    with fleet.agents[held].gate():
        rollout = fleet.start(version)
        shown = fleet.until(
            rollout, lambda r: status_of(r).get(held) == "IN_PROGRESS" and r["waves"][0]["succeeded"] == FIRST_WAVE - 1
            and fleet.agents[held].tried(version), "one of the first wave to be left")
        assert [w["state"] for w in shown["waves"]] == ["running", "waiting"]
        assert by_wave(shown)["10%"] == first, "the same devices go first again"
        others = [agent for name, agent in fleet.agents.items() if name not in first]
        assert {status_of(shown)[agent.name] for agent in others} == {"WAITING"}
        assert not any(agent.holds(mark) or agent.tried(version) for agent in others)
    assert fleet.finish(rollout)["state"] == "succeeded"


@pytest.mark.timeout(300)
def test_a_bad_image_stops_in_the_first_wave_and_undoes_itself(fleet):
    good = fleet.deploy()
    slots = {name: agent.status()["slot"] for name, agent in fleet.agents.items()}
    bad, mark = fleet.add(sick=fleet.agents)
    shown = fleet.finish(fleet.start(bad))
    assert shown["state"] == "rolled-back"
    waves, status = by_wave(shown), status_of(shown)
    assert [w["state"] for w in shown["waves"]] == ["aborted", "waiting"]
    assert "FAILED" in {status[name] for name in waves["10%"]} <= {"FAILED", "CANCELED"}
    assert {status[name] for name in waves["100%"]} == {"WAITING"}
    for name in waves["10%"]:
        if status[name] == "FAILED":
            assert fleet.agents[name].tried(bad) == 1
            (reason,) = [e["reason"] for e in shown["executions"] if e["thing"] == name]
            assert "exit 1" in reason, reason
    for name, agent in fleet.agents.items():
        assert agent.status() == {"name": "lamp", "version": good, "slot": slots[name], "trial": False, "confirmed": True}
    for name in waves["100%"]:
        assert not fleet.agents[name].holds(mark) and not fleet.agents[name].holds(bad.encode()), f"{name} has seen the bad image"
        assert fleet.agents[name].tried(bad) == 0


@pytest.mark.timeout(300)
def test_those_who_took_a_bad_image_well_are_sent_back_too(fleet):
    well, sick = sorted(by_wave(fleet.finish(fleet.start(fleet.deploy())))["10%"])
    good = fleet.agents[well].status()["version"]
    bad, mark = fleet.add(sick=[sick])
    with fleet.agents[sick].gate():
        rollout = fleet.start(bad)
        fleet.until(rollout, lambda r: status_of(r)[well] == "SUCCEEDED" and fleet.agents[sick].tried(bad), "one of the two to have it")
        assert fleet.agents[well].status()["version"] == bad
    shown = fleet.finish(rollout)
    assert shown["state"] == "rolled-back"
    assert status_of(shown)[sick] == "FAILED"
    assert fleet.versions() == {good}
    assert fleet.agents[well].status()["confirmed"] and not fleet.agents[well].status()["trial"]
    assert {e["thing"]: e["version"] for e in shown["executions"]}[well] == good
    assert not any(agent.holds(mark) for name, agent in fleet.agents.items() if name not in (well, sick))


@pytest.mark.timeout(300)
def test_kill_9_of_the_server_in_the_middle_of_a_wave(fleet):
    version, _ = fleet.add()
    waves = by_wave(fleet.finish(fleet.start(fleet.deploy())))
    held = sorted(waves["100%"])[:9]
    gates = [fleet.agents[name].gate() for name in held]
    try:
        rollout = fleet.start(version)
        fleet.until(
            rollout, lambda r: all(fleet.agents[name].tried(version) for name in held)
            and r["waves"][1]["succeeded"] == DEVICES - FIRST_WAVE - len(held), "half the second wave to be done and half on trial")
        fleet.server.kill9()
    finally:
        for gate in gates:
            gate.open()
    eventually(lambda: all(fleet.agents[name].status()["confirmed"] for name in held), "the devices to go on alone")
    fleet.server.start()
    shown = fleet.finish(rollout)
    assert shown["state"] == "succeeded" and set(status_of(shown).values()) == {"SUCCEEDED"}
    assert {name: agent.tried(version) for name, agent in fleet.agents.items()} == dict.fromkeys(fleet.agents, 1), "nobody installs twice"
    assert fleet.versions() == {version}


@pytest.mark.timeout(300)
def test_kill_9_of_the_server_during_the_downloads(fleet):
    version, mark = fleet.add(size=3 << 20)
    # One trial is held, so that the wave is not over however quick the downloads are.
    with fleet.agents["lamp-0"].gate():
        rollout = fleet.start(version, "--wave", "100%")
        eventually(lambda: any(any((agent.state / "download").iterdir()) for agent in fleet.agents.values()), "the first download")
        fleet.server.kill9()
        fleet.server.start()
    shown = fleet.finish(rollout)
    assert shown["state"] == "succeeded" and set(status_of(shown).values()) == {"SUCCEEDED"}
    assert {agent.tried(version) for agent in fleet.agents.values()} == {1}
    assert all(agent.holds(mark) for agent in fleet.agents.values())


@pytest.mark.timeout(300)
def test_a_rollout_pauses_resumes_and_is_aborted_by_hand(fleet):
    version, mark = fleet.add()
    first = sorted(by_wave(fleet.finish(fleet.start(fleet.deploy())))["10%"])
    good = fleet.agents[first[0]].status()["version"]
    with fleet.agents[first[0]].gate():
        rollout = fleet.start(version)
        fleet.until(rollout, lambda r: fleet.agents[first[0]].tried(version), "the first trial")
        fleet.server.cli("rollout", "pause", rollout)
    fleet.until(rollout, lambda r: r["state"] == "paused" and r["waves"][0]["succeeded"] == FIRST_WAVE, "the first wave to end")
    assert {status_of(fleet.show(rollout))[name] for name in fleet.agents if name not in first} == {"WAITING"}
    assert "cannot be" in fleet.server.refused("rollout", "pause", rollout)
    fleet.server.cli("rollout", "rollback", rollout, "--yes")
    assert fleet.finish(rollout)["state"] == "rolled-back"
    assert fleet.versions() == {good}
    assert not any(agent.holds(mark) for name, agent in fleet.agents.items() if name not in first)
    listed = fleet.server.json("rollout", "list")["rollouts"]
    assert rollout in {r["id"] for r in listed}
    assert "the rollout was undone: rolled back by an operator" in fleet.server.refused("rollout", "watch", rollout)
    assert "rolled-back | " in fleet.server.run("rollout", "watch", rollout).stdout


def waits_for_state(fleet, rollout, state):
    return fleet.until(rollout, lambda r: r["state"] == state, f"the rollout to be {state}")


@pytest.mark.timeout(300)
def test_a_second_wave_waits_for_approval_and_a_rollback_is_rolled_back(fleet):
    good = fleet.deploy()
    version, mark = fleet.add()
    rollout = fleet.start(version, "--approve")
    shown = waits_for_state(fleet, rollout, "waiting-approval")
    first = by_wave(shown)["10%"]
    others = [agent for name, agent in fleet.agents.items() if name not in first]
    assert {status_of(shown)[agent.name] for agent in others} == {"WAITING"}
    assert not any(agent.holds(mark) for agent in others)
    fleet.server.cli("rollout", "approve", rollout)
    shown = fleet.finish(rollout)
    assert shown["state"] == "succeeded" and shown["waves"][1]["approved_by"] == ["admin"]
    assert "cannot be approved" in fleet.server.refused("rollout", "approve", rollout)
    for state, left, more in (("rolled-back", good, ()), ("succeeded", version, ("--forward",))):
        fleet.server.cli("rollout", "rollback", rollout, "--yes", *more)
        shown = waits_for_state(fleet, rollout, state)
        assert fleet.versions() == {left}
        assert (shown["rollback"]["total"], shown["rollback"]["succeeded"]) == (DEVICES, DEVICES)
        if not more:
            said = fleet.server.refused("rollout", "rollback", rollout, "--yes")
            assert "no device runs the version that this rollout has brought (`--forward`" in said, said
            assert fleet.versions() == {good}, "said again it moves nobody forward"
    rows = fleet.server.cli("rollout", "export", rollout).split("\n")
    assert rows[0].strip() == "thing,wave,status,version,reported,attempt,told_at,began_at,ended_at,reason,rollback,rollback_reason,details" and f'"{version}"' in rows[1]


@pytest.mark.timeout(300)
def test_no_more_than_the_rate_begin_in_a_minute(fleet):
    fleet.deploy()
    version, _ = fleet.add()
    rollout = fleet.start(version, "--wave", "100%", "--rate", "15/min")
    shown = fleet.until(rollout, lambda r: r["waves"][0]["succeeded"] == 15, "the first fifteen")
    assert sum(agent.tried(version) for agent in fleet.agents.values()) == 15
    assert list(status_of(shown).values()).count("WAITING") == DEVICES - 15
    fleet.server.cli("rollout", "pause", rollout)
    fleet.server.cli("rollout", "resume", rollout)
    assert fleet.finish(rollout)["state"] == "succeeded"
    when = sorted(when for agent in fleet.agents.values() for when, tried in agent.trials() if tried == version)
    assert len(when) == DEVICES and when[15] - when[0] > 55, "the sixteenth had to wait for the next minute"


@pytest.mark.timeout(300)
def test_a_closed_window_holds_everybody_and_an_open_one_nobody(fleet):
    good = fleet.deploy()
    version, mark = fleet.add()
    # One day of the year, and not this one.
    month = (datetime.datetime.now(datetime.timezone.utc).month + 5) % 12 + 1
    rollout = fleet.start(version, "--window", f"0 0 1 {month} */1h")
    waits_for_state(fleet, rollout, "running")
    fleet.server.kill9()
    fleet.server.start()
    # What comes later is done, so the one in the window was looked at and told nobody.
    other, _ = fleet.add()
    done = fleet.finish(fleet.start(other, "--window", "* * * * */2h", "--zone", "Europe/Berlin"))
    assert done["state"] == "succeeded" and fleet.versions() == {other} != {good}
    shown = fleet.show(rollout)
    assert shown["state"] == "running" and set(status_of(shown).values()) == {"WAITING"}
    assert not any(agent.holds(mark) or agent.tried(version) for agent in fleet.agents.values())
    fleet.server.cli("rollout", "abort", rollout, "--yes")
    never = fleet.server.refused("rollout", "start", "lamp", version, "--group", "hall", "--window", "0 0 30 2 */1h")
    assert "never comes true" in never


@pytest.mark.timeout(300)
def test_a_failing_device_is_tried_again_and_the_success_ratio_carries_the_wave(fleet):
    first = sorted(by_wave(fleet.finish(fleet.start(fleet.deploy())))["10%"])
    version, _ = fleet.add(sick=first[:1])
    rollout = fleet.server.json("rollout", "start", "lamp", version, "--group", "hall", "--wave", "10%", "--wave", "100%",
                                "--success", "50", "--retry", "1")["id"]
    # Half of a wave is enough for the rollout; the others still finish.
    shown = fleet.until(rollout, lambda r: r["state"] == "succeeded" and set(status_of(r).values()) == {"FAILED", "SUCCEEDED"}, "all to end")
    assert fleet.agents[first[0]].tried(version) == 2
    assert [e["attempt"] for e in shown["executions"] if e["thing"] == first[0]] == [2]
    assert sorted(status_of(shown).values()) == ["FAILED"] + ["SUCCEEDED"] * (DEVICES - 1)


@pytest.mark.timeout(120)
def test_a_file_says_it_and_a_dry_run_tells_nobody(fleet, tmp_path):
    version, mark = fleet.add()
    before = fleet.versions()
    path = tmp_path / "ROLLOUT.toml"
    path.write_text(f"""
name = "lamp"
version = "{version}"
group = "hall"
rate = "10/min"
[[wave]]
size = "10%"
soak = "1h"
[[wave]]
size = "100%"
approve = true
""")
    started = len(fleet.server.json("rollout", "list")["rollouts"])
    plan = fleet.server.json("rollout", "start", "--file", path, "--dry-run")
    assert [(w["name"], w["total"], w["needs_approval"]) for w in plan["waves"]] == [("10%", 2, False), ("100%", 18, True)]
    assert plan["waves"][1]["first_at"] - plan["waves"][0]["last_at"] == 3600
    assert plan["waves"][1]["last_at"] - plan["waves"][1]["first_at"] == 60
    assert {t["thing"] for w in plan["waves"] for t in w["things"]} == set(fleet.agents)
    told = fleet.server.run("rollout", "start", "--file", path, "--dry-run")
    assert told.returncode == 0 and "not before" in told.stdout and told.stderr == "", told
    some = fleet.server.run("rollout", "start", "lamp", version, "--group", "hall", "--wave", "50%", "--dry-run")
    assert some.returncode == 0 and "end at 50% of the group" in some.stderr, some
    assert len(fleet.server.json("rollout", "list")["rollouts"]) == started and fleet.versions() == before
    assert not any(agent.holds(mark) for agent in fleet.agents.values())
    path.write_text(path.read_text().replace('soak = "1h"', 'soak = "soon"'))
    assert 'wave 1: soak "soon": write it as 10m' in fleet.server.refused("rollout", "start", "--file", path)
    path.write_text(path.read_text().replace('soak = "soon"', 'sock = "1h"'))
    assert "sock is not known" in fleet.server.refused("rollout", "start", "--file", path)
