"""Files over MQTT, block by block, as AWS IoT's streams have them: JSON and CBOR, by hand as a small device does it; the API through boto3."""

import base64
import hashlib
import json
import os

import cbor2
import pytest

from api import iot
from devices import thing_arn
from release import Team
from server import EVERYTHING, Server

ROLE = "arn:aws:iam::000000000000:role/none-is-taken"
SIZE = 300_001
BLOCK = 4096
ANSWER_BYTES = 131_072


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server of this suite's own: what it trusts is none of the others' business."""
    server = Server(tmp_path_factory.mktemp("house"))
    server.policy("everything", EVERYTHING)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def firmware(shared, tmp_path_factory):
    """An image on the server."""
    team = Team(tmp_path_factory.mktemp("streams"))
    image = os.urandom(SIZE)
    shared.cli("firmware", "trust", team.root())
    shared.cli("firmware", "add", team.package("radio", "1.0", image))
    old = team.home / "old"
    old.write_bytes(image)
    newer = image[1000:] + b"newer"
    shared.cli("firmware", "add", team.package("radio", "1.1", newer, more=["--delta-from", f"1.0={old}"]))
    return image


def file(number=0, key="radio/1.0", bucket="firmware"):
    return {"fileId": number, "s3Location": {"bucket": bucket, "key": key}}


@pytest.fixture
def stream(shared, firmware, fresh_name):
    name = fresh_name("stream")
    made = iot(shared).create_stream(streamId=name, description="the radio's", files=[file(), file(7)], roleArn=ROLE)
    assert made["streamArn"].endswith(f":stream/{name}") and made["streamVersion"] == 0
    return name


class Reader:
    """A device that asks for blocks."""

    def __init__(self, client, thing, stream, form):
        self.client, self.form = client, form
        self.prefix = f"$aws/things/{thing}/streams/{stream}/"
        for ending in ("description", "data", "rejected"):
            assert client.subscribe(f"{self.prefix}{ending}/{form}") in (0, 1)

    def write(self, body):
        return body if isinstance(body, bytes) else cbor2.dumps(body) if self.form == "cbor" else json.dumps(body)

    def ask(self, verb, body):
        assert self.client.publish(f"{self.prefix}{verb}/{self.form}", self.write(body)) == 0

    def heard(self):
        message = self.client.message()
        body = cbor2.loads(message.payload) if self.form == "cbor" else json.loads(message.payload)
        return message.topic.removeprefix(self.prefix).removesuffix("/" + self.form), body

    def blocks(self, count):
        """So many blocks: number → bytes."""
        found = {}
        for _ in range(count):
            ending, body = self.heard()
            assert ending == "data", body
            payload = body["p"] if self.form == "cbor" else base64.b64decode(body["p"])
            # FreeRTOS holds it against what is left of the file: a last block has its own.
            assert body["l"] == len(payload)
            assert body["i"] not in found
            found[body["i"]] = payload
        return found

    def refused(self, verb, body):
        self.ask(verb, body)
        ending, answer = self.heard()
        assert ending == "rejected" and answer["m"], answer
        return answer["o"]


@pytest.fixture
def reader(shared, connect, device, stream):
    """A device with a job that names the stream."""
    def make(form, job=True):
        lamp = device()
        if job:
            document = {"afr_ota": {"protocols": ["MQTT"], "streamname": stream, "files": [{"fileid": 0, "filesize": SIZE}]}}
            iot(shared).create_job(jobId=f"get-{stream}-{lamp.name}", targets=[thing_arn(lamp.name)], document=json.dumps(document))
        return Reader(connect(shared, lamp), lamp.name, stream, form)
    return make


@pytest.mark.parametrize("form", ["json", "cbor"])
def test_a_file_comes_whole_block_by_block(reader, firmware, form):
    lamp = reader(form)
    lamp.ask("describe", {"c": "token-1"})
    assert lamp.heard() == ("description", {"c": "token-1", "s": 0, "d": "the radio's", "r": [{"f": 0, "z": SIZE}, {"f": 7, "z": SIZE}]})
    blocks, offset, count = {}, 0, -(-SIZE // BLOCK)
    while offset < count:
        here = min(ANSWER_BYTES // BLOCK, count - offset)
        lamp.ask("get", {"c": "t", "s": 0, "f": 0, "l": BLOCK, "o": offset, "n": count})
        blocks.update(lamp.blocks(here))
        offset += here
    assert b"".join(blocks[i] for i in range(count)) == firmware
    assert len(blocks[count - 1]) == SIZE % BLOCK


@pytest.mark.parametrize("form", ["json", "cbor"])
def test_a_bitmap_names_the_blocks_that_are_missing(reader, firmware, form):
    lamp = reader(form)
    bitmap = bytes.fromhex("130080")
    lamp.ask("get", {"f": 7, "l": 1024, "o": 100, "b": bitmap if form == "cbor" else bitmap.hex()})
    found = lamp.blocks(4)
    assert found == {i: firmware[i * 1024:(i + 1) * 1024] for i in (100, 101, 104, 123)}


def test_a_delta_is_a_file_like_an_image(shared, reader, connect, device, fresh_name):
    delta, = shared.json("firmware", "show", "radio", "1.1")["deltas"]
    name, lamp = fresh_name("stream"), device()
    iot(shared).create_stream(streamId=name, files=[file(key="radio/1.1"), file(1, key="radio/1.1/delta/1.0")], roleArn=ROLE)
    iot(shared).create_job(jobId=f"get-{name}", targets=[thing_arn(lamp.name)], document=json.dumps({"stream": name}))
    lamp = Reader(connect(shared, lamp), lamp.name, name, "json")
    lamp.ask("describe", {})
    assert lamp.heard()[1]["r"] == [{"f": 0, "z": SIZE - 995}, {"f": 1, "z": delta["size"]}]
    lamp.ask("get", {"f": 1, "l": 131_072, "n": 1})
    patch = lamp.blocks(1)[0]
    assert hashlib.sha256(patch).hexdigest() == delta["sha256"] and len(patch) < SIZE / 50
    for key, error in [("radio/1.1/delta/0.9", "ResourceNotFoundException"), ("radio/1.1/patch/1.0", "InvalidRequestException")]:
        with pytest.raises(iot(shared).exceptions.from_code(error)):
            iot(shared).create_stream(streamId=fresh_name("stream"), files=[file(key=key)], roleArn=ROLE)


def test_each_mistake_has_awss_code(reader):
    lamp = reader("json")
    good = {"f": 0, "l": BLOCK, "n": 1}
    cases = [
        ("get", b"{", "InvalidJson"),
        ("get", {"l": BLOCK}, "InvalidRequest"),
        ("get", {**good, "l": 255}, "BlockSizeOutOfBounds"),
        ("get", {**good, "l": 131_073}, "BlockSizeOutOfBounds"),
        ("get", {**good, "o": 98_305}, "OffsetOutOfBounds"),
        ("get", {**good, "o": SIZE // BLOCK + 1}, "OffsetOutOfBounds"),
        ("get", {**good, "n": 98_305}, "BlockCountLimitExceeded"),
        ("get", {**good, "f": 9}, "ResourceNotFound"),
        ("get", {**good, "s": 1}, "VersionMismatch"),
        ("give", good, "InvalidTopic"),
    ]
    for verb, body, code in cases:
        assert lamp.refused(verb, body) == code, (verb, body)
    lamp.ask("get", good)
    assert len(lamp.blocks(1)) == 1
    lamp = reader("cbor")
    assert lamp.refused("get", b"\xff\xff") == "InvalidCbor"
    assert lamp.refused("get", {**good, "b": bytes(12_289)}) == "BlockBitmapLimitExceeded"


def test_only_a_thing_with_a_job_for_it_gets_it(shared, reader, connect, device, stream):
    lamp = reader("json", job=False)
    assert lamp.refused("get", {"f": 0, "l": BLOCK, "n": 1}) == "Unauthorized"
    assert lamp.refused("describe", {}) == "Unauthorized"
    # Another thing's topic, even where the policy lets it.
    owner, other = reader("json"), device("--policy", "everything")
    thief = Reader(connect(shared, other), owner.prefix.split("/")[2], stream, "json")
    assert thief.refused("get", {"f": 0, "l": BLOCK, "n": 1}) == "Unauthorized"
    iot(shared).delete_stream(streamId=stream)
    assert owner.refused("get", {"f": 0, "l": BLOCK, "n": 1}) == "ResourceNotFound"


def test_streams_are_made_changed_listed_and_deleted(shared, stream, reader, fresh_name):
    client = iot(shared)
    info = client.describe_stream(streamId=stream)["streamInfo"]
    assert (info["description"], info["files"], info["streamVersion"]) == ("the radio's", [file(), file(7)], 0)
    assert client.update_stream(streamId=stream, files=[file(3)], description="another")["streamVersion"] == 1
    lamp = reader("json")
    assert lamp.refused("get", {"f": 3, "l": BLOCK, "n": 1, "s": 0}) == "VersionMismatch"
    lamp.ask("get", {"f": 3, "l": BLOCK, "n": 1, "s": 1})
    assert len(lamp.blocks(1)) == 1
    second = fresh_name("stream")
    client.create_stream(streamId=second, files=[file()], roleArn=ROLE)
    seen, token = [], {}
    while True:
        page = client.list_streams(maxResults=1, **token)
        seen += [one["streamId"] for one in page["streams"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert {stream, second} <= set(seen) and len(seen) == len(set(seen))
    with pytest.raises(client.exceptions.ResourceAlreadyExistsException):
        client.create_stream(streamId=second, files=[file()], roleArn=ROLE)
    for bad in ([file(bucket="s3")], [file(), file()], [file(key="radio")]):
        with pytest.raises(client.exceptions.InvalidRequestException):
            client.create_stream(streamId=fresh_name("stream"), files=bad, roleArn=ROLE)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.create_stream(streamId=fresh_name("stream"), files=[file(key="radio/9.9")], roleArn=ROLE)
    client.delete_stream(streamId=second)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_stream(streamId=second)
