"""The registry's AWS operations with boto3, as it comes: types, changes, groups below one another, principals."""

import pytest
from botocore.exceptions import ClientError

from api import iot
from server import ACCOUNT, allow, document


@pytest.fixture
def client(shared):
    return iot(shared)


def refused(call, **parameters):
    """The name of the error that the call ends in."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return caught.value.response["Error"]["Code"]


def listed(client, operation, key, **parameters):
    """A list, read in pages of two."""
    pages = client.get_paginator(operation).paginate(PaginationConfig={"PageSize": 2}, **parameters)
    return [item for page in pages for item in page[key]]


def test_thing_types_from_making_to_deletion(client, fresh_name):
    kind = fresh_name("type")
    properties = {"thingTypeDescription": "Lampen, größer", "searchableAttributes": ["serial", "site"]}
    made = client.create_thing_type(thingTypeName=kind, thingTypeProperties=properties)
    assert made["thingTypeArn"].endswith(f":{ACCOUNT}:thingtype/{kind}")
    assert client.create_thing_type(thingTypeName=kind, thingTypeProperties=properties)["thingTypeId"] == made["thingTypeId"]
    assert refused(client.create_thing_type, thingTypeName=kind) == "ResourceAlreadyExistsException"
    shown = client.describe_thing_type(thingTypeName=kind)
    assert shown["thingTypeProperties"] == properties and shown["thingTypeId"] == made["thingTypeId"]
    assert shown["thingTypeMetadata"]["deprecated"] is False
    others = [fresh_name("type") for _ in range(3)]
    for other in others:
        client.create_thing_type(thingTypeName=other)
    names = [t["thingTypeName"] for t in listed(client, "list_thing_types", "thingTypes")]
    assert {kind, *others} <= set(names) and names == sorted(names)
    assert [t["thingTypeName"] for t in client.list_thing_types(thingTypeName=kind)["thingTypes"]] == [kind]

    thing = fresh_name()
    assert refused(client.create_thing, thingName=thing, thingTypeName="nothing") == "ResourceNotFoundException"
    client.create_thing(thingName=thing, thingTypeName=kind)
    assert client.describe_thing(thingName=thing)["thingTypeName"] == kind
    assert [t["thingName"] for t in client.list_things(thingTypeName=kind)["things"]] == [thing]
    client.deprecate_thing_type(thingTypeName=kind)
    assert client.describe_thing_type(thingTypeName=kind)["thingTypeMetadata"]["deprecated"] is True
    assert refused(client.create_thing, thingName=fresh_name(), thingTypeName=kind) == "InvalidRequestException"
    client.deprecate_thing_type(thingTypeName=kind, undoDeprecate=True)
    second = fresh_name()
    client.create_thing(thingName=second, thingTypeName=kind)
    assert refused(client.delete_thing_type, thingTypeName=kind) == "InvalidRequestException"
    client.deprecate_thing_type(thingTypeName=kind)
    assert refused(client.delete_thing_type, thingTypeName=kind) == "InvalidRequestException"
    client.update_thing(thingName=thing, removeThingType=True)
    client.update_thing(thingName=second, thingTypeName=others[0])
    assert "thingTypeName" not in client.describe_thing(thingName=thing)
    client.delete_thing_type(thingTypeName=kind)
    assert refused(client.describe_thing_type, thingTypeName=kind) == "ResourceNotFoundException"
    assert client.list_thing_types(thingTypeName=kind)["thingTypes"] == []


def test_update_thing_replaces_or_merges_and_counts(client, fresh_name):
    thing = fresh_name()
    client.create_thing(thingName=thing, attributePayload={"attributes": {"a": "1", "b": "2"}})
    client.update_thing(thingName=thing, attributePayload={"attributes": {"b": "3", "c": "4"}, "merge": True}, expectedVersion=1)
    shown = client.describe_thing(thingName=thing)
    assert shown["attributes"] == {"a": "1", "b": "3", "c": "4"} and shown["version"] == 2
    client.update_thing(thingName=thing, attributePayload={"attributes": {"a": ""}, "merge": True})
    assert client.describe_thing(thingName=thing)["attributes"] == {"b": "3", "c": "4"}
    client.update_thing(thingName=thing, attributePayload={"attributes": {"d": "5"}})
    assert client.describe_thing(thingName=thing)["attributes"] == {"d": "5"}
    assert refused(client.update_thing, thingName=thing, expectedVersion=2) == "VersionConflictException"
    assert refused(client.update_thing, thingName=fresh_name()) == "ResourceNotFoundException"
    assert refused(client.update_thing, thingName=thing, thingTypeName="x", removeThingType=True) == "InvalidRequestException"
    assert refused(client.update_thing, thingName=thing, attributePayload={
        "attributes": {f"k{n}": "v" for n in range(60)}, "merge": True}) == "LimitExceededException"


def test_list_things_by_attribute(client, fresh_name):
    mark = fresh_name("mark")
    wanted = []
    for n in range(5):
        thing = fresh_name()
        client.create_thing(thingName=thing, attributePayload={"attributes": {mark: f"floor/{n % 2}"}})
        wanted.append(thing)
    find = lambda **how: sorted(t["thingName"] for t in listed(client, "list_things", "things", **how))
    assert find(attributeName=mark) == sorted(wanted)
    assert find(attributeName=mark, attributeValue="floor/0") == sorted(wanted[::2])
    assert find(attributeName=mark, attributeValue="floor") == []
    assert find(attributeName=mark, attributeValue="floor", usePrefixAttributeValue=True) == sorted(wanted)
    assert refused(client.list_things, attributeValue="floor") == "InvalidRequestException"


def test_groups_below_one_another(client, fresh_name):
    site, hall, lamps, yard = (fresh_name(kind) for kind in ("site", "hall", "lamps", "yard"))
    client.create_thing_group(thingGroupName=site)
    for name, parent in ((hall, site), (lamps, hall), (yard, site)):
        client.create_thing_group(thingGroupName=name, parentGroupName=parent)
    assert refused(client.create_thing_group, thingGroupName=fresh_name(), parentGroupName="nowhere") == "ResourceNotFoundException"
    shown = client.describe_thing_group(thingGroupName=lamps)["thingGroupMetadata"]
    assert shown["parentGroupName"] == hall
    assert [g["groupName"] for g in shown["rootToParentThingGroups"]] == [site, hall]
    names = lambda **how: {g["groupName"] for g in listed(client, "list_thing_groups", "thingGroups", **how)}
    assert names(parentGroup=site, recursive=False) == {hall, yard}
    assert names(parentGroup=site, recursive=True) == {hall, yard, lamps}
    assert names(parentGroup=site, recursive=True, namePrefixFilter="lamps-") == {lamps}
    assert {site, hall} <= names() and not {hall, lamps, yard} & names(recursive=False) and site in names(recursive=False)
    assert names(namePrefixFilter=site) == {site}

    things = [fresh_name() for _ in range(3)]
    for thing, group in zip(things, (site, hall, lamps)):
        client.create_thing(thingName=thing)
        client.add_thing_to_thing_group(thingGroupName=group, thingName=thing)
    inside = lambda **how: listed(client, "list_things_in_thing_group", "things", thingGroupName=site, **how)
    assert inside() == things[:1] and sorted(inside(recursive=True)) == sorted(things)
    assert refused(client.add_thing_to_thing_group, thingGroupName=yard, thingName=things[2]) == "InvalidRequestException"
    client.update_thing_groups_for_thing(thingName=things[2], thingGroupsToAdd=[yard], thingGroupsToRemove=[lamps])
    assert [g["groupName"] for g in client.list_thing_groups_for_thing(thingName=things[2])["thingGroups"]] == [yard]

    version = client.update_thing_group(thingGroupName=hall, expectedVersion=1, thingGroupProperties={
        "thingGroupDescription": "im Flur", "attributePayload": {"attributes": {"floor": "1"}}})["version"]
    assert version == 2
    client.update_thing_group(thingGroupName=hall, thingGroupProperties={
        "attributePayload": {"attributes": {"door": "b"}, "merge": True}})
    properties = client.describe_thing_group(thingGroupName=hall)["thingGroupProperties"]
    assert properties == {"thingGroupDescription": "im Flur", "attributePayload": {"attributes": {"floor": "1", "door": "b"}}}
    assert refused(client.update_thing_group, thingGroupName=hall, expectedVersion=1, thingGroupProperties={}) == "VersionConflictException"
    assert refused(client.delete_thing_group, thingGroupName=hall) == "InvalidRequestException"
    assert refused(client.delete_thing_group, thingGroupName=lamps, expectedVersion=7) == "VersionConflictException"
    client.delete_thing_group(thingGroupName=lamps, expectedVersion=1)
    client.delete_thing_group(thingGroupName=hall)


def test_a_policy_of_a_group_above_is_felt_by_live_sessions_below(shared, client, device, connect, fresh_name):
    site, hall, policy = fresh_name("site"), fresh_name("hall"), fresh_name("policy")
    group = client.create_thing_group(thingGroupName=site)
    shared.cli("group", "create", hall, "--parent", site)
    lamp = device("--group", hall)
    session = connect(shared, lamp)
    assert session.publish("site/news", "x") == 0x87
    shared.policy(policy, document(allow("Publish", "topic/site/*")))
    client.attach_policy(policyName=policy, target=group["thingGroupArn"])
    assert session.publish("site/news", "x") == 0
    effective = client.get_effective_policies(thingName=lamp.name)["effectivePolicies"]
    assert [p["policyName"] for p in effective] == [policy]
    client.detach_policy(policyName=policy, target=group["thingGroupArn"])
    assert session.publish("site/news", "x") == 0x87


def test_a_job_for_a_group_is_for_the_things_below_it_too(shared, client, device, fresh_name):
    site, hall, job = fresh_name("site"), fresh_name("hall"), fresh_name("job")
    group = client.create_thing_group(thingGroupName=site)
    client.create_thing_group(thingGroupName=hall, parentGroupName=site)
    lamp = device("--group", hall)
    client.create_job(jobId=job, targets=[group["thingGroupArn"]], document="{}")
    executions = client.list_job_executions_for_job(jobId=job)["executionSummaries"]
    assert [e["thingArn"].rpartition("/")[2] for e in executions] == [lamp.name]


def test_principals_from_both_ends(client, device, fresh_name):
    lamp = device()
    exclusive = {"thingPrincipalType": "EXCLUSIVE_THING"}
    assert client.list_principal_things(principal=lamp.arn)["things"] == [lamp.name]
    assert client.list_principal_things_v2(principal=lamp.arn)["principalThingObjects"] == [{"thingName": lamp.name, **exclusive}]
    objects = client.list_thing_principals_v2(thingName=lamp.name)["thingPrincipalObjects"]
    assert [o["principal"].rpartition("/")[2] for o in objects] == [lamp.id] and objects[0]["thingPrincipalType"] == "EXCLUSIVE_THING"
    shared_type = {"thingPrincipalType": "NON_EXCLUSIVE_THING"}
    assert client.list_thing_principals_v2(thingName=lamp.name, **shared_type)["thingPrincipalObjects"] == []
    assert client.list_principal_things_v2(principal=lamp.arn, **shared_type)["principalThingObjects"] == []
    loose = client.create_keys_and_certificate()["certificateArn"]
    assert client.list_principal_things(principal=loose)["things"] == []
    unknown = loose[:-64] + "ab" * 32
    assert refused(client.list_principal_things, principal=unknown) == "ResourceNotFoundException"
