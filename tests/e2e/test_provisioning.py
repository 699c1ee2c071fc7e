"""Fleet provisioning by claim: AWS's own device SDK and boto3, unmodified, and paho for what they cannot say."""

import concurrent.futures
import datetime
import http.server
import json
import queue
import ssl
import threading
import time

import awscrt.mqtt_request_response
import cbor2
import pytest
from awscrt import mqtt5
from awsiot import V2ServiceException, iotidentity, mqtt5_client_builder
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api import iot
from clients import Refused
from devices import came_by
from pki import SERVER, Signer, build, csr
from server import Identity

WAIT_S = 30
ROLE = "arn:aws:iam::000000000000:role/provisioning"


def template_body(prefix, **thing):
    """A template that uses every function; the thing is named `<prefix>-<SerialNumber>`."""
    return json.dumps({
        "Parameters": {
            "SerialNumber": {"Type": "String"},
            "Site": {"Type": "String", "Default": "seattle:us:1"},
            "AWS::IoT::Certificate::Id": {"Type": "String"},
        },
        "Mappings": {"Countries": {"us": {"Url": "https://us.example"}, "de": {"Url": "https://de.example"}}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Fn::Join": ["-", [prefix, {"Ref": "SerialNumber"}]]},
                    "AttributePayload": {
                        "serial": {"Ref": "SerialNumber"},
                        "city": {"Fn::Select": ["0", {"Fn::Split": [":", {"Ref": "Site"}]}]},
                    },
                    "ThingGroups": ["provisioned"],
                },
                **thing,
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device-default"}},
        },
        "DeviceConfiguration": {
            "Url": {"Fn::FindInMap": ["Countries", {"Fn::Select": ["1", {"Fn::Split": [":", {"Ref": "Site"}]}]}, "Url"]},
            "Greeting": {"Fn::Sub": ["hello ${who} of ${Site}", {"who": {"Ref": "SerialNumber"}}]},
        },
    })


@pytest.fixture
def template(shared, fresh_name):
    """Makes an enabled template through boto3; returns its name, which its things' names begin with."""
    names = [group["groupName"] for group in iot(shared).list_thing_groups()["thingGroups"]]
    if "provisioned" not in names:
        shared.cli("group", "create", "provisioned")

    def make(server=shared, **more):
        name = fresh_name("template")
        iot(server).create_provisioning_template(
            templateName=name, templateBody=template_body(name, **more.pop("thing", {})),
            provisioningRoleArn=ROLE, enabled=True, **more)
        return name
    return make


def claim(server, template, *flags):
    """A claim certificate made on the command line, as a device carries it."""
    out = server.home / f"claim-{template}-{time.monotonic_ns()}"
    made = server.json("claim", "create", "--template", template, "--out", str(out), *flags)
    assert "privateKey" not in made
    return Identity(out / "claim.crt", out / "claim.key", out / "root.crt", "born-today", made)


class Enrolling:
    """A device that speaks the provisioning topics by hand, in JSON or CBOR."""

    def __init__(self, client, template, form="json"):
        self.client, self.template, self.form = client, template, form
        self.provision = f"$aws/provisioning-templates/{template}/provision/{form}"
        for topic in (f"$aws/certificates/create/{form}", f"$aws/certificates/create-from-csr/{form}", self.provision):
            for end in ("accepted", "rejected"):
                assert client.subscribe(f"{topic}/{end}") in (0, 1)

    def ask(self, topic, body):
        """Returns how the answer's topic ends, and the answer."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode() if self.form == "json" else cbor2.dumps(body)
        assert self.client.publish(topic, body) == 0
        message = self.client.message()
        assert message.topic.startswith(topic + "/"), message.topic
        read = json.loads if self.form == "json" else cbor2.loads
        return message.topic.rpartition("/")[2], read(message.payload)

    def create(self, body=b""):
        return self.ask(f"$aws/certificates/create/{self.form}", body)

    def create_from_csr(self, text):
        return self.ask(f"$aws/certificates/create-from-csr/{self.form}", {"certificateSigningRequest": text})

    def register(self, token, **parameters):
        return self.ask(self.provision, {"certificateOwnershipToken": token, "parameters": parameters})


def refusal(answer):
    """Of an answer that must be a refusal of AWS's shape: status and code."""
    end, body = answer
    assert end == "rejected", body
    assert set(body) == {"statusCode", "errorCode", "errorMessage"} and body["errorMessage"]
    return body["statusCode"], body["errorCode"]


