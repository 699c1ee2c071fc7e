"""Issuing certificates that have ended, were made under a wrong clock, or are missing from a copy of the authority that
was put back: each can be mended by the server's own commands."""

import shutil

import pytest

from clients import Paho
from server import NotReady, muster
from test_authority import PASSPHRASE, passphrase, state
from test_certificate_status import ok
from test_mistakes import clock

assert passphrase

LATER = clock("+1850d")


def refused(server, *flags):
    with pytest.raises(NotReady) as failed:
        server.start(*flags)
    assert failed.value.code not in (0, 101) and "panicked" not in failed.value.stderr, failed.value
    return failed.value.stderr


def verb(server, *arguments):
    done = muster(*arguments, "--data", server.data, wrapper=server.wrapper)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def offline(make_server, passphrase, tmp_path):
    """A server whose root's key is elsewhere and whose issuing certificate has ended; and where that key is."""
    server, key = make_server(), tmp_path / "root.pem"
    server.cli("ca", "take-root-offline", "--out", key, "--passphrase-file", passphrase, "--yes")
    assert server.terminate() == 0
    server.wrapper = [*LATER]
    assert "has really ended, start once with --rotate-issuing" in refused(server)
    said = refused(server, "--rotate-issuing")
    assert "--root-key FILE" in said and "--issuing-csr-out FILE" in said, said
    return server, key


def test_one_that_has_ended_and_the_root_offline(offline, passphrase, tmp_path):
    server, key = offline
    wrong = tmp_path / "wrong"
    wrong.write_text("another passphrase")
    assert "passphrase" in refused(server, "--rotate-issuing", "--root-key", str(key), "--passphrase-file", str(wrong))
    server.start("--rotate-issuing", "--root-key", str(key), "--passphrase-file", str(passphrase))
    server.said("the issuing certificate had ended: the next one was made", "number=2")
    verb(server, "device", "create", "lamp-1", "--out", tmp_path / "lamp-1")
    # The key did not stay, and what was given for one start is not needed for the next.
    assert not (server.data / "ca/root.key").exists()
    assert not (server.data / "ca/issuing-request.key").exists()
    assert PASSPHRASE not in server.stderr()
    server.restart()
    verb(server, "device", "create", "lamp-2", "--out", tmp_path / "lamp-2")
    assert "number=3" not in server.stderr()


def test_one_that_has_ended_and_the_next_signed_elsewhere(offline, passphrase, tmp_path):
    server, key = offline
    csr, certificate, extensions = tmp_path / "next.csr", tmp_path / "next.crt", tmp_path / "extensions"
    said = refused(server, "--rotate-issuing", "--issuing-csr-out", str(csr))
    assert "--rotate-issuing --issuing-cert FILE" in said, said
    extensions.write_text(
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")

    def sign(*more):
        (tmp_path / "more").write_text(extensions.read_text() + "".join(more))
        ok(*LATER, "openssl", "x509", "-req", "-in", csr, "-CA", server.root, "-CAkey", key, "-passin", f"file:{passphrase}", "-days", "1000",
           "-CAcreateserial", "-CAserial", tmp_path / "serial", "-extfile", tmp_path / "more", "-out", certificate)

    # One that leaves the server without its name would go live, and it could not start any more.
    sign("nameConstraints=critical,permitted;DNS:other.example\n")
    assert "permits only other.example" in refused(server, "--rotate-issuing", "--issuing-cert", str(certificate))
    sign("nameConstraints=critical,permitted;DNS:LocalHost\n")
    server.start("--rotate-issuing", "--issuing-cert", str(certificate))
    server.said("the issuing certificate had ended: the next one was made", "number=2")
    verb(server, "device", "create", "lamp-1", "--out", tmp_path / "lamp-1")


def test_one_made_while_the_clock_stood_ahead_waits(make_server, connect, tmp_path):
    """A start with --rotate-issuing in 2031, by mistake; today the one of before is good, and signs."""
    server = make_server()
    lamp = server.device("lamp-1")
    assert server.terminate() == 0
    server.wrapper = [*LATER]
    server.start("--rotate-issuing")
    server.said("the issuing certificate had ended", "number=2")
    assert server.terminate() == 0
    server.wrapper = []
    for flags in ((), ("--rotate-issuing",)):
        server.start(*flags)
        server.said("the newest issuing certificate is not valid yet", "number=2", "signing=1")
        assert [one["current"] for one in server.json("ca", "show")["issuing"]] == [True, False]
        other = server.device(f"lamp-{len(flags) + 2}")
        for device in (lamp, other):
            assert connect(server, device).alive()
        assert state(server, other, tmp_path / other.name) == "good"
        assert "issuing" not in server.cli("status")
        assert server.terminate() == 0
    server.start()
    # The next one begins today, and is the third.
    server.cli("ca", "rotate-issuing")
    assert [one["current"] for one in server.json("ca", "show")["issuing"]] == [False, False, True]
    assert connect(server, server.device("lamp-4")).alive()


def test_an_older_copy_of_the_authority_is_not_taken(make_server, connect, tmp_path):
    """Beside the registry of now it would speak for nothing that the newest issuing certificate signed."""
    server = make_server()
    lamp = server.device("lamp-1")
    server.terminate()
    place, older, newer = server.data / "ca", tmp_path / "older", tmp_path / "newer"
    shutil.copytree(place, older)
    server.start()
    server.cli("ca", "rotate-issuing")
    other = server.device("lamp-2")
    server.cli("device", "revoke", "lamp-2", "--yes")
    server.kill9()
    place.rename(newer)
    shutil.copytree(older, place)
    said = refused(server)
    assert "is older than the registry" in said and "issuing 2" in said and "Restore the ca directory" in said, said
    # Put back, all is as it was.
    shutil.rmtree(place)
    shutil.copytree(newer, place)
    server.start()
    assert state(server, other, tmp_path / "lamp-2") == "revoked"
    server.terminate()
    # Lost for good: said once by hand, and its number is not used again.
    shutil.rmtree(place)
    shutil.copytree(older, place)
    known = server.data / "authority"
    known.write_text(known.read_text().replace(" issuing 2\n", " issuing 2 lost\n"))
    server.start()
    server.said("a part of the authority is lost", "issuing 2")
    assert Paho(server, lamp).connect().alive()
    server.cli("ca", "rotate-issuing")
    assert [one["number"] for one in server.json("ca", "show")["issuing"]] == [1, 3]
    server.restart()
    assert connect(server, server.device("lamp-3")).alive()
