"""Device shadows, classic and named: AWS's own device SDK and boto3, both unmodified, on one and the same shadow."""

import json
import queue
import threading

import awscrt.mqtt
import awscrt.mqtt_request_response
import pytest
from awsiot import ServiceStreamOptions, V2ServiceException, iotshadow, mqtt5_client_builder, mqtt_connection_builder

from api import call, iot, send
from clients import WAIT_S
from server import allow, deny, document
from test_data_plane import data_plane, refused

THING = "${iot:Connection.Thing.ThingName}"
MANY = 400


def read(answer):
    return json.loads(answer["payload"].read())


def update(client, thing, state, name=None, **more):
    named = {"shadowName": name} if name else {}
    return read(client.update_thing_shadow(thingName=thing, payload=json.dumps({"state": state, **more}), **named))


@pytest.fixture
def sdk():
    """Makes clients of the SDK's service, over MQTT 5."""
    stops = []

    def make(server, identity):
        connected, stopped = queue.Queue(), queue.Queue()
        client = mqtt5_client_builder.mtls_from_path(
            endpoint="localhost", port=server.port("mqtt"), cert_filepath=str(identity.certificate), pri_key_filepath=str(identity.key),
            ca_filepath=str(identity.root), client_id=identity.name, on_lifecycle_connection_success=connected.put, on_lifecycle_stopped=stopped.put)
        client.start()
        connected.get(timeout=WAIT_S)
        stops.append((client, stopped))
        return iotshadow.IotShadowClientV2(client, awscrt.mqtt_request_response.ClientOptions(4, 4, 30))

    yield make
    for client, stopped in stops:
        client.stop()
        stopped.get(timeout=WAIT_S)


def failed(future):
    with pytest.raises(V2ServiceException) as caught:
        future.result(WAIT_S)
    return caught.value.modeled_error.code


@pytest.mark.parametrize("named", [False, True], ids=["classic", "named"])
def test_awss_sdk_keeps_a_shadow(shared, device, sdk, named):
    lamp = device()
    client, operator = sdk(shared, lamp), data_plane(shared)
    about = {"thing_name": lamp.name} | ({"shadow_name": "light"} if named else {})
    of_boto = {"thingName": lamp.name} | ({"shadowName": "light"} if named else {})
    named_or_not = "Named" if named else ""

    def kind(verb, **more):
        return getattr(iotshadow, f"{verb}{named_or_not}ShadowRequest")(**about, **more)

    ask = {verb: getattr(client, f"{verb}_named_shadow" if named else f"{verb}_shadow") for verb in ("get", "update", "delete")}
    assert failed(ask["get"](kind("Get"))) == 404
    deltas, changed, ready = queue.Queue(), queue.Queue(), threading.Semaphore(0)
    streams = []
    for event, into in (("delta_updated", deltas), ("updated", changed)):
        make = getattr(client, f"create_{'named_' if named else ''}shadow_{event}_stream")
        request = getattr(iotshadow, f"{named_or_not}Shadow{'Delta' if 'delta' in event else ''}UpdatedSubscriptionRequest")(**about)
        stream = make(request, ServiceStreamOptions(incoming_event_listener=into.put, subscription_status_listener=lambda event: ready.release()))
        stream.open()
        streams.append(stream)
        assert ready.acquire(timeout=WAIT_S)
    # The operator asks, the device hears the difference, and reports.
    first = update(operator, lamp.name, {"desired": {"on": True, "colour": {"r": 1, "g": 2}}}, name="light" if named else None)
    assert first["version"] == 1 and first["metadata"]["desired"]["colour"]["r"]["timestamp"] == first["timestamp"]
    delta = deltas.get(timeout=WAIT_S)
    assert (delta.state, delta.version) == ({"on": True, "colour": {"r": 1, "g": 2}}, 1)
    assert changed.get(timeout=WAIT_S).current.version == 1
    done = ask["update"](kind("Update", state=iotshadow.ShadowState(reported={"on": True, "colour": {"r": 1}}), version=1)).result(WAIT_S)
    assert (done.version, done.state.reported) == (2, {"on": True, "colour": {"r": 1}})
    event = changed.get(timeout=WAIT_S)
    assert (event.previous.version, event.current.version, event.current.state.reported["on"]) == (1, 2, True)
    assert deltas.get(timeout=WAIT_S).state == {"colour": {"g": 2}}
    got = ask["get"](kind("Get")).result(WAIT_S)
    assert (got.state.desired["on"], got.state.delta, got.version) == (True, {"colour": {"g": 2}}, 2)
    over_https = read(operator.get_thing_shadow(**of_boto))
    assert over_https["state"]["delta"] == {"colour": {"g": 2}} and over_https["version"] == 2
    # A version that is not the one there is changes nothing.
    assert failed(ask["update"](kind("Update", state=iotshadow.ShadowState(reported={"on": False}), version=1))) == 409
    payload = json.dumps({"state": {"reported": None}, "version": 1})
    assert refused(operator.update_thing_shadow, payload=payload, **of_boto) == (409, "ConflictException")
    if named:
        assert operator.list_named_shadows_for_thing(thingName=lamp.name)["results"] == ["light"]
    # Deleted it is gone, and made anew it counts on.
    assert ask["delete"](kind("Delete")).result(WAIT_S).version == 2
    assert refused(operator.get_thing_shadow, **of_boto) == (404, "ResourceNotFoundException")
    assert update(operator, lamp.name, {"reported": {}}, name="light" if named else None)["version"] == 3
    streams.clear()


