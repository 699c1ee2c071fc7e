"""Unmodified MQTT clients, and a way to wait for what they hear: events, never sleeps."""

import queue
import ssl
import subprocess
import threading
import uuid

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

WAIT_S = 15


def tls_context(identity, root=None, version=None):
    """What a careful device uses: its certificate, the root, the host's name checked."""
    context = ssl.create_default_context(cafile=str(root or identity.root))
    if identity.certificate is not None:
        context.load_cert_chain(str(identity.certificate), str(identity.key))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class Refused(AssertionError):
    """The server did not take the connection. `reason` is the CONNACK's code, or what ended it before one came."""

    def __init__(self, reason, text=""):
        super().__init__(f"{reason} {text}")
        self.reason, self.text = reason, text


class Ended:
    """How a connection ended: the reason code of a DISCONNECT, None where there was none."""

    def __init__(self, reason, text):
        self.reason, self.text = reason, text


class Paho:
    """paho-mqtt, version 3.1.1 (`version=4`) or 5, over TCP or WebSocket."""

    def __init__(self, server, identity, version=5, client_id=None, clean=True, expiry=0, keepalive=60, websocket=False,
                 path="/mqtt", will=None, context=None, host=None, receive_maximum=None):
        self.server, self.identity, self.version = server, identity, version
        self.client_id = identity.name if client_id is None else client_id
        self.messages = queue.Queue()
        self.subscribed = queue.Queue()
        self.published = queue.Queue()
        self.unsubscribed = queue.Queue()
        self.ended = queue.Queue()
        self._connected = queue.Queue()
        self._mid = threading.Lock()
        more = {"clean_session": clean} if version == 4 else {}
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=self.client_id, protocol=version,
            transport="websockets" if websocket else "tcp", reconnect_on_failure=False, **more)
        self.client.tls_set_context(context or tls_context(identity))
        if websocket:
            self.client.ws_set_options(path=path)
        self._place = server.place("wss" if websocket else "mqtt")
        if host:
            self._place = (host, self._place[1])
        self._keepalive = keepalive
        self._connect = {}
        if version == 5:
            properties = Properties(PacketTypes.CONNECT)
            if expiry:
                properties.SessionExpiryInterval = expiry
            if receive_maximum:
                properties.ReceiveMaximum = receive_maximum
            self._connect = {"clean_start": clean, "properties": properties}
        if will:
            self.client.will_set(*will[:1], **will[1])
        self.client.on_connect = lambda c, u, flags, reason, properties: self._connected.put((flags, reason, properties))
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        self.client.on_subscribe = lambda c, u, mid, reasons, properties: self.subscribed.put((mid, reasons, properties))
        self.client.on_unsubscribe = lambda c, u, mid, reasons, properties: self.unsubscribed.put((mid, reasons))
        self.client.on_publish = lambda c, u, mid, reason, properties: self.published.put((mid, reason, properties))
        self.client.on_disconnect = self._on_disconnect

    def _on_disconnect(self, client, userdata, flags, reason, properties):
        told = flags.is_disconnect_packet_from_server
        end = Ended(reason.value if told else None, getattr(properties, "ReasonString", ""))
        self.ended.put(end)
        self._connected.put((None, end, None))

    def connect(self):
        """Returns itself once connected; raises `Refused` where the server says no or nothing."""
        try:
            self.client.connect(*self._place, keepalive=self._keepalive, **self._connect)
        except (OSError, paho.WebsocketConnectionError) as error:
            raise Refused("transport", str(error)) from error
        self.client.loop_start()
        flags, reason, properties = self._connected.get(timeout=WAIT_S)
        if flags is None:
            raise Refused("closed", reason.text)
        if reason.is_failure:
            raise Refused(reason.value, getattr(properties, "ReasonString", ""))
        self.session_present = flags.session_present
        self.properties = properties
        return self

    def subscribe(self, topic, qos=1, options=None, properties=None):
        """Returns the reason code of the SUBACK (0, 1: granted QoS)."""
        given = {"options": SubscribeOptions(qos, **(options or {})), "properties": properties} if self.version == 5 else {"qos": qos}
        result, mid = self.client.subscribe(topic, **given)
        assert result == paho.MQTT_ERR_SUCCESS, result
        answered, reasons, self.suback = self.subscribed.get(timeout=WAIT_S)
        assert answered == mid
        return reasons[0].value

    def unsubscribe(self, topic):
        self.client.unsubscribe(topic)
        return self.unsubscribed.get(timeout=WAIT_S)

    def publish(self, topic, payload=b"", qos=1, retain=False, properties=None):
        """Publishes; from QoS 1 on returns the reason code of a refusal, 0 for none (0x10, no subscriber, is none)."""
        self.client.publish(topic, payload, qos, retain, properties)
        _, reason, answer = self.published.get(timeout=WAIT_S)
        self.puback_text = getattr(answer, "ReasonString", "")
        return reason.value if reason.is_failure else 0

    def message(self):
        """The next message that comes."""
        return self.messages.get(timeout=WAIT_S)

    def payload(self):
        return self.message().payload

    def end(self):
        """Waits until the server has ended the connection."""
        return self.ended.get(timeout=WAIT_S)

    def alive(self):
        return self.client.is_connected()

    def disconnect(self):
        """Says goodbye as a client should."""
        self.client.disconnect()
        self.ended.get(timeout=WAIT_S)
        self.client.loop_stop()

    def drop(self):
        """Loses the connection without a goodbye, so that the will is due."""
        socket = self.client.socket()
        if socket is not None:
            raw = getattr(socket, "_socket", socket)
            raw.shutdown(2)
        self.ended.get(timeout=WAIT_S)
        self.client.loop_stop()

    def close(self):
        """For finalizers."""
        self.client.disconnect()
        self.client.loop_stop()
        socket = self.client.socket()
        if socket is not None:
            socket.close()


