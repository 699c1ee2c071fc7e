"""What one broker holds: many subscriptions, retained messages, connections, all of them at once after a restart, both cores, and
mixed load for a long time. Prints figures and ratios from the same run; it judges nothing.

    tests/bench.sh --large [--only ROW,…] [--minutes N]

Where it says "to" the second figure is of the same broker, a moment before. Load and broker share this machine.
"""

import argparse
import collections
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))

import wire  # noqa: E402  (beside the suites)
from measure import CORES, ON_BROKERS_CORE, ON_LOADS_CORE, memory  # noqa: E402
from server import EVERYTHING, MUSTER, Server, allow, deny, document  # noqa: E402

LOAD_LIMIT_S = 900
FILTERS_A_PACKET, SUBSCRIPTIONS_A_SESSION = 1_000, 20_000
FEW, MANY = 1_000, 1_000_000
RETAINED_FEW, RETAINED_MANY = 1_000, 100_000
NARROW_SUBSCRIBES = 2_000
CONNECTIONS_A_PROCESS = 9_500  # two processes of load; one may hold 20,000 files, and so many of its connections a broker
WARM_UP_S = 300
SAMPLE_S = 10
FLEET = 20


def bench(server, identity, kind, *more, wrapper=ON_LOADS_CORE):
    """A process of `muster bench`; `figures` waits for it."""
    command = [*wrapper, MUSTER, "bench", kind, "--json", "--broker", f"localhost:{server.port('mqtt')}", "--root", identity.root,
               "--cert", identity.certificate, "--key", identity.key, "--pid", server.process.pid, *more]
    return subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def figures(process):
    out, error = process.communicate(timeout=LOAD_LIMIT_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(process.args)}\n{error}")
    return json.loads(out)


