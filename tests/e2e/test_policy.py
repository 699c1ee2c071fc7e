"""The policy decides every message, and a change is felt by those who are connected."""

import json
from pathlib import Path

import pytest

import wire
from clients import Refused, proves_silence
from server import EVERYTHING, allow, deny, document, muster
from wire import Wire

DATA = Path(__file__).parent / "data"
VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5.0"])


@pytest.fixture
def under(shared, device, fresh_name):
    """Makes a device under a policy of these statements: `under(allow(…))`; `{}` in a resource is the device's name."""

    def make(*statements, more=()):
        name, policy = fresh_name(), fresh_name("policy")
        text = json.dumps(document(*statements)).replace("{}", name)
        shared.policy(policy, json.loads(text))
        identity = device("--policy", policy, *more, name=name)
        identity.policy = policy
        return identity

    return make


@pytest.fixture
def sender(shared, device, connect):
    return connect(shared, device("--policy", "everything"))


CONNECT = allow("Connect", "client/{}")
ALL_TOPICS = allow(["Publish", "Subscribe", "Receive", "RetainPublish"], "*")


# -- each decision

@VERSIONS
def test_connect(shared, under, connect, version):
    assert connect(shared, under(CONNECT), version=version).alive()
    with pytest.raises(Refused) as refused:
        connect(shared, under(ALL_TOPICS), version=version)
    # 3.1.1 has "not authorized" as 5, which paho shows as 0x87 too.
    assert refused.value.reason == 0x87


def test_publish(shared, under, connect):
    lamp = under(CONNECT, allow("Publish", "topic/open/*"))
    client = connect(shared, lamp)
    assert client.publish("open/x") == 0
    assert client.publish("closed/x") == 0x87
    assert client.puback_text == "missing grant: iot:Publish on topic/closed/x"
    assert client.publish("open/x") == 0


@pytest.mark.parametrize("qos", [0, 1])
def test_a_denied_publish_of_3_1_1_ends_the_connection_and_reaches_nobody(shared, under, connect, sender, qos):
    sender.subscribe("closed/#")
    sender.subscribe("marker/publish")
    client = connect(shared, under(CONNECT, allow("Publish", "topic/open/*")), version=4)
    client.client.publish("closed/x", b"contraband", qos)
    assert client.end().reason is None
    proves_silence(sender, "marker/publish", sender)


def test_a_denied_publish_of_qos_0_ends_a_version_5_connection_with_the_reason(shared, under, connect):
    client = connect(shared, under(CONNECT))
    client.client.publish("closed/x", b"", 0)
    end = client.end()
    assert (end.reason, end.text) == (0x87, "missing grant: iot:Publish on topic/closed/x")


def test_retain_needs_its_own_grant(shared, under, connect, sender):
    client = connect(shared, under(CONNECT, allow("Publish", "topic/r/*"), allow("RetainPublish", "topic/r/kept")))
    assert client.publish("r/kept", b"1", retain=True) == 0
    assert client.publish("r/other", b"1", retain=False) == 0
    assert client.publish("r/other", b"contraband", retain=True) == 0x87
    assert "iot:RetainPublish" in client.puback_text
    sender.subscribe("r/#")
    assert sender.payload() == b"1"
    proves_silence(sender, "r/other", sender)
    sender.publish("r/kept", b"", retain=True)


def test_retain_alone_is_no_leave_to_publish(shared, under, connect):
    client = connect(shared, under(CONNECT, allow("RetainPublish", "topic/r/*")))
    assert client.publish("r/x", b"1", retain=True) == 0x87


@pytest.mark.parametrize("version, refused", [(4, 0x80), (5, 0x87)])
def test_subscribe(shared, under, connect, version, refused):
    client = connect(shared, under(CONNECT, allow("Subscribe", "topicfilter/s/*")), version=version)
    assert client.subscribe("s/x") == 1
    for pattern in ("t/x", "#", "+/x", "s", "$aws/#"):
        assert client.subscribe(pattern) == refused, pattern
    if version == 5:
        assert client.suback.ReasonString == "missing grant: iot:Subscribe on topicfilter/$aws/#"


def test_a_wildcard_of_mqtt_is_a_letter_in_a_policy(shared, under, connect):
    """As in AWS: a grant on `a/+/c` is one for the filter `a/+/c`, and no other."""
    client = connect(shared, under(CONNECT, allow("Subscribe", "topicfilter/a/+/c"), allow("Publish", "topic/a/+/c")))
    assert client.subscribe("a/+/c") == 1
    assert client.subscribe("a/b/c") == 0x87
    assert client.publish("a/b/c") == 0x87


