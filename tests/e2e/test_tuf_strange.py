"""The agent's verifier before strange repositories: other tools' metadata, odd numbers and dates, servers that misbehave.

Together with test_tuf.py this asks of a client what the specification's public conformance suite asks, as far as it was
read: the first root and its rotations, thresholds, kinds of keys, rollback, fast-forward, expiry at other times,
delegations in their order, names that must be quoted, targets and what replaces them, metadata byte for byte."""

import http.server
import itertools
import json
import threading
import time
from urllib.parse import quote

import pytest
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, Key

from test_tuf import GENERATE, host, repo, verifier, versions  # noqa: F401 - fixtures
from tufrepo import TOP_LEVEL, Repository, Verifier, edited

BIG_BYTES = 40 << 20


def sign(repo, role, edit):  # noqa: F811
    """The role's metadata with an edit that python-tuf would not make, signed as edited."""
    body = json.loads(repo.signed(role))["signed"]
    edit(body)
    message = encode_canonical(body).encode()
    return json.dumps({"signed": body, "signatures": [s.sign(message).to_dict() for s in repo.signers[role]]}).encode()


@pytest.fixture
def raw():
    """Starts a server that answers each request as `answer(handler)` does."""
    servers = []

    def make(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        servers[-1].daemon_threads = True
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


# -- what others' tools make


def test_fields_of_other_tools_and_signatures_yet_to_come(host, tmp_path):  # noqa: F811
    """Keys with owners, roles with signing periods, an empty signature for whoever has yet to sign."""
    repo = Repository()
    repo.signers["root"], repo.root.roles["root"].keyids = [], []
    for number in range(3):
        key = CryptoSigner.generate_ecdsa()
        key.public_key.unrecognized_fields = {"x-owner": f"@person-{number}", "x-uri": "kms:projects/one/keys/two"}
        repo.add_key("root", key)
    repo.root.roles["root"].threshold = 2
    repo.root.roles["timestamp"].unrecognized_fields.update({"x-expiry-period": 7300, "x-signing-period": 1})
    repo.root.unrecognized_fields["x-signing-period"] = 60
    repo.publish("root", bump=False)
    repo.files["metadata/1.root.json"] = edited(
        repo.files["metadata/1.root.json"], lambda document: document["signatures"][0].update(sig=""))
    repo.add_target("a/file", b"content")
    repo.roles["targets"].targets["a/file"].unrecognized_fields["custom"] = {"status": "Active", "uri": None}
    repo.release()
    verifier = Verifier(tmp_path, host(repo))
    assert verifier.init(repo.files["metadata/1.root.json"]) == 0, verifier.said
    assert verifier.download("a/file") == 0, verifier.said
    assert verifier.got() == {"a/file": b"content"}


def test_a_key_id_is_a_name_and_need_not_be_a_hash(repo, verifier):  # noqa: F811
    made = CryptoSigner.generate_ecdsa()
    named = CryptoSigner(made._private_key, Key.from_dict("the key in the safe", made.public_key.to_dict()))
    repo.rotate("snapshot")
    repo.root.revoke_key(repo.signers["snapshot"].pop().public_key.keyid, "snapshot")
    repo.add_key("snapshot", named)
    repo.publish("root", "snapshot", "timestamp")
    assert verifier.refresh() == 0, verifier.said
    assert verifier.version("snapshot") == 2


@pytest.mark.parametrize("kind", GENERATE)
def test_each_kind_of_key_for_each_role(host, tmp_path, kind):  # noqa: F811
    repo = Repository()
    for role in TOP_LEVEL:
        repo.rotate(role) if role != "root" else repo.add_key("root")
    for role in ("timestamp", "snapshot", "targets"):
        repo.root.revoke_key(repo.signers[role].pop().public_key.keyid, role)
        repo.add_key(role, GENERATE[kind]())
    repo.delegate("targets", "lamps", ["lamps/*"], signer=GENERATE[kind]())
    repo.add_target("lamps/v1", b"content", "lamps")
    repo.publish("lamps", "root", bump=False)
    repo.release()
    verifier = Verifier(tmp_path, host(repo))
    assert verifier.init(repo.latest("root")) == 0, verifier.said
    assert verifier.download("lamps/v1") == 0, verifier.said


def test_a_key_in_another_kinds_clothes_counts_for_nothing(repo, verifier):  # noqa: F811
    rsa = CryptoSigner.generate_rsa().public_key
    for number, (kind, scheme) in enumerate(
            [("ed25519", "ecdsa-sha2-nistp256"), ("ecdsa", "ed25519"), ("rsa", "ed25519"), ("rsa", ""), ("", "")]):
        def edit(root):
            key = root["keys"][root["roles"]["snapshot"]["keyids"][0]]
            key.update(keytype=kind, scheme=scheme)
            if kind == "rsa":
                key["keyval"] = rsa.to_dict()["keyval"]

        repo.publish_root_as(edit)
        repo.publish("snapshot", "timestamp")
        assert verifier.refresh() == 1 and "snapshot metadata is signed by 0 of the 1" in verifier.said, (kind, scheme)
        assert verifier.version("root") == number + 2 and verifier.version("snapshot") is None


# -- numbers, dates and forms that cannot be


def not_a_number(what):
    return lambda body: body.update(version=what)


@pytest.mark.parametrize("edit", [
    *(not_a_number(what) for what in (0, -1, 2**64, "2", None, True, [2])),
    *((lambda spec: lambda body: body.update(spec_version=spec))(spec) for spec in ("2.0.0", "0.9", "", None, "one")),
    *((lambda date: lambda body: body.update(expires=date))(date) for date in (
        "2099-13-01T00:00:00Z", "2099-01-01", "2099-01-01T00:00:00", "", 4070908800, None, "2099-02-30T00:00:00Z")),
    lambda body: body.pop("meta"), lambda body: body.update(meta=[]), lambda body: body.update(meta={}),
    lambda body: body["meta"].update({"snapshot.json": {}}), lambda body: body["meta"].update({"snapshot.json": {"version": -1}}),
    lambda body: body.update(_type="Timestamp"), lambda body: body.pop("_type"),
], ids=itertools.count())
def test_a_signed_timestamp_that_makes_no_sense_is_refused_and_the_old_one_stays(repo, verifier, edit):  # noqa: F811
    assert verifier.refresh() == 0, verifier.said
    kept = (verifier.metadata / "timestamp.json").read_bytes()
    repo.roles["timestamp"].version = 2
    repo.files["metadata/timestamp.json"] = sign(repo, "timestamp", edit)
    assert verifier.refresh() == 1 and "timestamp" in verifier.said, verifier.said
    assert (verifier.metadata / "timestamp.json").read_bytes() == kept
    repo.publish("timestamp")
    assert verifier.refresh() == 0, "and the next good one is taken"


@pytest.mark.parametrize("spec", ["1.0.0", "1.0.31", "1.0.99", "1.7.0"])
def test_any_1_x_of_the_specification_will_do(repo, verifier, spec):  # noqa: F811
    repo.roles["timestamp"].version = 2
    repo.files["metadata/timestamp.json"] = sign(repo, "timestamp", lambda body: body.update(spec_version=spec))
    assert verifier.refresh() == 0, verifier.said
    assert verifier.version("timestamp") == 2


@pytest.mark.parametrize("edit", [
    lambda root: root["roles"]["timestamp"].update(threshold=0),
    lambda root: root["roles"]["timestamp"].update(threshold=-1),
    lambda root: root["roles"].pop("targets"),
    lambda root: root.pop("keys"),
    lambda root: root.update(version=1),
    lambda root: root.update(version=3),
], ids=range(6))
def test_a_signed_root_that_makes_no_sense_is_not_followed(repo, verifier, edit):  # noqa: F811
    repo.publish_root_as(edit)
    assert verifier.refresh() == 1
    assert verifier.trusted() == versions(root=1)


def test_a_targets_list_of_which_one_entry_makes_no_sense(repo, verifier):  # noqa: F811
    for wrong in ({"length": -1, "hashes": {"sha256": "00" * 32}}, {"length": 1}, {"length": 1, "hashes": {}}, None):
        repo.roles["targets"].version += 1
        name = repo.name("targets")
        repo.files[name] = sign(repo, "targets", lambda body: body["targets"].update({"file": wrong}))
        repo.roles["snapshot"].meta["targets.json"].version = repo.roles["targets"].version
        repo.publish("snapshot", "timestamp")
        assert verifier.download("file") == 1, wrong
        assert verifier.got() == {}


# -- servers that misbehave


def test_a_repository_may_lie_below_a_path_that_is_quoted(repo, host, tmp_path):  # noqa: F811
    below = quote("a test[of/strange names?]", "")
    repo.add_target("dir/file", b"content")
    repo.release()
    repo.files = {f"{below}/{name}": data for name, data in repo.files.items()}
    verifier = Verifier(tmp_path, f"{host(repo)}/{below}")
    assert verifier.init(repo.files[f"{below}/metadata/1.root.json"]) == 0
    assert verifier.download("dir/file") == 0, verifier.said
    assert verifier.got() == {"dir/file": b"content"}


@pytest.mark.parametrize("what", ["hangs up", "says nothing whole", "sends elsewhere", "fails", "is no http"])
def test_a_server_that_does_not_answer_properly_changes_nothing(repo, verifier, raw, what):  # noqa: F811
    assert verifier.refresh() == 0
    before, good = verifier.trusted(), verifier.url
    asked = []

    def answer(handler):
        asked.append(handler.path)
        if what == "hangs up":
            handler.connection.close()
        elif what == "says nothing whole":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b"{")
        elif what == "sends elsewhere":
            handler.send_response(302)
            handler.send_header("Location", f"{good}{handler.path}")
            handler.end_headers()
        elif what == "fails":
            handler.send_error(500)
        else:
            handler.wfile.write(b"\x15\x03\x01\x00\x02\x02\x28")

    verifier.url = raw(answer)
    repo.asked.clear()
    began = time.monotonic()
    assert verifier.refresh() == 1, verifier.said
    assert verifier.trusted() == before and repo.asked == [] and asked
    assert time.monotonic() - began < 60
    verifier.url = good
    assert verifier.refresh() == 0


