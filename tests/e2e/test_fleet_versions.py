"""What runs where: versions by device, hardware, group and time, drift, and policies that ask for a version."""

import json
import time

import pytest

from devices import Agent, eventually
from release import Team
from server import EVERYTHING, allow, document

NOT_AUTHORIZED = 0x87
SUCCESS = (0, 0x10)


class Jobs:
    """A device that does its jobs by hand."""

    def __init__(self, client, name):
        self.client, self.base = client, f"$aws/things/{name}/jobs"

    def ask(self, rest, body):
        self.client.publish(f"{self.base}/{rest}", json.dumps(body))
        wanted = (f"{self.base}/{rest}/accepted", f"{self.base}/{rest}/rejected")
        while True:
            message = self.client.message()
            if message.topic in wanted:
                assert message.topic.endswith("/accepted"), message.payload
                return json.loads(message.payload)

    def says(self, name, version):
        return self.ask("start-next", {"statusDetails": {"firmwareName": name, "firmwareVersion": version}})

    def install(self, version):
        """Takes the next job, which must bring this version, and says that it did."""
        def told():
            return self.ask("start-next", {}).get("execution")

        execution = eventually(told, "a job")
        assert execution["jobDocument"]["version"] == version
        self.ask(f"{execution['jobId']}/update", {"status": "SUCCEEDED"})


@pytest.fixture
def yard(server, tmp_path):
    team = Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    for version in ("1.0", "2.0"):
        server.cli("firmware", "add", team.package("lamp", version, version.encode()))
    for group in ("hall", "cellar"):
        server.cli("group", "create", group)
    return server


def finish(server, rollout, group):
    def state():
        return server.json("rollout", "show", rollout)["state"] == "succeeded"

    eventually(state, lambda: server.json("rollout", "show", rollout))


def test_a_policy_that_asks_for_a_version_is_felt_after_the_update(yard, connect):
    from_two_on = {**allow("Publish", "topic/new/*"), "Condition": {
        "StringEquals": {"muster:FirmwareName": "lamp"}, "StringLike": {"muster:FirmwareVersion": ["2.*", "3.*"]}}}
    own = [allow(["Publish", "Receive"], "topic/$aws/things/*"), allow("Subscribe", "topicfilter/$aws/things/*")]
    yard.policy("from-two-on", document(allow("Connect", "*"), *own, from_two_on))
    device = yard.device("lamp-1", "--policy", "from-two-on", "--group", "hall")
    client = connect(yard, device)
    jobs = Jobs(client, "lamp-1")
    assert client.publish("new/t") == NOT_AUTHORIZED
    for version, may in (("1.0", NOT_AUTHORIZED), ("2.0", SUCCESS)):
        rollout = yard.json("rollout", "start", "lamp", version, "--group", "hall")["id"]
        jobs.install(version)
        reason = client.publish("new/t")
        assert reason == may or reason in (may if isinstance(may, tuple) else ()), "the same live session"
        finish(yard, rollout, "hall")
    # The way back takes it away again.
    yard.cli("rollout", "rollback", rollout, "--yes")
    jobs.install("1.0")
    assert client.publish("new/t") == NOT_AUTHORIZED
    yard.restart()
    client = connect(yard, device)
    assert client.publish("new/t") == NOT_AUTHORIZED


def test_which_device_runs_which_version_by_group_hardware_and_time(yard, connect):
    yard.policy("everything", EVERYTHING)
    lamps = {}
    for name, group, hardware in (("a", "hall", "board-1"), ("b", "hall", "board-2"), ("c", "cellar", "board-1")):
        identity = yard.device(name, "--policy", "everything", "--group", group, "--attribute", f"hardware={hardware}")
        lamps[name] = Jobs(connect(yard, identity), name)
    before = int(time.time()) - 1
    for group, version in (("hall", "1.0"), ("cellar", "1.0"), ("hall", "2.0")):
        rollout = yard.json("rollout", "start", "lamp", version, "--group", group)["id"]
        for name in ("ab" if group == "hall" else "c"):
            lamps[name].install(version)
        finish(yard, rollout, group)

    def versions(*flags):
        moments = yard.json("fleet", "versions", *flags)["moments"]
        return [{(s["version"], s["hardware"]): s["count"] for s in m["versions"]} for m in moments]

    assert versions() == [{("2.0", "board-1"): 1, ("2.0", "board-2"): 1, ("1.0", "board-1"): 1}]
    assert versions("--group", "cellar") == [{("1.0", "board-1"): 1}]
    assert versions("--hardware", "board-2") == [{("2.0", "board-2"): 1}]
    assert versions("--firmware", "other") == [{}]
    assert versions("--at", before) == [{}]
    assert [len(m) for m in versions("--days", 2)] == [0, 0, 3]
    table = yard.cli("fleet", "versions").splitlines()
    assert table[0].split() == ["firmware", "version", "hardware", "devices"]
    assert ["lamp", "1.0", "board-1", "1"] in [line.split() for line in table]

    devices = yard.json("fleet", "devices", "--version", "2.0")["devices"]
    assert [d["thing"] for d in devices] == ["a", "b"] and not any(d["drift"] for d in devices)
    assert all(d["rollout"] == rollout and d["since"] >= before for d in devices)

    # Somebody flashed it by hand.
    lamps["a"].says("lamp", "0.9-hand")
    drifted = yard.json("fleet", "devices", "--drift")["devices"]
    assert [(d["thing"], d["version"], d["reported"]) for d in drifted] == [("a", "2.0", "0.9-hand")]
    assert "says 0.9-hand" in yard.cli("rollout", "show", rollout)
    assert "another version" in yard.cli("fleet", "versions")
    lines = [line.split() for line in yard.cli("fleet", "history", "a").splitlines()[1:]]
    assert [line[2] for line in lines] == ["1.0", "2.0", "0.9-hand"]
    lamps["a"].says("lamp", "2.0")
    assert yard.json("fleet", "devices", "--drift")["devices"] == []
    assert "nowhere" in yard.refused("fleet", "devices", "--group", "nowhere")


def test_an_agent_says_what_it_runs(yard, tmp_path):
    identity = yard.device("lamp-2", "--group", "hall")
    agent = Agent(yard, identity, tmp_path / "state")
    try:
        finish(yard, yard.json("rollout", "start", "lamp", "1.0", "--group", "hall")["id"], "hall")
        # Its state comes from a backup of before: the server knows of 2.0, the agent of 1.0.
        agent.stop()
        kept = tmp_path / "kept"
        agent.state.rename(kept)
        finish_with = Agent(yard, identity, tmp_path / "other")
        finish(yard, yard.json("rollout", "start", "lamp", "2.0", "--group", "hall")["id"], "hall")
        finish_with.stop()
        kept.rename(agent.state)
        agent.start()

        def drifted():
            found = yard.json("fleet", "devices", "--drift")["devices"]
            return [(d["version"], d["reported"]) for d in found] == [("2.0", "1.0")]

        eventually(drifted, lambda: yard.json("fleet", "devices"))
    finally:
        agent.stop()
