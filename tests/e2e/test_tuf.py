"""The agent's verifier against a TUF repository by python-tuf: what it believes, what it keeps, what it asks for."""

import datetime
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Key, MetaFile, TargetFile

from pki import SERVER, Signer, forge
from tufrepo import TOP_LEVEL, Host, Repository, Verifier, ago, copy_of, edited, now

GENERATE = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "rsa-pss": CryptoSigner.generate_rsa,
    "rsa-pkcs1v15": lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256"),
}
SNAPSHOT_BYTES_MAX, ROOTS_AT_ONCE, ROLES_MAX = 2_000_000, 256, 32


@pytest.fixture
def host():
    hosts = []

    def make(repository, identity=None):
        hosts.append(Host(repository, identity))
        return hosts[-1].url

    yield make
    for one in hosts:
        one.close()


@pytest.fixture
def repo():
    return Repository()


@pytest.fixture
def verifier(repo, host, tmp_path):
    """A verifier that trusts the repository's first root and has asked for nothing yet."""
    made = Verifier(tmp_path, host(repo))
    assert made.init(repo.files["metadata/1.root.json"]) == 0, made.said
    return made


def versions(**roles):
    return {f"{role}.json": version for role, version in roles.items()}


# -- the good way


def test_refresh_asks_for_what_it_needs_and_keeps_it_byte_for_byte(repo, verifier):
    repo.files["metadata/timestamp.json"] += b" \n"
    assert verifier.refresh() == 0, verifier.said
    asked = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    assert repo.asked == [f"metadata/{name}" for name in asked]
    assert {path.name for path in verifier.metadata.iterdir()} == {f"{role}.json" for role in TOP_LEVEL}
    for role in TOP_LEVEL:
        assert (verifier.metadata / f"{role}.json").read_bytes() == repo.latest(role)
    repo.asked.clear()
    assert verifier.refresh() == 0
    assert repo.roles_asked() == ["root", "timestamp"], "nothing is new, nothing more is fetched"


def test_download_refreshes_first(repo, verifier):
    assert verifier.download("none") == 1
    assert "there is no target `none`" in verifier.said
    assert repo.roles_asked() == ["root", "timestamp", "snapshot", "targets"]
    assert verifier.trusted() == versions(root=1, timestamp=1, snapshot=1, targets=1)


@pytest.mark.parametrize("consistent", [True, False])
def test_targets_lie_at_their_paths_and_are_fetched_once(host, tmp_path, consistent):
    repo = Repository(consistent)
    repo.add_target("firmware.bin", b"one")
    repo.add_target("lamps/v1/firmware.bin", b"two")
    repo.release()
    verifier = Verifier(tmp_path, host(repo))
    assert verifier.init(repo.files["metadata/1.root.json"]) == 0
    assert verifier.download("firmware.bin", "lamps/v1/firmware.bin") == 0, verifier.said
    assert verifier.got() == {"firmware.bin": b"one", "lamps/v1/firmware.bin": b"two"}
    assert str(verifier.targets / "lamps/v1/firmware.bin") in verifier.said
    repo.asked.clear()
    assert verifier.download("lamps/v1/firmware.bin", "firmware.bin") == 0
    assert not [name for name in repo.asked if name.startswith("targets/")]
    (verifier.targets / "firmware.bin").write_bytes(b"eno")
    assert verifier.download("firmware.bin") == 0
    assert verifier.got()["firmware.bin"] == b"one", "same length, another hash: fetched again"
    repo.add_target("firmware.bin", b"the next one")
    repo.release()
    assert verifier.download("firmware.bin") == 0
    assert verifier.got()["firmware.bin"] == b"the next one"


@pytest.mark.parametrize("hashes", [("sha256",), ("sha512",), ("sha256", "sha512")])
def test_targets_by_several_hashes(repo, verifier, hashes):
    repo.add_target("a/b", b"content", hashes=hashes)
    repo.release()
    assert verifier.download("a/b") == 0, verifier.said
    assert verifier.got() == {"a/b": b"content"}


@pytest.mark.parametrize("names", [
    ("lamp", "lamp 2.bin"), ("fw", "fw!"), ('a"b', "a#b"), ("a\\b", "a]b"), ("a", "a\tb"), ("cafe\u0301", "caf\u00e9"),
])
def test_names_are_signed_in_the_order_and_the_form_that_others_sign_them_in(repo, verifier, names):
    for name in names:
        repo.add_target(name, name.encode(), custom={key: 1 for key in names})
    repo.delegate("targets", "acme", ["acme/*"])
    repo.delegate("targets", "acme 2", ["acme 2/*"])
    repo.release("acme", "acme 2", "targets")
    assert verifier.download(*names) == 0, verifier.said
    assert sorted(verifier.got().values()) == sorted(name.encode() for name in names)