def test_each_delivery_is_judged(shared, under, connect, sender):
    """Whoever may subscribe to all still hears only what receive grants."""
    client = connect(shared, under(CONNECT, allow("Subscribe", "*"), allow("Receive", "topic/d/open/*")))
    assert client.subscribe("d/#") == 1
    sender.publish("d/closed/x", b"contraband")
    proves_silence(sender, "d/open/marker", client)


def test_a_retained_delivery_is_judged(shared, under, connect, sender):
    sender.publish("dr/closed/x", b"contraband", retain=True)
    sender.publish("dr/open/x", b"fine", retain=True)
    client = connect(shared, under(CONNECT, allow("Subscribe", "*"), allow("Receive", "topic/dr/open/*")))
    client.subscribe("dr/#")
    assert client.payload() == b"fine"
    proves_silence(sender, "dr/open/marker", client)


def test_a_queued_delivery_is_judged_when_it_is_sent(shared, under, connect, sender):
    lamp = under(CONNECT, allow("Subscribe", "*"), allow("Receive", "*"))
    client = connect(shared, lamp, clean=False, expiry=300)
    client.subscribe("dq/#")
    client.disconnect()
    sender.publish("dq/closed/x", b"contraband")
    sender.publish("dq/open/x", b"fine")
    text = json.loads(json.dumps(document(CONNECT, allow("Subscribe", "*"), allow("Receive", "topic/dq/open/*"))).replace("{}", lamp.name))
    shared.update_policy(lamp.policy, text)
    back = connect(shared, lamp, clean=False, expiry=300)
    assert back.session_present and back.payload() == b"fine"
    proves_silence(sender, "dq/open/marker", back)


def test_a_resent_delivery_is_judged_again(shared, under, sender):
    """Sent, not acknowledged, the grant taken away, connected again: it does not come a second time."""
    lamp = under(CONNECT, allow("Subscribe", "*"), allow("Receive", "*"))
    expiry = b"\x11\x00\x00\x01\x00"
    with Wire(shared, lamp) as client:
        assert client.open(lamp.name, clean=False, properties=expiry) == 0
        client.send(wire.subscribe("dd/#", qos=1))
        assert client.packet()[0] == wire.SUBACK
        sender.publish("dd/x", b"contraband")
        assert client.packet()[0] == wire.PUBLISH
    text = json.loads(json.dumps(document(CONNECT, allow("Subscribe", "*"), allow("Receive", "topic/open/*"))).replace("{}", lamp.name))
    shared.update_policy(lamp.policy, text)
    with Wire(shared, lamp) as client:
        assert client.open(lamp.name, clean=False, properties=expiry) == 0
        client.send(wire.PING)
        assert client.packet()[0] == wire.PINGRESP


def test_a_will_is_judged_at_connect(shared, under, connect):
    with pytest.raises(Refused) as refused:
        connect(shared, under(CONNECT, allow("Publish", "topic/open/*")), will=("closed/x", {"payload": b"x"}))
    assert refused.value.reason == 0x87 and "will" in refused.value.text and "iot:Publish" in refused.value.text


def test_a_will_is_judged_again_when_it_is_due(shared, under, connect, sender):
    lamp = under(CONNECT, allow("Publish", "topic/wj/*"))
    sender.subscribe("wj/#")
    client = connect(shared, lamp, will=("wj/will", {"payload": b"contraband"}))
    shared.update_policy(lamp.policy, json.loads(json.dumps(document(CONNECT)).replace("{}", lamp.name)))
    client.drop()
    proves_silence(sender, "wj/marker", sender)


def test_a_deny_outweighs_every_allow(shared, under, connect):
    client = connect(shared, under(allow("*", "*"), deny("Publish", "topic/dt/secret/*")))
    assert client.publish("dt/open") == 0
    assert client.publish("dt/secret/x") == 0x87
    assert "denies" in client.puback_text


def test_variables_stand_for_who_the_device_is(shared, under, connect):
    client = connect(shared, under(
        allow("Connect", "client/${iot:Connection.Thing.ThingName}"), allow("Publish", "topic/c/${iot:ClientId}", "topic/n/${iot:Certificate.Subject.CommonName}")))
    name = client.identity.name
    assert client.publish(f"c/{name}") == 0
    assert client.publish(f"n/{name}") == 0
    assert client.publish("c/another") == 0x87
    assert client.publish("n/another") == 0x87


