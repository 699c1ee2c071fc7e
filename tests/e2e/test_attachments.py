"""How a certificate is attached to its thing: what AWS's default makes of a client id, and what an exclusive one does."""

import json

import pytest
from botocore.exceptions import ClientError

from api import iot, send
from clients import Refused
from devices import thing_arn
from server import Identity, allow, deny, document

BOUND = {**allow("Connect", "client/${iot:ClientId}"), "Condition": {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}}
NOT_AUTHORIZED = 0x87


@pytest.fixture
def client(shared):
    return iot(shared)


@pytest.fixture
def attach(shared, client, fresh_name, tmp_path):
    """Makes a thing whose certificate boto3 has made and attached: `attach(policy, thingPrincipalType=...)`."""
    def make(policy, **how):
        name = fresh_name("lamp")
        made = client.create_keys_and_certificate(setAsActive=True)
        crt, key = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        crt.write_text(made["certificatePem"])
        key.write_text(made["keyPair"]["PrivateKey"])
        client.create_thing(thingName=name)
        client.attach_policy(policyName=policy, target=made["certificateArn"])
        client.attach_thing_principal(thingName=name, principal=made["certificateArn"], **how)
        return Identity(crt, key, shared.root, name, made)
    return make


def kinds(client, thing, **asked):
    return [o["thingPrincipalType"] for o in client.list_thing_principals_v2(thingName=thing, **asked)["thingPrincipalObjects"]]


def test_aws_default_binds_the_client_id_to_the_thing(shared, client, connect, attach, fresh_name):
    policy = fresh_name("bound")
    shared.policy(policy, document(
        BOUND, allow("Publish", "topic/dev/${iot:ClientId}/*"), allow("Subscribe", "topicfilter/cmd/${iot:ClientId}/*")))
    one, other = attach(policy), attach(policy)
    session = connect(shared, one)
    assert session.publish(f"dev/{one.name}/t") == 0 and session.publish(f"dev/{other.name}/t") == NOT_AUTHORIZED
    with pytest.raises(Refused) as refused:
        connect(shared, one, client_id=other.name)
    assert refused.value.reason == NOT_AUTHORIZED
    assert kinds(client, one.name) == kinds(client, one.name, thingPrincipalType="NON_EXCLUSIVE_THING") == ["NON_EXCLUSIVE_THING"]
    assert kinds(client, one.name, thingPrincipalType="EXCLUSIVE_THING") == []
    assert client.list_principal_things_v2(principal=one.arn)["principalThingObjects"] == [
        {"thingName": one.name, "thingPrincipalType": "NON_EXCLUSIVE_THING"}]
    # A certificate that comes after it is attached as it was.
    shared.cli("device", "replace", one.name, "--yes", "--out", str(shared.home / f"{one.name}-replaced"))
    assert set(kinds(client, one.name)) == {"NON_EXCLUSIVE_THING"}
    # Exclusive, the same policy takes any client id: the documentation says so.
    client.attach_thing_principal(thingName=other.name, principal=other.arn, thingPrincipalType="EXCLUSIVE_THING")
    assert connect(shared, other, client_id=one.name).publish(f"dev/{one.name}/t") == 0
    with pytest.raises(ClientError) as twice:
        client.attach_thing_principal(thingName=one.name, principal=other.arn, thingPrincipalType="NON_EXCLUSIVE_THING")
    assert twice.value.response["Error"]["Code"] == "InvalidRequestException"
    with pytest.raises(ClientError) as odd:
        client.attach_thing_principal(thingName=one.name, principal=other.arn, thingPrincipalType="SOMETIMES")
    assert "EXCLUSIVE_THING or NON_EXCLUSIVE_THING" in odd.value.response["Error"]["Message"]


def test_groups_allow_under_the_things_name_and_deny_under_every(shared, client, connect, attach, fresh_name):
    policy, site = fresh_name("any"), fresh_name("site")
    shared.policy(policy, document(allow("Connect", "*"), allow("Publish", "topic/barred")))
    shared.policy(f"{policy}-opens", document(allow("Publish", "topic/site")))
    shared.policy(f"{policy}-closes", document(deny("Publish", "topic/barred")))
    group = client.create_thing_group(thingGroupName=site)["thingGroupArn"]
    for ending in ("opens", "closes"):
        client.attach_policy(policyName=f"{policy}-{ending}", target=group)
    lamp = attach(policy)
    client.add_thing_to_thing_group(thingGroupName=site, thingName=lamp.name)

    def may(session):
        return [session.publish(topic) for topic in ("site", "barred")]

    named, otherwise = connect(shared, lamp), connect(shared, lamp, client_id=fresh_name("other"))
    assert may(named) == [0, NOT_AUTHORIZED]
    assert may(otherwise) == [NOT_AUTHORIZED, NOT_AUTHORIZED]
    # Live sessions follow the attachment.
    client.attach_thing_principal(thingName=lamp.name, principal=lamp.arn, thingPrincipalType="EXCLUSIVE_THING")
    assert may(otherwise) == [0, NOT_AUTHORIZED]
    client.attach_thing_principal(thingName=lamp.name, principal=lamp.arn)
    assert may(otherwise) == [0, NOT_AUTHORIZED], "without a type nothing changes"
    client.attach_thing_principal(thingName=lamp.name, principal=lamp.arn, thingPrincipalType="NON_EXCLUSIVE_THING")
    assert may(otherwise) == [NOT_AUTHORIZED, NOT_AUTHORIZED]
    why = shared.cli("policy", "explain", "--device", lamp.name, "--client-id", "other", "--action", "publish", "--topic", "site")
    assert "only where the client id is the thing's name" in why


