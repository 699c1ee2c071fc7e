"""Authorities made elsewhere, with openssl alone: registered by boto3, their devices connect by paho and mosquitto. Each
can speak for what it signed and was registered, and for nobody else."""

import json
import ssl
import subprocess
import urllib.request

import pytest
from botocore.exceptions import ClientError

from api import iot, send
from clients import Refused, mosquitto_pub, tls_context
from devices import came_by, eventually
from server import Identity
from test_mistakes import clock
from wire import Closed, Wire

ROLE = "arn:aws:iam::000000000000:role/jitp"
LEAF = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n"


def openssl(*arguments, **how):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Factory:
    """An authority of openssl's making."""

    def __init__(self, home, name="Factory", subject=None):
        self.home, self.name = home, name
        home.mkdir(parents=True, exist_ok=True)
        self.key, self.crt = home / "ca.key", home / "ca.crt"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.key, "-out",
                self.crt, "-days", "30", "-subj", subject or f"/O=Lamps/CN={name}",
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.pem = self.crt.read_text()

    def sign(self, subject, extensions=LEAF, kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), serial=None, days=20):
        """A certificate and its key; returns both paths."""
        at = self.home / f"leaf-{len(list(self.home.iterdir()))}"
        key, csr, crt, ext = (at.with_suffix(s) for s in (".key", ".csr", ".crt", ".ext"))
        openssl("req", "-newkey", *kind, "-nodes", "-keyout", key, "-out", csr, "-subj", subject)
        ext.write_text(extensions)
        openssl("x509", "-req", "-in", csr, "-CA", self.crt, "-CAkey", self.key, "-out", crt, "-days", days, "-extfile", ext,
                *(("-set_serial", serial) if serial else ("-CAcreateserial",)))
        return crt, key

    def renewed(self, days):
        """Another certificate over its name and key, PEM."""
        crt = self.home / f"renewed-{days}.crt"
        subject = openssl("x509", "-in", self.crt, "-noout", "-subject", "-nameopt", "RFC2253").strip().removeprefix("subject=")
        openssl("req", "-x509", "-key", self.key, "-out", crt, "-days", days, "-subj", "/" + "/".join(reversed(subject.split(","))),
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        return crt.read_text()

    def device(self, server, name, subject=None, **how):
        crt, key = self.sign(subject or f"/O=Lamps/CN={name}", **how)
        return Identity(crt, key, server.root, name)

    def proof(self, client):
        crt, _ = self.sign(f"/CN={client.get_registration_code()['registrationCode']}")
        return crt.read_text()

    def register(self, client, active=True, auto=False, **how):
        done = client.register_ca_certificate(
            caCertificate=self.pem, verificationCertificate=self.proof(client), setAsActive=active, allowAutoRegistration=auto, **how)
        self.id = done["certificateId"]
        assert done["certificateArn"].endswith(f":cacert/{self.id}")
        return self


def code_of(error):
    return error.value.response["Error"]["Code"]


@pytest.fixture
def factory(tmp_path, fresh_name):
    return lambda subject=None: Factory(tmp_path / fresh_name("factory"), fresh_name("Factory"), subject)


def test_an_authority_is_registered_shown_changed_and_deleted(shared, factory):
    client, made = iot(shared), factory()
    with pytest.raises(ClientError) as refused:
        client.register_ca_certificate(caCertificate=made.pem)
    assert code_of(refused) == "RegistrationCodeValidationException"
    for proof in (made.sign("/CN=some-other-code")[0].read_text(), factory().proof(client)):
        with pytest.raises(ClientError) as refused:
            client.register_ca_certificate(caCertificate=made.pem, verificationCertificate=proof)
        assert code_of(refused) == "RegistrationCodeValidationException"
    leaf, _ = made.sign("/CN=leaf")
    for pem in ("", "rubbish", leaf.read_text(), made.pem * 2, shared.root.read_text()):
        with pytest.raises(ClientError) as refused:
            client.register_ca_certificate(caCertificate=pem or "x", verificationCertificate=made.proof(client))
        assert code_of(refused) in ("CertificateValidationException", "RegistrationCodeValidationException"), pem
    made.register(client, active=False)
    with pytest.raises(ClientError) as refused:
        made.register(client)
    assert code_of(refused) == "ResourceAlreadyExistsException"
    shown = client.describe_ca_certificate(certificateId=made.id)["certificateDescription"]
    assert (shown["status"], shown["autoRegistrationStatus"], shown["certificateMode"]) == ("INACTIVE", "DISABLE", "DEFAULT")
    assert shown["certificatePem"].split() == made.pem.split() and shown["validity"]["notAfter"]
    assert made.id in [c["certificateId"] for p in client.get_paginator("list_ca_certificates").paginate(PaginationConfig={"PageSize": 1}) for c in p["certificates"]]
    client.update_ca_certificate(certificateId=made.id, newStatus="ACTIVE", newAutoRegistrationStatus="ENABLE")
    shown = client.describe_ca_certificate(certificateId=made.id)["certificateDescription"]
    assert (shown["status"], shown["autoRegistrationStatus"], shown["customerVersion"]) == ("ACTIVE", "ENABLE", 2)
    with pytest.raises(ClientError) as refused:
        client.delete_ca_certificate(certificateId=made.id)
    assert code_of(refused) == "CertificateStateException"
    client.update_ca_certificate(certificateId=made.id, newStatus="INACTIVE")
    client.delete_ca_certificate(certificateId=made.id)
    with pytest.raises(ClientError) as refused:
        client.describe_ca_certificate(certificateId=made.id)
    assert code_of(refused) == "ResourceNotFoundException"
    # Without a proof only where that is said.
    alone = client.register_ca_certificate(caCertificate=made.pem, certificateMode="SNI_ONLY")["certificateId"]
    assert client.describe_ca_certificate(certificateId=alone)["certificateDescription"]["certificateMode"] == "SNI_ONLY"
    client.delete_ca_certificate(certificateId=alone)


def test_a_registered_certificate_opens_the_door_and_no_other_does(shared, connect, factory, fresh_name):
    client, made, stranger = iot(shared), factory(), factory()
    made.register(client)
    name = fresh_name()
    lamp = made.device(shared, name)
    with pytest.raises(Refused):
        connect(shared, lamp)
    # Nobody becomes a device by having been signed by an authority that does not register by itself.
    assert client.list_certificates_by_ca(caCertificateId=made.id)["certificates"] == []
    shared.json("device", "import", name, "--certificate", str(lamp.certificate))
    session = connect(shared, lamp)
    assert session.publish(f"dt/{name}/x", "y") == 0
    assert session.publish("dt/other/x", "y") == 0x87
    came_by(shared, session, "import")
    assert mosquitto_pub(shared, made.device(shared, name), "-t", f"dt/{name}/x", "-m", "y").returncode != 0
    listed = client.list_certificates_by_ca(caCertificateId=made.id)["certificates"]
    assert len(listed) == 1 and listed[0]["status"] == "ACTIVE"
    described = client.describe_certificate(certificateId=listed[0]["certificateId"])["certificateDescription"]
    assert described["caCertificateId"] == made.id

    for again in (lambda: client.register_certificate(certificatePem=lamp.certificate.read_text()),
                  lambda: client.register_certificate_without_ca(certificatePem=lamp.certificate.read_text())):
        with pytest.raises(ClientError) as refused:
            again()
        assert code_of(refused) == "ResourceAlreadyExistsException"
    wrong = {
        "another authority's": stranger.sign("/CN=x")[0],
        "an authority's own": made.sign("/CN=x", "basicConstraints=CA:TRUE\n")[0],
        "a server's": made.sign("/CN=x", "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")[0],
        "one with a weak key": made.sign("/CN=x", kind=("rsa:1024",))[0],
        "our own": shared.device(fresh_name()).certificate,
    }
    for what, crt in wrong.items():
        pem = crt.read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
        with pytest.raises(ClientError) as refused:
            client.register_certificate(certificatePem=pem, setAsActive=True)
        assert code_of(refused) == "CertificateValidationException", what
    # A certificate that says the same under the same name of an authority, signed by another key.
    impostor = factory(subject=f"/O=Lamps/CN={made.name}")
    with pytest.raises(Refused):
        connect(shared, impostor.device(shared, name))
    assert session.alive()


def test_an_authority_that_is_switched_off_takes_its_sessions_with_it(shared, connect, factory, fresh_name):
    client, made, other = iot(shared), factory(), factory()
    lamps = []
    for authority in (made, other):
        authority.register(client)
        name = fresh_name()
        lamp = authority.device(shared, name)
        shared.json("device", "import", name, "--certificate", str(lamp.certificate))
        lamps.append((lamp, connect(shared, lamp, clean=False, expiry=600)))
    ours = connect(shared, shared.device(fresh_name()))
    (lamp, session), (_, beside) = lamps
    client.update_ca_certificate(certificateId=made.id, newStatus="INACTIVE")
    assert session.end().reason == 0x98
    with pytest.raises(Refused):
        connect(shared, lamp)
    shared.said("INACTIVE")
    assert beside.alive() and ours.alive()
    with pytest.raises(ClientError) as refused:
        client.register_certificate(certificatePem=made.sign("/CN=late")[0].read_text(), caCertificatePem=made.pem)
    assert code_of(refused) == "CertificateStateException"
    client.update_ca_certificate(certificateId=made.id, newStatus="ACTIVE")
    assert connect(shared, lamp).publish(f"dt/{lamp.name}/x", "y") == 0
    client.update_ca_certificate(certificateId=made.id, newStatus="INACTIVE")
    client.delete_ca_certificate(certificateId=made.id)
    with pytest.raises(Refused):
        connect(shared, lamp)


def test_a_revoked_one_stays_out_and_says_nothing_of_ours(make_server, connect, tmp_path):
    server = make_server()
    client, made = iot(server), Factory(tmp_path / "factory")
    made.register(client, auto=True)
    ours = server.device("ours")
    # A serial number that one of our own certificates has.
    serial = "0x" + openssl("x509", "-in", ours.certificate, "-noout", "-serial").strip().split("=")[1]
    twin = made.device(server, "twin", serial=serial)
    server.json("device", "import", "twin", "--certificate", str(twin.certificate))
    session = connect(server, twin)
    server.cli("device", "revoke", "twin", "--yes", "--reason", "keyCompromise")
    assert session.end().reason == 0x98
    crl = subprocess.run(["openssl", "crl", "-inform", "DER", "-noout", "-text"], capture_output=True, timeout=30, input=lists(server)).stdout
    assert b"No Revoked Certificates" in crl
    assert connect(server, ours).publish("dt/ours/x", "y") == 0
    found = server.run("audit", "run", "--json")
    assert found.returncode == 0, found.stdout
    # Deleted with its thing, it is not let in again as a newcomer, nor by being registered.
    server.cli("device", "delete", "twin", "--yes")
    with pytest.raises(Refused):
        connect(server, twin)
    with pytest.raises(ClientError) as refused:
        client.register_certificate(certificatePem=twin.certificate.read_text())
    assert code_of(refused) == "CertificateStateException"
    assert client.list_certificates_by_ca(caCertificateId=made.id)["certificates"] == []


def lists(server):
    return urllib.request.urlopen("http://localhost:%d/crl/0.crl" % server.port("http"), timeout=30).read()


def test_a_certificate_without_an_authority_is_believed_by_itself(shared, connect, factory, fresh_name):
    client, nobody = iot(shared), factory()
    name = fresh_name()
    lamp = nobody.device(shared, name)
    done = client.register_certificate_without_ca(certificatePem=lamp.certificate.read_text(), status="ACTIVE")
    client.create_thing(thingName=name)
    client.attach_thing_principal(thingName=name, principal=done["certificateArn"])
    client.attach_policy(policyName="device-default", target=done["certificateArn"])
    session = connect(shared, lamp)
    assert session.publish(f"dt/{name}/x", "y") == 0
    # The next one that the same hand signed is nobody's.
    with pytest.raises(Refused):
        connect(shared, nobody.device(shared, name))
    assert client.describe_certificate(certificateId=done["certificateId"])["certificateDescription"]["certificateMode"] == "SNI_ONLY"
    client.update_certificate(certificateId=done["certificateId"], newStatus="INACTIVE")
    assert session.end().reason == 0x98
    with pytest.raises(Refused):
        connect(shared, lamp)


# -- just in time

def template(group, **more):
    return json.dumps({
        "Parameters": {"AWS::IoT::Certificate::CommonName": {"Type": "String"}, "AWS::IoT::Certificate::SerialNumber": {"Type": "String"},
                       "AWS::IoT::Certificate::Country": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {
                "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"}, "ThingGroups": [group],
                "AttributePayload": {"serial": {"Ref": "AWS::IoT::Certificate::SerialNumber"}, "country": {"Ref": "AWS::IoT::Certificate::Country"}}}, **more},
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device-default"}},
        }})


