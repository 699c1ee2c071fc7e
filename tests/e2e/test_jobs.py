"""AWS IoT Jobs as devices speak it: by hand, topic by topic, and with AWS's own device SDK, unmodified."""

import json
import queue

import pytest

import awsiot.iotjobs as iotjobs
import awscrt.mqtt
from awsiot import mqtt_connection_builder

from api import iot
from devices import outcome, thing_arn

DOCUMENT = {"operation": "dance", "steps": [1, 2, 3]}
WAIT_S = 15


class Jobs:
    """A device that speaks the jobs topics by hand."""

    def __init__(self, client, thing):
        self.client, self.prefix = client, f"$aws/things/{thing}/jobs/"

    def listen(self, *filters):
        for one in filters:
            assert self.client.subscribe(self.prefix + one) in (0, 1), one
        return self

    def ask(self, what, body=None):
        """Sends a request; returns the end of the answer's topic and the answer."""
        payload = body if isinstance(body, bytes) else json.dumps({} if body is None else body)
        assert self.client.publish(self.prefix + what, payload) == 0
        return self.heard()

    def heard(self):
        message = self.client.message()
        assert message.topic.startswith(self.prefix), message.topic
        return message.topic.removeprefix(self.prefix), json.loads(message.payload)


@pytest.fixture
def job(shared, fresh_name):
    """Creates a job through AWS's client for one thing; returns its id."""
    def create(thing, **more):
        name = fresh_name("job")
        iot(shared).create_job(jobId=name, targets=[thing_arn(thing)], document=json.dumps(DOCUMENT), **more)
        return name
    return create


def test_a_job_from_creation_to_success(shared, device, connect, job):
    lamp = device()
    jobs = Jobs(connect(shared, lamp), lamp.name).listen("notify-next", "notify", "$next/get/+", "start-next/+", "+/update/+", "+/get/+")
    name = job(lamp.name)
    told = dict(jobs.heard() for _ in range(2))
    assert [j["jobId"] for j in told["notify"]["jobs"]["QUEUED"]] == [name]
    execution = told["notify-next"]["execution"]
    assert isinstance(told["notify-next"]["timestamp"], int)
    assert (execution["jobId"], execution["status"], execution["versionNumber"], execution["executionNumber"]) == (name, "QUEUED", 1, 1)
    assert execution["jobDocument"] == DOCUMENT and isinstance(execution["queuedAt"], int)

    topic, answer = jobs.ask("$next/get", {"clientToken": "t-1"})
    assert topic == "$next/get/accepted" and answer["clientToken"] == "t-1" and answer["execution"]["jobId"] == name

    topic, answer = jobs.ask("start-next", {"statusDetails": {"step": "one"}, "clientToken": "t-2"})
    assert topic == "start-next/accepted" and answer["clientToken"] == "t-2"
    execution = answer["execution"]
    assert (execution["status"], execution["versionNumber"], execution["statusDetails"]) == ("IN_PROGRESS", 2, {"step": "one"})
    assert isinstance(execution["startedAt"], int) and execution["jobDocument"] == DOCUMENT

    topic, answer = jobs.ask(f"{name}/update", {"status": "SUCCEEDED", "expectedVersion": 1, "clientToken": "t-3"})
    assert topic == f"{name}/update/rejected"
    assert (answer["code"], answer["clientToken"]) == ("VersionMismatch", "t-3")
    assert (answer["executionState"]["status"], answer["executionState"]["versionNumber"]) == ("IN_PROGRESS", 2)

    topic, answer = jobs.ask(f"{name}/update", {
        "status": "IN_PROGRESS", "expectedVersion": 2, "statusDetails": {"step": "two"},
        "includeJobExecutionState": True, "includeJobDocument": True})
    assert topic == f"{name}/update/accepted"
    assert answer["executionState"] == {"status": "IN_PROGRESS", "versionNumber": 3, "statusDetails": {"step": "two"}}
    assert answer["jobDocument"] == DOCUMENT

    assert jobs.client.publish(jobs.prefix + f"{name}/update", json.dumps({"status": "SUCCEEDED", "expectedVersion": 3})) == 0
    told = dict(jobs.heard() for _ in range(3))
    assert "executionState" not in told[f"{name}/update/accepted"]
    assert not told["notify-next"].get("execution"), "nothing is next"
    assert not told["notify"]["jobs"].get("QUEUED") and not told["notify"]["jobs"].get("IN_PROGRESS")

    topic, answer = jobs.ask(f"{name}/update", {"status": "FAILED"})
    assert topic == f"{name}/update/rejected" and answer["code"] == "InvalidStateTransition"
    assert answer["executionState"]["status"] == "SUCCEEDED"
    assert outcome(iot(shared), name, lamp.name) == ("SUCCEEDED", {"step": "two"})
    assert iot(shared).describe_job(jobId=name)["job"]["status"] == "COMPLETED"


