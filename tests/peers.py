"""The same load from `muster bench` on Muster and on its peers, each with mutual TLS: figures, and Muster's ratio to each.

    tests/bench.sh [--quick] [--repeat N] [--only NAME,…] [--rows TEXT,…] [--json FILE]

A broker has the first core, the load the last. Each figure is of a broker that was started for it. Repetitions are interleaved,
so that what the machine does meanwhile falls on all; what is printed are medians.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))

from mosquitto import Mosquitto  # noqa: E402  (beside the suites)
from pki import CLIENT, SERVER, Signer, forge, save  # noqa: E402
from server import EVERYTHING, MUSTER, Server  # noqa: E402

CORES = sorted(os.sched_getaffinity(0))
ON_BROKERS_CORE = ("taskset", "-c", str(CORES[0]))
ON_LOADS_CORE = ("taskset", "-c", str(CORES[-1]))
START_LIMIT_S = 30
LOAD_LIMIT_S = 300
STOP_LIMIT_S = 20

# name: work of `muster bench` and what it is told
ROWS = {
    "pairs q0 max": ("pairs", "--clients", 100),
    "pairs q0 5k/s": ("pairs", "--clients", 100, "--rate", 5000),
    "pairs q1 max": ("pairs", "--clients", 100, "--qos", 1),
    "pairs q1 3k/s": ("pairs", "--clients", 100, "--qos", 1, "--rate", 3000),
    "pairs q1 persistent": ("pairs", "--clients", 100, "--qos", 1, "--persistent"),
    "fan-in q0 max": ("fan-in", "--clients", 200),
    "fan-out q0 max": ("fan-out", "--clients", 200),
    "fan-out q0 20/s": ("fan-out", "--clients", 200, "--rate", 20),
    "pairs 100k subs": ("pairs", "--clients", 100, "--rate", 5000, "--held-subscriptions", 100_000),
    "connect": ("connect", "--count", 1500),
    "connect resumed": ("connect", "--count", 1500, "--resume"),
    "idle": ("idle", "--connections", 2000),
}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Foreign:
    """A broker that is one program with one configuration file; a subclass says which."""

    program, arguments, suffix = None, ("-c",), ".conf"

    def __init__(self, home):
        home.mkdir()
        self.home, self.port = home, free_port()
        authority = Signer.foreign()
        self.root = save(home, "root", authority.certificate, [], authority.key).certificate
        self.server = forge(home, "localhost", authority, self.root, usage=SERVER)
        self.identity = forge(home, "load", authority, self.root, usage=CLIENT)
        file = home / f"broker{self.suffix}"
        file.write_text(self.configuration())
        self.log = open(home / "broker.log", "wb")
        self.process = subprocess.Popen(
            [*ON_BROKERS_CORE, shutil.which(self.program), *self.arguments, str(file)], stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log, cwd=home)
        wait_for(self.process, self.port, lambda: (home / "broker.log").read_text(errors="replace"))

    def stop(self):
        stop(self.process)
        self.log.close()


class Nats(Foreign):
    program = "nats-server"

    def configuration(self):
        return f"""
            server_name: one
            host: 127.0.0.1
            port: {free_port()}
            jetstream {{ store_dir: "{self.home}/jetstream" }}
            mqtt {{
                host: 127.0.0.1
                port: {self.port}
                max_ack_pending: 1000
                tls {{
                    cert_file: "{self.server.certificate}"
                    key_file: "{self.server.key}"
                    ca_file: "{self.root}"
                    verify: true
                }}
            }}
            """


class Rumqttd(Foreign):
    """The published build asks no client for a certificate: a handshake costs it less than the others."""

    program, suffix = "rumqttd", ".toml"

    def configuration(self):
        return f"""
            id = 0
            [router]
            id = 0
            max_connections = 10010
            max_outgoing_packet_count = 200
            max_segment_size = 104857600
            max_segment_count = 10
            [v4.1]
            name = "mqtts"
            listen = "127.0.0.1:{self.port}"
            next_connection_delay_ms = 0
            [v4.1.tls]
            capath = "{self.root}"
            certpath = "{self.server.certificate}"
            keypath = "{self.server.key}"
            [v4.1.connections]
            connection_timeout_ms = 60000
            max_payload_size = 262144
            max_inflight_count = 200
            dynamic_filters = true
            """


class Debians(Mosquitto):
    def __init__(self, home):
        super().__init__(home, ON_BROKERS_CORE)


class Muster:
    """With a policy evaluated for every publish and every delivery."""

    def __init__(self, home):
        home.mkdir()
        self.server = Server(home, wrapper=ON_BROKERS_CORE)
        self.server.policy("everything", EVERYTHING)
        self.identity = self.server.device("load", "--policy", "everything")
        self.port, self.process = self.server.port("mqtt"), self.server.process

    def stop(self):
        self.server.stop()


BROKERS = {"muster": Muster, "mosquitto": Debians, "nats": Nats, "rumqttd": Rumqttd}
PROGRAMS = {"muster": MUSTER, "mosquitto": "mosquitto", "nats": Nats.program, "rumqttd": Rumqttd.program}


def wait_for(process, port, said):
    for _ in range(START_LIMIT_S * 20):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
    stop(process)
    raise RuntimeError(f"{process.args} does not start\n{said()[-2000:]}")


def stop(process):
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def load(broker, work, seconds):
    """One row's figures of one broker, or why there are none."""
    kind, *more = work
    if kind not in ("connect", "idle"):
        more += ["--seconds", seconds]
    identity = broker.identity
    command = [*ON_LOADS_CORE, MUSTER, "bench", kind, "--json", "--broker", f"localhost:{broker.port}", "--root", identity.root,
               "--cert", identity.certificate, "--key", identity.key, "--pid", broker.process.pid, *more]
    try:
        done = subprocess.run([*map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LOAD_LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LOAD_LIMIT_S} s"}
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr.strip()}