def test_a_repository_over_https_is_known_by_its_ca(repo, host, tmp_path):
    repo.add_target("firmware", b"content")
    repo.release()
    signers = [Signer.foreign(), Signer.foreign()]
    roots = [tmp_path / "root.crt", tmp_path / "other.crt"]
    for signer, path in zip(signers, roots):
        path.write_bytes(signer.certificate.public_bytes(Encoding.PEM))
    verifier = Verifier(tmp_path, host(repo, forge(tmp_path, "localhost", signers[0], roots[0], usage=SERVER)))
    assert verifier.init(repo.files["metadata/1.root.json"]) == 0
    assert verifier.refresh() == 1 and "--ca" in verifier.said
    verifier.ca = roots[1]
    assert verifier.refresh() == 1 and repo.asked == [], verifier.said
    verifier.ca = roots[0]
    assert verifier.download("firmware") == 0, verifier.said
    assert verifier.got() == {"firmware": b"content"}


def test_unknown_fields_are_signed_for_and_otherwise_nothing(repo, verifier):
    key = CryptoSigner.generate_ecdsa()
    key.public_key.unrecognized_fields = {"keyid_hash_algorithms": ["md5"], "extra": {"a": 1}}
    repo.root.unrecognized_fields["note"] = "ünicode \"quoted\" \\ back"
    repo.root.roles["snapshot"].unrecognized_fields["more"] = [1, None, True]
    repo.add_key("snapshot", key)
    repo.publish("root", "snapshot", "timestamp")
    assert verifier.refresh() == 0, verifier.said
    assert verifier.trusted() == versions(root=2, timestamp=2, snapshot=2, targets=1)


# -- the first root


def test_a_first_root_must_be_whole_and_signed(repo, host, tmp_path):
    root = repo.files["metadata/1.root.json"]
    other = Repository().files["metadata/1.root.json"]
    bad = [
        edited(root, lambda document: document["signed"].pop("version")),
        edited(root, lambda document: document["signatures"][0].update(sig="00" * 64)),
        edited(root, lambda document: document["signed"].update(version=2)),
        repo.latest("targets"), b"", b"{", b"[]", b"\xff",
    ]
    for number, given in enumerate(bad):
        home = tmp_path / str(number)
        home.mkdir()
        verifier = Verifier(home, host(repo))
        assert verifier.init(given) == 1, given[:80]
        assert verifier.refresh() == 1 and "no root is trusted yet" in verifier.said
        # One that got there some other way is not believed either.
        (verifier.metadata / "root.json").write_bytes(given)
        assert verifier.refresh() == 1 and repo.asked == []
    verifier = Verifier(tmp_path, host(repo))
    assert verifier.init(root) == 0 and verifier.init(root) == 0
    assert verifier.init(other) == 1 and "trusts another root" in verifier.said
    assert (verifier.metadata / "root.json").read_bytes() == root
    repo.publish("root")
    assert verifier.refresh() == 0 and verifier.init(root) == 0
    assert verifier.version("root") == 2, "an older root given again takes nothing back"


def test_what_a_verb_lacks_is_named(verifier):
    assert verifier.run("refresh") == 1 and "--metadata-url" in verifier.said
    assert verifier.run("--metadata-url", verifier.url, "download") == 1 and "--target-name" in verifier.said
    assert verifier.run("--metadata-url", "https://localhost/", "refresh") == 1 and "--ca" in verifier.said
    assert verifier.run("--metadata-url", "ftp://localhost/", "refresh") == 1


# -- signatures


@pytest.mark.parametrize("role, kept", [
    ("root", versions(root=1)),
    ("timestamp", versions(root=2)),
    ("snapshot", versions(root=2, timestamp=2)),
    ("targets", versions(root=2, timestamp=2, snapshot=2)),
])
def test_what_is_not_signed_is_refused_and_what_was_verified_before_stays(repo, verifier, role, kept):
    repo.signers[role] = [CryptoSigner.generate_ed25519()]
    repo.publish("root", "targets", "snapshot", "timestamp")
    assert verifier.refresh() == 1
    assert f"{role} metadata is signed by 0 of the 1" in verifier.said
    assert verifier.trusted() == kept


