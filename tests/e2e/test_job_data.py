"""AWS IoT Jobs' data plane over HTTPS: unmodified boto3, and devices under their own certificates; and ten thousand reports at once."""

import asyncio
import json
import re
import ssl
import subprocess
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from api import admin, call, credentials, endpoint, iot, send, signed
from devices import thing_arn
from server import allow, deny, document
from test_jobs import Jobs

DOCUMENT = {"operation": "blink", "times": 3}
MANY = 10_000
CONNECTIONS = 100
# What stays of a report is a row on the disk; while all of them are under way the store's own cache grows.
GROWN_BYTES = 64 << 20
OWN = "thing/${iot:Connection.Thing.ThingName}"
ACTIONS = ("DescribeJobExecution", "GetPendingJobExecutions", "StartNextPendingJobExecution", "UpdateJobExecution")


def data_plane(server, who=None):
    """boto3's client of the jobs' data plane, pointed at the server."""
    who = who or admin(server)
    return boto3.client(
        "iot-jobs-data", region_name="local", endpoint_url=endpoint(server), verify=str(server.root),
        aws_access_key_id=who.access_key, aws_secret_access_key=who.secret_key,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=15, read_timeout=30))


def create(server, name, *things, **more):
    iot(server).create_job(jobId=name, targets=[thing_arn(thing) for thing in things], document=json.dumps(DOCUMENT), **more)
    return name


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]


def test_boto3_takes_a_job_from_pending_to_success(shared, device, fresh_name):
    lamp, client = device(), data_plane(shared)
    first, second = (create(shared, fresh_name("job"), lamp.name) for _ in range(2))
    pending = client.get_pending_job_executions(thingName=lamp.name)
    assert {job["jobId"] for job in pending["queuedJobs"]} == {first, second} and pending["inProgressJobs"] == []
    started = client.start_next_pending_job_execution(thingName=lamp.name, statusDetails={"step": "one"}, stepTimeoutInMinutes=5)["execution"]
    name = started["jobId"]
    assert (started["status"], started["versionNumber"], started["thingName"]) == ("IN_PROGRESS", 2, lamp.name)
    assert json.loads(started["jobDocument"]) == DOCUMENT and started["statusDetails"] == {"step": "one"}
    assert 0 < started["approximateSecondsBeforeTimedOut"] <= 300
    described = client.describe_job_execution(thingName=lamp.name, jobId=name)["execution"]
    assert json.loads(described["jobDocument"]) == DOCUMENT, "unless told otherwise"
    assert "jobDocument" not in client.describe_job_execution(thingName=lamp.name, jobId="$next", includeJobDocument=False)["execution"]
    assert refused(client.describe_job_execution, thingName=lamp.name, jobId=name, executionNumber=7) == (404, "ResourceNotFoundException")
    updated = client.update_job_execution(
        thingName=lamp.name, jobId=name, status="IN_PROGRESS", statusDetails={"step": "two"}, expectedVersion=2,
        includeJobExecutionState=True, includeJobDocument=True)
    assert updated["executionState"] == {"status": "IN_PROGRESS", "statusDetails": {"step": "two"}, "versionNumber": 3}
    assert json.loads(updated["jobDocument"]) == DOCUMENT
    late = {"status": "FAILED", "expectedVersion": 2}
    assert refused(client.update_job_execution, thingName=lamp.name, jobId=name, **late) == (409, "VersionMismatchException")
    path, body = f"/things/{lamp.name}/jobs/{name}", json.dumps(late).encode()
    answer = send(shared, "POST", path, signed(shared, "POST", path, body, service="iot-jobs-data"), body)[2]
    assert answer["executionState"]["versionNumber"] == 3, "what stands by now comes with the refusal"
    assert "executionState" not in client.update_job_execution(thingName=lamp.name, jobId=name, status="SUCCEEDED")
    assert refused(client.update_job_execution, thingName=lamp.name, jobId=name, status="FAILED") == (409, "InvalidStateTransitionException")
    assert refused(client.describe_job_execution, thingName=lamp.name, jobId=name) == (410, "TerminalStateException")
    assert refused(client.update_job_execution, thingName=lamp.name, jobId="no-job", status="FAILED") == (404, "ResourceNotFoundException")
    assert refused(client.get_pending_job_executions, thingName="nobody-here") == (404, "ResourceNotFoundException")
    assert refused(client.update_job_execution, thingName=lamp.name, jobId=second, status="DANCING") == (400, "InvalidRequestException")
    # The registry's operations on the same paths are still the registry's.
    execution = iot(shared).describe_job_execution(jobId=name, thingName=lamp.name)["execution"]
    assert (execution["status"], execution["statusDetails"]["detailsMap"]) == ("SUCCEEDED", {"step": "two"})
    assert len(iot(shared).list_job_executions_for_thing(thingName=lamp.name)["executionSummaries"]) == 2


