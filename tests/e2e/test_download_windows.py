"""Downloads that outlast their window: a device that was killed in the middle, and one whose network stood still, install in the next window and not before."""

import time

import pytest

from devices import Agent, eventually
from holdup import Holdup
from release import Team

# Open for the first so many seconds of each minute.
OPEN_S = 25
WINDOW = f"* * * * */{OPEN_S}s"
HELD_AFTER_BYTES = 200_000
# A trial's time is written down a moment after it has begun.
NOTED_WITHIN_S = 3


def until(moment):
    time.sleep(max(0, moment - time.time()))


@pytest.mark.timeout(400)
def test_a_download_that_outlasts_its_window_is_installed_in_the_next_one(server, tmp_path):
    team = Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    server.cli("group", "create", "hall")
    net = Holdup(server.port("https"), after=HELD_AFTER_BYTES)
    agents = [
        Agent(server, server.device(name, "--group", "hall"), tmp_path / "state" / name, https_port=net.port)
        for name in ("killed", "stuck")]
    killed, stuck = agents
    try:
        server.cli("firmware", "add", team.package("lamp", "1.0.0", b"light" * 300_000))
        net.hold()
        if OPEN_S / 4 < time.time() % 60 < OPEN_S:
            # What is left of this window is too short.
            until(time.time() // 60 * 60 + OPEN_S)
        rollout = server.json("rollout", "start", "lamp", "1.0.0", "--group", "hall", "--window", WINDOW)["id"]
        statuses = lambda: [each["status"] for each in server.json("rollout", "show", rollout)["executions"]]
        eventually(lambda: len(net.held) == 2, lambda: f"both to download: {statuses()}", 90)
        assert time.time() % 60 < OPEN_S, "the machine was too busy for this window"
        shut = time.time() // 60 * 60 + OPEN_S
        killed.kill9()

        until(shut + 1)
        eventually(lambda: statuses() == ["QUEUED"] * 2, lambda: f"both to be put off: {statuses()}", 20)
        net.release()
        killed.start()
        let_go = ("window has closed", "the download stops")  # by its own clock, or by the server's word
        eventually(lambda: any(words in stuck.said() for words in let_go), "the other to let go", 20)
        until(shut + 10)
        for agent in agents:
            assert agent.trials() == [], f"{agent.name} installed outside its window"
            (part,) = (agent.state / "download").glob("*.part")
            assert part.stat().st_size > HELD_AFTER_BYTES / 2, "what was fetched is kept"
        assert statuses() == ["QUEUED"] * 2

        eventually(lambda: server.json("rollout", "show", rollout)["state"] == "succeeded", lambda: f"the next window: {statuses()}", 90)
        for agent in agents:
            ((began, version),) = agent.trials()
            assert version == "1.0.0" and began % 60 <= OPEN_S + NOTED_WITHIN_S, f"{agent.name} began at second {began % 60}"
    finally:
        net.close()
        for agent in agents:
            agent.stop()