@pytest.mark.parametrize("kind", GENERATE)
def test_kinds_of_keys(repo, verifier, kind):
    signer = GENERATE[kind]()
    repo.add_key("root", signer)
    repo.root.roles["root"].threshold = 2
    repo.publish("root")
    assert verifier.refresh() == 0, verifier.said
    assert verifier.version("root") == 2

    repo.publish("root")
    sound = repo.latest("root")

    def other_signature(document):
        for signature in document["signatures"]:
            if signature["keyid"] == signer.public_key.keyid:
                signature["sig"] = signer.sign(b"something else").signature

    repo.files["metadata/3.root.json"] = edited(sound, other_signature)
    assert verifier.refresh() == 1 and "1 of the 2" in verifier.said
    assert verifier.version("root") == 2
    repo.files["metadata/3.root.json"] = sound
    assert verifier.refresh() == 0 and verifier.version("root") == 3


def test_a_threshold_counts_keys_not_ids(repo, verifier):
    key = repo.signers["snapshot"][0]
    twin = CryptoSigner(key._private_key, Key.from_dict("twin", copy_of(key.public_key).to_dict()))
    repo.root.roles["snapshot"].threshold = 2
    repo.add_key("snapshot", twin)
    repo.publish("root", "snapshot", "timestamp")
    assert len(json.loads(repo.latest("snapshot"))["signatures"]) == 2
    assert verifier.refresh() == 1 and "snapshot metadata is signed by 1 of the 2" in verifier.said
    assert verifier.trusted() == versions(root=2, timestamp=2)
    repo.add_key("snapshot")
    repo.publish("root", "snapshot", "timestamp")
    assert verifier.refresh() == 0, verifier.said


def test_a_threshold_that_cannot_be_met_is_not_met(repo, verifier):
    for _ in range(4):
        repo.add_key("snapshot")
    repo.root.roles["snapshot"].threshold = 6
    repo.publish("root", "snapshot", "timestamp")
    assert verifier.refresh() == 1 and "5 of the 6" in verifier.said
    # A key that the root does not hold does not help, nor does one that no signature is by.
    repo.root.roles["snapshot"].keyids.append("nobody")
    repo.publish("root")
    assert verifier.refresh() == 1
    assert verifier.trusted() == versions(root=3, timestamp=2)


def test_two_signatures_under_one_id_are_refused(repo, verifier):
    name = "metadata/1.snapshot.json"
    sound = repo.files[name]
    repo.files[name] = edited(sound, lambda document: document["signatures"].append(document["signatures"][0]))
    assert verifier.refresh() == 1 and "two signatures" in verifier.said
    assert verifier.trusted() == versions(root=1, timestamp=1)
    repo.files[name] = sound
    assert verifier.refresh() == 0


def test_one_id_many_times_in_a_role_is_one_key(repo, verifier):
    signer = repo.add_key("snapshot")
    def edit(root):
        root["roles"]["snapshot"] = {"keyids": [signer.public_key.keyid] * 9, "threshold": 6}

    repo.publish_root_as(edit)
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 1
    assert verifier.version("snapshot") is None


def test_a_signature_too_many_that_is_bad_does_no_harm(repo, verifier):
    repo.add_key("timestamp")
    repo.publish("root", "timestamp")
    for sig in ("00" * 64, "", "no hex"):
        repo.publish("timestamp")
        repo.files["metadata/timestamp.json"] = edited(
            repo.latest("timestamp"), lambda document: document["signatures"][0].update(sig=sig))
        assert verifier.refresh() == 0, verifier.said
        assert verifier.version("timestamp") == repo.roles["timestamp"].version


def test_a_key_of_an_unknown_kind_is_passed_over(repo, verifier):
    def edit(root):
        root["keys"]["new"] = {"keytype": "from-the-future", "scheme": "unknown", "keyval": {"public": "00"}}
        root["roles"]["timestamp"]["keyids"].append("new")

    repo.publish_root_as(edit)
    assert verifier.refresh() == 0, verifier.said
    assert verifier.version("root") == 2


# -- rotation: per version the keys, the threshold and who signs; a last one that must be refused is marked

