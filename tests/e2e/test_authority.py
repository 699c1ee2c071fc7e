"""The authority's own life: its root taken away, its issuing certificates following one another while devices notice
nothing."""

import base64
import json
import re
import shutil
import threading

import pytest

import api
from devices import Agent, eventually
from server import NotReady, VERB_LIMIT_S, muster
from test_certificate_status import fetch, leaf, ok, pointers, run
from test_mistakes import clock

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def passphrase(tmp_path):
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    return path


def issuers(server):
    return [one["number"] for one in server.json("ca", "show")["issuing"]]


def state(server, identity, directory):
    """What the list and the responder that a certificate names say of it, to openssl: good or revoked, both."""
    directory.mkdir(exist_ok=True)
    crl_url, ocsp_url, issuer_url = pointers(identity)
    issuer = directory / "issuer.crt"
    issuer.write_text(ok("openssl", "x509", "-inform", "DER", "-in", fetch(issuer_url, directory / "issuer.der")))
    crl = fetch(crl_url, directory / "list.crl")
    alone = leaf(identity, directory / "leaf.crt")
    code, listed = run("openssl", "verify", "-crl_check", "-x509_strict", "-CAfile", server.root, "-untrusted", issuer,
                       "-CRLfile", crl, alone)
    revoked = "certificate revoked" in listed
    assert revoked or code == 0, listed
    _, answered = run("openssl", "ocsp", "-issuer", issuer, "-cert", alone, "-url", ocsp_url, "-CAfile", server.root,
                      "-verify_other", issuer)
    assert "Response verify OK" in answered, answered
    assert (": revoked" in answered) is revoked and (": good" in answered) is not revoked, answered
    return "revoked" if revoked else "good"


def test_the_root_leaves_and_the_server_lives_on(server, connect, passphrase, tmp_path):
    lamp = connect(server, server.device("lamp-1"))
    root_key, out = server.data / "ca/root.key", tmp_path / "root.key"
    public = ok("openssl", "pkey", "-in", root_key, "-pubout")
    short = tmp_path / "short"
    short.write_text("short")
    assert "12 characters" in server.refused("ca", "take-root-offline", "--out", out, "--passphrase-file", short, "--yes")
    assert "passphrase is needed" in server.refused("ca", "take-root-offline", "--out", out, "--yes")
    assert root_key.exists() and not out.exists()
    server.cli("ca", "take-root-offline", "--out", out, "--passphrase-file", passphrase, "--yes")
    assert not root_key.exists()
    assert out.stat().st_mode & 0o077 == 0
    # What was written is what openssl reads, under that passphrase alone.
    assert ok("openssl", "pkey", "-in", out, "-passin", f"file:{passphrase}", "-pubout") == public
    assert run("openssl", "pkey", "-in", out, "-passin", "pass:another one", "-noout")[0] != 0
    assert server.json("ca", "show")["rootKey"] == "offline"
    assert "offline" in server.refused("ca", "take-root-offline", "--out", tmp_path / "x", "--passphrase-file", passphrase, "--yes")
    assert lamp.alive()
    server.kill9()
    server.start()
    connect(server, server.device("lamp-2"))
    assert "offline" in server.refused("ca", "rotate-issuing")
    # Brought for one act, it signs the next issuing certificate and stays nowhere.
    wrong = tmp_path / "wrong"
    wrong.write_text("another passphrase")
    assert "passphrase" in server.refused("ca", "rotate-issuing", "--root-key", out, "--passphrase-file", wrong)
    server.cli("ca", "rotate-issuing", "--root-key", out, env={**server.env, "MUSTER_PASSPHRASE": PASSPHRASE})
    assert issuers(server) == [1, 2]
    assert not root_key.exists()
    secret = PASSPHRASE.encode()
    assert not any(secret in file.read_bytes() for file in server.data.rglob("*") if file.is_file())
    assert PASSPHRASE not in server.stderr()
    connect(server, server.device("lamp-3"))