def cpu_ns(pid):
    """What all threads of a process have run so far."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def say(what, figure, other=None):
    print(f"{what:72} {figure:>16}" + (f"  {other}" if other else ""), flush=True)


@contextlib.contextmanager
def broker(*flags, wrapper=ON_BROKERS_CORE):
    with tempfile.TemporaryDirectory(prefix="muster-large-") as home:
        config = Path(home) / "muster.toml"
        config.write_text("[limits.things.load]\nthing_connections = 100_000\nthing_parked_sessions = 100_000\n")
        server = Server(home, *flags, "--config", str(config), wrapper=wrapper)
        try:
            server.policy("everything", EVERYTHING)
            yield server, server.device("load", "--policy", "everything")
        finally:
            server.stop()


def session(server, identity, name):
    peer = wire.Wire(server, identity)
    assert peer.open(name, version=4, keep_alive=0) == 0
    peer.socket.settimeout(LOAD_LIMIT_S)
    return peer


def until(peer, wanted):
    """The body of the next packet of that kind."""
    while True:
        kind, _, body = peer.packet()
        if kind == wanted:
            return body


def subscribe(peer, filters):
    body = b"\0\1" + b"".join(wire.string(one) + b"\0" for one in filters)
    peer.send(wire.packet(wire.SUBSCRIBE, body, flags=2))
    answer = until(peer, wire.SUBACK)
    assert len(answer) == 2 + len(filters) and max(answer[2:]) == 0, "not granted"


def held_filters():
    """Exact and with wildcards, behind the prefixes of the traffic, matching none of it."""
    for number in itertools.count():
        pair, place = number % 100, number // 100
        yield (f"bench/{pair}/at/{place}", f"bench/+/by/{number}", f"bench/{pair}/under/{place}/#")[number % 3]


def subscriptions():
    def cost():
        runs = [figures(bench(server, identity, "pairs", "--clients", 100, "--rate", 5000, "--seconds", 6)) for _ in range(3)]
        return statistics.median(run["broker"]["cpu_us"] for run in runs)

    with broker() as (server, identity), contextlib.ExitStack() as open_ones:
        filters, held, peers = held_filters(), 0, []

        def hold(count):
            nonlocal held
            while held < count:
                if held // SUBSCRIPTIONS_A_SESSION == len(peers):
                    peers.append(open_ones.enter_context(session(server, identity, f"holds-{len(peers)}")))
                subscribe(peers[-1], list(itertools.islice(filters, FILTERS_A_PACKET)))
                held += FILTERS_A_PACKET

        hold(FEW)
        few, before = cost(), memory(server.process.pid)[1]
        hold(MANY)
        grown = memory(server.process.pid)[1] - before
        many = cost()
    say(f"CPU per message beside {MANY:,} subscriptions", f"{many:.2f} us", f"{many / few:.2f} to {FEW:,} (aim 1.2)")
    say("memory per subscription", f"{grown / (MANY - FEW):.0f} B")


def retained():
    def cost():
        with session(server, identity, "narrow") as peer:
            began = cpu_ns(server.process.pid)
            for number in range(NARROW_SUBSCRIBES):
                name = f"keep/{number % RETAINED_FEW}/#"
                peer.send(wire.packet(wire.SUBSCRIBE, b"\0\1" + wire.string(name) + b"\0", flags=2))
                until(peer, wire.PUBLISH)
                peer.send(wire.packet(10, b"\0\2" + wire.string(name), flags=2))
                until(peer, 11)
            return (cpu_ns(server.process.pid) - began) / NARROW_SUBSCRIBES / 1e3

    with broker() as (server, identity), session(server, identity, "keeper") as keeper:
        def keep(numbers):
            for number in numbers:
                keeper.send(wire.publish(f"keep/{number}/state", b"x" * 64, version=4, retain=True))
            assert keeper.ping()

        keep(range(RETAINED_FEW))
        few, before = cost(), memory(server.process.pid)[1]
        keep(range(RETAINED_FEW, RETAINED_MANY))
        grown = memory(server.process.pid)[1] - before
        many = cost()
    say(f"CPU per narrow subscription beside {RETAINED_MANY:,} retained messages", f"{many:.0f} us",
        f"{many / few:.2f} to {RETAINED_FEW:,}")
    say("memory per retained message of 64 B", f"{grown / (RETAINED_MANY - RETAINED_FEW):.0f} B")


def connections():
    def flock(server, identity, *more):
        return [bench(server, identity, "idle", "--client-id", f"{one}-%r-%i", "--connections", CONNECTIONS_A_PROCESS, *more)
                for one in ("a", "b")]

    total = 2 * CONNECTIONS_A_PROCESS
    with broker() as (server, identity):
        before = memory(server.process.pid)[1]
        one, other = flock(server, identity, "--settle", 30, "--seconds", 40)
        one, other = figures(one), figures(other)
        say(f"memory per idle connection, of {total:,}",
            f"{(max(one['private_bytes'], other['private_bytes']) - before) / total / 1024:.1f} KiB")
        cpu = min(one["cpu_ms_per_s"], other["cpu_ms_per_s"])
        say("CPU of their idleness, keep alive 60 s", f"{cpu / 10:.2f} %", f"{one['pings'] + other['pings']} pings in 40 s (aim 1 %)")

        server.restart()
        began = cpu_ns(server.process.pid)
        probe = bench(server, identity, "pairs", "--client-id", "probe-%r-%i", "--clients", 10, "--rate", 100, "--seconds", 20)
        time.sleep(1)
        storm = flock(server, identity, "--at-once", CONNECTIONS_A_PROCESS, "--settle", 0, "--seconds", 1)
        storm, probe = [figures(one) for one in storm], figures(probe)
        spent = (cpu_ns(server.process.pid) - began) / 1e9
        took = max(one["connecting_seconds"] for one in storm)
        say(f"{total:,} reconnect at once after a restart: all back after", f"{took:.1f} s",
            f"{spent:.1f} s of the broker's CPU, load on the other core")
        say("the one that waited longest", f"{max(one['connecting_us']['max'] for one in storm) / 1e6:.1f} s",
            f"turned away and back again: {sum(one['turned_away'] for one in storm)} times")
        say("messages of those admitted before, meanwhile: p99", f"{probe['latency_us']['p99'] / 1e3:.1f} ms",
            f"{probe['lost']} of {probe['delivered'] + probe['lost']} lost")


def cores():
    """With two cores the load needs its share of both: so broker and load together get one core, then two."""
    def rate(wrapper, loads):
        with broker(wrapper=wrapper) as (server, identity):
            running = [bench(server, identity, "pairs", "--clients", 100, "--client-id", f"{one}-%r-%i", "--topic", f"bench/{one}-%i/data",
                             wrapper=wrapper) for one in range(loads)]
            return sum(figures(one)["per_s"] for one in running)

    one = rate(("taskset", "-c", str(CORES[0])), 1)
    two = rate(("taskset", "-c", f"{CORES[0]},{CORES[-1]}"), 2)
    say("messages a second, broker and load on two cores", f"{two:.0f}/s", f"{two / one:.2f} to one core for both (aim 1.7)")


def mixed(minutes):
    """Everything at a moderate rate; private memory is read every ten seconds."""
    seconds = minutes * 60
    with broker(wrapper=()) as (server, identity):
        server.policy("device", EVERYTHING)
        running = [
            bench(server, identity, "pairs", "--client-id", f"{name}-%r-%i", "--topic", f"bench/{name}-%i/data", "--clients", 20,
                  "--rate", rate, "--seconds", seconds, "--warm-up", 1, *more, wrapper=())
            for name, rate, more in (("q0", 500, ()), ("q1", 200, ("--qos", 1, "--persistent")), ("q2", 100, ("--qos", 2)))]
        over, done = threading.Event(), collections.Counter()
        fleet = [server.device(f"passing-{number}", "--policy", "device") for number in range(FLEET)]

        def churn():
            """A fleet of a fixed size comes and goes; each is shut out and let in again, one in thirty is revoked for good."""
            for number in itertools.count():
                if over.wait(1):
                    return
                device, revoke = fleet[number % FLEET], number % 30 == 0
                with session(server, device, device.name) as peer:
                    subscribe(peer, [f"dt/{device.name}/#", "bench/+/data"])
                    for at in range(20):
                        peer.send(wire.publish(f"keep/{(number * 20 + at) % 1000}", b"x" * 100, version=4, retain=True))
                    done["retained"] += 20
                    assert peer.ping()
                    # Another document each time: all sessions under it are judged anew.
                    server.update_policy("device", document(allow("*", "*"), deny("Publish", f"topic/never/{number}")))
                    server.cli("device", "revoke" if revoke else "deactivate", device.name, "--yes")
                    peer.reason_of_end()
                if revoke:
                    fleet[number % FLEET] = server.device(f"another-{number}", "--policy", "device")
                else:
                    server.cli("device", "activate", device.name)
                done["revoked" if revoke else "deactivated"] += 1

        changing = threading.Thread(target=churn)
        changing.start()
        samples, began = [], time.monotonic()
        try:
            while time.monotonic() - began < seconds:
                changing.join(SAMPLE_S)
                assert changing.is_alive(), "the devices have stopped coming"
                samples.append((time.monotonic() - began, memory(server.process.pid)[1]))
        except BaseException:
            for one in running:
                one.kill()
            raise
        finally:
            over.set()
            changing.join()
        ended = [figures(one) for one in running]
    warm = [size for at, size in samples if at >= min(WARM_UP_S, seconds / 4)]
    parts = [statistics.median(warm[len(warm) * part // 4:len(warm) * (part + 1) // 4]) for part in range(4)]
    say(f"private memory in {minutes} minutes of mixed load, warm", f"{parts[-1] / 2**20:.1f} MiB",
        f"{parts[-1] / parts[-2]:.3f} to the quarter before; quarters " + ", ".join(f"{part / 2**20:.1f}" for part in parts))
    say("messages delivered meanwhile", f"{sum(one['delivered'] for one in ended)}",
        f"lost {[one['lost'] for one in ended]} of QoS 0, 1, 2; {done['deactivated']} sessions ended by deactivation and "
        f"{done['revoked']} by revocation, as many policy changes, {done['retained']} retained")


ROWS = {"subscriptions": subscriptions, "retained": retained, "connections": connections, "cores": cores, "mixed": mixed}


def main():
    parser = argparse.ArgumentParser(prog="tests/bench.sh --large")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(ROWS))
    parser.add_argument("--minutes", type=int, default=20)
    chosen = parser.parse_args()
    for name in chosen.only:
        if name not in ROWS:
            parser.error(f"{name} is no row: {', '.join(ROWS)}")
        ROWS[name](*([chosen.minutes] if name == "mixed" else []))


if __name__ == "__main__":
    main()
