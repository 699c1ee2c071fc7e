"""Events on `$aws/events/…` as AWS IoT sends them: of sessions always, of the registry once they are switched on."""

import json
import time

import pytest
from botocore.exceptions import ClientError

from api import iot
from server import ACCOUNT, EVERYTHING, allow, document


@pytest.fixture
def watcher(shared, device, connect):
    """A device that may watch: subscribes and returns the next event of a topic it is asked for."""
    watch = connect(shared, device("--policy", "everything"))

    class Watcher:
        def __init__(self):
            self.heard = []

        def on(self, *filters):
            for one in filters:
                assert watch.subscribe(f"$aws/events/{one}") in (0, 1)
            return self

        def next(self, topic):
            """The next event on this topic; others on the way are kept."""
            topic = f"$aws/events/{topic}"
            while True:
                for at, message in enumerate(self.heard):
                    if message.topic == topic:
                        return json.loads(self.heard.pop(at).payload)
                self.heard.append(watch.message())

    return Watcher()


def test_presence_from_connect_to_each_way_of_ending(shared, device, connect, watcher):
    lamp = device()
    watcher.on(f"presence/+/{lamp.name}")
    before = time.time()
    session = connect(shared, lamp)
    told = watcher.next(f"presence/connected/{lamp.name}")
    assert abs(told.pop("timestamp") / 1000 - before) < 60
    assert told.pop("ipAddress") in ("127.0.0.1", "::1")
    first = told.pop("versionNumber"), told.pop("sessionIdentifier")
    assert told == {"clientId": lamp.name, "thingName": lamp.name, "eventType": "connected", "principalIdentifier": lamp.id}
    session.disconnect()
    told = watcher.next(f"presence/disconnected/{lamp.name}")
    assert (told["versionNumber"], told["sessionIdentifier"]) == first
    assert told["clientInitiatedDisconnect"] is True and told["disconnectReason"] == "CLIENT_INITIATED_DISCONNECT"

    lost = connect(shared, lamp)
    assert watcher.next(f"presence/connected/{lamp.name}")["versionNumber"] > first[0]
    lost.drop()
    told = watcher.next(f"presence/disconnected/{lamp.name}")
    assert (told["clientInitiatedDisconnect"], told["disconnectReason"]) == (False, "CONNECTION_LOST")

    older = connect(shared, lamp)
    older_version = watcher.next(f"presence/connected/{lamp.name}")["versionNumber"]
    newer = connect(shared, lamp)
    assert older.end().reason == 0x8E
    told = watcher.next(f"presence/disconnected/{lamp.name}")
    assert (told["versionNumber"], told["disconnectReason"]) == (older_version, "DUPLICATE_CLIENTID")

    shared.cli("device", "revoke", lamp.name, "--yes")
    assert newer.end().reason == 0x98
    assert watcher.next(f"presence/disconnected/{lamp.name}")["disconnectReason"] == "AUTH_ERROR"


def test_subscriptions_granted_given_up_and_lost(shared, device, connect, watcher, fresh_name):
    policy = fresh_name("policy")
    rights = [allow("Connect", "*"), allow("Subscribe", "topicfilter/a/*", "topicfilter/b/*")]
    shared.policy(policy, document(*rights))
    lamp = device("--policy", policy)
    watcher.on(f"subscriptions/+/{lamp.name}")
    session = connect(shared, lamp)
    assert session.subscribe("a/1") in (0, 1)
    told = watcher.next(f"subscriptions/subscribed/{lamp.name}")
    assert (told["topics"], told["eventType"], told["principalIdentifier"]) == (["a/1"], "subscribed", lamp.id)
    assert session.subscribe("c/1") == 0x87
    assert session.subscribe("b/+") in (0, 1)
    assert watcher.next(f"subscriptions/subscribed/{lamp.name}")["topics"] == ["b/+"], "what is refused is no event"
    session.unsubscribe("a/1")
    assert watcher.next(f"subscriptions/unsubscribed/{lamp.name}")["topics"] == ["a/1"]
    shared.update_policy(policy, document(rights[0]))
    assert watcher.next(f"subscriptions/unsubscribed/{lamp.name}")["topics"] == ["b/+"], "lost with the policy"


