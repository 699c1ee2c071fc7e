"""The agent's verifier between what it kept and what is new: names that do not fit together, expiry by role, versions that
only the snapshot or the timestamp tells of, delegated roles on disk, and what exactly it asks for."""

import datetime

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile

from test_tuf import host, repo, verifier, versions  # noqa: F401 - fixtures
from tufrepo import Repository, Verifier, now

LATE = datetime.timedelta(days=3)


# -- names


@pytest.mark.parametrize("order", [("a", "a/b"), ("a/b", "a")])
def test_a_target_may_be_called_as_anothers_directory(repo, verifier, order):  # noqa: F811
    for path in order:
        repo.add_target(path, path.encode())
    repo.release()
    for _ in range(2):
        assert verifier.download(*order) == 0, verifier.said
        assert sorted(verifier.got().values()) == [b"a", b"a/b"]
        # Each where it was said to lie.
        for path, line in zip(order, verifier.said.splitlines()):
            assert verifier.got()[line.removeprefix(f"{verifier.targets}/")] == path.encode()
    assert not [name for name in verifier.got() if "part" in name]


def test_names_as_long_as_a_file_system_takes_them(repo, verifier):  # noqa: F811
    target, role = "n" * 250, "r" * 248
    repo.delegate("targets", role)
    repo.add_target(target, b"content", role)
    # The consistent name has the hash before it, which is the server's to store.
    repo.publish(role)
    repo.release()
    assert verifier.download(target) == 0, verifier.said
    assert verifier.got() == {target: b"content"} and verifier.version(role) == 1


def test_however_it_is_misused_the_exit_code_is_0_or_1(verifier):  # noqa: F811
    for words in ((), ("fly",), ("--target-name",), ("--metadata-dir", "x", "--metadata-dir", "y", "refresh")):
        assert verifier.run(*words) == 1, words
    assert verifier.run("--help") == 0
    assert verifier.download("-x") == 1 and "there is no target `-x`" in verifier.said


# -- expiry of what was kept


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_what_expired_on_disk_leads_on_to_what_has_not(repo, verifier, role):  # noqa: F811
    repo.roles[role].expires = now() + datetime.timedelta(days=2)
    repo.release()
    assert verifier.refresh() == 0, verifier.said
    before = verifier.trusted()
    assert verifier.refresh(at=now() + LATE) == 1 and f"{role} metadata version 2 expired at" in verifier.said
    assert verifier.trusted() == before
    repo.roles[role].expires = now() + datetime.timedelta(days=9)
    repo.release()
    assert verifier.refresh(at=now() + LATE) == 0, verifier.said
    assert verifier.version(role) == 3


def test_a_root_that_expired_on_disk_leads_on_to_the_next(repo, verifier):  # noqa: F811
    repo.root.expires = now() + datetime.timedelta(days=2)
    repo.publish("root")
    assert verifier.refresh() == 0, verifier.said
    assert verifier.refresh(at=now() + LATE) == 1 and "root metadata version 2 expired at" in verifier.said
    repo.root.expires = now() + datetime.timedelta(days=9)
    repo.publish("root")
    assert verifier.refresh(at=now() + LATE) == 0, verifier.said
    assert verifier.version("root") == 3


def test_an_expired_timestamp_still_says_what_does_not_go_back(repo, verifier):  # noqa: F811
    repo.roles["timestamp"].expires = now() + datetime.timedelta(days=2)
    repo.roles["snapshot"].version = 5
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 0, verifier.said
    before = verifier.trusted()
    repo.roles["timestamp"].expires = now() + datetime.timedelta(days=9)
    repo.roles["snapshot"].version = 5
    repo.publish("snapshot", bump=False)
    repo.publish("timestamp")
    assert verifier.refresh(at=now() + LATE) == 1 and "went back to version 5" in verifier.said
    assert verifier.trusted() == before


# -- what nobody announced


def test_what_the_timestamp_does_not_name_is_not_looked_for(repo, verifier):  # noqa: F811
    assert verifier.refresh() == 0
    repo.asked.clear()
    repo.publish("targets", "snapshot")
    assert verifier.refresh() == 0, verifier.said
    assert repo.roles_asked() == ["root", "timestamp"]
    assert verifier.trusted() == versions(root=1, timestamp=1, snapshot=1, targets=1)


def test_what_the_snapshot_does_not_name_is_not_looked_for(repo, verifier):  # noqa: F811
    assert verifier.refresh() == 0
    listed = repo.roles["snapshot"].meta["targets.json"]
    repo.publish("targets")
    repo.roles["snapshot"].meta["targets.json"] = listed
    repo.publish("snapshot", "timestamp")
    repo.asked.clear()
    assert verifier.refresh() == 0, verifier.said
    assert repo.roles_asked() == ["root", "timestamp", "snapshot"]
    assert verifier.trusted() == versions(root=1, timestamp=2, snapshot=2, targets=1)


