"""Debian's mosquitto with mutual TLS, everything allowed: the peer of measurements, and a broker that is not ours."""

import shutil
import socket
import subprocess

from pki import CLIENT, SERVER, Signer, forge, save

STOP_LIMIT_S = 10


class Mosquitto:
    def __init__(self, home, wrapper=(), acl=None):
        """`acl`: the lines of an ACL file, where one is to be asked."""
        home.mkdir()
        authority = Signer.foreign()
        root = save(home, "root", authority.certificate, [], authority.key).certificate
        broker = forge(home, "localhost", authority, root, usage=SERVER)
        self.identity = forge(home, "load", authority, root, usage=CLIENT)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        more = []
        if acl is not None:
            file = home / "acl"
            file.write_text("".join(f"{line}\n" for line in acl))
            more = [f"acl_file {file}"]
        config = home / "mosquitto.conf"
        config.write_text("\n".join([
            "user root", "log_type error", "max_queued_messages 10000", "max_inflight_messages 1000", f"listener {self.port} 127.0.0.1",
            f"cafile {root}", f"certfile {broker.certificate}", f"keyfile {broker.key}", "require_certificate true",
            "use_identity_as_username true", "allow_anonymous true", *more, ""]))
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        # It complains of each connection that a load drops: not of interest here.
        self.process = subprocess.Popen(
            [*wrapper, program, "-c", str(config)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("mosquitto did not start") from None

    def stop(self):
        self.process.terminate()
        self.process.wait(STOP_LIMIT_S)