def registered(client, made):
    return client.list_certificates_by_ca(caCertificateId=made.id)["certificates"]


def test_a_newcomer_waits_for_an_operator_and_is_told_of(shared, connect, factory, fresh_name, device):
    client, made = iot(shared), factory()
    made.register(client, auto=True)
    watch = connect(shared, device("--policy", "everything"))
    assert watch.subscribe(f"$aws/events/certificates/registered/{made.id}") in (0, 1)
    name = fresh_name()
    lamp = made.device(shared, name)
    with pytest.raises(Refused):
        connect(shared, lamp)
    told = json.loads(watch.payload())
    assert told.pop("timestamp") and told.pop("certificateRegistrationTimestamp")
    (row,) = registered(client, made)
    assert row["status"] == "PENDING_ACTIVATION"
    assert told == {"certificateId": row["certificateId"], "caCertificateId": made.id, "certificateStatus": "PENDING_ACTIVATION", "awsAccountId": "000000000000"}
    with pytest.raises(Refused):
        connect(shared, lamp)
    assert len(registered(client, made)) == 1, "coming again does not register it twice"
    client.create_thing(thingName=name)
    client.attach_thing_principal(thingName=name, principal=row["certificateArn"])
    client.attach_policy(policyName="device-default", target=row["certificateArn"])
    client.update_certificate(certificateId=row["certificateId"], newStatus="ACTIVE")
    assert connect(shared, lamp, version=4).publish(f"dt/{name}/x", "y") == 0
    came_by(shared, connect(shared, lamp), "jitr")
    # An authority that is switched off, or does not register by itself any more, gets no new ones and says so.
    for change in ({"newAutoRegistrationStatus": "DISABLE"}, {"newStatus": "INACTIVE"}):
        client.update_ca_certificate(certificateId=made.id, **change)
        with pytest.raises(Refused):
            connect(shared, made.device(shared, fresh_name()))
        assert len(registered(client, made)) == 1
    shared.said("does not register by itself")
    shared.said("INACTIVE")