def identity(directory, name, certificate, key, root):
    """Files of a device that has got its own."""
    place = directory / f"own-{name}"
    place.mkdir()
    (place / "crt").write_text(certificate)
    (place / "key").write_text(key)
    return Identity(place / "crt", place / "key", root, name)


@pytest.mark.parametrize("from_csr", [False, True], ids=["keys", "csr"])
def test_awss_own_client_enrols_and_comes_back_as_its_thing(shared, template, connect, tmp_path, fresh_name, from_csr):
    name = template()
    born = claim(shared, name)
    connected, stopped = queue.Queue(), queue.Queue()
    client = mqtt5_client_builder.mtls_from_path(
        endpoint="localhost", port=shared.port("mqtt"), cert_filepath=str(born.certificate), pri_key_filepath=str(born.key),
        ca_filepath=str(born.root), client_id=fresh_name("born"), on_lifecycle_connection_success=connected.put,
        on_lifecycle_stopped=stopped.put)
    client.start()
    try:
        connected.get(timeout=WAIT_S)
        options = awscrt.mqtt_request_response.ClientOptions(2, 2, 30)
        sdk = iotidentity.IotIdentityClientV2(client, options)
        if from_csr:
            request, key = csr(tmp_path, "unit")
            made = sdk.create_certificate_from_csr(iotidentity.CreateCertificateFromCsrRequest(
                certificate_signing_request=request.read_text())).result(WAIT_S)
            private = key.read_text()
        else:
            made = sdk.create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest()).result(WAIT_S)
            private = made.private_key
        der = x509.load_pem_x509_certificate(made.certificate_pem.encode())
        assert der.fingerprint(hashes.SHA256()).hex() == made.certificate_id
        assert iot(shared).describe_certificate(
            certificateId=made.certificate_id)["certificateDescription"]["status"] == "PENDING_ACTIVATION"
        own = identity(tmp_path, f"{name}-4711", made.certificate_pem, private, born.root)
        with pytest.raises(Refused):
            connect(shared, own)
        done = sdk.register_thing(iotidentity.RegisterThingRequest(
            template_name=name, certificate_ownership_token=made.certificate_ownership_token,
            parameters={"SerialNumber": "4711", "Site": "bonn:de:2"})).result(WAIT_S)
        assert done.thing_name == f"{name}-4711"
        assert done.device_configuration == {"Url": "https://de.example", "Greeting": "hello 4711 of bonn:de:2"}
        with pytest.raises(V2ServiceException) as caught:
            sdk.register_thing(iotidentity.RegisterThingRequest(
                template_name=name, certificate_ownership_token=made.certificate_ownership_token,
                parameters={"SerialNumber": "4711"})).result(WAIT_S)
        assert caught.value.modeled_error.error_code == "InvalidCertificateOwnershipToken"
    finally:
        client.stop()
        stopped.get(timeout=WAIT_S)
    shown = iot(shared).describe_thing(thingName=done.thing_name)
    assert shown["attributes"] == {"serial": "4711", "city": "bonn"}
    lamp = connect(shared, own)
    assert lamp.publish(f"dt/{own.name}/light", "on") == 0
    came_by(shared, lamp, "claim")


@pytest.mark.parametrize("form", ["json", "cbor"])
def test_by_hand_in_both_forms(shared, template, connect, tmp_path, fresh_name, form):
    name = template()
    born = claim(shared, name)
    device = Enrolling(connect(shared, born, client_id=fresh_name("born")), name, form)
    end, made = device.create()
    assert end == "accepted" and set(made) == {"certificateId", "certificatePem", "privateKey", "certificateOwnershipToken"}
    end, done = device.register(made["certificateOwnershipToken"], SerialNumber="1")
    assert (end, done["thingName"]) == ("accepted", f"{name}-1")
    assert done["deviceConfiguration"]["Url"] == "https://us.example"
    own = identity(tmp_path, f"{name}-1", made["certificatePem"], made["privateKey"], born.root)
    assert connect(shared, own).alive()
    request, _ = csr(tmp_path, "unit")
    end, made = device.create_from_csr(request.read_text())
    assert end == "accepted" and set(made) == {"certificateId", "certificatePem", "certificateOwnershipToken"}

    # What is wrong is said in AWS's shape, and nothing is lost by it.
    token = made["certificateOwnershipToken"]
    assert refusal(device.ask(device.provision, b"\xff{")) == (400, "InvalidJson" if form == "json" else "InvalidCbor")
    assert refusal(device.ask(device.provision, {"parameters": {}})) == (400, "InvalidParameters")
    assert refusal(device.create_from_csr("no request")) == (400, "InvalidParameters")
    assert refusal(device.register("made-up", SerialNumber="2")) == (400, "InvalidCertificateOwnershipToken")
    assert refusal(device.register(token)) == (400, "InvalidParameters")
    assert refusal(device.register(token, SerialNumber="a/b")) == (400, "InvalidParameters")
    assert refusal(device.register(token, SerialNumber="2", Colour="red")) == (400, "InvalidParameters")
    assert refusal(device.register(token, SerialNumber="1")) == (409, "ResourceConflict")
    assert device.register(token, SerialNumber="2")[0] == "accepted"


