"""AWS IoT's data plane over HTTPS: unmodified boto3, and devices under their own certificates, judged as over MQTT."""

import base64
import json
import re
import urllib.parse

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from api import admin, call, connection, credentials, endpoint, send, signed
from clients import proves_silence
from devices import eventually
from server import allow, deny, document

THING = "${iot:Connection.Thing.ThingName}"


def data_plane(server, who=None):
    """boto3's client of the data plane, pointed at the server."""
    who = who or admin(server)
    return boto3.client(
        "iot-data", region_name="local", endpoint_url=endpoint(server), verify=str(server.root),
        aws_access_key_id=who.access_key, aws_secret_access_key=who.secret_key,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=15, read_timeout=30))


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]


def quoted(topic):
    return urllib.parse.quote(topic, safe="")


def post(server, who, topic, payload=b"x", query="qos=1", headers=None):
    return send(server, "POST", f"/topics/{quoted(topic)}?{query}", headers or {}, payload, who)


def test_boto3_publishes_and_reads_what_is_retained(shared, device, connect, fresh_name):
    lamp, client = device("--policy", "everything"), data_plane(shared)
    topic = f"plant/{lamp.name}/é 1"
    listener = connect(shared, lamp)
    listener.subscribe(f"plant/{lamp.name}/#")
    client.publish(topic=topic, qos=1, payload=b"\x00\xff plain", retain=True, contentType="text/plain", responseTopic="answer/here",
                   correlationData=base64.b64encode(b"c-1").decode(), messageExpiry=600, payloadFormatIndicator="UNSPECIFIED_BYTES",
                   userProperties=[{"a": "1"}, {"b": "2"}])
    heard = listener.message()
    assert (heard.topic, heard.payload, heard.qos) == (topic, b"\x00\xff plain", 1)
    properties = heard.properties
    assert (properties.ContentType, properties.ResponseTopic, properties.CorrelationData) == ("text/plain", "answer/here", b"c-1")
    assert properties.UserProperty == [("a", "1"), ("b", "2")] and 590 < properties.MessageExpiryInterval <= 600
    kept = client.get_retained_message(topic=topic)
    assert (kept["topic"], kept["payload"], kept["qos"]) == (topic, b"\x00\xff plain", 1)
    assert json.loads(kept["userProperties"]) == [{"a": "1"}, {"b": "2"}]
    first = kept["lastModifiedTime"]
    assert first > 1_600_000_000_000
    client.publish(topic=topic, payload=b"now", retain=True)
    assert listener.message().payload == b"now"
    kept = client.get_retained_message(topic=topic)
    assert (kept["payload"], kept["qos"]) == (b"now", 0) and kept["lastModifiedTime"] >= first
    # What MQTT retains is read here, too; an empty payload removes it from both.
    listener.publish(f"plant/{lamp.name}/mqtt", b"12345", retain=True)
    client.publish(topic=topic, qos=1, payload=b"", retain=True)
    assert refused(client.get_retained_message, topic=topic) == (404, "ResourceNotFoundException")
    mine = [one for page in client.get_paginator("list_retained_messages").paginate() for one in page["retainedTopics"]
            if one["topic"].startswith(f"plant/{lamp.name}/")]
    assert [(one["topic"], one["payloadSize"], one["qos"]) for one in mine] == [(f"plant/{lamp.name}/mqtt", 5, 1)]
    for wrong in ({"topic": "a/+/b"}, {"topic": "$SYS/x"}, {"topic": "$aws/things/x/jobs/get"}, {"topic": "a/" * 200}, {"topic": "a", "qos": 2}):
        assert refused(client.publish, **wrong)[0] in (400, 431), wrong


def test_a_list_of_what_is_retained_comes_in_pages(server):
    client = data_plane(server)
    long = "long/" + "x" * 9_000
    topics = sorted([f"room/{n:03}" for n in range(25)] + [long])
    for topic in topics:
        client.publish(topic=topic, qos=1, retain=True, payload=b"on")
    found, token = [], None
    while True:
        more = {"nextToken": token} if token else {}
        page = client.list_retained_messages(maxResults=7, **more)
        assert 0 < len(page["retainedTopics"]) <= 7
        found += [one["topic"] for one in page["retainedTopics"]]
        token = page.get("nextToken")
        if not token:
            break
    assert found == topics
    assert len(client.list_retained_messages(maxResults=200)["retainedTopics"]) == 26
    one_by_one = client.list_retained_messages(maxResults=1)
    assert one_by_one["retainedTopics"][0]["topic"] == long
    assert client.list_retained_messages(maxResults=1, nextToken=one_by_one["nextToken"])["retainedTopics"][0]["topic"] == "room/000"
    for path in ("/retainedMessage?maxResults=0", "/retainedMessage?maxResults=201", "/retainedMessage?nextToken=eA", "/retainedMessage?colour=red"):
        assert call(server, "GET", path)[:2] == (400, "InvalidRequestException"), path
    # Acknowledged means durable.
    server.kill9()
    server.start()
    client = data_plane(server)
    assert client.get_retained_message(topic="room/024")["payload"] == b"on"
    assert client.get_retained_message(topic="room/024")["lastModifiedTime"] > 1_600_000_000_000


