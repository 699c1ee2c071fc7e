"""Measures: a server beside Debian's mosquitto, and what registry and authority are held to.

    tests/run.sh --measure        (or: MUSTER_BIN=… MUSTER_SCALE_BIN=… python tests/measure.py [ITEM…])

Items, all of them where none is named: peer, issuance, handshake, felt, bulk, registry, status, audit, downloads,
engine, judged, simulate, compare. The broker under measure has core 0, the load the last core. Both brokers get the same load from `muster bench`, over mutual TLS
with P-256 certificates. Beside the peer nothing is judged; the other items say what they are held to and whether it is kept.
"""

import json
import os
import selectors
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))

import api  # noqa: E402  (beside the suites)
import measure_policy  # noqa: E402
import measure_registry  # noqa: E402
from mosquitto import Mosquitto  # noqa: E402
from release import Team  # noqa: E402
from server import EVERYTHING, MUSTER, Server  # noqa: E402

CORES = sorted(os.sched_getaffinity(0))
ON_BROKERS_CORE = ("taskset", "-c", str(CORES[0]))
ON_LOADS_CORE = ("taskset", "-c", str(CORES[-1]))
STARTS = 5
IDLE_CONNECTIONS = 2000
CONNECTS = 1500
REVOCATIONS = 100
SECONDS = 8
LOAD_LIMIT_S = 300
DOWNLOADS = 1000
DOWNLOADED_BYTES = 32 << 20


def load(port, identity, pid, *work):
    """One kind of load; its figures."""
    kind, *more = work
    command = [*ON_LOADS_CORE, MUSTER, "bench", kind, "--json", "--broker", f"localhost:{port}", "--root", str(identity.root),
               "--cert", str(identity.certificate), "--key", str(identity.key), "--pid", str(pid), *map(str, more)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LOAD_LIMIT_S)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def memory(pid):
    """Resident and private bytes."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    return fields["Rss"], fields["Private_Clean"] + fields["Private_Dirty"]


def start_times(home):
    """Seconds from the start of the program to the `ready` line, each on an empty directory."""
    times = []
    for number in range(STARTS):
        place = home / f"start-{number}"
        place.mkdir()
        began = time.perf_counter()
        server = Server(place)
        times.append(time.perf_counter() - began)
        server.stop()
    return sorted(times)


def mqtt_text(text):
    return len(text).to_bytes(2, "big") + text.encode()


def session(server, identity):
    """An open MQTT 3.1.1 session on a socket."""
    context = ssl.create_default_context(cafile=str(server.root))
    context.load_cert_chain(str(identity.certificate), str(identity.key))
    stream = context.wrap_socket(socket.create_connection(server.place("mqtt")), server_hostname="localhost")
    body = mqtt_text("MQTT") + bytes([4, 2, 2, 88]) + mqtt_text(identity.name)
    stream.sendall(bytes([0x10, len(body)]) + body)
    assert stream.recv(4) == bytes([0x20, 2, 0, 0])
    return stream


def revocation_latencies(server):
    """For each session: milliseconds from the request, and from the answer (when the change is durable), to its end."""
    devices = [server.device(f"revoked-{n}") for n in range(REVOCATIONS)]
    streams = [session(server, device) for device in devices]
    from_request, from_answer = [], []
    operator = api.connection(server)
    with selectors.DefaultSelector() as ready:
        operator.connect()
        ready.register(operator.sock, selectors.EVENT_READ, "answer")
        for device, stream in zip(devices, streams, strict=True):
            path, body = f"/muster/v1/devices/{device.name}/revoke", b"{}"
            headers = api.signed(server, "POST", path, body)
            stream.setblocking(False)
            ready.register(stream, selectors.EVENT_READ, "end")
            began, times = time.perf_counter(), {}
            operator.request("POST", path, body=body, headers=headers)
            while len(times) < 2:
                for key, _ in ready.select(30):
                    now = time.perf_counter()
                    if key.data == "answer" and "answer" not in times:
                        answer = operator.getresponse()
                        answer.read()
                        assert answer.status == 200, answer.status
                        times["answer"] = now
                    elif key.data == "end" and ended(stream):
                        times["end"] = now
            ready.unregister(stream)
            stream.close()
            from_request.append((times["end"] - began) * 1000)
            from_answer.append((times["end"] - times["answer"]) * 1000)
    operator.close()
    return sorted(from_request), sorted(from_answer)


def pair(server, identity):
    """How long a message of a lone QoS 0 pair takes, in microseconds."""
    figures = load(server.port("mqtt"), identity, server.process.pid, "pairs", "--clients", 1, "--rate", 500, "--size", 128, "--seconds", 20)
    return figures["latency_us"]


def beside_downloads(server, identity, home):
    """A QoS 0 pair alone, and while devices download: two lots of latencies, and what came to the devices."""
    team, keys = Team(home / "team"), home / "keys"
    server.cli("firmware", "trust", team.root())
    server.cli("firmware", "add", team.package("lamp", "1.0", os.urandom(DOWNLOADED_BYTES)))
    server.cli("group", "create", "downloads")
    file = home / "downloads.csv"
    file.write_text("name,group\n" + "".join(f"fetch-{number},downloads\n" for number in range(DOWNLOADS)))
    server.json("device", "create", "--from", str(file), "--out", str(keys))
    rollout = server.json("rollout", "start", "lamp", "1.0", "--group", "downloads")["id"]
    while server.json("rollout", "show", rollout)["waves"][0]["queued"] < DOWNLOADS:
        time.sleep(0.2)
    alone = pair(server, identity)
    command = [*ON_LOADS_CORE, "nice", "-n", "19", sys.executable, str(Path(__file__).with_name("downloads.py")),
               "localhost", str(server.port("https")), "/firmware/lamp/1.0/image", str(keys)]
    fetching = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if fetching.stdout.readline() != "ready\n":
            raise SystemExit("the downloads did not begin")
        beside = pair(server, identity)
        came, _ = fetching.communicate(timeout=LOAD_LIMIT_S)
    finally:
        fetching.kill()
    return alone, beside, json.loads(came)


def ended(stream):
    try:
        return stream.recv(64) == b""
    except (ssl.SSLWantReadError, BlockingIOError):
        return False
    except OSError:
        return True


def quantile(ordered, share):
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def line(what, muster, other=None, form="{:.1f}", unit=""):
    """One line of the table: the figure, mosquitto's, and the ratio."""
    text = f"{what:52} {form.format(muster) + unit:>14}"
    if other is not None:
        text += f" {form.format(other) + unit:>14} {muster / other:9.2f}"
    print(text, flush=True)


