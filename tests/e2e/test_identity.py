"""Who is let in: a certificate the registry counts as ACTIVE, under its own client id, and nobody else."""

import ssl
import struct
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import api
import pki
import wire
from clients import Refused, tls_context
from devices import eventually
from pki import DAY, Signer, forge
from server import Identity, allow, document
from wire import Closed, WebSocket, Wire

DOORS = pytest.mark.parametrize("door", [Wire, WebSocket], ids=["tls", "websocket"])
TLS_VERSIONS = pytest.mark.parametrize("version", [wire.TLS12, wire.TLS13], ids=["tls1.2", "tls1.3"])


def refusal(server, identity, door=Wire, client_id=None, **how):
    """What a client without leave sees: a TLS alert's text or the end of the stream, never a CONNACK."""
    with pytest.raises(Closed) as closed:
        with door(server, identity, **how) as client:
            client.open(client_id or identity.name)
            pytest.fail("a CONNACK came")
    return str(closed.value).lower()


def served(server, identity, door=Wire, **how):
    with door(server, identity, **how) as client:
        return client.open(identity.name) == 0


# -- certificates

# Refusals are sampled into the log: others may have taken a second's lines, so tests ask again until theirs is there.
UNKNOWN = "the registry does not know this certificate"


@DOORS
@TLS_VERSIONS
def test_no_certificate(shared, door, version):
    nobody = SimpleNamespace(certificate=None, key=None, root=shared.root, name="lamp")
    assert "certificate required" in (text := refusal(shared, nobody, door, version=version)) or "handshake failure" in text, text


@DOORS
def test_a_certificate_of_another_authority(shared, tmp_path, door):
    foreign = forge(tmp_path, "lamp", Signer.foreign(), shared.root)
    assert "unknown ca" in refusal(shared, foreign, door)


def test_a_certificate_of_another_authority_of_the_same_name(shared, device, tmp_path):
    """The signature decides, not the name: a foreign authority calls itself ours, and the device ours too."""
    known = device()
    foreign = forge(tmp_path, known.name, Signer.foreign(like=Signer.of(shared)), shared.root)
    assert "alert" in refusal(shared, foreign)
    assert served(shared, known)


def test_a_certificate_of_another_server(shared, make_server):
    stranger = make_server().device("lamp-1")
    stranger.root = shared.root
    assert "alert" in refusal(shared, stranger)


@DOORS
def test_a_self_signed_certificate(shared, tmp_path, door):
    assert "alert" in refusal(shared, forge(tmp_path, "lamp", None, shared.root), door)


@DOORS
def test_an_expired_certificate(shared, tmp_path, door):
    old = forge(tmp_path, "lamp", Signer.of(shared), shared.root, begin=pki.now() - 9 * DAY, end=pki.now() - DAY)
    assert "certificate expired" in refusal(shared, old, door)


@DOORS
def test_a_certificate_that_is_not_valid_yet(shared, tmp_path, door):
    early = forge(tmp_path, "lamp", Signer.of(shared), shared.root, begin=pki.now() + DAY, end=pki.now() + 9 * DAY)
    assert "alert" in refusal(shared, early, door)


@DOORS
def test_a_validly_signed_certificate_the_registry_does_not_know(shared, device, tmp_path, door):
    known = device()
    unknown = forge(tmp_path, known.name, Signer.of(shared), shared.root)
    said_already = shared.stderr().count(UNKNOWN)

    def is_said():
        refusal(shared, unknown, door)
        return shared.stderr().count(UNKNOWN) > said_already

    eventually(is_said, "the log does not say why")
    assert served(shared, known, door)


def test_a_certificate_signed_by_the_root_itself(shared, tmp_path):
    refusal(shared, forge(tmp_path, "lamp", Signer.of(shared, "root"), shared.root))


@DOORS
def test_a_server_certificate_used_as_a_client(shared, tmp_path, door):
    server = forge(tmp_path, "localhost", Signer.of(shared), shared.root, usage=pki.SERVER)
    assert "alert" in refusal(shared, server, door)


def test_the_servers_own_certificate_used_as_a_client(shared):
    both = shared.data / "tls/server.pem"
    own = Identity(both, both, shared.root, "localhost")
    assert "alert" in refusal(shared, own)


@DOORS
def test_the_operators_certificate_used_as_a_device(shared, door):
    operators = shared.data / "operators"
    refusal(shared, Identity(operators / "admin.crt", operators / "admin.key", shared.root, "admin"), door)