ROTATIONS = {
    "to a new key, signed by both": ([([1], 1, [1]), ([2], 1, [2, 1]), ([2], 1, [2])], True),
    "with signatures by strangers": ([([1], 1, [3, 1, 4]), ([2], 1, [3, 2, 1, 4]), ([2], 1, [3, 2, 4])], True),
    "by different threes of five": (
        [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 2, 3, 4], 3, [4, 1, 0]), ([0, 1, 2, 3, 4], 3, [1, 2, 3])], True),
    "of one key of five": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 1])], True),
    "of all keys": (
        [([0, 1, 2], 2, [0, 1]), ([5, 6, 7], 2, [0, 1, 5, 6]), ([5, 6, 7], 2, [6, 7])], True),
    "of the threshold upwards": ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2])], True),
    "of the threshold downwards": ([([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1, 2]), ([1, 2, 3], 1, [3])], True),
    "not signed by the old key": ([([1], 1, [1]), ([2], 1, [2, 3, 4])], False),
    "not signed by the new key": ([([1], 1, [1]), ([2], 1, [1, 3, 4])], False),
    "short of the new threshold": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4])], False),
    "short of the old threshold": ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 5])], False),
    "upwards without the second": ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2])], False),
    "downwards by one alone": ([([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1])], False),
}
KEYS = [CryptoSigner.generate_ed25519() for _ in range(10)]


def give(repo, role, keys, threshold, signers):
    repo.root.roles[role].keyids.clear()
    for number in keys:
        repo.root.add_key(KEYS[number].public_key, role)
    repo.root.roles[role].threshold = threshold
    repo.signers[role] = [KEYS[number] for number in signers]


@pytest.mark.parametrize("history, good", ROTATIONS.values(), ids=ROTATIONS)
def test_root_rotation(host, tmp_path, history, good):
    repo = Repository()
    for version, entry in enumerate(history, 1):
        give(repo, "root", *entry)
        repo.root.version = version
        repo.publish("root", bump=False)
    verifier = Verifier(tmp_path, host(repo))
    assert verifier.init(repo.files["metadata/1.root.json"]) == 0, verifier.said
    assert verifier.refresh() == (0 if good else 1), verifier.said
    last = len(history) if good else len(history) - 1
    assert (verifier.metadata / "root.json").read_bytes() == repo.files[f"metadata/{last}.root.json"]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("keys, threshold, signers, good", [
    ([2], 1, [2], True), ([1], 1, [3, 1, 4], True), ([0, 1, 2, 3, 4], 3, [0, 4, 1], True),
    ([0, 1, 2, 3, 4], 3, [2, 3, 4], True), ([2], 1, [1, 3, 4], False),
    ([0, 1, 3, 4, 5], 3, [0, 2, 4], False), ([0, 1, 3, 4, 5], 3, [0, 4], False),
])
def test_rotation_of_other_roles(repo, verifier, role, keys, threshold, signers, good):
    give(repo, role, keys, threshold, signers)
    repo.publish("root", "targets", "snapshot", "timestamp")
    assert verifier.refresh() == (0 if good else 1), verifier.said
    assert verifier.version("root") == 2
    assert verifier.version(role) == (2 if good else None)


def test_roots_are_followed_in_bounded_strides(repo, verifier):
    for _ in range(ROOTS_AT_ONCE + 10):
        repo.publish("root")
    assert verifier.refresh() == 0, verifier.said
    assert verifier.version("root") == 1 + ROOTS_AT_ONCE
    assert verifier.refresh() == 0
    assert verifier.version("root") == repo.root.version


# -- going back, and mixing


@pytest.mark.parametrize("role, kept", [
    ("root", versions(root=1)),
    ("snapshot", versions(root=2, timestamp=2)),
    ("targets", versions(root=2, timestamp=2, snapshot=2)),
])
def test_a_version_other_than_announced_is_refused(repo, verifier, role, kept):
    repo.publish("root", "targets", "snapshot", "timestamp")
    repo.roles[role].version += 1
    repo.files[repo.name(role, 2)] = repo.signed(role)
    assert verifier.refresh() == 1 and "has version 3 where version 2 was announced" in verifier.said
    assert verifier.trusted() == kept


def test_the_timestamp_does_not_go_back(repo, verifier):
    first = repo.latest("timestamp")
    repo.publish("timestamp")
    assert verifier.refresh() == 0
    repo.files["metadata/timestamp.json"] = first
    repo.asked.clear()
    assert verifier.refresh() == 1 and "went back to version 1" in verifier.said
    assert verifier.version("timestamp") == 2 and repo.roles_asked()[-1] == "timestamp"


def test_a_timestamp_of_the_same_version_changes_nothing(repo, verifier):
    assert verifier.refresh() == 0
    kept = (verifier.metadata / "timestamp.json").read_bytes()
    repo.roles["timestamp"].snapshot_meta.version = 100
    repo.publish("timestamp", bump=False)
    repo.asked.clear()
    assert verifier.refresh() == 0 and repo.roles_asked() == ["root", "timestamp"]
    assert (verifier.metadata / "timestamp.json").read_bytes() == kept


