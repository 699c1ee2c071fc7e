"""Rollouts where people, absences and older copies of the server come between: who goes first, who must agree, what overtakes what, and what is drawn."""

import fcntl
import hashlib
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time

import pytest

import api
from devices import Agent, eventually, outcome, thing_arn
from release import Team
from server import MUSTER
from test_job_data import data_plane

FINAL = ("succeeded", "rolled-back", "aborted")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Yard:
    """A server with release keys, and devices that say what a test has them say: by the jobs' data plane, in the operator's hands."""

    def __init__(self, server, home):
        self.server, self.home, self.team = server, home, Team(home / "team")
        server.cli("firmware", "trust", self.team.root())
        server.cli("group", "create", "hall")
        self.devices = data_plane(server)

    def add(self, version, image=b"light"):
        self.server.cli("firmware", "add", self.team.package("lamp", version, image * 100))

    def things(self, count, hardware=("board-1",)):
        """So many things in the hall, of each hardware in turn."""
        client = api.iot(self.server)
        names = [f"lamp-{number:03}" for number in range(count)]
        for number, name in enumerate(names):
            client.create_thing(thingName=name, attributePayload={"attributes": {"hardware": hardware[number % len(hardware)]}})
            client.add_thing_to_thing_group(thingGroupName="hall", thingName=name)
        return names

    def start(self, version, *flags):
        return self.server.json("rollout", "start", "lamp", version, "--group", "hall", *flags)["id"]

    def show(self, rollout):
        return self.server.json("rollout", "show", rollout)

    def until(self, rollout, look, what):
        eventually(lambda: look(self.show(rollout)), lambda: f"{what}: {self.show(rollout)}", 60)
        return self.show(rollout)

    def report(self, thing, status, **details):
        """Takes the thing's next job and says how it ended."""
        execution = eventually(lambda: self.devices.start_next_pending_job_execution(thingName=thing).get("execution"), f"a job for {thing}")
        more = {"statusDetails": details} if details else {}
        self.devices.update_job_execution(thingName=thing, jobId=execution["jobId"], status=status, **more)
        return execution["jobId"]

    def agent(self, name):
        return Agent(self.server, self.server.device(name, "--group", "hall"), self.home / name, start=False)


@pytest.fixture
def yard(server, tmp_path):
    return Yard(server, tmp_path)


@pytest.fixture
def agents():
    made = []
    yield made
    for one in made:
        if one.process:
            one.stop()


def test_the_first_wave_has_some_of_each_hardware_and_version_and_the_same_each_time(yard):
    names = yard.things(40, ("board-1", "board-2"))
    yard.add("1.0")
    yard.add("2.0", b"dark")
    yard.server.cli("group", "create", "old")
    client = api.iot(yard.server)
    for name in names[:20]:
        client.add_thing_to_thing_group(thingGroupName="old", thingName=name)
    first = yard.server.json("rollout", "start", "lamp", "1.0", "--group", "old")["id"]
    for name in names[:20]:
        yard.report(name, "SUCCEEDED")
    yard.until(first, lambda r: r["state"] == "succeeded", "1.0 in half of the hall")

    def canaries():
        plan = yard.server.json("rollout", "start", "lamp", "2.0", "--group", "hall", "--wave", "20%", "--wave", "100%", "--dry-run")
        return [thing["thing"] for thing in plan["waves"][0]["things"]]

    chosen = canaries()
    kinds = [(names.index(name) % 2, names.index(name) < 20) for name in chosen]
    assert len(chosen) == 8 and all(kinds.count(kind) == 2 for kind in set(kinds)) and len(set(kinds)) == 4, kinds
    assert canaries() == chosen
    # A device's place does not hang on who else is there.
    for name in set(names) - set(chosen):
        if names.index(name) % 4 == 0:
            client.remove_thing_from_thing_group(thingGroupName="hall", thingName=name)
    assert set(canaries()) <= set(chosen)


