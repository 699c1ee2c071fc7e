"""The first five minutes: start, create a device, publish, stop."""

import json
import re
import shlex
import signal
import stat
import subprocess

import pytest

from clients import MosquittoSub, mosquitto_pub
from pki import csr
from server import MUSTER, Identity, NotReady, Server, allow, document


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def openssl(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


def test_the_first_start_says_how_to_connect_a_first_device(server):
    text = "".join(server.first_words)
    assert "device create lamp-1" in text
    assert str(server.data) in text


@pytest.mark.parametrize("place", ["data", "my data's"])
def test_the_lines_of_the_first_start_work_as_printed(make_server, place):
    server = make_server(start=False)
    server.data = server.home / place
    server.start()
    commands = [line.strip() for line in server.first_words if " device create " in line or " policy explain " in line]
    assert len(commands) == 2, server.first_words
    for command in commands:
        done = subprocess.run(["sh", "-c", command], cwd=server.home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert "lamp-1" in done.stdout


def test_a_first_start_that_failed_is_not_the_first(make_server):
    """Who mends a flag is greeted all the same."""
    server = make_server("--name", "*.example.org", start=False)
    with pytest.raises(NotReady) as refused:
        server.start()
    assert "*.example.org" in refused.value.stderr
    server.flags = [flag for flag in server.flags if flag != "*.example.org"]
    server.flags.remove("--name")
    server.start()
    assert any("device create lamp-1" in line for line in server.first_words), server.first_words


def test_later_starts_print_only_the_ready_line(server):
    server.restart()
    assert server.first_words == []


def test_the_ready_line_and_endpoints_json_agree(server):
    ready = re.fullmatch(r"ready mqtt=(\S+:\d+) wss=(\S+:\d+) https=(\S+:\d+)", server.ready_line)
    assert ready, server.ready_line
    written = json.loads((server.data / "run/endpoints.json").read_text())
    assert set(written) == {"mqtt", "wss", "https", "http"}
    assert ready.groups() == (written["mqtt"], written["wss"], written["https"])
    assert all(value.startswith("localhost:") for value in written.values())


def test_nothing_but_what_was_said_goes_to_standard_output(server):
    server.terminate()
    assert server.lines.get(timeout=10) is None


def test_secrets_are_for_their_owner_only(server):
    server.device("lamp-1")
    keys = [path for path in server.home.rglob("*") if path.is_file() and (path.suffix == ".key" or "credentials" in path.name)]
    assert {"admin.key", "admin.credentials", "issuing.key", "root.key", "lamp-1.key"} <= {path.name for path in keys}
    assert [path for path in keys if mode(path) != 0o600] == []
    public = [server.root, server.data / "operators/admin.crt"]
    assert all(mode(path) & 0o077 in (0o044, 0) for path in public)


def test_no_private_key_lies_in_a_file_others_may_read(server):
    server.device("lamp-1")
    exposed = [
        path for path in server.home.rglob("*")
        if path.is_file() and mode(path) & 0o077 and b"PRIVATE KEY" in path.read_bytes()
    ]
    assert exposed == []


def test_secrets_are_not_printed_or_logged(server):
    out = server.home / "lamp-1"
    said = server.cli("device", "create", "lamp-1", "--out", str(out)) + server.cli("device", "show", "lamp-1", "--json")
    secret = next(
        line.partition("=")[2].strip()
        for line in (server.data / "operators/admin.credentials").read_text().splitlines()
        if line.startswith("aws_secret_access_key"))
    everything = said + server.stderr() + "".join(server.first_words)
    assert "PRIVATE KEY" not in everything
    assert secret not in everything


def test_device_create_writes_what_a_device_needs(server):
    out = server.home / "lamp-1"
    said = server.cli("device", "create", "lamp-1")
    assert {path.name for path in out.iterdir()} == {"lamp-1.crt", "lamp-1.key", "root.crt"}
    assert (out / "lamp-1.crt").read_text().count("BEGIN CERTIFICATE") == 2
    assert (out / "root.crt").read_bytes() == server.root.read_bytes()
    assert "mosquitto_pub" in said


def test_the_printed_line_works_as_printed(server, connect):
    watcher = server.device("watcher", "--policy", watch_policy(server))
    said = server.cli("device", "create", "lamp-1")
    line = next(line.strip() for line in said.splitlines() if "mosquitto_pub" in line)
    client = connect(server, watcher)
    assert client.subscribe("dt/lamp-1/#") == 1
    done = subprocess.run(["sh", "-c", line], cwd=server.home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    topic = shlex.split(line)[shlex.split(line).index("-t") + 1]
    assert client.message().topic == topic


def watch_policy(server):
    server.policy("watch", document(allow("Connect", "client/watcher"), allow("Subscribe", "topicfilter/dt/*"), allow("Receive", "topic/dt/*")))
    return "watch"


def test_openssl_accepts_the_chain_of_a_device(server, tmp_path):
    lamp = server.device("lamp-1")
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", lamp.certificate.read_text(), re.S)
    leaf, issuing = tmp_path / "leaf.crt", tmp_path / "issuing.crt"
    leaf.write_text(blocks[0])
    issuing.write_text(blocks[1])
    for purpose, good in (("sslclient", True), ("sslserver", False)):
        done = openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", lamp.root, "-untrusted", issuing, leaf)
        assert (done.returncode == 0) == good, f"{purpose}: {done.stdout}{done.stderr}"
    assert "CN = lamp-1" in openssl("x509", "-in", leaf, "-noout", "-subject").stdout


def test_a_device_may_keep_its_key_and_send_a_request(server, connect):
    request, key = csr(server.home, "lamp-1")
    out = server.home / "lamp-1"
    server.cli("device", "create", "lamp-1", "--csr", str(request), "--out", str(out))
    assert not (out / "lamp-1.key").exists()
    assert connect(server, Identity(out / "lamp-1.crt", key, out / "root.crt", "lamp-1")).publish("dt/lamp-1/x") == 0


def test_the_server_certificate_carries_the_names_it_was_given(make_server, tmp_path):
    server = make_server(names=("localhost", "broker.example", "192.0.2.7"))
    lamp = server.device("lamp-1")
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", "127.0.0.1:%d" % server.port("mqtt"), "-servername", "localhost", "-CAfile", str(server.root),
         "-cert", str(lamp.certificate), "-key", str(lamp.key), "-verify_return_error", "-alpn", "mqtt"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30).stdout
    assert "ALPN protocol: mqtt" in shown
    certificate = tmp_path / "server.crt"
    certificate.write_text(shown)
    names = openssl("x509", "-in", certificate, "-noout", "-ext", "subjectAltName").stdout
    assert "DNS:localhost" in names and "DNS:broker.example" in names and "IP Address:192.0.2.7" in names


def test_names_can_change_at_a_later_start(make_server):
    server = make_server()
    server.terminate()
    server.flags += ["--name", "later.example"]
    server.start()
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", "127.0.0.1:%d" % server.port("https"), "-CAfile", str(server.root), "-verify_hostname", "later.example",
         "-verify_return_error"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert "Verify return code: 0 (ok)" in shown.stdout, shown.stderr


def test_sigterm_drains_with_a_word_to_each_session(server, connect):
    lamp, old = server.device("lamp-1"), server.device("lamp-2")
    modern, plain = connect(server, lamp), connect(server, old, version=4)
    assert server.terminate() == 0
    assert modern.end().reason == 0x8B
    assert plain.end().reason is None
    assert not (server.data / "run/endpoints.json").exists()


def test_sigint_drains_too(server):
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0


def test_what_was_made_is_there_after_a_restart(server, connect):
    lamp = server.device("lamp-1")
    root = server.root.read_bytes()
    server.restart()
    assert server.root.read_bytes() == root
    assert connect(server, lamp).publish("dt/lamp-1/x") == 0


def test_a_second_server_on_the_same_directory_is_refused(server, connect):
    lamp = server.device("lamp-1")
    second = Server(server.home, start=False)
    second.data = server.data
    with pytest.raises(NotReady) as refused:
        second.start()
    assert refused.value.code != 0
    assert "in use by another server" in refused.value.stderr and str(server.data) in refused.value.stderr
    assert json.loads((server.data / "run/endpoints.json").read_text()) == server.endpoints
    assert connect(server, lamp).publish("dt/lamp-1/x") == 0


def test_endpoints_json_of_a_killed_server_does_not_outlive_the_next_start(server):
    """Who waits for the file must not read ports that nobody answers on."""
    server.kill9()
    endpoints = server.data / "run/endpoints.json"
    assert endpoints.exists()
    (server.data / "ca/issuing.crt").write_bytes(b"")
    with pytest.raises(NotReady):
        server.start()
    assert not endpoints.exists()


def test_status_says_whether_the_server_answers(server):
    assert server.cli("status").strip() == "running"
    server.terminate()
    server.refused("status")


def test_the_program_answers_help_and_version():
    for flag in ("--help", "--version"):
        done = subprocess.run([MUSTER, flag], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
        assert done.returncode == 0 and "muster" in done.stdout.lower()


def test_without_a_verb_it_serves_on_the_default_directory(tmp_path):
    """What `cargo run --release` does. The default ports may be taken on this machine: then it must say so."""
    process = subprocess.Popen([MUSTER], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = next((line for line in process.stdout if line.startswith("ready ")), None)
        if line is None:
            assert "is taken" in process.stderr.read()
            return
        assert re.search(r"mqtt=\S+:8883 wss=\S+:8884 https=\S+:8443", line), line
        assert (tmp_path / "muster-data/ca/root.crt").exists()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()
        process.stderr.close()


def test_mosquitto_sub_hears_what_its_policy_grants(server):
    watcher = server.device("watcher", "--policy", watch_policy(server))
    lamp = server.device("lamp-1")
    with MosquittoSub(server, watcher, "dt/#", "-q", "1") as heard:
        assert mosquitto_pub(server, lamp, "-t", "dt/lamp-1/light", "-m", "on", "-q", "1").returncode == 0
        assert heard.message() == "dt/lamp-1/light on"

