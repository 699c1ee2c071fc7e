"""Where the authority's keys are: in encrypted files, or in a token (SoftHSM) that they never leave."""

import os
import shutil

import pytest

from server import NotReady, muster
from test_authority import issuers, state
from test_certificate_status import ok

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
LABEL, PIN = "muster test", "824613"
PASSPHRASE = "correct horse battery staple"


class Token:
    """A token of its own in a directory, and the environment a server finds it by."""

    def __init__(self, directory):
        self.tokens = directory / "tokens"
        self.tokens.mkdir(parents=True)
        conf = directory / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.away = directory / "away"
        os.environ["SOFTHSM2_CONF"] = str(conf)
        ok("softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", PIN)
        self.pin = directory / "pin"
        self.pin.write_text(PIN + "\n")
        self.settings = directory / "settings.toml"
        self.settings.write_text(
            f'[ca]\nkey_custody = "pkcs11"\npkcs11_module = "{MODULE}"\npkcs11_token = "{LABEL}"\npkcs11_pin_file = "{self.pin}"\n')

    def unplug(self):
        shutil.move(self.tokens, self.away)
        self.tokens.mkdir()

    def plug(self):
        self.tokens.rmdir()
        shutil.move(self.away, self.tokens)


@pytest.fixture
def token(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    return Token(tmp_path / "hsm")


def private_keys(server):
    """Files of the authority that hold a private key."""
    return [file.name for file in (server.data / "ca").rglob("*") if file.is_file() and b"PRIVATE KEY" in file.read_bytes()]


def test_keys_are_made_in_the_token_and_never_leave_it(make_server, connect, token, tmp_path):
    server = make_server("--config", str(token.settings))
    lamp = server.device("lamp-1")
    connect(server, lamp)
    assert private_keys(server) == []
    assert sorted(file.name for file in (server.data / "ca").glob("*.pkcs11")) == ["issuing.pkcs11", "root.pkcs11"]
    assert state(server, lamp, tmp_path / "lamp-1") == "good"
    assert "in a token" in server.refused(
        "ca", "take-root-offline", "--out", tmp_path / "root.key", "--passphrase-file", server_passphrase(tmp_path), "--yes")
    server.cli("ca", "rotate-issuing")
    server.kill9()
    server.start()
    assert issuers(server) == [1, 2] and private_keys(server) == []
    server.cli("device", "revoke", "lamp-1", "--yes")
    assert state(server, lamp, tmp_path / "lamp-1") == "revoked"
    other = server.device("lamp-2")
    connect(server, other)
    assert state(server, other, tmp_path / "lamp-2") == "good"
    assert PIN not in server.stderr()


def server_passphrase(directory):
    path = directory / "passphrase"
    path.write_text(PASSPHRASE)
    return path


def test_without_its_token_it_says_so_and_devices_stay(make_server, connect, token):
    server = make_server("--config", str(token.settings))
    lamp = server.device("lamp-1")
    live = connect(server, lamp)
    token.unplug()
    server.terminate()
    server.start()
    server.said("no token of that label is there")
    for verb in (("status",), ("ca", "show")):
        assert "no token of that label is there" in server.cli(*verb), verb
    live = connect(server, lamp)
    said = server.refused("device", "create", "lamp-2", "--out", str(server.home / "none"))
    assert LABEL in said and "no token of that label is there" in said
    assert live.publish("dt/lamp-1/x", b"still here") == 0
    # Plugged in again it is used, without a restart.
    token.plug()
    connect(server, server.device("lamp-2"))
    assert live.alive() and server.cli("status").splitlines()[0] == "running"


def test_a_token_that_cannot_be_used_stops_the_first_start(make_server, token):
    for name, change, words in [
        ("pin", lambda text: text, "PIN is another"),
        ("label", lambda text: text.replace(LABEL, "other"), "no token of that label"),
        ("module", lambda text: text.replace(MODULE, "/no/such.so"), "/no/such.so"),
        ("half", lambda text: "".join(line for line in text.splitlines(True) if "module" not in line), "pkcs11_module"),
    ]:
        settings = token.settings.with_name(f"{name}.toml")
        settings.write_text(change(token.settings.read_text()))
        token.pin.write_text("0000000\n" if name == "pin" else PIN)
        with pytest.raises(NotReady) as failed:
            make_server("--config", str(settings))
        assert words in str(failed.value), failed.value
        assert "panicked" not in str(failed.value)


def test_keys_in_the_clear_are_encrypted_and_open_under_the_passphrase_alone(make_server, connect, tmp_path):
    server = make_server()
    lamp = server.device("lamp-1")
    assert sorted(private_keys(server)) == ["issuing.key", "root.key"]
    passphrase, settings = server_passphrase(tmp_path), tmp_path / "settings.toml"
    settings.write_text(f'[ca]\nkey_custody = "encrypted-file"\nkey_passphrase_file = "{passphrase}"\n')
    server.restart("--config", str(settings))
    for file in (server.data / "ca").glob("*.key"):
        assert "BEGIN ENCRYPTED PRIVATE KEY" in file.read_text()
        ok("openssl", "pkey", "-in", file, "-passin", f"pass:{PASSPHRASE}", "-noout")
    connect(server, lamp)
    server.cli("ca", "rotate-issuing")
    connect(server, server.device("lamp-2"))
    assert "BEGIN ENCRYPTED PRIVATE KEY" in (server.data / "ca/issuing-2/issuing.key").read_text()
    server.terminate()
    passphrase.write_text("another passphrase")
    with pytest.raises(NotReady) as failed:
        server.start("--config", str(settings))
    assert "cannot be opened" in str(failed.value) and PASSPHRASE not in str(failed.value)


CEREMONY = """transcript = "ceremony.txt"
[root]
common_name = "Token Root CA"
key = "p384"
validity_days = 7300
[issuing]
common_name = "Token Devices CA"
key = "{kind}"
validity_days = 1825
[keys]
"""


@pytest.mark.parametrize("kind, said", [("p384", "secp384r1"), ("rsa3072", "(3072 bit)")])
def test_kinds_that_the_token_has(make_server, connect, token, tmp_path, kind, said):
    server = make_server("--config", str(token.settings), start=False)
    file = tmp_path / "ceremony.toml"
    file.write_text(CEREMONY.replace("{kind}", kind) + token.settings.read_text().replace("[ca]\n", ""))
    done = muster("ca", "ceremony", file, "--data", server.data, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert private_keys(server) == []
    server.start()
    text = ok("openssl", "x509", "-in", server.data / "ca/issuing.crt", "-noout", "-text")
    assert said in text, text
    lamp = server.device("lamp-1")
    connect(server, lamp)
    assert state(server, lamp, tmp_path / "lamp-1") == "good"
    # The root's key signs too, and so does that of its successor, of the same kind.
    server.cli("ca", "succeed-root")
    assert objects(token) == 4 * 2
    assert "secp384r1" in ok("openssl", "x509", "-in", server.data / "ca/root-2/root.crt", "-noout", "-text")
    server.cli("device", "revoke", "lamp-1", "--yes")
    assert state(server, lamp, tmp_path / "lamp-1") == "revoked"


def objects(token):
    """How many halves of keys lie in the token."""
    return len([file for file in token.tokens.rglob("*.object") if file.name != "token.object"])


def test_a_key_of_what_failed_does_not_stay_in_the_token(make_server, token, tmp_path):
    server = make_server("--config", str(token.settings))
    assert objects(token) == 2 * 2
    # Its place is taken.
    taken = server.data / "ca/issuing-2"
    (taken / "something").mkdir(parents=True)
    server.refused("ca", "rotate-issuing")
    server.said("cannot put the issuing certificate")
    assert issuers(server) == [1] and objects(token) == 2 * 2
    shutil.rmtree(taken)
    # A request that is not answered yet keeps its key, whatever fails beside it.
    server.cli("ca", "rotate-issuing", "--csr-out", tmp_path / "next.csr")
    assert objects(token) == 3 * 2
    server.refused("ca", "rotate-issuing", "--cert", server.root)
    assert objects(token) == 3 * 2
    # What a crash left half done goes at the next start, with its key.
    half = server.data / "ca/.issuing-2-half"
    half.mkdir()
    (half / "issuing.pkcs11").write_text((server.data / "ca/issuing-request.pkcs11").read_text())
    server.kill9()
    server.start()
    assert objects(token) == 3 * 2 and not half.exists()
