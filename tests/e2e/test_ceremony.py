"""An authority founded by a reviewed file: made, or of what an organisation has; its transcript, checked with openssl."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from server import muster
from test_authority import PASSPHRASE, issuers, passphrase, state
from test_certificate_status import ok, run

assert passphrase

MADE = """transcript = "ceremony.txt"
[root]
common_name = "Works Root CA"
key = "p384"
validity_days = 7300
offline = "root-key.pem"
[issuing]
common_name = "Works Devices CA"
key = "p256"
validity_days = 1825
permitted_dns = ["localhost", "works.example"]
[keys]
key_custody = "encrypted-file"
key_passphrase_file = "{passphrase}"
"""


@pytest.fixture
def hold(tmp_path):
    """Holds a ceremony on the data directory of a server that has not run yet."""
    def held(server, text, *flags, **how):
        file = tmp_path / "ceremony.toml"
        file.write_text(text)
        return muster("ca", "ceremony", file, "--data", server.data, "--json", *flags, cwd=tmp_path, **how)
    return held


def subject(file):
    return ok("openssl", "x509", "-in", file, "-noout", "-subject")


def check_transcript(done, directory):
    """As its reader does, with openssl; a changed one is not believed."""
    made = json.loads(done.stdout)
    public = directory / "signer.pub"
    hashed = made["check"].split()[2]
    public.write_text(ok("openssl", "x509", "-in", f"{made['authority']}/{made['signedWith']}", "-noout", "-pubkey"))
    verify = ["openssl", "dgst", hashed, "-verify", public, "-signature", made["signature"]]
    assert "Verified OK" in ok(*verify, made["transcript"])
    forged = directory / "forged.txt"
    text = open(made["transcript"]).read()
    forged.write_text(text.replace("Muster", "Master", 1))
    assert run(*verify, forged)[0] != 0
    return made, text


def test_one_reviewed_file_makes_it_all(make_server, hold, connect, passphrase, tmp_path):
    server = make_server(start=False)
    text = MADE.format(passphrase=passphrase)
    done = hold(server, text, "--passphrase-file", passphrase)
    assert done.returncode == 0, done.stderr
    made, transcript = check_transcript(done, tmp_path)
    assert made["signedWith"] == "root.crt" and text in transcript and "offline, encrypted" in transcript
    assert PASSPHRASE not in transcript
    ca = server.data / "ca"
    assert "Works Root CA" in subject(ca / "root.crt") and "Works Devices CA" in subject(ca / "issuing.crt")
    assert "secp384r1" in ok("openssl", "x509", "-in", ca / "root.crt", "-noout", "-text")
    assert not (ca / "root.key").exists() and "ENCRYPTED" in (ca / "issuing.key").read_text()
    ok("openssl", "pkey", "-in", tmp_path / "root-key.pem", "-passin", f"file:{passphrase}", "-noout")
    assert ok("openssl", "verify", "-x509_strict", "-CAfile", ca / "root.crt", ca / "issuing.crt")
    # A second one does nothing, and says so.
    again = hold(server, text.replace("ceremony.txt", "again.txt").replace("root-key.pem", "again.pem"), "--passphrase-file", passphrase)
    assert again.returncode != 0 and "authority" in again.stderr and not (tmp_path / "again.txt").exists()

    settings = tmp_path / "settings.toml"
    settings.write_text(f'[ca]\nkey_custody = "encrypted-file"\nkey_passphrase_file = "{passphrase}"\n')
    server.start("--config", str(settings))
    lamp = server.device("lamp-1")
    connect(server, lamp)
    assert state(server, lamp, tmp_path / "lamp-1") == "good"
    # What follows is constrained as well.
    server.cli("ca", "rotate-issuing", "--root-key", tmp_path / "root-key.pem", "--passphrase-file", passphrase)
    assert issuers(server) == [1, 2]
    for file in (ca / "issuing.crt", ca / "issuing-2/issuing.crt"):
        text = ok("openssl", "x509", "-in", file, "-noout", "-text")
        assert "Name Constraints" in text and "DNS:works.example" in text
    connect(server, server.device("lamp-2"))


def test_a_server_outside_the_names_that_are_permitted_is_refused(make_server, hold, passphrase):
    server = make_server(start=False, names=("elsewhere.example",))
    text = MADE.format(passphrase=passphrase).replace("encrypted-file", "file")
    assert hold(server, text, "--passphrase-file", passphrase).returncode == 0
    with pytest.raises(AssertionError) as failed:
        server.start()
    assert "permits only localhost, works.example" in str(failed.value)


def test_addresses_are_excluded_unless_they_are_permitted(make_server, hold, tmp_path):
    """Whoever has the issuing key makes no server of an address that devices follow, and the server itself has none."""
    text = MADE.split("offline")[0] + MADE.split("root-key.pem\"\n")[1].split("[keys]")[0]

    def rogue(server, name):
        """Verified by openssl: a server's certificate by the issuing key, made without the authority."""
        made = tmp_path / name.replace(":", "-").replace("/", "-")
        ok("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=rogue",
           "-keyout", f"{made}.key", "-out", f"{made}.csr")
        made.with_suffix(".ext").write_text(f"subjectAltName={name}\n")
        ca = server.data / "ca"
        ok("openssl", "x509", "-req", "-in", f"{made}.csr", "-CA", ca / "issuing.crt", "-CAkey", ca / "issuing.key", "-CAcreateserial",
           "-CAserial", tmp_path / "serial", "-extfile", made.with_suffix(".ext"), "-out", f"{made}.pem")
        code, *said = run("openssl", "verify", "-CAfile", ca / "root.crt", "-untrusted", ca / "issuing.crt", f"{made}.pem")
        return code == 0, "".join(said)

    server = make_server(start=False, names=("localhost", "127.0.0.1"))
    assert hold(server, text).returncode == 0
    with pytest.raises(AssertionError) as failed:
        server.start()
    assert "127.0.0.1" in str(failed.value) and "permits only localhost, works.example" in str(failed.value)
    for name in ("IP:192.0.2.7", "IP:2001:db8::7", "DNS:other.example"):
        good, said = rogue(server, name)
        assert not good and "subtree violation" in said, said
    assert rogue(server, "DNS:a.works.example")[0]

    for file in ("ceremony.txt", "ceremony.txt.sig"):
        (tmp_path / file).unlink()
    server = make_server(start=False, names=("localhost", "127.0.0.1"))
    text = text.replace('"works.example"]', '"works.example"]\npermitted_ip = ["127.0.0.0/8", "2001:db8::/32"]')
    assert hold(server, text.replace("127.0.0.0/8", "127.0.0.1/8")).returncode == 1
    assert hold(server, text).returncode == 0
    assert "localhost, works.example, 127.0.0.0/8, 2001:db8::/32" in (tmp_path / "ceremony.txt").read_text()
    server.start()
    assert rogue(server, "IP:2001:db8::7")[0] and rogue(server, "IP:127.0.0.1")[0]
    assert "permitted subtree violation" in rogue(server, "IP:192.0.2.7")[1]
    server.cli("ca", "rotate-issuing")
    server.restart()
    assert "running" in server.cli("status")