def test_an_authoritys_certificate_used_as_a_client(shared, tmp_path):
    issuing = Signer.of(shared)
    refusal(shared, pki.save(tmp_path, "ca", issuing.certificate, [], issuing.key, shared.root))


def test_a_sub_authority_made_with_a_devices_key_signs_nothing(shared, device, tmp_path):
    """A device certificate is no authority, whatever its owner signs with it."""
    lamp = device()
    leaf = x509.load_pem_x509_certificate(lamp.certificate.read_bytes())
    key = serialization.load_pem_private_key(lamp.key.read_bytes(), None)
    assert "alert" in refusal(shared, forge(tmp_path, "lamp", Signer(leaf, key), shared.root))


def test_a_certificate_without_its_key(shared, device, tmp_path):
    """The certificate is public; what proves is the key."""
    lamp, other = device(), device()
    context = tls_context(SimpleNamespace(certificate=None, root=shared.root))
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain(str(lamp.certificate), str(other.key))
    issued_to_other_key = forge(tmp_path, lamp.name, Signer.of(shared), shared.root)
    refusal(shared, issued_to_other_key)


# -- states of the registry

@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
@DOORS
@TLS_VERSIONS
def test_a_certificate_that_is_not_active(shared, device, door, version, status):
    lamp = device()
    assert served(shared, lamp, door, version=version)
    api.iot(shared).update_certificate(certificateId=lamp.id, newStatus=status)
    said = f"certificate {lamp.id}: the certificate is {status}, not ACTIVE"

    def is_said():
        refusal(shared, lamp, door, version=version)
        return said in shared.stderr()

    eventually(is_said, "the log does not say why")


def test_an_inactive_certificate_may_be_active_again_a_revoked_one_never(shared, device):
    lamp, iot = device(), api.iot(shared)
    iot.update_certificate(certificateId=lamp.id, newStatus="INACTIVE")
    refusal(shared, lamp)
    iot.update_certificate(certificateId=lamp.id, newStatus="ACTIVE")
    assert served(shared, lamp)
    iot.update_certificate(certificateId=lamp.id, newStatus="REVOKED")
    with pytest.raises(Exception, match="(?i)revoked"):
        iot.update_certificate(certificateId=lamp.id, newStatus="ACTIVE")
    refusal(shared, lamp)


def test_a_replaced_board_keeps_the_name_and_the_old_one_is_out(shared, device, fresh_name):
    old = device()
    out = shared.home / fresh_name("board")
    shared.cli("device", "replace", old.name, "--yes", "--out", str(out))
    new = Identity(out / f"{old.name}.crt", out / f"{old.name}.key", out / "root.crt", old.name)
    refusal(shared, old)
    assert served(shared, new)


def test_a_deleted_device_is_out(shared, device):
    lamp = device()
    shared.cli("device", "delete", lamp.name, "--yes")
    refusal(shared, lamp)
    assert "does not exist" in shared.refused("device", "show", lamp.name)


def test_revocation_between_handshake_and_connect(shared, device):
    lamp = device()
    with Wire(shared, lamp) as client:
        shared.cli("device", "revoke", lamp.name, "--yes")
        client.send(wire.connect(lamp.name))
        assert client.reason_of_end() in (0x87, None)


# -- resumed TLS sessions

def resumable(server, identity, door, version):
    """A TLS session of a good connection, and the context it belongs to."""
    with door(server, identity, version=version) as client:
        assert client.open(identity.name) == 0
        assert client.ping()
        return client.context, client.socket.session


@DOORS
@TLS_VERSIONS
def test_a_resumed_session_of_a_good_certificate_is_served(shared, device, door, version):
    """Without this the tests below would prove nothing."""
    lamp = device()
    context, session = resumable(shared, lamp, door, version)
    with door(shared, lamp, context=context, session=session) as client:
        assert client.open(lamp.name) == 0
        assert client.socket.session_reused


@DOORS
@TLS_VERSIONS
@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_a_resumed_session_of_a_certificate_that_is_not_active(shared, device, door, version, status):
    lamp = device()
    context, session = resumable(shared, lamp, door, version)
    api.iot(shared).update_certificate(certificateId=lamp.id, newStatus=status)
    refusal(shared, lamp, door, context=context, session=session)


def test_a_resumed_session_is_no_way_to_another_port(shared, device):
    """A session begun at one door is judged anew at the next."""
    lamp = device()
    context, session = resumable(shared, lamp, Wire, wire.TLS13)
    shared.cli("device", "revoke", lamp.name, "--yes")
    refusal(shared, lamp, WebSocket, context=context, session=session)