def proves_silence(publisher, topic, receiver):
    """Nothing more comes to `receiver` than what was sent before: a marker sent now is the next thing it hears."""
    marker = uuid.uuid4().hex
    assert publisher.publish(topic, marker) == 0
    heard = receiver.payload()
    assert heard == marker.encode(), f"heard {heard!r} instead of the marker"


# -- mosquitto's own programs

def mosquitto(program, server, identity, *arguments, host="localhost", cafile=None, client_id=None, wrapper=()):
    command = [
        *wrapper, program, "-h", host, "-p", str(server.port("mqtt")), "--cafile", str(cafile or identity.root),
        "--cert", str(identity.certificate), "--key", str(identity.key), "-i", client_id or identity.name,
        *map(str, arguments),
    ]
    return command


def mosquitto_pub(server, identity, *arguments, **how):
    """Runs mosquitto_pub to its end."""
    return subprocess.run(mosquitto("mosquitto_pub", server, identity, *arguments, **how), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=30)


class MosquittoSub:
    """mosquitto_sub that is subscribed when the constructor returns; a context manager."""

    def __init__(self, server, identity, topic, *arguments, **how):
        command = mosquitto("mosquitto_sub", server, identity, "-t", topic, "-d", "-F", "heard %t %p", *arguments, **how)
        # -d says when the SUBACK has come, on the same pipe.
        self.process = subprocess.Popen(["stdbuf", "-oL", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        self.lines = queue.Queue()
        self._said = []
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for("Subscribed (mid")

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def message(self):
        """The next message, as `TOPIC PAYLOAD`."""
        return self.wait_for("heard ").removeprefix("heard ")

    def wait_for(self, text):
        """The next line that holds `text`."""
        while True:
            line = self.lines.get(timeout=WAIT_S)
            assert line is not None, f"mosquitto_sub ended before it said {text!r}: {self._said}"
            self._said.append(line)
            if text in line:
                return line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Not SIGTERM: one that waits to connect again does not hear it.
        self.process.kill()
        self.process.wait(WAIT_S)
        self.process.stdout.close()
