"""Load on a server, and a record of every acknowledgement it gave: what must be there after a crash.

A record is written before anything is sent (`sent`) and when the answer has come (`acknowledged`). What was sent without
an answer may or may not have happened; what was acknowledged must have.
"""

import collections
import itertools
import random
import subprocess
import threading

import botocore.exceptions

from api import iot
from clients import Paho, Refused
from server import document, allow

WINDOW = 20  # messages a publisher has unacknowledged, the server's default limit
DRAIN_LIMIT_S = 30
ATTACHED_MAX = 9  # policies on one certificate, beside its first; AWS's limit is 10

PUBLISHER_POLICY = document(
    allow("Connect", "client/*"), allow(["Publish", "RetainPublish"], "topic/load/*", "topic/keep/*"))
RECEIVER_POLICY = document(
    allow("Connect", "client/*"), allow("Subscribe", "topicfilter/load/*", "topicfilter/keep/*"),
    allow("Receive", "topic/load/*", "topic/keep/*"))


class Record:
    """What was sent, what was acknowledged, what has arrived. One lock, one condition: everything that happens wakes who waits."""

    def __init__(self):
        self.changed = threading.Condition()
        self.sent = {}           # publisher → last number sent
        self.acknowledged = 0
        self.owed = set()        # acknowledged since the last check: (publisher, number)
        self.kept_sent = {}      # retained topic → last number sent
        self.kept = {}           # retained topic → last number acknowledged
        self.api = 0             # answers of the API and the command line

    def note(self, change):
        with self.changed:
            change()
            self.changed.notify_all()

    def acknowledge(self, publisher, number):
        self.acknowledged += 1
        self.owed.add((publisher, number))

    def wait_for(self, condition, limit, what):
        with self.changed:
            assert self.changed.wait_for(condition, limit), what()

    @property
    def answers(self):
        return self.acknowledged + self.api + sum(self.kept.values())


class Publisher:
    """Publishes numbered messages at QoS 1, a window of them at a time, each tenth retained, until the server is gone.

    What is not acknowledged is never sent again, so that each number has one chance.
    """

    def __init__(self, record, server, identity, version, counter, kept):
        self.record, self.name = record, identity.name
        self.counter, self.kept = counter, kept
        self.window = threading.Semaphore(WINDOW)
        self.over = threading.Event()
        self.waiting = {}
        self.early = set()
        self.lock = threading.Lock()
        self.connection = Paho(server, identity, version=version)
        self.connection.client.on_publish = self._acknowledged
        ended = self.connection.client.on_disconnect
        self.connection.client.on_disconnect = lambda *words: (ended(*words), self.over.set(), self.window.release(2))
        self.connection.connect()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _acknowledged(self, client, userdata, mid, reason, properties):
        assert not reason.is_failure, reason
        with self.lock:
            note = self.waiting.pop(mid, None)
            if note is None:
                self.early.add(mid)  # the answer overtook the return of publish()
        if note:
            self.record.note(note)
        self.window.release()

    def _send(self, topic, payload, retain, sent, note):
        self.record.note(sent)
        mid = self.connection.client.publish(topic, payload, 1, retain).mid
        with self.lock:
            if mid in self.early:
                self.early.discard(mid)
            else:
                self.waiting[mid], note = note, None
        if note:
            self.record.note(note)

    def _run(self):
        record, name = self.record, self.name
        while True:
            self.window.acquire()
            if self.over.is_set():
                return
            n = next(self.counter)
            if n % 10:
                self._send(f"load/{name}", f"{name} {n}", False,
                           lambda: record.sent.update({name: n}), lambda n=n: record.acknowledge(name, n))
            else:
                topic, n = f"keep/{name}/{n % 7}", next(self.kept)
                self._send(topic, f"{n}", True, lambda: record.kept_sent.update({topic: n}),
                           lambda n=n, topic=topic: record.kept.update({topic: max(n, record.kept.get(topic, 0))}))

    def close(self):
        self.over.set()
        self.window.release(2)
        self.thread.join(DRAIN_LIMIT_S)
        self.connection.client.loop_stop()
        self.connection.close()