def beside_the_peer(home):
    print(f"{'':52} {'muster':>14} {'mosquitto':>14} {'ratio':>9}")
    times = start_times(home)
    line(f"empty directory to `ready`, median of {STARTS}", times[len(times) // 2] * 1000, unit=" ms", form="{:.0f}")

    place = home / "measured"
    place.mkdir()
    server = Server(place, wrapper=ON_BROKERS_CORE)
    peer = Mosquitto(home / "mosquitto", ON_BROKERS_CORE)
    try:
        mine, theirs = memory(server.process.pid), memory(peer.process.pid)
        line("idle server, resident", mine[0] / 2**20, theirs[0] / 2**20, unit=" MiB")
        line("idle server, private", mine[1] / 2**20, theirs[1] / 2**20, unit=" MiB")
        server.policy("everything", EVERYTHING)
        identity = server.device("load", "--policy", "everything")

        def both(*work):
            return (load(server.port("mqtt"), identity, server.process.pid, *work),
                    load(peer.port, peer.identity, peer.process.pid, *work))

        mine, theirs = both("pairs", "--clients", 100, "--rate", 5000, "--size", 128, "--seconds", SECONDS)
        what = "QoS 0, 100 to 100, 128 B, 5,000/s"
        line(f"{what}: CPU per message", mine["broker"]["cpu_us"], theirs["broker"]["cpu_us"], unit=" us")
        line(f"{what}: delivered", mine["per_s"], theirs["per_s"], unit="/s", form="{:.0f}")
        line(f"{what}: p50", mine["latency_us"]["p50"], theirs["latency_us"]["p50"], unit=" us", form="{:.0f}")
        line(f"{what}: p99", mine["latency_us"]["p99"], theirs["latency_us"]["p99"], unit=" us", form="{:.0f}")
        mine, theirs = both("connect", "--count", CONNECTS)
        line("CPU per mutual-TLS connect", mine["broker"]["cpu_us"], theirs["broker"]["cpu_us"], unit=" us", form="{:.0f}")
        mine, theirs = both("idle", "--connections", IDLE_CONNECTIONS)
        line(f"private memory per idle connection, of {IDLE_CONNECTIONS}", mine["bytes_per_connection"] / 1024,
             theirs["bytes_per_connection"] / 1024, unit=" KiB")
        request, answer = revocation_latencies(server)
        for share in (0.5, 0.99):
            line(f"revocation, request to end of session, p{share * 100:.0f}", quantile(request, share), unit=" ms", form="{:.2f}")
        for share in (0.5, 0.99):
            line(f"revocation, durable and answered to end, p{share * 100:.0f}", quantile(answer, share), unit=" ms", form="{:.2f}")
    finally:
        server.stop()
        peer.stop()
    line("size of the program", Path(MUSTER).stat().st_size / 2**20, unit=" MiB")
    stripped = home / "stripped"
    if shutil.which("strip"):
        subprocess.run(["strip", "-o", stripped, MUSTER], check=True)
        line("size of the program, stripped", stripped.stat().st_size / 2**20, unit=" MiB")


def downloads(home):
    """What a thousand downloads do to messages."""
    place = home / "downloads"
    place.mkdir()
    server = Server(place)
    try:
        server.policy("everything", EVERYTHING)
        alone, beside, came = beside_downloads(server, server.device("load", "--policy", "everything"), place)
        print(f"downloads: {came['bytes'] / came['seconds'] / 2**20:.1f} MiB/s to {came['downloads']} devices")
        for share in ("p50", "p99"):
            print(f"QoS 0 pair, 500/s, while they download: {share} {beside[share]:.0f} us, alone {alone[share]:.0f} us, "
                  f"{beside[share] / alone[share]:.2f} times", flush=True)
    finally:
        server.stop()


def main():
    with tempfile.TemporaryDirectory(prefix="muster-measure-") as directory:
        home = Path(directory)
        many = measure_registry.Many(home)
        items = {
            "peer": lambda: beside_the_peer(home),
            "issuance": lambda: measure_registry.issuance(home),
            "handshake": lambda: measure_registry.handshake(home),
            "felt": lambda: measure_registry.felt(home),
            "bulk": lambda: measure_registry.bulk(home),
            "registry": lambda: measure_registry.registry(home, many),
            "status": lambda: measure_registry.status(many),
            "audit": lambda: measure_registry.audit(many),
            "downloads": lambda: downloads(home),
            "engine": measure_policy.engine,
            "judged": lambda: measure_policy.judged(home),
            "simulate": lambda: measure_policy.simulate(home),
            "compare": lambda: measure_policy.compare(home, load),
        }
        wanted = sys.argv[1:] or list(items)
        if unknown := [name for name in wanted if name not in items]:
            raise SystemExit(f"{unknown[0]} is no item: {', '.join(items)}")
        for name in wanted:
            print(f"-- {name}", flush=True)
            items[name]()

if __name__ == "__main__":
    main()
