"""Signing without a server, what a server believes, and what it hands to whom."""

import datetime
import json
import stat
import subprocess

import pytest

from devices import eventually
from release import Team, edited, flipped, opened, unsigned
from server import muster


@pytest.fixture
def team(tmp_path):
    return Team(tmp_path / "team")


def refused(*arguments):
    done = muster("firmware", *arguments)
    assert done.returncode != 0, done.stdout
    assert done.stderr.strip() and "panicked" not in done.stderr, done.stderr
    return done.stderr


# -- offline

def test_a_release_key_is_made_once_and_for_its_owner_only(team):
    key = team.key()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert b"PRIVATE KEY" in before and b"PRIVATE" not in key.with_name("release.pub").read_bytes()
    assert "exists already" in refused("keygen", "--out", key.parent)
    assert key.read_bytes() == before


def test_signing_needs_no_server_and_describes_the_image_whole(team):
    image = bytes(range(256)) * 10_000
    package = team.package("lamp", "1.2.3", image, more=["--counter", "4", "--requires", "1.0.0"])
    manifest, packed = opened(package)
    assert packed == image
    document = json.loads(manifest)
    assert len(document["signatures"]) == 1
    ((name, target),) = document["signed"]["targets"].items()
    assert name == "lamp-1.2.3" and target["length"] == len(image)
    custom = target["custom"]
    assert (custom["hardware"], custom["counter"], custom["requires"]) == (["board-1"], 4, "1.0.0")
    assert len(custom["chunks"]) == 3, "one hash for each MiB begun"


def test_a_manifest_holds_for_ninety_days_unless_it_says_otherwise(team):
    def expiry(*more):
        document = json.loads(opened(team.package("lamp", "1.0.0", b"light", more=more))[0])
        return datetime.datetime.fromisoformat(document["signed"]["expires"])

    now = datetime.datetime.now(datetime.timezone.utc)
    assert abs(expiry() - now - datetime.timedelta(days=90)) < datetime.timedelta(minutes=5)
    assert expiry("--expires", "2031-02-03T04:05:06Z") == datetime.datetime(2031, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)


