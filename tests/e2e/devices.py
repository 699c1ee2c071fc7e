"""Devices with real agents on them, and the server they must not believe."""

import fcntl
import http.server
import json
import os
import re
import signal
import ssl
import subprocess
import threading
import time

from pki import SERVER, Signer, forge
from release import HARDWARE
from server import AGENT, allow, document

VERB_LIMIT_S = 30
STOP_LIMIT_S = 15
POLL_PAUSE_S = 0.1

# Writes down each trial, waits where a test holds the gate, and is sick where the image says so of this device.
HEALTH = (
    'echo "$(date +%s.%N) $MUSTER_VERSION" >>"$MUSTER_STATE/trials"; '
    'flock -s "$MUSTER_STATE/gate" true; '
    '! grep -aqx "sick $(basename "$MUSTER_STATE")" "$MUSTER_IMAGE"'
)


def came_by(server, session, way):
    """Holds a live device to how its certificate came in, by a policy that asks for it."""
    if "came-by" not in server.cli("policy", "list").split():
        server.policy("came-by", document(allow("Publish", "topic/came/${muster:EnrolmentWay}")))
    server.cli("policy", "attach", "came-by", "--device", session.identity.name)
    assert session.publish(f"came/{way}") in (0, 0x10) and session.publish("came/otherwise") == 0x87


def eventually(look, what, limit=60):
    """Asks as a user would until the answer is not false; returns the answer."""
    end = time.monotonic() + limit
    pause = threading.Event()
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < end, f"not within {limit} s: {what() if callable(what) else what}"
        pause.wait(POLL_PAUSE_S)


class Agent:
    """`muster-agent` of one device, with its state in a directory of its own."""

    def __init__(self, server, identity, state, *flags, health=HEALTH, hardware=HARDWARE, https_port=None, start=True, wrapper=()):
        self.server, self.identity, self.state = server, identity, state
        self.name = identity.name
        state.mkdir(parents=True, exist_ok=True)
        (state / "gate").touch()
        self.command = [
            *wrapper, AGENT, "--identity", str(identity.certificate.parent), "--server", "localhost",
            "--mqtt-port", str(server.port("mqtt")), "--https-port", str(https_port or server.port("https")),
            "--state", str(state), "--hardware", hardware, "--health", health, *map(str, flags)]
        self.log = state.with_suffix(".log")
        self.process = None
        if start:
            self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        return self

    def kill9(self):
        self.process.kill()
        self.process.wait(STOP_LIMIT_S)

    def stop(self):
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise

    def said(self):
        return self.log.read_text(errors="replace")

    def status(self):
        """What `muster-agent status --json` prints."""
        done = subprocess.run([AGENT, "status", "--state", str(self.state), "--json"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=VERB_LIMIT_S)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def trials(self):
        """When which version was on trial."""
        path = self.state / "trials"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(float(when), version) for when, _, version in (line.partition(" ") for line in lines)]

    def tried(self, version):
        """How often a version was on trial."""
        return sum(v == version for _, v in self.trials())

    def holds(self, needle):
        """Whether a file of its state has these bytes in it."""
        return any(needle in path.read_bytes() for path in self.state.rglob("*") if path.is_file())

    def gate(self):
        """While open, a trial of this device does not end."""
        return Gate(self.state / "gate")


class Gate:
    """Holds back what waits for a shared lock on a file."""

    def __init__(self, path):
        self.file = open(path)
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def open(self):
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open()


DRIP_PAUSE_S = 1.0


class StolenServer:
    """A firmware server in the wrong hands: its certificate is right, what it serves is whatever a test wants.

    `documents` maps paths to bytes. `stall` maps a path to how many bytes are sent before the answer stops for ever. What is
    at a path in `drips` comes a byte at a time, without an end in sight.
    """

    def __init__(self, server, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.documents, self.stall, self.drips, self.asked = {}, {}, set(), []
        self.stalled, self.over = threading.Event(), threading.Event()
        identity = forge(directory, "localhost", Signer.of(server), server.root, usage=SERVER)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(identity.certificate), str(identity.key))
        outer = self

        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """A client that goes away is none of ours."""

        self.http = Quiet(("127.0.0.1", 0), Answer)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request):
        body = self.documents.get(request.path)
        asked = request.headers.get("Range")
        self.asked.append((request.path, asked))
        if body is None:
            request.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        if request.path in self.drips:
            # Until the other side has had enough: each byte comes well before it gives up waiting for one.
            for byte in body[start:]:
                request.wfile.write(bytes([byte]))
                self.stalled.set()
                if self.over.wait(DRIP_PAUSE_S):
                    return
        stall = self.stall.get(request.path)
        request.wfile.write(body[start:stall])
        if stall is not None:
            request.wfile.flush()
            self.stalled.set()
            self.over.wait()

    def serve(self, name, version, manifest, image):
        self.documents[f"/firmware/{name}/{version}/manifest.json"] = manifest
        self.documents[f"/firmware/{name}/{version}/image"] = image

    def close(self):
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


def thing_arn(name):
    return f"arn:aws:iot:local:000000000000:thing/{name}"


TERMINAL = {"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED", "REMOVED"}


def outcome(client, job, thing, limit=60):
    """How a job ended on a thing: status and what the device said."""
    def look():
        try:
            execution = client.describe_job_execution(jobId=job, thingName=thing)["execution"]
        except client.exceptions.ResourceNotFoundException:
            return None  # the wave has not begun
        return execution if execution["status"] in TERMINAL else None

    execution = eventually(look, f"job {job} to end on {thing}", limit)
    return execution["status"], execution.get("statusDetails", {}).get("detailsMap", {})