def test_a_document_reaches_a_device_as_it_was_given(shared, device, connect, fresh_name):
    lamp, client = device(), data_plane(shared)
    listener = connect(shared, lamp)
    assert listener.subscribe(f"$aws/things/{lamp.name}/jobs/notify-next") in (0, 1)
    given = '{"z":1, "a":{"y":1.10,"x":12345678901234567890123},"n":1e2,"u":"\\u00e9","p":"${aws:iot:parameter:p}"}'
    expected = given.replace("${aws:iot:parameter:p}", "one")
    name = fresh_name("job")
    iot(shared).create_job(jobId=name, targets=[thing_arn(lamp.name)], document=given, documentParameters={"p": "one"})
    assert f'"jobDocument":{expected},' in listener.message().payload.decode()
    assert client.describe_job_execution(thingName=lamp.name, jobId=name)["execution"]["jobDocument"] == expected
    updated = client.update_job_execution(thingName=lamp.name, jobId=name, status="IN_PROGRESS", includeJobDocument=True)
    assert updated["jobDocument"] == expected


def test_a_device_does_its_jobs_over_https_as_its_policies_allow(shared, device, connect, fresh_name):
    policy = fresh_name("https-jobs")
    shared.policy(policy, document(allow(ACTIONS, OWN), deny("UpdateJobExecution", "thing/*-frozen")))
    lamp, other = device("--policy", "device-default"), device()
    shared.cli("policy", "attach", policy, "--device", lamp.name)
    name = create(shared, fresh_name("job"), lamp.name, other.name)
    path = f"/things/{lamp.name}/jobs"

    def ask(method, where, body=None, who=lamp):
        return send(shared, method, where, {}, b"" if body is None else json.dumps(body).encode(), who)

    status, _, pending = ask("GET", path)
    assert status == 200 and [job["jobId"] for job in pending["queuedJobs"]] == [name]
    # What is done here is heard on the topics: it is one and the same execution.
    jobs = Jobs(connect(shared, lamp), lamp.name).listen("$next/get/+")
    for next_one in ("$next", "%24next"):
        status, _, started = ask("PUT", f"{path}/{next_one}", {"statusDetails": {"by": "https"}})
        assert status == 200 and started["execution"]["status"] == "IN_PROGRESS", started
    assert jobs.ask("$next/get")[1]["execution"]["statusDetails"] == {"by": "https"}
    assert ask("GET", f"{path}/{name}")[2]["execution"]["versionNumber"] == 2

    for method, where, body, expected in (
            ("PUT", f"{path}/{name}", {}, (400, "InvalidRequestException")),
            ("POST", f"{path}/$next", {"status": "FAILED"}, (400, "InvalidRequestException")),
            ("POST", f"{path}/a%2Fb", {"status": "FAILED"}, (400, "InvalidRequestException")),
            ("POST", f"{path}/{name}", {"status": "FAILED", "colour": "red"}, (400, "InvalidRequestException")),
            ("POST", f"{path}/{name}", {}, (400, "InvalidRequestException")),
            ("POST", f"{path}/{name}", {"status": "FAILED", "expectedVersion": -1}, (400, "InvalidRequestException")),
            ("GET", f"{path}/{name}?colour=red", None, (400, "InvalidRequestException")),
            ("POST", f"{path}/{name}", {"status": "FAILED", "statusDetails": {"x": "y" * 100_000}}, (400, "InvalidRequestException")),
            ("POST", f"/things/{other.name}/jobs/{name}", {"status": "FAILED"}, (403, "ForbiddenException")),
            ("GET", f"/things/{other.name}/jobs", None, (403, "ForbiddenException"))):
        status, kind, answer = ask(method, where, body)
        assert (status, kind) == expected and answer["message"], (method, where, body, answer)
    # Where the policies allow all, the job still is the thing's own.
    shared.cli("policy", "attach", "everything", "--device", lamp.name)
    assert ask("POST", f"/things/{other.name}/jobs/{name}", {"status": "FAILED"})[:2] == (404, "ResourceNotFoundException")
    # Without a policy that says so nothing is allowed, and to nobody without a certificate.
    assert ask("POST", f"/things/{other.name}/jobs/{name}", {"status": "FAILED"}, other)[:2] == (403, "ForbiddenException")
    assert ask("GET", path, None, None)[0] == 403
    assert ask("POST", f"{path}/{name}", {"status": "SUCCEEDED"})[0] == 200
    assert iot(shared).describe_job_execution(jobId=name, thingName=other.name)["execution"]["status"] == "QUEUED"
    shared.cli("device", "revoke", lamp.name, "--yes")
    with pytest.raises((OSError, AssertionError)):
        assert ask("GET", path)[0] == 200


