"""Job templates, parameters, files in job documents, and what UpdateJob changes: by AWS's client, unmodified."""

import json
import ssl
import time
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError

from api import iot
from devices import eventually, thing_arn
from release import Team
from server import ACCOUNT

ROLLOUT = {"maximumPerMinute": 60}
ABORT = {"criteriaList": [{"failureType": "FAILED", "action": "CANCEL", "thresholdPercentage": 50.0, "minNumberOfExecutedThings": 2}]}
RETRY = {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 2}]}


def code(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"], str(caught.value)


class Device:
    def __init__(self, server, identity, connect):
        self.server, self.identity = server, identity
        self.client, self.base = connect(server, identity), f"$aws/things/{identity.name}/jobs"

    def ask(self, rest, body=None):
        assert self.client.publish(f"{self.base}/{rest}", json.dumps(body or {})) == 0
        while True:
            message = self.client.message()
            if message.topic.startswith(f"{self.base}/{rest}/"):
                assert message.topic.endswith("/accepted"), message.payload
                return json.loads(message.payload)

    def next_document(self):
        return eventually(lambda: self.ask("start-next").get("execution"), "a job")["jobDocument"]

    def fetch(self, url):
        """Status and bytes, under the device's certificate."""
        context = ssl.create_default_context(cafile=str(self.identity.root))
        context.load_cert_chain(str(self.identity.certificate), str(self.identity.key))
        try:
            with urllib.request.urlopen(url, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""


@pytest.fixture
def lamp(shared, device, connect):
    return Device(shared, device(), connect)


def test_a_template_makes_jobs_and_stays_what_it_is(shared, lamp, fresh_name):
    client = iot(shared)
    name, other = fresh_name("template"), fresh_name("template")
    document = json.dumps({"do": "dance"})
    made = client.create_job_template(
        jobTemplateId=name, document=document, description="Tanz", jobExecutionsRolloutConfig=ROLLOUT, abortConfig=ABORT,
        jobExecutionsRetryConfig=RETRY, timeoutConfig={"inProgressTimeoutInMinutes": 7},
        maintenanceWindows=[{"startTime": "cron(0 0 * * ? *)", "durationInMinutes": 1430}])
    arn = made["jobTemplateArn"]
    assert made["jobTemplateId"] == name and arn.endswith(f":{ACCOUNT}:jobtemplate/{name}")
    shown = client.describe_job_template(jobTemplateId=name)
    assert time.time() - shown.pop("createdAt").timestamp() < 60
    shown.pop("ResponseMetadata")
    assert shown == {
        "jobTemplateArn": arn, "jobTemplateId": name, "description": "Tanz", "document": document,
        "jobExecutionsRolloutConfig": ROLLOUT, "abortConfig": ABORT, "jobExecutionsRetryConfig": RETRY,
        "timeoutConfig": {"inProgressTimeoutInMinutes": 7},
        "maintenanceWindows": [{"startTime": "cron(0 0 * * ? *)", "durationInMinutes": 1430}]}
    assert code(client.create_job_template, jobTemplateId=name, document="{}", description="x")[0] == "ConflictException"

    job = fresh_name("job")
    assert client.create_job(jobId=job, targets=[thing_arn(lamp.identity.name)], jobTemplateArn=arn, description="heute",
                             schedulingConfig={}, timeoutConfig={"inProgressTimeoutInMinutes": 9})["description"] == "heute"
    shown = client.describe_job(jobId=job)["job"]
    assert (shown["jobTemplateArn"], shown["abortConfig"], shown["jobExecutionsRetryConfig"]) == (arn, ABORT, RETRY)
    assert shown["timeoutConfig"] == {"inProgressTimeoutInMinutes": 9}
    assert lamp.next_document() == {"do": "dance"}

    client.create_job_template(jobTemplateId=other, jobArn=shown["jobArn"], description="wie der Job")
    twin = client.describe_job_template(jobTemplateId=other)
    assert (twin["document"], twin["jobExecutionsRolloutConfig"], twin["timeoutConfig"]) == (
        document, ROLLOUT, {"inProgressTimeoutInMinutes": 9})
    listed = [t for page in client.get_paginator("list_job_templates").paginate(PaginationConfig={"PageSize": 1})
              for t in page["jobTemplates"] if t["jobTemplateId"] in (name, other)]
    assert [t["description"] for t in listed] == ["Tanz", "wie der Job"]
    client.delete_job_template(jobTemplateId=name)
    assert code(client.describe_job_template, jobTemplateId=name)[0] == "ResourceNotFoundException"
    assert code(client.delete_job_template, jobTemplateId=name)[0] == "ResourceNotFoundException"
    assert code(client.create_job, jobId=fresh_name("job"), targets=[thing_arn(lamp.identity.name)],
                jobTemplateArn=arn)[0] == "ResourceNotFoundException"
    assert client.get_job_document(jobId=job)["document"] == document


def test_parameters_stand_in_the_document(shared, lamp, fresh_name):
    client = iot(shared)
    document = json.dumps({"run": "${aws:iot:parameter:path} --fast", "also": ["${aws:iot:parameter:path}"]})
    job, target = fresh_name("job"), [thing_arn(lamp.identity.name)]
    kind, words = code(client.create_job, jobId=job, targets=target, document=document, documentParameters={"other": "x"})
    assert kind == "InvalidRequestException" and "`path`" in words
    client.create_job(jobId=job, targets=target, document=document, documentParameters={"path": "/bin/dance"})
    filled = {"run": "/bin/dance --fast", "also": ["/bin/dance"]}
    assert lamp.next_document() == filled
    assert json.loads(client.get_job_document(jobId=job)["document"]) == filled
    assert client.get_job_document(jobId=job, beforeSubstitution=True)["document"] == document
    assert client.describe_job(jobId=job)["job"]["documentParameters"] == {"path": "/bin/dance"}


def test_awss_managed_templates_make_jobs(shared, lamp, fresh_name):
    client = iot(shared)
    pages = client.get_paginator("list_managed_job_templates").paginate(PaginationConfig={"PageSize": 3})
    listed = [one for page in pages for one in page["managedJobTemplates"]]
    assert [one["templateName"] for one in listed] == [f"AWS-{name}" for name in (
        "Download-File", "Install-Application", "Reboot", "Remove-Application", "Restart-Application", "Run-Command", "Start-Application",
        "Stop-Application")]
    only = client.list_managed_job_templates(templateName="AWS-Reboot")["managedJobTemplates"]
    assert only == [one for one in listed if one["templateName"] == "AWS-Reboot"]
    arn = f"arn:aws:iot:{client.meta.region_name}::jobtemplate/AWS-Download-File:1.0"
    shown = client.describe_managed_job_template(templateName="AWS-Download-File", templateVersion="1.0")
    document = json.loads(shown["document"])
    assert (shown["templateArn"], shown["environments"], shown["templateVersion"]) == (arn, ["LINUX"], "1.0")
    assert [(one["key"], one["optional"]) for one in shown["documentParameters"]] == [
        ("downloadUrl", False), ("filePath", False), ("runAsUser", True), ("pathToHandler", True)]
    assert document["steps"][0]["action"]["input"]["args"] == ["${aws:iot:parameter:downloadUrl}", "${aws:iot:parameter:filePath}"]
    for which in ({"templateName": "AWS-Dance"}, {"templateName": "AWS-Reboot", "templateVersion": "2.0"}):
        assert code(client.describe_managed_job_template, **which)[0] == "ResourceNotFoundException"

    job, target = fresh_name("job"), [thing_arn(lamp.identity.name)]
    given = {"downloadUrl": "https://example.com/index.html", "filePath": "/tmp/index.html"}
    for wrong in ({}, {"filePath": "/tmp/x"}, {**given, "services": "x"}):
        kind, words = code(client.create_job, jobId=job, targets=target, jobTemplateArn=arn, documentParameters=wrong)
        assert kind == "InvalidRequestException" and "documentParameters" in words
    assert code(client.create_job, jobId=job, targets=target, jobTemplateArn=arn, document="{}", documentParameters=given)[0] == "InvalidRequestException"
    made = client.create_job(jobId=job, targets=target, jobTemplateArn=arn, documentParameters=given)
    assert made["description"] == shown["description"]
    told = lamp.next_document()["steps"][0]["action"]
    assert told == {"name": "Download-File", "type": "runHandler", "runAsUser": "", "input": {
        "handler": "download-file.sh", "args": [given["downloadUrl"], given["filePath"]], "path": ""}}
    described = client.describe_job(jobId=job)["job"]
    assert described["jobTemplateArn"] == arn and described["documentParameters"].items() >= given.items()
    # A template of one's own is made of such a job.
    own = fresh_name("template")
    client.create_job_template(jobTemplateId=own, jobArn=described["jobArn"], description="own")
    assert json.loads(client.describe_job_template(jobTemplateId=own)["document"]) == document


def test_a_document_is_taken_from_a_file_of_the_server(server, connect):
    client, lamp = iot(server), Device(server, server.device("lamp-1"), connect)
    target = [thing_arn("lamp-1")]
    file = server.data / "documents" / "jobs" / "deep" / "dance.json"
    file.parent.mkdir(parents=True)
    text = '{"run": "/bin/dance",  "times": 2}'
    file.write_text(text)
    source = "https://s3.eu-west-1.amazonaws.com/jobs/deep/dance.json"
    client.create_job(jobId="dance", targets=target, documentSource=source)
    file.write_text('{"run": "/bin/fall"}')
    assert lamp.next_document() == json.loads(text), "what it said when the job was made"
    shown = client.describe_job(jobId="dance")
    assert shown["documentSource"] == source and "documentSource" not in shown["job"]
    assert client.get_job_document(jobId="dance")["document"] == text
    client.create_job_template(jobTemplateId="fall", description="d", documentSource=source)
    template = client.describe_job_template(jobTemplateId="fall")
    assert (template["documentSource"], template["document"]) == (source, '{"run": "/bin/fall"}')

    def refused(**request):
        kind, words = code(client.create_job, jobId="bad", targets=target, **request)
        assert kind == "InvalidRequestException", kind
        return words

    (file.parent / "long.json").write_text(json.dumps({"x": "y" * 40_000}))
    (file.parent / "rubbish.json").write_bytes(b"\xff\xfe")
    (file.parent / "words.json").write_text("dance!")
    below = "https://s3.amazonaws.com/jobs/deep/"
    for address, words in (
            (below + "none.json", "No such file"), (below + "long.json", "more than the 32768 bytes"), (below + "rubbish.json", "no text"),
            (below + "words.json", "not JSON"), ("https://s3.amazonaws.com/jobs/deep", "documentSource"),
            ("https://s3.amazonaws.com/jobs/../../operators/admin.key", "names no file"),
            ("https://s3.amazonaws.com/jobs/%2e%2e/%2e%2e/operators/admin.key", "names no file"),
            ("https://example.org/jobs/dance.json", "names no file"), ("file:///etc/passwd", "names no file")):
        said = refused(documentSource=address)
        assert words in said and "PRIVATE" not in said, f"{address}: {said}"
    assert "one of them only" in refused(documentSource=source, document="{}")
    assert code(client.describe_job, jobId="bad")[0] == "ResourceNotFoundException"


def test_a_file_in_a_document_can_be_fetched_by_who_has_the_job(server, connect, tmp_path):
    team = Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    server.cli("firmware", "add", team.package("lamp", "1.0", b"the image"))
    lamp, other = (Device(server, server.device(name), connect) for name in ("lamp-1", "lamp-2"))
    client = iot(server)
    document = json.dumps({"from": "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/firmware/lamp/1.0}"})
    role = f"arn:aws:iam::{ACCOUNT}:role/files"
    client.create_job(jobId="fetch", targets=[thing_arn("lamp-1")], document=document,
                      presignedUrlConfig={"roleArn": role, "expiresInSec": 60})
    assert client.describe_job(jobId="fetch")["job"]["presignedUrlConfig"] == {"roleArn": role, "expiresInSec": 60}
    url = lamp.next_document()["from"]
    assert url == f"https://localhost:{server.port('https')}/firmware/lamp/1.0/image"
    assert lamp.fetch(url) == (200, b"the image")
    assert other.fetch(url)[0] == 403
    lamp.ask("fetch/update", {"status": "SUCCEEDED"})
    assert lamp.fetch(url)[0] == 403
    for bad, why in (("https://s3.amazonaws.com/other/lamp/1.0", "names no file"), ("s3://firmware/lamp/9.9", "9.9")):
        words = code(client.create_job, jobId="bad", targets=[thing_arn("lamp-1")],
                     document=json.dumps({"from": "${aws:iot:s3-presigned-url-v2:%s}" % bad}))
        assert why in words[1]
    assert "namespaceId" in code(client.create_job, jobId="bad", targets=[thing_arn("lamp-1")], document="{}", namespaceId="a/b")[1]
    assert code(client.create_job, jobId="bad", targets=[thing_arn("lamp-1")], document="{}",
                presignedUrlConfig={"roleArn": role, "expiresInSec": 5000})[0] == "InvalidRequestException"


def test_a_job_is_changed_while_it_goes_out(server):
    client = iot(server)
    names = [f"lamp-{number}" for number in range(4)]
    for name in names:
        client.create_thing(thingName=name)
    client.create_job(jobId="slow", targets=[thing_arn(name) for name in names], document="{}",
                      jobExecutionsRolloutConfig={"maximumPerMinute": 1})

    def told():
        return client.describe_job(jobId="slow")["job"]["jobProcessDetails"]["numberOfQueuedThings"]

    eventually(lambda: told() == 1, told)
    client.update_job(jobId="slow", description="schneller", jobExecutionsRolloutConfig={"maximumPerMinute": 1000}, abortConfig=ABORT,
                      jobExecutionsRetryConfig=RETRY, presignedUrlConfig={"expiresInSec": 90})
    eventually(lambda: told() == 4, told)
    job = client.describe_job(jobId="slow")["job"]
    assert (job["description"], job["abortConfig"], job["jobExecutionsRetryConfig"]) == ("schneller", ABORT, RETRY)
    assert (job["jobExecutionsRolloutConfig"], job["presignedUrlConfig"]) == ({"maximumPerMinute": 1000}, {"expiresInSec": 90})
    assert code(client.update_job, jobId="slow", jobExecutionsRolloutConfig={"maximumPerMinute": 5000})[0] == "InvalidRequestException"