def test_a_token_is_nobody_elses(shared, template, connect, fresh_name):
    name = template()
    first, second = (Enrolling(connect(shared, claim(shared, name), client_id=fresh_name("born")), name) for _ in range(2))
    token = first.create()[1]["certificateOwnershipToken"]
    assert refusal(second.register(token, SerialNumber="1")) == (400, "InvalidCertificateOwnershipToken")
    assert first.register(token, SerialNumber="1")[0] == "accepted"


def test_a_claim_is_bounded_in_uses_rate_sources_and_time(shared, template, connect, fresh_name):
    name = template()
    born = claim(shared, name, "--uses", "2")
    device = Enrolling(connect(shared, born, client_id=fresh_name("born")), name)
    tokens = [device.create()[1]["certificateOwnershipToken"] for _ in range(3)]
    assert device.register(tokens[0], SerialNumber="1")[0] == "accepted"
    assert device.register(tokens[1], SerialNumber="2")[0] == "accepted"
    assert refusal(device.register(tokens[2], SerialNumber="3")) == (403, "AccessDenied")
    assert refusal(device.create()) == (403, "AccessDenied")
    assert shared.json("claim", "show", born.made["certificateId"])["used"] == 2

    slow = Enrolling(connect(shared, claim(shared, name, "--rate", "1/min"), client_id=fresh_name("born")), name)
    assert slow.create()[0] == "accepted"
    assert refusal(slow.create()) == (429, "Throttling")

    with pytest.raises(Refused) as caught:
        connect(shared, claim(shared, name, "--source", "192.0.2.0/24"), client_id=fresh_name("born"))
    assert caught.value.reason == 0x87
    near = claim(shared, name, "--source", "127.0.0.0/8", "--source", "::1/128")
    assert connect(shared, near, client_id=fresh_name("born")).alive()

    short = claim(shared, name, "--lifetime", "3s")
    client = connect(shared, short, client_id=fresh_name("born"))
    assert client.end().reason == 0x98
    shared.refused("claim", "create", "--template", name, "--source", "everywhere", "--out", str(shared.home / fresh_name()))
    shared.refused("claim", "create", "--template", "nowhere", "--out", str(shared.home / fresh_name()))


def test_a_revoked_claim_ends_at_once_and_devices_stay(shared, template, connect, tmp_path, fresh_name):
    name = template()
    born = claim(shared, name)
    client = connect(shared, born, client_id=fresh_name("born"))
    device = Enrolling(client, name)
    _, made = device.create()
    assert device.register(made["certificateOwnershipToken"], SerialNumber="1")[0] == "accepted"
    own = connect(shared, identity(tmp_path, f"{name}-1", made["certificatePem"], made["privateKey"], born.root))
    shared.cli("claim", "revoke", born.made["certificateId"], "--yes")
    assert client.end().reason is not None
    with pytest.raises(Refused):
        connect(shared, born, client_id=fresh_name("born"))
    assert own.publish(f"dt/{name}-1/x", "y") == 0


def test_who_may_not_claim(shared, template, connect, device, fresh_name):
    name, other = template(), template()
    born = claim(shared, name)
    client = connect(shared, born, client_id=fresh_name("born"))
    assert client.publish(f"$aws/provisioning-templates/{other}/provision/json", "{}") == 0x87
    assert client.subscribe("$aws/#") == 0x87 and client.subscribe("#") == 0x87
    assert client.publish("dt/anything/x", "y") == 0x87
    lamp = device("--policy", "everything")
    made = Enrolling(connect(shared, lamp), name)
    assert refusal(made.create()) == (403, "AccessDenied")
    plain = device()
    assert connect(shared, plain).publish("$aws/certificates/create/json", "") == 0x87


