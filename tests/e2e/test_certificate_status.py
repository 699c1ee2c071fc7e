"""What the world is told of a certificate: revocation lists and OCSP, as other people's tools read them, and that both
agree with the registry."""

import base64
import json
import re
import subprocess
import time
import urllib.parse

import pytest

from server import Identity

LIMIT_S = 30


def run(*command, cwd=None, input=None):
    """A tool's exit code and everything it said."""
    given = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, **given)
    return done.returncode, done.stdout + done.stderr


def ok(*command, **how):
    code, text = run(*command, **how)
    assert code == 0, f"{command}\n{text}"
    return text


def fetch(url, to):
    ok("curl", "-sSf", "-o", to, url)
    return to


def issuing(server):
    return server.data / "ca/issuing.crt"


def leaf(identity, to):
    """The certificate without its chain."""
    to.write_text(ok("openssl", "x509", "-in", identity.certificate))
    return to


def pointers(identity):
    """The URLs in a certificate: its list, its responder, its issuer."""
    text = ok("openssl", "x509", "-in", identity.certificate, "-noout", "-text")
    (crl,) = re.findall(r"Full Name:\s+URI:(\S+)", text)
    (ocsp,) = re.findall(r"OCSP - URI:(\S+)", text)
    (issuer,) = re.findall(r"CA Issuers - URI:(\S+)", text)
    return crl, ocsp, issuer


def serial(identity):
    return int(ok("openssl", "x509", "-in", identity.certificate, "-noout", "-serial").strip().partition("=")[2], 16)


class Asking:
    """Tools that ask about a device of one server."""

    def __init__(self, server, directory):
        self.server, self.directory, self.number = server, directory, 0

    def fresh(self, suffix):
        self.number += 1
        return self.directory / f"{self.number}.{suffix}"

    def by_list(self, identity, url=None):
        """openssl's verdict with the list that the certificate names, or another."""
        crl = fetch(url or pointers(identity)[0], self.fresh("crl"))
        return run("openssl", "verify", "-crl_check", "-x509_strict", "-CAfile", self.server.root,
                   "-untrusted", identity.certificate, "-CRLfile", crl, identity.certificate)

    def by_ocsp(self, identity, *more, issuer=None):
        """openssl's reading of the responder's answer."""
        return run("openssl", "ocsp", "-issuer", issuer or issuing(self.server), "-cert", leaf(identity, self.fresh("crt")),
                   "-url", pointers(identity)[1], "-CAfile", self.server.root, "-verify_other", issuing(self.server), *more)

    def by_gnutls(self, identity, *more):
        return run("ocsptool", "--ask=" + pointers(identity)[1], "--load-cert", leaf(identity, self.fresh("crt")),
                   "--load-issuer", issuing(self.server), "--load-trust", issuing(self.server), *more)

    def state(self, identity):
        """What both say: good or revoked."""
        code, listed = self.by_list(identity)
        _, answered = self.by_ocsp(identity)
        assert "Response verify OK" in answered, answered
        revoked = "certificate revoked" in listed
        assert revoked or code == 0, listed
        assert (": revoked" in answered) is revoked and (": good" in answered) is not revoked, answered
        return "revoked" if revoked else "good"


@pytest.fixture
def asking(shared, tmp_path):
    return Asking(shared, tmp_path)


def test_list_and_responder_agree_on_each_device(shared, device, asking):
    lamps = [device() for _ in range(6)]
    assert [asking.state(lamp) for lamp in lamps] == ["good"] * 6
    gone = lamps[::2]
    for lamp in gone:
        shared.cli("device", "revoke", lamp.name, "--yes", "--reason", "keyCompromise")
    assert [asking.state(lamp) for lamp in lamps] == ["revoked", "good"] * 3
    # Deleted, it stays revoked; one that replaces it is good.
    shared.cli("device", "delete", gone[0].name, "--yes")
    assert asking.state(gone[0]) == "revoked"
    _, text = asking.by_ocsp(gone[0])
    assert "keyCompromise" in text, text