def test_hash_and_length_of_the_snapshot_count(repo, verifier):  # noqa: F811
    repo.with_hashes = True
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 0, verifier.said
    for change in (
        lambda meta: meta.hashes.update(sha256="00" * 32),
        lambda meta: setattr(meta, "length", meta.length - 1),
        lambda meta: setattr(meta, "length", meta.length + 1),
    ):
        repo.publish("snapshot")
        change(repo.roles["timestamp"].snapshot_meta)
        repo.publish("timestamp")
        assert verifier.refresh() == 1, verifier.said
        assert verifier.version("timestamp") == repo.roles["timestamp"].version and verifier.version("snapshot") == 2
    repo.publish("snapshot", "timestamp")
    assert verifier.refresh() == 0, verifier.said


def test_the_next_root_is_the_next(repo, verifier):  # noqa: F811
    repo.publish("root", bump=False)
    repo.files["metadata/2.root.json"] = repo.signed("root")
    assert verifier.refresh() == 1 and "version 1 where version 2 was announced" in verifier.said
    assert verifier.trusted() == versions(root=1)


# -- delegated roles


@pytest.fixture
def lamps(repo, verifier):  # noqa: F811
    """The repository with a delegated role that the verifier has on disk."""
    repo.delegate("targets", "lamps", ["lamps/*"])
    repo.add_target("lamps/1", b"one", "lamps")
    repo.roles["lamps"].version = 3
    repo.publish("lamps")
    repo.release()
    assert verifier.download("lamps/1") == 0 and verifier.version("lamps") == 3, verifier.said
    return repo


def test_a_delegated_role_does_not_go_back(lamps, verifier):  # noqa: F811
    lamps.roles["lamps"].version = 2
    lamps.publish("lamps", bump=False)
    lamps.publish("snapshot", "timestamp")
    assert verifier.download("lamps/1") == 1 and "`lamps.json` went back to version 2" in verifier.said
    assert verifier.version("lamps") == 3


@pytest.mark.parametrize("there", ["nothing", "another version"])
def test_a_delegated_role_must_be_what_the_snapshot_announces(lamps, verifier, there):  # noqa: F811
    lamps.roles["snapshot"].meta["lamps.json"] = MetaFile(4)
    lamps.publish("snapshot", "timestamp")
    if there == "another version":
        lamps.files["metadata/4.lamps.json"] = lamps.latest("lamps")
    assert verifier.download("lamps/1") == 1, verifier.said
    assert "lamps" in verifier.said and verifier.version("lamps") == 3


def test_a_role_on_disk_is_judged_by_the_keys_of_now(lamps, verifier):  # noqa: F811
    old = lamps.signers["lamps"].pop()
    lamps.roles["targets"].revoke_key(old.public_key.keyid, "lamps")
    fresh = CryptoSigner.generate_ed25519()
    lamps.roles["targets"].add_key(fresh.public_key, "lamps")
    lamps.release()
    assert verifier.download("lamps/1") == 1 and "lamps metadata is signed by 0 of the 1 trusted keys" in verifier.said
    lamps.signers["lamps"] = [fresh]
    lamps.publish("lamps", "snapshot", "timestamp")
    assert verifier.download("lamps/1") == 0, verifier.said
    assert verifier.version("lamps") == 4


def test_a_role_that_two_roles_delegate_to_serves_both(repo, verifier):  # noqa: F811
    repo.delegate("targets", "A", ["a/*"])
    repo.delegate("targets", "B", ["b/*"])
    signer = repo.delegate("A", "release", ["a/*"])
    repo.delegate("B", "release", ["b/*"], signer=signer)
    repo.signers["release"] = [signer]
    repo.add_target("a/file", b"for a", "release")
    repo.add_target("b/file", b"for b", "release")
    repo.publish("release", "A", "B")
    repo.release()
    assert verifier.download("a/file", "b/file") == 0, verifier.said
    assert verifier.got() == {"a/file": b"for a", "b/file": b"for b"}


@pytest.mark.parametrize("consistent", [True, False])
def test_what_is_asked_for_to_the_letter(host, tmp_path, consistent):  # noqa: F811
    repo = Repository(consistent)
    repo.delegate("targets", "lamps", ["lamps/*"])
    target = repo.add_target("lamps/1", b"one", "lamps", hashes=("sha256", "sha512"))
    repo.publish("lamps")
    repo.release()
    verifier = Verifier(tmp_path, host(repo))
    assert verifier.init(repo.files["metadata/1.root.json"]) == 0
    assert verifier.download("lamps/1") == 0, verifier.said
    v1, v2 = ("1.", "2.") if consistent else ("", "")
    *metadata, artifact = repo.asked
    assert metadata == [f"metadata/{name}.json" for name in ("2.root", "timestamp", f"{v2}snapshot", f"{v2}targets", f"{v1}lamps")]
    assert artifact in repo.target_names("lamps/1", target), "once, under one of its hashes"