def test_what_cannot_be_is_rejected_with_awss_codes(shared, device, connect, job):
    lamp = device()
    jobs = Jobs(connect(shared, lamp), lamp.name).listen("+/update/+", "+/get/+", "start-next/+", "get/+")
    name = job(lamp.name)
    cases = [
        (f"{name}/update", b"{not json", "InvalidJson"),
        (f"{name}/update", {"status": "DANCING"}, "InvalidRequest"),
        (f"{name}/update", {"status": "IN_PROGRESS", "stepTimeoutInMinutes": 0}, "InvalidRequest"),
        (f"{name}/update", {"status": "QUEUED"}, "InvalidStateTransition"),
        ("no-such-job/update", {"status": "SUCCEEDED"}, "ResourceNotFound"),
        ("no-such-job/get", {}, "ResourceNotFound"),
        (f"{name}/get", {"executionNumber": 7}, "ResourceNotFound"),
    ]
    for what, body, code in cases:
        topic, answer = jobs.ask(what, body)
        assert (topic, answer["code"]) == (f"{what}/rejected", code), (what, body, answer)
        assert answer["message"] and isinstance(answer["timestamp"], int)
    assert jobs.ask(f"{name}/update", {"status": "REJECTED"})[0] == f"{name}/update/accepted"
    assert jobs.ask(f"{name}/get")[1]["code"] == "TerminalStateReached"


def test_jobs_come_one_after_the_other_and_a_cancelled_one_not_at_all(shared, device, connect, job):
    lamp = device()
    first, second, third = job(lamp.name), job(lamp.name), job(lamp.name)
    iot(shared).cancel_job(jobId=second)
    jobs = Jobs(connect(shared, lamp), lamp.name).listen("get/+", "start-next/+", "+/update/+")
    pending = jobs.ask("get")[1]
    assert [j["jobId"] for j in pending["queuedJobs"]] == [first, third] and pending["inProgressJobs"] == []
    for name in (first, third):
        assert jobs.ask("start-next")[1]["execution"]["jobId"] == name
        assert jobs.ask("start-next")[1]["execution"]["jobId"] == name, "starting twice starts nothing else"
        assert [j["jobId"] for j in jobs.ask("get")[1]["inProgressJobs"]] == [name]
        assert jobs.ask(f"{name}/update", {"status": "SUCCEEDED"})[0].endswith("accepted")
    assert not jobs.ask("start-next")[1].get("execution")
    assert outcome(iot(shared), second, lamp.name)[0] == "CANCELED"


def test_another_things_jobs_are_refused_by_the_policy(shared, device, connect, job):
    lamp, other = device(), device()
    name = job(other.name)
    client = connect(shared, lamp)
    assert client.subscribe(f"$aws/things/{other.name}/jobs/notify-next") == 0x87
    assert client.publish(f"$aws/things/{other.name}/jobs/start-next", "{}") == 0x87
    assert other.name in client.puback_text
    execution = iot(shared).describe_job_execution(jobId=name, thingName=other.name)["execution"]
    assert (execution["status"], execution["versionNumber"]) == ("QUEUED", 1)


def test_another_things_jobs_are_refused_even_where_the_policy_allows_everything(shared, device, connect, job):
    lamp, other = device("--policy", "everything"), device()
    name = job(other.name)
    jobs = Jobs(connect(shared, lamp), other.name).listen("start-next/+", "+/update/+")
    for what, body in (("start-next", {}), (f"{name}/update", {"status": "SUCCEEDED"})):
        topic, answer = jobs.ask(what, body)
        assert topic == f"{what}/rejected" and answer["code"] == "ResourceNotFound"
    assert iot(shared).describe_job_execution(jobId=name, thingName=other.name)["execution"]["status"] == "QUEUED"


