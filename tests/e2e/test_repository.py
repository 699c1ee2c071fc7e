"""The server's own TUF repository: python-tuf's client and the agent's verifier use it, and what is online signs no image."""

import datetime
import json
import shutil
import subprocess

import pytest
import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Snapshot, Timestamp
from tuf.ngclient import FetcherInterface, Updater
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from devices import eventually
from release import HARDWARE, Team
from server import AGENT, muster

IMAGE = b"light" * 100_000


@pytest.fixture
def team(tmp_path):
    return Team(tmp_path / "team")


class UnderCertificate(FetcherInterface):
    """Fetches as a device does: under its own certificate, from the server that its root certificate names."""

    def __init__(self, server, identity):
        self.pool = urllib3.PoolManager(
            ca_certs=str(server.root), cert_file=str(identity.certificate), key_file=str(identity.key))

    def _fetch(self, url):
        answer = self.pool.request("GET", url, preload_content=False, retries=False)
        if answer.status != 200:
            raise DownloadHTTPError(answer.reason or "refused", answer.status)
        return answer.stream(65536)


class Repository:
    """A server with a repository of one image of the team's and one of a delegate's; and what its clients keep."""

    def __init__(self, server, team, home):
        self.server, self.team, self.home = server, team, home
        self.root = team.root("first", more=["--online", server.data / "firmware/online.pub"])
        server.cli("firmware", "trust", self.root)
        self.lamp = team.package("lamp", "1.0.0", IMAGE, "first", hardware=HARDWARE)
        self.horn = team.package("horn", "1.0+a", IMAGE[:-1], "supplier", hardware="horn-1")
        top = team.delegate(self.root, "acme", "supplier", flags=["--product", "horn"])
        self.top = self.index("first", self.lamp, previous=top)
        self.trust(self.top)
        self.trust(self.index("supplier", self.horn, flags=["--as", "acme", "--delegations", self.top]), "--role", "acme")
        for package in (self.lamp, self.horn):
            server.cli("firmware", "add", package)
        server.cli("group", "create", "hall")
        self.device = server.device("lamp-1", "--group", "hall")

    def index(self, key, *packages, previous=None, flags=()):
        out = self.home / f"index-{len(list(self.home.iterdir()))}.json"
        words = ["--previous", previous] if previous else []
        self.team.verb("index", *packages, "--root", self.root, "--key", self.team.key(key), *words, *flags, "--out", out)
        return out

    def trust(self, document, *flags):
        self.server.cli("firmware", "trust", document, *flags)

    def order(self, name, version):
        rollout = self.server.json("rollout", "start", name, version, "--group", "hall")["id"]
        eventually(lambda: self.server.json("rollout", "show", rollout)["executions"][0]["status"] != "WAITING", "the job was not queued")
        return rollout

    @property
    def url(self):
        return f"https://localhost:{self.server.port('https')}/firmware/tuf"

    def client(self, identity=None):
        """python-tuf's client, with the metadata it kept the last time."""
        metadata, targets = self.home / "metadata", self.home / "targets"
        if not metadata.exists():
            metadata.mkdir()
            targets.mkdir()
            shutil.copy(self.root, metadata / "root.json")
        return Updater(str(metadata), f"{self.url}/metadata/", str(targets), f"{self.url}/targets/",
                       fetcher=UnderCertificate(self.server, identity or self.device), bootstrap=None)


@pytest.fixture
def repository(server, team, tmp_path):
    home = tmp_path / "client"
    home.mkdir()
    return Repository(server, team, home)


def test_python_tufs_client_refreshes_and_downloads_what_its_job_installs(repository):
    client = repository.client()
    client.refresh()
    lamp = client.get_targetinfo(f"{HARDWARE}/lamp/1.0.0")
    horn = client.get_targetinfo("horn-1/horn/1.0+a")
    assert (lamp.length, horn.length) == (len(IMAGE), len(IMAGE) - 1), "the second by way of its delegate"
    assert client.get_targetinfo("horn-1/lamp/1.0.0") is None
    with pytest.raises(DownloadHTTPError) as refused:
        client.download_target(lamp)
    assert refused.value.status_code == 403, "no job installs it on this device"
    repository.order("lamp", "1.0.0")
    path = client.download_target(lamp)
    with open(path, "rb") as file:
        assert file.read() == IMAGE
    # What came is byte for byte what was signed offline.
    kept = repository.home / "metadata"
    assert (kept / "targets.json").read_bytes() == repository.top.read_bytes()
    # Nobody without a certificate learns of it.
    with pytest.raises((DownloadError, RepositoryError, urllib3.exceptions.HTTPError)):
        answer = urllib3.PoolManager(ca_certs=str(repository.server.root)).request(
            "GET", f"{repository.url}/metadata/timestamp.json", retries=False)
        raise DownloadHTTPError("refused", answer.status)


