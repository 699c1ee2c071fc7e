"""Jobs that nobody can mean, and devices that answer too much, too late or twice: refused in words, and nothing half done."""

import json

import pytest
from botocore.exceptions import ClientError

from api import iot
from devices import outcome, thing_arn
from release import Team
from server import muster
from test_jobs import Jobs, job  # noqa: F401 - a fixture

MEGABYTE = 1_000_000


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response
    assert 400 <= error["ResponseMetadata"]["HTTPStatusCode"] < 500, error
    return error["Error"]["Code"], str(caught.value)


@pytest.mark.parametrize("size", [32 * 1024 + 1, MEGABYTE, 4 * MEGABYTE])
def test_a_document_of_a_megabyte_is_refused_wherever_it_comes(shared, device, fresh_name, size):
    client, lamp, name = iot(shared), device(), fresh_name("job")
    target, document = [thing_arn(lamp.name)], json.dumps({"x": "y" * (size - 9)})
    assert len(document) == size
    # Longer than any request may be, the body itself is what is refused.
    words = "32768 are possible" if size < MEGABYTE + 1000 else ""
    for call, arguments in (
            (client.create_job, {"jobId": name, "targets": target, "document": document}),
            (client.create_job_template, {"jobTemplateId": name, "description": "d", "document": document}),
            (client.create_job, {"jobId": name, "targets": target, "document": "{}", "documentParameters": {"x": document}})):
        said = refused(call, **arguments)
        assert words in said[1] or "documentParameters" in said[1], said
    assert refused(client.describe_job, jobId=name)[0] == "ResourceNotFoundException"
    assert refused(client.describe_job_template, jobTemplateId=name)[0] == "ResourceNotFoundException"
    deep = '{"a":' * 5_000 + "1" + "}" * 5_000
    assert refused(client.create_job, jobId=name, targets=target, document=deep)[0] == "InvalidRequestException"
    client.create_job(jobId=name, targets=target, document=json.dumps({"x": "y" * (32 * 1024 - 9)}))


def test_a_device_that_says_a_megabyte_or_what_no_terminal_should_get_is_told_so_and_its_job_stays(shared, device, connect, job):  # noqa: F811
    lamp = device()
    name = job(lamp.name)
    jobs = Jobs(connect(shared, lamp), lamp.name).listen("+/update/+")
    for body in ({"status": "IN_PROGRESS", "statusDetails": {"x": "y" * 100_000}},
                 {"status": "IN_PROGRESS", "statusDetails": {f"k{n}": "v" for n in range(1000)}},
                 {"status": "IN_PROGRESS", "statusDetails": {"reason": "\x1b]0;mine\x07\x1b[31mred"}},
                 {"status": "IN_PROGRESS", "statusDetails": {"reason": "one\nlamp-2  all  SUCCEEDED"}},
                 {"status": "IN_PROGRESS", "statusDetails": {"a\x1b[2J": "v"}},
                 {"status": "IN_PROGRESS", "clientToken": "t" * 100_000}):
        topic, answer = jobs.ask(f"{name}/update", body)
        assert topic.endswith("/rejected") and answer["code"] == "InvalidRequest", str(answer)[:300]
    assert iot(shared).describe_job_execution(jobId=name, thingName=lamp.name)["execution"]["status"] == "QUEUED"
    assert jobs.ask(f"{name}/update", {"status": "SUCCEEDED"})[0].endswith("/accepted")


def test_an_error_puts_nothing_on_the_operators_terminal_but_characters(tmp_path):
    said = muster("device", "list", "--data", "no\x1b]0;mine\x07\nmuster: done", cwd=tmp_path)
    assert said.returncode == 1 and said.stderr.startswith("muster: "), said
    assert "\\u{1b}]0;mine\\u{7}\n  muster: done" in said.stderr, said.stderr


@pytest.mark.parametrize("cron, words", [
    ("cron(0 0 30 2 ? *)", "never"), ("cron(0 2 31 4 ? *)", "never"), ("cron(61 2 ? * * *)", "cron"), ("cron()", "cron"),
    ("every day", "cron"), ("cron(" + "* " * 50_000 + ")", "cron"),
])
def test_a_window_that_never_opens_makes_no_job(shared, device, fresh_name, cron, words):
    client, lamp, name = iot(shared), device(), fresh_name("job")
    code, said = refused(
        client.create_job, jobId=name, targets=[thing_arn(lamp.name)], document="{}", targetSelection="CONTINUOUS",
        schedulingConfig={"maintenanceWindows": [{"startTime": cron, "durationInMinutes": 60}]})
    assert code in ("InvalidRequestException", "ValidationException") and words in said, said[:500]
    assert refused(client.describe_job, jobId=name)[0] == "ResourceNotFoundException"


def test_a_window_that_never_opens_makes_no_rollout_and_a_skipped_hour_does_no_harm(server, tmp_path):
    team = Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    server.cli("firmware", "add", team.package("lamp", "1.0.0", b"light"))
    server.cli("group", "create", "hall")
    server.device("lamp-1", "--group", "hall")
    start = ["rollout", "start", "lamp", "1.0.0", "--group", "hall"]
    assert "never comes true" in server.refused(*start, "--window", "0 0 30 2 */1h")
    assert server.json("rollout", "list")["rollouts"] == []
    # 02:30 does not exist in Berlin on a day in March; the window is there on all others.
    shown = server.json(*start, "--window", "30 2 * 3 */1h", "--zone", "Europe/Berlin", "--dry-run")
    assert shown
    assert "Europe/Atlantis" in server.refused(*start, "--window", "30 2 * * */1h", "--zone", "Europe/Atlantis")


def test_what_comes_late_twice_or_backwards_changes_nothing(shared, device, connect, job):  # noqa: F811
    lamp = device()
    name = job(lamp.name)
    jobs = Jobs(connect(shared, lamp), lamp.name).listen("+/update/+", "start-next/+")
    versions = [jobs.ask("start-next")[1]["execution"]["versionNumber"]]
    for step in ("one", "two", "three"):
        answer = jobs.ask(f"{name}/update", {
            "status": "IN_PROGRESS", "statusDetails": {"step": step}, "expectedVersion": versions[-1], "includeJobExecutionState": True})[1]
        versions.append(answer["executionState"]["versionNumber"])
    assert versions == sorted(set(versions)), "a version never goes back"
    # Reports of before, that the network kept: each is told what stands by now.
    for late in versions[:-1]:
        topic, answer = jobs.ask(f"{name}/update", {"status": "FAILED", "expectedVersion": late})
        assert topic.endswith("/rejected") and answer["code"] == "VersionMismatch", answer
        assert answer["executionState"]["versionNumber"] == versions[-1] and answer["executionState"]["statusDetails"] == {"step": "three"}
    for beyond in (versions[-1] + 1, 2**53, -1):
        topic, answer = jobs.ask(f"{name}/update", {"status": "FAILED", "expectedVersion": beyond})
        assert topic.endswith("/rejected"), answer
    assert jobs.ask(f"{name}/update", {"status": "SUCCEEDED", "expectedVersion": versions[-1]})[0].endswith("/accepted")
    for status in ("IN_PROGRESS", "FAILED", "REJECTED"):
        topic, answer = jobs.ask(f"{name}/update", {"status": status})
        assert topic.endswith("/rejected") and answer["code"] == "InvalidStateTransition", answer
    assert outcome(iot(shared), name, lamp.name) == ("SUCCEEDED", {"step": "three"})