def test_jobs_wait_for_a_device_and_survive_kill_9(server, connect):
    lamp = server.device("lamp-1")
    iot(server).create_job(jobId="wait", targets=[thing_arn("lamp-1")], document=json.dumps(DOCUMENT))
    server.kill9()
    server.start()
    jobs = Jobs(connect(server, lamp), "lamp-1").listen("start-next/+", "+/update/+")
    assert jobs.ask("start-next")[1]["execution"]["jobId"] == "wait"
    assert jobs.ask("wait/update", {"status": "IN_PROGRESS", "statusDetails": {"half": "done"}})[0] == "wait/update/accepted"
    jobs.client.close()
    server.kill9()
    server.start()
    jobs = Jobs(connect(server, lamp), "lamp-1").listen("start-next/+")
    execution = jobs.ask("start-next")[1]["execution"]
    assert (execution["status"], execution["versionNumber"], execution["statusDetails"]) == ("IN_PROGRESS", 3, {"half": "done"})


def test_awss_device_sdk_works_unmodified(shared, device, job):
    lamp = device()
    connection = mqtt_connection_builder.mtls_from_path(
        endpoint="localhost", port=shared.port("mqtt"), cert_filepath=str(lamp.certificate), pri_key_filepath=str(lamp.key),
        ca_filepath=str(lamp.root), client_id=lamp.name, clean_session=True, keep_alive_secs=30)
    connection.connect().result(WAIT_S)
    try:
        client = iotjobs.IotJobsClient(connection)
        changed, started, updated, refused = (queue.Queue() for _ in range(4))
        once = awscrt.mqtt.QoS.AT_LEAST_ONCE

        def subscribe(subscription):
            future, _ = subscription
            assert future.result(WAIT_S) == once

        subscribe(client.subscribe_to_next_job_execution_changed_events(
            iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=lamp.name), once, changed.put))
        subscribe(client.subscribe_to_start_next_pending_job_execution_accepted(
            iotjobs.StartNextPendingJobExecutionSubscriptionRequest(thing_name=lamp.name), once, started.put))
        name = job(lamp.name)
        event = changed.get(timeout=WAIT_S)
        assert event.execution.job_id == name and event.execution.status == "QUEUED"

        client.publish_start_next_pending_job_execution(
            iotjobs.StartNextPendingJobExecutionRequest(thing_name=lamp.name, client_token="begin"), once).result(WAIT_S)
        answer = started.get(timeout=WAIT_S)
        assert answer.client_token == "begin" and answer.execution.job_document == DOCUMENT
        version = answer.execution.version_number

        update = iotjobs.UpdateJobExecutionSubscriptionRequest(thing_name=lamp.name, job_id=name)
        subscribe(client.subscribe_to_update_job_execution_accepted(update, once, updated.put))
        subscribe(client.subscribe_to_update_job_execution_rejected(update, once, refused.put))
        for expected in (version + 1, version):
            client.publish_update_job_execution(iotjobs.UpdateJobExecutionRequest(
                thing_name=lamp.name, job_id=name, status=iotjobs.JobStatus.SUCCEEDED, expected_version=expected), once).result(WAIT_S)
        rejection = refused.get(timeout=WAIT_S)
        assert rejection.code == iotjobs.RejectedErrorCode.VERSION_MISMATCH
        assert rejection.execution_state.version_number == version
        assert updated.get(timeout=WAIT_S).timestamp
        assert outcome(iot(shared), name, lamp.name)[0] == "SUCCEEDED"
    finally:
        connection.disconnect().result(WAIT_S)


def test_firmware_is_installed_by_rollouts_only(shared, device, fresh_name):
    """A bare job could not be stopped and undone."""
    document = json.dumps({"operation": "muster.install-firmware", "name": "lamp", "version": "1.0.0"})
    client = iot(shared)
    target = thing_arn(device().name)
    refused = lambda: pytest.raises(client.exceptions.InvalidRequestException, match="rollout start")
    with refused():
        client.create_job(jobId="bare", targets=[target], document=document)
    # Nor by a parameter, whole or in part, of its own or of a template's document.
    for said, parameter in (("${aws:iot:parameter:op}", "muster.install-firmware"), ("muster.${aws:iot:parameter:op}", "install-firmware")):
        veiled = document.replace("muster.install-firmware", said)
        with refused():
            client.create_job(jobId="veiled", targets=[target], document=veiled, documentParameters={"op": parameter})
        template = fresh_name()
        arn = client.create_job_template(jobTemplateId=template, description="x", document=veiled)["jobTemplateArn"]
        with refused():
            client.create_job(jobId="veiled", targets=[target], jobTemplateArn=arn, documentParameters={"op": parameter})
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_job(jobId="veiled")