def test_an_organisations_root_intermediate_and_chain(make_server, hold, connect, tmp_path):
    """Root, a policy CA, and below that the one for devices: RSA, P-384 and P-256; the upper keys never come near."""
    def key(name, *options):
        ok("openssl", "genpkey", *options, "-out", tmp_path / f"{name}.key")

    def certificate(name, signer, pathlen):
        extensions = tmp_path / "extensions"
        extensions.write_text(
            f"basicConstraints=critical,CA:TRUE{pathlen}\nkeyUsage=critical,keyCertSign,cRLSign\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        ok("openssl", "req", "-new", "-key", tmp_path / f"{name}.key", "-subj", f"/O=Org/CN=Org {name}", "-out", tmp_path / f"{name}.csr")
        by = ("-signkey", tmp_path / f"{name}.key") if signer is None else (
            "-CA", tmp_path / f"{signer}.pem", "-CAkey", tmp_path / f"{signer}.key", "-CAcreateserial", "-CAserial", tmp_path / "serial")
        days = {"root": 3000, "policy": 2000}.get(name, 1000)
        ok("openssl", "x509", "-req", "-in", tmp_path / f"{name}.csr", *by, "-days", days, "-extfile", extensions, "-out", tmp_path / f"{name}.pem")

    key("root", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072")
    key("policy", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")
    key("devices", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    certificate("root", None, "")
    certificate("policy", "root", ",pathlen:1")
    certificate("devices", "policy", ",pathlen:0")
    pem = {name: (tmp_path / f"{name}.pem").read_text() for name in ("root", "policy", "devices")}
    chain = tmp_path / "chain.pem"
    text = ('transcript = "ceremony.txt"\n[root]\ncertificate = "root.pem"\n'
            '[issuing]\ncertificate = "chain.pem"\nprivate_key = "devices.key"\n')
    server = make_server(start=False)
    # The chain must lead to the root, and nothing is left behind where it does not.
    chain.write_text(pem["devices"])
    refused = hold(server, text)
    assert refused.returncode != 0 and "give the certificates between them too" in refused.stderr
    assert not (server.data / "ca").exists() and not (tmp_path / "ceremony.txt").exists()
    chain.write_text(pem["devices"] + pem["policy"])
    done = hold(server, text)
    assert done.returncode == 0, done.stderr
    made, transcript = check_transcript(done, tmp_path)
    assert made["signedWith"] == "issuing.crt" and "elsewhere, not seen" in transcript
    server.start()
    assert server.json("ca", "show")["rootKey"] == "offline"
    lamp = server.device("lamp-1")
    assert lamp.certificate.read_text().count("BEGIN CERTIFICATE") == 3
    assert lamp.root.read_text() == pem["root"]
    client = connect(server, lamp)
    assert client.publish("dt/lamp-1/x", b"hello") == 0
    shown = ok("openssl", "verify", "-x509_strict", "-CAfile", server.root, "-untrusted", lamp.certificate, lamp.certificate)
    assert "OK" in shown
    server.cli("device", "revoke", "lamp-1", "--yes")
    assert server.json("audit", "run")["checks"][0]["findings"] == []


@pytest.mark.parametrize("change, words", [
    (('key = "p384"\n', ""), "root.key is missing"),
    (('"p384"', '"rsa"'), "rsa"),
    (("validity_days = 7300", "validity_days = 0"), "root.validity_days"),
    (('"Works Root CA"', '""'), "common name of the root"),
    (('"works.example"', '"*.works.example"'), "permitted name"),
    (("[issuing]\n", "[issuing]\nquantum = true\n"), "quantum"),
    (('"encrypted-file"', '"pkcs11"'), "token"),
    # What is written last must be writable first: the transcript never tells of what was not done.
    (('"root-key.pem"', '"no/such/root-key.pem"'), "no/such/root-key.pem"),
    (('"ceremony.txt"', '"no/such/ceremony.txt"'), "no/such/ceremony.txt"),
    (('"root-key.pem"', '"ceremony.txt"'), "one file"),
    (('"root-key.pem"', '"./ceremony.txt.sig"'), "one file"),
    (('"root-key.pem"', '"."'), "there already"),
])
def test_a_file_that_is_wrong_does_nothing(make_server, hold, passphrase, tmp_path, change, words):
    server = make_server(start=False)
    refused = hold(server, MADE.format(passphrase=passphrase).replace(*change), "--passphrase-file", passphrase)
    assert refused.returncode != 0 and words in refused.stderr and "panicked" not in refused.stderr, refused.stderr
    nothing_is_left(server, tmp_path)
    # And the file as it should have been can be used then.
    assert hold(server, MADE.format(passphrase=passphrase), "--passphrase-file", passphrase).returncode == 0


def nothing_is_left(server, directory):
    assert not (server.data / "ca").exists()
    assert not [path for path in directory.rglob("*") if path.name.startswith((".ceremony-", ".ca-founding-", "ceremony.txt", "root-key"))]


def test_a_passphrase_that_is_too_short_does_nothing(make_server, hold, passphrase, tmp_path):
    """It is looked at when the root's key is sealed, after all else: the authority is none before that is done."""
    server = make_server(start=False)
    short = tmp_path / "short"
    short.write_text("short")
    refused = hold(server, MADE.format(passphrase=passphrase), "--passphrase-file", short)
    assert refused.returncode != 0 and "12 characters" in refused.stderr, refused.stderr
    nothing_is_left(server, tmp_path)


def test_a_disk_that_is_full_does_nothing(make_server, hold, passphrase, tmp_path):
    """A transcript longer than a file may be: whatever is written by then goes again."""
    server = make_server(start=False)
    text = MADE.format(passphrase=passphrase) + "# " + "x" * 8192 + "\n"
    refused = hold(server, text, "--passphrase-file", passphrase, wrapper=("env", "--ignore-signal=XFSZ", "prlimit", "--fsize=8000"))
    assert refused.returncode != 0 and "ceremony.txt" in refused.stderr, refused.stderr
    nothing_is_left(server, tmp_path)


def public_of(text):
    """The public half of a private key that lies in the clear, if the text is one."""
    if "PRIVATE KEY" not in text or "ENCRYPTED" in text:
        return None
    return serialization.load_pem_private_key(text.encode(), None).public_key()


def test_killed_at_any_time_it_leaves_the_roots_key_nowhere_in_the_clear(tmp_path, passphrase):
    """Whatever it had written by then is swept when it is held again; only its own words may stand in the way."""
    place, copies = tmp_path / "place", tmp_path / "copies"
    place.mkdir()
    copies.mkdir()
    # The issuing key lies in the clear, so that a key that does is seen.
    text = MADE.format(passphrase=passphrase).split("[keys]")[0]
    (place / "ceremony.toml").write_text(text)

    def held(where, *wrapper):
        return muster("ca", "ceremony", where / "ceremony.toml", "--data", where / "data", "--passphrase-file", passphrase, wrapper=wrapper)

    done = held(place, sys.executable, Path(__file__).with_name("stops.py"), copies, place, "--")
    assert done.returncode == 0, done.stderr
    root = x509.load_pem_x509_certificate((place / "data/ca/root.crt").read_bytes()).public_key()
    states = sorted(copies.iterdir(), key=lambda copy: int(copy.name))
    assert len(states) > 40
    clear, final = 0, ["ceremony.txt", "ceremony.txt.sig", "root-key.pem"]
    tried = set()
    for state in states:
        files = [path for path in state.rglob("*") if path.is_file()]
        keys = [key for path in files if (key := public_of(path.read_text(errors="replace")))]
        assert root not in keys, [path.relative_to(state) for path in files]
        clear += bool(keys)
        there = [name for name in final if (state / name).exists()]
        if (state / "data/ca").exists():
            assert there == final
        # Held again from there: of states that look alike, one.
        look = tuple(sorted(path.name.split("-founding-")[0][:10] for path in state.rglob("*")))
        if look not in tried and not (state / "data/ca").exists():
            tried.add(look)
            again = held(state)
            assert (again.returncode == 0) == (not there), (there, again.stderr)
            if there:
                assert "is there already" in again.stderr, again.stderr
            else:
                left = [path.name for path in state.rglob("*") if path.name.startswith((".ca-founding-", ".ceremony-"))]
                assert not left and (state / "data/ca/root.crt").exists()
        shutil.rmtree(state)
    assert clear and len(tried) > 5