@pytest.mark.parametrize("named", [False, True])
def test_a_newcomer_becomes_a_device_by_a_template(shared, connect, factory, fresh_name, named):
    client, made, group = iot(shared), factory(), fresh_name("jitp")
    client.create_thing_group(thingGroupName=group)
    config = {"templateBody": template(group), "roleArn": ROLE}
    if named:
        client.create_provisioning_template(templateName=group, templateBody=config.pop("templateBody"), provisioningRoleArn=ROLE, enabled=True, type="JITP")
        config = {"templateName": group}
    made.register(client, auto=True, registrationConfig=config)
    assert client.describe_ca_certificate(certificateId=made.id)["registrationConfig"] == config
    name = fresh_name()
    lamp = made.device(shared, name, f"/C=DE/O=Lamps/serialNumber=sn-7/CN={name}")
    # The first connection ends; the device comes again.
    assert mosquitto_pub(shared, lamp, "-t", f"dt/{name}/x", "-m", "y", "-q", "1").returncode != 0
    eventually(lambda: registered(client, made), "it is registered")
    assert mosquitto_pub(shared, lamp, "-t", f"dt/{name}/x", "-m", "y", "-q", "1").returncode == 0
    session = connect(shared, lamp)
    assert session.publish(f"dt/{name}/x", "y") == 0 and session.publish("dt/other/x", "y") == 0x87
    came_by(shared, session, "jitp")
    assert client.describe_thing(thingName=name)["attributes"] == {"serial": "sn-7", "country": "DE"}
    assert [g["groupName"] for g in client.list_thing_groups_for_thing(thingName=name)["thingGroups"]] == [group]

    # Neither a device of ours nor one of its own is given away to a second certificate of the same name.
    victim = shared.device(fresh_name())
    for taken in (victim.name, name):
        with pytest.raises(Refused):
            connect(shared, made.device(shared, taken, f"/C=DE/serialNumber=1/CN={taken}"))
        eventually(lambda: f"thing {taken} exists and has had a certificate" in shared.stderr(), "the refusal is in the log")
    # Nor does one come in whose certificate cannot answer the template.
    with pytest.raises(Refused):
        connect(shared, made.device(shared, fresh_name()))
    eventually(lambda: "parameter AWS::IoT::Certificate::Country is missing" in shared.stderr(), "the refusal names what is missing")
    assert len(registered(client, made)) == 1
    assert connect(shared, victim).publish(f"dt/{victim.name}/x", "y") == 0 and session.alive()


