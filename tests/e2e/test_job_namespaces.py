"""What CreateJob says beside its devices and its document: a namespace with lists of its own, tags, and the package versions it brings. All through boto3."""

import json

import pytest
from botocore.exceptions import ClientError

from api import iot
from devices import thing_arn
from test_jobs import Jobs

DOCUMENT = {"operation": "deploy"}
SPACE = "aws-gg-deployment"


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"], str(caught.value)


def package(name, version):
    return f"arn:aws:iot:local:000000000000:package/{name}/version/{version}"


def create(client, name, thing, **more):
    return client.create_job(jobId=name, targets=[thing_arn(thing)], document=json.dumps(DOCUMENT), **more)["jobArn"]


def test_a_job_of_a_namespace_is_in_lists_of_its_own(shared, device, connect, fresh_name):
    client, lamp = iot(shared), device()
    jobs = Jobs(connect(shared, lamp), lamp.name).listen(
        "notify", "notify-next", f"notify-namespace-{SPACE}", f"notify-next-namespace-{SPACE}", "get/+", "start-next/+",
        "+/get/+", "+/update/+", f"+/namespace-{SPACE}/get/+", f"+/namespace-{SPACE}/update/+", "+/namespace-other/get/+")
    name = fresh_name("job")
    create(client, name, lamp.name, namespaceId=SPACE)
    told = dict(jobs.heard() for _ in range(2))
    assert set(told) == {f"notify-namespace-{SPACE}", f"notify-next-namespace-{SPACE}"}, "and nothing on the thing's own"
    assert [job["jobId"] for job in told[f"notify-namespace-{SPACE}"]["jobs"]["QUEUED"]] == [name]
    assert told[f"notify-next-namespace-{SPACE}"]["execution"]["jobDocument"] == DOCUMENT
    # The thing's own lists have its own jobs alone, whichever came first.
    assert jobs.ask("get")[1]["queuedJobs"] == []
    assert "execution" not in jobs.ask("$next/get")[1] and "execution" not in jobs.ask("start-next")[1]
    own = fresh_name("job")
    create(client, own, lamp.name)
    assert {jobs.heard()[0] for _ in range(2)} == {"notify", "notify-next"}
    topic, answer = jobs.ask(f"$next/namespace-{SPACE}/get", {"clientToken": "t"})
    assert topic == f"$next/namespace-{SPACE}/get/accepted" and (answer["execution"]["jobId"], answer["clientToken"]) == (name, "t")
    assert jobs.ask("$next/get")[1]["execution"]["jobId"] == own
    assert "execution" not in jobs.ask("$next/namespace-other/get")[1]
    topic, answer = jobs.ask(f"{name}/namespace-other/get")
    assert topic.endswith("/rejected") and answer["code"] == "ResourceNotFound"
    for bad in (f"{own}/namespace-{SPACE}/update", f"{own}/namespace-{SPACE}/get"):
        assert jobs.ask(bad, {"status": "FAILED"})[1]["code"] == "ResourceNotFound", bad
    assert jobs.ask(f"{name}/namespace-{SPACE}/update", {"status": "IN_PROGRESS"})[0] == f"{name}/namespace-{SPACE}/update/accepted"
    assert jobs.client.publish(jobs.prefix + f"{name}/namespace-{SPACE}/update", json.dumps({"status": "SUCCEEDED"})) == 0
    told = dict(jobs.heard() for _ in range(3))
    assert set(told) == {f"{name}/namespace-{SPACE}/update/accepted", f"notify-namespace-{SPACE}", f"notify-next-namespace-{SPACE}"}
    assert "execution" not in told[f"notify-next-namespace-{SPACE}"]

    job = client.describe_job(jobId=name)["job"]
    assert (job["namespaceId"], job["status"]) == (SPACE, "COMPLETED") and "namespaceId" not in client.describe_job(jobId=own)["job"]
    assert name in [j["jobId"] for j in client.list_jobs(namespaceId=SPACE)["jobs"]]
    assert own not in [j["jobId"] for j in client.list_jobs(namespaceId=SPACE)["jobs"]]

    def executions(**which):
        found = client.list_job_executions_for_thing(thingName=lamp.name, **which)["executionSummaries"]
        return sorted(e["jobId"] for e in found)

    assert executions() == sorted([name, own]) and executions(namespaceId=SPACE) == [name] and executions(jobId=own) == [own]
    assert executions(jobId=own, namespaceId=SPACE) == [] and executions(namespaceId="none") == []
    for call, more in ((client.delete_job, {}), (client.update_job, {"description": "x"}),
                       (client.associate_targets_with_job, {"targets": [thing_arn(lamp.name)]})):
        assert refused(call, jobId=name, namespaceId="other", **more)[0] == "ResourceNotFoundException"
        assert refused(call, jobId=own, namespaceId=SPACE, **more)[0] == "ResourceNotFoundException"
    client.delete_job(jobId=name, namespaceId=SPACE)
    assert refused(client.describe_job, jobId=name)[0] == "ResourceNotFoundException"


