"""Measures a server beside Debian's mosquitto and prints figures and ratios. It judges nothing.

    tests/run.sh --measure        (or: MUSTER_BIN=… python tests/measure.py)

The broker under measure has core 0, the load the last core. Both brokers get the same load from the same program
(tests/load), over mutual TLS with P-256 certificates.
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
from pki import CLIENT, SERVER, Signer, forge, save  # noqa: E402
from server import EVERYTHING, MUSTER, REPOSITORY, TARGET, Server  # noqa: E402

CORES = sorted(os.sched_getaffinity(0))
ON_BROKERS_CORE = ("taskset", "-c", str(CORES[0]))
ON_LOADS_CORE = ("taskset", "-c", str(CORES[-1]))
LOAD = TARGET / "release/muster-load"
STARTS = 5
IDLE_CONNECTIONS = 2000
CONNECTS = 1500
REVOCATIONS = 100
SECONDS = 8
LOAD_LIMIT_S = 300


def built():
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "-p", "muster-load"], cwd=REPOSITORY, check=True)


def load(port, identity, pid, *work):
    """One kind of load; its figures."""
    command = [*ON_LOADS_CORE, str(LOAD), "--port", str(port), "--root", str(identity.root), "--certificate", str(identity.certificate),
               "--key", str(identity.key), "--pid", str(pid), *map(str, work)]
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


class Mosquitto:
    """Debian's mosquitto with mutual TLS, everything allowed."""

    def __init__(self, home):
        home.mkdir()
        authority = Signer.foreign()
        root = save(home, "root", authority.certificate, [], authority.key).certificate
        broker = forge(home, "localhost", authority, root, usage=SERVER)
        self.identity = forge(home, "load", authority, root, usage=CLIENT)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = home / "mosquitto.conf"
        config.write_text("\n".join([
            "user root", "log_type error", "max_queued_messages 10000", "max_inflight_messages 1000", f"listener {self.port} 127.0.0.1",
            f"cafile {root}", f"certfile {broker.certificate}", f"keyfile {broker.key}", "require_certificate true",
            "use_identity_as_username true", "allow_anonymous true", ""]))
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        # It complains of each connection that the load tool drops: not of interest here.
        self.process = subprocess.Popen(
            [*ON_BROKERS_CORE, program, "-c", str(config)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit("mosquitto did not start") from None

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


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


def main():
    built()
    with tempfile.TemporaryDirectory(prefix="muster-measure-") as directory:
        home = Path(directory)
        print(f"{'':52} {'muster':>14} {'mosquitto':>14} {'ratio':>9}")
        times = start_times(home)
        line(f"empty directory to `ready`, median of {STARTS}", times[len(times) // 2] * 1000, unit=" ms", form="{:.0f}")

        place = home / "measured"
        place.mkdir()
        server = Server(place, wrapper=ON_BROKERS_CORE)
        peer = Mosquitto(home / "mosquitto")
        try:
            mine, theirs = memory(server.process.pid), memory(peer.process.pid)
            line("idle server, resident", mine[0] / 2**20, theirs[0] / 2**20, unit=" MiB")
            line("idle server, private", mine[1] / 2**20, theirs[1] / 2**20, unit=" MiB")
            server.policy("everything", EVERYTHING)
            identity = server.device("load", "--policy", "everything")

            def both(*work):
                return (load(server.port("mqtt"), identity, server.process.pid, *work),
                        load(peer.port, peer.identity, peer.process.pid, *work))

            mine, theirs = both("pairs", "--pairs", 100, "--rate", 5000, "--size", 128, "--seconds", SECONDS)
            what = "QoS 0, 100 to 100, 128 B, 5,000/s"
            line(f"{what}: CPU per message", mine["broker_us_per_message"], theirs["broker_us_per_message"], unit=" us")
            line(f"{what}: delivered", mine["per_s"], theirs["per_s"], unit="/s", form="{:.0f}")
            line(f"{what}: p50", mine["p50_us"], theirs["p50_us"], unit=" us", form="{:.0f}")
            line(f"{what}: p99", mine["p99_us"], theirs["p99_us"], unit=" us", form="{:.0f}")
            mine, theirs = both("connects", "--count", CONNECTS)
            line("CPU per mutual-TLS connect", mine["broker_us_per_connect"], theirs["broker_us_per_connect"], unit=" us", form="{:.0f}")
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


if __name__ == "__main__":
    main()