def test_what_is_published_over_https_waits_for_who_is_away(server, connect):
    server.policy("everything", document(allow("*", "*")))
    reader, writer = server.device("reader", "--policy", "everything"), server.device("writer")
    away = connect(server, reader, clean=False, expiry=3600)
    away.subscribe("dt/#")
    away.disconnect()
    for number in range(5):
        assert post(server, writer, "dt/writer/n", b"%d" % number)[0] == 200
    server.kill9()
    server.start()
    back = connect(server, reader, clean=False, expiry=3600)
    assert [back.message().payload for _ in range(5)] == [b"%d" % number for number in range(5)]


def test_a_device_is_judged_as_over_mqtt(shared, device, connect, fresh_name):
    lamp, other = device(), device()
    listener = connect(shared, device("--policy", "everything"))
    listener.subscribe(f"dt/{lamp.name}/#")
    status, _, answer = post(shared, lamp, f"dt/{lamp.name}/t", b"21")
    assert (status, answer["message"]) == (200, "OK") and listener.message().payload == b"21"
    # The topic may stand in the path as it is, too.
    assert send(shared, "POST", f"/topics/dt/{lamp.name}/t?retain=true", {}, b"22", lamp)[0] == 200
    assert listener.message().payload == b"22"
    read = f"/retainedMessage/dt/{lamp.name}/t"
    for method, path, why in (
            ("POST", f"/topics/dt/{other.name}/t", "iot:Publish"), ("POST", f"/topics/cmd/{lamp.name}/t", "iot:Publish"),
            ("GET", read, "iot:GetRetainedMessage"), ("GET", "/retainedMessage", "iot:ListRetainedMessages"),
            ("DELETE", f"/connections/{lamp.name}", "iot:DeleteConnection")):
        status, kind, answer = send(shared, method, path, {}, b"", lamp)
        assert (status, kind) == (403, "ForbiddenException") and why in answer["message"], (path, answer)
    # Without a certificate there is nobody to judge.
    assert post(shared, None, f"dt/{lamp.name}/t")[:2] == (403, "MissingAuthenticationTokenException")
    # A denial has an id under which it is explained, with the policy as it was.
    line = shared.said("denied over HTTPS", f"dt/{other.name}/t")
    denial = re.search(r'denial="?([0-9a-f]+-[0-9a-f]+)', line)[1]
    why = eventually(lambda: (done := shared.run("policy", "explain", "--denial", denial)).returncode == 0 and done.stdout, "the denial to be kept")
    assert "device-default" in why and f"dt/{other.name}/t" in why
    # By their own actions.
    policy = fresh_name("reads")
    shared.policy(policy, document(
        allow("GetRetainedMessage", f"topic/dt/{THING}/*"), allow("ListRetainedMessages", "*"), deny("RetainPublish", f"topic/dt/{THING}/frozen")))
    shared.cli("policy", "attach", policy, "--device", lamp.name)
    status, _, kept = send(shared, "GET", read, {}, b"", lamp)
    assert status == 200 and base64.b64decode(kept["payload"]) == b"22"
    status, _, listed = send(shared, "GET", "/retainedMessage?maxResults=200", {}, b"", lamp)
    assert status == 200 and f"dt/{lamp.name}/t" in [one["topic"] for one in listed["retainedTopics"]]
    assert send(shared, "GET", f"/retainedMessage/dt/{other.name}/t", {}, b"", lamp)[0] == 403
    assert post(shared, lamp, f"dt/{lamp.name}/frozen", query="qos=1")[0] == 200
    status, _, answer = post(shared, lamp, f"dt/{lamp.name}/frozen", query="qos=1&retain=true")
    assert status == 403 and "iot:RetainPublish" in answer["message"]
    said = shared.json("policy", "explain", "--device", lamp.name, "--action", "publish", "--topic", f"dt/{lamp.name}/x", "--listener", "https")
    assert said["decision"].lower().startswith("allow"), said
    # A revoked certificate publishes nothing, and what it had retained is not shown.
    shared.cli("device", "revoke", lamp.name, "--yes")
    try:
        assert post(shared, lamp, f"dt/{lamp.name}/t")[0] == 403
    except OSError:
        pass  # It ended with the handshake.
    eventually(lambda: refused(data_plane(shared).get_retained_message, topic=f"dt/{lamp.name}/t") == (404, "ResourceNotFoundException"),
               "what a revoked certificate retained is gone")


