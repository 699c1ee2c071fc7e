"""Keys that a certificate is made for and keys that are refused, through every door that takes a request."""

import base64
import datetime
import hashlib
import json
import random
import subprocess

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

import api
import pki
from server import NotReady

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


def test_keys_of_who_is_no_device(shared, door, fresh_name):
    """An operator's, the server's own, a claim's, which all devices born with it have, and a registered authority's."""
    claim, template = door.directory / "claim", door.directory / "template.json"
    template.write_text(json.dumps({
        "Parameters": {"N": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {
            "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "N"}}},
            "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}}}))
    batch = fresh_name("batch")
    shared.cli("template", "create", batch, str(template))
    shared.cli("claim", "create", "--template", batch, "--out", str(claim))
    factory = pki.Signer.foreign()
    client = api.iot(shared)
    client.register_ca_certificate(
        caCertificate=factory.certificate.public_bytes(serialization.Encoding.PEM).decode(), certificateMode="SNI_ONLY", setAsActive=True)
    own = serialization.load_pem_private_key
    text = (shared.data / "tls/server.pem").read_text()
    for key, words in (
            (own((shared.data / "operators/admin.key").read_bytes(), None), "operator's"),
            (own(text[: text.index("-----BEGIN CERTIFICATE")].encode(), None), "server's own"),
            (own((claim / "claim.key").read_bytes(), None), "claim certificate"),
            (factory.key, "registered authority")):
        name = fresh_name()
        said = door.refused(name, request(key, name))
        assert words in said and "device alone" in said, said
    # Nor does somebody else's certificate over such a key open the door.
    for key, words in ((own((claim / "claim.key").read_bytes(), None), "claim certificate"),
                       (own((shared.data / "ca/issuing.key").read_bytes(), None), "own issuing key")):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, fresh_name())])
        made = pki.build(subject, factory.certificate.subject, key.public_key(), factory.key)
        with pytest.raises(ClientError, match=words):
            client.register_certificate(certificatePem=made.public_bytes(serialization.Encoding.PEM).decode(), setAsActive=True)
    # Nor is a device's key, or our own issuing one, an authority's.
    lamp, file = shared.device(fresh_name()), door.directory / "lamp.csr"
    for key, words in ((own(lamp.key.read_bytes(), None), "a key of its own"),
                       (own((shared.data / "ca/issuing.key").read_bytes(), None), "its name or key")):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, fresh_name())])
        made = pki.build(subject, subject, key.public_key(), key, ca=True).public_bytes(serialization.Encoding.PEM).decode()
        with pytest.raises(ClientError, match=words):
            client.register_ca_certificate(caCertificate=made, certificateMode="SNI_ONLY", setAsActive=True)
    signer, next_one = pki.Signer.of(shared, "root"), door.directory / "next.pem"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, fresh_name())])
    made = pki.build(subject, signer.certificate.subject, own(lamp.key.read_bytes(), None).public_key(), signer.key, ca=True)
    next_one.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    said = shared.refused("ca", "rotate-issuing", "--cert", str(next_one), "--key", str(lamp.key))
    assert "a key of its own" in said, said
    # Nor is a device's key a claim's.
    file.write_bytes(request(own(lamp.key.read_bytes(), None), "claim"))
    said = shared.refused("claim", "create", "--template", batch, "--csr", str(file), "--out", str(door.directory / "no"))
    assert "a device has it" in said, said


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


