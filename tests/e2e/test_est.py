"""EST (RFC 7030): devices enrol and renew with curl, openssl and strongSwan, as any EST client does; each refusal."""

import base64
import email
import subprocess
import time

import pytest

import api
from clients import Refused, proves_silence
from devices import came_by
from pki import CLIENT, Signer, forge
from server import EVERYTHING, Identity
from test_authorities import Factory

LIMIT_S = 60
ADMINISTRATIVE_ACTION = 0x98
ENROL, REENROL, KEYGEN = "simpleenroll", "simplereenroll", "serverkeygen"


def tool(*command, input=None, check=True):
    done = subprocess.run([*map(str, command)], input=input, stdin=None if input is not None else subprocess.DEVNULL,
                          capture_output=True, timeout=LIMIT_S)
    if check:
        assert done.returncode == 0, f"{command}\n{done.stdout!r}{done.stderr.decode(errors='replace')}"
    return done


class Est:
    """An EST client out of curl and openssl, in a directory of its own."""

    def __init__(self, server, directory):
        self.server, self.directory, self.number = server, directory, 0

    def place(self, name):
        self.number += 1
        return self.directory / f"{self.number}-{name}"

    def key(self, *options):
        options = options or ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        to = self.place("key.pem")
        tool("openssl", "genpkey", *options, "-out", to)
        return to

    def request(self, subject, key, *more):
        """A DER request."""
        return tool("openssl", "req", "-new", "-key", key, "-subj", subject, "-outform", "DER", *more).stdout

    def call(self, operation, body=None, identity=None, user=None, media="application/pkcs10", raw=False, headers=()):
        """Status, head and body of an answer."""
        head, out = self.place("head"), self.place("out")
        command = ["curl", "-sS", "--cacert", self.server.root, "-D", head, "-o", out, "-w", "%{http_code}"]
        if identity:
            command += ["--cert", identity.certificate, "--key", identity.key]
        if user:
            command += ["-u", user]
        for header in headers:
            command += ["-H", header]
        if body is not None:
            command += ["-H", f"Content-Type: {media}", "--data-binary", "@-"]
            body = body if raw else base64.encodebytes(body)
        url = f"https://localhost:{self.server.port('https')}/.well-known/est/{operation}"
        status = int(tool(*command, url, input=body).stdout)
        return status, head.read_text(), out.read_bytes() if out.exists() else b""

    def certificates(self, body):
        """The PEM certificates of a certs-only answer."""
        return tool("openssl", "pkcs7", "-inform", "DER", "-print_certs", input=base64.b64decode(body)).stdout

    def identity(self, name, body, key):
        """What a device keeps after it has enrolled: its certificate with the issuing one."""
        certificate = self.place(f"{name}.crt")
        certificate.write_bytes(self.certificates(body) + (self.server.data / "ca/issuing.crt").read_bytes())
        return Identity(certificate, key, self.server.root, name)

    def password(self, name, *flags):
        return self.server.json("device", "enrol-password", name, *flags)["password"]

    def enrol(self, name, *flags):
        key = self.key()
        status, head, body = self.call(ENROL, self.request(f"/CN={name}", key), user=f"{name}:{self.password(name, *flags)}")
        assert status == 200, body
        assert "application/pkcs7-mime; smime-type=certs-only" in head and "base64" in head
        return self.identity(name, body, key)

    def renew(self, identity, operation=REENROL):
        key = self.key()
        status, _, body = self.call(operation, self.request(f"/CN={identity.name}", key), identity=identity)
        assert status == 200, body
        return self.identity(identity.name, body, key)

    def refused(self, status, words, *arguments, **how):
        found, head, body = self.call(*arguments, **how)
        text = body.decode()
        assert found == status and words in text, (found, text)
        assert "text/plain" in head
        assert ("WWW-Authenticate: Basic" in head or "www-authenticate: Basic" in head) is (status == 401), head
        return text


@pytest.fixture
def est(shared, tmp_path):
    return Est(shared, tmp_path)


def states(server, name):
    return sorted(c["status"] for c in server.json("device", "show", name)["certificates"])


def test_everybody_may_have_the_authoritys_certificates(shared, est, device):
    for identity in (None, device()):
        status, head, body = est.call("cacerts", identity=identity)
        assert status == 200 and "smime-type=certs-only" in head
        found = est.certificates(body)
        for name in ("root", "issuing"):
            pem = (shared.data / f"ca/{name}.crt").read_bytes()
            assert pem.split(b"-----")[2].split() == next(
                part.split() for part in found.split(b"-----") if part.split() == pem.split(b"-----")[2].split())
    status, head, body = est.call("csrattrs")
    assert status == 200 and "application/csrattrs" in head
    text = tool("openssl", "asn1parse", "-inform", "DER", input=base64.b64decode(body)).stdout
    assert b"prime256v1" in text and b"ecdsa-with-SHA256" in text