@pytest.mark.parametrize("hashes", [False, True])
def test_the_snapshot_does_not_go_back(repo, verifier, hashes):
    repo.with_hashes = hashes
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 0
    repo.roles["snapshot"].version = 1
    repo.publish("snapshot", bump=False)
    repo.publish("timestamp")
    assert verifier.refresh() == 1
    assert verifier.trusted() == versions(root=1, timestamp=2, snapshot=2, targets=1)


@pytest.mark.parametrize("hashes", [False, True])
def test_targets_do_not_go_back_and_are_not_withdrawn(repo, verifier, hashes):
    repo.with_hashes = hashes
    repo.delegate("targets", "lamps")
    repo.publish("lamps")
    repo.release()
    assert verifier.refresh() == 0
    before = verifier.trusted()
    listed = copy_of(repo.roles["snapshot"].meta)
    repo.roles["targets"].version = 1
    repo.publish("targets", bump=False)
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 1 and "`targets.json` went back to version 1" in verifier.said
    assert verifier.trusted() == {**before, **versions(timestamp=3)}
    repo.roles["snapshot"].meta = {"targets.json": listed["targets.json"]}
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 1 and "no longer lists `lamps.json`" in verifier.said
    repo.roles["snapshot"].meta = listed
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 0, verifier.said


@pytest.mark.parametrize("ahead, rotated", [
    ("timestamp", ["timestamp"]), ("snapshot", ["snapshot", "timestamp"]), ("snapshot", ["snapshot"]),
    ("targets", ["snapshot"]),
])
def test_rotated_keys_undo_a_version_run_ahead(repo, verifier, ahead, rotated):
    repo.roles[ahead].version = 2**40
    repo.publish("targets", "snapshot", "timestamp")
    assert verifier.refresh() == 0, verifier.said
    assert verifier.version(ahead) > 2**40
    for role in rotated:
        repo.rotate(role)
    repo.roles[ahead].version = 1
    repo.publish("root", "targets", "snapshot", "timestamp")
    assert verifier.refresh() == 0, verifier.said
    assert verifier.version(ahead) == 2


def test_metadata_of_another_role_is_refused(repo, verifier):
    # A snapshot that reads like a timestamp, signed by the timestamp's key.
    repo.signers["snapshot"] = repo.signers["timestamp"]
    repo.roles["snapshot"].meta = {"snapshot.json": MetaFile(1)}
    repo.roles["snapshot"].version = 2
    repo.files["metadata/timestamp.json"] = repo.signed("snapshot")
    assert verifier.refresh() == 1 and "`_type` is `snapshot`" in verifier.said
    assert verifier.trusted() == versions(root=1)


def test_hashes_and_lengths_of_metadata_count(repo, verifier):
    repo.with_hashes = True
    repo.release()
    assert verifier.refresh() == 0, verifier.said
    for change in (
        lambda meta: meta.hashes.update(sha256="00" * 32),
        lambda meta: setattr(meta, "length", meta.length - 1),
        lambda meta: setattr(meta, "length", meta.length + 1),
        lambda meta: setattr(meta, "hashes", {"unknown": "00"}),
    ):
        repo.publish("targets")
        change(repo.roles["snapshot"].meta["targets.json"])
        repo.publish("snapshot", "timestamp")
        assert verifier.refresh() == 1, verifier.said
        assert verifier.version("snapshot") == repo.roles["snapshot"].version
        assert verifier.version("targets") == 2


# -- what is not there, or does not end


def test_what_is_missing_is_named_and_the_rest_stays(repo, verifier):
    assert verifier.refresh() == 0
    repo.roles["timestamp"].snapshot_meta.version = 2
    repo.publish("timestamp")
    assert verifier.refresh() == 1 and "no `2.snapshot.json`" in verifier.said
    assert verifier.trusted() == versions(root=1, timestamp=2, snapshot=1, targets=1)
    repo.roles["snapshot"].meta["targets.json"].version = 2
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 1 and "no `2.targets.json`" in verifier.said
    assert verifier.trusted() == versions(root=1, timestamp=3, snapshot=2, targets=1)
    del repo.files["metadata/timestamp.json"]
    assert verifier.refresh() == 1 and "no `timestamp.json`" in verifier.said
    repo.publish("targets", "timestamp")
    assert verifier.refresh() == 0, "what was interrupted is taken up"
    assert verifier.trusted() == versions(root=1, timestamp=4, snapshot=2, targets=2)


