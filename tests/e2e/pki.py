"""Certificates that a server should never have to see: made with the keys of a test's own authority, or a foreign one."""

import datetime
import itertools

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server import Identity

DAY = datetime.timedelta(days=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
NUMBERS = itertools.count(1)


def now():
    return datetime.datetime.now(datetime.timezone.utc)


class Signer:
    """A certificate and key that sign."""

    def __init__(self, certificate, key):
        self.certificate, self.key = certificate, key

    @classmethod
    def of(cls, server, which="issuing"):
        """The authority of a server under test."""
        directory = server.data / "ca"
        certificate = x509.load_pem_x509_certificate((directory / f"{which}.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / f"{which}.key").read_bytes(), None)
        return cls(certificate, key)

    @classmethod
    def foreign(cls, like=None):
        """An authority the server does not know; `like` another one, by name."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = like.certificate.subject if like else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Foreign")])
        return cls(build(name, name, key.public_key(), key, ca=True), key)


def build(subject, issuer, public, signer, usage=CLIENT, ca=False, begin=None, end=None):
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(issuer).public_key(public).serial_number(x509.random_serial_number())
        .not_valid_before(begin or now() - DAY).not_valid_after(end or now() + 30 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(
            digital_signature=not ca, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if usage == SERVER:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def forge(directory, name, signer, root, **how):
    """An identity whose certificate `signer` signed; None signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    if signer is None:
        certificate, chain = build(subject, subject, key.public_key(), key, **how), []
    else:
        certificate = build(subject, signer.certificate.subject, key.public_key(), signer.key, **how)
        chain = [signer.certificate]
    return save(directory, name, certificate, chain, key, root)


def save(directory, name, certificate, chain, key, root=None):
    """An identity on disk; without `root` it trusts itself, as an authority does."""
    place = directory / f"forged-{next(NUMBERS)}"
    place.mkdir()
    pem = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in [certificate, *chain])
    (place / "device.crt").write_bytes(pem)
    (place / "device.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return Identity(place / "device.crt", place / "device.key", root or place / "device.crt", name)


def csr(directory, name):
    """A request and its key, as a device makes them itself: paths of both."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])).sign(key, hashes.SHA256())
    request_path, key_path = directory / f"{name}.csr", directory / f"{name}.own.key"
    request_path.write_bytes(request.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return request_path, key_path
