"""How jobs go out, as AWS IoT's CreateJob says it: rate, abort, retries, schedule, continuous targets; and what operators do to jobs that exist. All through boto3."""

import datetime
import json

import pytest

from api import iot
from devices import TERMINAL, eventually, thing_arn
from test_jobs import Jobs

GROUP_ARN = "arn:aws:iot:local:000000000000:thinggroup/"


@pytest.fixture
def hall(shared, device, fresh_name):
    """Makes a group of so many things; returns its name and their names."""
    def make(count):
        group = fresh_name("hall")
        shared.cli("group", "create", group)
        return group, [device("--group", group).name for _ in range(count)]
    return make


def statuses(client, job):
    """Thing → status of its execution."""
    listed = client.list_job_executions_for_job(jobId=job)["executionSummaries"]
    return {e["thingArn"].rpartition("/")[2]: e["jobExecutionSummary"]["status"] for e in listed}


def until(look, what):
    return eventually(look, what, 30)


def details(client, job):
    return client.describe_job(jobId=job)["job"]


def test_no_more_than_the_rate_are_told_in_a_minute(server):
    client = iot(server)
    server.cli("group", "create", "hall")
    for number in range(5):
        server.device(f"lamp-{number}", "--group", "hall")
    config = {"maximumPerMinute": 3}
    client.create_job(jobId="slow", targets=[GROUP_ARN + "hall"], document="{}", jobExecutionsRolloutConfig=config)
    until(lambda: len(statuses(client, "slow")) == 3, "the first three")
    server.kill9()
    server.start()
    # Another job goes out after the restart: by then the slow one was looked at too, and told nobody.
    client = iot(server)
    client.create_job(jobId="quick", targets=[GROUP_ARN + "hall"], document="{}", jobExecutionsRolloutConfig={"maximumPerMinute": 1000})
    until(lambda: len(statuses(client, "quick")) == 5, "all of the quick one")
    assert len(statuses(client, "slow")) == 3
    job = details(client, "slow")
    assert (job["status"], job["jobExecutionsRolloutConfig"]) == ("IN_PROGRESS", config)
    client.cancel_job(jobId="slow")
    assert set(statuses(client, "slow").values()) == {"CANCELED"}
    # The other two are told nothing any more: with nobody waiting, it can be deleted.
    client.delete_job(jobId="slow")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_job(jobId="slow")


def test_failures_abort_a_job_and_what_has_begun_goes_on(shared, device, connect, fresh_name):
    client, job = iot(shared), fresh_name("job")
    lamps = [device() for _ in range(4)]
    client.create_job(
        jobId=job, targets=[thing_arn(lamp.name) for lamp in lamps], document="{}",
        abortConfig={"criteriaList": [
            {"failureType": "FAILED", "action": "CANCEL", "thresholdPercentage": 50.0, "minNumberOfExecutedThings": 2}]})
    speak = {lamp.name: Jobs(connect(shared, lamp), lamp.name).listen("start-next/+", "+/update/+") for lamp in lamps[:3]}
    for lamp in lamps[:3]:
        assert speak[lamp.name].ask("start-next")[1]["execution"]["jobId"] == job
    for lamp, status in zip(lamps[:2], ("SUCCEEDED", "FAILED")):
        assert speak[lamp.name].ask(f"{job}/update", {"status": status})[0].endswith("accepted")
    until(lambda: statuses(client, job)[lamps[3].name] == "CANCELED", "the rest to be cancelled")
    assert statuses(client, job)[lamps[2].name] == "IN_PROGRESS"
    told = details(client, job)
    assert (told["status"], told["reasonCode"]) == ("CANCELED", "AbortCriteriaMet") and "1 of 2" in told["comment"]
    assert speak[lamps[2].name].ask(f"{job}/update", {"status": "SUCCEEDED"})[0].endswith("accepted")