def test_templates_a_certificate_cannot_answer_are_refused_beforehand(shared, factory, fresh_name):
    client, made, group = iot(shared), factory(), fresh_name("jitp")
    body = json.loads(template(group))
    body["Parameters"]["Colour"] = {"Type": "String"}
    for config in ({"templateBody": json.dumps(body), "roleArn": ROLE}, {"templateBody": "{", "roleArn": ROLE}, {"templateName": "nowhere"}):
        with pytest.raises(ClientError) as refused:
            made.register(client, auto=True, registrationConfig=config)
        assert code_of(refused) in ("InvalidRequestException", "ResourceNotFoundException"), config


def test_authorities_and_their_devices_survive_a_crash(make_server, connect, tmp_path):
    server = make_server()
    client, made = iot(server), Factory(tmp_path / "factory")
    made.register(client)
    lamp = made.device(server, "lamp")
    server.json("device", "import", "lamp", "--certificate", str(lamp.certificate))
    code = client.get_registration_code()["registrationCode"]
    server.kill9()
    server.start()
    assert connect(server, lamp).publish("dt/lamp/x", "y") == 0
    client = iot(server)
    assert client.get_registration_code()["registrationCode"] == code
    client.delete_registration_code()
    assert client.get_registration_code()["registrationCode"] != code


