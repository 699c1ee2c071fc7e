"""A server of our own for a test: started, asked, killed, started again. Nothing of it is left behind."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
MUSTER = os.environ.get("MUSTER_BIN", str(TARGET / "release/muster"))
AGENT = os.environ.get("MUSTER_AGENT_BIN", str(TARGET / "release/muster-agent"))

START_LIMIT_S = 60
STOP_LIMIT_S = 30
VERB_LIMIT_S = 60


class NotReady(AssertionError):
    """The server ended before it was ready. `code` is its exit code, `stderr` what it said."""

    def __init__(self, code, stdout, stderr):
        super().__init__(f"the server ended with {code} before it was ready\n{stdout}{stderr}")
        self.code, self.stdout, self.stderr = code, stdout, stderr


class Server:
    """`muster serve` on free loopback ports, with its data under `home`."""

    running = set()

    def __init__(self, home, *flags, names=("localhost",), env=None, wrapper=(), start=True):
        self.home = Path(home)
        self.data = self.home / "data"
        self.flags = [*flags]
        for name in names:
            self.flags += ["--name", name]
        self.env = {**os.environ, **(env or {})}
        self.wrapper = [*wrapper]
        self.log = self.home / "server.log"
        self.process = None
        self.endpoints = {}
        self.first_words = []
        self._home_number = 0
        if start:
            self.start()

    # -- life

    def start(self, *more):
        """Starts and returns when the `ready` line has come."""
        listen = []
        for listener in ("mqtt", "wss", "https", "http"):
            if f"--{listener}" not in self.flags:
                # After the first start the ports stay, so that clients find it again.
                port = self.endpoints.get(listener, "localhost:0").rpartition(":")[2]
                listen += [f"--{listener}", f"127.0.0.1:{port}"]
        command = [*self.wrapper, MUSTER, "serve", "--data", str(self.data), *listen, *self.flags, *more]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=self.env, cwd=self.home,
                start_new_session=True)
        Server.running.add(self)
        lines = queue.Queue()

        def read(out):
            for line in out:
                lines.put(line.decode())
            lines.put(None)

        self._reader = threading.Thread(target=read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        self.first_words = []
        while True:
            line = lines.get(timeout=START_LIMIT_S)
            if line is None:
                code = self.process.wait(STOP_LIMIT_S)
                Server.running.discard(self)
                raise NotReady(code, "".join(self.first_words), self.stderr())
            if line.startswith("ready "):
                self.ready_line = line.rstrip("\n")
                break
            self.first_words.append(line)
        self.endpoints = json.loads((self.data / "run/endpoints.json").read_text())
        self.lines = lines
        return self

    def kill9(self):
        """As a power cut would end it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        return self._ended()

    def terminate(self):
        """SIGTERM; returns the exit code once it has drained."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self):
        code = self.process.wait(STOP_LIMIT_S)
        self._reader.join(STOP_LIMIT_S)
        self.process.stdout.close()
        Server.running.discard(self)
        return code

    def restart(self, *more):
        """Ends it, if it still runs, and starts it again on the same data and ports."""
        if self.process.poll() is None:
            self.terminate()
        return self.start(*more)

    def stop(self):
        """For finalizers: whatever state it is in, it is gone afterwards."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill9()
        Server.running.discard(self)

    # -- what it says and where it is

    def stderr(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def said(self, *words):
        """Waits until a line of the log has all these words, for it is written after what it tells of; returns the line."""
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            for line in self.stderr().splitlines():
                if all(word in line for word in words):
                    return line
            assert time.monotonic() < deadline, f"no line with {words} in\n{self.stderr()}"
            time.sleep(0.02)

    def place(self, listener):
        host, _, port = self.endpoints[listener].rpartition(":")
        return host, int(port)

    def port(self, listener):
        return self.place(listener)[1]

    @property
    def host(self):
        return self.place("mqtt")[0]

    @property
    def root(self):
        return self.data / "ca/root.crt"

    # -- the operator's command line

    def run(self, *arguments, cwd=None, input=None, env=None):
        """A verb of the command line; returns the finished process whatever its exit code."""
        return muster(*arguments, "--data", self.data, cwd=cwd or self.home, input=input, env=env or self.env)

    def cli(self, *arguments, **how):
        """A verb that must succeed; returns its standard output."""
        done = self.run(*arguments, **how)
        assert done.returncode == 0, f"{done.args}\nexit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments, **how):
        """A verb with --json that must succeed; returns what it printed."""
        return json.loads(self.cli(*arguments, "--json", **how) or "null")

    def refused(self, *arguments, **how):
        """A verb that must fail, with a sentence and without a panic; returns the sentence."""
        done = self.run(*arguments, **how)
        assert done.returncode != 0, f"{done.args} succeeded:\n{done.stdout}"
        assert done.stderr.strip() and "panicked" not in done.stderr, done.stderr
        return done.stderr

    def device(self, name, *flags):
        """Makes a device; returns its identity."""
        out = self.home / f"{name.replace(':', '_')}-{self._home_number}"
        self._home_number += 1
        made = self.json("device", "create", name, "--out", str(out), *flags)
        return Identity(out / f"{name}.crt", out / f"{name}.key", out / "root.crt", name, made)

    def policy(self, name, document):
        """Makes a policy of a document (a dictionary)."""
        path = self.home / f"policy-{name}.json"
        path.write_text(json.dumps(document))
        self.cli("policy", "create", name, str(path))

    def update_policy(self, name, document):
        path = self.home / f"policy-{name}.json"
        path.write_text(json.dumps(document))
        self.cli("policy", "update", name, str(path))


def muster(*arguments, cwd=None, input=None, env=None, wrapper=()):
    """The program with these arguments; returns the finished process."""
    command = [*wrapper, MUSTER, *map(str, arguments)]
    given = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=VERB_LIMIT_S, **given)


class Identity:
    """A device's files: certificate with chain, key, what it trusts."""

    def __init__(self, certificate, key, root, name, made=None):
        self.certificate, self.key, self.root, self.name = Path(certificate), Path(key), Path(root), name
        self.made = made or {}

    @property
    def id(self):
        return self.made["certificateId"]

    @property
    def arn(self):
        return self.made["certificateArn"]


# -- policy documents

ACCOUNT = "000000000000"


def arn(resource, account=ACCOUNT):
    return f"arn:aws:iot:*:{account}:{resource}"


def statement(effect, actions, *resources):
    actions = [actions] if isinstance(actions, str) else list(actions)
    return {"Effect": effect, "Action": [f"iot:{a}" for a in actions],
            "Resource": [r if r == "*" else arn(r) for r in resources]}


def allow(actions, *resources):
    return statement("Allow", actions, *resources)


def deny(actions, *resources):
    return statement("Deny", actions, *resources)


def document(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


EVERYTHING = document(allow("*", "*"))