def test_nothing_is_read_without_end(repo, verifier):
    sound = repo.latest("timestamp")
    repo.files["metadata/timestamp.json"] = sound + b" " * 20_000
    assert verifier.refresh() == 1 and "longer than the 16384 bytes" in verifier.said
    repo.files["metadata/2.root.json"] = b" " * 1_000_000
    assert verifier.refresh() == 1 and "longer than" in verifier.said
    del repo.files["metadata/2.root.json"]
    # An announced length does not lift the bound.
    repo.with_hashes = True
    repo.publish("snapshot")
    repo.roles["timestamp"].snapshot_meta.length = SNAPSHOT_BYTES_MAX + 1
    repo.publish("timestamp")
    repo.asked.clear()
    assert verifier.refresh() == 1 and "longer than" in verifier.said
    assert repo.roles_asked() == ["root", "timestamp"]


# -- expiry


@pytest.mark.parametrize("role, kept", [
    ("root", versions(root=2, timestamp=1, snapshot=1, targets=1)),
    ("timestamp", versions(root=2, timestamp=1, snapshot=1, targets=1)),
    ("snapshot", versions(root=2, timestamp=2, snapshot=1, targets=1)),
    ("targets", versions(root=2, timestamp=2, snapshot=2, targets=1)),
])
def test_what_has_expired_is_refused(repo, verifier, role, kept):
    assert verifier.refresh() == 0
    repo.roles[role].expires = ago(days=1)
    repo.publish("root", "targets", "snapshot", "timestamp")
    assert verifier.refresh() == 1 and f"{role} metadata version 2 expired at" in verifier.said
    assert verifier.trusted() == kept


def test_an_expired_root_is_followed_to_one_that_has_not(repo, verifier):
    later = repo.root.expires
    repo.root.expires = ago(days=1)
    repo.publish("root")
    repo.root.expires = later
    repo.publish("root")
    assert verifier.refresh() == 0, verifier.said
    assert verifier.version("root") == 3


def test_a_frozen_view_ends_with_its_expiry(repo, verifier):
    repo.roles["timestamp"].expires = now() + datetime.timedelta(days=7)
    repo.publish("timestamp", bump=False)
    assert verifier.refresh() == 0
    late = now() + datetime.timedelta(days=18)
    assert verifier.refresh(at=late) == 1 and "timestamp metadata version 1 expired" in verifier.said
    # What has expired still says what may not come back, and leads on to what has not.
    repo.roles["timestamp"].expires = now() + datetime.timedelta(days=21)
    repo.publish("targets", "snapshot", "timestamp")
    assert verifier.refresh(at=late) == 0, verifier.said
    assert verifier.trusted() == versions(root=1, timestamp=2, snapshot=2, targets=2)
    repo.roles["timestamp"].version = 0
    repo.publish("timestamp")
    assert verifier.refresh(at=late) == 1 and "went back" in verifier.said


def test_a_delegated_role_that_has_expired_is_not_used(repo, verifier):
    repo.delegate("targets", "lamps", ["lamps/*"], expires=now() + datetime.timedelta(days=7))
    repo.delegate("targets", "old", ["old/*"], expires=ago(days=1))
    for path, role in (("lamps/first", "lamps"), ("lamps/second", "lamps"), ("old/one", "old")):
        repo.add_target(path, path.encode(), role)
    repo.publish("lamps", "old")
    repo.release()
    assert verifier.download("lamps/first") == 0, verifier.said
    assert verifier.download("old/one") == 1 and "expired" in verifier.said
    assert verifier.version("old") is None
    late = now() + datetime.timedelta(days=18)
    assert verifier.download("lamps/second", at=late) == 1 and "expired" in verifier.said
    repo.roles["lamps"].expires = now() + datetime.timedelta(days=21)
    repo.release("lamps")
    assert verifier.download("lamps/second", at=late) == 0, verifier.said
    assert set(verifier.got()) == {"lamps/first", "lamps/second"}


# -- delegations: (delegator, role, patterns, terminating), and the roles asked for `missing`, in order

GRAPHS = {
    "one": ([("targets", "A")], "A"),
    "side by side": ([("targets", "A"), ("targets", "B")], "AB"),
    "down the second": ([("targets", "A"), ("targets", "B"), ("B", "C")], "ABC"),
    "depth first": ([("targets", "A"), ("targets", "B"), ("A", "C"), ("A", "D")], "ACDB"),
    "deeper first": ([("targets", "A"), ("targets", "B"), ("A", "C"), ("C", "D")], "ACDB"),
    "terminating": ([("targets", "A"), ("targets", "B"), ("A", "C", "*", True), ("A", "D")], "AC"),
    "terminating but for its own": ([("targets", "A"), ("targets", "B"), ("A", "C", "*", True), ("C", "D")], "ACD"),
    "terminating and not meant": ([("targets", "A", "*.py", True), ("targets", "B")], "B"),
    "branch not meant": ([("targets", "A", "*.py"), ("targets", "B"), ("A", "C")], "B"),
    "twig not meant": ([("targets", "A"), ("targets", "B"), ("A", "C", "*.py"), ("C", "D")], "AB"),
    "round in a circle": ([("targets", "A"), ("targets", "B"), ("B", "C"), ("C", "D"), ("D", "B")], "ABCD"),
    "to oneself": ([("targets", "A"), ("A", "A")], "A"),
    "two ways to one": ([("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C")], "ACB"),
    "one of two ways": ([("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C", "*.py")], "ABC"),
}


