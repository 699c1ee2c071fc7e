"""What the registry and the authority are held to: each figure with its aim and a verdict, ratios from the same run.

    tests/measure.py NAME…        (`tests/run.sh --measure` runs all)

`muster-scale` (tests/scale) does what it measures with the rooms' own code. The registry of many things is filled once per run;
MUSTER_MEASURE_THINGS says how many (default 1,000,000) and MUSTER_MEASURE_DATA keeps it for the next run.
"""

import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path

from api import iot
from server import EVERYTHING, MUSTER, TARGET, Server

CORES = sorted(os.sched_getaffinity(0))
ON_FIRST_CORE = ("taskset", "-c", str(CORES[0]))
ON_LAST_CORE = ("taskset", "-c", str(CORES[-1]))
SCALE = os.environ.get("MUSTER_SCALE_BIN", str(TARGET / "release/muster-scale"))
THINGS = int(os.environ.get("MUSTER_MEASURE_THINGS", 1_000_000))
FEW = 1_000
REVOKED = min(10_000, THINGS // 10)
SESSIONS = int(os.environ.get("MUSTER_MEASURE_SESSIONS", 1_000))
PAIR_SECONDS = 10


def scale(*arguments, wrapper=()):
    """A measure of `muster-scale`; its figures."""
    command = [*wrapper, SCALE, *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def verdict(what, value, unit="", aim=None, kept=None):
    """One line: the figure, what it is held to, and whether it keeps it."""
    shown = f"{value:,.2f}{unit}" if isinstance(value, float) else f"{value}{unit}"
    said = "" if kept is None else "kept" if kept else "MISSED"
    print(f"{what:62} {shown:>16}   {aim or '':28} {said}", flush=True)


def at_most(what, value, bound, unit=""):
    verdict(what, value, unit, f"at most {bound:g}{unit}", value <= bound)


def at_least(what, value, bound, unit=""):
    verdict(what, value, unit, f"at least {bound:g}{unit}", value >= bound)


def openssl_speed():
    """Signatures and verifications of P-256 a second, on one core."""
    command = [*ON_FIRST_CORE, "openssl", "speed", "-seconds", "3", "ecdsap256"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if "nistp256" in line)
    signs, verifies = re.findall(r"([0-9.]+)\s+([0-9.]+)\s*$", line)[0]
    return float(signs), float(verifies)


def issuance(home):
    """From a CSR to a certificate that is in the registry for good."""
    signs, verifies = openssl_speed()
    place = home / "issuance"
    place.mkdir()
    alone = scale("issue", place, 500, 1, wrapper=ON_FIRST_CORE)
    together = scale("issue", place, 6000, 32, wrapper=ON_FIRST_CORE)
    verdict("openssl speed, P-256, one core: signatures", signs, "/s")
    verdict("openssl speed, P-256, one core: verifications", verifies, "/s")
    verdict("issuance, one request at a time", alone["per_s"], "/s")
    at_least("issuance, 32 at once: by one at a time", together["per_s"] / alone["per_s"], 1.5)
    verdict("issuance, 32 at once, one core", together["per_s"], "/s")
    verdict("issuance, CPU per certificate", together["cpu_us"], " us")
    # The CSR is proven, the certificate signed, and what was signed is read back.
    needed = 1 / (1 / signs + 2 / verifies)
    at_least("issuance by openssl's one signature and two verifications", together["per_s"] / needed, 0.7)
    verdict("issuance by openssl's signatures alone", together["per_s"] / signs)


def handshake(home):
    """What a connect costs beside tokio-rustls alone, and the lookup's share of it."""
    place = home / "bare"
    place.mkdir()
    bare = subprocess.Popen([*ON_FIRST_CORE, SCALE, "bare", str(place)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    home = home / "handshake"
    home.mkdir()
    server = Server(home, wrapper=ON_FIRST_CORE)
    try:
        port = json.loads(bare.stdout.readline())["port"]
        identity = server.device("load")

        def connects(port, pid, root, certificate, key):
            command = [*ON_LAST_CORE, MUSTER, "bench", "connect", "--json", "--broker", f"localhost:{port}", "--root", str(root), "--cert",
                       str(certificate), "--key", str(key), "--pid", str(pid), "--client-id", "load", "--count", "1500"]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
            return json.loads(done.stdout)["broker"]["cpu_us"]

        mine, theirs = [], []
        for _ in range(3):
            mine.append(connects(server.port("mqtt"), server.process.pid, identity.root, identity.certificate, identity.key))
            theirs.append(connects(port, bare.pid, place / "root.crt", place / "load.crt", place / "load.key"))
        mine, theirs = sorted(mine)[1], sorted(theirs)[1]
        verdict("mutual TLS and CONNECT: CPU", mine, " us")
        verdict("tokio-rustls alone: CPU", theirs, " us")
        at_most("mutual TLS and CONNECT by tokio-rustls alone", mine / theirs, 1.2)
    finally:
        server.stop()
        bare.kill()
        bare.wait()
        bare.stdout.close()


class Many:
    """The registry of many things, filled when it is first asked for."""

    def __init__(self, home):
        self.home, self.data = home, None

    def __call__(self):
        if self.data is None:
            kept = os.environ.get("MUSTER_MEASURE_DATA")
            place = Path(kept) if kept else self.home / "many"
            place.mkdir(parents=True, exist_ok=True)
            first = Server(place, start=not (place / "data").exists())
            first.stop()
            filled = scale("fill", place / "data", THINGS)
            verdict(f"filled: devices made of {THINGS:,}", filled["made"])
            if filled["made"]:
                verdict("filled: devices a second", filled["made"] / filled["seconds"], "/s")
            self.data = place / "data"
        return self.data

    def server(self, **how):
        data = self()
        return Server(data.parent, **how)


def registry(home, many):
    """Start, memory, lookups, pages and searches with many things, beside a registry of few."""
    data = many()
    few = home / "few"
    few.mkdir()
    scale("fill", few, FEW)
    packed = scale("pack", data)
    verdict(f"packing what connects ask of {packed['cards']:,}: CPU of each", packed["cpu_seconds"] * 1e6 / packed["cards"], " us")
    small, large = scale("lookup", few, FEW, 20_000), scale("lookup", data, THINGS, 20_000)
    verdict(f"lookup of one of {FEW:,}: CPU", small["hot"]["cpu_us"], " us")
    at_most(f"lookup of one of {THINGS:,}, seen before: CPU", large["hot"]["cpu_us"], 20, " us")
    at_most(f"lookup of one of {THINGS:,} by one of {FEW:,}", large["hot"]["cpu_us"] / small["hot"]["cpu_us"], 1.5)
    at_most(f"lookup of one of {THINGS:,}, anywhere: CPU", large["anywhere"]["cpu_us"], 20, " us")
    pages = scale("pages", data, THINGS)
    for name, times in pages.items():
        at_most(f"page of {name}, last by first", times["last"] / times["first"], 1.5)
        verdict(f"page of {name}, first", times["first"], " us")
    found = scale("search", data, THINGS)
    peak = found.pop("peak_kib")
    for query, figures in found.items():
        verdict(f"search {query}: {figures['found']} in {figures['pages']} pages", figures["ms"], " ms")
    at_most("search: memory at its peak", peak / 1024, 300.0, " MiB")
    began = time.perf_counter()
    server = many.server()
    try:
        at_most(f"start with {THINGS:,} things and certificates", time.perf_counter() - began, 10.0, " s")
        time.sleep(2)
        fields = {}
        for line in Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            fields[name] = int(value.split()[0]) / 1024
        at_most("memory with nobody connected, resident", fields["Rss"], 300.0, " MiB")
        at_most("memory with nobody connected, private", fields["Private_Dirty"], 300.0, " MiB")
        group_policy(server)
    finally:
        server.stop()


def group_policy(server):
    """A group of 100,000 gets a policy while a pair goes on."""
    if "everything" not in server.cli("policy", "list"):
        server.policy("everything", EVERYTHING)
    identity = server.device(f"pair-{time.time_ns()}", "--policy", "everything")
    command = [*ON_LAST_CORE, MUSTER, "bench", "pairs", "--json", "--broker", f"localhost:{server.port('mqtt')}", "--root", str(identity.root),
               "--cert", str(identity.certificate), "--key", str(identity.key), "--clients", "1", "--rate", "500", "--seconds", str(PAIR_SECONDS)]

    def pair():
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["latency_us"]

    quiet, client, done = pair(), iot(server), threading.Event()
    group = client.describe_thing_group(thingGroupName="first")["thingGroupArn"]
    times = []

    def change():
        while not done.wait(0.2):
            for what in (client.attach_policy, client.detach_policy):
                began = time.perf_counter()
                what(policyName="halls", target=group)
                times.append((time.perf_counter() - began) * 1000)

    changing = threading.Thread(target=change)
    changing.start()
    busy = pair()
    done.set()
    changing.join()
    times.sort()
    verdict("a policy for a group of 100,000, attached or detached: p99", times[len(times) * 99 // 100], " ms")
    verdict("a live pair meanwhile: p99", busy["p99"] / 1000, " ms")
    at_most("a live pair meanwhile: p99 beyond what it is else", max(0.0, (busy["p99"] - quiet["p99"]) / 1000), 20.0, " ms")


def status(many):
    """Lists and OCSP answers."""
    data = many()
    revoked = scale("revoke", data, REVOKED)
    verdict(f"revoked of {THINGS:,}", revoked["revoked"])
    lists = scale("lists", data, THINGS)
    verdict(f"revocation lists of {THINGS:,} with {REVOKED:,} revoked, all signed anew", lists["all_ms"], f" ms/{lists['lists']}")
    verdict("the slowest of them", lists["slowest_ms"], " ms")
    at_most("after one more revocation, by all anew", lists["after_one_more_ms"] / lists["all_ms"], 0.2)
    answers = scale("ocsp", data, THINGS, 5_000, wrapper=ON_FIRST_CORE)
    signs, _ = openssl_speed()
    verdict("OCSP answers, one core", answers["per_s"], "/s")
    verdict("OCSP answers by openssl's signatures", answers["per_s"] / signs)


def audit(many):
    """Registry, lists and OCSP held against one another, over everything."""
    server = many.server()
    try:
        def peak():
            return next(int(line.split()[1]) for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if line.startswith("VmHWM")) / 1024

        before, began = peak(), time.perf_counter()
        command = [MUSTER, "audit", "run", "--data", str(server.data), "--json"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        report = {check["name"]: check for check in json.loads(done.stdout)["checks"]}["revocation"]
        verdict("audit: certificates examined", report["examined"])
        at_most("audit: findings", len(report["findings"]), 0)
        verdict("audit: certificates a second", report["examined"] / (time.perf_counter() - began), "/s")
        at_most("audit: memory beyond what there was", peak() - before, 100.0, " MiB")
    finally:
        server.stop()


def felt(home):
    """How soon live sessions feel a change, and whether others do."""
    place = home / "felt"
    place.mkdir()
    for way, figures in scale("felt", place, SESSIONS).items():
        at_most(f"{way}: commit to last delivery, p99 of {SESSIONS:,}", figures["last_delivery_ms"]["p99"], 10.0, " ms")
        verdict(f"{way}: commit to the session's end, p99", figures["told_ms"]["p99"], " ms")
        at_most(f"{way}: longest that {SESSIONS:,} others waited", figures["others_during_ms"]["max"], 20.0, " ms")
        verdict(f"{way}: the same before it", figures["others_before_ms"]["max"], " ms")


def bulk(home):
    """A file of many devices, and a task of as many: memory of both sides, against a tenth of them."""
    peaks = {}
    for count in (THINGS // 100, THINGS // 10):
        place = home / f"bulk-{count}"
        place.mkdir()
        file = place / "devices.csv"
        with open(file, "w") as out:
            out.write("name,attribute.serial\n")
            out.writelines(f"lamp-{n:07},sn-{n:09}\n" for n in range(count))
        server = Server(place)
        try:
            began = time.perf_counter()
            run = subprocess.Popen([MUSTER, "device", "create", "--from", str(file), "--out", str(place / "out"), "--data", str(server.data)],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, state, usage = os.wait4(run.pid, 0)
            run.returncode = os.waitstatus_to_exitcode(state)
            if run.returncode:
                raise SystemExit(f"{count} devices from a file: exit {run.returncode}")
            verdict(f"bulk: {count:,} devices from a file", count / (time.perf_counter() - began), "/s")
            peak = next(int(line.split()[1]) for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
            peaks[count] = usage.ru_maxrss / 1024, peak / 1024
        finally:
            server.stop()
    (small_client, small_server), (large_client, large_server) = peaks.values()
    at_most("bulk: the client's memory, beyond that for a tenth of it", large_client - small_client, 16.0, " MiB")
    at_most("bulk: the server's memory, beyond that for a tenth of it", large_server - small_server, 100.0, " MiB")
