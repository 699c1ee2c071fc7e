"""Images that the release team leaves to other keys: what a server and a device take from whom, and what from nobody."""

import json

import pytest

from devices import Agent, StolenServer, outcome
from release import HARDWARE, Team, opened
from server import muster
from test_agent import House, yesterday

IMAGE = b"light" * 1000
TARGETS = "/firmware/tuf/metadata/targets.json"


@pytest.fixture
def team(tmp_path):
    return Team(tmp_path / "team")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.server.stop()


@pytest.fixture
def stolen(house, tmp_path):
    server = StolenServer(house.server, tmp_path / "stolen")
    yield server
    server.close()


def signed(team, name, *keys, version="1.0.0", **how):
    return team.package(name, version, IMAGE, *keys, **how)


def test_a_delegate_signs_for_its_hardware_and_no_other(team, server):
    root = team.root("first")
    server.cli("firmware", "trust", root)
    own = signed(team, "radio", "supplier", hardware="radio-1")
    assert "which is not trusted" in server.refused("firmware", "add", own)

    delegations = team.delegate(root, "acme", "supplier", flags=["--hardware", "radio-1", "--hardware", "radio-2"])
    told = server.json("firmware", "trust", delegations)
    assert (told["role"], told["version"]) == ("targets", 1)
    added = server.json("firmware", "add", own)
    assert added["delegate"] == "acme"
    said = server.refused("firmware", "add", signed(team, "lamp", "supplier", hardware=HARDWARE))
    assert f"`{HARDWARE}/lamp/1.0.0` (hardware/name/version) is not delegated to `acme`" in said, said
    assert "it may sign radio-1/*/*, radio-2/*/*" in said, said
    both = signed(team, "both", "supplier", hardware="radio-1", more=["--hardware", HARDWARE])
    assert "is not delegated to `acme`" in server.refused("firmware", "add", both)
    # The team itself signs for everything, as before.
    assert "delegate" not in server.json("firmware", "add", signed(team, "lamp", "first"))
    assert {f["name"] for f in server.json("firmware", "list")["packages"]} == {"radio", "lamp"}
    server.kill9()
    server.start()
    assert server.json("firmware", "add", signed(team, "radio", "supplier", version="2", hardware="radio-2"))["delegate"] == "acme"


def test_a_delegate_signs_its_products_to_its_own_threshold(team, server):
    root = team.root("first")
    server.cli("firmware", "trust", root)
    server.cli("firmware", "trust", team.delegate(
        root, "acme", "one", "two", "three", flags=["--product", "horn", "--threshold", "2"]))
    said = server.refused("firmware", "add", signed(team, "horn", "one"))
    assert "is one signature short: it has 1 of the 2 signatures by keys of delegate `acme`" in said, said
    assert "is not delegated to `acme`" in server.refused("firmware", "add", signed(team, "lamp", "one", "two"))
    server.cli("firmware", "add", signed(team, "horn", "one", "three"))


def test_what_was_delegated_is_taken_back_and_does_not_come_again(team, server):
    root = team.root("first")
    server.cli("firmware", "trust", root)
    first = team.delegate(root, "acme", "supplier", flags=["--hardware", HARDWARE])
    server.cli("firmware", "trust", first)
    server.cli("firmware", "add", signed(team, "lamp", "supplier"))
    second = team.delegate(root, "acme", previous=first, flags=["--withdraw"])
    assert server.json("firmware", "trust", second)["version"] == 2
    server.cli("group", "create", "hall")
    server.device("lamp-1", "--group", "hall")
    said = server.refused("rollout", "start", "lamp", "1.0.0", "--group", "hall")
    assert "which is not trusted" in said, "nor is it rolled out any more: " + said
    said = server.refused("firmware", "trust", first)
    assert "version 1, is older than version 2, which was trusted before" in said, said
    # Another document of the same version is another document.
    third = team.delegate(root, "other", "supplier", previous=first, flags=["--hardware", HARDWARE])
    assert "version `2` exists already" in server.refused("firmware", "trust", third)


def test_only_the_release_keys_delegate_and_a_successor_root_takes_their_word_with_them(team, server):
    root = team.root("first", publics=["second"], threshold=2)
    team.verb("cosign", root, "--key", team.key("second"))
    server.cli("firmware", "trust", root)
    half = team.delegate(root, "acme", "supplier", flags=["--hardware", HARDWARE])
    assert "is one signature short: it has 1 of the 2" in server.refused("firmware", "trust", half)
    team.verb("cosign", half, "--key", team.key("second"))
    server.cli("firmware", "trust", half)
    server.cli("firmware", "add", signed(team, "lamp", "supplier"))
    thief = team.delegate(root, "thief", "thief", by=["supplier"], flags=["--hardware", HARDWARE])
    assert "which is not trusted" in server.refused("firmware", "trust", thief)
    # Keys that the root names no longer have delegated nothing.
    rotated = team.root("third", previous=root, retire=["first", "second"])
    server.cli("firmware", "trust", rotated)
    assert "which is not trusted" in server.refused("firmware", "add", signed(team, "lamp", "supplier", version="2"))
    server.cli("firmware", "trust", team.delegate(
        rotated, "acme", "supplier", by=["third"], flags=["--hardware", HARDWARE]))
    server.cli("firmware", "add", signed(team, "lamp", "supplier", version="2"))


def test_an_expired_delegation_is_none(team, server):
    root = team.root("first")
    server.cli("firmware", "trust", root)
    old = team.delegate(root, "acme", "supplier", flags=["--hardware", HARDWARE, "--expires", yesterday()])
    assert "expired at" in server.refused("firmware", "trust", old)


