"""The same tasks by unmodified clients of different makers: the three QoS, retained, wills, shared subscriptions, request
and response, and sessions over a restart of the server. (rumqttc's are in the broker's own tests.)"""

import asyncio
import signal
import subprocess

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from clients import WAIT_S, MosquittoSub, mosquitto, mosquitto_pub, tls_context
from server import EVERYTHING

V311, V5 = aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5
AIOMQTT = pytest.mark.parametrize(
    "version, transport", [(V311, "tcp"), (V5, "tcp"), (V311, "websockets"), (V5, "websockets")],
    ids=["3.1.1", "5.0", "3.1.1-wss", "5.0-wss"])
MOSQUITTO = pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])


def properties(kind, **fields):
    made = Properties(kind)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def client(version, transport):
    """Makes aiomqtt clients: `client(server, identity, lasting=True)`."""
    def make(server, identity, lasting=False, **how):
        host, port = server.place("wss" if transport == "websockets" else "mqtt")
        if version == V5:
            how |= {"clean_start": not lasting,
                    "properties": properties(PacketTypes.CONNECT, SessionExpiryInterval=300 if lasting else 0)}
        else:
            how |= {"clean_session": not lasting}
        if transport == "websockets":
            how |= {"websocket_path": "/mqtt"}
        return aiomqtt.Client(host, port, identifier=identity.name, protocol=version, transport=transport,
                              tls_context=tls_context(identity), timeout=WAIT_S, **how)
    return make


async def heard(client, count=1):
    async def take():
        return [await anext(client.messages) for _ in range(count)]
    messages = await asyncio.wait_for(take(), WAIT_S)
    return messages[0] if count == 1 else messages


def lose(client):
    """The connection is gone without a DISCONNECT."""
    sock = client._client.socket()
    getattr(sock, "_socket", sock).shutdown(2)


@AIOMQTT
def test_aiomqtt_all_qos_retained_and_request_response(shared, device, client, version):
    asked, asker = device("--policy", "everything"), device("--policy", "everything")
    topic = f"aio/{asked.name}"

    async def run():
        async with client(shared, asked) as one, client(shared, asker) as other:
            for qos in (0, 1, 2):
                await one.subscribe(f"{topic}/{qos}", qos=qos)
                await other.publish(f"{topic}/{qos}", b"\x00\xff", qos=qos)
                message = await heard(one)
                assert (message.topic.value, message.payload, message.qos, message.retain) == (f"{topic}/{qos}", b"\x00\xff", qos, False)
            await other.publish(f"{topic}/kept", b"kept", qos=1, retain=True)
            await one.subscribe(f"{topic}/kept", qos=1)
            message = await heard(one)
            assert (message.payload, message.retain) == (b"kept", True)
            await other.publish(f"{topic}/kept", b"", qos=1, retain=True)
            assert (await heard(one)).payload == b""
            # Request and response: by properties in 5.0, by agreement in 3.1.1.
            await one.subscribe(f"{topic}/ask", qos=1)
            await other.subscribe(f"{topic}/answer", qos=1)
            if version == V5:
                question = properties(PacketTypes.PUBLISH, ResponseTopic=f"{topic}/answer", CorrelationData=b"42")
                await other.publish(f"{topic}/ask", b"?", qos=1, properties=question)
                request = await heard(one)
                echo = properties(PacketTypes.PUBLISH, CorrelationData=request.properties.CorrelationData)
                await one.publish(request.properties.ResponseTopic, b"!", qos=1, properties=echo)
                answer = await heard(other)
                assert answer.properties.CorrelationData == b"42"
            else:
                await other.publish(f"{topic}/ask", b"?", qos=1)
                await heard(one)
                await one.publish(f"{topic}/answer", b"!", qos=1)
                answer = await heard(other)
            assert answer.payload == b"!"

    asyncio.run(run())


@AIOMQTT
def test_aiomqtt_will_and_shared_subscription(shared, device, client):
    sender, *members = (device("--policy", "everything") for _ in range(3))
    topic = f"aio/{sender.name}"

    async def run():
        async with client(shared, sender) as one, client(shared, members[0]) as a, client(shared, members[1]) as b:
            for member in (a, b):
                await member.subscribe(f"$share/g/{topic}/work", qos=1)
            for number in range(10):
                await one.publish(f"{topic}/work", str(number), qos=1)
            shares = []
            for member in (a, b):
                await member.subscribe(f"{topic}/end/{len(shares)}", qos=1)
                await one.publish(f"{topic}/end/{len(shares)}", b"end", qos=1)
                got = []
                while (payload := (await heard(member)).payload) != b"end":
                    got.append(int(payload))
                shares.append(got)
            # Each to one of them, and to each some.
            assert sorted(shares[0] + shares[1]) == list(range(10)) and all(shares), shares
        will = aiomqtt.Will(f"{topic}/will", b"gone", qos=1)
        async with client(shared, members[0]) as heir:
            await heir.subscribe(f"{topic}/will", qos=1)
            with pytest.raises(aiomqtt.MqttError):
                async with client(shared, sender, will=will) as lost:
                    lose(lost)
                    await heard(lost)
            assert (await heard(heir)).payload == b"gone"

    asyncio.run(run())