def test_what_policies_know_of_a_request_over_https(shared, device, fresh_name):
    policy = fresh_name("https")
    shared.policy(policy, document(allow("Connect", "*")))
    lamp = device("--policy", policy)

    def status(effect, condition):
        statement = {**effect("GetPendingJobExecutions", OWN), "Condition": condition}
        open_to_all = [] if effect is allow else [allow("GetPendingJobExecutions", OWN)]
        shared.update_policy(policy, document(statement, *open_to_all))
        return send(shared, "GET", f"/things/{lamp.name}/jobs", identity=lamp)[0]

    for condition in (
            {"StringEquals": {"iot:DomainName": "localhost"}}, {"StringEquals": {"muster:TlsVersion": "1.3"}},
            {"NumericGreaterThanEquals": {"muster:TlsVersion": "1.2"}}, {"StringEquals": {"muster:Listener": "https"}},
            {"Null": {"iot:ClientId": "true"}}):
        assert (status(allow, condition), status(deny, condition)) == (200, 403), condition
    for condition in (
            {"StringEquals": {"iot:DomainName": "other.example"}}, {"StringEquals": {"muster:TlsVersion": "1.2"}},
            {"StringEquals": {"iot:ClientId": ""}}, {"StringEquals": {"iot:ClientId": lamp.name}}):
        assert (status(allow, condition), status(deny, condition)) == (403, 200), condition


def test_what_was_asked_over_https_is_recorded_and_a_denial_explained(server):
    server.policy("jobs", document(allow("GetPendingJobExecutions", OWN)))
    lamp = server.device("lamp-1", "--policy", "jobs")
    assert send(server, "GET", "/things/lamp-1/jobs", identity=lamp)[0] == 200
    assert send(server, "PUT", "/things/lamp-1/jobs/$next", identity=lamp, body=b"{}")[0] == 403
    line = server.said("denied over HTTPS", "lamp-1", "StartNextPendingJobExecution")
    denial = re.search(r'denial="?([0-9a-f]+-[0-9a-f]+)', line)[1]
    deadline = time.monotonic() + 30
    while "is not kept" in (said := server.run("policy", "explain", "--denial", denial)).stderr and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "implicit deny" in said.stdout and "thing/lamp-1" in said.stdout, said
    # What was used stays allowed by what is suggested.
    deadline = time.monotonic() + 30
    while "GetPendingJobExecutions" not in (said := server.run("policy", "suggest", "--device", "lamp-1")).stdout and time.monotonic() < deadline:
        time.sleep(0.2)
    assert f"thing/{'${iot:Connection.Thing.ThingName}'}" in said.stdout and "StartNext" not in said.stdout, said


def test_who_may_only_operate_speaks_for_no_device(shared, device, fresh_name, tmp_path):
    lamp = device()
    name = create(shared, fresh_name("job"), lamp.name)
    for role, may in (("viewer", False), ("operator", False), ("release-engineer", True)):
        status, _, made = call(shared, "POST", "/muster/v1/operators", {"name": fresh_name("someone"), "role": role})
        assert status == 200, made
        place = tmp_path / role
        place.write_text(made["credentials"])
        client = data_plane(shared, credentials(place))
        assert [job["jobId"] for job in client.get_pending_job_executions(thingName=lamp.name)["queuedJobs"]] == [name]
        if may:
            client.update_job_execution(thingName=lamp.name, jobId=name, status="SUCCEEDED")
        else:
            assert refused(client.update_job_execution, thingName=lamp.name, jobId=name, status="FAILED") == (403, "AccessDeniedException")
            assert refused(client.start_next_pending_job_execution, thingName=lamp.name) == (403, "AccessDeniedException")


class Reports:
    """A report of success by each of many things, all of them under way together."""

    def __init__(self, server, job, things):
        self.server, self.waiting, self.answers = server, [], {}
        body = b'{"status": "SUCCEEDED", "includeJobExecutionState": true}'
        for thing in things:
            path = f"/things/{thing}/jobs/{job}"
            head = signed(server, "POST", path, body, service="iot-jobs-data")
            lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), f"Content-Length: {len(body)}"]
            self.waiting.append((thing, "\r\n".join([*lines, "", ""]).encode() + body))

    def send(self, when=None, then=None):
        """Sends all; `then()` once so many are answered. Returns what each was answered: status and execution state."""
        self.answers, self.when, self.then = {}, when, then
        asyncio.run(self._send())
        return self.answers

    async def _send(self):
        queue = list(self.waiting)
        context = ssl.create_default_context(cafile=str(self.server.root))
        await asyncio.gather(*(self._connection(context, queue) for _ in range(CONNECTIONS)))

    async def _connection(self, context, queue):
        try:
            reader, writer = await asyncio.open_connection("localhost", self.server.port("https"), ssl=context)
            while queue:
                thing, request = queue.pop()
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split()[0])
                answer = json.loads(await reader.readexactly(length))
                self.answers[thing] = int(head.split()[1]), answer.get("executionState", answer)
                if len(self.answers) == self.when:
                    await asyncio.get_running_loop().run_in_executor(None, self.then)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            assert self.then, "the server went away"


