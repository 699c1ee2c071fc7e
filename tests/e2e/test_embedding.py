"""The agent as a library: the documented example updates an application of its user's own."""

import subprocess
from pathlib import Path

import pytest

from api import iot
from devices import eventually, outcome
from release import Team
from server import AGENT, REPOSITORY

EXAMPLE = Path(AGENT).parent / "examples/own-application"
# An application as small as can be: it says that it runs, and that it is well unless its version is a bad one.
APPLICATION = """#!/bin/sh
if [ "$1" = --self-test ]; then test {version} != bad || {{ echo "no lamp found" >&2; exit 3; }}; exit 0; fi
echo "application {version}"
echo $$ >"$(dirname "$0")/../../pid"
exec sleep 1000
"""


@pytest.fixture
def device(server, tmp_path):
    team = Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    for version in ("1", "2", "bad"):
        image = APPLICATION.format(version=version).encode()
        server.cli("firmware", "add", team.package("my-app", version, image, hardware="my-board"))
    server.cli("group", "create", "mine")
    identity = server.device("mine-1", "--group", "mine")
    assert EXAMPLE.exists(), "build it: cargo build -p muster-agent --example own-application, as MUSTER_AGENT_BIN was built"
    log, command = tmp_path / "log", [
        str(EXAMPLE), str(identity.certificate.parent), "localhost", str(server.port("mqtt")), str(server.port("https")), str(tmp_path / "state")]
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    yield process, log
    process.kill()
    process.wait(15)


def install(server, version):
    rollout = server.json("rollout", "start", "my-app", version, "--group", "mine")["id"]
    return outcome(iot(server), f"{rollout}-wave-1", "mine-1")


def test_the_example_runs_each_good_application_and_never_a_bad_one(server, device):
    process, log = device
    assert install(server, "1")[0] == "SUCCEEDED"
    eventually(lambda: "application 1\n" in log.read_text(), log.read_text)
    status, said = install(server, "bad")
    assert status == "FAILED" and "no lamp found" in said["reason"], said
    assert install(server, "2")[0] == "SUCCEEDED"
    eventually(lambda: "application 2\n" in log.read_text(), log.read_text)
    text = log.read_text()
    assert text.count("application 1\n") == 1 and "application bad\n" not in text
    process.terminate()
    assert process.wait(15) == 0
    application = (log.parent / "state/pid").read_text().strip()
    assert not Path("/proc", application).exists(), "it took its application with it"


def test_the_example_is_short_enough_to_read():
    lines = (REPOSITORY / "agent/examples/own-application.rs").read_text().splitlines()
    assert len(lines) <= 125