@AIOMQTT
@pytest.mark.parametrize("end", ["restart", "kill"])
def test_aiomqtt_session_over_a_restart(server, client, end):
    server.policy("all", EVERYTHING)
    keeper, sender = (server.device(name, "--policy", "all") for name in ("keeper", "sender"))

    async def begin():
        async with client(server, keeper, lasting=True) as one:
            for qos in (0, 1, 2):
                await one.subscribe(f"q/{qos}", qos=qos)

    async def fill(part):
        async with client(server, sender) as one:
            for qos in (1, 2):
                for number in range(5):
                    await one.publish(f"q/{qos}", f"{part} {number}", qos=qos)

    async def read():
        async with client(server, keeper, lasting=True) as one:
            messages = await heard(one, 20)
        for qos in (1, 2):
            assert [m.payload.decode() for m in messages if m.qos == qos] == [f"{p} {n}" for p in "ab" for n in range(5)]

    asyncio.run(begin())
    asyncio.run(fill("a"))
    if end == "kill":
        server.kill9()
        server.start()
    else:
        server.restart()
    asyncio.run(fill("b"))
    asyncio.run(read())


# -- mosquitto's programs

@MOSQUITTO
def test_mosquitto_retained_will_and_shared(shared, device, version):
    sender, one, two = (device("--policy", "everything") for _ in range(3))
    topic, flags = f"m/{sender.name}", ("-V", version)
    assert mosquitto_pub(shared, sender, "-t", f"{topic}/kept", "-m", "kept", "-q", "1", "-r", *flags).returncode == 0
    with MosquittoSub(shared, one, f"{topic}/#", "-q", "1", *flags) as reader:
        assert reader.message() == f"{topic}/kept kept"
        with MosquittoSub(shared, two, "nothing", "--will-topic", f"{topic}/will", "--will-payload", "gone", "--will-qos", "1", *flags) as lost:
            lost.process.send_signal(signal.SIGKILL)
            assert reader.message() == f"{topic}/will gone"
    with MosquittoSub(shared, one, f"$share/g/{topic}/work", "-q", "1", *flags) as a, \
            MosquittoSub(shared, two, f"$share/g/{topic}/work", "-q", "1", *flags) as b:
        for number in range(4):
            assert mosquitto_pub(shared, sender, "-t", f"{topic}/work", "-m", str(number), "-q", "1", *flags).returncode == 0
        got = sorted(member.message().split()[1] for member in (a, b, a, b))
        assert got == list("0123")


@MOSQUITTO
def test_mosquitto_session_over_a_restart(server, version):
    server.policy("all", EVERYTHING)
    keeper, sender = (server.device(name, "--policy", "all") for name in ("keeper", "sender"))
    flags = ["-V", version]
    lasting = ["-c", "-q", "2", *(["-x", "300"] if version == "mqttv5" else []), *flags]
    with MosquittoSub(server, keeper, "q", *lasting):
        pass
    for part, qos in (("a", 1), ("b", 2)):
        assert mosquitto_pub(server, sender, "-t", "q", "-m", part, "-q", qos, *flags).returncode == 0
        server.kill9()
        server.start()
    command = ["stdbuf", "-oL", *mosquitto("mosquitto_sub", server, keeper, "-t", "q", "-C", "2", "-W", "15", *lasting)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["a", "b"], done


def test_mosquitto_rr(shared, device, connect):
    asker, answerer = device("--policy", "everything"), connect(shared, device("--policy", "everything"))
    topic = f"rr/{asker.name}"
    answerer.subscribe(f"{topic}/ask")
    command = mosquitto("mosquitto_rr", shared, asker, "-t", f"{topic}/ask", "-e", f"{topic}/answer", "-m", "ping", "-q", "1", "-W", "15", "-V", "mqttv5")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            request = answerer.message()
            assert (request.payload, request.properties.ResponseTopic) == (b"ping", f"{topic}/answer")
            echo = properties(PacketTypes.PUBLISH)
            if hasattr(request.properties, "CorrelationData"):
                echo.CorrelationData = request.properties.CorrelationData
            assert answerer.publish(f"{topic}/answer", b"pong", properties=echo) == 0
            out, _ = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    assert (process.returncode, out.strip()) == (0, "pong")