def test_what_is_inactive_is_on_hold_until_it_is_active_again(shared, device, asking):
    lamp = device()
    for _ in range(2):
        shared.cli("device", "deactivate", lamp.name, "--yes")
        assert asking.state(lamp) == "revoked"
        _, text = asking.by_ocsp(lamp)
        assert "certificateHold" in text, text
        shared.cli("device", "activate", lamp.name, "--yes")
        assert asking.state(lamp) == "good"
    assert "deactivate it" in shared.refused("device", "revoke", lamp.name, "--yes", "--reason", "certificateHold")
    shared.cli("device", "deactivate", lamp.name, "--yes")
    (check,) = shared.json("audit", "run", "--check", "revocation")["checks"]
    assert check["findings"] == []


def test_the_right_list_says_which_it_is_and_another_says_nothing(shared, device, asking):
    lamp = device()
    url = pointers(lamp)[0]
    count, index = map(int, re.search(r"/crl/(\d+)/(\d+)\.crl$", url).groups())
    assert (count, index) == (16, serial(lamp) % 16)
    text = ok("openssl", "crl", "-inform", "DER", "-in", fetch(url, asking.fresh("crl")), "-noout", "-text", "-CAfile", issuing(shared))
    assert "verify OK" in text and f"URI:{url}" in text, text
    assert re.search(r"Issuing Distribution Point: critical", text), text
    code, text = asking.by_list(lamp, url.replace(f"/{index}.crl", f"/{(index + 1) % 16}.crl"))
    assert code != 0 and "different CRL scope" in text, text
    # The list of every certificate, which those of older releases name, goes for all.
    whole = f"http://localhost:{shared.port('http')}/crl/0.crl"
    assert asking.by_list(lamp, whole)[0] == 0
    shared.cli("device", "revoke", lamp.name, "--yes")
    code, text = asking.by_list(lamp, whole)
    assert code != 0 and "certificate revoked" in text, text
    for unknown in (f"/crl/16/16.crl", "/crl/8/1.crl", "/crl/16/x.crl", "/crl/x/0.crl", "/crl/16/01.crl"):
        code, _ = run("curl", "-sSf", "-o", "/dev/null", whole.replace("/crl/0.crl", unknown))
        assert code == 22, unknown


def test_a_revocation_signs_its_own_list_anew_and_no_other(server, tmp_path):
    asking = Asking(server, tmp_path)
    lamp = server.device("lamp-1")
    base = pointers(lamp)[0].rpartition("/")[0]

    def numbers():
        texts = [ok("openssl", "crl", "-inform", "DER", "-in", fetch(f"{base}/{i}.crl", asking.fresh("crl")), "-noout", "-crlnumber") for i in range(16)]
        return [int(text.strip().partition("=")[2], 16) for text in texts]

    before = numbers()
    server.cli("device", "revoke", "lamp-1", "--yes")
    after = numbers()
    changed = [index for index in range(16) if before[index] != after[index]]
    assert changed == [serial(lamp) % 16] and after[changed[0]] > before[changed[0]]


def test_gnutls_reads_both(shared, device, asking):
    lamp, other = device(), device()
    shared.cli("device", "revoke", lamp.name, "--yes", "--reason", "superseded")
    for identity, state in ((lamp, "revoked"), (other, "good")):
        code, text = asking.by_gnutls(identity)
        assert code == 0 and f"Certificate Status: {state}" in text, text
        assert "Verifying OCSP Response: Success" in text or "Success" in text, text
    crl = fetch(pointers(lamp)[0], asking.fresh("crl"))
    text = ok("certtool", "--crl-info", "--inder", "--infile", crl)
    assert "%x" % serial(lamp) in text.replace(":", ""), text
    chain = asking.fresh("pem")
    chain.write_text(lamp.certificate.read_text() + shared.root.read_text())
    pem = asking.fresh("pem")
    ok("openssl", "crl", "-inform", "DER", "-in", crl, "-out", pem)
    text = ok("certtool", "--verify-crl", "--infile", pem, "--load-ca-certificate", issuing(shared))
    assert "Verified" in text and "Not verified" not in text, text


@pytest.mark.parametrize("digest", ["-sha1", "-sha256", "-sha384", "-sha512"])
def test_every_way_to_name_a_certificate(shared, device, asking, digest):
    lamp = device()
    code, text = run("openssl", "ocsp", digest, "-issuer", issuing(shared), "-cert", leaf(lamp, asking.fresh("crt")),
                     "-url", pointers(lamp)[1], "-CAfile", shared.root, "-verify_other", issuing(shared))
    assert code == 0 and "Response verify OK" in text and ": good" in text, text
    assert "WARNING: no nonce" not in text, "the nonce comes back"