def test_an_allow_list_is_asked_of_newcomers_too(shared, connect, factory, fresh_name):
    client, made, group = iot(shared), factory(), fresh_name("jitp")
    client.create_thing_group(thingGroupName=group)
    client.create_provisioning_template(
        templateName=group, templateBody=template(group), provisioningRoleArn=ROLE, enabled=True, type="JITP",
        preProvisioningHook={"payloadVersion": "2020-04-01", "targetArn": "allow-list:AWS::IoT::Certificate::SerialNumber"})
    made.register(client, auto=True, registrationConfig={"templateName": group})
    wanted = {n: made.device(shared, name, f"/C=DE/serialNumber={name}/CN={name}") for n, name in enumerate([fresh_name(), fresh_name()])}
    serials = made.home / "serials.txt"
    serials.write_text(wanted[0].name + "\n")
    shared.cli("template", "allow", group, "--file", str(serials))
    for lamp in wanted.values():
        with pytest.raises(Refused):
            connect(shared, lamp)
    eventually(lambda: registered(client, made), "the one on the list is registered")
    eventually(lambda: "AWS::IoT::Certificate::SerialNumber is not on the template's allow list" in shared.stderr(), "the other is refused")
    assert connect(shared, wanted[0]).publish(f"dt/{wanted[0].name}/x", "y") == 0
    assert len(registered(client, made)) == 1
    # A template that is switched off welcomes nobody.
    client.update_provisioning_template(templateName=group, enabled=False)
    serials.write_text(wanted[1].name + "\n")
    shared.cli("template", "allow", group, "--file", str(serials))
    with pytest.raises(Refused):
        connect(shared, wanted[1])
    eventually(lambda: f"template {group} is not enabled for just-in-time provisioning" in shared.stderr(), "it says so")
    assert len(registered(client, made)) == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", [("ec", "-pkeyopt", "ec_paramgen_curve:P-384"), ("rsa:2048",), ("ed25519",)])