def test_what_waits_in_a_namespace_goes_with_its_thing_and_stays_over_a_kill(server):
    client = iot(server)
    for thing in ("lamp-1", "lamp-2"):
        client.create_thing(thingName=thing)
    client.create_job(jobId="j", targets=[thing_arn("lamp-1"), thing_arn("lamp-2")], document="{}", namespaceId=SPACE)
    server.kill9()
    server.start()
    client = iot(server)
    assert client.describe_job(jobId="j")["job"]["namespaceId"] == SPACE
    client.delete_thing(thingName="lamp-1")
    details = client.describe_job(jobId="j")["job"]["jobProcessDetails"]
    assert (details["numberOfRemovedThings"], details["numberOfQueuedThings"]) == (1, 1)


def test_jobs_of_a_group_are_found_by_it(shared, device, fresh_name):
    client, group = iot(shared), fresh_name("hall")
    shared.cli("group", "create", group)
    device("--group", group)
    inside, outside = fresh_name("job"), fresh_name("job")
    client.create_job(jobId=inside, targets=[f"arn:aws:iot:local:000000000000:thinggroup/{group}"], document="{}")
    create(client, outside, device().name)
    assert [job["jobId"] for job in client.list_jobs(thingGroupName=group)["jobs"]] == [inside]
    assert client.list_jobs(thingGroupName=group + "-2")["jobs"] == []


def test_tags_come_with_a_job_and_change_and_go_with_it(shared, device, fresh_name):
    client, name, template = iot(shared), fresh_name("job"), fresh_name("template")

    def tags(arn):
        return {tag["Key"]: tag["Value"] for tag in client.list_tags_for_resource(resourceArn=arn)["tags"]}

    lamp = device()
    arn = create(client, name, lamp.name, tags=[{"Key": "team", "Value": "light"}, {"Key": "site", "Value": "Köln 1"}])
    assert tags(arn) == {"team": "light", "site": "Köln 1"}
    client.tag_resource(resourceArn=arn, tags=[{"Key": "team", "Value": "dark"}, {"Key": "empty", "Value": ""}])
    client.untag_resource(resourceArn=arn, tagKeys=["site", "never"])
    assert tags(arn) == {"team": "dark", "empty": ""}
    made = client.create_job_template(jobTemplateId=template, document="{}", description="d", tags=[{"Key": "a", "Value": "b"}])
    assert tags(made["jobTemplateArn"]) == {"a": "b"}
    for bad, words in (([{"Key": "aws:x", "Value": "y"}], "aws:"), ([{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}], "twice"),
                       ([{"Key": f"k{n}", "Value": ""} for n in range(50)], "at most 50"), ([{"Key": "a\n", "Value": ""}], "letters")):
        code, said = refused(client.tag_resource, resourceArn=arn, tags=bad)
        assert code == "InvalidRequestException" and words in said, said
        assert tags(arn) == {"team": "dark", "empty": ""}
    assert refused(client.list_tags_for_resource, resourceArn=thing_arn(lamp.name))[0] == "InvalidRequestException"
    assert refused(client.list_tags_for_resource, resourceArn=arn + "-none")[0] == "ResourceNotFoundException"
    client.delete_job(jobId=name, force=True)
    assert refused(client.list_tags_for_resource, resourceArn=arn)[0] == "ResourceNotFoundException"
    assert tags(create(client, name, lamp.name)) == {}, "another job of that name is another job"
    client.delete_job_template(jobTemplateId=template)
    assert refused(client.tag_resource, resourceArn=made["jobTemplateArn"], tags=[])[0] == "ResourceNotFoundException"


def test_a_thing_that_did_the_job_runs_the_packages_it_brings(shared, device, connect, fresh_name):
    client, name, template = iot(shared), fresh_name("job"), fresh_name("template")
    good, bad = device(), device()
    packages = [package("lamp-app", "3.1"), package("lamp-data", "7")]
    made = client.create_job_template(jobTemplateId=template, document="{}", description="d", destinationPackageVersions=packages)
    assert client.describe_job_template(jobTemplateId=template)["destinationPackageVersions"] == packages
    client.create_job(jobId=name, targets=[thing_arn(good.name), thing_arn(bad.name)], jobTemplateArn=made["jobTemplateArn"])
    assert client.describe_job(jobId=name)["job"]["destinationPackageVersions"] == packages
    for lamp, status in ((good, "SUCCEEDED"), (bad, "FAILED")):
        jobs = Jobs(connect(shared, lamp), lamp.name).listen("+/update/+")
        assert jobs.ask(f"{name}/update", {"status": status})[0].endswith("/accepted")

    found = shared.json("fleet", "devices", "--firmware", "lamp-app")["devices"]
    assert [(d["thing"], d["reported"], d["drift"]) for d in found] == [(good.name, "3.1", False)]
    found = shared.json("fleet", "devices", "--firmware", "lamp-data")["devices"]
    assert [(d["thing"], d["reported"]) for d in found] == [(good.name, "7")]
    for wrong in (["lamp/1.0"], [package("a", "1"), package("a", "2")], [package("a", "1").replace("000000000000", "000000000001")],
                  [package(f"a{n}", "1") for n in range(26)]):
        code, said = refused(client.create_job, jobId=fresh_name("job"), targets=[thing_arn(good.name)], document="{}",
                             destinationPackageVersions=wrong)
        assert code == "InvalidRequestException" and "destinationPackageVersions" in said, said