class Receiver:
    """A device with a durable session on everything that is published; remembers the first arrival of each message."""

    def __init__(self, record, server, identity, version):
        self.record, self.server, self.identity, self.version = record, server, identity, version
        self.first = {}        # publisher → numbers, in order of first arrival
        self.have = set()
        self.deliveries = 0
        self.connection = None

    def online(self):
        more = {"expiry": 86_400} if self.version == 5 else {}
        connection = Paho(self.server, self.identity, version=self.version, clean=False, **more)
        connection.client.on_message = self._arrived
        connection.connect()
        self.connection = connection
        return self

    def _arrived(self, client, userdata, message):
        publisher, _, number = message.payload.decode().partition(" ")
        arrival = (publisher, int(number))

        def change():
            self.deliveries += 1
            if arrival not in self.have:
                self.have.add(arrival)
                self.first.setdefault(publisher, []).append(arrival[1])

        self.record.note(change)

    def offline(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def missing(self):
        return self.record.owed - self.have

    def disorder(self):
        """The first pair of messages of one publisher that came the wrong way round."""
        for publisher, numbers in self.first.items():
            for before, after in itertools.pairwise(numbers):
                if after < before:
                    return f"{self.identity.name}: {publisher} {after} came after {before}"
        return None


class Operator:
    """Creates, attaches, deletes and revokes over the API and the command line, and remembers every success."""

    def __init__(self, server, numbers):
        self.server, self.numbers = server, numbers
        self.client = iot(server)
        self.things, self.gone, self.policies, self.devices, self.revoked, self.attached = set(), set(), set(), {}, {}, set()
        self.attachments = collections.Counter()
        self.doubtful = set()  # asked for, no answer: either way is right

    def api(self, record, over):
        client = self.client
        text = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'

        def done(change):
            record.note(lambda: (change(), setattr(record, "api", record.api + 1)))

        while not over.is_set():
            n = next(self.numbers)
            thing, policy = f"thing-{n}", f"policy-{n}"
            try:
                client.create_thing(thingName=thing, attributePayload={"attributes": {"n": str(n)}})
                done(lambda: self.things.add(thing))
                if n % 3 == 0:
                    self.doubtful.add(thing)
                    client.delete_thing(thingName=thing)
                    done(lambda: (self.things.discard(thing), self.gone.add(thing)))
                client.create_policy(policyName=policy, policyDocument=text)
                done(lambda: self.policies.add(policy))
                target = next((d.arn for d in self.devices.values() if self.attachments[d.arn] < ATTACHED_MAX), None)
                if target:
                    self.attachments[target] += 1
                    client.attach_policy(policyName=policy, target=target)
                    done(lambda: self.attached.add((policy, target)))
            except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError):
                return  # the server is gone

    def commands(self, record, over):
        while not over.is_set():
            name = f"lamp-{next(self.numbers)}"
            try:
                identity = self.server.device(name)
            except (AssertionError, subprocess.TimeoutExpired):
                assert over.wait(DRAIN_LIMIT_S), "a verb failed though the server runs"
                return
            record.note(lambda: (self.devices.update({name: identity}), setattr(record, "api", record.api + 1)))
            if random.random() < 0.5:
                self.doubtful.add(name)
                if self.server.run("device", "revoke", name, "--yes").returncode:
                    assert over.wait(DRAIN_LIMIT_S), "a verb failed though the server runs"
                    return
                record.note(lambda: (self.revoked.update({name: self.devices.pop(name)}), setattr(record, "api", record.api + 1)))

    def check(self):
        """Everything acknowledged is there; nothing deleted or revoked is back."""
        client = self.client
        things = {t["thingName"]: t for page in client.get_paginator("list_things").paginate() for t in page["things"]}
        policies = {p["policyName"] for page in client.get_paginator("list_policies").paginate() for p in page["policies"]}
        lost = (self.things - self.doubtful | self.devices.keys() | self.revoked.keys()) - things.keys()
        assert not lost, f"acknowledged things are gone: {lost}"
        assert not (self.policies - policies), f"acknowledged policies are gone: {self.policies - policies}"
        assert not (self.gone & things.keys()), f"deleted things are back: {self.gone & things.keys()}"
        for thing in self.things & things.keys():
            assert things[thing]["attributes"] == {"n": thing.rpartition("-")[2]}, things[thing]
        for policy, target in self.attached:
            held = client.list_attached_policies(target=target)["policies"]
            assert policy in {p["policyName"] for p in held}, f"{policy} is no longer attached to {target}"
        for name, identity in self.devices.items():
            status = client.describe_certificate(certificateId=identity.id)["certificateDescription"]["status"]
            assert status == "ACTIVE" or name in self.doubtful, f"{name} is {status}"
        for name, identity in self.revoked.items():
            status = client.describe_certificate(certificateId=identity.id)["certificateDescription"]["status"]
            assert status == "REVOKED", f"{name} was revoked and is {status}"
        # What is checked once stays; the next round brings its own.
        self.attached.clear()
        for name in [*self.revoked][:-3]:
            del self.revoked[name]
        for name in self.revoked:
            try:
                Paho(self.server, self.revoked[name]).connect().close()
            except Refused:
                continue
            raise AssertionError(f"{name} was revoked and connects again")


