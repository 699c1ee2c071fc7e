"""A device that slept past its certificate's end: what the operator lets it do, by the server's clock set forward."""

import base64
import json
import subprocess

import pytest

from devices import Agent, eventually
from server import muster
from test_certificate_status import ok, run
from test_mistakes import clock

DAY_S = 86_400
ENROL, REENROL = "simpleenroll", "simplereenroll"


def later(server, days, *flags):
    """The server again, with its clock so many days ahead."""
    server.terminate()
    server.wrapper = [*clock(f"+{days * 24}h")]
    server.start(*flags)


def states(server, name):
    """As an operator of that time sees them."""
    shown = muster("device", "show", name, "--json", "--data", server.data, wrapper=server.wrapper)
    assert shown.returncode == 0, shown.stderr
    return [one["status"] for one in json.loads(shown.stdout)["certificates"]]


@pytest.fixture
def settings(tmp_path):
    def written(grace_days):
        path = tmp_path / "settings.toml"
        path.write_text(f"[ca]\ndevice_validity_seconds = {DAY_S}\nexpired_grace_seconds = {grace_days * DAY_S}\n")
        return str(path)
    return written


def ask(server, identity, operation, tmp_path):
    """EST under an identity, by a curl of the server's time: the status, and what was answered."""
    key, request = tmp_path / "next.key", tmp_path / "next.b64"
    ok("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    der = subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", f"/CN={identity.name}", "-outform", "DER"],
                         capture_output=True, check=True, timeout=30).stdout
    request.write_bytes(base64.b64encode(der))
    url = f"https://localhost:{server.port('https')}/.well-known/est/{operation}"
    return run(*server.wrapper, "curl", "-sS", "-w", "\n%{http_code}", "--cacert", server.root, "--cert", identity.certificate,
               "--key", identity.key, "-H", "Content-Type: application/pkcs10", "--data-binary", f"@{request}", url)


def test_within_the_grace_it_renews_and_nothing_else(make_server, settings, tmp_path):
    server = make_server("--config", settings(3))
    lamp, gone, off = server.device("lamp-1"), server.device("gone"), server.device("off")
    server.cli("device", "revoke", "gone", "--yes")
    later(server, 3)
    # Two days after its end: not another enrolment, no firmware, no MQTT.
    _, said = ask(server, lamp, ENROL, tmp_path)
    assert "expired" in said and said.endswith("403"), said
    code, said = run(*server.wrapper, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", server.root,
                     "--cert", lamp.certificate, "--key", lamp.key, f"https://localhost:{server.port('https')}/firmware/root/1.json")
    assert said.endswith("403"), said
    code, said = run(*server.wrapper, "mosquitto_pub", "-h", "localhost", "-p", server.port("mqtt"), "--cafile", server.root,
                     "--cert", lamp.certificate, "--key", lamp.key, "-i", lamp.name, "-t", "dt/lamp-1/x", "-m", "x", "-q", "1")
    assert code != 0
    # One that was revoked stays out.
    _, said = ask(server, gone, REENROL, tmp_path)
    assert said.endswith("403"), said
    _, said = ask(server, lamp, REENROL, tmp_path)
    assert said.endswith("200"), said
    assert states(server, "lamp-1") == ["ACTIVE", "ACTIVE"]
    # And beyond it nobody comes in at all.
    later(server, 6)
    code, _ = ask(server, off, REENROL, tmp_path)
    assert code != 0
    assert states(server, "off") == ["ACTIVE"]


def test_without_a_grace_it_claims_again(make_server, settings, tmp_path):
    server = make_server("--config", settings(0))
    lamp = server.device("lamp-1")
    later(server, 3)
    code, _ = ask(server, lamp, REENROL, tmp_path)
    assert code != 0
    password = muster("device", "enrol-password", "lamp-1", "--json", "--data", server.data, wrapper=server.wrapper)
    assert password.returncode == 0, password.stderr


def test_an_agent_that_slept_renews_and_comes_in(make_server, settings, tmp_path):
    server = make_server("--config", settings(3))
    lamp = server.device("lamp-1")
    later(server, 3)
    agent = Agent(server, lamp, tmp_path / "agents" / "lamp-1", start=False)
    agent.command = [*server.wrapper, *agent.command]
    before = lamp.certificate.read_text()
    agent.start()
    try:
        eventually(lambda: "was renewed" in agent.said(), agent.said, 60)
        eventually(lambda: "connected to" in agent.said(), agent.said, 60)
        assert "the server is asked for another" in agent.said()
        assert lamp.certificate.read_text() != before
        eventually(lambda: sorted(states(server, "lamp-1")) == ["ACTIVE", "INACTIVE"], agent.said, 60)
    finally:
        agent.stop()