def test_the_agents_verifier_uses_it_too(repository, tmp_path):
    metadata = tmp_path / "trusted"
    metadata.mkdir()

    def verb(*words):
        return subprocess.run([AGENT, "tuf", "--metadata-dir", str(metadata), *map(str, words)],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    assert verb("init", repository.root).returncode == 0
    who = ["--identity", repository.device.certificate.parent]
    there = ["--metadata-url", f"{repository.url}/metadata"]
    done = verb(*there, *who, "refresh")
    assert done.returncode == 0, done.stderr
    assert "--identity" in verb(*there, "refresh").stderr
    repository.order("lamp", "1.0.0")
    done = verb(*there, *who, "--target-name", f"{HARDWARE}/lamp/1.0.0", "--target-base-url", f"{repository.url}/targets",
                "--target-dir", tmp_path / "got", "download")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got" / HARDWARE / "lamp" / "1.0.0").read_bytes() == IMAGE
    done = verb(*there, *who, "--target-name", "horn-1/horn/1.0+a", "--target-base-url", f"{repository.url}/targets",
                "--target-dir", tmp_path / "got", "download")
    assert done.returncode == 1, "no job installs it on this device"


def test_what_is_newest_is_signed_anew_when_something_is_and_never_backwards(repository):
    def newest():
        repository.client().refresh()
        kept = repository.home / "metadata"
        return (Metadata[Timestamp].from_file(str(kept / "timestamp.json")).signed,
                Metadata[Snapshot].from_file(str(kept / "snapshot.json")).signed)

    timestamp, snapshot = newest()
    assert {name: file.version for name, file in snapshot.meta.items()} == {"targets.json": 2, "acme.json": 1}
    now = datetime.datetime.now(datetime.timezone.utc)
    assert timestamp.expires - now <= datetime.timedelta(days=1)
    again = newest()
    assert (again[0].version, again[1].version) == (timestamp.version, snapshot.version), "nothing is new"
    repository.server.kill9()
    repository.server.start()
    assert newest()[0].version == timestamp.version
    repository.trust(repository.index("first", previous=repository.top, flags=["--drop", "lamp/1.0.0"]))
    later, after = newest()
    assert later.version > timestamp.version and after.version > snapshot.version
    assert after.meta["targets.json"].version == 3
    assert repository.client().get_targetinfo(f"{HARDWARE}/lamp/1.0.0") is None


def test_a_view_of_the_past_ends_for_tufs_clients_with_the_shortest_expiry(repository):
    """Whoever stands between a client and the server can keep it from what is newer for a day; a thief of the server until
    what was signed offline expires."""
    client = repository.client()
    client.refresh()
    kept = repository.home / "metadata"

    def judged_in(days):
        read = {name: (kept / f"{name}.json").read_bytes() for name in ("root", "timestamp", "snapshot", "targets")}
        trusted = TrustedMetadataSet(read["root"], EnvelopeType.METADATA)
        trusted.reference_time = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
        for name in ("timestamp", "snapshot", "targets"):
            getattr(trusted, f"update_{name}")(read[name])

    judged_in(0.9)
    with pytest.raises(ExpiredMetadataError):
        judged_in(1.1)
    top = Metadata.from_file(str(kept / "targets.json")).signed
    left = top.expires - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(days=89) < left <= datetime.timedelta(days=90)


def test_the_repository_is_shown_with_its_keys_and_without_what_is_not_there(server, team):
    shown = server.json("firmware", "repo")
    assert shown["roles"] == [] and "firmware trust" in shown["notServed"]
    first = team.root("first")
    server.cli("firmware", "trust", first)
    shown = server.json("firmware", "repo")
    assert [role["role"] for role in shown["roles"]] == ["root", "targets", "snapshot", "timestamp"]
    assert "--online" in shown["notServed"]
    second = team.root("first", "second", threshold=2, previous=first, more=["--online", server.data / "firmware/online.pub"])
    server.cli("firmware", "trust", second)
    assert "firmware index" in server.json("firmware", "repo")["notServed"]
    top = team.delegate(second, "acme", "supplier", "other", by=["first", "second"],
                        flags=["--hardware", "horn-1", "--threshold", "2"])
    server.cli("firmware", "trust", top)
    shown = server.json("firmware", "repo")
    assert "notServed" not in shown
    roles = {role["role"]: role for role in shown["roles"]}
    assert {name: (role["version"] > 0, role["threshold"]) for name, role in roles.items()} == {
        "root": (True, 2), "targets": (True, 2), "snapshot": (True, 1), "timestamp": (True, 1)}
    assert [(key["online"], key["signed"]) for key in roles["timestamp"]["keys"]] == [(True, True)]
    assert [(key["online"], key["signed"]) for key in roles["targets"]["keys"]] == [(False, True)] * 2
    (acme,) = shown["delegations"]
    assert (acme["role"], acme["threshold"], acme["paths"], len(acme["keys"])) == ("acme", 2, ["horn-1/*/*"], 2)
    assert "version" not in acme
    text = server.cli("firmware", "repo")
    for word in ("timestamp", "this server", "offline", "acme", "horn-1/*/*", acme["keys"][0]["keyId"]):
        assert word in text, text
    document = server.json("firmware", "repo", "targets")
    assert document == json.loads(top.read_text())
    assert server.json("firmware", "repo", "root")["signed"]["version"] == 2
    assert "no metadata file" in server.refused("firmware", "repo", "acme")


def test_a_list_is_held_to_what_was_delegated(repository):
    foreign = repository.team.package("lamp", "2.0.0", IMAGE, "supplier", hardware=HARDWARE)
    refused = muster("firmware", "index", foreign, "--root", repository.root, "--key", repository.team.key("supplier"),
                     "--as", "acme", "--delegations", repository.top, "--out", repository.home / "none.json")
    assert refused.returncode != 0 and "is not delegated to `acme`" in refused.stderr, refused.stderr
    own = muster("firmware", "index", repository.lamp, "--root", repository.root, "--key", repository.team.key("supplier"),
                 "--as", "acme", "--delegations", repository.top, "--out", repository.home / "none.json")
    assert own.returncode != 0 and "is signed by the release team, not by delegate acme" in own.stderr, own.stderr
    assert not (repository.home / "none.json").exists()
    assert "does not exist" in repository.server.refused("firmware", "trust", repository.top, "--role", "nobody")