def test_who_may_not_watch_hears_nothing(shared, device, connect):
    lamp = connect(shared, device())
    for filter in ("$aws/events/#", "$aws/events/presence/+/+"):
        assert lamp.subscribe(filter) == 0x87


def test_registry_events_are_off_until_they_are_switched_on(make_server, connect):
    server = make_server()
    server.policy("everything", EVERYTHING)
    watch = connect(server, server.device("watcher", "--policy", "everything"))
    for tree in ("thing", "thingType", "thingGroup", "thingTypeAssociation", "thingGroupMembership", "thingGroupHierarchy"):
        assert watch.subscribe(f"$aws/events/{tree}/#") in (0, 1)
    client = iot(server)
    configurations = client.describe_event_configurations()["eventConfigurations"]
    assert len(configurations) == 11 and not any(c["Enabled"] for c in configurations.values())
    client.create_thing(thingName="unheard")
    kinds = ["THING", "THING_GROUP", "THING_TYPE", "THING_GROUP_MEMBERSHIP", "THING_GROUP_HIERARCHY", "THING_TYPE_ASSOCIATION"]
    client.update_event_configurations(eventConfigurations={kind: {"Enabled": True} for kind in kinds})
    configurations = client.describe_event_configurations()["eventConfigurations"]
    assert sorted(k for k, c in configurations.items() if c["Enabled"]) == sorted(kinds)

    def heard(count):
        events = {}
        for _ in range(count):
            message = watch.message()
            body = json.loads(message.payload)
            assert body.pop("eventId") and body.pop("timestamp") > 1_600_000_000_000 and body.pop("accountId") == ACCOUNT
            events[message.topic.removeprefix("$aws/events/")] = body
        return events

    kind = client.create_thing_type(thingTypeName="lamp", thingTypeProperties={"searchableAttributes": ["serial"]})
    assert heard(1) == {"thingType/lamp/created": {
        "eventType": "THING_TYPE_EVENT", "operation": "CREATED", "thingTypeId": kind["thingTypeId"], "thingTypeName": "lamp",
        "isDeprecated": False, "deprecationDate": None, "searchableAttributes": ["serial"], "description": None}}

    thing = client.create_thing(thingName="lamp-1", thingTypeName="lamp", attributePayload={"attributes": {"a": "1"}})
    common = {"thingId": thing["thingId"], "thingName": "lamp-1", "thingTypeName": "lamp"}
    assert heard(2) == {
        "thing/lamp-1/created": {"eventType": "THING_EVENT", "operation": "CREATED", **common, "versionNumber": 1, "attributes": {"a": "1"}},
        "thingTypeAssociation/thing/lamp-1/lamp": {"eventType": "THING_TYPE_ASSOCIATION_EVENT", "operation": "CREATED", **common}}
    client.update_thing(thingName="lamp-1", attributePayload={"attributes": {"b": "2"}, "merge": True})
    assert heard(1)["thing/lamp-1/updated"]["attributes"] == {"a": "1", "b": "2"}
    with pytest.raises(ClientError):
        client.update_thing(thingName="lamp-1", expectedVersion=9)

    site = client.create_thing_group(thingGroupName="site")
    hall = client.create_thing_group(thingGroupName="hall", parentGroupName="site")
    events = heard(3)
    assert events["thingGroup/site/created"]["parentGroupName"] is None
    assert [g["groupName"] for g in events["thingGroup/hall/created"]["rootToParentThingGroups"]] == ["site"]
    assert events["thingGroupHierarchy/thingGroup/site/childThingGroup/hall/added"] == {
        "eventType": "THING_GROUP_HIERARCHY_EVENT", "operation": "ADDED", "thingGroupId": site["thingGroupId"],
        "thingGroupName": "site", "childGroupId": hall["thingGroupId"], "childGroupName": "hall"}
    client.add_thing_to_thing_group(thingGroupName="hall", thingName="lamp-1")
    client.add_thing_to_thing_group(thingGroupName="hall", thingName="lamp-1")
    added = heard(1)["thingGroupMembership/thingGroup/hall/thing/lamp-1/added"]
    assert (added["operation"], added["groupId"], added["thingId"]) == ("ADDED", hall["thingGroupId"], thing["thingId"])
    assert added["groupArn"].endswith(f":{ACCOUNT}:thinggroup/hall") and added["thingArn"].endswith(":thing/lamp-1")

    client.update_thing_group(thingGroupName="hall", thingGroupProperties={"thingGroupDescription": "Flur"})
    assert heard(1)["thingGroup/hall/updated"]["versionNumber"] == 2
    client.delete_thing(thingName="lamp-1")
    events = heard(3)
    assert set(events) == {"thing/lamp-1/deleted", "thingTypeAssociation/thing/lamp-1/lamp",
                           "thingGroupMembership/thingGroup/hall/thing/lamp-1/removed"}
    assert events["thingGroupMembership/thingGroup/hall/thing/lamp-1/removed"]["thingId"] == thing["thingId"]
    client.delete_thing_group(thingGroupName="hall")
    assert set(heard(2)) == {"thingGroup/hall/deleted", "thingGroupHierarchy/thingGroup/site/childThingGroup/hall/removed"}
    client.deprecate_thing_type(thingTypeName="lamp")
    assert heard(1)["thingType/lamp/updated"]["isDeprecated"] is True
    client.delete_thing_type(thingTypeName="lamp")
    assert "thingType/lamp/deleted" in heard(1)

    # A device made in one step tells all it consists of; the choice outlives a restart.
    server.restart()
    watch = connect(server, server.device("second", "--policy", "everything"))
    assert watch.subscribe("$aws/events/thing/#") in (0, 1)
    server.device("lamp-2")
    assert "thing/lamp-2/created" in heard(1)
    client = iot(server)
    client.update_event_configurations(eventConfigurations={"THING": {"Enabled": False}})
    client.create_thing(thingName="quiet")
    client.update_event_configurations(eventConfigurations={"THING": {"Enabled": True}})
    client.create_thing(thingName="loud")
    assert set(heard(1)) == {"thing/loud/created"}


