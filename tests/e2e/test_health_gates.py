"""Health gates: devices that were updated against those that wait, by what the broker sees of them."""

import json

import pytest

from devices import Agent, eventually
from release import Team
from server import allow, document

FLEET, CANARIES, FEW = 60, 10, 3
SMALL_FLEET = 30
NOT_AUTHORIZED = 0x87
# It was the devices' first version: once it is stopped there is nothing to bring them back to.
STOPPED = ("rolling-back", "aborted")
WATCH = "3s"
# Where each of the few has to be seen: long beside a round of all of them.
WATCH_FEW = "15s"


@pytest.fixture
def hall(request, server, tmp_path, connect):
    """Sixty lamps, or as many as a test wants, and a way to be any of them."""
    team = Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    server.cli("firmware", "add", team.package("lamp", "1.0", b"one"))
    server.cli("group", "create", "hall")
    own = [allow(["Publish", "Receive"], "topic/$aws/things/*"), allow("Subscribe", "topicfilter/$aws/things/*")]
    server.policy("lamp", document(allow("Connect", "*"), *own))
    lamps = {}
    for number in range(getattr(request, "param", FLEET)):
        identity = server.device(f"lamp-{number}", "--group", "hall", "--policy", "lamp")
        lamps[identity.name] = identity

    def be(name):
        return connect(server, lamps[name])

    return be


def start(server, *flags, first=CANARIES):
    return server.json("rollout", "start", "lamp", "1.0", "--group", "hall", "--wave", first, "--wave", "100%", *flags)["id"]


def install(client, name):
    base = f"$aws/things/{name}/jobs"

    def answer(rest, body):
        assert client.publish(f"{base}/{rest}", json.dumps(body)) in (0, 0x10)
        while True:
            message = client.message()
            if message.topic.startswith(f"{base}/{rest}/"):
                return json.loads(message.payload)

    execution = eventually(lambda: answer("start-next", {}).get("execution"), "a job")
    answer(f"{execution['jobId']}/update", {"status": "SUCCEEDED"})


def canaries(server, rollout, count=CANARIES):
    def told():
        shown = server.json("rollout", "show", rollout)
        names = [e["thing"] for e in shown["executions"] if e["status"] != "WAITING"]
        return names if len(names) == count else None

    return eventually(told, "the first wave to be told")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", [CANARIES, FEW])
def test_devices_that_do_what_they_may_not_after_the_update_stop_it(server, hall, first):
    rollout = start(server, "--gate", "authorization-failures", "--watch", WATCH_FEW if first == FEW else WATCH, first=first)
    clients = {name: hall(name) for name in canaries(server, rollout, first)}
    for name, client in clients.items():
        install(client, name)
    tries = 0

    def stopped():
        nonlocal tries
        tries += 1
        for client in clients.values():
            # What is denied anew is seen; what is remembered is not told again.
            assert client.publish(f"secret/{tries}") == NOT_AUTHORIZED
        return server.json("rollout", "show", rollout)["state"] in STOPPED

    eventually(stopped, lambda: server.json("rollout", "show", rollout)["health"])
    shown = server.json("rollout", "show", rollout)
    assert shown["waves"][1]["state"] == "waiting" and shown["waves"][0]["succeeded"] == first
    assert shown["reason"].startswith("authorization-failures: ") and "in one rollout of a hundred" in shown["reason"]
    seen, = shown["health"]
    assert seen["metric"] == "authorization-failures" and seen["waiting_bad"] == 0 and seen["updated_bad"] >= FEW


@pytest.mark.timeout(240)
@pytest.mark.parametrize("hall", [SMALL_FLEET], indirect=True)
@pytest.mark.parametrize("gate", ["disconnects", "reconnects"])
def test_ten_canaries_of_thirty_that_lose_their_connections_stop_it(server, hall, gate):
    """All of them do, and none of the others: so few, and yet no chance."""
    rollout = start(server, "--gate", gate, "--watch", WATCH)
    updated = canaries(server, rollout)
    steady = [hall(f"lamp-{number}") for number in range(SMALL_FLEET) if f"lamp-{number}" not in updated]
    clients = {name: hall(name) for name in updated}
    for name, client in clients.items():
        install(client, name)

    def stopped():
        for name, client in clients.items():
            client.drop()
            clients[name] = hall(name)
        return server.json("rollout", "show", rollout)["state"] in STOPPED

    eventually(stopped, lambda: server.json("rollout", "show", rollout)["health"])
    shown = server.json("rollout", "show", rollout)
    assert shown["waves"][1]["state"] == "waiting" and shown["waves"][0]["succeeded"] == CANARIES
    assert shown["reason"].startswith(f"{gate}: ") and "in one rollout of a hundred" in shown["reason"]
    seen, = shown["health"]
    # Three of three that were looked at beside none of twenty are enough.
    assert seen["metric"] == gate and seen["waiting_bad"] == 0 and seen["updated_bad"] >= 3, seen
    assert all(client.alive() for client in steady)


