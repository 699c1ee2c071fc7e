"""Lives of certificates and of lists, by faked clocks: a day's certificate, a list past its time."""

import json
import subprocess

from devices import Agent, eventually
from server import muster
from test_certificate_status import fetch, issuing, leaf, ok, pointers, run
from test_mistakes import clock


def test_a_days_certificates_are_renewed_day_after_day(make_server, tmp_path):
    """The agent is the same thing with the same policy through all of them, and one certificate at a time stays."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[ca]\ndevice_validity_seconds = 86400\n")
    server = make_server("--config", str(settings))
    server.cli("group", "create", "hall")
    agent = Agent(server, server.device("lamp-1", "--group", "hall"), tmp_path / "agents" / "lamp-1", start=False)
    command = agent.command

    def shown(hours):
        done = muster("device", "show", "lamp-1", "--json", "--data", server.data, wrapper=[*clock(f"+{hours}h")])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    serial = lambda: ok("openssl", "x509", "-in", agent.identity.certificate, "-noout", "-serial")
    try:
        # Not before half of the life, at the latest before two thirds.
        for hours, renews in ((11, False), (17, True), (34, True), (40, False), (51, True)):
            server.terminate()
            server.wrapper = [*clock(f"+{hours}h")]
            server.start()
            before = serial()
            agent.command = [*server.wrapper, *command]
            agent.log.write_text("")
            agent.start()
            eventually(lambda: "connected to" in agent.said(), agent.said, 60)
            if renews:
                eventually(lambda: serial() != before, agent.said, 60)
                # Told under the new one, the server retires the old one.
                active = lambda h=hours: [c for c in shown(h)["certificates"] if c["status"] == "ACTIVE"]
                eventually(lambda: len(active()) == 1, agent.said, 60)
            else:
                assert serial() == before
            agent.stop()
        thing = shown(51)
        assert "hall" in json.dumps(thing)
    finally:
        if agent.process is not None and agent.process.poll() is None:
            agent.stop()


def test_a_list_past_its_time_is_signed_anew(server, tmp_path):
    """An old copy is refused by who checks it; the server never gives one out."""
    lamp, gone = server.device("lamp-1"), server.device("gone")
    server.cli("device", "revoke", "gone", "--yes")
    old = fetch(pointers(lamp)[0], tmp_path / "old.crl")
    later = [*clock(f"+{40 * 24}h")]
    server.terminate()
    server.wrapper = later
    server.start()
    alone = leaf(lamp, tmp_path / "leaf.crt")
    verify = [*later, "openssl", "verify", "-crl_check", "-CAfile", server.root, "-untrusted", issuing(server), "-CRLfile"]
    code, said = run(*verify, old, alone)
    assert code != 0 and "CRL has expired" in said, said
    fresh = fetch(pointers(lamp)[0], tmp_path / "fresh.crl")
    assert run(*verify, fresh, alone)[0] == 0
    refused = leaf(gone, tmp_path / "gone.crt")
    code, said = run(*verify, fetch(pointers(gone)[0], tmp_path / "gone.crl"), refused)
    assert code != 0 and "certificate revoked" in said, said
    # A list that revokes nobody is a list still.
    text = subprocess.run(["openssl", "crl", "-inform", "DER", "-in", fresh, "-noout", "-text"], capture_output=True, text=True, timeout=30).stdout
    assert "Next Update" in text
