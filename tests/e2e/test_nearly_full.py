"""A disk that is nearly full: what devices send is not taken, so that the registry can still change; and whoever is known comes
and goes, is told, and is revoked meanwhile."""

import json
import os
from contextlib import contextmanager

import pytest

import wire
from api import iot
from clients import WAIT_S, Paho, Refused
from devices import thing_arn
from disk import SmallDisk
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from server import EVERYTHING, Server
from test_disk import needs_mount, wait_for
from test_jobs import Jobs
from wire import Wire

DISK_BYTES, LEFT_BYTES = 256 << 20, 14 << 20  # a sixteenth is kept back
DAY_S = 86_400
NEARLY_FULL = "the journal takes nothing new: the disk is nearly full"
pytestmark = needs_mount


class House:
    """A server whose disk can be nearly full."""

    def __init__(self, home, disk, *flags):
        self.disk, self.server = disk, Server(home, *flags)
        self.server.policy("all", EVERYTHING)
        self.identities = {}

    def device(self, name):
        self.identities[name] = self.server.device(name, "--policy", "all")
        return self.identities[name]

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

    def files(self):
        """Descriptors that the server has open."""
        return len(os.listdir(f"/proc/{self.server.process.pid}/fd"))

    def waits_for(self, topic):
        """Somebody who is away, so that what is published there needs the disk."""
        away = self.lasting(self.device("away"))
        away.subscribe(topic)
        away.disconnect()


@contextmanager
def opened(tmp_path, settings=""):
    home = tmp_path / "small"
    home.mkdir()
    (home / "muster.toml").write_text(settings)
    with SmallDisk(home / "data", DISK_BYTES) as disk:
        house = House(home, disk, "--config", home / "muster.toml")
        try:
            yield house
        finally:
            house.server.stop()


@pytest.fixture
def house(tmp_path):
    with opened(tmp_path) as house:
        yield house


def will(payload, qos=1, delay=None, retain=False):
    properties = Properties(PacketTypes.WILLMESSAGE)
    if delay is not None:
        properties.WillDelayInterval = delay
    return "will", {"payload": payload, "qos": qos, "retain": retain, "properties": properties}


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
    dying = house.lasting(one, will=will(b"gone", delay=1))
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


def test_a_lost_connection_keeps_no_place_for_its_will(house):
    lamp = house.device("lamp")
    house.waits_for("will")
    house.fill()
    before = house.files()
    for retain in [True, False] * 10:
        house.client(lamp, will=will(b"gone", retain=retain)).drop()
    wait_for(lambda: house.files() <= before, "lost connections stay open")
    # What is to be told when there is room is told then, each of them.
    house.disk.free()
    house.server.said("the journal takes what is new again")
    back = house.lasting(house.device("late"))
    back.subscribe("will")
    assert back.payload() == b"gone", "retained"
    away = house.lasting(house.identities["away"])
    assert [away.payload() for _ in range(20)] == [b"gone"] * 20


def test_more_wills_than_may_wait_are_dropped_and_counted(house):
    lamp = house.device("lamp")
    house.waits_for("will")
    house.fill()
    for _ in range(66):
        house.client(lamp, will=will(b"gone")).drop()
    dropped = lambda: house.server.json("status")["broker"]["droppedWill"]
    wait_for(lambda: dropped() == 2, "64 of one device may wait")
    house.client(house.device("other"), will=will(b"other")).drop()
    house.disk.free()
    away = house.lasting(house.identities["away"])
    heard = [away.payload() for _ in range(65)]
    assert heard.count(b"gone") == 64 and b"other" in heard


def test_who_comes_back_with_a_clean_start_does_not_wait_for_its_old_will(house):
    lamp = house.device("lamp")
    house.waits_for("will")
    before = house.lasting(lamp, will=will(b"gone", delay=3600))
    house.fill()
    before.drop()
    house.client(lamp).drop()
    house.lasting(lamp).disconnect()
    house.disk.free()
    assert house.lasting(house.identities["away"]).payload() == b"gone"


def test_who_comes_back_to_a_session_that_is_to_end_does_not_wait_for_room(house):
    lamp = house.device("lamp")
    house.lasting(lamp).disconnect()
    house.fill()
    with pytest.raises(Refused):
        house.client(lamp, clean=False, will=will(bytes(2000)))
    back = house.lasting(lamp)
    assert back.session_present, "it waits on"
    back.disconnect()
    back = house.client(lamp, clean=False)
    assert back.session_present
    back.disconnect()


def test_a_session_that_is_pushed_out_holds_up_nobody_with_its_will(tmp_path):
    with opened(tmp_path, "[limits]\nparked_sessions = 4\n") as house:
        many, lamp = house.device("many"), house.device("lamp")
        house.waits_for("will")
        for n in range(2):
            house.lasting(many, client_id=f"many-{n}", will=will(b"gone", delay=3600)).drop()
        house.fill()
        house.lasting(lamp).disconnect()
        back = house.lasting(lamp)
        assert back.session_present
        back.disconnect()
        house.disk.free()
        assert house.lasting(house.identities["away"]).payload() == b"gone"