def fingerprints(key):
    """What lists call a key: by its SubjectPublicKeyInfo, by openssl-blacklist's and by badkeys' reckoning."""
    public = key.public_key()
    spki = hashlib.sha256(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    numbers = public.public_numbers()
    number = numbers.n if hasattr(numbers, "n") else numbers.x
    blocks = hashlib.sha256(number.to_bytes((number.bit_length() + 7) // 8, "big")).digest()[:15] + b"\x07"
    modulus = hashlib.sha1(f"Modulus={number:X}\n".encode()).hexdigest()[20:] if hasattr(numbers, "n") else None
    return spki, modulus, blocks


@pytest.mark.parametrize("way", [CommandLine, Api, Est])
def test_keys_that_are_known_to_others(make_server, tmp_path, way):
    known = {"spki": ec.generate_private_key(ec.SECP256R1()), "debian": rsa.generate_private_key(65537, 2048),
             "badkeys-rsa": rsa.generate_private_key(65537, 2048), "badkeys-p256": ec.generate_private_key(ec.SECP256R1())}
    text, blocks, settings = tmp_path / "keys.txt", tmp_path / "blocklist.dat", tmp_path / "settings.toml"
    text.write_text(f"# known\n{fingerprints(known['spki'])[0]}\n{fingerprints(known['debian'])[1]}\n")
    listed = [fingerprints(known[one])[2] for one in ("badkeys-rsa", "badkeys-p256")]
    rows = sorted([*listed, *(hashlib.sha256(bytes([n])).digest()[:16] for n in range(200))])
    blocks.write_bytes(b"".join(rows))
    settings.write_text(f'[ca]\nblocked_keys = ["{text}", "{blocks}"]\n')
    server = make_server("--config", str(settings))
    door = way(server, tmp_path)
    for name, key in known.items():
        said = door.refused(name, request(key, name))
        assert "known to others" in said and str(blocks if "badkeys" in name else text) in said, said
        assert name not in [one["thingName"] for one in api.iot(server).list_things()["things"]]
    door.taken("good", request(ec.generate_private_key(ec.SECP256R1()), "good"))
    # Another authority's certificate over such a key is nobody's either.
    if way is CommandLine:
        alone = tmp_path / "alone.pem"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alone")])
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(known["spki"].public_key())
                       .serial_number(7).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=9)))
        alone.write_bytes(certificate.sign(known["spki"], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        with pytest.raises(ClientError, match="known to others"):
            api.iot(server).register_certificate_without_ca(certificatePem=alone.read_text(), status="ACTIVE")


def test_a_list_that_is_none_stops_the_start(make_server, tmp_path):
    listed, settings = tmp_path / "keys.txt", tmp_path / "settings.toml"
    settings.write_text(f'[ca]\nblocked_keys = ["{listed}"]\n')
    for content, words in ((None, "No such file"), ("# none\n", "no fingerprint"), ("0123\n", "line 1"), ("ab" * 32 + "\nhello\n", "line 2")):
        if content is not None:
            listed.write_text(content)
        with pytest.raises(NotReady) as refused:
            make_server("--config", str(settings))
        assert "ca.blocked_keys" in refused.value.stderr and str(listed) in refused.value.stderr and words in refused.value.stderr


ODD = x509.ObjectIdentifier("1.3.6.1.4.1.55555.1")


def asking(key, name, *extensions):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_what_a_request_asks_for_beyond_its_key_is_not_given(shared, door, fresh_name):
    """An authority's rights, the server's name, extensions nobody knows: the certificate has none of them."""
    wishes = [(x509.BasicConstraints(ca=True, path_length=None), True), (x509.UnrecognizedExtension(ODD, b"\x05\x00"), True),
              (x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)]
    server_name = (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
    name = fresh_name()
    key = ec.generate_private_key(ec.SECP256R1())
    if isinstance(door, Est):
        # Here it says who asks, and somebody else's names are a mistake or worse.
        status, text = door.ask(name, asking(key, name, *wishes, server_name))
        assert status == 403 and "other names" in text, text
    else:
        wishes.append(server_name)
    door.taken(name, asking(key, name, *wishes))
    if isinstance(door, CommandLine):
        made = x509.load_pem_x509_certificate((door.directory / f"{name}-out" / f"{name}.crt").read_bytes())
        names = [extension.oid for extension in made.extensions]
        assert ODD not in names and x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME not in names
        assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
        usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    name = fresh_name()
    huge = asking(ec.generate_private_key(ec.SECP256R1()), name, (x509.UnrecognizedExtension(ODD, bytes(40_000)), False))
    if isinstance(door, Est):
        status, text = door.ask(name, huge)
        assert status == 413 and "at most" in text, text
    else:
        assert "at most" in door.refused(name, huge)