def asked(server, tmp_path, *certificates, more=()):
    """A request as DER."""
    to = tmp_path / "request.der"
    ok("openssl", "ocsp", "-issuer", issuing(server), *certificates, "-reqout", to, *more)
    return to.read_bytes()


def answer(server, url, *options, body=None):
    """Status, type and text of an answer over plain HTTP."""
    posted = ["--data-binary", "@-", "-H", "Content-Type: application/ocsp-request"] if body is not None else []
    done = subprocess.run(["curl", "-sS", "-w", "\n%{http_code} %{content_type}", *options, *posted, url], input=body,
                          stdin=None if body is not None else subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=True)
    der, _, last = done.stdout.rpartition(b"\n")
    return last.decode(), der


def read(der, tmp_path):
    place = tmp_path / "answer.der"
    place.write_bytes(der)
    return run("openssl", "ocsp", "-respin", place, "-resp_text", "-noverify")[1]


def test_get_in_every_spelling(shared, device, tmp_path):
    lamp = device()
    url = pointers(lamp)[1]
    der = asked(shared, tmp_path, "-serial", hex(serial(lamp)), more=["-no_nonce"])
    text = base64.b64encode(der).decode()
    for spelled in (urllib.parse.quote(text, safe=""), urllib.parse.quote(text, safe="/"), text):
        said, found = answer(shared, f"{url}/{spelled}")
        assert said == "200 application/ocsp-response"
        assert "Cert Status: good" in read(found, tmp_path)


def test_unknown_unauthorized_and_malformed(shared, device, tmp_path):
    lamp = device()
    url = pointers(lamp)[1]
    known, unknown = hex(serial(lamp)), hex(serial(lamp) + 1)
    said, der = answer(shared, url, body=asked(shared, tmp_path, "-serial", unknown))
    assert "Cert Status: unknown" in read(der, tmp_path)
    said, der = answer(shared, url, body=asked(shared, tmp_path, "-serial", known, "-serial", unknown, "-serial", "0x1"))
    assert re.findall(r"Cert Status: (\w+)", read(der, tmp_path)) == ["good", "unknown", "unknown"]
    # Another issuer's certificates are not for us to speak of.
    foreign = tmp_path / "foreign.crt"
    ok("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", tmp_path / "foreign.key", "-subj", "/CN=Foreign", "-out", foreign)
    request = tmp_path / "foreign.der"
    ok("openssl", "ocsp", "-issuer", foreign, "-serial", "0x5", "-reqout", request)
    said, der = answer(shared, url, body=request.read_bytes())
    assert said == "200 application/ocsp-response" and "unauthorized" in read(der, tmp_path)
    # The root is another issuer than the one that the responder speaks for.
    ok("openssl", "ocsp", "-issuer", shared.root, "-cert", issuing(shared), "-reqout", request)
    assert "unauthorized" in read(answer(shared, url, body=request.read_bytes())[1], tmp_path)
    whole = asked(shared, tmp_path, "-serial", known)
    for rubbish in (b"", b"\x30", b"junk", whole[:-1], whole + b"\0", b"\x30\x84\xff\xff\xff\xff", b"A" * 100_000):
        said, der = answer(shared, url, body=rubbish)
        assert said == "200 application/ocsp-response" and "malformedrequest" in read(der, tmp_path), rubbish[:20]
    for spelled in ("%21%21", "AAAA", "x" * 9000):
        assert "malformedrequest" in read(answer(shared, f"{url}/{spelled}")[1], tmp_path)
    assert answer(shared, url)[0].startswith("405")


def test_the_responders_certificate_answers_and_does_nothing_else(shared, device, tmp_path):
    lamp = device()
    _, der = answer(shared, pointers(lamp)[1], body=asked(shared, tmp_path, "-serial", hex(serial(lamp))))
    text = read(der, tmp_path)
    assert "OCSP No Check" in text and "OCSP Signing" in text, text
    assert text.count("X509v3 Extended Key Usage") == 1 and "TLS Web" not in text


