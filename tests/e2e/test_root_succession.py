"""The root's own end: its successor reaches devices while both are trusted, however the keys are kept, and the former goes
without anybody being cut off."""

import base64
import itertools
import json
import re
import threading

import pytest

from devices import Agent, eventually
from server import muster
from test_authority import PASSPHRASE, passphrase
from test_certificate_status import ok, run
from test_custody import LABEL, MODULE, PIN, private_keys, token
from test_mistakes import clock

assert passphrase and token

DAY_H = 24
SHORT = """transcript = "ceremony.txt"
[root]
common_name = "Short Root CA"
key = "p256"
validity_days = 30
[issuing]
common_name = "Short Devices CA"
key = "p256"
validity_days = 30
"""


def roots(server, **how):
    done = muster("ca", "show", "--json", "--data", server.data, **how)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    return [(one["number"], one["state"], one["key"]) for one in shown["roots"]]


def copy(file, to):
    to.write_text(file.read_text())
    return to


def certificates(file):
    return re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", file.read_text(), re.S)


def follows(server, root, *wrapper):
    """Whether openssl, with this root and no other, believes the server on both of its TLS faces."""
    verdicts = set()
    for face in ("https", "mqtt"):
        code, text = run(*wrapper, "openssl", "s_client", "-connect", f"localhost:{server.port(face)}", "-servername", "localhost",
                         "-verify_return_error", "-verify_hostname", "localhost", "-CAfile", root, "-no-CApath", "-no-CAstore",
                         input="")
        verdicts.add("Verify return code: 0 (ok)" in text)
    assert len(verdicts) == 1, verdicts
    return verdicts.pop()


def cacerts(server, root, directory, *wrapper):
    """Subject and issuer of each certificate that EST shows to curl."""
    text = ok(*wrapper, "curl", "-sSf", "--cacert", root, f"https://localhost:{server.port('https')}/.well-known/est/cacerts")
    cms = directory / "cacerts"
    cms.write_bytes(base64.b64decode(text))
    shown = ok("openssl", "pkcs7", "-inform", "DER", "-print_certs", "-in", cms)
    names = re.findall(r"^(?:subject|issuer)=.*?CN ?= ?(.*?)$", shown, re.M)
    return sorted(zip(names[::2], names[1::2], strict=True))


