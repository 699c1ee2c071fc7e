"""Who did what: written with the change, read by those who may, and found out where somebody changed it."""

import json
import time

import pytest
from cryptography import x509

import api
from devices import eventually
from server import muster


@pytest.fixture
def as_operator(server, tmp_path):
    """Runs verbs as an operator of this role."""

    def make(name, role):
        server.cli("operator", "create", name, "--role", role, "--out", str(tmp_path / name))
        return lambda *words: muster("--credentials", tmp_path / name / f"{name}.credentials", *words)

    return make


def shown(server, *which):
    return server.json("log", "show", *which)["entries"]


def serial(entry):
    return int(entry["serialNumber"].replace(":", ""), 16)


def test_who_revoked_this(server, tmp_path, as_operator):
    eve, ada = as_operator("eve", "operator"), as_operator("ada", "viewer")
    lamp = server.device("lamp")
    number = x509.load_pem_x509_certificate(lamp.certificate.read_bytes()).serial_number
    assert eve("device", "revoke", "lamp", "--reason", "keyCompromise", "--yes").returncode == 0
    revoked, made = shown(server, "--device", "lamp")
    assert (revoked["by"], revoked["name"], revoked["what"], revoked["outcome"]) == ("operator", "eve", "revoked", "done")
    assert revoked["reason"] == "keyCompromise" and revoked["address"] in ("127.0.0.1", "::1")
    assert (made["name"], made["what"], made["way"]) == ("admin", "issued", "operator")
    assert serial(revoked) == serial(made) == number and revoked["certificateId"] == lamp.id
    assert abs(revoked["at"] - time.time()) < 600
    line = server.said("certificate revoked")
    assert "eve" in line and revoked["serialNumber"] in line and "keyCompromise" in line and "lamp" in line
    assert [e["number"] for e in shown(server, "--certificate", lamp.id)] == [revoked["number"], made["number"]]
    assert [e["number"] for e in shown(server, "--operator", "eve")] == [revoked["number"]]
    assert shown(server, "--since", "1h", "--until", "2001-01-01T00:00:00Z") == []
    told = server.cli("log", "show", "--device", "lamp")
    assert "eve" in told and "keyCompromise" in told

    # What was tried and may not be, by whom it is known and by whom it is not.
    assert ada("group", "create", "hall").returncode != 0 and ada("log", "show").returncode != 0
    assert api.send(server, "POST", "/things/x")[0] == 403
    denied = shown(server, "--outcome", "denied")
    assert [(e["by"], e.get("name"), e["operation"]) for e in denied] == [
        ("stranger", None, "CreateThing"), ("operator", "ada", "ShowLog"), ("operator", "ada", "CreateThingGroup")]
    # And what was refused for another reason.
    server.refused("device", "revoke", "nobody", "--yes")
    refused = shown(server, "--outcome", "refused")[0]
    assert (refused["name"], refused["code"]) == ("admin", "ResourceNotFoundException")


def test_what_is_no_row_of_the_registry_is_recorded_too_and_secrets_are_not(server, tmp_path):
    server.cli("operator", "create", "bob", "--role", "operator", "--out", str(tmp_path / "bob"))
    password = server.json("device", "enrol-password", "lamp")["password"]
    key = (tmp_path / "bob/bob.credentials").read_text()
    server.cli("group", "create", "hall")
    server.cli("policy", "list")
    entries = shown(server)
    assert {"CreateOperator", "MakeEnrolmentPassword", "CreateThingGroup"} <= {e["operation"] for e in entries}
    assert not {"ListPolicies", "ShowLog"} & {e["operation"] for e in entries}
    assert {"name": "bob", "role": "operator"}.items() <= next(e for e in entries if e["operation"] == "CreateOperator")["targets"].items()
    text = json.dumps(entries) + server.stderr()
    secrets = [line.split("=", 1)[1].strip() for line in key.splitlines() if "secret" in line]
    assert secrets and password and not any(secret in text for secret in [*secrets, password])


def test_the_record_survives_a_kill_and_tells_what_was_changed_in_it(server):
    for number in range(3):
        server.cli("group", "create", f"g{number}")
    server.kill9()
    server.start()
    names = [e["targets"].get("thingGroupName") for e in shown(server, "--operation", "CreateThingGroup")]
    assert names == ["g2", "g1", "g0"]

    def verified(*words):
        done = server.run("log", "verify", "--json", *words)
        return done.returncode, json.loads(done.stdout)

    eventually(lambda: verified()[1]["unchained"] == 0, "all of it is chained")
    code, found = verified()
    assert (code, found["wrong"]) == (0, []) and found["entries"] >= 3
    head = f"{found['upto']}:{found['hash']}"
    server.cli("group", "create", "later")
    assert verified("--head", head)[0] == 0
    other = f"{found['upto']}:{'0' * 64}"
    code, found = verified("--head", other)
    assert code == 3 and len(found["wrong"]) == 1
    assert "NUMBER:HASH" in server.refused("log", "verify", "--head", "nonsense")


def test_pages_of_the_record_lead_through_all_of_it(server):
    for number in range(7):
        server.cli("group", "create", f"g{number}")
    entries, token = [], ""
    while True:
        status, _, page = api.call(server, "GET", "/muster/v1/log?maxResults=3&operation=CreateThingGroup" + token)
        assert status == 200, page
        entries += page["entries"]
        if "nextToken" not in page:
            break
        token = "&nextToken=" + page["nextToken"].replace("=", "%3D").replace("+", "%2B").replace("/", "%2F")
    assert [e["targets"]["thingGroupName"] for e in entries] == [f"g{n}" for n in reversed(range(7))]
    for query in ("since=yesterday", "outcome=lost", "certificate=x", "nextToken=x"):
        assert api.call(server, "GET", f"/muster/v1/log?{query}")[0] == 400, query