def test_job_events_are_off_until_they_are_switched_on(make_server, connect):
    server = make_server()
    server.policy("everything", EVERYTHING)
    watch = connect(server, server.device("watcher", "--policy", "everything"))
    for tree in ("job", "jobExecution"):
        assert watch.subscribe(f"$aws/events/{tree}/#") in (0, 1)
    lamps = {name: connect(server, server.device(name, "--policy", "everything")) for name in ("lamp-1", "lamp-2")}
    client = iot(server)
    arn = f"arn:aws:iot:local:{ACCOUNT}:thing/"

    def make(name, *things):
        client.create_job(jobId=name, targets=[arn + thing for thing in things], document="{}", description="Tanz")

    def report(thing, job, status, **details):
        topic = f"$aws/things/{thing}/jobs/{job}/update"
        assert lamps[thing].publish(topic, json.dumps({"status": status, "statusDetails": details})) == 0

    def heard(count):
        events = {}
        for _ in range(count):
            message = watch.message()
            body = json.loads(message.payload)
            assert body.pop("eventId") and 1_600_000_000 < body.pop("timestamp") < 10_000_000_000
            events[message.topic.removeprefix("$aws/events/")] = body
        return events

    make("unheard", "lamp-1")
    report("lamp-1", "unheard", "SUCCEEDED")
    client.update_event_configurations(eventConfigurations={kind: {"Enabled": True} for kind in ("JOB", "JOB_EXECUTION")})

    make("dance", "lamp-1", "lamp-2")
    report("lamp-1", "dance", "SUCCEEDED", step="3")
    assert heard(1) == {"jobExecution/dance/succeeded": {
        "eventType": "JOB_EXECUTION", "operation": "succeeded", "jobId": "dance", "thingArn": arn + "lamp-1",
        "status": "SUCCEEDED", "statusDetails": {"step": "3"}}}
    report("lamp-2", "dance", "REJECTED")
    events = heard(2)
    assert events["jobExecution/dance/rejected"]["thingArn"] == arn + "lamp-2"
    done = events["job/dance/completed"]
    assert all(done.pop(at) > 1_600_000_000_000 for at in ("createdAt", "lastUpdatedAt", "completedAt"))
    assert done == {
        "eventType": "JOB", "operation": "completed", "jobId": "dance", "status": "COMPLETED", "targetSelection": "SNAPSHOT",
        "targets": [arn + "lamp-1", arn + "lamp-2"], "description": "Tanz", "jobProcessDetails": {
            "numberOfCanceledThings": 0, "numberOfRejectedThings": 1, "numberOfFailedThings": 0, "numberOfRemovedThings": 0,
            "numberOfSucceededThings": 1, "numberOfTimedOutThings": 0}}

    make("stop", "lamp-1")
    client.cancel_job(jobId="stop", comment="doch nicht")
    events = heard(3)
    assert set(events) == {"job/stop/cancellation_in_progress", "jobExecution/stop/canceled", "job/stop/canceled"}
    assert events["job/stop/canceled"]["status"] == "CANCELED" and events["job/stop/canceled"]["comment"] == "doch nicht"
    client.delete_job_execution(jobId="stop", thingName="lamp-1", executionNumber=1)
    assert heard(1)["jobExecution/stop/deleted"]["operation"] == "deleted"
    client.delete_job(jobId="stop")
    events = heard(2)
    assert [events[f"job/stop/{what}"]["status"] for what in ("deletion_in_progress", "deleted")] == ["DELETION_IN_PROGRESS", "DELETED"]

    make("gone", "lamp-2")
    server.cli("device", "delete", "lamp-2", "--yes")
    events = heard(2)
    assert set(events) == {"jobExecution/gone/removed", "job/gone/completed"}
    assert events["job/gone/completed"]["jobProcessDetails"]["numberOfRemovedThings"] == 1

    server.restart()
    client = iot(server)
    watch = connect(server, server.device("second", "--policy", "everything"))
    assert watch.subscribe("$aws/events/jobExecution/#") in (0, 1)
    make("late", "lamp-1")
    client.cancel_job(jobId="late")
    assert set(heard(1)) == {"jobExecution/late/canceled"}


