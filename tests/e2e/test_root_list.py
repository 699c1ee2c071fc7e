"""The root's own revocation list: an issuing certificate is withdrawn, wherever the root's key is, as openssl sees it."""

import re

import pytest

from devices import eventually
from server import muster
from test_authority import passphrase
from test_ceremony import MADE, hold
from test_certificate_status import fetch, leaf, ok, pointers, run

assert passphrase and hold


def list_url(certificate):
    found = re.findall(r"Full Name:\s+URI:(\S+)", ok("openssl", "x509", "-in", certificate, "-noout", "-text"))
    return found[0] if found else None


def issuing(server, number):
    return server.data / ("ca/issuing.crt" if number == 1 else f"ca/issuing-{number}/issuing.crt")


def followed(server, identity, number, directory):
    """What openssl says of a device when it looks at every list from the root down."""
    directory.mkdir(exist_ok=True)
    issuer = issuing(server, number)
    whole, own = fetch(list_url(issuer), directory / "root.crl"), fetch(pointers(identity)[0], directory / "own.crl")
    alone = leaf(identity, directory / "leaf.crt")
    code, said = run("openssl", "verify", "-crl_check_all", "-x509_strict", "-CAfile", server.root, "-untrusted", issuer,
                     "-CRLfile", whole, "-CRLfile", own, alone)
    assert code == 0 or "error 23 at 1 depth" in said and "certificate revoked" in said, said
    assert run("openssl", "verify", "-crl_check", "-CAfile", server.root, "-untrusted", issuer, "-CRLfile", own, alone)[0] == 0
    return "good" if code == 0 else "revoked"


def own_issuer(server):
    return ok("openssl", "x509", "-in", server.data / "tls/server.pem", "-noout", "-issuer").strip()


def states(server):
    return [one.get("revoked", {}).get("reason") for one in server.json("ca", "show")["issuing"]]


def test_a_former_issuing_certificate_is_withdrawn(server, connect, tmp_path):
    old = server.device("lamp-1")
    session = connect(server, old)
    assert followed(server, old, 1, tmp_path / "a") == "good"
    assert list_url(issuing(server, 1)).endswith("/crl/root-1.crl")
    assert "rotate-issuing" in server.refused("ca", "revoke-issuing", "1", "--yes")
    server.cli("ca", "rotate-issuing")
    new = server.device("lamp-2")
    before = own_issuer(server)
    assert "certificateHold" in server.refused("ca", "revoke-issuing", "1", "--reason", "certificateHold", "--yes")
    server.cli("ca", "revoke-issuing", "1", "--reason", "cACompromise", "--yes")
    assert "already" in server.refused("ca", "revoke-issuing", "1", "--yes")
    # The server shows a certificate that is followed still.
    eventually(lambda: own_issuer(server) != before, "another certificate of the server's own")
    assert followed(server, new, 2, tmp_path / "b") == "good"

    def so():
        assert followed(server, old, 1, tmp_path / "a") == "revoked"
        assert states(server) == ["cACompromise", None]
        assert "issuing 1 (revoked, cACompromise" in server.cli("ca", "show")
        # The registry knows each device: those of before come in, and get another certificate.
        assert connect(server, old).alive()
    so()
    assert session.alive()
    server.kill9()
    server.start()
    so()
    server.cli("device", "replace", "lamp-1", "--out", tmp_path / "again", "--yes")
    for path in ("crl/root-2.crl", "crl/root-01.crl", "crl/root-1.crt", "crl/root-.crl"):
        assert run("curl", "-sSf", f"http://{server.place('http')}/{path}")[0] != 0, path
    assert server.json("audit", "run")["checks"][0]["findings"] == []


def test_with_the_root_elsewhere(server, passphrase, tmp_path):
    key, given = tmp_path / "root.pem", ("--passphrase-file", passphrase)
    server.device("lamp-1")
    server.cli("ca", "take-root-offline", "--out", key, *given, "--yes")
    server.cli("ca", "rotate-issuing", "--root-key", key, *given)
    assert list_url(issuing(server, 2)).endswith("/crl/root-1.crl")
    assert "offline" in server.refused("ca", "revoke-issuing", "1", "--yes")
    assert "issuing certificate 2 signs" in server.refused("ca", "revoke-issuing", "2", "--root-key", key, *given, "--yes")
    server.cli("ca", "revoke-issuing", "1", "--reason", "superseded", "--root-key", key, *given, "--yes")
    assert states(server) == ["superseded", None]
    assert not (server.data / "ca/root.key").exists()

    # On the machine that has the key and no server: the one that signs is withdrawn.
    former, new, made = tmp_path / "former.pem", tmp_path / "new.pem", server.device("lamp-2")
    former.write_text(server.cli("ca", "root-list"))
    ok("openssl", "crl", "-in", former, "-CAfile", server.root, "-noout")
    sign = ("ca", "sign-root-list", "--root", server.root, "--root-key", key, *given, "--revoke", issuing(server, 2))
    signed = muster(*sign, "--reason", "keyCompromise", "--former", former, "--out", new)
    assert signed.returncode == 0, signed.stderr
    # One that forgets what is revoked is not taken.
    forked = tmp_path / "forked.pem"
    assert muster(*sign, "--out", forked).returncode == 0
    assert "number is 1" in server.refused("ca", "root-list", "--list", forked)
    # DER, as others sign it.
    der = tmp_path / "new.crl"
    ok("openssl", "crl", "-in", new, "-outform", "DER", "-out", der)
    server.cli("ca", "root-list", "--list", der)
    assert followed(server, made, 2, tmp_path / "b") == "revoked"
    assert "revoked (keyCompromise), and nothing is issued" in server.cli("status")
    assert "issuing certificate 2 is revoked" in server.refused("device", "create", "lamp-3", "--out", tmp_path / "lamp-3")
    server.restart()
    server.said("the issuing certificate is revoked and nothing is issued")
    assert server.terminate() == 0
    server.start("--rotate-issuing", "--root-key", str(key), *map(str, given))
    server.said("the issuing certificate was revoked: the next one was made", "number=3")
    assert followed(server, server.device("lamp-3"), 3, tmp_path / "c") == "good"
    assert states(server) == ["superseded", "keyCompromise", None]
    assert "nothing is issued" not in server.cli("status")


def test_a_ceremonys_authority_names_the_list(make_server, hold, passphrase, tmp_path):
    server = make_server(start=False)
    text = 'public_url = "http://ca.works.example:8880/"\n' + MADE.format(passphrase=passphrase)
    bad = hold(server, text.replace("http:", "ftp:"), "--passphrase-file", passphrase)
    assert bad.returncode != 0 and "public_url" in bad.stderr and not (tmp_path / "ceremony.txt").exists()
    assert hold(server, text, "--passphrase-file", passphrase).returncode == 0
    url = "http://ca.works.example:8880/crl/root-1.crl"
    assert list_url(server.data / "ca/issuing.crt") == url
    assert f"found at {url}" in (tmp_path / "ceremony.txt").read_text()
    said = ok("openssl", "crl", "-inform", "DER", "-in", server.data / "ca/revoked.crl", "-CAfile", server.data / "ca/root.crt",
              "-noout", "-crlnumber")
    assert "0x01" in said or "=01" in said, said


@pytest.mark.parametrize("bad", ["-----BEGIN X509 CRL-----\nAA", "nonsense"])
def test_what_is_no_list_is_not_taken(server, tmp_path, bad):
    file = tmp_path / "list"
    file.write_text(bad)
    said = server.refused("ca", "root-list", "--list", file)
    assert "whole" in said and "panicked" not in said, said
    assert states(server) == [None]
