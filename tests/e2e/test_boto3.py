"""AWS's own client against the API, as it comes from PyPI: only its endpoint and its trust are set."""

import base64
import hashlib
import json
import time

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

ACCOUNT = "000000000000"
CONNECT_ONLY = json.dumps({
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}],
})


@pytest.fixture
def session(shared, monkeypatch):
    """As a user would set it up: the credentials file and the root certificate, by AWS's own variables."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared.data / "operators/admin.credentials"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(shared.root))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return boto3.Session()


@pytest.fixture
def iot(session, shared):
    return client(session, shared)


def client(session, server, region="eu-central-1"):
    return session.client(
        "iot",
        region_name=region,
        endpoint_url=f"https://localhost:{server.port('https')}",
        config=Config(retries={"total_max_attempts": 1}),
    )


def refused(call, *names, **parameters):
    """The name and the status of the error that the call ends in, and what it says."""
    with pytest.raises(ClientError) as caught:
        call(*names, **parameters)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


def test_things(iot, fresh_name):
    name = fresh_name("thing:_-")
    made = iot.create_thing(thingName=name, attributePayload={"attributes": {"at": "a/b#c[1]=", "empty": ""}})
    assert made["thingArn"] == f"arn:aws:iot:eu-central-1:{ACCOUNT}:thing/{name}"
    assert iot.create_thing(
        thingName=name, attributePayload={"attributes": {"at": "a/b#c[1]=", "empty": ""}})["thingId"] == made["thingId"]
    assert refused(iot.create_thing, thingName=name)[:2] == ("ResourceAlreadyExistsException", 409)
    shown = iot.describe_thing(thingName=name)
    assert shown["attributes"] == {"at": "a/b#c[1]=", "empty": ""}
    assert shown["version"] == 1
    found = [
        thing["thingName"]
        for page in iot.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 1})
        for thing in page["things"]
    ]
    assert name in found and found == sorted(found)
    assert refused(iot.delete_thing, thingName=name, expectedVersion=9)[:2] == ("VersionConflictException", 409)
    iot.delete_thing(thingName=name, expectedVersion=1)
    assert refused(iot.describe_thing, thingName=name)[:2] == ("ResourceNotFoundException", 404)


def test_groups(iot, fresh_name):
    group, things = fresh_name("group"), [fresh_name() for _ in range(3)]
    made = iot.create_thing_group(
        thingGroupName=group, thingGroupProperties={"thingGroupDescription": "Lampen im Flur, größer"})
    for thing in things:
        iot.create_thing(thingName=thing)
        iot.add_thing_to_thing_group(thingGroupArn=made["thingGroupArn"], thingName=thing)
    pages = iot.get_paginator("list_things_in_thing_group").paginate(
        thingGroupName=group, PaginationConfig={"PageSize": 2})
    assert [len(page["things"]) for page in pages] == [2, 1]
    assert iot.list_thing_groups_for_thing(thingName=things[0])["thingGroups"][0]["groupName"] == group
    shown = iot.describe_thing_group(thingGroupName=group)
    assert shown["thingGroupProperties"]["thingGroupDescription"] == "Lampen im Flur, größer"
    assert abs(shown["thingGroupMetadata"]["creationDate"].timestamp() - time.time()) < 60
    iot.remove_thing_from_thing_group(thingGroupName=group, thingName=things[0])
    assert iot.list_things_in_thing_group(thingGroupName=group)["things"] == sorted(things[1:])
    iot.delete_thing_group(thingGroupName=group)
    assert refused(iot.describe_thing_group, thingGroupName=group)[:2] == ("ResourceNotFoundException", 404)


def test_certificates_and_attachments(iot, fresh_name):
    thing, policy = fresh_name(), "a+b=c,d.e@" + fresh_name("p")
    iot.create_thing(thingName=thing)
    keys = iot.create_keys_and_certificate(setAsActive=True)
    der = base64.b64decode("".join(keys["certificatePem"].split("-----")[2].split()))
    assert hashlib.sha256(der).hexdigest() == keys["certificateId"]
    assert not [pem for pem in (keys["certificatePem"], *keys["keyPair"].values()) if "\r" in pem]
    described = iot.describe_certificate(certificateId=keys["certificateId"])["certificateDescription"]
    assert described["status"] == "ACTIVE"
    assert described["validity"]["notBefore"].timestamp() < time.time() < described["validity"]["notAfter"].timestamp()

    made = iot.create_policy(policyName=policy, policyDocument=CONNECT_ONLY)
    assert made["policyDocument"] == CONNECT_ONLY
    again = refused(iot.create_policy, policyName=policy, policyDocument=CONNECT_ONLY)
    assert again[:2] == ("ResourceAlreadyExistsException", 409)
    bad = refused(iot.create_policy, policyName=fresh_name("bad"), policyDocument="{}")
    assert bad[:2] == ("MalformedPolicyException", 400)
    arn = keys["certificateArn"]
    iot.attach_policy(policyName=policy, target=arn)
    # The target stands in the path, with its colons and its slash.
    assert [p["policyName"] for p in iot.list_attached_policies(target=arn)["policies"]] == [policy]
    # The principal stands in a header.
    iot.attach_thing_principal(thingName=thing, principal=arn)
    assert iot.list_thing_principals(thingName=thing)["principals"] == [arn]
    assert refused(iot.delete_policy, policyName=policy)[:2] == ("DeleteConflictException", 409)
    assert refused(iot.delete_certificate, certificateId=keys["certificateId"])[:2] == (
        "CertificateStateException", 406)
    iot.update_certificate(certificateId=keys["certificateId"], newStatus="INACTIVE")
    assert refused(iot.delete_certificate, certificateId=keys["certificateId"])[:2] == (
        "DeleteConflictException", 409)
    iot.detach_thing_principal(thingName=thing, principal=arn)
    iot.detach_policy(policyName=policy, target=arn)
    iot.delete_certificate(certificateId=keys["certificateId"])
    iot.delete_policy(policyName=policy)
    assert refused(iot.get_policy, policyName=policy)[:2] == ("ResourceNotFoundException", 404)
    assert "device-default" in [
        p["policyName"] for page in iot.get_paginator("list_policies").paginate() for p in page["policies"]]


def test_a_certificate_for_a_key_of_ones_own(iot):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another-thing")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    made = iot.create_certificate_from_csr(certificateSigningRequest=pem, setAsActive=False)
    certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    assert certificate.public_key() == key.public_key()
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] != ["another-thing"], "the subject is not the asker's to choose"
    listed = [
        c for page in iot.get_paginator("list_certificates").paginate(PaginationConfig={"PageSize": 50})
        for c in page["certificates"]]
    assert {c["certificateId"]: c["status"] for c in listed}[made["certificateId"]] == "INACTIVE"
    assert refused(iot.create_certificate_from_csr, certificateSigningRequest=pem[:-60])[:2] == (
        "InvalidRequestException", 400)


def test_jobs(iot, fresh_name):
    thing, job = fresh_name(), fresh_name("job")
    arn = iot.create_thing(thingName=thing)["thingArn"]
    document = json.dumps({"operation": "reboot"})
    made = iot.create_job(jobId=job, targets=[arn], document=document, description="Neustart, größer")
    assert made["jobArn"].endswith(f":job/{job}")
    again = refused(iot.create_job, jobId=job, targets=[arn], document=document)
    assert again[:2] == ("ResourceAlreadyExistsException", 409)
    shown = iot.describe_job(jobId=job)["job"]
    assert shown["status"] == "IN_PROGRESS"
    assert shown["targets"] == [arn]
    assert shown["jobProcessDetails"]["numberOfQueuedThings"] == 1
    assert abs(shown["createdAt"].timestamp() - time.time()) < 60
    assert iot.get_job_document(jobId=job)["document"] == document
    execution = iot.describe_job_execution(jobId=job, thingName=thing)["execution"]
    assert (execution["status"], execution["thingArn"]) == ("QUEUED", arn)
    listed = iot.list_job_executions_for_job(jobId=job, status="QUEUED")["executionSummaries"]
    assert [one["thingArn"] for one in listed] == [arn]
    assert iot.list_job_executions_for_job(jobId=job, status="FAILED")["executionSummaries"] == []
    iot.cancel_job(jobId=job, reasonCode="TEST", comment="no longer")
    shown = iot.describe_job(jobId=job)["job"]
    assert (shown["status"], shown["reasonCode"], shown["comment"]) == ("CANCELED", "TEST", "no longer")
    missing = refused(iot.describe_job_execution, jobId=job, thingName=fresh_name())
    assert missing[:2] == ("ResourceNotFoundException", 404)


def test_endpoints_and_regions(session, shared, fresh_name):
    iot = client(session, shared)
    data = iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    assert data == f"localhost:{shared.port('mqtt')}"
    assert refused(iot.describe_endpoint, endpointType="iot:CredentialProvider")[1] == 400
    name = fresh_name()
    for region in ("us-east-1", "ap-southeast-2"):
        arn = client(session, shared, region).create_thing(thingName=name)["thingArn"]
        assert arn == f"arn:aws:iot:{region}:{ACCOUNT}:thing/{name}"


def test_a_wrong_secret_or_key_is_named(shared, session):
    good = session.get_credentials()
    for key, secret, code in [
        (good.access_key, "x" * 40, "SignatureDoesNotMatch"),
        ("AKIAAAAAAAAAAAAAAAAA", good.secret_key, "UnrecognizedClientException"),
    ]:
        stranger = boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret)
        assert refused(client(stranger, shared).list_things)[:2] == (code, 403)


@pytest.mark.parametrize("segment", [
    "plain", "with space", "größer", "日本語", "a+b", "a/b", "a:b", "a%2Fb", "100%", "a=b&c", "~_.-", "a;b,c@d!$'()*",
])
def test_any_path_and_query_keeps_its_signature(shared, session, segment):
    """What a path segment or a parameter holds changes what is found, never whether the signature is right."""
    from urllib.parse import quote

    place = f"https://localhost:{shared.port('https')}"
    for url in (
        f"{place}/policies/{quote(segment, safe='')}",
        f"{place}/things?nextToken={quote(segment, safe='')}",
    ):
        request = AWSRequest("GET", url)
        SigV4Auth(session.get_credentials(), "iot", "eu-central-1").add_auth(request)
        answer = URLLib3Session(verify=str(shared.root)).send(request.prepare())
        body = json.loads(answer.content)
        assert answer.status_code in (400, 404), body
        assert answer.headers["x-amzn-errortype"] in ("InvalidRequestException", "ResourceNotFoundException"), body
