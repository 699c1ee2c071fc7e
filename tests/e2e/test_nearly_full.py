"""A disk that is nearly full: what devices send is not taken, so that the registry can still change; and whoever is known comes
and goes, is told, and is revoked meanwhile."""

import json

import pytest

from api import iot
from clients import WAIT_S, Paho
from devices import thing_arn
from disk import SmallDisk
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from server import EVERYTHING, Server
from test_disk import needs_mount, wait_for
from test_jobs import Jobs

DISK_BYTES, LEFT_BYTES = 256 << 20, 14 << 20  # a sixteenth is kept back
DAY_S = 86_400
NEARLY_FULL = "the journal takes nothing new: the disk is nearly full"
pytestmark = needs_mount


class House:
    """A server whose disk can be nearly full."""

    def __init__(self, home, disk):
        self.disk, self.server = disk, Server(home)
        self.server.policy("all", EVERYTHING)

    def device(self, name):
        return self.server.device(name, "--policy", "all")

    def client(self, identity, **how):
        return Paho(self.server, identity, **how).connect()

    def lasting(self, identity, **how):
        return self.client(identity, clean=False, expiry=DAY_S, **how)

    def fill(self):
        """It is looked at after a commit: that of a session which lasts."""
        filler = self.device("filler")
        self.disk.leave(LEFT_BYTES)
        self.lasting(filler).disconnect()
        self.server.said(NEARLY_FULL)

    def held(self):
        return self.server.json("status")["broker"]["publishersHeld"]


@pytest.fixture
def house(tmp_path):
    home = tmp_path / "small"
    home.mkdir()
    with SmallDisk(home / "data", DISK_BYTES) as disk:
        house = House(home, disk)
        try:
            yield house
        finally:
            house.server.stop()


def test_sessions_that_last_come_and_go(house):
    lamp = house.device("lamp")
    before = house.lasting(lamp, will=("will", {"payload": b"gone", "qos": 1}))
    before.subscribe("cmd/lamp")
    house.fill()
    before.drop()
    back = house.lasting(lamp)
    assert back.session_present
    assert back.publish("dt/lamp", qos=0) == 0
    back.disconnect()
    new = house.lasting(house.device("new"))
    assert not new.session_present
    new.disconnect()
    # And with a clean start the old one ends.
    house.client(lamp).disconnect()
    assert not house.lasting(lamp).session_present


def test_who_subscribes_while_a_retained_message_waits_has_it_in_the_end(house):
    sender = house.client(house.device("sender"))
    assert sender.publish("state/x", b"old", retain=True) == 0
    house.fill()
    before = house.held()
    sender.client.publish("state/x", b"new", 1, True)
    wait_for(lambda: house.held() > before, "the message is not held")
    late = house.client(house.device("late"))
    late.subscribe("state/#")
    assert late.payload() == b"old"
    house.disk.free()
    _, reason, _ = sender.published.get(timeout=WAIT_S)
    assert reason.value == 0, "somebody has subscribed meanwhile"
    assert late.payload() == b"new"


def test_a_will_that_waits_for_room_holds_up_nobody_and_is_not_published_after_a_revocation(house):
    away, one, other = (house.device(name) for name in ("away", "one", "other"))
    # Its session is the first, so it hears of the will before there is no room for the other.
    witness = house.client(house.device("witness"))
    witness.subscribe("will")
    waiting = house.lasting(away)
    waiting.subscribe("will")
    waiting.disconnect()
    properties = Properties(PacketTypes.WILLMESSAGE)
    properties.WillDelayInterval = 1
    dying = house.lasting(one, will=("will", {"payload": b"gone", "qos": 1, "properties": properties}))
    house.lasting(other).disconnect()
    house.fill()
    dying.drop()
    assert witness.payload() == b"gone"
    for device in ("other", "one"):
        house.server.cli("device", "revoke", device, "--yes")
    house.server.said("parked session dropped", "other")
    house.server.said("parked session dropped", "one")
    house.disk.free()
    house.server.said("the journal takes what is new again")
    back = house.lasting(away)
    assert back.session_present
    assert witness.publish("will", b"mark") == 0
    assert back.payload() == b"mark"


def test_jobs_go_on_and_who_is_connected_is_notified(house):
    lamp, other = house.device("lamp"), house.device("other")
    agent = house.lasting(lamp)
    agent.subscribe("$aws/things/lamp/jobs/notify")
    jobs = Jobs(house.client(other), "other")
    house.fill()
    iot(house.server).create_job(jobId="blink", targets=[thing_arn("lamp"), thing_arn("other")], document=json.dumps({"blink": 1}))
    assert "blink" in agent.payload().decode()
    ending, answer = jobs.listen("get/accepted").ask("get")
    assert ending == "get/accepted" and answer["queuedJobs"][0]["jobId"] == "blink"