@pytest.mark.parametrize("what", ["metadata", "targets"])
def test_a_server_that_drips_is_given_up(repo, verifier, raw, what):  # noqa: F811
    content = b"x" * 100_000
    repo.add_target("file", content)
    repo.release()
    good, dripped = verifier.url, []

    def answer(handler):
        name = handler.path.lstrip("/")
        found = repo.files.get(name)
        if found is None:
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(found)))
        handler.end_headers()
        if not name.startswith(what):
            handler.wfile.write(found)
            return
        try:
            for byte in found:
                handler.wfile.write(bytes([byte]))
                dripped.append(byte)
                time.sleep(0.1)
        except OSError:
            pass  # it has heard enough

    verifier.url = raw(answer)
    # A minute is a second to it, and five are five.
    assert verifier.download("file", hurry=60) == 1
    assert "too slow" in verifier.said and 0 < len(dripped) < 1000, verifier.said
    assert verifier.got() == {}
    verifier.url = good
    assert verifier.download("file") == 0 and verifier.got() == {"file": content}


def test_a_large_target_comes_as_a_stream(repo, verifier):  # noqa: F811
    content = bytes(range(256)) * (BIG_BYTES // 256)
    repo.add_target("images/large", content)
    repo.release()
    assert verifier.download("images/large") == 0, verifier.said
    assert verifier.got()["images/large"] == content


def test_what_a_repository_replaces_behind_the_metadata_is_not_taken(repo, verifier):  # noqa: F811
    """Version upon version, some unseen, each followed by a file that nobody signed."""
    for number in range(6):
        kept = repo.add_target("firmware", b"firmware %d" % number)
        repo.add_target(f"extra-{number}", b"extra %d" % number)
        repo.release()
        if number % 2:
            continue
        assert verifier.download("firmware", f"extra-{number}") == 0, verifier.said
        repo.files.update({name: b"nobody signed %d" % number for name in repo.target_names("firmware", kept)})
        repo.release()
        verifier.download("firmware")
        assert verifier.got()["firmware"] == b"firmware %d" % number
    assert set(verifier.got()) == {"firmware", "extra-0", "extra-2", "extra-4"}


def test_metadata_kept_from_before_is_judged_anew(repo, verifier):  # noqa: F811
    """What lies in the directory is no more believed than what comes over the network."""
    assert verifier.refresh() == 0
    for role in ("timestamp", "snapshot", "targets"):
        path = verifier.metadata / f"{role}.json"
        good = path.read_bytes()
        for bad in (b"", b"{", good[:-30], edited(good, lambda body: body["signed"].update(version=99))):
            path.write_bytes(bad)
            assert verifier.refresh() == 0, (role, bad[:40], verifier.said)
            assert path.read_bytes() == good