def test_what_cannot_be_signed_is_refused_by_name(team, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"light")
    sign = ["sign", image, "--hardware", "b", "--key", team.key(), "--out", tmp_path / "p"]
    assert "--name" in refused(*sign, "--name", "a/b", "--version", "1")
    assert "--version" in refused(*sign, "--name", "a", "--version", "1/2")
    assert "--hardware" in refused("sign", image, "--name", "a", "--version", "1", "--hardware", "b c", "--key", team.key(), "--out", tmp_path / "p")
    assert "nowhere.key" in refused("sign", image, "--name", "a", "--version", "1", "--hardware", "b", "--key", "nowhere.key", "--out", tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_nothing_that_is_there_is_written_over(team):
    """A key, an image or a trust root that is lost cannot be had back."""
    key, root = team.key(), team.root("first")
    image = team.home / "image"
    image.write_bytes(b"light" * 1000)
    package = team.package("lamp", "1.0", b"light")
    sign = ["sign", image, "--name", "lamp", "--version", "2.0", "--hardware", "b", "--key", key, "--out"]
    index = ["index", package, "--root", root, "--key", key, "--out"]
    for verb in (sign, index, ["root", "--key", key, "--out"], ["delegate", "acme", "--pub", team.public("first"), "--hardware", "b",
                                                                "--root", root, "--key", key, "--out"]):
        for there in (key, image, root, package):
            before = there.read_bytes()
            assert f"--out {there}: it is there already; name a new file" in refused(*verb, there), verb
            assert there.read_bytes() == before
    # What the new one follows is what it takes the place of, where that is asked for.
    targets = team.home / "targets.json"
    team.verb(*index, targets)
    team.verb(*index, targets, "--previous", targets)
    assert json.loads(targets.read_bytes())["signed"]["version"] == 2
    team.verb("root", "--key", key, "--previous", root, "--out", root)
    assert json.loads(root.read_bytes())["signed"]["version"] == 2
    assert "it is there already" in refused(*index, root, "--previous", targets)
    # A package that does not come to its end is not there.
    out = team.home / "half"
    assert refused("sign", team.home, *sign[2:], out) and not out.exists()


def test_what_nobody_will_take_is_said_when_it_is_signed(team):
    key, root = team.key(), team.root("first")
    image = team.home / "image"
    image.write_bytes(b"light")
    sign = ["sign", image, "--name", "lamp", "--version", "1.0", "--hardware", "b", "--key", key]
    assert "expired already" in team.verb(*sign, "--expires", "1990-01-01", "--out", team.home / "late")
    assert "expired already" in team.verb("root", "--key", key, "--expires", "2020-01-01", "--out", team.home / "late.json")
    assert "expired already" not in team.verb(*sign, "--out", team.home / "good")
    assert "--counter 18446744073709551615: at most" in refused(*sign, "--counter", 2**64 - 1, "--out", team.home / "last")
    assert not (team.home / "last").exists()
    assert "does not name key" in team.verb("cosign", root, "--key", team.key("stranger"))
    assert "does not name" not in team.verb("cosign", root, "--key", key)


def test_a_root_that_lacks_signatures_says_how_many_and_is_completed_elsewhere(team, server):
    draft = team.root("first", publics=["second"], threshold=2)
    assert "one signature short" in server.refused("firmware", "trust", draft)
    team.verb("cosign", draft, "--key", team.key("second"))
    assert server.json("firmware", "trust", draft)["version"] == 1


def test_keys_that_lie_apart_sign_a_package_one_after_the_other(team, server):
    server.cli("firmware", "trust", team.root("first", "second", threshold=2))
    package = team.package("lamp", "1.0.0", b"light" * 100_000, "first")
    assert "is one signature short: it has 1 of the 2" in server.refused("firmware", "add", package)
    # On the other machine there is this key alone.
    assert "signature added to lamp 1.0.0" in team.verb("cosign", package, "--key", team.key("second"))
    assert server.json("firmware", "add", package)["version"] == "1.0.0"
    assert {path.name for path in package.parent.iterdir() if path.name.startswith(package.name)} == {package.name}
    # Nobody signs for what is not there, and what was there stays.
    spoilt = team.package("lamp", "2.0.0", b"light" * 100_000, "first")
    whole = spoilt.read_bytes()
    for wrong in (flipped(whole, whole.index(b"light") + 200_000), whole[:len(whole) // 2], whole + b"x", b"not a package"):
        spoilt.write_bytes(wrong)
        refused("cosign", spoilt, "--key", team.key("second"))
        assert spoilt.read_bytes() == wrong


# -- trust

def test_without_trust_a_server_takes_no_firmware(team, server):
    said = server.refused("firmware", "add", team.package("lamp", "1.0.0", b"light"))
    assert "no release keys are trusted yet" in said and "firmware trust" in said
    assert server.json("firmware", "list")["packages"] == []


def test_the_first_root_is_the_admins_word_and_devices_carry_it(team, server):
    root = team.root(more=["--online", server.data / "firmware/online.pub"])
    assert server.json("firmware", "trust", root)["version"] == 1
    lamp = server.device("lamp-1")
    assert json.loads((lamp.certificate.parent / "firmware-root.json").read_text()) == json.loads(root.read_text())


def test_a_root_the_first_did_not_sign_is_refused(team, server):
    server.cli("firmware", "trust", team.root("first"))
    thief = team.root("thief")
    said = server.refused("firmware", "trust", thief)
    assert "is not signed by the trusted root version 1" in said
    # Nor one that says it comes after it.
    successor = team.root("thief", previous=thief)
    assert "is not signed by the trusted root version 1" in server.refused("firmware", "trust", successor)
    server.restart()
    assert "is not trusted" in server.refused("firmware", "add", team.package("lamp", "1.0.0", b"light", "thief"))
    server.cli("firmware", "add", team.package("lamp", "1.0.0", b"light", "first"))


def test_a_successor_the_first_signed_is_believed_and_the_old_key_no_longer(team, server):
    first = team.root("first")
    server.cli("firmware", "trust", first)
    successor = team.root("second", previous=first, retire=["first"])
    assert server.json("firmware", "trust", successor)["version"] == 2
    assert "is not trusted: trust root version 2 does not name it" in server.refused(
        "firmware", "add", team.package("lamp", "1.0.0", b"light", "first"))
    server.cli("firmware", "add", team.package("lamp", "1.0.0", b"light", "second"))
    assert "version" in server.refused("firmware", "trust", team.root("third", previous=first, retire=["first"]))


def test_roots_follow_one_after_the_other(team, server):
    first = team.root("first")
    server.cli("firmware", "trust", first)
    second = team.root("first", "second", previous=first)
    third = team.root("first", "third", previous=second)
    assert "the next one is version 2" in server.refused("firmware", "trust", third)
    server.cli("firmware", "trust", second)
    server.cli("firmware", "trust", third)


# -- packages

def test_firmware_is_added_listed_and_shown_and_stays(team, server):
    server.cli("firmware", "trust", team.root())
    package = team.package("lamp", "1.0.0", b"light", more=["--counter", "2"])
    assert "1.0.0" in server.cli("firmware", "add", package)
    server.kill9()
    server.start()
    (listed,) = server.json("firmware", "list")["packages"]
    assert (listed["name"], listed["version"], listed["size"], listed["counter"]) == ("lamp", "1.0.0", 5, 2)
    shown = server.json("firmware", "show", "lamp", "1.0.0")
    assert shown["name"] == "lamp" and shown["hardware"] == ["board-1"]
    assert [v["version"] for v in server.json("firmware", "show", "lamp")["versions"]] == ["1.0.0"]
    assert "does not exist" in server.refused("firmware", "show", "lamp", "2.0.0")
    assert "has no firmware \"lump\"" in server.refused("firmware", "show", "lump")
    # Whatever file it is, none of it is said again.
    assert "no archive as `muster firmware sign` writes it" in server.refused("firmware", "add", team.root())


def test_the_same_version_with_another_image_is_refused(team, server):
    server.cli("firmware", "trust", team.root())
    package = team.package("lamp", "1.0.0", b"light")
    server.cli("firmware", "add", package)
    assert "exists already" in server.refused("firmware", "add", team.package("lamp", "1.0.0", b"other"))


def test_each_bad_package_is_refused_in_its_own_words(team, make_server):
    server = make_server()
    server.cli("firmware", "trust", team.root("first", "second", threshold=2))
    image = b"light" * 1000
    good = team.package("lamp", "1.0.0", image, "first", "second")
    manifest, _ = opened(good)
    yesterday = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    truncated = team.home / "truncated"
    truncated.write_bytes(good.read_bytes()[:-8000])
    noise = team.home / "noise"
    noise.write_bytes(bytes(range(256)) * 40)
    cases = {
        "a flipped byte": (team.packed(manifest, flipped(image)), "is not what was signed"),
        "a longer image": (team.packed(manifest, image + b"x"), "is not what was signed"),
        "no signature": (team.packed(unsigned(manifest), image), "is unsigned: it carries no signature"),
        "an edited manifest": (team.packed(edited(manifest, counter=9), image), "it was changed after it was signed"),
        "a stranger's key": (team.package("lamp", "1.0.0", image, "thief"), "which is not trusted"),
        "one signature short": (team.package("lamp", "1.0.0", image, "first"), "is one signature short: it has 1 of the 2"),
        "one key twice": (team.packed(twice(manifest, team), image), "is one signature short: it has 1 of the 2"),
        "an expired manifest": (team.package("lamp", "1.0.0", image, "first", "second", more=["--expires", yesterday]), "expired at"),
        "a package cut off": (truncated, ""),
        "no package at all": (noise, "not a firmware package"),
    }
    said = {}
    for what, (package, words) in cases.items():
        said[what] = server.refused("firmware", "add", package)
        assert words in said[what], f"{what}: {said[what]}"
        assert server.json("firmware", "list")["packages"] == [], what
    server.cli("firmware", "add", good)


def twice(manifest, team):
    """Signed by one key, the signature given twice."""
    document = json.loads(opened(team.package("lamp", "1.0.0", b"light" * 1000, "first"))[0])
    document["signatures"] *= 2
    return json.dumps(document).encode()


def test_the_server_holds_no_key_that_could_sign_firmware(team, server):
    server.cli("firmware", "trust", team.root(more=["--online", server.data / "firmware/online.pub"]))
    manifest, image = opened(team.package("lamp", "1.0.0", b"light"))
    for key in [path for path in server.data.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]:
        out = team.home / f"by-{key.name}"
        file = team.home / "stolen-image"
        file.write_bytes(b"stolen")
        done = muster("firmware", "sign", file, "--name", "lamp", "--version", "9", "--hardware", "board-1", "--key", key, "--out", out)
        if done.returncode == 0:
            assert "not trusted" in server.refused("firmware", "add", out), key
        else:
            assert "key" in done.stderr


# -- downloads

def curl(server, path, *flags, identity=None):
    """Status and body."""
    with_certificate = ["--cert", identity.certificate, "--key", identity.key] if identity else []
    done = subprocess.run(
        ["curl", "-s", "--cacert", server.root, *with_certificate, "-w", "%{stderr}%{http_code}", *flags,
         "https://localhost:%d%s" % (server.port("https"), path)],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    return int(done.stderr or 0), done.stdout


IMAGE = "/firmware/lamp/1.0.0/image"


@pytest.fixture
def ordered(team, server):
    """A server with an image of 300,000 bytes on order for lamp-1; the image, and lamp-1."""
    image = b"0123456789" * 30_000
    server.cli("firmware", "trust", team.root())
    server.cli("firmware", "add", team.package("lamp", "1.0.0", image))
    server.cli("group", "create", "hall")
    lamp = server.device("lamp-1", "--group", "hall")
    rollout = server.json("rollout", "start", "lamp", "1.0.0", "--group", "hall")["id"]
    # The job is queued by the planner, after the answer.
    eventually(lambda: server.json("rollout", "show", rollout)["executions"][0]["status"] == "QUEUED", "the job was not queued")
    return server, image, lamp


def test_a_device_with_the_job_downloads_in_ranges(ordered):
    server, image, lamp = ordered
    assert curl(server, IMAGE, identity=lamp) == (200, image)
    assert curl(server, IMAGE, "-r", "5-14", identity=lamp) == (206, image[5:15])
    assert curl(server, IMAGE, "-r", "299990-", identity=lamp) == (206, image[299_990:])
    assert curl(server, IMAGE, "-r", "-7", identity=lamp) == (206, image[-7:])
    assert curl(server, IMAGE, "-r", "300000-", identity=lamp)[0] == 416
    head = curl(server, IMAGE, "-r", "100-", "-D", "-", "-o", "/dev/null", identity=lamp)[1].lower()
    assert b"content-range: bytes 100-299999/300000" in head and b"accept-ranges: bytes" in head
    # A range of another image than the one begun with is no use.
    assert curl(server, IMAGE, "-r", "5-14", "-H", 'If-Range: "other"', identity=lamp) == (200, image)


def test_a_device_with_the_job_reads_manifest_and_root(ordered):
    server, image, lamp = ordered
    status, manifest = curl(server, "/firmware/lamp/1.0.0/manifest.json", identity=lamp)
    assert status == 200 and json.loads(manifest)["signatures"]
    status, root = curl(server, "/firmware/root/1.json", identity=lamp)
    assert status == 200 and json.loads(root)["signed"]["version"] == 1
    assert curl(server, "/firmware/root/2.json", identity=lamp)[0] == 404


def test_firmware_is_for_devices_whose_job_it_is(ordered, make_server):
    server, image, lamp = ordered
    other = server.device("lamp-2", "--group", "hall")
    status, said = curl(server, IMAGE, identity=other)
    assert status == 403 and b"has no job that installs" in said
    assert curl(server, IMAGE)[0] == 403
    assert curl(server, "/firmware/lamp/2.0.0/image", identity=lamp)[0] == 403
    assert curl(server, "/firmware/lamp/%2e%2e/image", identity=lamp)[0] in (400, 403, 404)
    elsewhere = make_server()
    stranger = elsewhere.device("lamp-1")
    assert curl(server, IMAGE, identity=stranger)[1] != image


def test_a_revoked_device_downloads_nothing_more(ordered):
    server, image, lamp = ordered
    assert curl(server, IMAGE, "-r", "0-0", identity=lamp)[0] == 206
    server.cli("device", "revoke", "lamp-1", "--yes")
    status, body = curl(server, IMAGE, identity=lamp)
    assert status in (0, 403) and image not in body


def test_a_rollout_of_what_is_not_there_is_refused(ordered):
    server, _, _ = ordered
    assert "does not exist" in server.refused("rollout", "start", "lamp", "2.0.0", "--group", "hall")
    assert "nowhere" in server.refused("rollout", "start", "lamp", "1.0.0", "--group", "nowhere")
    assert "wave" in server.refused("rollout", "start", "lamp", "1.0.0", "--group", "hall", "--wave", "0%")


def test_status_names_a_trust_root_and_lists_of_images_that_end(make_server, team):
    """A year after its root was signed no device of a fleet updates any more: a month before that it is said."""
    server = make_server()
    assert server.json("status")["ending"] == []

    def expires(days):
        return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")

    soon = team.root("release", more=["--expires", expires(20)])
    server.cli("firmware", "trust", soon)
    (one,) = server.json("status")["ending"]
    assert one["what"] == "trust root for firmware (version 1)" and "firmware root --previous" in one["mend"]
    assert "trust root for firmware (version 1) ends 20" in server.cli("status")
    server.restart()
    server.said("what is signed offline for firmware ends soon", "role=root")
    server.cli("firmware", "trust", team.root("release", previous=soon, more=["--expires", expires(300)]))
    assert server.json("status")["ending"] == []