def test_a_wave_waits_for_two_people_and_one_of_them_twice_is_one(yard, tmp_path):
    names = yard.things(2)
    yard.add("1.0")
    who = {}
    for name, role in (("ann", "release-engineer"), ("bob", "release-engineer"), ("eve", "operator")):
        status, _, made = api.call(yard.server, "POST", "/muster/v1/operators", {"name": name, "role": role})
        assert status == 200, made
        (tmp_path / name).write_text(made["credentials"])
        who[name] = tmp_path / name
    path = tmp_path / "ROLLOUT.toml"
    path.write_text('name = "lamp"\nversion = "1.0"\ngroup = "hall"\n[[wave]]\nsize = "1"\n[[wave]]\nsize = "100%"\napprovers = 2\n')
    rollout = yard.server.json("rollout", "start", "--file", path)["id"]
    first = yard.until(rollout, lambda r: r["waves"][0]["queued"] == 1, "the first wave")
    canary = next(e["thing"] for e in first["executions"] if e["wave"] == first["waves"][0]["name"])
    yard.report(canary, "SUCCEEDED")
    yard.until(rollout, lambda r: r["state"] == "waiting-approval", "the rollout to wait")

    def approve(name):
        return api.call(yard.server, "POST", f"/muster/v1/rollouts/{rollout}/approve", who=api.credentials(who[name]))

    assert approve("eve")[0] == 403
    for _ in range(2):
        approve("ann")
        shown = yard.show(rollout)
        assert (shown["state"], shown["waves"][1]["approved_by"]) == ("waiting-approval", ["ann"])
    yard.server.kill9()
    yard.server.start()
    assert yard.show(rollout)["waves"][1]["approved_by"] == ["ann"]
    assert approve("bob")[0] == 200
    yard.devices = data_plane(yard.server)
    other, = set(names) - {canary}
    yard.report(other, "SUCCEEDED")
    shown = yard.until(rollout, lambda r: r["state"] == "succeeded", "the second wave")
    assert shown["waves"][1]["approved_by"] == ["ann", "bob"]


def test_a_newer_rollout_overtakes_an_older_one_and_the_device_installs_once(yard, agents):
    lamp = yard.agent("lamp")
    agents.append(lamp)
    for version in ("1.0", "2.0"):
        yard.add(version, version.encode())
    older = yard.start("1.0")
    yard.until(older, lambda r: r["waves"][0]["queued"] == 1, "the older one")
    newer = yard.start("2.0")
    yard.until(newer, lambda r: r["waves"][0]["queued"] == 1, "the newer one")
    execution, = yard.show(older)["executions"]
    assert execution["status"] == "CANCELED" and execution["reason"] == f"superseded by rollout {newer}", execution
    lamp.start()
    yard.until(newer, lambda r: r["state"] == "succeeded", "the newer one")
    assert [version for _, version in lamp.trials()] == ["2.0"] and lamp.status()["version"] == "2.0"
    # That nobody took the older one is no success, neither to people nor to scripts.
    shown = yard.until(older, lambda r: r["state"] in FINAL, "the older one to end")
    assert shown["state"] == "aborted" and "a newer rollout took over 1" in shown["reason"], shown
    assert "a newer rollout took over 1" in yard.server.refused("rollout", "watch", older)
    assert yard.server.run("rollout", "watch", newer).returncode == 0


def test_a_device_that_is_away_while_a_rollout_is_undone_goes_back_when_it_returns(yard, agents):
    here, away = yard.agent("here"), yard.agent("away")
    agents += [here, away]
    for version in ("1.0", "2.0"):
        yard.add(version, version.encode())
    for agent in agents:
        agent.start()
    for version in ("1.0", "2.0"):
        rollout = yard.start(version)
        yard.until(rollout, lambda r: r["state"] == "succeeded", version)
    away.stop()
    yard.server.cli("rollout", "rollback", rollout, "--yes")
    shown = yard.until(rollout, lambda r: r["rollback"]["succeeded"] == 1, "who is here to go back")
    assert shown["state"] == "rolling-back" and here.status()["version"] == "1.0" and away.status()["version"] == "2.0"
    yard.server.kill9()
    yard.server.start()
    away.start()
    yard.until(rollout, lambda r: r["state"] == "rolled-back", "the other")
    assert away.status()["version"] == "1.0"
    for agent in agents:
        assert [version for _, version in agent.trials()] == ["1.0", "2.0", "1.0"]