def test_a_device_that_comes_again(shared, template, connect, tmp_path, fresh_name):
    name = template(thing={"OverrideSettings": {"AttributePayload": "REPLACE", "ThingGroups": "MERGE"}})
    device = Enrolling(connect(shared, claim(shared, name), client_id=fresh_name("born")), name)
    certificates = []
    for city in ("bonn", "kiel"):
        _, made = device.create()
        end, done = device.register(made["certificateOwnershipToken"], SerialNumber="1", Site=f"{city}:de:1")
        assert (end, done["thingName"]) == ("accepted", f"{name}-1")
        certificates.append(made["certificateId"])
    client = iot(shared)
    assert client.describe_thing(thingName=f"{name}-1")["attributes"]["city"] == "kiel"
    status = [client.describe_certificate(certificateId=c)["certificateDescription"]["status"] for c in certificates]
    assert status == ["REVOKED", "ACTIVE"]


def test_an_allow_list_on_the_command_line(shared, connect, tmp_path, fresh_name, template):
    template()
    name = fresh_name("template")
    (tmp_path / "t.json").write_text(template_body(name))
    (tmp_path / "serials.txt").write_text("".join(f"sn-{n}\n" for n in range(2_500)))
    shared.cli("template", "create", name, str(tmp_path / "t.json"), "--allow-parameter", "SerialNumber",
               "--allow-list", str(tmp_path / "serials.txt"), "--description", "lamps")
    assert "allow-list:SerialNumber" in shared.cli("template", "show", name)
    assert name in shared.cli("template", "list")
    device = Enrolling(connect(shared, claim(shared, name), client_id=fresh_name("born")), name)
    token = device.create()[1]["certificateOwnershipToken"]
    assert refusal(device.register(token, SerialNumber="sn-2500")) == (403, "AccessDenied")
    (tmp_path / "gone.txt").write_text("sn-7\n")
    shared.cli("template", "disallow", name, "--file", str(tmp_path / "gone.txt"))
    assert refusal(device.register(token, SerialNumber="sn-7")) == (403, "AccessDenied")
    assert device.register(token, SerialNumber="sn-2499")[0] == "accepted"
    shared.cli("template", "update", name, "--disable")
    token = device.create()[1]["certificateOwnershipToken"]
    assert refusal(device.register(token, SerialNumber="sn-1")) == (403, "AccessDenied")
    shared.cli("template", "update", name, str(tmp_path / "t.json"), "--enable", "--no-hook")
    assert device.register(token, SerialNumber="anything")[0] == "accepted"
    shared.cli("template", "delete", name, "--yes")
    assert name not in shared.cli("template", "list")
    (tmp_path / "bad.json").write_text(template_body(name).replace("Fn::Join", "Fn::Jion"))
    assert "Fn::Jion" in shared.refused("template", "create", name, str(tmp_path / "bad.json"))


class Hook:
    """An HTTPS service with a certificate of its own authority."""

    def __init__(self, directory):
        authority, key = Signer.foreign(), ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hook")])
        certificate = build(name, authority.certificate.subject, key.public_key(), authority.key, usage=SERVER)
        self.root = directory / "hook-root.crt"
        self.root.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
        (directory / "hook.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (directory / "hook.key").write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        self.asked, self.answer = [], (200, b"{}")
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                hook.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                status, body = hook.answer
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(directory / "hook.crt"), str(directory / "hook.key"))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook(tmp_path):
    hook = Hook(tmp_path)
    yield hook
    hook.close()