def test_a_device_enrols_with_its_password_and_connects(shared, est, connect, fresh_name):
    shared.cli("group", "create", "est-hall")
    name = fresh_name()
    lamp = est.enrol(name, "--group", "est-hall", "--attribute", "floor=2")
    client = connect(shared, lamp)
    assert client.publish(f"dt/{name}/hello", "x") == 0
    shown = shared.json("device", "show", name)
    assert shown["groups"] == ["est-hall"] and shown["attributes"] == {"floor": "2"}
    assert [c["policies"] for c in shown["certificates"]] == [["device-default"]]
    came_by(shared, client, "est")
    # A renewed one came as the one before it.
    came_by(shared, connect(shared, est.renew(lamp)), "est")
    tool("openssl", "verify", "-CAfile", shared.root, "-untrusted", lamp.certificate, lamp.certificate)


def test_a_name_with_colons_enrols(shared, est, connect, fresh_name):
    name = fresh_name("hall:pump:7")
    assert connect(shared, est.enrol(name)).publish(f"dt/{name}/x", "y") == 0


def test_a_password_is_good_once_for_one_thing_and_for_its_time(shared, est, fresh_name):
    name, other = fresh_name(), fresh_name()
    key = est.key()
    request, foreign = est.request(f"/CN={name}", key), est.request(f"/CN={other}", key)
    first, second = est.password(name), est.password(name)
    wrong = "wrong, used up or expired"
    est.refused(401, wrong, ENROL, request, user=f"{name}:{first}")  # a newer one took its place
    est.refused(401, wrong, ENROL, request, user=f"{name}:{second.lower()}")
    est.refused(401, wrong, ENROL, request, user=f"{name}:")
    est.refused(401, wrong, ENROL, request, user=f"{other}:{second}")
    est.refused(401, wrong, ENROL, request, user=f"../{name}:{second}")
    est.refused(401, "certificate", ENROL, request)
    est.refused(401, "Basic", ENROL, request, headers=["Authorization: Bearer x"])
    est.refused(401, "Basic", ENROL, request, headers=["Authorization: Basic !!"])
    # What is refused for the request does not use it up.
    est.refused(403, "other names", ENROL, foreign, user=f"{name}:{second}")
    est.refused(400, "certificate signing request", ENROL, b"\x30\x00", user=f"{name}:{second}")
    status, _, given = est.call(ENROL, request, user=f"{name}:{second}")
    assert status == 200
    est.refused(401, wrong, ENROL, est.request(f"/CN={name}", est.key()), user=f"{name}:{second}")
    est.refused(401, wrong, "serverkeygen", request, user=f"{name}:{second}")
    # Whose answer was lost has the same again.
    assert est.call(ENROL, request, user=f"{name}:{second}")[::2] == (200, given)
    assert states(shared, name) == ["ACTIVE"]
    shared.cli("device", "revoke", name, "--yes")
    est.refused(401, wrong, ENROL, request, user=f"{name}:{second}")
    short = est.password(other, "--valid", "1s")
    time.sleep(1.1)  # its life
    est.refused(401, wrong, ENROL, foreign, user=f"{other}:{short}")
    assert "does not exist" in shared.refused("device", "show", other)


def test_an_answer_that_a_crash_took_is_given_again(server, tmp_path):
    est = Est(server, tmp_path)
    request, user = est.request("/CN=lamp-1", est.key()), f"lamp-1:{est.password('lamp-1')}"
    given = est.call(ENROL, request, user=user)
    assert given[0] == 200
    server.kill9()
    server.start()
    assert est.call(ENROL, request, user=user)[::2] == given[::2]
    est.refused(401, "used up", ENROL, est.request("/CN=lamp-1", est.key()), user=user)
    assert states(server, "lamp-1") == ["ACTIVE"]


def test_a_password_that_was_not_used_is_taken_back(shared, est, fresh_name):
    name = fresh_name()
    password = est.password(name)
    shared.cli("device", "enrol-password", name, "--withdraw")
    est.refused(401, "expired", ENROL, est.request(f"/CN={name}", est.key()), user=f"{name}:{password}")
    assert "no enrolment password" in shared.refused("device", "enrol-password", name, "--withdraw")