def test_an_arn_of_another_account_grants_nothing(shared, fresh_name, device):
    policy = fresh_name("policy")
    shared.policy(policy, {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "iot:*", "Resource": "arn:aws:iot:local:111111111111:*"}]})
    lamp = device("--policy", policy)
    with Wire(shared, lamp) as client:
        assert client.open(lamp.name) == 0x87


# -- device-default

def test_device_default_lets_a_device_be_itself_and_nothing_else(shared, device, connect, sender):
    lamp, other = device(), device()
    client = connect(shared, lamp)
    name = lamp.name
    for topic in (f"dt/{name}/x", f"dt/{name}/x/y", f"$aws/things/{name}/jobs/get"):
        assert client.publish(topic, b"{}") == 0, topic
    assert client.publish(f"dt/{name}/kept", b"1", retain=True) == 0
    for topic in (f"dt/{other.name}/x", f"dt/{name}", f"dt/{name}x/y", f"cmd/{name}/x", "x", f"$aws/things/{other.name}/jobs/get", "$aws/events/x"):
        assert client.publish(topic) == 0x87, topic
    for pattern in (f"cmd/{name}/#", f"cmd/{name}/x", f"$aws/things/{name}/jobs/notify", f"$aws/things/{name}/jobs/#"):
        assert client.subscribe(pattern) == 1, pattern
    for pattern in ("#", "+/+/+", f"cmd/{other.name}/#", "cmd/#", "cmd/+/x", f"dt/{name}/#", "$aws/#", f"$aws/things/{other.name}/jobs/notify", "$aws/things/+/jobs/notify"):
        assert client.subscribe(pattern) == 0x87, pattern
    assert client.message().topic == f"$aws/things/{name}/jobs/get/accepted"
    sender.publish(f"cmd/{name}/x", b"on")
    assert client.payload() == b"on"
    sender.publish(f"dt/{name}/kept", b"", retain=True)


def test_device_default_is_there_from_the_start_and_can_be_shown(shared):
    assert "device-default" in shared.cli("policy", "list").splitlines()
    assert "${iot:Connection.Thing.ThingName}" in shared.cli("policy", "show", "device-default")


# -- changes that are felt

def test_narrowing_a_policy_is_felt_by_a_live_subscription_at_its_next_message(shared, under, connect, sender):
    lamp = under(CONNECT, ALL_TOPICS)
    client = connect(shared, lamp)
    client.subscribe("n/#")
    sender.publish("n/a", b"before")
    assert client.payload() == b"before"
    narrow = document(allow("Connect", f"client/{lamp.name}"), allow("Subscribe", "*"), allow("Receive", "topic/n/open"), allow("Publish", "*"))
    shared.update_policy(lamp.policy, narrow)
    sender.publish("n/a", b"contraband")
    proves_silence(sender, "n/open", client)


def test_losing_the_subscription_ends_it_and_keeps_the_connection(shared, under, connect, sender):
    lamp = under(CONNECT, ALL_TOPICS)
    client = connect(shared, lamp)
    client.subscribe("l/a")
    client.subscribe("l/marker")
    shared.update_policy(lamp.policy, document(
        allow("Connect", f"client/{lamp.name}"), allow("Subscribe", "topicfilter/l/marker"), allow("Receive", "*")))
    # Receive is granted: until the session has been judged again, some milliseconds later, what comes is delivered.
    shared.said("subscription removed", f'"{lamp.name}"')
    sender.publish("l/a", b"contraband")
    proves_silence(sender, "l/marker", client)


def test_narrowing_a_policy_is_felt_by_the_next_publish(shared, under, connect):
    lamp = under(CONNECT, allow("Publish", "topic/p/*"))
    client = connect(shared, lamp)
    assert client.publish("p/x") == 0
    shared.update_policy(lamp.policy, document(allow("Connect", f"client/{lamp.name}")))
    assert client.publish("p/x") == 0x87


def test_widening_a_policy_is_felt_at_once(shared, under, connect):
    lamp = under(CONNECT)
    client = connect(shared, lamp)
    assert client.publish("p/x") == 0x87
    shared.update_policy(lamp.policy, EVERYTHING)
    assert client.publish("p/x") == 0


def test_losing_connect_ends_the_session(shared, under, connect):
    lamp = under(CONNECT, ALL_TOPICS)
    client = connect(shared, lamp)
    shared.update_policy(lamp.policy, document(ALL_TOPICS))
    end = client.end()
    assert end.reason == 0x87 and "iot:Connect" in end.text