def test_the_sdk_of_mqtt_3_1_1_works_too(shared, device):
    lamp = device()
    connection = mqtt_connection_builder.mtls_from_path(
        endpoint="localhost", port=shared.port("mqtt"), cert_filepath=str(lamp.certificate), pri_key_filepath=str(lamp.key),
        ca_filepath=str(lamp.root), client_id=lamp.name, clean_session=True, keep_alive_secs=30)
    connection.connect().result(WAIT_S)
    try:
        client, once = iotshadow.IotShadowClient(connection), awscrt.mqtt.QoS.AT_LEAST_ONCE
        accepted, rejected = queue.Queue(), queue.Queue()
        request = iotshadow.UpdateShadowSubscriptionRequest(thing_name=lamp.name)
        for subscribe, into in ((client.subscribe_to_update_shadow_accepted, accepted), (client.subscribe_to_update_shadow_rejected, rejected)):
            assert subscribe(request, once, into.put)[0].result(WAIT_S) == once
        ask = iotshadow.UpdateShadowRequest(thing_name=lamp.name, client_token="t", state=iotshadow.ShadowState(reported={"a": [1, {"b": 2}]}))
        client.publish_update_shadow(ask, once).result(WAIT_S)
        said = accepted.get(timeout=WAIT_S)
        assert (said.client_token, said.version, said.state.reported) == ("t", 1, {"a": [1, {"b": 2}]})
        client.publish_update_shadow(iotshadow.UpdateShadowRequest(thing_name=lamp.name, client_token="u", version=9, state=ask.state), once).result(WAIT_S)
        said = rejected.get(timeout=WAIT_S)
        assert (said.code, said.message, said.client_token) == (409, "Version conflict", "u")
    finally:
        connection.disconnect().result(WAIT_S)


def test_a_device_is_judged_on_topics_by_them_and_over_https_by_actions(shared, device, connect, fresh_name):
    lamp, other = device(), device()
    update(data_plane(shared), other.name, {"desired": {"on": True}})
    path = f"/things/{lamp.name}/shadow"
    for method, where, action in (
            ("POST", path, "iot:UpdateThingShadow"), ("GET", path, "iot:GetThingShadow"), ("DELETE", path, "iot:DeleteThingShadow"),
            ("GET", f"/api/things/shadow/ListNamedShadowsForThing/{lamp.name}", "iot:ListNamedShadowsForThing")):
        status, kind, answer = send(shared, method, where, {}, b'{"state":{}}' if method == "POST" else b"", lamp)
        assert (status, kind) == (403, "ForbiddenException") and action in answer["message"]
    # On its topics device-default lets it use its own shadow, and nobody else's.
    client = connect(shared, lamp)
    for verb in ("get", "update"):
        client.subscribe(f"$aws/things/{lamp.name}/shadow/{verb}/+")
        assert client.publish(f"$aws/things/{other.name}/shadow/{verb}", b"{}") != 0
    assert client.publish(f"$aws/things/{lamp.name}/shadow/update", b'{"state":{"reported":{"on":1}}}') == 0
    assert {client.message().topic.rsplit("/", 1)[1] for _ in range(2)} == {"accepted", "documents"}
    for payload, code in ((b"\xff", 415), (b"{", 400), (b"{}", 400), (b" " * 40_000, 413)):
        assert client.publish(f"$aws/things/{lamp.name}/shadow/update", payload) == 0
        heard = client.message()
        assert heard.topic.endswith("update/rejected") and json.loads(heard.payload)["code"] == code
    # By the name of the shadow, over HTTPS.
    policy = fresh_name("shadows")
    shared.policy(policy, document(
        allow(["GetThingShadow", "UpdateThingShadow"], f"thing/{THING}", f"thing/{THING}/own"), deny("UpdateThingShadow", f"thing/{THING}/own"),
        allow("ListNamedShadowsForThing", f"thing/{THING}")))
    shared.cli("policy", "attach", policy, "--device", lamp.name)
    status, _, answer = send(shared, "POST", path, {}, b'{"state":{"desired":{"on":2}},"clientToken":"c"}', lamp)
    assert (status, answer["version"], answer["clientToken"]) == (200, 2, "c")
    assert json.loads(client.message().payload)["version"] == 2, "topics hear of it"
    status, _, answer = send(shared, "GET", path, {}, b"", lamp)
    assert answer["state"] == {"desired": {"on": 2}, "reported": {"on": 1}, "delta": {"on": 2}}
    assert send(shared, "POST", f"{path}?name=own", {}, b'{"state":{}}', lamp)[0] == 403
    assert send(shared, "GET", f"{path}?name=own", {}, b"", lamp)[:2] == (404, "ResourceNotFoundException")
    assert send(shared, "GET", f"{path}?name=another", {}, b"", lamp)[0] == 403
    assert send(shared, "GET", f"/things/{other.name}/shadow", {}, b"", lamp)[0] == 403
    for method, where, body, expected in (
            ("POST", path, b"{", (400, "InvalidRequestException")), ("POST", path, b"", (400, "InvalidRequestException")),
            ("POST", path, b'{"state":{"desired":{"a":"' + b"x" * 9_000 + b'"}}}', (413, "RequestEntityTooLargeException")),
            ("POST", path, b"\xff", (415, "UnsupportedDocumentEncodingException")),
            ("GET", f"{path}?name=a%2Fb", b"", (400, "InvalidRequestException")), ("GET", f"{path}?colour=red", b"", (400, "InvalidRequestException"))):
        status, kind, answer = send(shared, method, where, {}, body, lamp)
        assert (status, kind) == expected and answer["message"], (where, answer)