class Load:
    """Publishers, receivers and an operator on one server, through as many of its lives as one likes."""

    def __init__(self, server, publishers=4, receivers=4):
        self.server, self.record = server, Record()
        server.policy("publisher", PUBLISHER_POLICY)
        server.policy("receiver", RECEIVER_POLICY)
        self.sources = [
            (server.device(f"pub-{i}", "--policy", "publisher"), 4 + i % 2, itertools.count(1), itertools.count(1))
            for i in range(publishers)]
        self.receivers = [
            Receiver(self.record, server, server.device(f"sub-{i}", "--policy", "receiver"), 5 - i % 2)
            for i in range(receivers)]
        self.reader = server.device("reader", "--policy", "receiver")
        for receiver in self.receivers:
            receiver.online()
            assert receiver.connection.subscribe("load/#", 1) == 1
            receiver.offline()
        self.operator = Operator(server, itertools.count(1))
        self.over = threading.Event()
        self.faults = []

    def begin(self, online):
        """Puts the load on; the receivers with these indices listen."""
        self.over.clear()
        for index in online:
            self.receivers[index].online()
        self.publishers = [Publisher(self.record, self.server, *source) for source in self.sources]
        self.threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True)
                        for work in (self.operator.api, self.operator.commands)]
        for thread in self.threads:
            thread.start()

    def _guarded(self, work):
        try:
            work(self.record, self.over)
        except BaseException as fault:  # shown by end()
            self.faults.append(fault)

    def answers(self, count):
        """Waits until so many more answers have come."""
        goal = self.record.answers + count
        self.record.wait_for(lambda: self.record.answers >= goal or self.faults, DRAIN_LIMIT_S,
                             lambda: f"only {self.record.answers} of {goal} answers came")

    def end(self):
        """After the server has gone."""
        self.over.set()
        for publisher in self.publishers:
            publisher.close()
        for thread in self.threads:
            thread.join(DRAIN_LIMIT_S)
            assert not thread.is_alive()
        for receiver in self.receivers:
            receiver.offline()
        if self.faults:
            raise self.faults[0]

    def check(self):
        """Every promise, on the server as it runs now."""
        for receiver in self.receivers:
            if receiver.connection is None:
                receiver.online()
            assert receiver.connection.session_present, f"{receiver.identity.name} has lost its session"
        record = self.record
        record.wait_for(
            lambda: not any(r.missing() for r in self.receivers), DRAIN_LIMIT_S,
            lambda: "acknowledged and never delivered: " + "; ".join(
                f"{r.identity.name} lacks {len(r.missing())}, first {sorted(r.missing())[:5]}" for r in self.receivers if r.missing()))
        # Everybody has them, so that the next check need not go through all there ever were.
        record.owed.clear()
        for receiver in self.receivers:
            receiver.offline()
            assert receiver.disorder() is None, receiver.disorder()
            invented = {p: n[-1] for p, n in receiver.first.items() if n[-1] > record.sent.get(p, 0)}
            assert not invented, f"never sent: {invented}"
        self._check_kept()
        self.operator.check()

    def _check_kept(self):
        """Of each retained topic the last acknowledged value is served, or a later one that was sent."""
        reader = Paho(self.server, self.reader).connect()
        try:
            reader.subscribe("keep/#", 1)
            wanted = dict(self.record.kept)
            while wanted:
                message = reader.message()
                assert message.retain
                value, least = int(message.payload), wanted.pop(message.topic, None)
                most = self.record.kept_sent[message.topic]
                assert least is None or least <= value <= most, f"{message.topic}: {value} is kept; {least} was acknowledged, {most} sent"
        finally:
            reader.close()

    def figures(self):
        delivered = sum(len(r.have) for r in self.receivers)
        duplicates = sum(r.deliveries for r in self.receivers) - delivered
        return (f"{self.record.acknowledged} messages acknowledged, {delivered} delivered to {len(self.receivers)} durable sessions, "
                f"{duplicates} duplicates, {len(self.record.kept)} retained topics, {self.record.api} answers of API and command line")
