"""Certificates, lists and OCSP answers of every kind under pkilint, a linter that shares no code with us."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

LIMIT_S = 60
# A name and URL as an operator has them: the linter takes `localhost` for no name.
NAME = "muster.example"
URL = "http://ca.muster.example"


def tool(*command):
    done = subprocess.run([*map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{command}\n{done.stdout!r}{done.stderr!r}"
    return done.stdout


def findings(linter, *arguments):
    """What a linter finds above notice."""
    program = Path(sys.executable).parent / linter
    done = subprocess.run([program, "lint", "-s", "WARNING", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S)
    assert not done.stderr.strip(), done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    from server import Server

    home = tmp_path_factory.mktemp("lint")
    server = Server(home, "--public-url", URL, names=(NAME, f"mqtt.{NAME}"))
    yield server, home
    server.stop()


def leaf(source, to):
    to.write_bytes(tool("openssl", "x509", "-in", source))
    return to


KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_devices_certificate(samples, kind):
    server, home = samples
    key = KEYS[kind]()
    digest = None if kind == "Ed25519" else hashes.SHA256()
    name = f"lamp-{kind}"
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])).sign(key, digest)
    file = home / f"{kind}.csr"
    file.write_bytes(request.public_bytes(serialization.Encoding.PEM))
    out = home / f"{kind}-out"
    server.cli("device", "create", name, "--csr", str(file), "--out", str(out))
    assert findings("lint_pkix_cert", leaf(out / f"{name}.crt", home / f"{kind}.pem")) == ""


@pytest.mark.parametrize("place", ["ca/root.crt", "ca/issuing.crt", "operators/admin.crt", "tls/server.pem"])
def test_other_certificates(samples, place):
    server, home = samples
    assert findings("lint_pkix_cert", leaf(server.data / place, home / "other.pem")) == ""


def test_lists_answers_and_their_responder(samples):
    server, home = samples
    http = f"http://localhost:{server.port('http')}"
    good, gone = server.device("good"), server.device("gone")
    server.cli("device", "revoke", "gone", "--yes", "--reason", "keyCompromise")
    (url,) = re.findall(r"Full Name:\s+URI:(\S+)", tool("openssl", "x509", "-in", gone.certificate, "-noout", "-text").decode())
    for path in (url.removeprefix(URL), "/crl/0.crl"):
        der, pem = home / "list.der", home / "list.pem"
        tool("curl", "-sSf", "-o", der, http + path)
        tool("openssl", "crl", "-inform", "DER", "-in", der, "-out", pem)
        assert findings("lint_crl", "-t", "CRL", "-p", "PKIX", pem) == ""
    for identity in (good, gone):
        answer = home / "answer.der"
        tool("openssl", "ocsp", "-issuer", server.data / "ca/issuing.crt", "-cert", leaf(identity.certificate, home / "asked.pem"),
             "-url", f"{http}/ocsp", "-CAfile", server.root, "-verify_other", server.data / "ca/issuing.crt", "-respout", answer)
        assert findings("lint_ocsp_response", answer) == ""
    text = tool("openssl", "ocsp", "-respin", answer, "-resp_text", "-noverify").decode()
    responder = home / "responder.pem"
    responder.write_text(text[text.index("-----BEGIN CERTIFICATE"):])
    assert findings("lint_pkix_cert", leaf(responder, home / "responder-leaf.pem")) == ""


def test_the_linter_sees_what_is_wrong(samples):
    """Otherwise its silence would say nothing."""
    server, home = samples
    bad = home / "bad.pem"
    tool("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", home / "bad.key",
         "-subj", "/CN=x", "-addext", "subjectAltName=DNS:not a name", "-out", bad)
    assert "ERROR" in findings("lint_pkix_cert", bad)
