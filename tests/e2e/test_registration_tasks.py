"""Devices by a template, one at a time and from a file of many lines: boto3 unmodified, the file where a bucket would be."""

import json
import time

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from api import call, iot
from devices import came_by, eventually
from server import Identity

ROLE = "arn:aws:iam::000000000000:role/registration"
TEMPLATE = json.dumps({
    "Parameters": {"ThingName": {"Type": "String"}, "SerialNumber": {"Type": "String"}, "CSR": {"Type": "String"}, "Site": {"Type": "String", "Default": "bonn"}},
    "Resources": {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {
            "ThingName": {"Ref": "ThingName"}, "ThingGroups": ["bulk"],
            "AttributePayload": {"serial": {"Ref": "SerialNumber"}, "site": {"Ref": "Site"}}}},
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "ACTIVE"}},
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device-default"}},
    }})


def key_and_csr(key=None):
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anything")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, csr.public_bytes(serialization.Encoding.PEM).decode()


def code_of(error):
    return error.value.response["Error"]["Code"]


def put(server, name, lines):
    bucket = server.data / "registration/factory"
    bucket.mkdir(parents=True, exist_ok=True)
    (bucket / name).write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


def start(client, name):
    return client.start_thing_registration_task(templateBody=TEMPLATE, inputFileBucket="factory", inputFileKey=name, roleArn=ROLE)["taskId"]


def over(client, task):
    eventually(lambda: client.describe_thing_registration_task(taskId=task)["status"] not in ("InProgress", "Cancelling"), "the task is over")
    return client.describe_thing_registration_task(taskId=task)


def report(server, client, task, kind):
    """All lines of a report, by the link that is given for it."""
    links = client.list_thing_registration_task_reports(taskId=task, reportType=kind)["resourceLinks"]
    lines, token = [], ""
    for link in links:
        path = "/muster" + link.split("/muster", 1)[1]
        while True:
            status, _, page = call(server, "GET", path + "?maxResults=3" + token)
            assert status == 200, page
            lines += page["lines"]
            if "nextToken" not in page:
                break
            token = "&nextToken=" + page["nextToken"].replace("=", "%3D").replace("+", "%2B").replace("/", "%2F")
    return lines


def test_one_device_by_a_template(server, connect, tmp_path):
    client = iot(server)
    client.create_thing_group(thingGroupName="bulk")
    key, csr = key_and_csr()
    done = client.register_thing(templateBody=TEMPLATE, parameters={"ThingName": "lamp-1", "SerialNumber": "7", "CSR": csr})
    assert done["resourceArns"]["thing"].endswith(":thing/lamp-1") and ":cert/" in done["resourceArns"]["certificate"]
    (tmp_path / "lamp.key").write_bytes(key)
    (tmp_path / "lamp.crt").write_text(done["certificatePem"])
    lamp = connect(server, Identity(tmp_path / "lamp.crt", tmp_path / "lamp.key", server.root, "lamp-1"))
    assert lamp.publish("dt/lamp-1/x", "y") == 0 and lamp.publish("dt/other/x", "y") == 0x87
    came_by(server, lamp, "operator")
    assert client.describe_thing(thingName="lamp-1")["attributes"] == {"serial": "7", "site": "bonn"}
    for parameters, code in (
        ({"ThingName": "lamp-1", "SerialNumber": "8", "CSR": key_and_csr()[1]}, "ConflictingResourceUpdateException"),
        ({"ThingName": "lamp-2", "SerialNumber": "8", "CSR": csr}, "ResourceRegistrationFailureException"),
        ({"ThingName": "a b", "SerialNumber": "8", "CSR": key_and_csr()[1]}, "ResourceRegistrationFailureException"),
        ({"ThingName": "lamp-2", "CSR": key_and_csr()[1]}, "ResourceRegistrationFailureException"),
        ({"ThingName": "lamp-2", "SerialNumber": "8", "CSR": "rubbish"}, "ResourceRegistrationFailureException"),
    ):
        with pytest.raises(ClientError) as refused:
            client.register_thing(templateBody=TEMPLATE, parameters=parameters)
        assert code_of(refused) == code, refused.value
    assert [t["thingName"] for t in client.list_things()["things"]] == ["lamp-1"] and lamp.alive()


