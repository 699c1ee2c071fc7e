"""`muster bench` against Muster and against Debian's mosquitto: what it counts is so, and it says what does not go.

Small runs; nothing is judged by time.
"""

import json
import socket

import pytest

from mosquitto import Mosquitto
from server import muster

LATENCY = {"count", "min", "mean", "p50", "p90", "p99", "p999", "p9999", "max", "quantiles"}


class Target:
    """A broker with an identity it lets do everything."""

    def __init__(self, port, identity, process):
        self.port, self.identity, self.process = port, identity, process

    def flags(self):
        return ["--broker", f"localhost:{self.port}", "--root", self.identity.root, "--cert", self.identity.certificate,
                "--key", self.identity.key, "--pid", self.process.pid]

    def bench(self, work, *more):
        done = muster("bench", work, *self.flags(), *more, "--json")
        assert done.returncode == 0, f"{done.args}\n{done.stderr}"
        return json.loads(done.stdout)

    def refused(self, work, *more):
        return refused("bench", work, *self.flags(), *more)


def refused(*arguments):
    done = muster(*arguments)
    assert done.returncode == 1 and "panicked" not in done.stderr, f"{done.args}\n{done.stdout}{done.stderr}"
    return done.stderr


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory):
    broker = Mosquitto(tmp_path_factory.mktemp("bench") / "mosquitto")
    yield broker
    broker.stop()


@pytest.fixture(params=["muster", "mosquitto"])
def target(request, shared, fresh_name):
    if request.param == "mosquitto":
        broker = request.getfixturevalue("mosquitto")
        return Target(broker.port, broker.identity, broker.process)
    identity = shared.device(fresh_name("load"), "--policy", "everything")
    return Target(shared.port("mqtt"), identity, shared.process)


@pytest.mark.parametrize("shape, publishers, subscribers", [("pairs", 4, 4), ("fan-in", 4, 1), ("fan-out", 1, 4)])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_message_of_a_closed_loop_comes(target, shape, publishers, subscribers, qos):
    figures = target.bench(shape, "--clients", 4, "--messages", 200, "--in-flight", 3, "--qos", qos, "--warm-up", 0)
    copies = 4 if shape == "fan-out" else 1
    assert (figures["shape"], figures["loop"], figures["in_flight"], figures["rate"]) == (shape, "closed", 3, None)
    assert (figures["publishers"], figures["subscribers"], figures["qos"]) == (publishers, subscribers, qos)
    assert (figures["sent"], figures["received"], figures["lost"]) == (200, 200 * copies, 0)
    assert (figures["foreign"], figures["unsent"], figures["stalls"]) == (0, 0, 0)
    assert figures["delivered"] == 200 * copies and figures["per_s"] > 0
    # Answers that come after the last delivery are not waited for.
    assert figures["acknowledged"] == 0 if qos == 0 else 0 < figures["acknowledged"] <= 200
    assert set(figures["latency_us"]) == LATENCY
    assert figures["latency_us"]["count"] == 200 * copies
    assert figures["latency_us"]["min"] <= figures["latency_us"]["p50"] <= figures["latency_us"]["max"]
    assert figures["late_us"] is None
    assert figures["broker"]["pid"] == target.process.pid
    assert figures["broker"]["cpu_us"] > 0 and figures["broker"]["private_bytes"] > 0
    assert figures["load"]["cpu_us"] > 0


def test_an_open_loop_sends_what_is_due_and_no_more(target):
    figures = target.bench("latency", "--clients", 5, "--rate", 400, "--seconds", 2, "--warm-up", 1)
    assert (figures["loop"], figures["rate"], figures["in_flight"]) == ("open", 400, None)
    # Each of the five may have a message that is due at the very edge and leaves beyond it.
    assert abs(figures["sent"] - 800) <= 10
    assert figures["received"] == figures["sent"] and figures["lost"] == 0 and figures["unsent"] == 0
    assert figures["latency_us"]["count"] == figures["received"]
    assert figures["late_us"]["count"] == figures["sent"]
    points = [(point["quantile"], point["us"]) for point in figures["latency_us"]["quantiles"]]
    assert points == sorted(points) and points[-1] == (1.0, pytest.approx(figures["latency_us"]["max"], rel=0.01))


def test_sessions_that_outlive_and_subscriptions_that_are_held_change_no_count(target):
    figures = target.bench("pairs", "--clients", 2, "--messages", 50, "--qos", 1, "--warm-up", 0, "--persistent",
                           "--held-subscriptions", 250)
    assert (figures["sent"], figures["received"], figures["lost"]) == (50, 50, 0)
    assert figures["persistent"] is True and figures["held_subscriptions"] == 250


