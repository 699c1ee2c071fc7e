"""What goes wrong between devices and a server without anybody being wicked: called off, silent, failing, cut off.

docs/firmware-threats.md says of each threat to firmware which test stands against it."""

import hashlib
import os
import subprocess

import pytest

from api import call, iot
from devices import Agent, eventually, outcome
from release import Team, opened
from server import MUSTER
from test_agent import agent, house, install, stolen, team  # noqa: F401 - fixtures
from test_health_gates import CANARIES, FLEET, STOPPED, WATCH, canaries, hall, start  # noqa: F401 - a fixture
from test_health_gates import install as answer_well

PART_BYTES, UPLOAD_BYTES = 8 << 20, 160 << 20
RETRIES = 3


@pytest.mark.timeout(240)
def test_a_job_called_off_during_the_download_stops_it_and_the_next_one_is_done(house, team, stolen, agent):  # noqa: F811
    """A device may be at it for a minute; the download hangs. Nothing of it is installed, and the device is free."""
    lamp = agent("--trust", team.root("first"), source=stolen)
    big = os.urandom(3 << 20)
    stolen.serve("lamp", "7.0.0", *opened(team.package("lamp", "7.0.0", big)))
    stolen.serve("lamp", "7.1.0", *opened(team.package("lamp", "7.1.0", b"light")))
    stolen.stall["/firmware/lamp/7.0.0/image"] = len(big) // 2
    for version in ("7.0.0", "7.1.0"):
        house.server.cli("firmware", "add", house.team.package("lamp", version, b"never seen"))
    rollout = house.server.json("rollout", "start", "lamp", "7.0.0", "--group", lamp.name, "--timeout", "1m")["id"]
    assert stolen.stalled.wait(60)
    assert outcome(house.client, f"{rollout}-wave-1", lamp.name, limit=150)[0] == "TIMED_OUT"
    after = house.server.json("rollout", "start", "lamp", "7.1.0", "--group", lamp.name)["id"]
    assert outcome(house.client, f"{after}-wave-1", lamp.name)[0] == "SUCCEEDED"
    assert lamp.tried("7.0.0") == 0 and lamp.status()["version"] == "7.1.0"
    assert not any((lamp.state / "download").iterdir()), "what had come of it is gone"


@pytest.mark.timeout(300)
def test_a_document_that_drips_is_given_up_and_the_next_order_is_done(house, team, stolen, agent):  # noqa: F811
    """Its bytes come for ever, so that no single wait is long. The thief's order is over; the device is free for others."""
    lamp = agent("--trust", team.root("first"), source=stolen)
    for version in ("8.0.0", "8.1.0"):
        stolen.serve("lamp", version, *opened(team.package("lamp", version, b"light")))
        house.server.cli("firmware", "add", house.team.package("lamp", version, b"never seen"))
    dripping = "/firmware/lamp/8.0.0/manifest.json"
    stolen.drips.add(dripping)
    rollout = house.server.json("rollout", "start", "lamp", "8.0.0", "--group", lamp.name, "--timeout", "1m")["id"]
    assert stolen.stalled.wait(60)
    assert outcome(house.client, f"{rollout}-wave-1", lamp.name, limit=150)[0] == "TIMED_OUT"
    (told,) = house.server.json("rollout", "show", rollout)["executions"]
    assert told["reason"] == "no word that it was done within 1 minutes of its beginning"
    after = house.server.json("rollout", "start", "lamp", "8.1.0", "--group", lamp.name)["id"]
    assert outcome(house.client, f"{after}-wave-1", lamp.name, limit=120)[0] == "SUCCEEDED"
    assert "too slow" in lamp.said(), lamp.said()
    assert lamp.tried("8.0.0") == 0 and lamp.status()["version"] == "8.1.0"


@pytest.mark.timeout(240)
def test_devices_that_report_success_and_never_come_back_stop_it(server, hall):  # noqa: F811
    clients = {f"lamp-{number}": hall(f"lamp-{number}") for number in range(FLEET)}
    rollout = start(server, "--gate", "silence", "--watch", WATCH)
    for name in canaries(server, rollout):
        answer_well(clients[name], name)
        clients[name].close()
    shown = {}

    def stopped():
        shown.update(server.json("rollout", "show", rollout))
        return shown["state"] in STOPPED

    eventually(stopped, lambda: shown, limit=120)
    assert shown["reason"].startswith("silence: "), shown["reason"]
    assert shown["waves"][0]["succeeded"] == CANARIES and shown["waves"][1]["state"] == "waiting"
    assert shown["health"][0]["waiting_bad"] == 0


@pytest.mark.timeout(180)
def test_a_device_that_fails_again_and_again_is_left_in_peace(server, tmp_path):
    """As often as was said, no oftener; not even when it starts anew or the server does."""
    team = Team(tmp_path / "team")  # noqa: F811
    server.cli("firmware", "trust", team.root())
    server.cli("firmware", "add", team.package("lamp", "1.0", b"dark"))
    server.cli("group", "create", "hall")
    lamp = Agent(server, server.device("lamp-1", "--group", "hall"), tmp_path / "lamp-1", health='echo "0 $MUSTER_VERSION" >>"$MUSTER_STATE/trials"; false')
    try:
        rollout = server.json("rollout", "start", "lamp", "1.0", "--group", "hall", "--retry", RETRIES)["id"]

        def given_up():
            execution, = server.json("rollout", "show", rollout)["executions"]
            return execution["status"] == "FAILED" and execution.get("attempt") == RETRIES + 1

        eventually(given_up, lambda: server.json("rollout", "show", rollout))
        tried = lamp.tried("1.0")
        assert tried == RETRIES + 1
        server.kill9()
        server.start()
        lamp.kill9()
        lamp.start()
        # Whatever was still to come would come before this: the order behind it is carried out.
        server.cli("firmware", "add", team.package("lamp", "1.1", b"dark too"))
        after = server.json("rollout", "start", "lamp", "1.1", "--group", "hall")["id"]
        assert outcome(iot(server), f"{after}-wave-1", lamp.name)[0] == "FAILED"
        assert lamp.tried("1.0") == tried and lamp.tried("1.1") == 1
        assert lamp.status()["version"] is None
    finally:
        lamp.stop()


@pytest.mark.timeout(180)
def test_an_upload_goes_on_after_kill_9_of_the_server_where_it_was(server, tmp_path):
    team = Team(tmp_path / "team")  # noqa: F811
    server.cli("firmware", "trust", team.root())
    image = os.urandom(1 << 20) * (UPLOAD_BYTES >> 20)
    package = team.package("lamp", "1.0", image)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    uploads = server.data / "firmware" / "uploads"

    def there():
        return sum(path.stat().st_size for path in uploads.iterdir()) if uploads.is_dir() else 0

    sending = subprocess.Popen([MUSTER, "firmware", "add", package, "--data", server.data], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while there() < 2 * PART_BYTES and sending.poll() is None:
        pass
    server.kill9()
    _, said = sending.communicate(timeout=60)
    assert sending.returncode != 0 and "say it again to go on from there" in said, said
    server.start()
    status, _, answer = call(server, "GET", f"/muster/v1/firmware/uploads/{digest}")
    assert status == 200 and PART_BYTES <= answer["received"] < package.stat().st_size, answer
    assert server.json("firmware", "list")["packages"] == [], "half of it is no firmware"
    server.cli("firmware", "add", package)
    listed, = server.json("firmware", "list")["packages"]
    assert (listed["version"], listed["size"]) == ("1.0", len(image))
    assert there() == 0, "and nothing is left of the way there"
