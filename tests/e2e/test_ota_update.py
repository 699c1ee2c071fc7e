"""CreateOTAUpdate and its family by AWS's client, and the files by stream and by HTTPS as its document says."""

import base64
import json
import ssl
import time
import urllib.request

import pytest
from botocore.exceptions import ClientError

from api import iot
from devices import eventually, thing_arn
from release import Team
from server import ACCOUNT

ROLE = f"arn:aws:iam::{ACCOUNT}:role/ota"
IMAGE = b"the image of the lamp" * 20
SIGNATURE = b"signed by whom the device believes"
SIGNING = {"customCodeSigning": {
    "signature": {"inlineDocument": SIGNATURE}, "certificateChain": {"certificateName": "/certs/release.crt"},
    "hashAlgorithm": "SHA256", "signatureAlgorithm": "ECDSA"}}
FROM_BUCKET = {"s3Location": {"bucket": "firmware", "key": "lamp/1.0"}}


@pytest.fixture
def lamp(server, connect, tmp_path):
    team = Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    server.cli("firmware", "add", team.package("lamp", "1.0", IMAGE))
    identity = server.device("lamp-1")
    return identity, connect(server, identity)


def ask(client, topic, body, answer):
    """Sends a request; returns the answer on the topic that ends so."""
    assert client.publish(topic, json.dumps(body)) == 0
    while True:
        message = client.message()
        if message.topic.endswith(answer):
            return json.loads(message.payload)


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"], str(caught.value)


def test_an_update_is_a_stream_and_a_job_that_a_device_can_follow(server, lamp):
    identity, device = lamp
    client = iot(server)
    made = client.create_ota_update(
        otaUpdateId="spring", description="Frühling", targets=[thing_arn("lamp-1")], protocols=["MQTT", "HTTP"], roleArn=ROLE,
        awsJobPresignedUrlConfig={"expiresInSec": 600}, awsJobExecutionsRolloutConfig={"maximumPerMinute": 100},
        awsJobTimeoutConfig={"inProgressTimeoutInMinutes": 30}, additionalParameters={"wave": "one"},
        files=[{"fileName": "/image.bin", "fileType": 3, "fileVersion": "1", "fileLocation": FROM_BUCKET, "codeSigning": SIGNING,
                "attributes": {"slot": "b"}}])
    assert made["otaUpdateStatus"] == "CREATE_COMPLETE" and made["awsIotJobId"] == "AFR_OTA-spring"
    assert made["otaUpdateArn"].endswith(f":{ACCOUNT}:otaupdate/spring")

    base = "$aws/things/lamp-1/jobs/start-next"
    execution = eventually(lambda: ask(device, base, {}, "start-next/accepted").get("execution"), "a job")
    told = execution["jobDocument"]["afr_ota"]
    file, = told["files"]
    url = file.pop("update_data_url")
    assert (told["protocols"], told["streamname"]) == (["MQTT", "HTTP"], "AFR_OTA-spring")
    assert file == {"filepath": "/image.bin", "filesize": len(IMAGE), "fileid": 0, "fileType": 3, "slot": "b",
                    "certfile": "/certs/release.crt", "sig-sha256-ecdsa": base64.b64encode(SIGNATURE).decode(),
                    "auth_scheme": "aws.s3.presigned"}
    context = ssl.create_default_context(cafile=str(identity.root))
    context.load_cert_chain(str(identity.certificate), str(identity.key))
    with urllib.request.urlopen(url, context=context) as answer:
        assert answer.read() == IMAGE
    block = ask(device, "$aws/things/lamp-1/streams/AFR_OTA-spring/get/json", {"f": 0, "l": 512, "o": 0, "n": 1}, "data/json")
    assert base64.b64decode(block["p"]) == IMAGE[:512]

    info = client.get_ota_update(otaUpdateId="spring")["otaUpdateInfo"]
    assert time.time() - info["creationDate"].timestamp() < 60
    assert (info["description"], info["targets"], info["protocols"]) == ("Frühling", [thing_arn("lamp-1")], ["MQTT", "HTTP"])
    assert info["otaUpdateFiles"][0]["codeSigning"]["customCodeSigning"]["signature"]["inlineDocument"] == SIGNATURE
    assert info["additionalParameters"] == {"wave": "one"} and info["awsIotJobArn"] == made["awsIotJobArn"]
    job = client.describe_job(jobId="AFR_OTA-spring")["job"]
    assert job["timeoutConfig"] == {"inProgressTimeoutInMinutes": 30} and job["description"] == "Frühling"

    assert refused(client.delete_ota_update, otaUpdateId="spring")[0] == "InvalidRequestException"
    assert ask(device, "$aws/things/lamp-1/jobs/AFR_OTA-spring/update", {"status": "SUCCEEDED"}, "update/accepted")
    assert [u["otaUpdateId"] for u in client.list_ota_updates()["otaUpdates"]] == ["spring"]
    assert client.list_ota_updates(otaUpdateStatus="CREATE_FAILED")["otaUpdates"] == []
    client.delete_ota_update(otaUpdateId="spring", deleteStream=True)
    for gone in (lambda: client.get_ota_update(otaUpdateId="spring"), lambda: client.describe_stream(streamId="AFR_OTA-spring"),
                 lambda: client.describe_job(jobId="AFR_OTA-spring"), lambda: client.delete_ota_update(otaUpdateId="spring")):
        assert refused(gone)[0] == "ResourceNotFoundException"


def test_what_cannot_be_updated_leaves_nothing_behind(server, lamp):
    client = iot(server)
    file = {"fileName": "f", "fileLocation": FROM_BUCKET}

    def make(name="late", **changes):
        client.create_ota_update(**{"otaUpdateId": name, "targets": [thing_arn("lamp-1")], "roleArn": ROLE, "files": [file], **changes})

    for changes, words in (
        ({"targets": [thing_arn("nobody")]}, "nobody"),
        ({"files": [{"fileLocation": {"s3Location": {"bucket": "other", "key": "lamp/1.0"}}}]}, "bucket"),
        ({"files": [{"fileLocation": {"s3Location": {"bucket": "firmware", "key": "lamp/9.9"}}}]}, "9.9"),
        ({"files": [{"fileLocation": {"stream": {"streamId": "none", "fileId": 0}}}]}, "none"),
        ({"files": [file, {"fileLocation": {"stream": {"streamId": "s", "fileId": 0}}}]}, "either all files"),
        ({"files": [{**file, "codeSigning": {"awsSignerJobId": "x"}}]}, "awsSignerJobId"),
        ({"tags": [{"Key": "a", "Value": "b"}]}, "tags"),
        ({"name": "n" * 60}, "otaUpdateId"),
    ):
        assert words in refused(make, **changes)[1], words
        assert client.list_ota_updates()["otaUpdates"] == [] and client.list_streams()["streams"] == []
    # The files of a stream that is there; made twice it is there already.
    client.create_stream(streamId="mine", roleArn=ROLE, files=[{"fileId": 7, **FROM_BUCKET}])
    make(files=[{"fileName": "f", "fileLocation": {"stream": {"streamId": "mine", "fileId": 7}}}])
    assert refused(make)[0] == "ResourceAlreadyExistsException"
    document = json.loads(client.get_job_document(jobId="AFR_OTA-late")["document"])["afr_ota"]
    assert (document["streamname"], document["files"][0]["fileid"], document["protocols"]) == ("mine", 7, ["MQTT"])
    client.delete_ota_update(otaUpdateId="late", deleteStream=True, forceDeleteAWSJob=True)
    assert [s["streamId"] for s in client.list_streams()["streams"]] == ["mine"], "it was not made for the update"