@pytest.mark.parametrize("path, body", [
    ("/topics/dt%2F{}?qos=1&retain=true", b"after the end"), ("/things/{}/shadow", b'{"state": {"reported": {"on": true}}}'),
    ("/things/{}/jobs/$next", b'{"statusDetails": {"a": "b"}}')])
def test_whoever_is_revoked_while_its_request_comes_is_refused(shared, device, connect, path, body):
    lamp, other = device("--policy", "everything"), device("--policy", "everything")
    listener = connect(shared, other)
    listener.subscribe(f"dt/{lamp.name}", qos=1)
    opened = connection(shared, lamp)
    opened.putrequest("PUT" if "jobs" in path else "POST", path.format(lamp.name))
    opened.putheader("content-length", str(len(body)))
    opened.endheaders(body[:3])
    # The server has looked at who it is when another request of the same device, sent later, has its answer.
    assert post(shared, lamp, f"dt/{lamp.name}", b"before")[0] == 200
    assert listener.message().payload == b"before"
    shared.cli("device", "revoke", lamp.name, "--yes")
    opened.send(body[3:])
    assert opened.getresponse().status == 403
    opened.close()
    assert call(shared, "GET", f"/retainedMessage/dt%2F{lamp.name}")[0] == 404
    assert call(shared, "GET", f"/things/{lamp.name}/shadow")[0] == 404
    proves_silence(listener, f"dt/{lamp.name}", listener)


def test_an_operator_who_is_removed_while_its_request_comes_is_refused(server, tmp_path):
    server.cli("operator", "create", "eve", "--role", "admin", "--out", tmp_path / "eve")
    eve, body = credentials(tmp_path / "eve/eve.credentials"), b'{"name": "mallory", "role": "admin"}'
    opened = connection(server)
    opened.putrequest("POST", "/muster/v1/operators")
    for name, value in signed(server, "POST", "/muster/v1/operators", body, eve).items():
        if name.lower() not in ("host", "content-length"):
            opened.putheader(name, value)
    opened.putheader("content-length", str(len(body)))
    opened.endheaders(body[:3])
    assert call(server, "GET", "/things", who=eve)[0] == 200
    server.cli("operator", "delete", "eve", "--yes")
    opened.send(body[3:])
    assert opened.getresponse().status == 403
    opened.close()
    assert [one["name"] for one in server.json("operator", "list")["operators"]] == ["admin"]


def test_conditions_on_the_message_and_the_listener_hold_here(shared, device, fresh_name):
    policy = fresh_name("conditions")
    small = allow("Publish", f"topic/small/{THING}")
    small["Condition"] = {"NumericLessThanEquals": {"muster:MessageSize": "4"}, "StringEquals": {"muster:Listener": "https"}}
    named = allow("Publish", "topic/client/${iot:ClientId}")
    shared.policy(policy, document(allow("Connect", f"client/{THING}"), small, named))
    lamp = device("--policy", policy)
    assert post(shared, lamp, f"small/{lamp.name}", b"1234")[0] == 200
    assert post(shared, lamp, f"small/{lamp.name}", b"12345")[0] == 403
    assert post(shared, lamp, f"client/{lamp.name}")[0] == 403, "there is no client id"