def test_a_hook_is_asked_and_must_say_yes(shared, template, connect, fresh_name, tmp_path, hook):
    name = template()
    # Without the hook's root its certificate is not trusted, and nobody is provisioned.
    iot(shared).update_provisioning_template(
        templateName=name, preProvisioningHook={"payloadVersion": "2020-04-01", "targetArn": hook.url})
    born = claim(shared, name)
    device = Enrolling(connect(shared, born, client_id="at-the-factory"), name)
    made = device.create()[1]
    token = made["certificateOwnershipToken"]
    assert refusal(device.register(token, SerialNumber="1")) == (403, "AccessDenied")
    assert hook.asked == []
    shared.cli("template", "update", name, "--hook", hook.url, "--hook-root", str(hook.root))
    for answer in [(200, b"{}"), (500, b'{"allowProvisioning": true}'), (200, b"yes"), (200, b'{"allowProvisioning": false}')]:
        hook.answer = answer
        assert refusal(device.register(token, SerialNumber="1")) == (403, "AccessDenied")
    hook.answer = 200, b'{"allowProvisioning": true, "parameterOverrides": {"Site": "kiel:de:1"}}'
    end, done = device.register(token, SerialNumber="1")
    assert end == "accepted" and done["deviceConfiguration"]["Url"] == "https://de.example"
    asked = hook.asked[-1]
    assert asked["claimCertificateId"] == born.made["certificateId"] and asked["certificateId"] == made["certificateId"]
    assert asked["clientId"] == "at-the-factory" and asked["parameters"] == {"SerialNumber": "1"}
    assert asked["templateArn"].endswith(f":provisioningtemplate/{name}") and "BEGIN CERTIFICATE" in asked["certificatePem"]
    assert iot(shared).describe_provisioning_template(
        templateName=name)["preProvisioningHook"] == {"payloadVersion": "2020-04-01", "targetArn": hook.url}


def test_boto3_on_templates_versions_and_a_trusted_users_claim(shared, template, connect, fresh_name, tmp_path):
    client, name = iot(shared), template(description="Lampen, größer")
    with pytest.raises(ClientError) as caught:
        client.create_provisioning_template(templateName=name, templateBody=template_body(name), provisioningRoleArn=ROLE)
    assert caught.value.response["Error"]["Code"] == "ResourceAlreadyExistsException"
    shown = client.describe_provisioning_template(templateName=name)
    assert (shown["description"], shown["enabled"], shown["type"], shown["defaultVersionId"]) == (
        "Lampen, größer", True, "FLEET_PROVISIONING", 1)
    assert shown["templateArn"].endswith(f":provisioningtemplate/{name}") and shown["provisioningRoleArn"] == ROLE
    assert json.loads(shown["templateBody"]) == json.loads(template_body(name))
    pages = client.get_paginator("list_provisioning_templates").paginate(PaginationConfig={"PageSize": 1})
    assert name in [t["templateName"] for page in pages for t in page["templates"]]
    for number in range(2, 6):
        made = client.create_provisioning_template_version(
            templateName=name, templateBody=template_body(name), setAsDefault=number == 3)
        assert (made["versionId"], made["isDefaultVersion"]) == (number, number == 3)
    with pytest.raises(ClientError) as caught:
        client.create_provisioning_template_version(templateName=name, templateBody=template_body(name))
    assert caught.value.response["Error"]["Code"] == "VersionsLimitExceededException"
    versions = client.list_provisioning_template_versions(templateName=name)["versions"]
    assert [(v["versionId"], v["isDefaultVersion"]) for v in versions] == [(n, n == 3) for n in range(1, 6)]
    for call, names in [
        (client.delete_provisioning_template_version, {"versionId": 3}), (client.delete_provisioning_template, {}),
    ]:
        with pytest.raises(ClientError) as caught:
            call(templateName=name, **names)
        assert caught.value.response["Error"]["Code"] == "DeleteConflictException"
    client.update_provisioning_template(templateName=name, defaultVersionId=5, description="x")
    for number in (1, 2, 3, 4):
        client.delete_provisioning_template_version(templateName=name, versionId=number)
    assert client.describe_provisioning_template_version(templateName=name, versionId=5)["isDefaultVersion"]
    for bad in ["{", json.dumps({"Resources": {}}), template_body(name).replace("SerialNumber\"}", "Serial\"}", 1)]:
        with pytest.raises(ClientError) as caught:
            client.create_provisioning_template_version(templateName=name, templateBody=bad)
        assert caught.value.response["Error"]["Code"] == "InvalidRequestException"

    trusted = client.create_provisioning_claim(templateName=name)
    pages = client.get_paginator("list_certificates").paginate()
    assert trusted["certificateId"] not in [c["certificateId"] for page in pages for c in page["certificates"]]
    left = trusted["expiration"] - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(minutes=4) < left <= datetime.timedelta(minutes=5)
    born = identity(tmp_path, "phone", trusted["certificatePem"], trusted["keyPair"]["PrivateKey"], shared.root)
    phone = connect(shared, born, client_id=fresh_name("born"))
    device = Enrolling(phone, name)
    token = device.create()[1]["certificateOwnershipToken"]
    assert device.register(token, SerialNumber="9")[0] == "accepted"
    client.delete_provisioning_template(templateName=name)
    with pytest.raises(ClientError) as caught:
        client.describe_provisioning_template(templateName=name)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    # Its claims go with it, and a template of that name does not bring them back.
    assert phone.end().reason == 0x98
    client.create_provisioning_template(
        templateName=name, templateBody=template_body(name), provisioningRoleArn="arn:aws:iam::000000000000:role/r", enabled=True)
    with pytest.raises(Refused):
        connect(shared, born, client_id=fresh_name("born"))


