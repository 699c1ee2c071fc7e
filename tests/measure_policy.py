"""What the policy engine is held to: each figure with its aim and a verdict.

    tests/measure.py engine|judged|simulate|compare        (`tests/run.sh --measure` runs all)

`engine` is pure computing (policy/examples/figures.rs); `judged` a registry with principals that are live but have no socket
(`muster-scale judged`; with sockets it is the item `felt`); `simulate` a server with a record of ten million decisions, MUSTER_MEASURE_DECISIONS
for another number; `compare` is an equal task for others: one decision by cedar-policy 4 (tests/compare), and what one rule and
two hundred cost a message, beside mosquitto's ACL file.
"""

import json
import os
import subprocess
import time

from measure_registry import ON_FIRST_CORE, at_least, at_most, scale, verdict
from mosquitto import Mosquitto
from server import MUSTER, TARGET, Server, allow, document

FIGURES = os.environ.get("MUSTER_POLICY_FIGURES", str(TARGET / "release/examples/figures"))
COMPARE = os.environ.get("MUSTER_COMPARE_BIN", str(TARGET / "compare/release/muster-compare"))
DECISIONS = int(os.environ.get("MUSTER_MEASURE_DECISIONS", 10_000_000))
EACH = 250
PRINCIPALS = 100_000
FEW = 1_000
RULES = 200
ROUNDS = 3


def engine():
    """Decisions, compiling, refusals, memory and proofs."""
    done = subprocess.run([*ON_FIRST_CORE, FIGURES], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout)
    for what, one in figures["decisions"].items():
        at_most(f"{what}: one decision", one["ns"], 1000.0, " ns")
        at_most(f"{what}: allocations", one["allocations"], 0)
    at_least("policies compiled, all different", figures["compiled_per_s"], 10_000, "/s")
    for what, ms in figures["refusals_ms"].items():
        at_most(f"refusal: {what}", ms, 100.0, " ms")
    for what, each in figures["principals"].items():
        at_most(f"a connected principal with {what}", each, 200.0, " B")
    at_most("1,000,000 principals with device-default", figures["principals"]["device-default"], 150.0, " MB")
    verdict("prove: 1,000,000 things taken up", figures["prove"]["built_s"], " s")
    for what, seconds in figures["prove"]["claims_s"].items():
        verdict(f"prove: {what}", seconds, " s")
    at_most("prove: 1,000,000 things, 20 kinds, three claims, all of it", figures["prove"]["whole_s"], 10.0, " s")


def judged(home):
    """How soon everybody who is live has been judged again."""
    for count in (FEW, PRINCIPALS):
        place = home / f"judged-{count}"
        place.mkdir()
        for what, one in scale("judged", place, count).items():
            name = f"{what}: {one['judged']:,} of {count:,} judged"
            if count == FEW:
                at_most(f"{name}, p99", one["p99_ms"], 10.0, " ms")
            else:
                at_most(f"{name}, the last", one["last_ms"], 1000.0, " ms")


def simulate(home):
    """A change against all that was recorded."""
    place = home / "simulate"
    place.mkdir()
    server = Server(place)
    server.stop()
    recorded = scale("record", server.data, DECISIONS // EACH, EACH)
    server.start()
    try:
        file = place / "narrow.json"
        file.write_text(json.dumps(document(allow("Publish", "topic/dt/${iot:Connection.Thing.ThingName}/sensor-1*"))))
        began = time.perf_counter()
        command = [MUSTER, "policy", "simulate", str(file), "--attach-to", "recorded", "--alone", "--data", str(server.data), "--json"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
        seconds, told = time.perf_counter() - began, json.loads(done.stdout)
        if told["decisions"] != recorded["decisions"] or told["nowDenied"] != recorded["devices"] * (EACH - 100):
            raise SystemExit(f"simulated: {told['decisions']} decisions, {told['nowDenied']} denied of {recorded}")
        at_most(f"simulate: {told['decisions']:,} recorded decisions", seconds, 60.0, " s")
    finally:
        server.stop()


def compare(home, load):
    """An equal task for others."""
    done = subprocess.run([*ON_FIRST_CORE, COMPARE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    for what, one in json.loads(done.stdout).items():
        verdict(f"one decision, {what}: here", one["muster_ns"], " ns")
        verdict(f"one decision, {what}: cedar-policy 4", one["cedar_ns"], " ns")
        verdict(f"one decision, {what}: cedar-policy by ours", one["cedar_ns"] / one["muster_ns"])
    rules(home, load)


def rules(home, load):
    """CPU of one message under the last of many rules, by that under one: here and under mosquitto's ACL file.

    mosquitto's checker cannot be called by itself, so both are measured in their brokers, all else that a message costs
    included. Rules are written alike, one for each place; both brokers judge publisher and receiver.
    """
    others = [f"site-{number}" for number in range(RULES - 1)]
    work = ("pairs", "--clients", 100, "--rate", 5000, "--size", 128, "--seconds", 8)
    place = home / "rules"
    place.mkdir()
    mine, theirs = {}, {}
    for _ in range(ROUNDS):
        for count, names in ((1, ["bench"]), (RULES, [*others, "bench"])):
            here = place / str(time.time_ns())
            here.mkdir()
            server = Server(here, wrapper=ON_FIRST_CORE)
            peer = Mosquitto(here / "mosquitto", ON_FIRST_CORE, acl=["user load", *(f"topic readwrite {name}/#" for name in names)])
            try:
                server.policy("rules", document(allow("Connect", "*"), *(allow(["Publish", "Receive", "Subscribe"], f"topic/{name}/*", f"topicfilter/{name}/*") for name in names)))
                identity = server.device("load", "--policy", "rules")
                mine.setdefault(count, []).append(load(server.port("mqtt"), identity, server.process.pid, *work)["broker"]["cpu_us"])
                theirs.setdefault(count, []).append(load(peer.port, peer.identity, peer.process.pid, *work)["broker"]["cpu_us"])
            finally:
                server.stop()
                peer.stop()
    middle = {who: {count: sorted(them)[ROUNDS // 2] for count, them in runs.items()} for who, runs in (("mine", mine), ("mosquitto", theirs))}
    for who, runs in middle.items():
        for count, us in runs.items():
            verdict(f"{who}: CPU per message under {count} rules", us, " us")
    at_most(f"CPU per message, {RULES} rules by one", middle["mine"][RULES] / middle["mine"][1], 1.1)
    verdict("the same of mosquitto's ACL file", middle["mosquitto"][RULES] / middle["mosquitto"][1])
    for count in (1, RULES):
        verdict(f"CPU per message under {count} rules, by mosquitto's", middle["mine"][count] / middle["mosquitto"][count])
