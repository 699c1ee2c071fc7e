"""Devices that enrol themselves with the agent: by claim and by one-time password, through refusals and kills, to their first firmware."""

import base64
import json
import os
import random
import shlex
import socket
import stat
import subprocess
import threading
import time
import urllib.request

import pytest

from api import iot
from devices import Agent, eventually, outcome
from release import Team
from server import AGENT, MUSTER, REPOSITORY, Identity, Server
from test_mistakes import clock
from test_provisioning import ROLE, Hook, template_body

LIMIT_S = 60
IMAGE = b"light" * 1000


class House:
    """A server with a release team, a group that templates put devices into, and ways in."""

    def __init__(self, home):
        self.server, self.home = Server(home), home
        team = Team(home / "team")
        self.server.cli("firmware", "trust", team.root())
        self.server.cli("firmware", "add", team.package("lamp", "1.0.0", IMAGE))
        self.server.cli("group", "create", "provisioned")
        self.client = iot(self.server)

    def template(self, name, *flags):
        body = self.home / f"{name}.json"
        body.write_text(template_body(name))
        self.server.cli("template", "create", name, str(body), *flags)
        return name

    def claim(self, template, *flags):
        """The flags of a device that was born with a claim."""
        out = self.home / f"claim-{template}-{time.monotonic_ns()}"
        made = self.server.json("claim", "create", "--template", template, "--out", str(out), *flags)
        return made["certificateId"], ["--claim", str(out), "--template", template]

    def password(self, name, place, *flags):
        """The flags of a device that was given a one-time password, and the password."""
        secret = self.server.json("device", "enrol-password", name, *flags)["password"]
        file = place / f"{name}.password"
        file.write_text(secret + "\n")
        file.chmod(0o600)
        return secret, ["--thing", name, "--password-file", str(file), "--root", str(self.server.root)]

    def command(self, place, *flags):
        return [AGENT, "enrol", "--identity", str(place), "--server", "localhost", "--mqtt-port", str(self.server.port("mqtt")),
                "--https-port", str(self.server.port("https")), *flags]

    def enrol(self, place, *flags, wrapper=()):
        """The verb, as loud as it can be: exit code and all it said."""
        done = subprocess.run([*wrapper, *self.command(place, *flags)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
                              env={**os.environ, "MUSTER_LOG": "trace"})
        return done.returncode, done.stdout + done.stderr

    def things(self, start):
        return sorted(thing["thingName"] for thing in self.client.list_things(maxResults=250)["things"] if thing["thingName"].startswith(start))


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.server.stop()


@pytest.fixture
def way(request, house, fresh_name, tmp_path):
    """A device that is let in one way or the other: its flags and the name it will have."""
    if request.param == "claim":
        name = house.template(fresh_name("born"))
        return [*house.claim(name)[1], "--parameter", "SerialNumber=4711"], f"{name}-4711"
    name = fresh_name("given")
    secret, flags = house.password(name, tmp_path, "--group", "provisioned")
    if request.param == "fingerprint":
        said = subprocess.run(["openssl", "x509", "-in", house.server.root, "-noout", "-fingerprint", "-sha256"],
                              capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
        flags = [*flags[:-2], "--root-fingerprint", said.strip().partition("=")[2]]
    if request.param == "der":
        # As the server hands it out over HTTP; what it is known by comes another way.
        file = tmp_path / "root.der"
        file.write_bytes(urllib.request.urlopen(f"http://{house.server.endpoints['http']}/root.crt", timeout=LIMIT_S).read())
        flags = [*flags[:-2], "--root", str(file)]
    return flags, name


both = pytest.mark.parametrize("way", ["claim", "password"], indirect=True)


@pytest.fixture
def run(house, tmp_path):
    """Starts agents that are to enrol first."""
    made = []

    def start(place, name, *flags, **how):
        identity = Identity(place / f"{name}.crt", place / f"{name}.key", place / "root.crt", name)
        made.append(Agent(house.server, identity, tmp_path / f"state-{len(made)}", *flags, **how))
        return made[-1]

    yield start
    for one in made:
        one.stop()


def files(place):
    return {path.name: path for path in place.iterdir()} if place.exists() else {}


def no_identity(place):
    return not any(name.endswith(".crt") and name != "root.crt" for name in files(place))


def keys_in(text):
    return "PRIVATE KEY" in text


@pytest.mark.parametrize("way", ["claim", "password", "fingerprint", "der"], indirect=True)
def test_the_verb_writes_what_device_create_writes(house, way, tmp_path):
    flags, name = way
    place = tmp_path / "deep/down"
    code, said = house.enrol(place, *flags)
    assert code == 0 and f"this device is {name}" in said and not keys_in(said), said
    written = files(place)
    # The template tells those that come by claim something more.
    assert set(written) - {"configuration.json"} == {f"{name}.crt", f"{name}.key", "root.crt"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in written.values())
    assert written["root.crt"].read_text() == house.server.root.read_text()
    assert written[f"{name}.crt"].read_text().count("BEGIN CERTIFICATE") == 2
    assert "configuration.json" not in written or json.loads(written["configuration.json"].read_text())["Url"] == "https://us.example"
    assert house.server.json("device", "show", name)["certificates"][0]["status"] == "ACTIVE"
    # Who has an identity keeps it.
    before = {path: path.read_bytes() for path in written.values()}
    code, said = house.enrol(place, *flags)
    assert code == 1 and f"{name}.crt: this device is enrolled already" in said and f"device replace {name}" in said, said
    assert {path: path.read_bytes() for path in files(place).values()} == before


@both
def test_an_agent_that_is_told_how_enrols_and_installs(house, way, run, tmp_path):
    flags, name = way
    place = tmp_path / "identity"
    lamp = run(place, name, *flags)
    eventually(lambda: f"as {name}" in lamp.said() and "connected to" in lamp.said(), lamp.said)
    group = f"of-{name}"
    house.server.cli("group", "create", group)
    house.server.cli("group", "add", group, name)
    job = house.server.json("rollout", "start", "lamp", "1.0.0", "--group", group)["id"] + "-wave-1"
    status, details = outcome(house.client, job, name)
    assert status == "SUCCEEDED", (details, lamp.said())
    assert lamp.status()["version"] == "1.0.0"
    # The same unit at the next start: it has what it needs, and asks for nothing.
    lamp.stop()
    used = house.server.json("device", "show", name)["certificates"]
    lamp.start()
    eventually(lambda: lamp.said().count("connected to") == 2, lamp.said)
    assert lamp.said().count("enrolled as") == 1 and house.server.json("device", "show", name)["certificates"] == used
    assert not keys_in(lamp.said()) and not keys_in(house.server.stderr())


def test_the_unit_of_a_factory_image_makes_a_device_of_each_that_starts_it(house, fresh_name, tmp_path):
    template = house.template(fresh_name("born"))
    _, (_, claim, _, _) = house.claim(template)
    lines = (REPOSITORY / "packaging/muster-agent.service").read_text().replace("\\\n", "").splitlines()
    options = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert options["StateDirectory"] == "muster-agent"
    place = tmp_path / "var"
    for old, new in (
        ("/usr/local/bin/muster-agent", AGENT), ("/var/lib/muster-agent", str(place)), ("/etc/muster-agent/claim", claim),
        ("${SERVER}", "localhost"), ("${HARDWARE}", "lamp-a"), ("${HEALTH}", "true"), ("${TEMPLATE}", template), ("%H", "4711"),
    ):
        assert old in options["ExecStart"], old
        options["ExecStart"] = options["ExecStart"].replace(old, new)
    ports = ["--mqtt-port", str(house.server.port("mqtt")), "--https-port", str(house.server.port("https"))]
    log = tmp_path / "log"
    with open(log, "wb") as out:
        device = subprocess.Popen([*shlex.split(options["ExecStart"]), *ports], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        eventually(lambda: f"as {template}-4711" in log.read_text() and "connected to" in log.read_text(), log.read_text)
    finally:
        device.terminate()
        device.wait(LIMIT_S)
    assert f"{template}-4711.crt" in files(place / "identity")


@both
def test_a_device_that_wakes_in_1970_enrols(house, way, run, tmp_path):
    flags, name = way
    lamp = run(tmp_path / "identity", name, *flags, wrapper=clock("@1970-01-02 00:00:00"))
    eventually(lambda: "connected to" in lamp.said(), lamp.said)
    assert "1970-01-02" in lamp.said() and f"enrolled as {name}" in lamp.said()


def test_what_a_password_is_refused_for_is_said_and_nothing_is_left(house, fresh_name, tmp_path):
    name, secrets = fresh_name("given"), []
    secret, right = house.password(name, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    wrong = other / "password"
    wrong.write_text("WRONG" + secret[5:])
    foreign = Server(other)
    foreign_root = foreign.root.read_text()
    foreign.stop()
    (other / "root.crt").write_text(foreign_root)
    (other / "empty").write_text("\n")
    secrets += [secret, wrong.read_text(), base64.b64encode(f"{name}:{secret}".encode()).decode()]

    def refused(words, thing=name, file=right[3], trust=("--root", str(house.server.root))):
        place = tmp_path / "identity"
        code, said = house.enrol(place, "--thing", thing, "--password-file", str(file), *trust, "--wait", "0")
        assert code == 1 and words in said, said
        assert no_identity(place) and not any(s in said for s in secrets) and not keys_in(said), said

    refused("does not take the password", file=wrong)
    refused("does not take the password", thing=name + "x")
    refused("not a thing's name", thing="a/b")
    refused("--password-file", file=tmp_path / "nowhere")
    refused("holds no password alone on one line", file=other / "empty")
    refused("was not issued under a root in", trust=("--root", str(other / "root.crt")))
    refused("holds no certificate in PEM or DER", trust=("--root", str(wrong)))
    refused("has no root certificate with it", trust=("--root-fingerprint", "ab" * 32))
    refused("no server is believed unseen", trust=())
    # None of that has used it.
    code, said = house.enrol(tmp_path / "identity", *right)
    assert code == 0 and not any(s in said for s in secrets) and not keys_in(said), said
    log = house.server.stderr()
    assert not any(s in log for s in secrets)
    code, said = house.enrol(tmp_path / "second", *right)
    assert code == 1 and "is wrong, used up or expired" in said and "enrol-password" in said, said
    assert no_identity(tmp_path / "second")
    # Nor does one stand on a command line.
    help_text = subprocess.run([AGENT, "enrol", "--help"], capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
    assert "--password-file" in help_text and "--password " not in help_text


def test_what_a_claim_is_refused_for_is_said_and_nothing_is_left(house, fresh_name, tmp_path):
    serials = tmp_path / "serials.txt"
    serials.write_text("1\n2\n3\n")
    name = house.template(fresh_name("born"), "--allow-parameter", "SerialNumber", "--allow-list", str(serials))
    other = house.template(fresh_name("born"))
    claim, flags = house.claim(name)
    place = tmp_path / "identity"

    def refused(words, *flags):
        code, said = house.enrol(place, *flags, "--wait", "0")
        assert code == 1 and words in said and no_identity(place) and not keys_in(said), said
        return said

    # The server's own words.
    said = refused("SerialNumber", *flags)
    assert "the server refused to register this device" in said, said
    refused("(AccessDenied)", *flags, "--parameter", "SerialNumber=4711")
    refused("claim show", "--claim", flags[1], "--template", other)
    refused("not a template's name", "--claim", flags[1], "--template", "a/b")
    refused("claim create", "--claim", str(tmp_path / "nowhere"), "--template", name)
    code, said = house.enrol(place, *flags, "--parameter", "SerialNumber=1")
    assert code == 0 and f"this device is {name}-1" in said and "OwnershipToken" not in said, said
    # A second device of the same number is a thief, for all that is known.
    place = tmp_path / "second"
    refused(f"{name}-1", *flags, "--parameter", "SerialNumber=1")
    # Busy is no refusal: it is said how it stood when patience ended.
    slow = house.claim(name, "--rate", "1/min")[1]
    assert house.enrol(tmp_path / "slow-1", *slow, "--parameter", "SerialNumber=2")[0] == 0
    place = tmp_path / "slow-2"
    refused("not enrolled within 0 s: the server refused a certificate: this claim may ask 1 times a minute", *slow, "--parameter", "SerialNumber=3")
    place = tmp_path / "third"
    house.server.cli("claim", "revoke", claim, "--yes")
    refused("claim list", *flags, "--parameter", "SerialNumber=3")


class Held(Hook):
    """A hook that lets nobody in before the gate is open."""

    def __init__(self, directory):
        self.gate = threading.Event()
        super().__init__(directory)

    @property
    def answer(self):
        self.gate.wait(LIMIT_S)
        return 200, b'{"allowProvisioning": true}'

    @answer.setter
    def answer(self, _):
        pass


@pytest.fixture
def held(tmp_path):
    hook = Held(tmp_path)
    yield hook
    hook.gate.set()
    hook.close()


def test_a_device_that_is_killed_while_it_is_registered_goes_on_as_that_thing(house, held, fresh_name, tmp_path):
    name = fresh_name("born")
    house.client.create_provisioning_template(
        templateName=name, templateBody=template_body(name), provisioningRoleArn=ROLE, enabled=True,
        preProvisioningHook={"payloadVersion": "2020-04-01", "targetArn": held.url})
    house.server.cli("template", "update", name, "--hook", held.url, "--hook-root", str(held.root))
    flags = [*house.claim(name, "--uses", "1")[1], "--parameter", "SerialNumber=4711"]
    place = tmp_path / "identity"
    with open(tmp_path / "log", "wb") as log:
        first = subprocess.Popen(house.command(place, *flags), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        eventually(lambda: held.asked, "the server to ask its hook")
        code, said = house.enrol(place, *flags)
        assert code == 1 and "another muster-agent is enrolling" in said, said
    finally:
        first.kill()
        first.wait(LIMIT_S)
    assert set(files(place)) == {"enrolling.json"}
    held.gate.set()
    eventually(lambda: house.things(name) == [f"{name}-4711"], "the server to end what it had begun")
    code, said = house.enrol(place, *flags)
    assert code == 0 and f"this device is {name}-4711" in said, said
    assert f"{name}-4711.crt" in files(place) and "enrolling.json" not in files(place)
    # With one use, one certificate of its own, and the one after it, for which nobody was asked again.
    assert len(held.asked) == 1 and house.things(name) == [f"{name}-4711"]


def test_killed_at_any_moment_it_comes_to_one_identity_and_one_thing(house, fresh_name, tmp_path):
    name = house.template(fresh_name("born"))
    flags = [*house.claim(name)[1], "--parameter", "SerialNumber=1"]
    place, dice = tmp_path / "identity", random.Random(fresh_name())
    whole = time.monotonic()
    assert house.enrol(tmp_path / "other", *flags[:-1], "SerialNumber=2")[0] == 0
    whole = time.monotonic() - whole
    kills = 0
    for _ in range(40):
        with open(os.devnull, "wb") as nothing:
            device = subprocess.Popen(house.command(place, *flags), stdin=subprocess.DEVNULL, stdout=nothing, stderr=nothing)
        try:
            # Early until one was killed: how long it takes differs, and one that comes to its end shows nothing.
            device.wait(dice.uniform(0, whole * (1.2 if kills else 0.25)))
        except subprocess.TimeoutExpired:
            device.kill()
            device.wait(LIMIT_S)
            kills += 1
        present = files(place)
        if not no_identity(place):
            assert {f"{name}-1.crt", f"{name}-1.key", "root.crt"} <= set(present)
            break
    house.enrol(place, *flags)
    assert f"{name}-1.crt" in files(place) and "enrolling.json" not in files(place)
    assert house.things(f"{name}-1") == [f"{name}-1"] and kills


class Deaf:
    """A stretch of network on which the server is heard no more once something has come to be there."""

    def __init__(self, port, come):
        self.target, self.come = ("127.0.0.1", port), come
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                device, _ = self.listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                return
            threading.Thread(target=self._up, args=(device, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, device), daemon=True).start()

    @staticmethod
    def _up(device, server):
        try:
            while piece := device.recv(1 << 16):
                server.sendall(piece)
        except OSError:
            """One side is gone."""

    def _down(self, server, device):
        lost = False
        try:
            while piece := server.recv(1 << 16):
                # What was done before this was said: asked anew for each piece, none of the answer comes through.
                lost = lost or bool(self.come())
                if not lost:
                    device.sendall(piece)
        except OSError:
            """One side is gone."""
        if not lost:
            device.close()


def test_a_password_whose_answer_was_lost_is_good_for_that_device_still(server, tmp_path):
    file, place = tmp_path / "password", tmp_path / "identity"
    file.write_text(server.json("device", "enrol-password", "lamp-1")["password"])

    def command(place, port):
        return [AGENT, "enrol", "--identity", str(place), "--server", "localhost", "--mqtt-port", str(server.port("mqtt")), "--https-port", str(port),
                "--thing", "lamp-1", "--password-file", str(file), "--root", str(server.root)]

    def states():
        done = subprocess.run([MUSTER, "device", "show", "lamp-1", "--json", "--data", str(server.data)], capture_output=True, text=True, timeout=LIMIT_S)
        return done.returncode == 0 and [c["status"] for c in json.loads(done.stdout)["certificates"]]

    network = Deaf(server.port("https"), states)
    with open(tmp_path / "log", "wb") as log:
        device = subprocess.Popen(command(place, network.port), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        eventually(states, "the server to enrol the device")
        assert no_identity(place)
    finally:
        device.kill()
        device.wait(LIMIT_S)
        network.close()
    server.kill9()
    server.start()
    port = server.port("https")
    other = subprocess.run(command(tmp_path / "thief", port), capture_output=True, text=True, timeout=LIMIT_S)
    assert other.returncode == 1 and "is wrong, used up or expired" in other.stderr, other.stderr
    again = subprocess.run(command(place, port), capture_output=True, text=True, timeout=LIMIT_S)
    assert again.returncode == 0 and {"lamp-1.crt", "lamp-1.key", "root.crt"} == set(files(place)), again.stderr
    assert states() == ["ACTIVE"]


def test_a_server_that_is_away_is_waited_for(house, fresh_name, run, tmp_path, make_server):
    server = make_server()
    name = fresh_name("given")
    file = tmp_path / "password"
    file.write_text(server.json("device", "enrol-password", name)["password"])
    flags = ["--thing", name, "--password-file", str(file), "--root", str(server.root)]
    server.kill9()
    place = tmp_path / "identity"
    done = subprocess.run([AGENT, "enrol", "--identity", place, "--server", "localhost", "--https-port", str(server.port("https")), *flags, "--wait", "0"],
                          capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1 and "nothing listens at localhost" in done.stderr and "goes on where it was" in done.stderr, done.stderr
    identity = Identity(place / f"{name}.crt", place / f"{name}.key", place / "root.crt", name)
    lamp = Agent(server, identity, tmp_path / "state", *flags)
    try:
        eventually(lambda: "not enrolled yet" in lamp.said(), lamp.said)
        server.start()
        eventually(lambda: "connected to" in lamp.said(), lamp.said)
    finally:
        lamp.stop()


def test_a_key_that_lies_there_is_not_written_over(house, way_in, tmp_path):
    place = tmp_path / "identity"
    place.mkdir()
    (place / "lamp.key").write_text("the only one")
    code, said = house.enrol(place, *way_in)
    assert code == 1 and "lamp.key without its certificate" in said, said
    assert set(files(place)) == {"lamp.key"} and (place / "lamp.key").read_text() == "the only one"


@pytest.fixture
def way_in(house, fresh_name, tmp_path):
    return house.password(fresh_name("given"), tmp_path)[1]