def test_a_file_of_devices_with_every_kind_of_wrong_line(server, connect, tmp_path):
    client = iot(server)
    client.create_thing_group(thingGroupName="bulk")
    taken = server.device("taken")
    weak = rsa.generate_private_key(65537, 1024)
    key, csr = key_and_csr()
    good = [{"ThingName": f"lamp-{n}", "SerialNumber": str(n), "CSR": csr if n == 0 else key_and_csr()[1]} for n in range(5)]
    put(server, "lamps.ndjson", [
        *good[:4], "\n", "no json\n", "[]\n", {"ThingName": "x"}, {"ThingName": "x", "SerialNumber": 7, "CSR": "c"},
        {"ThingName": taken.name, "SerialNumber": "1", "CSR": key_and_csr()[1]},
        {"ThingName": "weak", "SerialNumber": "1", "CSR": key_and_csr(weak)[1]},
        {"ThingName": "again", "SerialNumber": "1", "CSR": good[0]["CSR"]},
        {"ThingName": "more", "SerialNumber": "1", "CSR": key_and_csr()[1], "Colour": "red"},
        "x" * 100_000 + "\n", good[4]])
    task = start(client, "lamps.ndjson")
    done = over(client, task)
    assert (done["status"], done["successCount"], done["failureCount"], done["percentageProgress"]) == ("Completed", 5, 9, 100), done
    results, errors = report(server, client, task, "RESULTS"), report(server, client, task, "ERRORS")
    assert [(r["lineNumber"], r["thingName"]) for r in results] == [(1, "lamp-0"), (2, "lamp-1"), (3, "lamp-2"), (4, "lamp-3"), (15, "lamp-4")]
    (tmp_path / "lamp.key").write_bytes(key)
    (tmp_path / "lamp.crt").write_text(results[0]["certificatePem"])
    came_by(server, connect(server, Identity(tmp_path / "lamp.crt", tmp_path / "lamp.key", server.root, "lamp-0")), "bulk")
    said = {e["lineNumber"]: e["errorMessage"] for e in errors}
    for line, words in {6: "JSON object", 7: "JSON object", 8: "is missing", 9: "JSON object", 10: "exists and has had a certificate", 11: "RSA 1024",
                        12: "another thing has it", 13: "Colour", 14: "bytes"}.items():
        assert words in said.pop(line), (line, errors)
    assert not said
    names = [t["thingName"] for t in client.list_things()["things"]]
    assert names == sorted([f"lamp-{n}" for n in range(5)] + ["taken"]), "nothing is half made"
    assert task in client.list_thing_registration_tasks(status="Completed")["taskIds"]
    assert client.list_thing_registration_tasks(status="Failed")["taskIds"] == []
    with pytest.raises(ClientError) as refused:
        client.stop_thing_registration_task(taskId=task)
    assert code_of(refused) == "InvalidRequestException"


def test_what_is_no_file_of_ours_is_refused(server):
    client = iot(server)
    (server.data / "secret.ndjson").write_text("{}\n")
    for bucket, key in (("factory", "nowhere"), ("../", "secret.ndjson"), ("factory", "../../secret.ndjson"), ("/etc", "passwd"), ("factory", "/etc/passwd")):
        # Past boto3, which knows no such buckets.
        status, code, said = call(server, "POST", "/thing-registration-tasks", {
            "templateBody": TEMPLATE, "inputFileBucket": bucket, "inputFileKey": key, "roleArn": ROLE})
        assert (status, code) == (400, "InvalidRequestException"), (bucket, key, said)
    put(server, "empty", [])
    with pytest.raises(ClientError) as refused:
        client.start_thing_registration_task(templateBody="{", inputFileBucket="factory", inputFileKey="empty", roleArn=ROLE)
    assert code_of(refused) == "InvalidRequestException"
    done = over(client, start(client, "empty"))
    assert (done["status"], done["successCount"], done["percentageProgress"]) == ("Completed", 0, 100)
    for ask in (lambda: client.describe_thing_registration_task(taskId="x"), lambda: client.stop_thing_registration_task(taskId="x"),
                lambda: client.list_thing_registration_task_reports(taskId="x", reportType="ERRORS")):
        with pytest.raises(ClientError) as refused:
            ask()
        assert code_of(refused) == "ResourceNotFoundException"


def test_a_task_goes_on_at_the_next_line_after_a_crash(make_server):
    server = make_server()
    client = iot(server)
    client.create_thing_group(thingGroupName="bulk")
    # One key in three is used twice, so that a line done twice would be seen as a failure too many.
    lines = []
    for n in range(150):
        lines.append({"ThingName": f"lamp-{n:03}", "SerialNumber": str(n), "CSR": key_and_csr()[1]})
        if n % 3 == 0:
            lines.append({"ThingName": f"copy-{n:03}", "SerialNumber": str(n), "CSR": lines[-1]["CSR"]})
    put(server, "lamps.ndjson", lines)
    task = start(client, "lamps.ndjson")
    with pytest.raises(ClientError) as refused:
        start(client, "lamps.ndjson")
    assert "one at a time" in str(refused.value)
    for target in (20, 60):
        while True:
            now = client.describe_thing_registration_task(taskId=task)
            if now["successCount"] >= target or now["status"] != "InProgress":
                break
            time.sleep(0.01)
        server.kill9()
        server.start()
        client = iot(server)
    done = over(client, task)
    assert (done["status"], done["successCount"], done["failureCount"]) == ("Completed", 150, 50), done
    assert len(report(server, client, task, "RESULTS")) == 150 and len(report(server, client, task, "ERRORS")) == 50
    things = [t["thingName"] for p in client.get_paginator("list_things").paginate() for t in p["things"]]
    assert things == [f"lamp-{n:03}" for n in range(150)]
    assert all(len(client.list_thing_principals(thingName=name)["principals"]) == 1 for name in things[::10])


def test_a_task_that_is_stopped_leaves_what_it_made(server):
    client = iot(server)
    client.create_thing_group(thingGroupName="bulk")
    csrs = [key_and_csr()[1] for _ in range(400)]
    put(server, "lamps.ndjson", [{"ThingName": f"lamp-{n}", "SerialNumber": str(n), "CSR": csr} for n, csr in enumerate(csrs)])
    task = start(client, "lamps.ndjson")
    client.stop_thing_registration_task(taskId=task)
    done = over(client, task)
    assert done["status"] == "Cancelled" and done["successCount"] < 400
    things = [t for p in client.get_paginator("list_things").paginate() for t in p["things"]]
    assert len(things) == done["successCount"]