def test_however_often_a_device_comes_back_the_registry_has_its_room(house):
    lamp, bad = house.device("lamp"), house.device("bad")
    house.fill()
    # A session's record and a short will are kept each time, and what they take the place of goes.
    for _ in range(60):
        house.lasting(lamp, will=will(bytes(900))).drop()
    # A long will is not: its sender is told at once, and others come and go.
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            house.lasting(lamp, will=will(bytes(60_000)))
        assert refused.value.reason == 0x89 and "nearly full" in refused.value.text
    back = house.lasting(lamp)
    assert back.session_present
    back.disconnect()
    house.server.cli("device", "revoke", "bad", "--yes")
    with pytest.raises(Refused):
        house.client(bad)
    house.disk.free()
    house.server.said("the journal takes what is new again")
    house.lasting(lamp, will=will(bytes(60_000))).disconnect()


def test_who_is_owed_retained_messages_is_heard_meanwhile(house):
    sender = Wire(house.server, house.device("sender"))
    assert sender.open("sender") == 0
    count = 600
    for number in range(count):
        sender.send(wire.publish(f"k/{number}", b"v", qos=1, retain=True))
        assert sender.packet()[0] == wire.PUBACK
    lamp = Wire(house.server, house.device("lamp"))
    expiry, one_at_a_time = b"\x11" + DAY_S.to_bytes(4, "big"), b"\x21\x00\x01"
    assert lamp.open("lamp", properties=expiry + one_at_a_time) == 0
    lamp.send(wire.subscribe("k/#", 1))
    assert [lamp.packet()[0] for _ in range(2)] == [wire.SUBACK, wire.PUBLISH]
    house.fill()
    # It has read as much as was in its queue before.
    packet_id = b"\0\1"
    lamp.socket.settimeout(3)
    try:
        while packet_id:
            lamp.send(wire.packet(wire.PUBACK, packet_id))
            _, _, body = lamp.packet()
            length = 2 + int.from_bytes(body[:2], "big")
            packet_id = body[length:length + 2]
    except TimeoutError:
        pass
    lamp.socket.settimeout(WAIT_S)
    lamp.send(wire.PING)
    assert lamp.packet()[0] == wire.PINGRESP
    lamp.close()


def members(house, filter, *names, qos=1):
    """Devices that share a subscription and are away."""
    for name in names:
        member = house.lasting(house.identities.get(name) or house.device(name))
        assert member.subscribe(filter, qos=qos) == qos
        member.disconnect()


@pytest.mark.parametrize("stop", ["terminate", "kill9"])
def test_what_a_member_leaves_reaches_the_next_over_a_restart(house, stop):
    members(house, "$share/g/x", "one")
    sender, payloads = house.client(house.device("sender")), [b"%d" % number for number in range(10)]
    for payload in payloads:
        assert sender.publish("x", payload) == 0
    members(house, "$share/g/x", "other")
    house.fill()
    # A clean start ends its session, and there is no room to give the next what waited in it.
    house.client(house.identities["one"]).disconnect()
    getattr(house.server, stop)()
    house.disk.free()
    # It has been away for seconds, and its ports may be others' now.
    house.server.endpoints.clear()
    house.server.start()
    other = house.lasting(house.identities["other"])
    assert other.session_present
    assert sorted(other.payload() for _ in payloads) == payloads


def test_a_message_of_qos_2_goes_to_a_member_that_is_there_when_there_is_room(house):
    members(house, "$share/g/x", "one", "other", qos=2)
    house.fill()
    sender, before = house.client(house.device("sender")), house.held()
    sender.client.publish("x", b"once", 2)
    wait_for(lambda: house.held() > before, "the message is not held")
    house.client(house.identities["one"]).disconnect()
    house.disk.free()
    _, reason, _ = sender.published.get(timeout=WAIT_S)
    assert reason.value == 0
    assert house.lasting(house.identities["other"]).payload() == b"once"


def test_who_needs_no_disk_has_what_a_member_left_at_once(house):
    members(house, "$share/g/x", "one")
    members(house, "$share/h/y", "one")
    sender = house.client(house.device("sender"))
    for topic in ("x", "y"):
        assert sender.publish(topic, topic.encode()) == 0
    # One group has a member that is away and the other one too, but that will be helped out.
    members(house, "$share/g/x", "away")
    members(house, "$share/h/y", "away")
    house.fill()
    house.client(house.identities["one"]).disconnect()
    helper = house.client(house.device("helper"))
    assert helper.subscribe("$share/h/y") == 1
    assert helper.payload() == b"y"
    house.disk.free()
    assert house.lasting(house.identities["away"]).payload() == b"x"


def test_a_subscription_that_cannot_be_kept_is_refused_with_a_word(house):
    lamp = house.lasting(house.device("lamp"))
    house.fill()
    assert lamp.subscribe("cmd/lamp") == 0x97
    assert "nearly full" in lamp.suback.ReasonString


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