def test_devices_of_both_intermediates_live_side_by_side(server, connect, passphrase, tmp_path):
    old, gone = server.device("old", "--policy", "device-default"), server.device("gone")
    live = connect(server, old)
    assert live.subscribe("cmd/old/x", 1) == 1
    made = server.json("ca", "rotate-issuing")
    assert made["number"] == 2 and issuers(server) == [1, 2]
    new, lost = server.device("new"), server.device("lost")
    # Nobody was disturbed, both come in, with and without their chain, and both speak.
    assert live.alive()
    both = [old, new]
    assert pointers(old)[2] != pointers(new)[2]
    for one in both:
        client = connect(server, one, client_id=one.name)
        assert client.publish(f"dt/{one.name}/x", b"hello") == 0
        client.close()
        bare = tmp_path / f"bare-{one.name}"
        bare.mkdir()
        alone = type(one)(leaf(one, bare / "leaf.crt"), one.key, one.root, one.name)
        connect(server, alone).close()
        assert run("openssl", "verify", "-x509_strict", "-CAfile", server.root, "-untrusted", one.certificate, one.certificate)[0] == 0
    assert [state(server, one, tmp_path / one.name) for one in (old, gone, new, lost)] == ["good"] * 4
    sessions = [connect(server, gone), connect(server, lost)]
    for one in (gone, lost):
        server.cli("device", "revoke", one.name, "--yes")
    assert [session.end().reason for session in sessions] == [0x98, 0x98]
    assert [state(server, one, tmp_path / one.name) for one in (old, gone, new, lost)] == ["good", "revoked"] * 2
    # A list has its own issuer's certificates alone, and no issuer answers for another's.
    for one, other in ((gone, lost), (lost, gone)):
        serial = ok("openssl", "x509", "-in", other.certificate, "-noout", "-serial").strip().partition("=")[2]
        count, index = re.search(r"/(\d+)/(\d+)\.crl$", pointers(other)[0]).groups()
        prefix = re.sub(r"\d+/\d+\.crl$", "", pointers(one)[0])
        text = ok("openssl", "crl", "-inform", "DER", "-text", "-noout", "-in", fetch(f"{prefix}{count}/{index}.crl", tmp_path / "crl"))
        assert serial not in text
        _, answered = run("openssl", "ocsp", "-issuer", tmp_path / one.name / "issuer.crt", "-serial", f"0x{serial}",
                          "-url", pointers(one)[1], "-CAfile", server.root, "-verify_other", tmp_path / one.name / "issuer.crt")
        assert ": unknown" in answered, answered
    assert server.json("audit", "run")["checks"][0]["findings"] == []
    # EST shows what is current.
    text = ok("curl", "-sSf", "--cacert", server.root, f"https://localhost:{server.port('https')}/.well-known/est/cacerts")
    cms = tmp_path / "cacerts"
    cms.write_bytes(base64.b64decode(text))
    shown = ok("openssl", "pkcs7", "-inform", "DER", "-print_certs", "-in", cms)
    assert shown.count("BEGIN CERTIFICATE") == 3 and "Issuing CA 2" in shown
    server.kill9()
    server.start()
    assert issuers(server) == [1, 2]
    assert [state(server, one, tmp_path / one.name) for one in (old, gone, new, lost)] == ["good", "revoked"] * 2
    connect(server, old)
    connect(server, new)