def test_policies_certificates_and_authorities_are_told_of(make_server, connect):
    server = make_server()
    server.policy("everything", EVERYTHING)
    watch = connect(server, server.device("watcher", "--policy", "everything"))
    for tree in ("policy", "certificate", "caCertificate"):
        assert watch.subscribe(f"$aws/events/{tree}/#") in (0, 1)
    client = iot(server)
    everything = json.dumps(EVERYTHING)
    client.create_policy(policyName="unheard", policyDocument=everything)
    kinds = ["POLICY", "CERTIFICATE", "CA_CERTIFICATE"]
    client.update_event_configurations(eventConfigurations={kind: {"Enabled": True} for kind in kinds})

    def heard():
        message = watch.message()
        body = json.loads(message.payload)
        assert body.pop("eventId") and body.pop("timestamp") and body.pop("accountId") == ACCOUNT
        return message.topic.removeprefix("$aws/events/"), body["eventType"], body["operation"], body

    client.create_policy(policyName="p", policyDocument=everything)
    assert heard()[:3] == ("policy/p/created", "POLICY_EVENT", "CREATED")
    client.create_policy_version(policyName="p", policyDocument=everything, setAsDefault=True)
    told = heard()
    assert told[0] == "policy/p/updated" and told[3]["defaultVersionId"] == "2"
    client.delete_policy_version(policyName="p", policyVersionId="1")
    assert heard()[0] == "policy/p/updated"
    client.delete_policy(policyName="p")
    assert heard()[0] == "policy/p/deleted"
    made = client.create_keys_and_certificate(setAsActive=True)["certificateId"]
    told = heard()
    assert told[0] == f"certificate/{made}/created" and told[3]["certificateStatus"] == "ACTIVE"
    client.update_certificate(certificateId=made, newStatus="REVOKED")
    told = heard()
    assert told[0] == f"certificate/{made}/updated" and told[3]["certificateStatus"] == "REVOKED"
    client.delete_certificate(certificateId=made)
    assert heard()[0] == f"certificate/{made}/deleted"