def test_devices_learn_of_the_successor_while_both_are_trusted(make_server, connect, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text("[ca]\ndevice_validity_seconds = 60\n")
    server = make_server("--config", str(settings))
    first = copy(server.root, tmp_path / "first.crt")
    agent = Agent(server, server.device("lamp-1"), tmp_path / "agents" / "lamp-1")
    try:
        eventually(lambda: "connected to" in agent.said(), agent.said, 60)
        # Certificates live for a minute here: each that speaks is fresh.
        names = itertools.count(1)

        def plain():
            """A device that knows the first root alone."""
            made = server.device(f"plain-{next(names)}")
            made.root = first
            return made

        live = connect(server, plain())
        made = server.json("ca", "succeed-root")
        assert made["number"] == 2
        assert roots(server) == [(1, "trusted", "present"), (2, "signs", "present")]
        both = certificates(server.root)
        assert len(both) == 2 and both[0] == first.read_text() and both[1] == made["certificatePem"]
        second = tmp_path / "second.crt"
        second.write_text(both[1])
        # The server's certificate moves at once; who has either root alone follows it, and so do old clients.
        eventually(lambda: follows(server, second), "the server's certificate", 30)
        assert follows(server, first)
        assert live.alive()
        connect(server, plain()).close()
        # A new device has both, and its certificate leads to the second.
        new = server.device("new")
        assert certificates(new.root) == both
        assert "OK" in ok("openssl", "verify", "-x509_strict", "-CAfile", second, "-untrusted", new.certificate, new.certificate)
        connect(server, new).close()
        shown = cacerts(server, first, tmp_path)
        common = re.search(r"CN ?= ?(.*) CA", ok("openssl", "x509", "-in", first, "-noout", "-subject")).group(1)
        old_name, new_name = f"{common} CA", f"{common} CA 2"
        for pair in ((old_name, old_name), (new_name, new_name), (new_name, old_name), (old_name, new_name)):
            assert pair in shown, shown
        # The agent takes it, as its own certificate, years before the first one's end.
        root_file = agent.identity.root
        eventually(lambda: certificates(root_file) == both, agent.said, 90)
        issuer = lambda: ok("openssl", "x509", "-in", agent.identity.certificate, "-noout", "-issuer")
        eventually(lambda: "Issuing CA 2" in issuer(), agent.said, 90)
        assert agent.process.poll() is None
        with_both = ok("curl", "-sSf", f"http://localhost:{server.port('http')}/root/1.crt", "-o", tmp_path / "one.der")
        assert with_both == "" and ok("openssl", "x509", "-inform", "DER", "-in", tmp_path / "one.der") == first.read_text()
        assert run("curl", "-sSf", f"http://localhost:{server.port('http')}/root/3.crt")[0] != 0
        server.kill9()
        server.start()
        assert follows(server, first) and follows(server, second)
        connect(server, plain()).close()
        assert server.json("audit", "run")["checks"][0]["findings"] == []
    finally:
        agent.stop()


def test_the_former_ends_and_nobody_is_cut_off(make_server, tmp_path):
    """A month's root, by faked clocks: renewed below the next within the month, the device does not notice its end."""
    file = tmp_path / "ceremony.toml"
    file.write_text(SHORT)
    server = make_server(start=False)
    done = muster("ca", "ceremony", file, "--data", server.data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    server.start()
    first = copy(server.root, tmp_path / "first.crt")
    assert "muster ca succeed-root" not in server.cli("status")
    agent = Agent(server, server.device("lamp-1"), tmp_path / "agents" / "lamp-1", start=False)
    command = agent.command

    def at(day, with_agent=True):
        """The server on that day, and the agent."""
        if agent.process is not None:
            agent.stop()
        server.terminate()
        server.wrapper = [*clock(f"+{day * DAY_H}h")]
        server.start()
        if not with_agent:
            return {"wrapper": server.wrapper}
        agent.command = [*server.wrapper, *command]
        agent.log.write_text("")
        agent.start()
        eventually(lambda: "connected to" in agent.said(), agent.said, 60)
        return {"wrapper": server.wrapper}

    try:
        day = at(21, with_agent=False)
        assert "muster ca succeed-root" in muster("status", "--data", server.data, **day).stdout
        made = muster("ca", "succeed-root", "--data", server.data, **day)
        assert made.returncode == 0, made.stderr
        # Due, it renews below the second root, and takes that.
        day = at(22)
        eventually(lambda: len(certificates(agent.identity.root)) == 2, agent.said, 120)
        issuer = lambda: ok("openssl", "x509", "-in", agent.identity.certificate, "-noout", "-issuer")
        eventually(lambda: "Devices CA 2" in issuer(), agent.said, 120)
        assert follows(server, first, *server.wrapper)
        refused = muster("ca", "retire-root", "1", "--yes", "--data", server.data, **day)
        assert refused.returncode != 0 and "--before-its-end" in refused.stderr
        day = at(31)
        assert roots(server, **day) == [(1, "ended", "present"), (2, "signs", "present")]
        assert "muster ca retire-root" in muster("status", "--data", server.data, **day).stdout
        assert not follows(server, first, *server.wrapper)
        second = tmp_path / "second.crt"
        second.write_text(certificates(server.root)[1])
        assert follows(server, second, *server.wrapper)
        assert {by for _, by in cacerts(server, second, tmp_path, *server.wrapper)} == {"Short Root CA 2"}
        retired = muster("ca", "retire-root", "1", "--yes", "--data", server.data, **day)
        assert retired.returncode == 0, retired.stderr
        assert roots(server, **day) == [(1, "retired", "offline"), (2, "signs", "present")]
        assert server.root.read_text() == second.read_text() and not (server.data / "ca/root.key").exists()
        day = at(32)
        assert roots(server, **day) == [(1, "retired", "offline"), (2, "signs", "present")]
    finally:
        if agent.process is not None:
            agent.stop()


def test_with_the_roots_key_elsewhere(server, connect, passphrase, tmp_path):
    lamp = server.device("lamp-1")
    first = copy(server.root, tmp_path / "first.crt")
    key = tmp_path / "root.key"
    opened = ("--passphrase-file", passphrase)
    server.cli("ca", "take-root-offline", "--out", key, *opened, "--yes")
    assert "offline" in server.refused("ca", "succeed-root")
    # Brought for the act.
    server.cli("ca", "succeed-root", "--root-key", key, *opened)
    assert roots(server) == [(1, "trusted", "offline"), (2, "signs", "present")]
    assert not (server.data / "ca/root.key").exists()
    connect(server, lamp).close()
    connect(server, server.device("lamp-2")).close()
    assert eventually(lambda: follows(server, first), "the server's certificate", 30)
    # Where there is no server: what is written is signed there, by openssl's reading too, and comes back.
    second_key = tmp_path / "second.key"
    server.cli("ca", "take-root-offline", "--out", second_key, *opened, "--yes")
    second, third, cross = (tmp_path / name for name in ("second.crt", "third.crt", "cross.crt"))
    second.write_text(certificates(server.root)[1])
    server.cli("ca", "succeed-root", "--successor-out", third)
    assert "is there already" in server.refused("ca", "succeed-root", "--successor-out", third)
    sign = ["ca", "cross-sign", "--root", second, "--root-key", second_key, "--successor", third]
    assert "not the key" in muster("ca", "cross-sign", "--root", first, *sign[4:], "--out", cross, *opened).stderr
    done = muster(*sign, "--out", cross, *opened)
    assert done.returncode == 0, done.stderr
    assert "OK" in ok("openssl", "verify", "-x509_strict", "-CAfile", second, cross)
    wrong = tmp_path / "wrong.crt"
    assert muster("ca", "cross-sign", "--root", second, "--root-key", second_key, "--successor", first, "--out", wrong, *opened).returncode == 0
    assert "not for the other root" in server.refused("ca", "succeed-root", "--cross", wrong)
    assert "not signed by" in server.refused("ca", "succeed-root", "--cross", third)
    assert len(roots(server)) == 2
    server.cli("ca", "succeed-root", "--cross", cross)
    assert roots(server) == [(1, "trusted", "offline"), (2, "trusted", "offline"), (3, "signs", "present")]
    server.kill9()
    server.start()
    for root in (first, second, third):
        assert follows(server, root)
    connect(server, lamp).close()
    # One that is not trusted any more, before its end, takes what is below it along; the oldest first.
    assert "retire that first" in server.refused("ca", "retire-root", "2", "--before-its-end", "--yes")
    live = connect(server, server.device("lamp-3"))
    server.cli("ca", "retire-root", "1", "--before-its-end", "--yes")
    assert live.alive()
    with pytest.raises((AssertionError, OSError)):
        connect(server, lamp)
    assert eventually(lambda: not follows(server, first), "the chain", 30)
    assert follows(server, second) and follows(server, third)


def test_one_made_elsewhere_is_taken(server, connect, passphrase, tmp_path):
    """An organisation's own, by openssl, RSA; its key signs on the operator's machine."""
    first = copy(server.root, tmp_path / "first.crt")
    key, root = tmp_path / "org.key", tmp_path / "org.crt"
    ok("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-aes256", "-pass", f"file:{passphrase}", "-out", key)
    make = ["openssl", "req", "-x509", "-new", "-key", key, "-passin", f"file:{passphrase}", "-subj", "/O=Works/CN=Works Root",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    short = tmp_path / "short.crt"
    ok(*make, "-days", "100", "-out", short)
    assert "ends before" in server.refused("ca", "succeed-root", "--cert", short, "--key", key, "--passphrase-file", passphrase)
    ok(*make, "-days", "9000", "-out", root)
    assert "passphrase" in server.refused("ca", "succeed-root", "--cert", root, "--key", key)
    assert len(roots(server)) == 1
    server.cli("ca", "succeed-root", "--cert", root, "--key", key, "--passphrase-file", passphrase)
    assert roots(server) == [(1, "trusted", "present"), (2, "signs", "offline")]
    assert eventually(lambda: follows(server, root), "the server's certificate", 30) and follows(server, first)
    lamp = server.device("lamp-1")
    connect(server, lamp).close()
    assert "OK" in ok("openssl", "verify", "-x509_strict", "-CAfile", root, "-untrusted", lamp.certificate, lamp.certificate)
    server.cli("ca", "rotate-issuing", "--root-key", key, "--passphrase-file", passphrase)
    server.kill9()
    server.start()
    assert follows(server, root)


def test_a_ceremony_makes_it_and_tells_of_it(server, connect, tmp_path):
    first = copy(server.root, tmp_path / "first.crt")
    copy(server.data / "ca/root.key", tmp_path / "first.key")
    file = tmp_path / "ceremony.toml"
    text = SHORT.replace("= 30", "= 9000").replace("Short", "Next") + (
        '[succeeds]\ncertificate = "first.crt"\nprivate_key = "first.key"\ncross = "cross.crt"\n')
    file.write_text(text.replace('"first.key"', '"other.key"'))
    ok("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", tmp_path / "other.key")
    apart = tmp_path / "apart"
    refused = muster("ca", "ceremony", file, "--data", apart, cwd=tmp_path)
    assert refused.returncode != 0 and "succeeds.private_key" in refused.stderr and not apart.exists()
    file.write_text(text)
    done = muster("ca", "ceremony", file, "--data", apart, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cross = tmp_path / "cross.crt"
    assert cross.read_text() in (tmp_path / "ceremony.txt").read_text()
    assert "OK" in ok("openssl", "verify", "-x509_strict", "-CAfile", first, cross)
    own = apart / "ca"
    server.cli("ca", "succeed-root", "--cert", own / "root.crt", "--issuing", own / "issuing.crt", "--issuing-key", own / "issuing.key",
               "--cross", cross)
    assert roots(server) == [(1, "trusted", "present"), (2, "signs", "offline")]
    lamp = server.device("lamp-1")
    connect(server, lamp).close()
    assert "Next Devices CA" in ok("openssl", "x509", "-in", lamp.certificate, "-noout", "-issuer")
    assert eventually(lambda: follows(server, own / "root.crt"), "the server's certificate", 30) and follows(server, first)


def test_roots_in_a_token(make_server, connect, token, tmp_path):
    server = make_server("--config", str(token.settings))
    first = copy(server.root, tmp_path / "first.crt")
    server.cli("ca", "succeed-root")
    assert private_keys(server) == []
    server.kill9()
    server.start()
    assert follows(server, first)
    second = tmp_path / "second.crt"
    second.write_text(certificates(server.root)[1])
    assert follows(server, second)
    connect(server, server.device("lamp-1")).close()
    assert LABEL and MODULE and PIN


def test_killed_while_it_follows_it_has_one_or_both(server, connect):
    lamp = server.device("lamp-1")
    for turn in range(4):
        before = len(roots(server))
        succeeding = threading.Thread(target=lambda: server.run("ca", "succeed-root"))
        succeeding.start()
        eventually(lambda: (server.data / f"ca/root-{before + 1}").exists() or not succeeding.is_alive(), "the successor", 60)
        server.kill9()
        succeeding.join(60)
        server.start()
        after = roots(server)
        assert len(after) in (before, before + 1)
        assert not list((server.data / "ca").glob(".root-*"))
        assert len(certificates(server.root)) == len(after)
        connect(server, lamp).close()
        if "has no issuing certificate" in server.cli("status"):
            server.cli("ca", "rotate-issuing")
        connect(server, server.device(f"lamp-{turn}-new")).close()


def test_verbs_go_on_after_a_root_was_retired_at_once(server, connect):
    """Whose key was stolen has more to say in that very hour, and no time for a restart."""
    lamp = connect(server, server.device("lamp-1"))
    server.cli("ca", "succeed-root")
    server.cli("ca", "retire-root", "1", "--before-its-end", "--yes")
    assert server.cli("status").startswith("running")
    server.cli("device", "revoke", "lamp-1", "--yes")
    lamp.end()
    assert server.json("audit", "run")["checks"][0]["findings"] == []