def test_jobs_stay_the_things_own(shared, client, connect, attach, fresh_name):
    """A client id that is another thing's opens nothing of that thing, and takes nothing from it."""
    policy = fresh_name("jobs")
    shared.policy(policy, document(
        allow("Connect", "*"), allow("Publish", "topic/$aws/things/*"), allow("Subscribe", "topicfilter/$aws/things/*"), allow("Receive", "*")))
    one, other = attach(policy), attach(policy)
    job = fresh_name("job")
    client.create_job(jobId=job, targets=[thing_arn(other.name)], document="{}")
    session = connect(shared, one, client_id=other.name)
    session.subscribe(f"$aws/things/{other.name}/jobs/get/#")
    session.publish(f"$aws/things/{other.name}/jobs/get", "{}")
    session.subscribe(f"$aws/things/{one.name}/jobs/get/#")
    assert session.publish(f"$aws/things/{one.name}/jobs/get", "{}") == 0
    answer = session.payload()
    assert job not in (answer.decode() if isinstance(answer, bytes) else answer)
    assert [e["jobId"] for e in client.list_job_executions_for_thing(thingName=other.name)["executionSummaries"]] == [job]
    assert json.loads(answer)


def test_proofs_are_of_what_the_server_decides_for_each_attachment(make_server, tmp_path, connect):
    server = make_server()
    aws = iot(server)
    server.policy("bound", document(BOUND, allow("Publish", "topic/dev/${iot:ClientId}/*")))
    server.policy("connects", document(allow("Connect", "client/*")))
    server.policy("publishes", document(allow("Publish", "topic/dev/${iot:ClientId}/*")))
    group = aws.create_thing_group(thingGroupName="site")["thingGroupArn"]
    aws.attach_policy(policyName="publishes", target=group)

    def made(name, policy, **how):
        certificate = aws.create_keys_and_certificate(setAsActive=True)
        crt, key = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        crt.write_text(certificate["certificatePem"])
        key.write_text(certificate["keyPair"]["PrivateKey"])
        aws.create_thing(thingName=name)
        aws.attach_policy(policyName=policy, target=certificate["certificateArn"])
        aws.attach_thing_principal(thingName=name, principal=certificate["certificateArn"], **how)
        return Identity(crt, key, server.root, name, certificate)

    def proven():
        done = server.run("policy", "prove", "--owned", "dev/${thing}/#", "--json")
        [result] = json.loads(done.stdout)["results"]
        assert (done.returncode == 0) == (result["outcome"] == "holds"), done
        return result

    # As AWS attaches: the client id is bound by IsAttached, and a group's grant by the thing's name.
    one, other, member = made("one", "bound"), made("other", "bound"), made("member", "connects")
    aws.add_thing_to_thing_group(thingGroupName="site", thingName="member")
    assert (proven()["outcome"], proven()["forAnyName"]) == ("holds", True)
    otherwise = connect(server, member, client_id="other")
    assert otherwise.publish("dev/other/t") == NOT_AUTHORIZED
    # Exclusive, each is broken, as explain confirms and the device shows.
    for identity in (one, member):
        attach = dict(thingName=identity.name, principal=identity.arn)
        aws.attach_thing_principal(**attach, thingPrincipalType="EXCLUSIVE_THING")
        broken = proven()
        assert (broken["outcome"], broken["thing"], broken["clientId"]) == ("broken", identity.name, broken["other"]), broken
        why = server.json("policy", "explain", "--device", broken["thing"], "--client-id", broken["clientId"],
                          "--action", "publish", "--topic", broken["topic"])
        assert why["decision"] == "Allow"
        session = connect(server, identity, client_id=broken["clientId"])
        assert session.publish(broken["topic"] + "/x" if broken["topic"].endswith(broken["other"]) else broken["topic"]) in (0, 0x10)
        session.close()
        aws.attach_thing_principal(**attach, thingPrincipalType="NON_EXCLUSIVE_THING")
        assert proven()["outcome"] == "holds"


def test_a_suggestion_takes_nothing_away_that_was_not_done_as_the_thing(shared, connect, attach, fresh_name, tmp_path):
    """Over HTTPS and under another client id the thing does not count, and no variable stands for its name."""
    policy = fresh_name("wide")
    shared.policy(policy, document(allow("*", "*")))
    lamp = attach(policy)
    name, variable = lamp.name, "${iot:Connection.Thing.ThingName}"
    least = tmp_path / "least.json"

    def publish(client_id, topic):
        client = connect(shared, lamp, client_id=client_id)
        assert client.publish(topic) in (0, 0x10)
        client.close()

    def post():
        return send(shared, "POST", f"/topics/dt%2F{name}%2Fh?qos=1", {}, b"x", lamp)

    def suggested():
        told = shared.json("policy", "suggest", "--device", name)
        assert told["missing"] == []
        least.write_text(told["policyDocument"])
        return told["policyDocument"]

    # Over MQTT under its own name it is the thing.
    publish(name, f"dt/{name}/m")
    assert f"topic/dt/{variable}/m" in suggested()
    assert post()[0] == 200
    assert f"topic/dt/{name}/h" in suggested() and f"topic/dt/{variable}/m" in least.read_text()
    publish("other", f"dt/{name}/o")
    suggested()
    shared.cli("policy", "update", policy, str(least))
    publish("other", f"dt/{name}/o")
    publish(name, f"dt/{name}/m")
    assert post()[0] == 200