def test_bounds_are_those_of_mqtt(make_server, tmp_path):
    config = tmp_path / "bounds.toml"
    config.write_text("[limits]\npacket_bytes = 2000\nthing_retained_messages = 2\ntopic_levels = 4\n")
    server = make_server("--config", str(config))
    server.policy("everything", document(allow("*", "*")))
    lamp = server.device("lamp", "--policy", "everything")
    assert post(server, lamp, "a", b"x" * 1900)[0] == 200
    for topic, payload in (("a", b"x" * 2001), ("a/b/c/d/e", b"x"), ("$share/g/a", b"x"), ("", b"x")):
        status, kind, answer = post(server, lamp, topic, payload)
        assert status in (400, 404) and (kind == "InvalidRequestException" or topic == ""), (topic, answer)
    for number in range(2):
        assert post(server, lamp, f"keep/{number}", query="retain=true&qos=1")[0] == 200
    status, kind, answer = post(server, lamp, "keep/2", query="retain=true&qos=1")
    assert (status, kind) == (400, "InvalidRequestException") and "retained" in answer["message"]
    assert post(server, lamp, "a", b"x" * (1024 * 1024 + 1))[:2] == (413, "RequestEntityTooLargeException")
    for query, headers in (("qos=2", {}), ("retain=perhaps", {}), ("messageExpiry=-1", {}), ("responseTopic=a/%23", {}), ("colour=red", {}),
                           ("qos=1&qos=1", {}), ("qos=1", {"x-amz-mqtt5-user-properties": "!"}), ("qos=1", {"x-amz-mqtt5-payload-format-indicator": "TEXT"})):
        assert post(server, lamp, "a", query=query, headers=headers)[:2] == (400, "InvalidRequestException"), (query, headers)


def test_an_operator_publishes_as_its_role_allows(server, tmp_path, connect):
    out = tmp_path / "vera"
    server.cli("operator", "create", "vera", "--role", "viewer", "--out", out)
    viewer = data_plane(server, credentials(out / "vera.credentials"))
    assert refused(viewer.publish, topic="cmd/lamp/x") == (403, "AccessDeniedException")
    assert refused(viewer.delete_connection, clientId="lamp") == (403, "AccessDeniedException")
    assert viewer.list_retained_messages()["retainedTopics"] == []
    lamp = server.device("lamp")
    listener = connect(server, lamp)
    assert listener.subscribe("cmd/lamp/#") in (0, 1)
    data_plane(server).publish(topic="cmd/lamp/blink", qos=1, payload=b"3")
    assert listener.message().payload == b"3"
    # Who ended a device's connection, and who may not have, is on the record; messages are in the log.
    assert call(server, "DELETE", "/connections/nobody")[0] == 404
    data_plane(server).delete_connection(clientId="lamp")
    of_planes = [(one["name"], one["operation"], one["outcome"]) for one in server.json("log", "show")["entries"]
                 if one["operation"] in ("DeleteConnection", "Publish")]
    assert of_planes == [("admin", "DeleteConnection", "done"), ("admin", "DeleteConnection", "refused"),
                         ("vera", "DeleteConnection", "denied"), ("vera", "Publish", "denied")]
    assert server.said('done operator=admin operation="Publish"')


def test_delete_connection_ends_a_client_and_with_it_its_session_and_will(server, connect):
    server.policy("everything", document(allow("*", "*")))
    watcher, lamp = server.device("watcher", "--policy", "everything"), server.device("lamp", "--policy", "everything")
    watch = connect(server, watcher)
    watch.subscribe("$aws/events/presence/disconnected/#")
    client = data_plane(server)
    assert refused(client.delete_connection, clientId="lamp") == (404, "ResourceNotFoundException")
    first = connect(server, lamp, client_id="one", clean=False, expiry=3600)
    first.subscribe("keep/#")
    client.delete_connection(clientId="one")
    first.end()
    assert json.loads(watch.message().payload)["disconnectReason"] == "API_INITIATED_DISCONNECT"
    client.publish(topic="keep/1", qos=1, payload=b"kept")
    # The session is there still, and the newcomer is not ended for what was said of the one before.
    again = connect(server, lamp, client_id="one", clean=False, expiry=3600)
    assert again.message().payload == b"kept" and again.alive()
    client.delete_connection(clientId="one", cleanSession=True)
    again.end()
    client.publish(topic="keep/2", qos=1, payload=b"lost")
    third = connect(server, lamp, client_id="one", clean=False, expiry=3600)
    third.subscribe("keep/#")
    client.publish(topic="keep/3", qos=1, payload=b"heard")
    assert third.message().payload == b"heard"
    # Of a client that is away the session ends, if asked.
    third.disconnect()
    assert refused(client.delete_connection, clientId="one") == (404, "ResourceNotFoundException")
    client.delete_connection(clientId="one", cleanSession=True)
    assert refused(client.delete_connection, clientId="one", cleanSession=True) == (404, "ResourceNotFoundException")
    # A device may where a policy of its says so.
    fourth = connect(server, lamp, client_id="two")
    assert send(server, "DELETE", "/connections/two?preventWillMessage=true", {}, b"", watcher)[0] == 200
    fourth.end()