def test_what_cannot_be_delegated_is_refused_by_name(team):
    root = team.root("first")
    give = ["delegate", "--root", root, "--key", team.key("first"), "--out", team.home / "none.json"]

    def refused(*more):
        done = muster("firmware", *give, *more)
        assert done.returncode != 0 and "panicked" not in done.stderr, done.stdout
        return done.stderr

    pub = ["--pub", team.public("supplier")]
    assert "say what the delegate may sign" in refused("acme", *pub)
    assert "--pub" in refused("acme", "--hardware", HARDWARE)
    assert "--hardware" in refused("acme", *pub, "--hardware", "a/b")
    assert "--product" in refused("acme", *pub, "--product", "*")
    assert "role of the trust root" in refused("snapshot", *pub, "--hardware", HARDWARE)
    assert "delegate" in refused("a/b", *pub, "--hardware", HARDWARE)
    assert "only 1 keys" in refused("acme", *pub, "--hardware", HARDWARE, "--threshold", "2")
    assert "--previous" in refused("acme", "--withdraw")
    assert not (team.home / "none.json").exists()


@pytest.fixture
def lamp(house, team, stolen, fresh_name, tmp_path):
    """Starts one agent that trusts the team's key `first`; returns it and its root."""
    made = []

    def make():
        root = team.root("first")
        identity = house.device(fresh_name())
        made.append(Agent(house.server, identity, tmp_path / identity.name, "--trust", root, https_port=stolen.port))
        return made[-1], root

    yield make
    for one in made:
        one.stop()


def test_a_device_holds_a_delegate_to_its_hardware_and_products(house, team, stolen, lamp):
    device, root = lamp()

    def install(version, package):
        stolen.serve("lamp", version, *opened(package))
        return outcome(house.client, house.order(device.name, "lamp", version), device.name)

    def delegated(*flags, previous=None, keys=("supplier",), **how):
        document = team.delegate(root, "acme", *keys, previous=previous, flags=flags, **how)
        stolen.documents[TARGETS] = document.read_bytes()
        return document

    status, said = install("1.0.0", signed(team, "lamp", "supplier"))
    assert status == "REJECTED" and "which is not trusted" in said["reason"], said
    first = delegated("--hardware", HARDWARE)
    assert install("1.0.0", signed(team, "lamp", "supplier"))[0] == "SUCCEEDED"
    assert "is signed by delegate acme" in device.said()
    before = device.status()

    # A stolen server has the delegate's keys as well, and every document the team ever signed.
    second = delegated("--hardware", "board-2", previous=first)
    status, said = install("2.0.0", signed(team, "lamp", "supplier", version="2.0.0"))
    assert status == "REJECTED" and f"`{HARDWARE}/lamp/2.0.0` (hardware/name/version) is not delegated to `acme`" in said["reason"], said
    stolen.documents[TARGETS] = first.read_bytes()
    status, said = install("2.0.0", signed(team, "lamp", "supplier", version="2.0.0"))
    assert status == "REJECTED" and "is older than version 2, which was trusted before" in said["reason"], said
    del stolen.documents[TARGETS]
    status, said = install("2.0.0", signed(team, "lamp", "supplier", version="2.0.0"))
    assert status == "REJECTED" and "is not delegated to `acme`" in said["reason"], "withheld: " + str(said)
    third = delegated("--hardware", HARDWARE, "--product", "horn", previous=second)
    status, said = install("2.0.0", signed(team, "lamp", "supplier", version="2.0.0"))
    assert status == "REJECTED" and "it may sign board-1/horn/*" in said["reason"], said
    fourth = delegated("--hardware", HARDWARE, "--threshold", "2", previous=third, keys=("supplier", "other"))
    status, said = install("2.0.0", signed(team, "lamp", "supplier", version="2.0.0"))
    assert status == "REJECTED" and "signatures by keys of delegate `acme`" in said["reason"], said
    delegated("--hardware", HARDWARE, previous=fourth, by=["supplier"])
    status, said = install("2.0.0", signed(team, "lamp", "supplier", version="2.0.0"))
    assert status == "REJECTED" and "the targets document is signed by key" in said["reason"], said
    delegated("--hardware", HARDWARE, "--expires", yesterday(), previous=fourth)
    status, said = install("2.0.0", signed(team, "lamp", "supplier", version="2.0.0"))
    assert status == "REJECTED" and "expired at" in said["reason"], said
    assert device.status() == before and device.tried("2.0.0") == 0

    both = signed(team, "lamp", "supplier", "other", version="2.0.0")
    stolen.documents[TARGETS] = fourth.read_bytes()
    assert install("2.0.0", both)[0] == "SUCCEEDED", "the right one is still welcome"
    assert install("3.0.0", signed(team, "lamp", "first", version="3.0.0"))[0] == "SUCCEEDED", "and the team's own"


def test_a_device_gets_a_delegates_image_from_the_server_itself(tmp_path, fresh_name):
    home = tmp_path / "own"
    home.mkdir()
    house = House(home)
    try:
        root = house.team.home / "root-1.json"
        assert json.loads(root.read_text())["signed"]["version"] == 1
        house.server.cli("firmware", "trust", house.team.delegate(
            root, "acme", "supplier", flags=["--hardware", HARDWARE]))
        house.server.cli("firmware", "add", signed(house.team, "lamp", "supplier"))
        house.versions.add(("lamp", "1.0.0"))
        identity = house.device(fresh_name())
        device = Agent(house.server, identity, tmp_path / "state", "--trust", root)
        try:
            assert outcome(house.client, house.order(device.name, "lamp", "1.0.0"), device.name)[0] == "SUCCEEDED"
            assert "is signed by delegate acme" in device.said()
        finally:
            device.stop()
    finally:
        house.server.stop()