@pytest.mark.parametrize("delegations, order", GRAPHS.values(), ids=GRAPHS)
def test_roles_are_asked_in_order(repo, verifier, delegations, order):
    for delegator, name, *how in delegations:
        pattern, terminating = [*how, *("*", False)[len(how):]]
        repo.delegate(delegator, name, [pattern], terminating)
    repo.publish(*sorted(set(order) | {name for _, name, *_ in delegations}))
    repo.release()
    assert verifier.download("missing") == 1 and "there is no target `missing`" in verifier.said
    assert repo.roles_asked()[4:] == list(order)


@pytest.mark.parametrize("path, found, asked", [
    ("firmware", True, ""), ("README.md", True, "A"), ("foo-1.tgz", True, "A"), ("foo-alpha.tgz", False, ""),
    ("README.MD", False, ""), ("releases/README.md", False, ""), ("releases/x/x_v1", True, "BC"),
    ("releases/y/y_v1.zip", True, "BD"), ("releases/z/z_v1.zip", False, "B"),
])
def test_a_target_is_searched_where_it_may_be(repo, verifier, path, found, asked):
    repo.delegate("targets", "A", ["*.doc", "*.md", "foo-?.tgz"])
    repo.delegate("targets", "B", ["releases/*/*"])
    repo.delegate("B", "C", ["releases/x/*"])
    repo.delegate("B", "D", ["releases/y/*.zip"])
    for target, role in (
        ("firmware", "targets"), ("README.md", "A"), ("releases/README.md", "A"), ("foo-1.tgz", "A"),
        ("foo-alpha.tgz", "A"), ("releases/x/x_v1", "C"), ("releases/y/y_v1.zip", "D"), ("releases/z/z_v1.zip", "D"),
    ):
        repo.add_target(target, f"{target} by {role}".encode(), role)
    repo.publish(*"ABCD")
    repo.release()
    assert verifier.download(path) == (0 if found else 1), verifier.said
    assert set(verifier.got()) == ({path} if found else set())
    assert repo.roles_asked()[4:] == list(asked)


def test_roles_by_hash_of_the_path(repo, verifier):
    hashed = hashlib.sha256(b"lamps/firmware").hexdigest()
    other = "0" if hashed[0] != "0" else "1"
    repo.delegate("targets", "other", prefixes=[other])
    repo.delegate("targets", "mine", prefixes=[hashed[:3]])
    repo.add_target("lamps/firmware", b"content", "mine")
    repo.publish("other", "mine")
    repo.release()
    assert verifier.download("lamps/firmware") == 0, verifier.said
    assert repo.roles_asked()[4:] == ["mine"]


def test_roles_in_bins(repo, verifier):
    bins = repo.delegate_bins(5, "bin")
    name = bins.get_role_for_target("lamps/firmware")
    repo.add_target("lamps/firmware", b"content", name)
    repo.publish(*bins.get_roles())
    repo.release()
    assert verifier.download("lamps/firmware") == 0, verifier.said
    assert repo.roles_asked()[4:] == [name]


@pytest.mark.parametrize("role, file", [
    ("?", "%3F"), ("#", "%23"), ("/lamps", "%2Flamps"), ("../lamps", "..%2Flamps"), ("a b", "a%20b"),
    ("ü", "%C3%BC"), ("..", ".."), ("%2F", "%252F"),
])
def test_role_names_are_quoted(repo, verifier, role, file):
    repo.delegate("targets", role)
    repo.publish(role)
    repo.release()
    assert verifier.download("missing") == 1
    assert repo.asked[-1] == f"metadata/1.{file}.json"
    assert (verifier.metadata / f"{file}.json").read_bytes() == repo.latest(role)
    assert len(verifier.trusted()) == 5