@pytest.mark.timeout(240)
def test_agents_that_say_they_are_not_well_stop_it(server, tmp_path):
    """Real agents: the health command passes the trial, and fails a while after."""
    team = Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    server.cli("firmware", "add", team.package("lamp", "1.0", b"one"))
    server.cli("group", "create", "hall")
    # Others that wait: what is usual is known from them.
    for number in range(60):
        server.device(f"still-{number}", "--group", "hall")
    server.cli("group", "create", "canaries")
    health = 'runs=$(cat "$MUSTER_STATE/runs" 2>/dev/null || echo 0); echo $((runs + 1)) >"$MUSTER_STATE/runs"; test $runs -lt 1'
    agents = []
    try:
        for number in range(CANARIES):
            identity = server.device(f"lamp-{number}", "--group", "hall")
            server.cli("group", "add", "canaries", identity.name)
            agents.append(Agent(server, identity, tmp_path / identity.name, "--health-every", 1, health=health))
        rollout = server.json("rollout", "start", "lamp", "1.0", "--group", "hall", "--wave", "group:canaries", "--wave", "100%",
                              "--gate", "reported", "--watch", WATCH)["id"]
        eventually(lambda: server.json("rollout", "show", rollout)["state"] in STOPPED,
                   lambda: server.json("rollout", "show", rollout)["health"], limit=120)
        shown = server.json("rollout", "show", rollout)
        assert shown["reason"].startswith("reported: "), shown["reason"]
        assert shown["health"][0]["updated_bad"] >= 7 and shown["health"][0]["waiting_bad"] == 0
    finally:
        for agent in agents:
            agent.stop()


@pytest.mark.timeout(600)
def test_devices_that_fare_no_worse_let_it_go_on_when_they_were_looked_at(server, hall):
    rollout = start(server, "--gate", "disconnects", "--gate", "authorization-failures", "--gate", "reported", "--watch", WATCH)
    for name in canaries(server, rollout):
        install(hall(name), name)
    eventually(lambda: server.json("rollout", "show", rollout)["waves"][1]["state"] == "running",
               lambda: server.json("rollout", "show", rollout)["waves"])
    health = {pulse["metric"]: pulse for pulse in server.json("rollout", "show", rollout)["health"]}
    assert set(health) == {"disconnects", "authorization-failures", "reported"}
    assert all(pulse["updated"] == CANARIES and pulse["updated_bad"] == 0 for pulse in health.values())
    assert "authorization-failures, silence" in server.refused("rollout", "start", "lamp", "1.0", "--group", "hall", "--gate", "noise")


def test_gates_that_nothing_could_make_stop_a_rollout_are_named_when_it_is_planned_and_started(server, hall):
    def said(*flags):
        done = server.run("rollout", "start", "lamp", "1.0", "--group", "hall", *flags)
        assert done.returncode == 0, done
        return done.stderr

    gate = ("--gate", "silence", "--dry-run")
    assert "wave 1 is too small for its gates: even if each of the 1 devices" in said("--wave", "1", "--wave", "100%", *gate)
    assert "3 would be enough" in said("--wave", "1", "--wave", "100%", *gate)
    assert "all are told at once" in said(*gate)
    for enough in (("--wave", "3", "--wave", "100%"), ("--rate", "10/min")):
        assert "gates" not in said(*enough, *gate) and "told at once" not in said(*enough, *gate)
    # Nothing was ever on them.
    assert "of 60 devices no version of lamp is known: they could not go back" in said("--dry-run")
    assert server.json("rollout", "start", "lamp", "1.0", "--group", "hall", *gate)["warnings"]
    assert "all are told at once" in said("--gate", "silence")