def test_an_intermediate_signed_elsewhere_is_taken(server, connect, tmp_path):
    """The request goes out, openssl signs it with the root's key, the certificate comes in; then one with its key."""
    csr, certificate, root_key = tmp_path / "next.csr", tmp_path / "next.crt", server.data / "ca/root.key"
    extensions = tmp_path / "extensions"
    extensions.write_text(
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
    signed = ("-CA", server.root, "-CAkey", root_key, "-CAcreateserial", "-CAserial", tmp_path / "serial", "-days", "1000")
    server.cli("ca", "rotate-issuing", "--csr-out", csr)
    assert "is there already" in server.refused("ca", "rotate-issuing", "--csr-out", csr)
    ok("openssl", "x509", "-req", "-in", csr, *signed, "-out", certificate)
    assert "not an authority's" in server.refused("ca", "rotate-issuing", "--cert", certificate)
    ok("openssl", "x509", "-req", "-in", csr, *signed, "-extfile", extensions, "-out", certificate)
    server.cli("ca", "rotate-issuing", "--cert", certificate)
    assert issuers(server) == [1, 2]
    lamp = server.device("lamp-1")
    connect(server, lamp)
    assert state(server, lamp, tmp_path / "lamp-1") == "good"

    key, own = tmp_path / "own.key", tmp_path / "own.crt"
    ok("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-aes256", "-pass", f"pass:{PASSPHRASE}", "-out", key)
    ok("openssl", "req", "-new", "-key", key, "-passin", f"pass:{PASSPHRASE}", "-subj", "/O=Works/CN=Works Devices CA", "-out", csr)
    ok("openssl", "x509", "-req", "-in", csr, *signed, "-extfile", extensions, "-out", own)
    assert "passphrase" in server.refused("ca", "rotate-issuing", "--cert", own, "--key", key)
    server.cli("ca", "rotate-issuing", "--cert", own, "--key", key, env={**server.env, "MUSTER_PASSPHRASE": PASSPHRASE})
    assert issuers(server) == [1, 2, 3]
    lamp = server.device("lamp-2")
    assert "Works Devices CA" in ok("openssl", "x509", "-in", lamp.certificate, "-noout", "-issuer")
    connect(server, lamp)
    assert state(server, lamp, tmp_path / "lamp-2") == "good"
    server.cli("device", "revoke", "lamp-2", "--yes")
    assert state(server, lamp, tmp_path / "lamp-2") == "revoked"


def test_an_agent_renews_under_the_next_intermediate(make_server, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text("[ca]\ndevice_validity_seconds = 60\n")
    server = make_server("--config", str(settings))
    agent = Agent(server, server.device("lamp-1"), tmp_path / "agents" / "lamp-1")
    try:
        eventually(lambda: "connected to" in agent.said(), agent.said, 30)
        server.cli("ca", "rotate-issuing")
        issuer = lambda: ok("openssl", "x509", "-in", agent.identity.certificate, "-noout", "-issuer")
        eventually(lambda: "Issuing CA 2" in issuer(), agent.said, 90)
        # Its file has the new chain, and the old certificate is retired because the new one was used.
        eventually(lambda: any(c["status"] == "INACTIVE" for c in server.json("device", "show", "lamp-1")["certificates"]), agent.said, 60)
        verified = ok("openssl", "verify", "-CAfile", server.root, "-untrusted", agent.identity.certificate, agent.identity.certificate)
        assert "OK" in verified
        assert agent.process.poll() is None
    finally:
        agent.stop()


def test_killed_while_it_rotates_it_has_one_or_the_other(server, connect):
    lamp = server.device("lamp-1")
    for _ in range(5):
        before = issuers(server)
        rotating = threading.Thread(target=lambda: server.run("ca", "rotate-issuing"))
        rotating.start()
        eventually(lambda: (server.data / f"ca/issuing-{before[-1] + 1}").exists() or not rotating.is_alive(), "the rotation", VERB_LIMIT_S)
        server.kill9()
        rotating.join(VERB_LIMIT_S)
        server.start()
        after = issuers(server)
        assert after in (before, [*before, before[-1] + 1])
        assert not list((server.data / "ca").glob(".issuing-*"))
        connect(server, lamp).close()
        connect(server, server.device(f"lamp-{len(after)}-{_}")).close()


def test_operators_renew_themselves_and_status_says_what_does_not(server, connect, tmp_path):
    """Ten months on, by the server's clock: the admin's certificate is another, over the same key, and is believed."""
    file = server.data / "operators/admin.crt"
    before = file.read_text()
    assert server.cli("status").strip() == "running"
    path, body = "/muster/v1/operators", b'{"name":"ada","role":"viewer"}'
    made = api.send(server, "POST", path, api.signed(server, "POST", path, body), body)
    assert made[0] == 200, made
    server.terminate()
    server.wrapper = [*clock(f"+{300 * 24}h")]
    server.start()
    assert file.read_text() != before
    key = server.data / "operators/admin.key"
    url = f"https://localhost:{server.port('https')}/muster/v1/status"
    shown = ok(*server.wrapper, "curl", "-sSf", "--cacert", server.root, "--cert", file, "--key", key, url)
    assert [one["what"] for one in json.loads(shown)["ending"]] == ["certificate of operator ada"]
    told = muster("status", "--data", server.data, wrapper=server.wrapper).stdout
    assert "certificate of operator ada ends" in told and "an admin" in told
    # Four years on the issuing certificate is in its last third.
    server.terminate()
    server.wrapper = [*clock(f"+{4 * 365 * 24}h")]
    server.start()
    told = muster("status", "--data", server.data, wrapper=server.wrapper).stdout
    assert "muster ca rotate-issuing" in told


def test_a_registry_is_of_the_authority_that_it_began_with(make_server, connect):
    """Its directory not mounted, empty, or another server's: refused, as any of its files is; back again, all is well."""
    server, other = make_server(), make_server()
    lamp = server.device("lamp-1")
    for one in (server, other):
        one.terminate()
    place, away = server.data / "ca", server.data / "away"
    place.rename(away)

    def refused(words):
        with pytest.raises(NotReady) as failed:
            server.start()
        assert words in failed.value.stderr and "backup" in failed.value.stderr, failed.value.stderr

    refused("is missing or empty")
    assert not place.exists()
    place.mkdir()
    refused("is missing or empty")
    place.rmdir()
    shutil.copytree(other.data / "ca", place)
    refused("devices do not trust this one")
    shutil.rmtree(place)
    away.rename(place)
    server.start()
    connect(server, lamp)


def test_a_certificate_that_is_deleted_is_good_for_nobody(server, tmp_path):
    """AWS's order: inactive, detached, deleted. No row is left of it, and whoever has it shows it elsewhere in vain."""
    lamp, kept = server.device("lamp-1"), server.device("lamp-2")
    iot = api.iot(server)
    [arn] = iot.list_thing_principals(thingName="lamp-1")["principals"]
    certificate = arn.rpartition("/")[2]
    assert state(server, lamp, tmp_path / "before") == "good"
    iot.update_certificate(certificateId=certificate, newStatus="INACTIVE")
    iot.delete_certificate(certificateId=certificate, forceDelete=True)
    assert state(server, lamp, tmp_path / "after") == "revoked"
    assert state(server, kept, tmp_path / "kept") == "good"
    server.kill9()
    server.start()
    assert state(server, lamp, tmp_path / "later") == "revoked"
    assert server.json("audit", "run")["checks"][0]["findings"] == []