def test_a_claim_of_awss_kind_is_bounded_by_its_policy(shared, template, connect, fresh_name, tmp_path):
    """As AWS's own guides make claims: an ordinary certificate that belongs to no thing, and a policy."""
    name, client = template(), iot(shared)
    made = client.create_keys_and_certificate(setAsActive=True)
    policy = fresh_name("claim-policy")
    arn = "arn:aws:iot:us-east-1:000000000000:"
    topics = ["$aws/certificates/create/*", f"$aws/provisioning-templates/{name}/provision/*"]
    client.create_policy(policyName=policy, policyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": [f"{arn}topic/{t}" for t in topics]},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": [f"{arn}topicfilter/{t}" for t in topics]},
    ]}))
    client.attach_policy(policyName=policy, target=made["certificateArn"])
    born = identity(tmp_path, "claim", made["certificatePem"], made["keyPair"]["PrivateKey"], shared.root)
    paho = connect(shared, born, client_id=fresh_name("born"))
    for topic in (f"$aws/certificates/create/json", f"$aws/provisioning-templates/{name}/provision/json"):
        assert paho.subscribe(topic + "/accepted") in (0, 1)
    assert paho.publish("$aws/certificates/create/json", "{}") == 0
    token = json.loads(paho.payload())["certificateOwnershipToken"]
    assert paho.publish(f"$aws/provisioning-templates/{name}/provision/json", json.dumps(
        {"certificateOwnershipToken": token, "parameters": {"SerialNumber": "1"}})) == 0
    assert json.loads(paho.payload())["thingName"] == f"{name}-1"


def test_a_crash_at_any_moment_leaves_whole_devices_only(make_server, template, connect, tmp_path, fresh_name):
    server = make_server()
    server.cli("group", "create", "provisioned")
    name = template(server=server)
    born = claim(server, name, "--uses", "10000", "--rate", "60000/min")

    def enrol(worker, stop):
        accepted = []
        try:
            device = Enrolling(connect(server, born, client_id=f"born-{worker}-{fresh_name()}"), name)
            while not stop.is_set():
                serial = fresh_name("sn")
                token = device.create()[1]["certificateOwnershipToken"]
                end, answer = device.register(token, SerialNumber=serial)
                assert end == "accepted", answer
                accepted.append(serial)
        except (queue.Empty, Refused, OSError):
            pass  # the server is gone
        return accepted

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            stop = threading.Event()
            running = [pool.submit(enrol, worker, stop) for worker in range(4)]
            before = len(iot(server).list_things(maxResults=250)["things"])
            while len(iot(server).list_things(maxResults=250)["things"]) < before + 10:
                time.sleep(0.05)
            server.kill9()
            stop.set()
            server.start()
            accepted = [serial for one in running for serial in one.result()]
            client = iot(server)
            things = {t["thingName"]: t for p in client.get_paginator("list_things").paginate() for t in p["things"]}
            assert {f"{name}-{serial}" for serial in accepted} <= set(things), "what was answered is there"
            for thing, shown in things.items():
                [principal] = client.list_thing_principals(thingName=thing)["principals"]
                described = client.describe_certificate(certificateId=principal.rpartition("/")[2])
                assert described["certificateDescription"]["status"] == "ACTIVE"
                assert [p["policyName"] for p in client.list_attached_policies(target=principal)["policies"]] == ["device-default"]
                groups = client.list_thing_groups_for_thing(thingName=thing)["thingGroups"]
                assert [g["groupName"] for g in groups] == ["provisioned"] and shown["attributes"]["serial"]
            assert server.json("claim", "show", born.made["certificateId"])["used"] == len(things)