def test_the_servers_own_certificate_is_stapled_and_not_revoked(shared):
    for listener in ("https", "mqtt", "wss"):
        text = run("openssl", "s_client", "-connect", "localhost:%d" % shared.port(listener), "-servername", "localhost", "-CAfile", shared.root, "-status")[1]
        assert "OCSP Response Status: successful" in text and "Cert Status: good" in text, text
    code, text = run("gnutls-cli", "--x509cafile", shared.root, "--ocsp", "localhost:%d" % shared.port("https"), input="")
    assert "Status: The certificate is trusted" in text, text


def test_an_operators_certificate_is_known_and_revoked_when_it_goes(server, tmp_path):
    import api

    asking = Asking(server, tmp_path)
    status, _, made = api.call(server, "POST", "/muster/v1/operators", {"name": "ada", "role": "viewer"})
    assert status == 200, made
    place = tmp_path / "ada.crt"
    place.write_text(made["certificatePem"])
    ada = Identity(place, place, server.root, "ada")
    admin = Identity(server.data / "operators/admin.crt", server.data / "operators/admin.key", server.root, "admin")
    assert asking.state(ada) == asking.state(admin) == "good"
    assert api.call(server, "DELETE", "/muster/v1/operators/ada")[0] == 200
    assert asking.state(ada) == "revoked" and asking.state(admin) == "good"


def test_lists_and_answers_after_another_url_and_number_of_lists(server, tmp_path):
    """Certificates of before keep their list, under the path and the URL that they name."""
    asking = Asking(server, tmp_path)
    before = server.device("before")
    settings = tmp_path / "settings.toml"
    settings.write_text("[ca]\ncrl_shards = 4\n")
    elsewhere = f"http://127.0.0.1:{server.port('http')}"
    server.restart("--config", str(settings), "--public-url", elsewhere)
    after = server.device("after")
    assert pointers(after)[0] == f"{elsewhere}/crl/4/{serial(after) % 4}.crl"
    assert "/crl/16/" in pointers(before)[0]
    assert asking.state(before) == asking.state(after) == "good"
    for name in ("before", "after"):
        server.cli("device", "revoke", name, "--yes")
    assert asking.state(before) == asking.state(after) == "revoked"
    server.kill9()
    server.start()
    assert asking.state(before) == asking.state(after) == "revoked"


def test_an_audit_finds_that_registry_lists_and_responder_agree(server, device, tmp_path):
    for number in range(5):
        server.device(f"lamp-{number}")
    server.cli("device", "revoke", "lamp-0", "--yes")
    server.cli("device", "delete", "lamp-1", "--yes")
    (check,) = [check for check in server.json("audit", "list")["checks"] if check["name"] == "revocation"]
    assert "OCSP" in check["description"]
    report = server.json("audit", "run")
    (ran, *of_policies) = report["checks"]
    assert [check["name"] for check in of_policies] == ["deny-fails-open", "policy-matches-nothing"]
    assert all((check["findings"], check["examined"]) == ([], 1) for check in of_policies)
    assert ran["name"] == "revocation" and ran["findings"] == []
    # Four devices are left, the server's and the admin's certificates and the deleted one stand beside them.
    assert ran["examined"] >= 4
    assert "no finding" in server.cli("audit", "run")


def test_the_servers_certificate_renews_itself_and_no_connection_notices(make_server, tmp_path, connect):
    settings = tmp_path / "settings.toml"
    # It is renewed when a third of its life is left: a few seconds after it was made.
    settings.write_text("[ca]\nserver_validity_seconds = 40\n")
    server = make_server("--config", str(settings))
    lamp = server.device("lamp-1")
    client = connect(server, lamp)

    def shown(listener):
        text = run("openssl", "s_client", "-connect", "localhost:%d" % server.port(listener), "-CAfile", server.root, "-status")[1]
        assert "Cert Status: good" in text, text
        assert "Verify return code: 0 (ok)" in text or "certificate required" in text, text
        # Before it stands the responder's.
        return text[text.index("\nServer certificate\n"):].partition("-----END")[0]

    first = shown("https")
    deadline = time.monotonic() + 60
    while shown("https") == first:
        assert time.monotonic() < deadline, "it was not renewed"
        time.sleep(0.2)
    assert shown("mqtt") == shown("wss") != first
    server.said("the server's certificate was renewed")
    assert client.alive()
    assert connect(server, server.device("lamp-2")).alive()
    assert server.json("audit", "run")["checks"][0]["findings"] == []