def test_a_password_is_not_on_disk_and_not_in_the_log(server, tmp_path):
    est = Est(server, tmp_path)
    password = est.password("lamp-1")
    est.refused(403, "other names", ENROL, est.request("/CN=other", est.key()), user=f"lamp-1:{password}")
    server.terminate()
    for path in server.data.rglob("*"):
        if path.is_file():
            assert password.encode() not in path.read_bytes(), path
    assert password not in server.stderr()
    server.start()
    assert est.call(ENROL, est.request("/CN=lamp-1", est.key()), user=f"lamp-1:{password}")[0] == 200


def test_who_may_make_a_password_and_what_it_is_made_for(shared, est, fresh_name):
    name = fresh_name()
    assert "does not exist" in shared.refused("device", "enrol-password", name, "--policy", "nothing")
    assert "does not exist" in shared.refused("device", "enrol-password", name, "--group", "nowhere")
    assert "90 days" in shared.refused("device", "enrol-password", name, "--valid", "2161h")
    assert "15m" in shared.refused("device", "enrol-password", name, "--valid", "soon")
    made = api.call(shared, "POST", "/muster/v1/operators", {"name": "est-viewer", "role": "viewer"})[2]
    place = est.place("viewer.credentials")
    place.write_text(made["credentials"])
    path = f"/muster/v1/devices/{name}/enrolment-password"
    assert api.call(shared, "POST", path, {}, who=api.credentials(place))[0] == 403


def test_a_swapped_board_enrols_again_and_the_old_one_is_out(shared, est, fresh_name):
    name = fresh_name()
    old = est.enrol(name)
    est.enrol(name)
    assert states(shared, name) == ["ACTIVE", "REVOKED"]
    est.refused(403, "active", REENROL, est.request(f"/CN={name}", est.key()), identity=old)


@pytest.mark.parametrize("operation", [REENROL, ENROL])
def test_renewal_overlaps_and_the_old_certificate_retires_when_the_new_one_is_used(shared, est, device, connect, operation):
    lamp = device("--policy", "device-default")
    shared.cli("group", "create", f"est-{lamp.name}")
    shared.cli("group", "add", f"est-{lamp.name}", lamp.name)
    topic = f"cmd/{lamp.name}/go"
    sleeper = connect(shared, lamp, clean=False, expiry=3600)
    assert sleeper.subscribe(topic, 1) == 1
    fresh = est.renew(lamp, operation)
    assert states(shared, lamp.name) == ["ACTIVE", "ACTIVE"]
    assert sleeper.alive(), "the old one is good until the new one is used"
    # The session passes to the new certificate, with its subscription.
    taken = connect(shared, fresh, clean=False, expiry=3600)
    assert taken.session_present
    assert est.call("cacerts", identity=fresh)[0] == 200
    assert states(shared, lamp.name) == ["ACTIVE", "INACTIVE"]
    assert taken.alive()
    est.refused(403, "active", REENROL, est.request(f"/CN={lamp.name}", est.key()), identity=lamp)
    shown = shared.json("device", "show", lamp.name)
    assert shown["groups"] == [f"est-{lamp.name}"]
    assert [c["policies"] for c in shown["certificates"]] == [["device-default"]] * 2
    again = est.renew(fresh)
    assert states(shared, lamp.name) == ["ACTIVE", "ACTIVE", "INACTIVE"]
    assert connect(shared, again).alive()