@pytest.mark.parametrize("name", ["root", "timestamp", "snapshot", "targets", ""])
def test_a_delegated_role_cannot_pass_for_a_top_level_one(repo, verifier, name):
    repo.delegate("targets", "lamps")
    delegated = repo.roles["targets"].delegations.roles
    delegated["lamps"].name = name
    repo.release()
    assert verifier.refresh() == 1 and "no name for a delegated role" in verifier.said
    assert verifier.version("targets") is None


def test_a_role_that_the_snapshot_does_not_list_is_not_asked_for(repo, verifier):
    repo.delegate("targets", "lamps", ["lamps/*"])
    repo.publish("lamps", "targets")
    del repo.roles["snapshot"].meta["lamps.json"]
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 0
    repo.asked.clear()
    assert verifier.download("lamps/x") == 1 and "not in the snapshot" in verifier.said
    assert repo.roles_asked() == ["root", "timestamp"]
    assert verifier.version("lamps") is None


def test_a_role_that_cannot_be_validated_ends_the_search(repo, verifier):
    repo.delegate("targets", "A")
    repo.delegate("targets", "B")
    repo.signers["A"] = [CryptoSigner.generate_ed25519()]
    repo.add_target("firmware", b"content", "B")
    repo.publish("A", "B")
    repo.release()
    assert verifier.download("firmware") == 1 and "A metadata is signed by 0 of the 1" in verifier.said
    assert repo.roles_asked()[4:] == ["A"] and verifier.got() == {}


def test_a_role_reached_another_way_is_judged_by_the_keys_of_that_way(repo, verifier):
    repo.delegate("targets", "A", ["a/*"])
    repo.delegate("targets", "B", ["b/*"])
    repo.delegate("A", "release", ["a/*"])
    other = repo.delegate("B", "release", ["b/*"])
    repo.signers["release"].remove(other)
    repo.add_target("a/file", b"good", "release")
    repo.add_target("b/file", b"bad", "release")
    repo.publish("release", "A", "B")
    repo.release()
    assert verifier.download("a/file", "b/file") == 1
    assert "release metadata is signed by 0 of the 1 trusted keys that `B` asks for" in verifier.said
    assert verifier.got() == {"a/file": b"good"}
    assert verifier.download("b/file") == 1 and verifier.got() == {"a/file": b"good"}


def test_a_search_asks_a_bounded_number_of_roles(repo, verifier):
    names = [f"role-{number}" for number in range(ROLES_MAX + 5)]
    for name in names:
        repo.delegate("targets", name)
    repo.add_target("firmware", b"content", names[-1])
    repo.publish(*names)
    repo.release()
    assert verifier.download("firmware") == 1 and f"first {ROLES_MAX} delegated roles" in verifier.said
    assert repo.roles_asked()[4:] == names[:ROLES_MAX]


# -- targets that are not what was signed


def test_a_target_that_is_not_what_was_signed_leaves_what_is_there(repo, verifier):
    first = repo.add_target("first", b"first content")
    second = repo.add_target("second", b"second content")
    repo.release()
    assert verifier.download("first") == 0
    for bad in (b"second CONTENT", b"second", b"second content and more of it", b"", bytes(3_000_000)):
        for path, target in (("first", first), ("second", second)):
            repo.files.update({name: bad for name in repo.target_names(path, target)})
        assert verifier.download("first") == 0, "it is there already"
        assert verifier.download("second") == 1 and "is not what was signed" in verifier.said
        assert verifier.got() == {"first": b"first content"}
    newer = repo.add_target("first", b"newer content")
    repo.files.update({name: b"other content" for name in repo.target_names("first", newer)})
    repo.release()
    assert verifier.download("first") == 1
    assert verifier.got() == {"first": b"first content"}


def test_a_target_without_a_known_hash_is_refused(repo, verifier):
    repo.roles["targets"].targets["file"] = TargetFile(7, {"blake9": "00"}, "file")
    repo.files["targets/00.file"] = b"content"
    repo.release()
    assert verifier.download("file") == 1 and "none of its hashes" in verifier.said
    assert verifier.got() == {}


def test_a_target_whose_path_leads_away_stays_in_its_directory(repo, verifier):
    for path in ("../up", "/absolute", "a//b"):
        repo.add_target(path, path.encode())
    repo.release()
    for path, name in (("../up", "..%2Fup"), ("/absolute", "%2Fabsolute"), ("a//b", "a%2F%2Fb")):
        code = verifier.download(path)
        assert code == 1 or verifier.got()[name] == path.encode(), verifier.said
        assert not (verifier.targets.parent / "up").exists()
    assert set(verifier.got()) <= {"..%2Fup", "%2Fabsolute", "a%2F%2Fb"}
