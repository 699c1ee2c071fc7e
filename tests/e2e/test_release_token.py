"""Release keys in a PKCS #11 token: made there, used there, never seen outside."""

import json
import stat

import pytest

from release import Team, opened
from server import muster
from test_custody import LABEL, MODULE, Token


@pytest.fixture
def token(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    return Token(tmp_path / "hsm")


@pytest.fixture
def team(tmp_path, token):
    """A team whose key `first` is in the token."""
    team = Team(tmp_path / "team")
    said = team.verb("keygen", "--out", team.home / "key-first", "--token", LABEL, "--module", MODULE, "--pin-file", token.pin)
    assert LABEL in said
    return team


def test_a_key_in_a_token_signs_all_that_one_in_a_file_does(team, token, server):
    reference = team.key("first")
    text = reference.read_text()
    assert text.startswith("pkcs11:token=muster%20test;id=%") and "PRIVATE" not in text
    assert stat.S_IMODE(reference.stat().st_mode) == 0o600
    before = [file.read_bytes() for file in team.home.rglob("release.*")]
    root = team.root("first", "second", threshold=2)
    assert server.json("firmware", "trust", root)["version"] == 1
    manifest, _ = opened(team.package("lamp", "1.0.0", b"light", "first", "second"))
    assert len(json.loads(manifest)["signatures"]) == 2
    server.cli("firmware", "add", team.package("lamp", "1.0.0", b"light", "first", "second"))
    half = team.package("lamp", "2.0.0", b"light", "second")
    assert "is one signature short" in server.refused("firmware", "add", half)
    successor = team.root("third", previous=root, retire=["first", "second"])
    assert server.json("firmware", "trust", successor)["version"] == 2
    delegations = team.delegate(successor, "acme", "first", by=["third"], flags=["--product", "lamp"])
    server.cli("firmware", "trust", delegations)
    server.cli("firmware", "add", team.package("lamp", "3.0.0", b"light", "first"))
    assert before == [file.read_bytes() for file in team.home.rglob("release.*") if "key-first" in str(file)]


def test_without_its_token_nothing_is_signed(team, token, tmp_path):
    image, out = tmp_path / "image", tmp_path / "package"
    image.write_bytes(b"light")
    sign = ["firmware", "sign", image, "--name", "lamp", "--version", "1", "--hardware", "b", "--key", team.key("first"), "--out", out]
    token.unplug()
    done = muster(*sign)
    assert done.returncode != 0 and "no token of that label" in done.stderr and "release.key" in done.stderr, done.stderr
    assert not out.exists()
    token.plug()
    right = token.pin.read_text()
    token.pin.write_text("000000\n")
    done = muster(*sign)
    assert done.returncode != 0 and "its PIN is another" in done.stderr and "000000" not in done.stderr, done.stderr
    token.pin.unlink()
    done = muster(*sign)
    assert done.returncode != 0 and str(token.pin) in done.stderr, done.stderr
    token.pin.write_text(right)
    assert muster(*sign).returncode == 0
    sign[-1] = tmp_path / "another"
    # A key that is not in it, and a file that is neither.
    text = team.key("first").read_text()
    team.key("first").write_text(text.replace("id=%", "id=%00%", 1))
    done = muster(*sign)
    assert done.returncode != 0 and "is not in it" in done.stderr, done.stderr
    team.key("first").write_text("pkcs11:token=other\n")
    assert muster(*sign).returncode != 0


def test_a_token_is_named_whole_or_not_at_all(tmp_path, token):
    for flags in (["--token", LABEL], ["--module", MODULE], ["--pin-file", token.pin],
                  ["--token", "nobody's", "--module", MODULE, "--pin-file", token.pin],
                  ["--token", LABEL, "--module", tmp_path / "none.so", "--pin-file", token.pin]):
        done = muster("firmware", "keygen", "--out", tmp_path / "keys", *flags)
        assert done.returncode != 0 and "panicked" not in done.stderr, done.stdout
        assert not (tmp_path / "keys" / "release.key").exists()