# -- client ids

@pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5.0"])
def test_the_client_id_of_another_thing(shared, device, version):
    lamp, other = device(), device()
    with Wire(shared, other) as victim, Wire(shared, lamp) as intruder:
        assert victim.open(other.name) == 0
        assert intruder.open(other.name, version=version) == {4: 5, 5: 0x87}[version]
        assert victim.ping()


@pytest.mark.parametrize("client_id", ["+", "#", "*", "${iot:ClientId}", "$aws", "x" * 23, "x" * 65535, "lamp\ufffd", " "], ids=lambda text: repr(text[:16]))
def test_odd_client_ids_are_refused_under_the_default_policy(shared, device, client_id):
    lamp = device()
    with Wire(shared, lamp) as client:
        client.send(wire.connect(client_id))
        assert client.reason_of_end() in (0x85, 0x87, 0x95, None)
    assert served(shared, lamp)


@pytest.mark.parametrize("client_id", [b"lamp\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80"])
def test_client_ids_that_are_not_text_are_refused(shared, device, client_id):
    with Wire(shared, device("--policy", "everything")) as client:
        client.send(wire.connect(client_id))
        assert client.reason_of_end() in (0x81, 0x85, None)


@pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5.0"])
def test_an_empty_client_id_is_not_the_things_name(shared, device, version):
    with Wire(shared, device()) as client:
        assert client.open("", version=version) == {4: 5, 5: 0x87}[version]


def test_wildcards_in_a_client_id_do_not_widen_a_policy(shared, device, fresh_name):
    """${iot:ClientId} in a filter must not become a wildcard when the client calls itself one."""
    name = fresh_name("policy")
    shared.policy(name, document(
        allow("Connect", "client/*"), allow("Subscribe", "topicfilter/private/${iot:ClientId}/x"), allow("Receive", "topic/private/*")))
    lamp = device("--policy", name)
    for client_id in ("+", "#"):
        with Wire(shared, lamp) as client:
            if client.open(client_id) != 0:
                continue
            client.send(wire.subscribe(f"private/{client_id}/x" if client_id == "+" else "private/#"))
            kind, _, body = client.packet()
            assert kind == wire.SUBACK and body[-1] >= 0x80


def test_a_session_is_not_resumed_by_another_identity(shared, device):
    expiry = b"\x11" + struct.pack(">I", 300)
    first, second = device("--policy", "everything"), device("--policy", "everything")
    with Wire(shared, first) as client:
        assert client.open("same", clean=False, properties=expiry) == 0
        client.send(wire.subscribe("secret/#", qos=1))
        assert client.packet()[0] == wire.SUBACK
    with Wire(shared, second) as other:
        other.send(wire.connect("same", clean=False, properties=expiry))
        kind, _, body = other.packet()
        assert (kind, body[0], body[1]) == (wire.CONNACK, 0, 0)


def test_kicking_oneself_in_turns_disturbs_only_oneself(shared, device, connect):
    bystander = connect(shared, device())
    lamp = device()
    clients = []
    for _ in range(20):
        client = Wire(shared, lamp)
        assert client.open(lamp.name) == 0
        clients.append(client)
    assert [client.reason_of_end() for client in clients[:-1]] == [0x8E] * 19
    assert clients[-1].ping() and bystander.alive()
    for client in clients:
        client.close()


def test_a_client_cannot_write_lines_into_the_log(shared, device):
    forged = "x\n2026-01-01T00:00:00Z ERROR forged: line\x1b[31m"
    lamp = device()
    with Wire(shared, lamp) as client:
        client.send(wire.connect(forged))
        client.reason_of_end()
    with Wire(shared, lamp) as client:
        assert client.open(lamp.name) == 0
        client.send(wire.publish(forged, b"x", qos=1))
        client.reason_of_end()
    said = shared.stderr()
    assert not [line for line in said.splitlines() if line.startswith("2026-01-01")]
    assert "\x1b" not in said


def test_a_refused_client_is_told_nothing_of_the_registry(shared, device, tmp_path, connect):
    """What is refused at the handshake gets no sentence: who does not exist must not learn who does."""
    known = device()
    text = refusal(shared, forge(tmp_path, known.name, Signer.of(shared), shared.root))
    assert known.name not in text
    with pytest.raises(Refused) as refused:
        connect(shared, known, client_id="another-thing")
    assert refused.value.reason == 0x87
