"""Keys that a certificate is made for and keys that are refused, through every door that takes a request."""

import base64
import random
import subprocess

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

import api

CRL_REASON = "keyCompromise"


def request(key, name, digest=None):
    """A request in PEM."""
    if digest is None and not isinstance(key, ed25519.Ed25519PrivateKey):
        digest = hashes.SHA256()
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)


def roca_key():
    """A key as the broken library made them: each prime is k·M + (65537^a mod M)."""
    product, candidate = 1, 2
    while product.bit_length() < 900:
        if all(candidate % d for d in range(2, int(candidate ** 0.5) + 1)):
            product *= candidate
        candidate += 1
    rng = random.Random(2017)

    def prime():
        while True:
            number = rng.randrange(1 << 1023, 1 << 1024) // product * product + pow(65537, rng.randrange(1 << 60), product)
            if number.bit_length() == 1024 and number >> 1022 == 3 and all(pow(base, number - 1, number) == 1 for base in (2, 3, 5)):
                return number

    p, q = prime(), prime()
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q))
    return numbers.private_key()


class Door:
    """One way in for a request."""

    def __init__(self, server, directory):
        self.server, self.directory = server, directory


class CommandLine(Door):
    def refused(self, name, pem):
        file = self.directory / "refused.csr"
        file.write_bytes(pem)
        return self.server.refused("device", "create", name, "--csr", str(file), "--out", str(self.directory / f"{name}-out"))

    def taken(self, name, pem):
        file = self.directory / "taken.csr"
        file.write_bytes(pem)
        self.server.cli("device", "create", name, "--csr", str(file), "--out", str(self.directory / f"{name}-out"))


class Api(Door):
    def refused(self, name, pem):
        with pytest.raises(ClientError) as refusal:
            self.taken(name, pem)
        assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        return refusal.value.response["Error"]["Message"]

    def taken(self, name, pem):
        client = api.iot(self.server)
        made = client.create_certificate_from_csr(certificateSigningRequest=pem.decode(), setAsActive=True)
        try:
            client.create_thing(thingName=name)
        except ClientError as there:
            assert there.response["Error"]["Code"] == "ResourceAlreadyExistsException"
        client.attach_thing_principal(thingName=name, principal=made["certificateArn"])


class Est(Door):
    def ask(self, name, pem):
        password = self.server.json("device", "enrol-password", name)["password"]
        der = base64.b64decode(b"".join(line for line in pem.splitlines() if not line.startswith(b"-----")))
        url = f"https://localhost:{self.server.port('https')}/.well-known/est/simpleenroll"
        done = subprocess.run(
            ["curl", "-sS", "--cacert", self.server.root, "-u", f"{name}:{password}", "-H", "Content-Type: application/pkcs10",
             "--data-binary", "@-", "-w", "\n%{http_code}", url], input=base64.b64encode(der), capture_output=True, timeout=60, check=True)
        text, _, status = done.stdout.decode().rpartition("\n")
        return int(status), text

    def refused(self, name, pem):
        status, text = self.ask(name, pem)
        assert status == 400, (status, text)
        return text

    def taken(self, name, pem):
        status, text = self.ask(name, pem)
        assert status == 200, text


@pytest.fixture(params=[CommandLine, Api, Est], ids=["command-line", "api", "est"])
def door(request, shared, tmp_path):
    return request.param(shared, tmp_path)


MADE = {}


def key(kind):
    """Made once: RSA takes its time."""
    makers = {
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "ROCA": roca_key,
    }
    if kind not in MADE:
        MADE[kind] = makers[kind]() if kind in makers else rsa.generate_private_key(65537, int(kind.removeprefix("RSA ")))
    return MADE[kind]


def test_accepted_kinds(shared, door, fresh_name):
    for kind in ("P-256", "P-384", "Ed25519"):
        makers = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}
        fresh = ec.generate_private_key(makers[kind]()) if kind in makers else ed25519.Ed25519PrivateKey.generate()
        name = fresh_name()
        door.taken(name, request(fresh, name))
    for bits in (2048, 3072, 4096):
        name = fresh_name()
        door.taken(name, request(rsa.generate_private_key(65537, bits), name))


@pytest.mark.parametrize("kind, words", [
    ("RSA 1024", "RSA 1024"), ("RSA 4160", "RSA 4160"), ("P-521", "P-521"), ("secp256k1", "curve"), ("ROCA", "CVE-2017-15361"),
])
def test_refused_kinds(door, fresh_name, kind, words):
    name = fresh_name()
    text = door.refused(name, request(key(kind), name))
    assert words in text and "accepted are ECDSA P-256" in text, text


def test_an_exponent_that_is_none_and_a_request_that_was_changed(door, fresh_name):
    name = fresh_name()
    der = x509.load_pem_x509_csr(request(key("RSA 2048"), name)).public_bytes(serialization.Encoding.DER)
    # INTEGER 65537 becomes 65536, 1 with zeros before it, 3 with a zero before it.
    exponent = b"\x02\x03\x01\x00\x01"
    assert der.count(exponent) == 1
    for other in (b"\x02\x03\x01\x00\x00", b"\x02\x03\x00\x00\x01", b"\x02\x03\x00\x00\x03"):
        text = door.refused(name, pem(der.replace(exponent, other)))
        assert "exponent" in text or "cannot be read" in text, text
    text = door.refused(name, pem(der.replace(name.encode(), name[::-1].encode())))
    assert "signature" in text, text


def pem(der):
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE REQUEST-----\n"


def test_the_authoritys_own_keys(shared, door, fresh_name):
    for which in ("root", "issuing"):
        own = serialization.load_pem_private_key((shared.data / f"ca/{which}.key").read_bytes(), None)
        name = fresh_name()
        assert f"own {which} key" in door.refused(name, request(own, name))


def test_one_key_is_one_things(shared, door, fresh_name):
    name, other, third = fresh_name(), fresh_name(), fresh_name()
    own = ec.generate_private_key(ec.SECP256R1())
    door.taken(name, request(own, name))
    assert "another thing has it" in door.refused(other, request(own, other))
    # The same thing may have it certified again, and it is free when the thing is gone.
    file = door.directory / "again.csr"
    file.write_bytes(request(own, name))
    shared.cli("device", "replace", name, "--csr", str(file), "--out", str(door.directory / f"{name}-again"), "--yes")
    assert "another thing has it" in door.refused(other, request(own, other))
    shared.cli("device", "delete", name, "--yes")
    door.taken(other, request(own, other))
    # One that someone else may have is nobody's any more.
    shared.cli("device", "revoke", other, "--yes", "--reason", CRL_REASON)
    for anyone in (other, third):
        file.write_bytes(request(own, anyone))
        verb = ("replace", anyone, "--yes") if anyone == other else ("create", anyone)
        said = shared.refused("device", *verb, "--csr", str(file), "--out", str(door.directory / f"{anyone}-no"))
        assert "someone else may have it" in said, said