def test_a_server_that_went_back_to_an_old_copy_of_itself_confuses_nobody(yard, agents, tmp_path):
    lamp = yard.agent("lamp")
    agents.append(lamp)
    for version in ("1.0", "2.0", "3.0"):
        yard.add(version, version.encode())
    lamp.start()
    yard.until(yard.start("1.0"), lambda r: r["state"] == "succeeded", "1.0")
    lamp.stop()
    rollout = yard.start("2.0")
    yard.until(rollout, lambda r: r["waves"][0]["queued"] == 1, "2.0 to wait for the device")
    yard.server.terminate()
    copy = tmp_path / "copy"
    shutil.copytree(yard.server.data, copy)
    yard.server.start()
    lamp.start()
    yard.until(rollout, lambda r: r["state"] == "succeeded", "2.0")
    gone = yard.start("3.0")
    yard.until(gone, lambda r: r["state"] == "succeeded", "3.0, of which the copy knows nothing")
    yard.server.kill9()
    shutil.rmtree(yard.server.data)
    copy.rename(yard.server.data)
    yard.server.start()
    # It is offered 2.0 once more: done already, so that is said again, and not done again.
    shown = yard.until(rollout, lambda r: r["state"] == "succeeded", "2.0 once more")
    assert [e["status"] for e in shown["executions"]] == ["SUCCEEDED"]
    assert [version for _, version in lamp.trials()] == ["1.0", "2.0", "3.0"] and lamp.status()["version"] == "3.0"
    # What it runs really is seen, and the next order is done like any other.
    eventually(lambda: [d["reported"] for d in yard.server.json("fleet", "devices", "--drift")["devices"]] == ["3.0"],
               lambda: yard.server.json("fleet", "devices"))
    yard.until(yard.start("3.0"), lambda r: r["state"] == "succeeded", "3.0 once more")
    assert lamp.status()["version"] == "3.0"
    assert yard.server.json("fleet", "devices", "--drift")["devices"] == []


def test_what_a_stolen_server_was_refused_is_told_to_the_one_that_has_recovered(yard, agents, tmp_path):
    lamp = yard.agent("lamp")
    agents.append(lamp)
    yard.add("1.0")
    lamp.start()
    yard.until(yard.start("1.0"), lambda r: r["state"] == "succeeded", "1.0")
    yard.server.terminate()
    copy = tmp_path / "copy"
    shutil.copytree(yard.server.data, copy)
    yard.server.start()

    def refused_job(job):
        client = api.iot(yard.server)
        client.create_job(jobId=job, targets=[thing_arn("lamp")], document=json.dumps({"operation": job}))
        assert outcome(client, job, "lamp")[0] == "REJECTED"

    def known():
        device, = yard.server.json("fleet", "devices")["devices"]
        return [(refusal["job"], refusal["reason"]) for refusal in device.get("refused", [])]

    # Whoever has the server's keys takes the report, and says nothing of it.
    refused_job("steal")
    assert known() == []
    yard.server.kill9()
    shutil.rmtree(yard.server.data)
    copy.rename(yard.server.data)
    yard.server.start()
    eventually(known, known)
    # What is refused here has its own report.
    refused_job("mistake")
    lamp.stop()
    lamp.start()
    yard.until(yard.start("1.0"), lambda r: r["state"] == "succeeded", "1.0 once more")
    (job, reason), = known()
    assert job == "steal" and '"steal" is not known here' in reason
    assert "steal: operation" in yard.server.cli("fleet", "devices")
    assert yard.server.log.read_text().count("a device has refused a job that this server does not know") == 1