def test_detaching_ends_what_it_granted_and_attaching_gives_it_back(shared, under, connect):
    lamp = under(CONNECT, ALL_TOPICS)
    client = connect(shared, lamp)
    shared.cli("policy", "detach", lamp.policy, "--device", lamp.name)
    assert client.end().reason == 0x87
    with pytest.raises(Refused):
        connect(shared, lamp)
    shared.cli("policy", "attach", lamp.policy, "--device", lamp.name)
    assert connect(shared, lamp).publish("any/topic") == 0


def test_a_groups_policy_reaches_its_members_while_they_are_members(shared, under, connect, fresh_name):
    group, policy = fresh_name("group"), fresh_name("policy")
    shared.policy(policy, document(allow("Publish", "topic/g/*")))
    shared.cli("group", "create", group)
    lamp = under(CONNECT)
    client = connect(shared, lamp)
    assert client.publish("g/x") == 0x87
    shared.cli("group", "add", group, lamp.name)
    assert client.publish("g/x") == 0x87
    shared.cli("policy", "attach", policy, "--group", group)
    assert client.publish("g/x") == 0
    shared.cli("group", "remove", group, lamp.name)
    assert client.publish("g/x") == 0x87
    shared.cli("group", "add", group, lamp.name)
    assert client.publish("g/x") == 0
    shared.cli("policy", "detach", policy, "--group", group)
    assert client.publish("g/x") == 0x87


def test_device_create_puts_a_device_into_its_group_at_once(shared, under, connect, fresh_name):
    group, policy = fresh_name("group"), fresh_name("policy")
    shared.cli("group", "create", group)
    shared.policy(policy, document(allow("Publish", "topic/g2/*")))
    shared.cli("policy", "attach", policy, "--group", group)
    assert connect(shared, under(CONNECT, more=("--group", group))).publish("g2/x") == 0


# -- documents

