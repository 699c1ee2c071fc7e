"""Agents that renew their certificates by themselves, with lives so short that it happens while one looks."""

import subprocess

import pytest

import api
from devices import Agent, eventually
from release import Team

AGENTS = 20
LIFE_S = 60


def certificates(server, name):
    return server.json("device", "show", name)["certificates"]


def of(found, status):
    return [c for c in found if c["status"] == status]


@pytest.fixture
def agents():
    made = []
    yield made
    for one in made:
        one.stop()


def test_twenty_agents_with_certificates_of_a_minute(make_server, tmp_path, agents):
    settings = tmp_path / "settings.toml"
    settings.write_text(f"[ca]\ndevice_validity_seconds = {LIFE_S}\n")
    server, team = make_server("--config", str(settings)), Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    server.cli("group", "create", "hall")
    names = [f"lamp-{number}" for number in range(AGENTS)]
    for name in names:
        identity = server.device(name, "--group", "hall")
        agents.append(Agent(server, identity, tmp_path / "agents" / name))
    before = {agent.name: (agent.identity.certificate.read_text(), agent.identity.key.read_text()) for agent in agents}

    def renewed(times):
        """Agents whose old certificates have been retired so often."""
        return [name for name in names if len(of(certificates(server, name), "INACTIVE")) >= times]

    eventually(lambda: len(renewed(2)) == AGENTS, lambda: f"renewed twice: {renewed(2)}", 180)
    # No agent stopped, and none is left with its first certificate or key.
    for agent in agents:
        assert agent.process.poll() is None, agent.said()
        certificate, key = before[agent.name]
        assert agent.identity.certificate.read_text() != certificate and agent.identity.key.read_text() != key
        found = certificates(server, agent.name)
        assert 1 <= len(of(found, "ACTIVE")) <= 2 and not of(found, "REVOKED"), found
        assert all(c["policies"] == ["device-default"] for c in found)
        assert server.json("device", "show", agent.name)["groups"] == ["hall"]
    # Jobs go on under whatever certificate it is then.
    server.cli("firmware", "add", team.package("lamp", "2.0", b"light" * 100))
    rollout = server.json("rollout", "start", "lamp", "2.0", "--group", "hall")["id"]
    state = lambda: server.json("rollout", "show", rollout)["state"]
    eventually(lambda: state() == "succeeded", state, 120)
    assert all(agent.status()["version"] == "2.0" for agent in agents)
    assert server.json("audit", "run")["checks"][0]["findings"] == []


def test_an_agent_that_is_killed_and_kept_from_the_server_renews_when_it_can(make_server, tmp_path, agents):
    settings = tmp_path / "settings.toml"
    settings.write_text(f"[ca]\ndevice_validity_seconds = {LIFE_S}\n")
    server = make_server("--config", str(settings))
    agent = Agent(server, server.device("lamp-1"), tmp_path / "agents" / "lamp-1")
    agents.append(agent)
    eventually(lambda: "was renewed" in agent.said(), agent.said, 60)
    server.kill9()
    eventually(lambda: "was not renewed" in agent.said(), agent.said, 60)
    agent.kill9()
    server.start()
    first = agent.identity.certificate.read_text()
    agent.start()
    eventually(lambda: agent.identity.certificate.read_text() != first, agent.said, 60)
    leaf = subprocess.run(["openssl", "x509", "-in", agent.identity.certificate, "-noout", "-pubkey"], capture_output=True, check=True, timeout=30).stdout
    own = subprocess.run(["openssl", "pkey", "-in", agent.identity.key, "-pubout"], capture_output=True, check=True, timeout=30).stdout
    assert leaf == own
    assert agent.identity.key.stat().st_mode & 0o077 == 0


def test_a_revoked_device_renews_nothing(make_server, tmp_path, agents):
    settings = tmp_path / "settings.toml"
    settings.write_text(f"[ca]\ndevice_validity_seconds = {LIFE_S}\n")
    server = make_server("--config", str(settings))
    agent = Agent(server, server.device("lamp-1"), tmp_path / "agents" / "lamp-1")
    agents.append(agent)
    eventually(lambda: "connected to" in agent.said(), agent.said, 30)
    server.cli("device", "revoke", "lamp-1", "--yes")
    eventually(lambda: "was not renewed: 403" in agent.said(), agent.said, 60)
    assert not of(certificates(server, "lamp-1"), "ACTIVE")
    assert api.send(server, "GET", "/.well-known/est/cacerts")[0] == 200