def measured(name, work, seconds):
    """As `load`, of a broker that is started for it."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as directory:
        try:
            broker = BROKERS[name](Path(directory) / name)
        except (RuntimeError, AssertionError) as error:
            return {"error": str(error)}
        try:
            return load(broker, work, seconds)
        finally:
            broker.stop()


def median(runs, *path):
    """Of a figure over the runs that have it."""
    found = []
    for run in runs:
        for key in path:
            run = run.get(key) if isinstance(run, dict) else None
        if run is not None:
            found.append(run)
    return statistics.median(found) if found else None


def figures(row, runs):
    """Name, median, and how to write it; the first is the one that ratios are of."""
    if row == "idle":
        return [("memory", median(runs, "bytes_per_connection"), lambda v: f"{v / 1024:.1f} KiB")]
    cpu = ("CPU", median(runs, "broker", "cpu_us"), lambda v: f"{v:.1f} us")
    if row.startswith("connect"):
        resumed = median(runs, "resumed")
        return [cpu, ("resumed", resumed or None, lambda v: f"{v:.0f} resumed")]
    return [cpu, ("rate", median(runs, "per_s"), lambda v: f"{v / 1000:.1f}k/s"),
            ("p99", median(runs, "latency_us", "p99"), lambda v: f"p99 {v / 1000:.1f} ms")]


def cell(row, runs):
    written = [form(value) for _, value, form in figures(row, runs) if value is not None]
    return ", ".join(written) or "none"


def ratio(row, mine, theirs):
    """Muster's figures to the other's, where a smaller one is better."""
    pairs = zip(figures(row, mine), figures(row, theirs), strict=True)
    return ", ".join(f"{name} {m / t:.2f}" for (name, m, _), (_, t, _) in pairs if name in ("CPU", "memory", "p99") and m and t)


def table(title, columns, rows):
    print(f"\n| {title} | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |")


def options():
    parser = argparse.ArgumentParser(prog="tests/bench.sh")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--rows", type=lambda text: text.split(","), default=[""])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    for name in chosen.only or []:
        if name not in BROKERS:
            parser.error(f"{name} is no broker known here: {', '.join(BROKERS)}")
    chosen.rows = [row for row in ROWS if any(part in row for part in chosen.rows)]
    if not chosen.rows:
        parser.error(f"no such row: {', '.join(ROWS)}")
    chosen.repeat = chosen.repeat or (1 if chosen.quick else 3)
    return chosen


def main():
    chosen = options()
    names = chosen.only or [name for name in BROKERS if shutil.which(PROGRAMS[name])]
    results = {row: {name: [] for name in names} for row in chosen.rows}
    for repetition in range(chosen.repeat):
        for row in chosen.rows:
            for name in names:
                run = measured(name, ROWS[row], 3 if chosen.quick else 8)
                results[row][name].append(run)
                said = run.get("error") or cell(row, [run])
                print(f"{repetition + 1}/{chosen.repeat}  {row:20} {name:10} {said}", file=sys.stderr, flush=True)
    table("CPU of the broker per delivered message, or per connect", names,
          [(row, [cell(row, results[row][name]) for name in names]) for row in chosen.rows])
    others = [name for name in names if name != "muster"]
    if "muster" in names and others:
        table("Muster's to", others,
              [(row, [ratio(row, results[row]["muster"], results[row][name]) or "none" for name in others]) for row in chosen.rows])
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