REFUSED = [
    ("condition key", {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*", "Condition": {"Bool": {"iot:Colour": "true"}}}, "iot:Colour"),
    ("condition operator", {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*", "Condition": {"Boole": {"iot:ClientId": "x"}}}, "Boole"),
    ("principal", {"Effect": "Allow", "Principal": "*", "Action": "iot:Connect", "Resource": "*"}, "Principal"),
    ("unknown action", {"Effect": "Allow", "Action": "iot:Konnect", "Resource": "*"}, "iot:Konnect"),
    ("other service", {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}, "s3:GetObject"),
    ("unknown variable", {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:local:000000000000:client/${iot:Colour}"}, "iot:Colour"),
    ("effect", {"Effect": "allow", "Action": "iot:Connect", "Resource": "*"}, "allow"),
    ("no effect", {"Action": "iot:Connect", "Resource": "*"}, "Effect"),
    ("no resource", {"Effect": "Allow", "Action": "iot:Connect"}, "Resource"),
    ("unknown key", {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*", "Colour": "red"}, "Colour"),
    ("bad arn", {"Effect": "Allow", "Action": "iot:Connect", "Resource": "client/x"}, "client/x"),
]


@pytest.mark.parametrize("statement, word", [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_document_that_is_not_understood_whole_is_refused_by_name_and_not_stored(shared, fresh_name, tmp_path, statement, word):
    name, path = fresh_name("refused"), tmp_path / "policy.json"
    path.write_text(json.dumps({"Version": "2012-10-17", "Statement": [allow("Connect", "*"), statement]}))
    said = shared.refused("policy", "create", name, str(path))
    assert word in said and str(path) in said
    assert name not in shared.cli("policy", "list").splitlines()


@pytest.mark.parametrize("text", [
    "", "{", "null", "[]", "{}", '{"Version":"2012-10-17"}', '{"Version":"2008-10-17","Statement":[]}',
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Effect":"Deny","Action":"iot:*","Resource":"*"}]}',
    json.dumps(EVERYTHING)[:-10], json.dumps(EVERYTHING) + "x"])
def test_a_broken_document_is_refused(shared, fresh_name, tmp_path, text):
    name, path = fresh_name("refused"), tmp_path / "policy.json"
    path.write_text(text)
    shared.refused("policy", "create", name, str(path))
    assert name not in shared.cli("policy", "list").splitlines()


def test_a_refused_update_leaves_the_policy_as_it_was(shared, under, connect, tmp_path):
    lamp = under(CONNECT, allow("Publish", "topic/p/*"))
    client = connect(shared, lamp)
    before = shared.cli("policy", "show", lamp.policy)
    path = tmp_path / "policy.json"
    path.write_text('{"Version":"2012-10-17","Statement":[{"Effect":"Allow"')
    shared.refused("policy", "update", lamp.policy, str(path))
    assert shared.cli("policy", "show", lamp.policy) == before
    assert client.publish("p/x") == 0


def test_a_policy_in_use_is_not_deleted(shared, under):
    lamp = under(CONNECT)
    assert lamp.policy in shared.refused("policy", "delete", lamp.policy, "--yes")
    shared.cli("policy", "detach", lamp.policy, "--device", lamp.name)
    shared.cli("policy", "delete", lamp.policy, "--yes")
    assert lamp.policy not in shared.cli("policy", "list").splitlines()


# -- policy test, policy explain

def test_policy_test_passes_a_good_file_without_a_server(tmp_path):
    done = muster("policy", "test", DATA / "policy-tests.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(json.loads((DATA / "policy-tests.json").read_text())["vectors"])
    assert done.stdout.splitlines()[-1] == f"PASS {count} of {count}"


def test_policy_test_names_each_failing_case_and_exits_1(tmp_path):
    cases = json.loads((DATA / "policy-tests.json").read_text())
    wrong = cases["vectors"][0]
    wrong["expect"] = "ExplicitDeny" if wrong["expect"] != "ExplicitDeny" else "Allow"
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(cases))
    done = muster("policy", "test", path)
    lines, count = done.stdout.splitlines(), len(cases["vectors"])
    assert done.returncode == 1
    assert lines[-1] == f"PASS {count - 1} of {count}"
    assert len(lines) == 2 and wrong["id"] in lines[0] and wrong["expect"] in lines[0]


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"region":"local","account":"000000000000","vectors":[{"id":"x"}]}'])
def test_policy_test_refuses_a_file_it_does_not_understand(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    done = muster("policy", "test", path)
    assert done.returncode != 0 and str(path) in done.stderr and "PASS" not in done.stdout


def test_policy_explain_says_which_statement_decided(shared, device):
    lamp = device()
    told = shared.cli("policy", "explain", "--device", lamp.name, "--action", "publish", "--topic", f"dt/{lamp.name}/x")
    assert told.startswith("allow: statement 2") and "device-default" in told


def test_policy_explain_names_the_missing_grant_and_the_grant_mends_it(shared, device, connect, fresh_name):
    lamp = device()
    client = connect(shared, lamp)
    ask = ("policy", "explain", "--device", lamp.name, "--action", "publish", "--topic", "elsewhere/x")
    assert client.publish("elsewhere/x") == 0x87
    told = shared.json(*ask)
    assert told["decision"] == "ImplicitDeny"
    assert json.dumps(told["missingGrant"]["Action"]).count("iot:Publish") == 1
    assert "missing grant" in shared.cli(*ask)
    policy = fresh_name("mend")
    shared.policy(policy, {"Version": "2012-10-17", "Statement": [told["missingGrant"]]})
    shared.cli("policy", "attach", policy, "--device", lamp.name)
    assert client.publish("elsewhere/x") == 0
    assert shared.json(*ask)["decision"] == "Allow"


@pytest.mark.parametrize("action", ["connect", "subscribe", "receive", "retainpublish"])
def test_policy_explain_knows_every_action(shared, device, action):
    lamp = device()
    topic = [] if action == "connect" else ["--topic", {"retainpublish": f"dt/{lamp.name}/x"}.get(action, f"cmd/{lamp.name}/x")]
    assert shared.json("policy", "explain", "--device", lamp.name, "--action", action, *topic)["decision"] == "Allow"


def test_policy_explain_takes_another_client_id_for_connect(shared, device):
    lamp = device()
    told = shared.json("policy", "explain", "--device", lamp.name, "--action", "connect", "--topic", "another")
    assert told["decision"] == "ImplicitDeny"


@pytest.mark.parametrize("action", ["publish", "receive", "retainpublish"])
def test_policy_explain_takes_no_filter_for_a_topic(shared, device, action):
    lamp = device()
    ask = ("policy", "explain", "--device", lamp.name, "--topic", f"cmd/{lamp.name}/#", "--action")
    said = shared.refused(*ask, action)
    assert "has no + or #" in said and "subscribe" in said and f"cmd/{lamp.name}/#" in said, said
    assert shared.json(*ask, "subscribe")["decision"] == "Allow"


def test_policy_explain_of_what_does_not_exist_is_an_error(shared, device):
    assert "nobody" in shared.refused("policy", "explain", "--device", "nobody", "--action", "publish", "--topic", "x")
    assert "dance" in shared.refused("policy", "explain", "--device", device().name, "--action", "dance", "--topic", "x")