def memory(server, what):
    """`VmRSS` or `VmHWM` of the server, in bytes."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def test_ten_thousand_things_report_at_once_and_the_server_dies_amidst(server, tmp_path, record_property):
    things = [f"lamp-{number}" for number in range(MANY)]
    server.cli("group", "create", "lamps")
    for start in range(0, MANY, 1000):
        file = tmp_path / "things.csv"
        file.write_text("name,group\n" + "".join(f"{thing},lamps\n" for thing in things[start:start + 1000]))
        server.cli("device", "create", "--from", str(file), "--out", str(tmp_path / "keys"))
    client = iot(server)
    client.create_job(jobId="all", targets=[thing_arn("x").replace("thing/x", "thinggroup/lamps")], document=json.dumps(DOCUMENT))

    def counts():
        details = client.describe_job(jobId="all")["job"]["jobProcessDetails"]
        return {name.removeprefix("numberOf").removesuffix("Things").lower(): count for name, count in details.items() if count and name.startswith("numberOf")}

    assert counts() == {"queued": MANY}
    reports = Reports(server, "all", things)
    answered = reports.send(MANY // 2, server.kill9)
    assert MANY // 2 <= len(answered) < MANY and {status for status, _ in answered.values()} == {200}
    server.start()
    # What was answered is there, and of what was not each is there whole or not at all.
    there = counts()
    assert there.get("succeeded", 0) >= len(answered) and sum(there.values()) == MANY and set(there) <= {"succeeded", "queued"}, there
    # Forgets how much it was.
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    before = memory(server, "VmHWM")
    again = reports.send()
    assert set(again) == set(things)
    for thing, (status, state) in again.items():
        assert status == (409 if thing in answered else status) and status in (200, 409), (thing, status, state)
        assert (state["status"], state["versionNumber"]) == ("SUCCEEDED", 2), "each was done, and once"
    grown = memory(server, "VmHWM") - before
    record_property("measured", f"{MANY} reports over {CONNECTIONS} connections: the server grew by {grown >> 10} KiB at most")
    assert grown < GROWN_BYTES, grown
    assert counts() == {"succeeded": MANY}
    job = client.describe_job(jobId="all")["job"]
    assert job["status"] == "COMPLETED"
    pages = client.get_paginator("list_job_executions_for_job").paginate(jobId="all", status="SUCCEEDED")
    assert sorted(e["thingArn"].split("/")[-1] for page in pages for e in page["executionSummaries"]) == sorted(things)


@pytest.mark.parametrize("condition,barred,open_to", [
    ({"StringEquals": {"muster:TlsVersion": "1.2"}}, ("--tls-max", "1.2"), ("--tlsv1.3",)),
    ({"NumericGreaterThan": {"muster:TlsVersion": "1.2"}}, ("--tlsv1.3",), ("--tls-max", "1.2")),
    ({"StringEquals": {"iot:DomainName": "localhost"}}, (), ("127.0.0.1",)),
    # Who asks for no name has none, which IfExists takes for met.
    ({"StringEqualsIfExists": {"iot:DomainName": "elsewhere"}}, ("127.0.0.1",), ()),
])
def test_a_deny_by_what_the_handshake_agreed_on_speaks_over_https(shared, device, fresh_name, condition, barred, open_to):
    policy = fresh_name("handshake")
    shared.policy(policy, document(allow(ACTIONS, OWN), {**deny("GetPendingJobExecutions", "*"), "Condition": condition}))
    lamp = device("--policy", policy)
    port = shared.port("https")

    def status(options):
        host = "127.0.0.1" if "127.0.0.1" in options else "localhost"
        options = [option for option in options if option != host]
        url = f"https://{host}:{port}/things/{lamp.name}/jobs"
        # The server's certificate names no address; what it is called is not what is tested here.
        done = subprocess.run(
            ["curl", "-sS", "-k", "--cert", lamp.certificate, "--key", lamp.key, "-o", "/dev/null", "-w", "%{http_code}",
             *options, url], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert status(barred) == 403
    assert status(open_to) == 200
    # What the Deny does not name stays open.
    assert send(shared, "PUT", f"/things/{lamp.name}/jobs/$next", {}, b"{}", lamp)[0] == 200