def test_names_come_in_pages_and_a_shadow_goes_with_its_thing(shared, device, fresh_name):
    lamp, client = device(), data_plane(shared)
    names = [f"s{number:02}" for number in range(12)]
    for name in names:
        update(client, lamp.name, {"reported": {"of": name}}, name=name)
    found, token = [], None
    while True:
        page = client.list_named_shadows_for_thing(thingName=lamp.name, pageSize=5, **({"nextToken": token} if token else {}))
        found += page["results"]
        token = page.get("nextToken")
        if not token:
            break
    assert found == names and page["timestamp"] > 1_600_000_000
    assert refused(client.get_thing_shadow, thingName="nobody-here") == (404, "ResourceNotFoundException")
    assert refused(client.list_named_shadows_for_thing, thingName="nobody-here") == (404, "ResourceNotFoundException")
    assert call(shared, "GET", f"/api/things/shadow/ListNamedShadowsForThing/{lamp.name}?pageSize=101")[0] == 400
    # Another certificate changes nothing, the thing's end all.
    shared.cli("device", "replace", lamp.name, "--yes", "--out", str(shared.home / fresh_name("replaced")))
    assert read(client.get_thing_shadow(thingName=lamp.name, shadowName="s03"))["state"] == {"reported": {"of": "s03"}}
    shared.cli("device", "delete", lamp.name, "--yes")
    again = device(name=lamp.name)
    assert client.list_named_shadows_for_thing(thingName=again.name)["results"] == []
    assert update(client, again.name, {"reported": {}}, name="s03")["version"] == 1


def test_what_was_answered_survives_a_crash(server, connect):
    lamp, client = server.device("lamp"), data_plane(server)
    device = connect(server, lamp)
    for number in range(1, 21):
        # The PUBACK follows the commit.
        assert device.publish("$aws/things/lamp/shadow/update", json.dumps({"state": {"reported": {"n": number}}})) == 0
    update(client, "lamp", {"desired": {"n": 0}}, name="other")
    server.kill9()
    server.start()
    client = data_plane(server)
    got = read(client.get_thing_shadow(thingName="lamp"))
    assert (got["version"], got["state"]) == (20, {"reported": {"n": 20}})
    assert read(client.get_thing_shadow(thingName="lamp", shadowName="other"))["state"]["delta"] == {"n": 0}


def test_many_devices_report_at_once(server, connect):
    """Each report is answered and kept; what waits is bounded for each, and a crowd shares flushes."""
    server.policy("everything", document(allow("*", "*")))
    lamps = [server.device(f"lamp-{number}") for number in range(8)]

    def report(lamp, failures):
        client = connect(server, lamp)
        client.subscribe(f"$aws/things/{lamp.name}/shadow/update/rejected")
        for number in range(MANY // len(lamps)):
            client.publish(f"$aws/things/{lamp.name}/shadow/update", json.dumps({"state": {"reported": {"n": number}}}))
        if not client.messages.empty():
            failures.append(client.message().payload)

    failures = []
    threads = [threading.Thread(target=report, args=(lamp, failures)) for lamp in lamps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert failures == []
    client = data_plane(server)
    for lamp in lamps:
        got = read(client.get_thing_shadow(thingName=lamp.name))
        assert (got["version"], got["state"]["reported"]["n"]) == (MANY // len(lamps), MANY // len(lamps) - 1)