def test_what_failed_is_tried_again_so_often_and_what_was_rejected_never(shared, device, connect, fresh_name):
    client, job = iot(shared), fresh_name("job")
    lamp, other = device(), device()
    client.create_job(
        jobId=job, targets=[thing_arn(lamp.name), thing_arn(other.name)], document="{}",
        jobExecutionsRetryConfig={"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 2}]})
    jobs = Jobs(connect(shared, lamp), lamp.name).listen("start-next/+", "+/update/+")
    for number in (1, 2, 3):
        execution = jobs.ask("start-next")[1]["execution"]
        assert (execution["jobId"], execution["executionNumber"], execution["versionNumber"]) == (job, number, 2)
        assert details(client, job)["status"] == "IN_PROGRESS"
        failed = {"status": "FAILED", "executionNumber": number, "statusDetails": {"try": str(number)}}
        assert jobs.ask(f"{job}/update", failed)[0].endswith("accepted")
    # What is over is over, the tries before it too.
    for number in (1, 3):
        topic, answer = jobs.ask(f"{job}/update", {"status": "SUCCEEDED", "executionNumber": number})
        assert topic.endswith("rejected") and answer["code"] == "InvalidStateTransition", answer
    assert not jobs.ask("start-next")[1].get("execution")
    jobs = Jobs(connect(shared, other), other.name).listen("start-next/+", "+/update/+")
    assert jobs.ask(f"{job}/update", {"status": "REJECTED"})[0].endswith("accepted")
    assert not jobs.ask("start-next")[1].get("execution")
    assert statuses(client, job) == {lamp.name: "FAILED", other.name: "REJECTED"}
    told = details(client, job)
    assert told["status"] == "COMPLETED" and told["jobProcessDetails"]["numberOfFailedThings"] == 1
    # Each try is an execution of its own, to be listed, described and deleted.
    for size in (1, 2, 250):
        pages = client.get_paginator("list_job_executions_for_thing").paginate(thingName=lamp.name, PaginationConfig={"PageSize": size})
        listed = [e for page in pages for e in page["executionSummaries"]]
        assert [(e["jobId"], e["jobExecutionSummary"]["executionNumber"], e["jobExecutionSummary"]["retryAttempt"]) for e in listed] == [
            (job, 1, 0), (job, 2, 1), (job, 3, 2)]
        pages = client.get_paginator("list_job_executions_for_job").paginate(jobId=job, status="FAILED", PaginationConfig={"PageSize": size})
        assert [(e["thingArn"].rpartition("/")[2], e["jobExecutionSummary"]["executionNumber"]) for page in pages for e in page["executionSummaries"]] == [
            (lamp.name, number) for number in (1, 2, 3)]

    def described(**which):
        execution = client.describe_job_execution(jobId=job, thingName=lamp.name, **which)["execution"]
        return execution["executionNumber"], execution["status"], execution["statusDetails"]["detailsMap"]

    assert described() == (3, "FAILED", {"try": "3"})
    assert [described(executionNumber=number) for number in (1, 2, 3)] == [(n, "FAILED", {"try": str(n)}) for n in (1, 2, 3)]
    client.delete_job_execution(jobId=job, thingName=lamp.name, executionNumber=1)
    client.delete_job_execution(jobId=job, thingName=lamp.name, executionNumber=3)
    assert described() == (2, "FAILED", {"try": "2"}), "the newest that is left"
    for number in (1, 3, 4):
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            described(executionNumber=number)
    client.delete_job(jobId=job)
    assert client.list_job_executions_for_thing(thingName=lamp.name)["executionSummaries"] == []


def test_a_job_waits_for_its_start_and_ends_at_its_end(shared, hall, fresh_name):
    client, job = iot(shared), fresh_name("job")
    group, _ = hall(2)

    def moment(seconds):
        at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")

    schedule = {"startTime": moment(3), "endTime": moment(6), "endBehavior": "FORCE_CANCEL"}
    client.create_job(jobId=job, targets=[GROUP_ARN + group], document="{}", schedulingConfig=schedule)
    told = details(client, job)
    assert (told["status"], told["schedulingConfig"]) == ("SCHEDULED", schedule) and statuses(client, job) == {}
    until(lambda: len(statuses(client, job)) == 2, "the start")
    until(lambda: set(statuses(client, job).values()) == {"CANCELED"}, "the end")
    assert details(client, job)["status"] == "CANCELED"
    # Never yet: one that would begin in years is seen, listed, and deleted by force.
    later = fresh_name("job")
    client.create_job(jobId=later, targets=[GROUP_ARN + group], document="{}", schedulingConfig={"startTime": "2099-01-01 00:00"})
    assert later in {j["jobId"] for j in client.list_jobs(status="SCHEDULED")["jobs"]}
    with pytest.raises(client.exceptions.InvalidStateTransitionException):
        client.delete_job(jobId=later)
    client.delete_job(jobId=later, force=True)
    for bad in ({"startTime": "noon"}, {"endBehavior": "CANCEL"}, {"maintenanceWindows": [{"startTime": "cron(0 0 31 4 ? *)", "durationInMinutes": 60}]}):
        with pytest.raises(client.exceptions.InvalidRequestException):
            client.create_job(jobId=fresh_name("job"), targets=[GROUP_ARN + group], document="{}", schedulingConfig=bad)


def test_nobody_is_told_outside_the_maintenance_window(shared, hall, fresh_name):
    client = iot(shared)
    group, names = hall(2)
    month = datetime.datetime.now(datetime.timezone.utc).month
    closed, opened = fresh_name("job"), fresh_name("job")
    for job, line in ((closed, f"cron(0 0 1 {(month + 5) % 12 + 1} ? *)"), (opened, "cron(* * ? * 1-7 *)")):
        client.create_job(jobId=job, targets=[GROUP_ARN + group], document="{}",
                          schedulingConfig={"maintenanceWindows": [{"startTime": line, "durationInMinutes": 60}]})
    until(lambda: set(statuses(client, opened)) == set(names), "the one whose window is open")
    assert statuses(client, closed) == {} and details(client, closed)["status"] == "IN_PROGRESS"
    client.cancel_job(jobId=closed)


def test_windows_are_on_the_clock_of_each_thing(shared, hall, fresh_name):
    client = iot(shared)
    group, names = hall(4)
    # Open from an hour ago until in two hours, where it is as late as here.
    hour = (datetime.datetime.now(datetime.timezone.utc).hour - 1) % 24
    zones = dict(zip(names, (None, "Asia/Tokyo", "Etc/UTC", "Mars/Olympus")))
    for name, zone in zones.items():
        if zone:
            client.update_thing(thingName=name, attributePayload={"attributes": {"timezone": zone}, "merge": True})
    night, always = fresh_name("job"), fresh_name("job")
    for job, start in ((night, f"cron(0 {hour} ? * * *)"), (always, "cron(0/15 * ? * * *)")):
        client.create_job(jobId=job, targets=[GROUP_ARN + group], document="{}", targetSelection="CONTINUOUS",
                          schedulingConfig={"maintenanceWindows": [{"startTime": start, "durationInMinutes": 180}]})
    until(lambda: set(statuses(client, night)) == {names[0], names[2]}, "those whose window is open")
    until(lambda: set(statuses(client, always)) == set(names[:3]), "all whose clock is known")
    assert set(statuses(client, night)) == {names[0], names[2]}
    for job in (night, always):
        client.cancel_job(jobId=job)


def test_cron_lines_and_ids_that_aws_takes(shared, device, fresh_name):
    client, lamp = iot(shared), device()
    target = [thing_arn(lamp.name)]
    year = datetime.datetime.now(datetime.timezone.utc).year
    for line in ("cron(0/15 * * * ? *)", "cron(30 0/2 ? * 2-6 *)", "cron(0 0 L * ? *)", "cron(0 18 ? * 6L *)", "cron(0 18 ? * 2#1 *)",
                 "cron(0 18 ? * MON#1 *)", "cron(0 18 ? * L *)", "cron(0 18 ? * 1/2 *)", f"cron(0 18 1 1 ? {year + 1}-{year + 3})",
                 "cron(0 18 ? JAN,JUL MON-FRI *)"):
        windows = {"maintenanceWindows": [{"startTime": line, "durationInMinutes": 60}]}
        # Ids may begin with what they consist of.
        for job in (fresh_name("_"), fresh_name("-")):
            client.create_job(jobId=job, targets=target, document="{}", schedulingConfig=windows)
            assert details(client, job)["schedulingConfig"] == windows
            client.cancel_job(jobId=job)
            client.delete_job(jobId=job)
    for line in ("cron(0 18 ? * MON)", "cron(0 18 ? * 8 *)", "cron(60/5 * ? * * *)", "cron(0 18 ? * 2#9 *)", f"cron(0 0 1 1 ? {year - 1})", "rate(5 minutes)"):
        with pytest.raises(client.exceptions.InvalidRequestException):
            client.create_job(jobId=fresh_name("job"), targets=target, document="{}",
                              schedulingConfig={"maintenanceWindows": [{"startTime": line, "durationInMinutes": 60}]})
    for job in ("a.b", "a/b", "ä", "x" * 65):
        with pytest.raises(client.exceptions.ClientError):
            client.create_job(jobId=job, targets=target, document="{}")


def test_a_continuous_job_follows_its_groups(shared, hall, device, fresh_name):
    client, job = iot(shared), fresh_name("job")
    group, (first,) = hall(1)
    client.create_job(jobId=job, targets=[GROUP_ARN + group], document="{}", targetSelection="CONTINUOUS")
    until(lambda: statuses(client, job) == {first: "QUEUED"}, "the first")
    late = device("--group", group).name
    until(lambda: statuses(client, job).get(late) == "QUEUED", "the one that came later")
    client.remove_thing_from_thing_group(thingName=first, thingGroupName=group)
    until(lambda: statuses(client, job)[first] == "REMOVED", "the one that left")
    other, (second,) = hall(1)
    client.associate_targets_with_job(jobId=job, targets=[GROUP_ARN + other])
    until(lambda: statuses(client, job).get(second) == "QUEUED", "the new target")
    assert details(client, job)["targets"] == [GROUP_ARN + group, GROUP_ARN + other]
    assert job in {j["jobId"] for j in client.list_jobs(targetSelection="CONTINUOUS")["jobs"]}
    client.cancel_job(jobId=job, force=True)
    snapshot = fresh_name("job")
    client.create_job(jobId=snapshot, targets=[GROUP_ARN + group], document="{}")
    with pytest.raises(client.exceptions.InvalidRequestException, match="CONTINUOUS"):
        client.associate_targets_with_job(jobId=snapshot, targets=[GROUP_ARN + other])


def test_single_executions_are_cancelled_and_deleted(shared, device, connect, fresh_name):
    client, job = iot(shared), fresh_name("job")
    lamp, other = device(), device()
    client.create_job(jobId=job, targets=[thing_arn(lamp.name), thing_arn(other.name)], document=json.dumps({"do": "it"}), description="one")
    client.update_job(jobId=job, description="another", timeoutConfig={"inProgressTimeoutInMinutes": 7})
    told = details(client, job)
    assert (told["description"], told["timeoutConfig"]) == ("another", {"inProgressTimeoutInMinutes": 7})
    jobs = Jobs(connect(shared, lamp), lamp.name).listen("start-next/+")
    jobs.ask("start-next")
    with pytest.raises(client.exceptions.VersionConflictException):
        client.cancel_job_execution(jobId=job, thingName=lamp.name, force=True, expectedVersion=1)
    with pytest.raises(client.exceptions.InvalidStateTransitionException):
        client.cancel_job_execution(jobId=job, thingName=lamp.name)
    with pytest.raises(client.exceptions.InvalidStateTransitionException):
        client.delete_job_execution(jobId=job, thingName=lamp.name, executionNumber=1)
    client.cancel_job_execution(jobId=job, thingName=lamp.name, force=True, expectedVersion=2, statusDetails={"why": "enough"})
    execution = client.describe_job_execution(jobId=job, thingName=lamp.name)["execution"]
    assert (execution["status"], execution["forceCanceled"], execution["statusDetails"]["detailsMap"]) == ("CANCELED", True, {"why": "enough"})
    client.delete_job_execution(jobId=job, thingName=lamp.name, executionNumber=1)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_job_execution(jobId=job, thingName=lamp.name)
    with pytest.raises(client.exceptions.InvalidStateTransitionException):
        client.delete_job(jobId=job)
    client.cancel_job_execution(jobId=job, thingName=other.name)
    assert statuses(client, job) == {other.name: "CANCELED"} and details(client, job)["status"] == "COMPLETED"
    assert set(statuses(client, job).values()) <= TERMINAL
    client.delete_job(jobId=job)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_job(jobId=job)
    assert client.list_job_executions_for_thing(thingName=other.name)["executionSummaries"] == []