def test_connects_are_counted_and_full_unless_asked(target):
    figures = target.bench("connect", "--count", 30, "--at-once", 4)
    assert (figures["connects"], figures["failed"], figures["resumed"]) == (30, 0, 0)
    assert figures["first_failure"] is None and figures["latency_us"]["count"] == 30
    figures = target.bench("connect", "--count", 30, "--at-once", 4, "--resume")
    assert figures["failed"] == 0 and figures["resume"] is True
    assert figures["resumed"] <= 30


def test_muster_resumes_every_connect_that_brings_a_ticket(shared, fresh_name):
    identity = shared.device(fresh_name("load"), "--policy", "everything")
    figures = Target(shared.port("mqtt"), identity, shared.process).bench("connect", "--count", 20, "--at-once", 2, "--resume")
    assert (figures["failed"], figures["resumed"]) == (0, 20)


def test_idle_connections_ping_and_are_weighed(target):
    figures = target.bench("idle", "--connections", 40, "--at-once", 40, "--keep-alive", 3, "--settle", 1, "--seconds", 4)
    assert (figures["connections"], figures["keep_alive_seconds"]) == (40, 3)
    assert (figures["connecting_us"]["count"], figures["turned_away"]) == (40, 0)
    assert figures["pings"] >= 40
    assert figures["private_bytes"] > 0 and figures["bytes_per_connection"] >= 0 and figures["cpu_ms_per_s"] >= 0


def test_each_connection_may_have_a_certificate_of_its_own(shared, fresh_name, tmp_path):
    """Devices that may only be themselves: client identifiers follow the certificates."""
    names = [fresh_name() for _ in range(3)]
    for name in names:
        shared.cli("device", "create", name, "--out", str(tmp_path / name))
    common = ["bench", "connect", "--broker", f"localhost:{shared.port('mqtt')}", "--root", shared.root,
              "--count", "12", "--at-once", "3", "--cert", tmp_path]
    done = muster(*common, "--client-id", "%n", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == 0
    said = refused(*common)
    assert "bench-connect-0" in said


def test_text_is_a_table_for_people(target):
    done = muster("bench", "latency", *target.flags(), "--clients", 2, "--rate", 100, "--messages", 50, "--warm-up", 0)
    assert done.returncode == 0, done.stderr
    rows = {line[:25].strip(): line[25:].strip() for line in done.stdout.splitlines()}
    for what in ("sent", "received", "lost"):
        assert what in rows, done.stdout
    assert "latency p99.9" in done.stdout and "100.0000 %" in done.stdout


@pytest.mark.parametrize("arguments, said", [
    (["pairs", "--clients", "0"], "--clients 0"),
    (["pairs", "--size", "5"], "--size 5"),
    (["pairs", "--topic", "one"], "--topic one"),
    (["fan-in", "--topic", "a/b%i"], "level of its own"),
    (["pairs", "--client-id", "same"], "two connections would be \"same\""),
    (["connect", "--at-once", "0"], "--at-once 0"),
    (["idle", "--filter", "a/%z"], "placeholder %z"),
    (["pairs", "--pid", "4194304"], "--pid 4194304"),
    (["idle", "--connections", "999999999"], "open files"),
    (["idle", "--at-once", "0"], "--at-once 0"),
])
def test_a_flag_that_does_not_go_is_named(mosquitto, arguments, said):
    work, *rest = arguments
    flags = Target(mosquitto.port, mosquitto.identity, mosquitto.process).flags()
    if "--pid" in rest:
        flags = flags[:-2]
    error = refused("bench", work, *flags, *rest)
    assert said in error and error.startswith("muster: "), error


def test_who_is_not_there_or_not_trusted_is_said(shared, mosquitto, fresh_name, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        identity = mosquitto.identity
        flags = ["--root", identity.root, "--cert", identity.certificate, "--key", identity.key]
        assert f"nothing answers at localhost:{port}" in refused("bench", "connect", "--broker", f"localhost:{port}", *flags)
    assert "--root" in refused("bench", "connect", "--broker", f"localhost:{shared.port('mqtt')}", *flags)
    flags[1] = tmp_path / "none.crt"
    assert "none.crt" in refused("bench", "connect", "--broker", f"localhost:{mosquitto.port}", *flags)


def test_what_the_policy_refuses_ends_the_run(shared, fresh_name):
    identity = shared.device(fresh_name())
    target = Target(shared.port("mqtt"), identity, shared.process)
    said = target.refused("pairs", "--clients", 1, "--client-id", identity.name + "%r")
    assert identity.name in said