def test_every_way_in_asks_for_the_authority_again(shared, connect, factory, fresh_name, version, kind):
    """Over TCP and WebSocket, in a full handshake and in one that resumes: an authority that is off is off."""
    client, made = iot(shared), factory()
    made.register(client)
    lamp = made.device(shared, fresh_name(), kind=kind)
    shared.json("device", "import", lamp.name, "--certificate", str(lamp.certificate))
    context = tls_context(lamp, version=version)
    first = Wire(shared, lamp, context=context)
    assert first.open(lamp.name) == 0
    # The ticket has come with the answer.
    session = first.socket.session
    web = connect(shared, lamp, client_id=lamp.name, websocket=True)
    assert first.reason_of_end() == 0x8E and web.publish(f"dt/{lamp.name}/x", "y") == 0
    again = Wire(shared, lamp, context=context, session=session)
    assert again.socket.session_reused and again.open(lamp.name) == 0
    assert web.end().reason == 0x8E
    client.update_ca_certificate(certificateId=made.id, newStatus="INACTIVE")
    assert again.reason_of_end() == 0x98
    for door in (lambda: Wire(shared, lamp, context=context, session=session), lambda: Wire(shared, lamp, version=version)):
        with pytest.raises(Closed):
            door().open(lamp.name)
    with pytest.raises(Refused):
        connect(shared, lamp, websocket=True)


def test_a_foreign_certificate_is_no_operators_and_no_claim(shared, factory, fresh_name):
    """Whatever its subject says: over HTTPS it is a device's, and before it is registered it is nobody's."""
    client, made = iot(shared), factory()
    made.register(client, auto=True)
    crt, key = made.sign("/O=Muster Operators/CN=admin")
    admin = Identity(crt, key, shared.root, fresh_name())
    for _ in range(2):
        with pytest.raises(OSError):
            send(shared, "GET", "/things", identity=admin)
        assert registered(client, made) == [], "nobody is registered who comes to the API"
    shared.json("device", "import", admin.name, "--certificate", str(crt))
    status, kind, _ = send(shared, "GET", "/things", identity=admin)
    assert (status, kind) == (403, "AccessDeniedException")


def test_the_command_line_does_what_the_api_does(server, connect, tmp_path):
    made = Factory(tmp_path / "factory")
    code = server.cli("ca", "registration-code").strip()
    assert code == iot(server).get_registration_code()["registrationCode"]
    proof, _ = made.sign(f"/CN={code}")
    wrong, _ = made.sign("/CN=another")
    assert "--verification" in server.refused("ca", "register", made.crt)
    assert "registration code" in server.refused("ca", "register", made.crt, "--verification", wrong)
    assert server.json("ca", "list-registered")["authorities"] == []
    id = server.json("ca", "register", made.crt, "--verification", proof, "--inactive")["certificateId"]
    [one] = server.json("ca", "list-registered")["authorities"]
    assert (one["certificateId"], one["status"], one["autoRegistrationStatus"]) == (id, "INACTIVE", "DISABLE")
    lamp = made.device(server, "lamp-1")
    server.cli("ca", "activate", id)
    server.cli("device", "import", "lamp-1", "--certificate", lamp.certificate, "--policy", "device-default")
    live = connect(server, lamp)
    server.cli("ca", "deactivate", id, "--yes")
    assert live.end().reason == 0x98
    with pytest.raises(Refused):
        connect(server, lamp)
    assert "INACTIVE" in server.cli("ca", "list-registered")
    server.cli("ca", "activate", id)
    connect(server, lamp).close()
    assert "deactivate the authority" in server.refused("ca", "unregister", id, "--yes")
    server.cli("ca", "deactivate", id, "--yes")
    server.cli("ca", "unregister", id, "--yes")
    assert server.json("ca", "list-registered")["authorities"] == []
    other = Factory(tmp_path / "other", "Other")
    server.cli("ca", "register", other.crt, "--sni-only", "--auto")
    [one] = server.json("ca", "list-registered")["authorities"]
    assert (one["certificateMode"], one["autoRegistrationStatus"]) == ("SNI_ONLY", "ENABLE")