@pytest.mark.parametrize("gone", ["asleep", "awake", "asleep and restarted"])
def test_what_a_device_keeps_here_goes_on_under_its_new_certificate(server, connect, tmp_path, gone):
    """Its session, what waits in it, its delayed will and what it left retained."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    est, topic = Est(server, tmp_path), "cmd/lamp/go"
    server.policy("everything", EVERYTHING)
    lamp, hand = server.device("lamp"), connect(server, server.device("hand", "--policy", "everything"))
    delay = Properties(PacketTypes.WILLMESSAGE)
    delay.WillDelayInterval = 3600
    client = connect(server, lamp, clean=False, expiry=3600, will=("dt/lamp/gone", {"payload": b"x", "qos": 1, "properties": delay}))
    assert client.subscribe(topic, 1) == 1
    assert client.publish("dt/lamp/state", "on", retain=True) == 0
    if gone != "awake":
        client.drop()
        assert hand.publish(topic, "first") == 0
    fresh = est.renew(lamp)
    assert est.call("cacerts", identity=fresh)[0] == 200
    assert states(server, "lamp") == ["ACTIVE", "INACTIVE"]
    if gone == "awake":
        assert client.end().reason == ADMINISTRATIVE_ACTION
        assert hand.publish(topic, "first") == 0
    if gone.endswith("restarted"):
        server.kill9()
        server.start()
        hand = connect(server, hand.identity)
    assert hand.publish(topic, "second") == 0
    back = connect(server, fresh, clean=False, expiry=3600)
    assert back.session_present
    assert [back.payload(), back.payload()] == [b"first", b"second"]
    assert hand.subscribe("dt/lamp/#", 1) == 1
    assert hand.payload() == b"on"
    # A second time: the session was that of the new certificate by now. Then it is revoked, and nothing is left. What it
    # published last was answered after its acknowledgements were heard: nothing of before comes again.
    assert back.publish("dt/lamp/seen", "x") == 0
    back.drop()
    assert hand.publish(topic, "third") == 0
    again = est.renew(fresh)
    assert est.call("cacerts", identity=again)[0] == 200
    back = connect(server, again, clean=False, expiry=3600)
    assert back.session_present and back.payload() == b"third"
    back.disconnect()
    server.cli("device", "revoke", "lamp", "--yes")
    late = connect(server, hand.identity, client_id="late")
    assert late.subscribe("dt/lamp/#", 1) == 1
    proves_silence(late, "dt/lamp/marker", late)


def test_a_lost_answer_is_asked_for_again(shared, est, device):
    """However often: there is never more than one successor."""
    lamp = device()
    lost = [est.renew(lamp) for _ in range(3)]
    assert states(shared, lamp.name) == ["ACTIVE", "ACTIVE", "REVOKED", "REVOKED"]
    est.refused(403, "active", REENROL, est.request(f"/CN={lamp.name}", est.key()), identity=lost[0])
    # One that renews is in use.
    est.renew(lost[2])
    assert states(shared, lamp.name) == ["ACTIVE", "ACTIVE", "INACTIVE", "REVOKED", "REVOKED"]


def test_the_server_makes_a_key_for_those_that_cannot(shared, est, device, connect):
    lamp = device()
    status, head, body = est.call(KEYGEN, est.request(f"/CN={lamp.name}", est.key()), identity=lamp)
    assert status == 200, body
    (line,) = [line for line in head.splitlines() if line.lower().startswith("content-type")]
    parts = email.message_from_bytes(line.encode() + b"\r\n\r\n" + body).get_payload()
    assert [part.get_content_type() for part in parts] == ["application/pkcs8", "application/pkcs7-mime"]
    key = est.place("key.pem")
    tool("openssl", "pkey", "-inform", "DER", "-out", key, input=parts[0].get_payload(decode=True))
    assert connect(shared, est.identity(lamp.name, parts[1].get_payload().encode(), key)).alive()


def test_only_the_key_of_a_request_counts_and_other_names_are_refused(shared, est, device):
    lamp, other = device(), device()
    key = est.key()
    for subject, more in (
        (f"/CN={other.name}", []), (f"/O=Muster operators/CN={lamp.name}", []), (f"/CN={lamp.name}/CN={other.name}", []),
        (f"/CN={lamp.name}", ["-addext", "subjectAltName=DNS:localhost"]),
    ):
        est.refused(403, "other names", REENROL, est.request(subject, key, *more), identity=lamp)
    # Anything else that it asks for is not even looked at.
    asked = est.request(f"/CN={lamp.name}", key, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "extendedKeyUsage=serverAuth")
    status, _, body = est.call(REENROL, asked, identity=lamp)
    assert status == 200
    text = tool("openssl", "x509", "-noout", "-text", input=est.certificates(body)).stdout
    assert b"CA:FALSE" in text and b"TLS Web Server" not in text and b"TLS Web Client" in text
    # A subject left empty takes what it gets.
    assert est.call(REENROL, est.request("/", est.key()), identity=lamp)[0] == 200


def test_bodies_in_wrong_encodings(shared, est, device):
    lamp = device()
    der = est.request(f"/CN={lamp.name}", est.key())
    pem = tool("openssl", "req", "-inform", "DER", input=der).stdout
    one = {"identity": lamp}
    est.refused(400, "base64", REENROL, der, raw=True, **one)
    est.refused(400, "base64", REENROL, pem, raw=True, **one)
    est.refused(400, "base64", REENROL, b"", raw=True, **one)
    est.refused(400, "base64", REENROL, base64.b64encode(der)[:-2], raw=True, **one)
    est.refused(400, "certificate signing request", REENROL, der[:-1], **one)
    est.refused(400, "certificate signing request", REENROL, der + b"\0", **one)
    est.refused(400, "signature", REENROL, der[:-1] + bytes([der[-1] ^ 1]), **one)
    est.refused(415, "application/pkcs10", REENROL, der, media="application/json", **one)
    est.refused(413, "at most", REENROL, b"A" * 100_000, **one)
    # Any line breaks will do.
    for text in (base64.b64encode(der), base64.encodebytes(der).replace(b"\n", b"\r\n"), b"\n " + base64.encodebytes(der)):
        assert est.call(REENROL, text, raw=True, **one)[0] == 200
    assert est.call(REENROL, identity=lamp)[0] == 405
    est.refused(501, "full CMC", "fullcmc", der, **one)
    assert est.call("unknown", der, **one)[0] == 404


def test_certificates_that_renew_nothing(shared, est, device, tmp_path):
    lamp = device()
    request = est.request(f"/CN={lamp.name}", est.key())
    est.refused(403, "renewed under that certificate", REENROL, request)
    admin = Identity(shared.data / "operators/admin.crt", shared.data / "operators/admin.key", shared.root, "admin")
    est.refused(403, "not a device's", REENROL, request, identity=admin)
    # Validly signed and unknown to the registry.
    stranger = forge(tmp_path, lamp.name, Signer.of(shared), shared.root, usage=CLIENT)
    est.refused(403, "active", REENROL, request, identity=stranger)
    # One's password does not help a certificate that is not good.
    password = est.password(lamp.name)
    est.refused(403, "active", ENROL, request, identity=stranger, user=f"{lamp.name}:{password}")
    est.refused(403, "leave the certificate out", ENROL, request, identity=stranger, user=f"{lamp.name}:{password}")
    api.iot(shared).update_certificate(certificateId=lamp.id, newStatus="INACTIVE")
    est.refused(403, "active", REENROL, request, identity=lamp)
    api.iot(shared).update_certificate(certificateId=lamp.id, newStatus="REVOKED")
    est.refused(403, "active", REENROL, request, identity=lamp)
    loose = device()
    api.iot(shared).detach_thing_principal(thingName=loose.name, principal=loose.arn)
    est.refused(403, "no thing", REENROL, request, identity=loose)


def test_a_device_of_another_authority_that_renews_here_still_depends_on_it(shared, est, connect, tmp_path, fresh_name):
    client, name = api.iot(shared), fresh_name()
    made = Factory(tmp_path / "factory", name=fresh_name("factory"))
    made.register(client)
    lamp = made.device(shared, name)
    shared.json("device", "import", name, "--certificate", str(lamp.certificate))
    renewed = est.renew(est.renew(lamp))
    session = connect(shared, renewed)
    client.update_ca_certificate(certificateId=made.id, newStatus="INACTIVE")
    assert session.end().reason == ADMINISTRATIVE_ACTION
    with pytest.raises(Refused):
        connect(shared, renewed)
    est.refused(403, "active", REENROL, est.request(f"/CN={name}", est.key()), identity=renewed)
    client.update_ca_certificate(certificateId=made.id, newStatus="ACTIVE")
    assert connect(shared, renewed).publish(f"dt/{name}/x", "y") == 0
    # And who revokes all that the authority let in has this one among them.
    shared.cli("device", "revoke", "--ca", made.id, "--yes")
    assert "ACTIVE" not in states(shared, name)


def strongswan(*arguments):
    done = tool("pki", *arguments, check=False)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def test_strongswan_enrols_and_renews(shared, est, connect, fresh_name):
    name = fresh_name()
    url = f"https://localhost:{shared.port('https')}"
    key, request = est.key(), est.place("request.der")
    request.write_bytes(est.request(f"/CN={name}", key))
    trusted = ("--cacert", shared.root, "--cacert", shared.data / "ca/issuing.crt")
    code, out, said = strongswan("--est", "--url", url, "--in", request, *trusted, "--userpass", f"{name}:{est.password(name)}", "--outform", "pem")
    assert code == 0, said
    certificate = est.place("crt.pem")
    certificate.write_bytes(out + (shared.data / "ca/issuing.crt").read_bytes())
    lamp = Identity(certificate, key, shared.root, name)
    assert connect(shared, lamp).alive()
    again, request = est.key(), est.place("request.der")
    request.write_bytes(est.request(f"/CN={name}", again))
    leaf = est.place("leaf.pem")
    leaf.write_bytes(out)
    code, out, said = strongswan("--est", "--url", url, "--in", request, *trusted, "--cert", leaf, "--key", key, "--outform", "pem")
    assert code == 0, said
    certificate = est.place("crt.pem")
    certificate.write_bytes(out + (shared.data / "ca/issuing.crt").read_bytes())
    assert connect(shared, Identity(certificate, again, shared.root, name)).alive()
    code, out, said = strongswan("--est", "--url", url, "--in", request, *trusted, "--userpass", f"{name}:WRONG", "--outform", "pem")
    assert code != 0 and not out
