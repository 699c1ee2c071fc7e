"""Ten mistakes a newcomer makes. Each gets a sentence that names what is wrong and what mends it."""

import os
import subprocess

import pytest

import pki
from clients import Refused, mosquitto_pub
from server import NotReady, Server, muster
from wire import Closed, Wire

NOBODY = 65534


def clock(offset):
    """Runs a program with its wall clock wrong; its timers run as they should, and signals reach it itself."""
    library = subprocess.run(["faketime", "-f", "+0", "sh", "-c", "echo $LD_PRELOAD"], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ("env", f"LD_PRELOAD={library}", f"FAKETIME={offset}", "DONT_FAKE_MONOTONIC=1")


TOMORROW, YESTERDAY = clock("+25h"), clock("-25h")


def not_ready(make_server, *flags, wrapper=(), data=None):
    """What a server that cannot start says."""
    server = make_server(*flags, start=False, wrapper=wrapper)
    if data is not None:
        server.data = data
    with pytest.raises(NotReady) as refused:
        server.start()
    assert refused.value.code not in (0, 101), refused.value
    assert "panicked" not in refused.value.stderr
    return refused.value.stderr


@pytest.mark.parametrize("listener", ["mqtt", "wss", "https", "http"])
def test_a_port_that_is_taken(make_server, server, listener):
    port = server.port(listener)
    text = not_ready(make_server, f"--{listener}", f"127.0.0.1:{port}")
    assert f"port {port} is taken" in text and f"--{listener} ADDR:PORT" in text


def test_an_issuing_certificate_that_has_ended(make_server):
    """A server that stood in a cupboard for five years: its root is good for longer, and it can be mended."""
    server = make_server()
    server.device("lamp-1")
    assert server.terminate() == 0
    later = server.wrapper = [*clock("+1830d")]
    with pytest.raises(NotReady) as refused:
        server.start()
    assert "has really ended, start once with --rotate-issuing" in refused.value.stderr
    server.flags += ["--rotate-issuing"]
    server.start()
    server.said("the issuing certificate had ended: the next one was made", "number=2")

    def verb(*arguments):
        done = muster(*arguments, "--data", server.data, wrapper=later)
        assert done.returncode == 0, done.stderr
        return done.stdout

    verb("device", "create", "lamp-2", "--out", server.home / "out")
    assert "lamp-1" in verb("device", "list") and "lamp-2" in verb("device", "list")
    assert "issuing certificate" not in verb("status")
    # Said at each start it makes one only where one is needed.
    server.restart()
    assert "lamp-2" in verb("device", "list") and "number=3" not in server.stderr()


def test_a_data_directory_that_is_not_writable(make_server, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    wrapper = ()
    if os.geteuid() == 0:
        # Root may write anywhere: be somebody else, who can still reach the place.
        wrapper = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        for place in [tmp_path, *tmp_path.parents]:
            if not place.stat().st_mode & 0o001:
                place.chmod(place.stat().st_mode | 0o011)
    text = not_ready(make_server, wrapper=wrapper, data=closed / "data")
    assert str(closed / "data") in text
    assert "no permission" in text and "another --data directory" in text, text


def test_another_account_than_the_datas(make_server, connect):
    """Policies name the account, so the devices could not connect; a start under another changes nothing."""
    server = make_server("--region", "eu-1")
    lamp = server.device("lamp")
    server.terminate()
    text = not_ready(make_server, "--account", "123456789012", data=server.data)
    assert "'000000000000'" in text.replace('"', "'") and "123456789012" in text, text
    assert "start with --account 000000000000" in text and str(server.data) in text, text
    # The region may change.
    server.flags = ["--region", "local", "--name", "localhost"]
    server.start("--account", "000000000000")
    assert connect(server, lamp).alive()


def test_a_data_directory_that_is_a_file(make_server, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    text = not_ready(make_server, data=file)
    assert f"{file} is not a directory" in text and "--data" in text, text
    assert file.read_text() == "mine"


def test_a_name_the_certificate_lacks_is_named_by_the_server(shared, device):
    """The client refuses, as it must; the server, which alone can mend it, says how."""
    with pytest.raises(Closed, match="(?i)hostname mismatch"):
        Wire(shared, device(), name="broker.example")
    assert shared.said("dials broker.example", "--name broker.example")


def test_an_address_the_certificate_lacks_is_named_by_the_server(shared, device):
    """An address is not told in the handshake, so the sentence speaks of the name dialled."""
    lamp = device()
    assert mosquitto_pub(shared, lamp, "-t", f"dt/{lamp.name}/x", "-m", "1", host="127.0.0.1").returncode != 0
    assert shared.said("TLS handshake failed", "--name HOST")


def test_a_name_the_certificate_lacks_is_named_by_the_command_line(shared):
    credentials = shared.data / "operators/admin.credentials"
    done = muster("status", "--server", f"https://127.0.0.1:{shared.port('https')}", "--credentials", credentials)
    assert done.returncode == 1
    assert "does not carry the name 127.0.0.1" in done.stderr and "--name 127.0.0.1" in done.stderr


def test_a_wrong_cafile(shared, device, tmp_path):
    lamp = device()
    other = pki.Signer.foreign()
    foreign = pki.save(tmp_path, "root", other.certificate, [], other.key)
    done = mosquitto_pub(shared, lamp, "-t", f"dt/{lamp.name}/x", "-m", "1", cafile=foreign.certificate)
    assert done.returncode != 0
    assert shared.said("TLS handshake failed", "--cafile", "ca/root.crt")


@pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5.0"])
def test_a_client_id_that_is_not_the_things_name(shared, device, connect, version):
    lamp = device()
    with pytest.raises(Refused) as refused:
        connect(shared, lamp, version=version, client_id=f"my-{lamp.name}")
    if version == 5:
        assert refused.value.reason == 0x87
        assert lamp.name in refused.value.text and "client id" in refused.value.text, refused.value.text
    else:
        assert refused.value.reason == 0x87 or refused.value.reason == 5
    assert shared.said(f"my-{lamp.name}", lamp.name, "client id")
    explained = shared.cli("policy", "explain", "--device", lamp.name, "--action", "connect", "--topic", f"my-{lamp.name}")
    assert lamp.name in explained and "iot:Connect" in explained


def test_a_topic_outside_the_policy_in_5_0(shared, device, connect):
    lamp = device()
    client = connect(shared, lamp)
    topic = f"lamps/{lamp.name}/light"
    assert client.publish(topic, "on") == 0x87
    assert "iot:Publish" in client.puback_text and topic in client.puback_text, client.puback_text
    assert shared.said("iot:Publish", topic, lamp.name)


def test_a_topic_outside_the_policy_in_3_1_1(shared, device, connect):
    lamp = device()
    client = connect(shared, lamp, version=4)
    topic = f"lamps/{lamp.name}/light"
    client.client.publish(topic, "on", 1)
    assert client.end().reason is None
    assert shared.said("iot:Publish", topic, lamp.name)
    explained = shared.cli("policy", "explain", "--device", lamp.name, "--action", "publish", "--topic", topic)
    assert "iot:Publish" in explained and topic in explained and "missing grant" in explained, explained


def test_a_devices_clock_that_is_a_day_behind(shared, device):
    """It finds the server's certificate not valid yet."""
    lamp = device()
    done = mosquitto_pub(shared, lamp, "-t", f"dt/{lamp.name}/x", "-m", "1", wrapper=YESTERDAY)
    assert done.returncode != 0
    assert shared.said("TLS handshake failed", "clock")


def test_a_servers_clock_that_is_a_day_behind(make_server):
    """It finds the device's certificate not valid yet."""
    server = make_server()
    server.terminate()
    ahead = Server(server.home, start=False, wrapper=TOMORROW, names=())
    ahead.data, ahead.flags = server.data, [*server.flags]
    ahead.start()
    try:
        made = muster("device", "create", "lamp-1", "--data", ahead.data, "--out", server.home / "lamp-1", wrapper=TOMORROW)
        assert made.returncode == 0, made.stderr
    finally:
        ahead.stop()
    server.start()
    lamp = pki.Identity(server.home / "lamp-1/lamp-1.crt", server.home / "lamp-1/lamp-1.key", server.root, "lamp-1")
    assert mosquitto_pub(server, lamp, "-t", "dt/lamp-1/x", "-m", "1").returncode != 0
    assert server.said("not valid yet", "clock")


def test_a_servers_clock_before_its_own_authority(make_server):
    """It would issue what nobody believes: it says so instead."""
    server = make_server()
    server.terminate()
    server.wrapper = [*YESTERDAY]
    with pytest.raises(NotReady) as refused:
        server.start()
    assert "clock" in refused.value.stderr and "panicked" not in refused.value.stderr, refused.value.stderr


@pytest.mark.parametrize("wrapper", [TOMORROW, YESTERDAY], ids=["ahead", "behind"])
def test_an_operators_clock_that_is_wrong_by_a_day(shared, wrapper):
    done = muster("device", "list", "--data", shared.data, wrapper=wrapper)
    assert done.returncode == 1
    assert "clock" in done.stderr, done.stderr


def test_a_device_that_is_created_twice(shared, device, tmp_path):
    lamp = device()
    text = shared.refused("device", "create", lamp.name, "--out", str(tmp_path / "again"))
    assert f"{lamp.name} exists already" in text, text
    assert "device replace" in text, text
    assert not (tmp_path / "again").exists(), "nothing may look like an identity"


def test_a_device_that_is_created_twice_in_one_place(shared, device):
    lamp = device()
    key = lamp.key.read_bytes()
    text = shared.refused("device", "create", lamp.name, "--out", str(lamp.key.parent))
    assert "already" in text and "--out" in text, text
    assert lamp.key.read_bytes() == key


def test_the_command_line_without_a_server(tmp_path):
    done = muster("device", "list", "--data", tmp_path / "data")
    assert done.returncode == 1
    assert "no server runs" in done.stderr and "muster serve --data" in done.stderr and "--server" in done.stderr


def test_the_command_line_after_its_server_was_killed(server):
    server.kill9()
    text = server.refused("device", "list")
    assert "no server answers" in text and "muster serve" in text, text


def test_the_credentials_of_another_server(shared, server):
    """They are known by the root they trust: nothing is sent to a server that is not theirs."""
    credentials = server.data / "operators/admin.credentials"
    done = muster("device", "list", "--server", f"https://localhost:{shared.port('https')}", "--credentials", credentials)
    assert done.returncode == 1
    assert "is not the one these credentials are for" in done.stderr and "credentials file of that server" in done.stderr


def test_the_key_of_another_operator_store(shared, server, tmp_path):
    """The right root, but an access key the server never gave."""
    text = (shared.data / "operators/admin.credentials").read_text()
    foreign = (server.data / "operators/admin.credentials").read_text()

    def taken(source, key):
        return next(line for line in source.splitlines() if line.split("=")[0].strip() == key)

    for key in ("aws_access_key_id", "aws_secret_access_key"):
        text = text.replace(taken(text, key), taken(foreign, key))
    mixed = tmp_path / "mixed.credentials"
    mixed.write_text(text)
    done = muster("device", "list", "--credentials", mixed)
    assert done.returncode == 1
    assert "mixed.credentials" in done.stderr and "muster operator" in done.stderr and "UnrecognizedClientException" in done.stderr, done.stderr
    assert taken(foreign, "aws_secret_access_key").split("=", 1)[1].strip() not in done.stderr


@pytest.mark.parametrize("flags, words", [
    (("--public-url", "foo"), ("--public-url", '"foo"', "http://")),
    (("--name", "a b"), ("--name", '"a b"')),
    (("--account", "1"), ("--account", '"1"', "12 digits")),
], ids=lambda value: value[0])
def test_a_flag_that_cannot_be_makes_nothing(make_server, flags, words):
    server = make_server(*flags, start=False)
    with pytest.raises(NotReady) as refused:
        server.start()
    assert refused.value.code == 1 and all(word in refused.value.stderr for word in words), refused.value.stderr
    assert not server.data.exists() or not any(server.data.iterdir()), list(server.data.iterdir())


@pytest.mark.parametrize("flag, value, word", [("--wave", "10x", "group:NAME"), ("--window", "0 2 * * *", "CRON/DURATION"), ("--zone", "Berlin", "Europe/Berlin")])
def test_a_rollout_flag_that_is_not_understood_is_named(shared, flag, value, word):
    more = ("--window", "0 2 * * */3h") if flag == "--zone" else ()
    text = shared.refused("rollout", "start", "lamp", "2.0.0", "--group", "hall", flag, value, *more)
    assert text.startswith(f"muster: {flag} ") and value in text and word in text and "column" not in text, text


def test_a_threshold_that_could_never_be_met(tmp_path):
    made = muster("firmware", "keygen", "--out", tmp_path)
    assert made.returncode == 0, made.stderr
    key = tmp_path / "release.key"
    for threshold, keys in (("2", [key]), ("2", [key, key]), ("0", [key])):
        named = [word for key in keys for word in ("--key", key)]
        done = muster("firmware", "root", *named, "--threshold", threshold, "--out", tmp_path / "root.json")
        assert done.returncode == 1 and f"--threshold {threshold}: write 1 to 1" in done.stderr and "--pub" in done.stderr, done.stderr
    assert not (tmp_path / "root.json").exists()


def test_a_policy_is_attached_to_a_device_or_a_group(server):
    """As an operator types it."""
    done = muster("policy", "attach", "device-default")
    assert done.returncode == 2 and "--device <D>|--group <G>" in done.stderr, done.stderr
    server.cli("group", "create", "lamps")
    server.policy("lit", {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Publish", "Resource": "*"}]})
    lamp = server.device("lamp-1", "--group", "lamps")
    asks = ("policy", "explain", "--device", lamp.name, "--action", "publish", "--topic", "hall/light")
    for verb, answer in (("detach", "implicit deny"), ("attach", "allow"), ("detach", "implicit deny")):
        server.cli("policy", verb, "lit", "--group", "lamps")
        assert server.cli(*asks).startswith(answer), verb


def test_the_policy_that_everybody_gets_is_not_deleted(server):
    text = server.refused("policy", "delete", "device-default", "--yes")
    assert "muster policy update device-default" in text, text
    server.device("lamp-1")