def test_of_an_authority_and_its_renewal_the_one_that_counts_vouches(shared, connect, factory, fresh_name):
    """One key and name, two certificates: whichever of them is off, and whichever id is smaller, and whichever they came by."""
    client, made = iot(shared), factory()
    first = made.register(client).id
    second = client.register_ca_certificate(
        caCertificate=made.renewed(60), verificationCertificate=made.proof(client), setAsActive=True)["certificateId"]
    lamps = []
    for off, on in ((first, second), (second, first)):
        client.update_ca_certificate(certificateId=on, newStatus="ACTIVE")
        client.update_ca_certificate(certificateId=off, newStatus="INACTIVE")
        name = fresh_name()
        lamp = made.device(shared, name)
        shared.cli("device", "import", name, "--certificate", str(lamp.certificate))
        lamps.append(connect(shared, lamp))
        assert all(lamp.publish(f"dt/{lamp.identity.name}/x", "y") == 0 for lamp in lamps), "whoever came by the other stays"
    told = shared.json("ca", "deactivate", first, "--yes")
    assert told["vouching"] == [] and [lamp.end().reason for lamp in lamps] == [0x98, 0x98]
    for one in (first, second):
        shared.cli("ca", "activate", one)
    again = [connect(shared, lamp.identity) for lamp in lamps]
    told = shared.json("ca", "deactivate", first, "--yes")
    assert told["vouching"] == [second] and all(lamp.alive() for lamp in again)
    shared.said("other certificates over its name and key are ACTIVE")
    shared.cli("ca", "activate", first)
    told = shared.json("ca", "deactivate", first, "--every", "--yes")
    assert told["deactivatedBeside"] == [second] and [lamp.end().reason for lamp in again] == [0x98, 0x98]
    for lamp in lamps:
        with pytest.raises(Refused):
            connect(shared, lamp.identity)


def test_devices_outlive_the_certificate_of_their_authority_that_they_came_by(make_server, connect, tmp_path):
    """Sixty days on, by the server's clock: the certificate of thirty days is over, its renewal is not."""
    server = make_server()
    client, lamps = iot(server), []
    for number in range(3):
        # Whichever of the two ids is smaller.
        made = Factory(tmp_path / f"factory-{number}", f"Factory {number}")
        made.register(client)
        lamp = made.device(server, f"lamp-{number}", days=200)
        server.cli("device", "import", lamp.name, "--certificate", lamp.certificate)
        lamps.append(lamp)
        if number < 2:
            live = connect(server, lamp)
            client.register_ca_certificate(
                caCertificate=made.renewed(400), verificationCertificate=made.proof(client), setAsActive=True)
            assert live.alive()
    server.terminate()
    server.wrapper = [*clock("+60d")]
    server.start()
    for lamp, good in zip(lamps, (True, True, False)):
        done = mosquitto_pub(server, lamp, "-t", f"dt/{lamp.name}/x", "-m", "y", "-q", "1", wrapper=server.wrapper)
        assert (done.returncode == 0) == good, (lamp.name, done.stdout, done.stderr)
    server.said("register its renewal over the same name and key")
