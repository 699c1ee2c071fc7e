"""What was acknowledged is there after `kill -9` at any moment; SIGTERM under load ends well."""

import os
import queue
import random
import threading
import time

import pytest

from load import Load
from server import NotReady, Server

ROUNDS = int(os.environ.get("MUSTER_CRASH_ROUNDS", "20"))
ROUND_LIMIT_S = 60
DRAIN_LIMIT_S = 10  # of the server, SIGTERM to exit
SEED = int(os.environ.get("MUSTER_CRASH_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.mark.timeout(120 + ROUNDS * ROUND_LIMIT_S)
def test_what_was_acknowledged_survives_kill_9_at_any_moment(server, record_property):
    chance = random.Random(SEED)
    load = Load(server)
    restarts = []
    began = time.monotonic()
    for round_number in range(ROUNDS):
        online = [i for i in range(len(load.receivers)) if chance.random() < 0.6]
        load.begin(online)
        try:
            load.answers(chance.randint(1, 2000))
            # Now and then between two answers, not at one.
            load.over.wait(chance.choice([0, chance.uniform(0, 0.02)]))
        finally:
            server.kill9()
            load.end()
        again = time.monotonic()
        server.start()
        restarts.append(time.monotonic() - again)
        try:
            load.check()
        except AssertionError as fault:
            raise AssertionError(f"round {round_number + 1} of {ROUNDS}, MUSTER_CRASH_SEED={SEED}: {fault}") from fault
    record_property(
        "measured", f"kill -9, {ROUNDS} rounds in {time.monotonic() - began:.0f} s (seed {SEED}): {load.figures()}; "
        f"restart to ready {min(restarts):.2f} to {max(restarts):.2f} s")


def test_sigterm_under_load_drains_in_time_and_loses_nothing(server, record_property):
    load = Load(server)
    load.begin(online=[0, 1])
    load.answers(300)
    began = time.monotonic()
    try:
        code = server.terminate()
        took = time.monotonic() - began
    finally:
        load.end()
    assert code == 0, server.stderr()[-2000:]
    assert took < DRAIN_LIMIT_S
    server.start()
    load.check()
    record_property("measured", f"SIGTERM under load: exit 0 after {took:.2f} s; {load.figures()}")


def test_of_two_servers_started_at_once_after_a_crash_one_runs(server):
    lamp = server.device("lamp-1")
    server.kill9()
    rivals = [Server(server.home, start=False) for _ in range(2)]
    outcomes = queue.Queue()

    def start(rival):
        rival.data = server.data
        rival.log = server.home / f"rival-{id(rival)}.log"
        try:
            outcomes.put(("runs", rival.start()))
        except NotReady as refused:
            outcomes.put(("refused", refused))

    threads = [threading.Thread(target=start, args=(rival,)) for rival in rivals]
    try:
        for thread in threads:
            thread.start()
        found = dict(outcomes.get(timeout=60) for _ in rivals)
        assert found.keys() == {"runs", "refused"}
        assert "in use by another server" in found["refused"].stderr
        assert found["refused"].code != 0
        assert server.run("device", "show", lamp.name, "--json").returncode == 0
    finally:
        for thread in threads:
            thread.join(60)
        for rival in rivals:
            rival.stop()