def screen(command, until, change, home, rows=24, columns=80):
    """What a program draws on a terminal: all of it as it came. `change` is called once `until` was seen."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, cwd=home, start_new_session=True)
    os.close(slave)
    seen, end = "", time.monotonic() + 60
    try:
        while time.monotonic() < end:
            ready, _, _ = select.select([master], [], [], 1)
            if ready:
                try:
                    piece = os.read(master, 65536)
                except OSError:
                    break
                if not piece:
                    break
                seen += piece.decode()
            if change and until in ESCAPES.sub("", seen):
                change()
                change = None
        assert process.wait(30) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return seen


def test_watch_draws_in_place_on_a_terminal_and_says_lines_elsewhere(yard, tmp_path):
    names = yard.things(4)
    yard.add("1.0")
    rollout = yard.start("1.0", "--wave", "50%", "--wave", "100%", "--success", "50")
    yard.until(rollout, lambda r: r["waves"][0]["queued"] == 2, "the first wave")
    command = [MUSTER, "rollout", "watch", rollout, "--data", str(yard.server.data)]
    plain = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=tmp_path)

    def work():
        first = [e["thing"] for e in yard.show(rollout)["executions"] if e["status"] == "QUEUED"]
        yard.report(first[0], "FAILED", reason="the lamp stays dark")
        yard.report(first[1], "SUCCEEDED")
        for name in sorted(set(names) - set(first)):
            yard.report(name, "SUCCEEDED")

    drawn = screen(command, "50%", work, tmp_path)
    lines, _ = plain.communicate(timeout=60)
    assert plain.returncode == 0 and "\x1b" not in lines and "succeeded" in lines
    assert "1 failed: the lamp stays dark" in lines and "a minute" in lines, lines
    # Each picture begins where the one before it began.
    pictures = re.split(r"\x1b\[\d+F\x1b\[J", drawn)
    assert len(pictures) > 1, drawn
    last = ESCAPES.sub("", pictures[-1])
    assert "50%" in last and "100%" in last and "the lamp stays dark" in last, last
    assert "a minute" in last or "devices left" in last, last
    shown = json.loads(yard.server.cli("rollout", "show", rollout, "--json"))
    failed, = [e for e in shown["executions"] if e["status"] == "FAILED"]
    assert failed["reason"] == "the lamp stays dark" and failed["details"]["reason"] == "the lamp stays dark"
    rows = yard.server.cli("rollout", "export", rollout).splitlines()
    assert len(rows) == 5 and any(failed["thing"] in row and "the lamp stays dark" in row for row in rows)


def test_a_picture_fits_a_small_terminal_and_devices_names_make_no_lines(yard, tmp_path):
    names = yard.things(24)
    yard.add("1.0")
    rollout = yard.start("1.0", "--wave", "50%", "--wave", "100%", "--success", "1")
    yard.until(rollout, lambda r: r["waves"][0]["queued"] == 12, "the first wave")

    def work():
        first = [e["thing"] for e in yard.show(rollout)["executions"] if e["status"] == "QUEUED"]
        for name in first[:5]:
            yard.report(name, "FAILED", reason=f"the lamp of {name} is dark")
        for number, name in enumerate(first[5:10]):
            yard.report(name, "FAILED", reason=f"={number}")
        yard.report(first[10], "SUCCEEDED")
        yard.until(rollout, lambda r: r["waves"][1]["queued"] == 12, "the second wave")
        yard.report(sorted(set(names) - set(first))[0], "SUCCEEDED")

    rows, columns = 10, 60
    drawn = screen([MUSTER, "rollout", "watch", rollout, "--data", str(yard.server.data)], "50%", work, tmp_path, rows, columns)
    ups = [int(up) for up in re.findall(r"\x1b\[(\d+)F\x1b\[J", drawn)]
    pictures = [ESCAPES.sub("", picture).splitlines() for picture in re.split(r"\x1b\[\d+F\x1b\[J", drawn)]
    assert len(pictures) > 1 and all(len(picture) <= rows - 2 for picture in pictures), drawn
    assert all(len(line) <= columns for picture in pictures for line in picture), drawn
    assert ups == [len(picture) for picture in pictures[:-1]], "each begins where the one before began"
    last = "\n".join(pictures[-1])
    assert "5 failed: the lamp of <device> is dark" in last and "more reasons" in last and "100%" in last, last
    shown = yard.show(rollout)
    assert [f["devices"] for f in shown["failures"]] == [5, 1, 1, 1, 1, 1]
    # What devices wrote is no formula.
    assert '"\'=3"' in yard.server.cli("rollout", "export", rollout)


def test_watch_waits_for_a_server_that_is_away_and_says_when_it_cannot_know(yard, tmp_path):
    names = yard.things(2)
    yard.add("1.0")
    rollout = yard.start("1.0")
    command = [MUSTER, "rollout", "watch", rollout, "--data", str(yard.server.data)]
    log = tmp_path / "watch.err"
    with log.open("w") as err:
        watcher = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True, cwd=tmp_path)
        assert "running" in watcher.stdout.readline()
        yard.server.kill9()
        eventually(lambda: "waiting for the server" in log.read_text(), log.read_text)
        yard.server.start()
        eventually(lambda: "answers again" in log.read_text(), log.read_text)
        yard.devices = data_plane(yard.server)
        for name in names:
            yard.report(name, "SUCCEEDED")
        lines, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 0 and "succeeded" in lines, lines
    assert log.read_text().count("waiting for the server") == 1
    gone = yard.server.run("rollout", "watch", "r-000000000000")
    assert gone.returncode == 2 and "is not known" in gone.stderr, gone
    yard.server.kill9()
    away = yard.server.run("rollout", "watch", rollout)
    assert away.returncode == 2 and "no server answers" in away.stderr, away


def test_an_approval_is_of_one_wave(yard):
    names = yard.things(3)
    yard.add("1.0")
    rollout = yard.start("1.0", "--wave", "1", "--wave", "2", "--wave", "3", "--approve")

    def done(count):
        for execution in yard.show(rollout)["executions"]:
            if execution["status"] == "QUEUED":
                yard.report(execution["thing"], "SUCCEEDED")
        yard.until(rollout, lambda r: r["waves"][count - 1]["state"] == "done" and r["state"] == "waiting-approval", f"{count} waves")

    done(1)
    assert "wave 2 of" in yard.server.cli("rollout", "approve", rollout)
    done(2)
    # The same once more, as a tool says it whose answer was lost.
    refused = yard.server.refused("rollout", "approve", rollout, "--wave", "2")
    assert "`2` is not the wave that waits: that is `3`" in refused
    assert "approved_by" not in yard.show(rollout)["waves"][2]
    yard.server.cli("rollout", "approve", rollout, "--wave", "3")
    yard.until(rollout, lambda r: r["state"] == "running", "the third wave")
    # An outline is as long as there are waves.
    _, _, outline = api.call(yard.server, "GET", f"/muster/v1/rollouts/{rollout}?executions=false")
    assert "executions" not in outline and [w["total"] for w in outline["waves"]] == [1, 1, 1]
    assert len(names) == 3


def test_a_rollout_that_has_succeeded_is_undone_where_those_it_did_not_wait_for_fail(yard):
    names = yard.things(6)
    yard.add("1.0")
    yard.add("2.0", b"dark")
    first = yard.start("1.0")
    for name in names:
        yard.report(name, "SUCCEEDED")
    yard.until(first, lambda r: r["state"] == "succeeded", "1.0 everywhere")
    rollout = yard.start("2.0", "--success", "16", "--abort-failed", "50")
    yard.report(names[0], "SUCCEEDED")
    yard.until(rollout, lambda r: r["state"] == "succeeded", "enough")
    yard.server.kill9()
    yard.server.start()
    yard.devices = data_plane(yard.server)
    yard.report(names[1], "FAILED", reason="no light")
    shown = yard.until(rollout, lambda r: r["state"] == "rolling-back", "the failure to count")
    assert "1 of 2 finished devices failed" in shown["reason"]
    yard.report(names[0], "SUCCEEDED")
    shown = yard.until(rollout, lambda r: r["state"] == "rolled-back", "the way back")
    assert {e["version"] for e in shown["executions"]} == {"1.0"}
    # Nobody else is told of it any more.
    assert all("execution" not in yard.devices.start_next_pending_job_execution(thingName=name) for name in names)


def test_a_paused_rollout_gives_nothing_out_to_those_that_come_meanwhile(yard, agents):
    awake, asleep = (yard.agent(name) for name in ("lamp-1", "lamp-2"))
    agents += [awake, asleep]
    yard.add("1.0")
    awake.start()
    rollout = yard.start("1.0")
    yard.until(rollout, lambda r: r["waves"][0]["succeeded"] == 1 and r["waves"][0]["queued"] == 1, "one of the two")
    yard.server.cli("rollout", "pause", rollout)
    asleep.start()
    # It is there and asks, and is told of a job of an operator's, but not of the rollout.
    client = api.iot(yard.server)
    client.create_job(jobId="hello", targets=[thing_arn("lamp-2")], document="{}")
    status = lambda: client.describe_job_execution(jobId="hello", thingName="lamp-2")["execution"]["status"]  # noqa: E731
    eventually(lambda: status() not in ("QUEUED", "IN_PROGRESS"), status)
    shown = yard.show(rollout)
    assert (shown["state"], shown["waves"][0]["queued"]) == ("paused", 1)
    yard.server.kill9()
    yard.server.start()
    assert yard.show(rollout)["state"] == "paused"
    yard.server.cli("rollout", "resume", rollout)
    shown = yard.until(rollout, lambda r: r["state"] == "succeeded", "the other one")
    assert [e["attempt"] for e in shown["executions"] if "attempt" in e] == [], "the same tries"


def test_two_people_let_the_first_wave_go_where_it_asks_for_them(yard, tmp_path):
    yard.things(2)
    yard.add("1.0")
    path = tmp_path / "ROLLOUT.toml"
    path.write_text('name = "lamp"\nversion = "1.0"\ngroup = "hall"\n[[wave]]\nsize = "1"\napprovers = 2\n[[wave]]\nsize = "100%"\n')
    plan = yard.server.json("rollout", "start", "--file", path, "--dry-run")
    assert [wave["needs_approval"] for wave in plan["waves"]] == [True, False]
    rollout = yard.server.json("rollout", "start", "--file", path)["id"]
    shown = yard.until(rollout, lambda r: r["state"] == "waiting-approval", "the rollout to wait")
    assert {e["status"] for e in shown["executions"]} == {"WAITING"}
    yard.server.cli("rollout", "approve", rollout)
    assert yard.show(rollout)["state"] == "waiting-approval", "one of two"
    eva = api.call(yard.server, "POST", "/muster/v1/operators", {"name": "eva", "role": "release-engineer"})[2]
    (tmp_path / "eva").write_text(eva["credentials"])
    assert api.call(yard.server, "POST", f"/muster/v1/rollouts/{rollout}/approve", who=api.credentials(tmp_path / "eva"))[0] == 200
    yard.until(rollout, lambda r: r["waves"][0]["queued"] == 1, "the first wave")


def test_the_ids_of_a_rollouts_jobs_are_nobody_elses(yard):
    names = yard.things(2)
    yard.add("1.0")
    rollout = yard.start("1.0", "--wave", "1", "--wave", "100%")
    client = api.iot(yard.server)
    back = f"{rollout}-back-{hashlib.sha256(b'0.9').hexdigest()[:8]}"
    for job in (f"{rollout}-wave-2", back, "AFR_OTA-spring"):
        with pytest.raises(client.exceptions.InvalidRequestException, match="is kept for the jobs of"):
            client.create_job(jobId=job, targets=[thing_arn(name) for name in names], document="{}")
    for name in sorted(names, key=lambda name: name != yard.show(rollout)["executions"][0]["thing"]):
        yard.report(name, "SUCCEEDED")
    yard.until(rollout, lambda r: r["state"] == "succeeded", "both")


def everywhere(yard, names, *versions):
    """Each version in turn reaches all; the last rollout."""
    for version in versions:
        rollout = yard.start(version)
        for name in names:
            yard.report(name, "SUCCEEDED")
        yard.until(rollout, lambda r: r["state"] == "succeeded", version)
    return rollout


def test_a_way_back_that_the_counters_do_not_allow_is_said_refused_and_told_to_nobody(yard):
    names = yard.things(3)
    for version, counter in (("1.0", 0), ("2.0", 1), ("3.0", 2)):
        package = yard.team.package("lamp", version, version.encode() * 100, more=("--counter", counter))
        yard.server.cli("firmware", "add", package)
    everywhere(yard, names, "1.0")
    words = "3 devices run 1.0 and could not go back to it if this rollout were undone: the security counter of lamp 1.0 is 0"
    for more in (("--dry-run",), ()):
        said = yard.server.run("rollout", "start", "lamp", "2.0", "--group", "hall", *more)
        assert said.returncode == 0 and words in said.stderr, said
    rollout = yard.server.json("rollout", "list")["rollouts"][-1]["id"]
    for name in names:
        yard.report(name, "SUCCEEDED")
    yard.until(rollout, lambda r: r["state"] == "succeeded", "2.0")
    assert "none of the 3 devices that have it can go back" in yard.server.refused("rollout", "rollback", rollout, "--yes")
    assert yard.show(rollout)["state"] == "succeeded"
    assert "every device would refuse lamp 1.0" in yard.server.refused("rollout", "start", "lamp", "1.0", "--group", "hall")
    rollout = yard.start("3.0", "--abort-failed", "30")
    for name, status in zip(names, ("SUCCEEDED", "SUCCEEDED", "FAILED")):
        yard.report(name, status)
    shown = yard.until(rollout, lambda r: r["state"] in FINAL, "the end")
    assert shown["state"] == "aborted" and "2 of 2 devices did not go back" in shown["reason"]
    assert [e.get("rollback_reason", "")[:20] for e in shown["executions"]].count("the security counter") == 2
    assert all("execution" not in yard.devices.start_next_pending_job_execution(thingName=name) for name in names)


def test_a_version_that_has_expired_is_no_way_back_and_the_state_is_true(yard):
    names = yard.things(2)
    end = time.time() + 12
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    yard.server.cli("firmware", "add", yard.team.package("lamp", "1.0", b"old" * 100, more=("--expires", expires)))
    yard.add("2.0")
    assert "before it would begin" in yard.server.refused("rollout", "start", "lamp", "2.0", "--group", "hall", "--start", "2099-01-01T00:00:00Z")
    everywhere(yard, names, "1.0")
    eventually(lambda: time.time() > end + 1, "the old version to expire")
    said = yard.server.run("rollout", "start", "lamp", "2.0", "--group", "hall", "--abort-failed", "50")
    assert said.returncode == 0 and "2 devices run 1.0 and could not go back" in said.stderr and "expired" in said.stderr, said
    rollout = yard.server.json("rollout", "list")["rollouts"][-1]["id"]
    for name, status in zip(names, ("SUCCEEDED", "FAILED")):
        yard.report(name, status)
    shown = yard.until(rollout, lambda r: r["state"] in FINAL, "the end")
    assert shown["state"] == "aborted" and "1 of 1 devices did not go back" in shown["reason"] and "expired" in shown["reason"]
    assert "can go back" in yard.server.refused("rollout", "rollback", rollout, "--yes")


def test_the_way_back_goes_in_waves_stops_where_it_fails_and_tries_once_more(yard):
    names = yard.things(6)
    for version in ("1.0", "2.0"):
        yard.add(version, version.encode())
    everywhere(yard, names, "1.0")
    rollout = yard.start("2.0", "--wave", "2", "--wave", "100%")
    first = [e["thing"] for e in yard.show(rollout)["executions"]][:2]
    rest = [name for name in names if name not in first]
    for name in first + rest:
        yard.report(name, "SUCCEEDED")
    yard.until(rollout, lambda r: r["state"] == "succeeded", "2.0")
    yard.server.cli("rollout", "rollback", rollout, "--yes")
    waves = lambda r: [(w["state"], w["total"], w["queued"]) for w in r["rollback"]["waves"]]  # noqa: E731
    yard.until(rollout, lambda r: waves(r) == [("running", 2, 2), ("waiting", 4, 0)], "the first wave of the way back")
    yard.server.cli("rollout", "pause", rollout)
    assert all("execution" not in yard.devices.start_next_pending_job_execution(thingName=name) for name in names)
    yard.server.kill9()
    yard.server.start()
    yard.devices = data_plane(yard.server)
    yard.server.cli("rollout", "resume", rollout)
    for name in first:
        yard.report(name, "FAILED", reason="the old one is broken")
    shown = yard.until(rollout, lambda r: r["state"] in FINAL, "the way back to stop")
    assert shown["state"] == "aborted" and "the way back was stopped: none of the 2 devices" in shown["reason"]
    assert [e["rollback_reason"] for e in shown["executions"] if e["thing"] in first] == ["the old one is broken"] * 2
    assert all("execution" not in yard.devices.start_next_pending_job_execution(thingName=name) for name in names), "the rest was spared"
    yard.server.cli("rollout", "rollback", rollout, "--yes")
    yard.report(first[0], "SUCCEEDED")
    for name in rest[:2]:
        yard.report(name, "SUCCEEDED")
    yard.server.cli("rollout", "abort", rollout, "--yes")
    shown = yard.until(rollout, lambda r: r["state"] == "aborted", "the stop")
    assert "the way back was stopped by an operator" in shown["reason"]
    assert sorted(e["version"] for e in shown["executions"]) == ["1.0"] * 3 + ["2.0"] * 3
