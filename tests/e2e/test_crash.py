"""What was acknowledged is there after `kill -9` at any moment; SIGTERM under load ends well."""

import os
import queue
import random
import threading
import time

import pytest

import once
from clients import proves_silence
from load import Load
from server import EVERYTHING, NotReady, Server

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


@pytest.mark.timeout(120 + ROUNDS * ROUND_LIMIT_S)
def test_qos_2_is_exactly_once_over_kill_9_at_any_moment(server, record_property):
    chance = random.Random(SEED)
    server.policy("all", EVERYTHING)
    people = {name: server.device(name, "--policy", "all") for name in ("pub-0", "pub-1", "sub-0", "sub-1", "sub-2")}
    publishers = [once.Publisher(server, people[f"pub-{i}"], 4 + i) for i in range(2)]
    receivers = [once.Receiver(server, people[f"sub-{i}"], 5 - i % 2) for i in range(3)]
    for receiver in receivers:
        receiver.subscribe()
    for round_number in range(ROUNDS):
        online = [receiver for receiver in receivers if chance.random() < 0.7]
        goal = sum(p.completed for p in publishers) + chance.randint(1, 400)
        for client in publishers + online:
            client.begin(lambda _: False)
        deadline = time.monotonic() + ROUND_LIMIT_S
        while sum(p.completed for p in publishers) < goal:
            assert time.monotonic() < deadline and not any(c.fault for c in publishers + online), \
                [c.fault for c in publishers + online]
            time.sleep(0.001)
        server.kill9()
        for client in publishers + online:
            client.end()
        server.start()
    # The last life: the publishers finish what they have begun, the receivers hear all of it.
    for publisher in publishers:
        publisher.begin(lambda _: True)
    for publisher in publishers:
        publisher.end()
        assert not publisher.open
    sent = {p.identity.name: list(range(1, p.next)) for p in publishers}
    for receiver in receivers:
        receiver.begin(lambda r: sum(map(len, r.heard.values())) >= sum(map(len, sent.values())))
    for receiver in receivers:
        receiver.end()
        for name, numbers in sent.items():
            heard = receiver.heard.get(name, [])
            assert heard == numbers, f"{receiver.identity.name} heard {name} wrong from " \
                f"{next((i for i, (h, s) in enumerate(zip(heard, numbers)) if h != s), min(len(heard), len(numbers)))} on: " \
                f"{len(heard)} of {len(numbers)}, MUSTER_CRASH_SEED={SEED}"
    record_property(
        "measured", f"QoS 2 over {ROUNDS} kills: {sum(map(len, sent.values()))} messages to each of 3 sessions, each once and in order; "
        f"{sum(r.again for r in receivers)} sent again and recognised")


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


def test_a_restart_is_no_alarm_of_those_who_come_back(server, connect):
    server.policy("everything", EVERYTHING)
    lamp, watcher = server.device("lamp", "--policy", "everything"), server.device("watcher", "--policy", "everything")
    will = ("wills/lamp", {"payload": b"gone", "qos": 1, "retain": True})
    watching = connect(server, watcher, clean=False, expiry=3600)
    watching.subscribe("wills/#", qos=1)
    connect(server, lamp, clean=False, expiry=3600, will=will)
    server.restart()
    back = connect(server, lamp, clean=False, expiry=3600, will=will)
    watching = connect(server, watcher, clean=False, expiry=3600)
    assert watching.session_present and back.session_present
    proves_silence(back, "wills/end", watching)
    late = connect(server, watcher, client_id="late")
    late.subscribe("wills/#", qos=1)
    proves_silence(back, "wills/end", late)
