"""A TUF repository that python-tuf makes, a server that hands it out, and the verifier that must judge it."""

import copy
import datetime
import hashlib
import http.server
import json
import os
import ssl
import subprocess
import threading
from urllib.parse import quote, unquote

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, SuccinctRoles, TargetFile, Targets, Timestamp,
)

from server import AGENT

VERB_LIMIT_S = 60
GOOD_FOR = datetime.timedelta(days=30)
TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def ago(**how):
    return now() - datetime.timedelta(**how)


class Repository:
    """What is being edited is in `roles` and signed by `signers`; what clients see is in `files`, by URL path.

    A test that plays the attacker edits `files` itself. `asked` is what clients have asked for, in order."""

    def __init__(self, consistent=True):
        self.files, self.asked, self.signers, self.published = {}, [], {}, set()
        self.with_hashes = False
        expires = now() + GOOD_FOR
        self.roles = {
            "root": Root(expires=expires, consistent_snapshot=consistent), "timestamp": Timestamp(expires=expires),
            "snapshot": Snapshot(expires=expires), "targets": Targets(expires=expires)}
        for role in TOP_LEVEL:
            self.add_key(role)
        self.publish("targets", "snapshot", "timestamp", "root")

    # -- keys

    @property
    def root(self):
        return self.roles["root"]

    def add_key(self, role, signer=None):
        """A key for a top-level role that signs from now on."""
        signer = signer or CryptoSigner.generate_ed25519()
        self.root.add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def rotate(self, role):
        """Another key in place of all a role had."""
        for signer in self.signers[role]:
            self.root.revoke_key(signer.public_key.keyid, role)
        self.signers[role] = []
        return self.add_key(role)

    # -- metadata

    def signed(self, role):
        """The metadata of a role as it stands, signed."""
        metadata = Metadata(self.roles[role])
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def name(self, role, version=None):
        """Where a role's metadata lies."""
        versioned = role == "root" or (role != "timestamp" and self.root.consistent_snapshot)
        prefix = f"{version or self.roles[role].version}." if versioned else ""
        return f"metadata/{prefix}{quote(role, '')}.json"

    def publish(self, *roles, bump=True):
        """Signs roles in the order given, each as its next version unless told otherwise, and lets clients see
        them; what speaks of them is edited along."""
        for role in roles:
            if bump and role in self.published:
                self.roles[role].version += 1
            self.published.add(role)
            data = self.signed(role)
            self.files[self.name(role)] = data
            meta = MetaFile(self.roles[role].version)
            if self.with_hashes:
                meta.length, meta.hashes = len(data), {"sha256": hashlib.sha256(data).hexdigest()}
            if role == "snapshot":
                self.roles["timestamp"].snapshot_meta = meta
            elif role not in ("root", "timestamp"):
                self.roles["snapshot"].meta[f"{role}.json"] = meta

    def release(self, *roles):
        """Publishes targets roles and what makes them current."""
        self.publish(*(roles or ("targets",)), "snapshot", "timestamp")

    def publish_root_as(self, edit):
        """Publishes the next root with an edit that python-tuf would not make, signed as it stands then."""
        document = json.loads(self.signed("root"))["signed"]
        self.root.version += 1
        document["version"] = self.root.version
        edit(document)
        message = encode_canonical(document).encode()
        signatures = [signer.sign(message).to_dict() for signer in self.signers["root"]]
        self.files[self.name("root")] = json.dumps({"signed": document, "signatures": signatures}).encode()

    def latest(self, role):
        return self.files[self.name(role)]

    # -- targets

    def add_target(self, path, content, role="targets", hashes=("sha256",), custom=None):
        target = TargetFile.from_data(path, content, list(hashes))
        if custom is not None:
            target.unrecognized_fields["custom"] = custom
        self.roles[role].targets[path] = target
        for name in self.target_names(path, target):
            self.files[name] = content
        return target

    def target_names(self, path, target):
        directory, slash, name = path.rpartition("/")
        if not self.root.consistent_snapshot:
            return [f"targets/{path}"]
        return [f"targets/{directory}{slash}{digest}.{name}" for digest in target.hashes.values()]

    def delegate(self, delegator, name, paths=("*",), terminating=False, prefixes=None, signer=None, expires=None):
        """Delegates to a role, new or known, by a key of its own."""
        signer = signer or CryptoSigner.generate_ed25519()
        targets = self.roles[delegator]
        if targets.delegations is None:
            targets.delegations = Delegations({}, roles={})
        targets.delegations.roles[name] = DelegatedRole(
            name, [], 1, terminating, None if prefixes else list(paths), prefixes)
        targets.add_key(signer.public_key, name)
        self.roles.setdefault(name, Targets(expires=expires or now() + GOOD_FOR))
        self.signers.setdefault(name, []).append(signer)
        return signer

    def delegate_bins(self, bits, prefix):
        signer = CryptoSigner.generate_ed25519()
        bins = SuccinctRoles([], 1, bits, prefix)
        self.roles["targets"].delegations = Delegations({}, succinct_roles=bins)
        self.roles["targets"].add_key(signer.public_key)
        for name in bins.get_roles():
            self.roles[name] = Targets(expires=now() + GOOD_FOR)
            self.signers[name] = [signer]
        return bins

    # -- what clients asked for

    def roles_asked(self):
        """The roles asked for since the last time, without versions."""
        names = [name.removeprefix("metadata/").removesuffix(".json") for name in self.asked
                 if name.startswith("metadata/")]
        self.asked.clear()
        return [name if name == "timestamp" else name.partition(".")[2] or name for name in names]


class Host:
    """Hands out a repository on a free port until it is closed; under `identity`, over TLS."""

    def __init__(self, repository, identity=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                repository.asked.append(name)
                found = repository.files.get(name, repository.files.get(unquote(name)))
                if found is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        if identity:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(str(identity.certificate), str(identity.key))
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.url = f"https://localhost:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Verifier:
    """`muster-agent tuf` with directories of its own."""

    def __init__(self, home, url):
        self.metadata, self.targets, self.url = home / "metadata", home / "targets", url
        self.first = home / "first.json"
        self.ca = None
        self.said = ""

    def run(self, *words, at=None, hurry=None):
        """Runs a verb and returns its exit code. `at` is the time it believes it is; its clock runs `hurry` times as fast."""
        known = ["--ca", str(self.ca)] if self.ca else []
        faked = ["faketime", at.strftime("%Y-%m-%d %H:%M:%S UTC")] if at else []
        if hurry:
            faked = ["faketime", "-f", f"+0 x{hurry}"]
        done = subprocess.run(
            [*faked, AGENT, "tuf", "--metadata-dir", str(self.metadata), *known, *words],
            capture_output=True, text=True, timeout=VERB_LIMIT_S, stdin=subprocess.DEVNULL,
            env={**os.environ, "TZ": "UTC"})
        self.said = done.stdout + done.stderr
        return done.returncode

    def init(self, root):
        self.first.write_bytes(root)
        return self.run("init", str(self.first))

    def refresh(self, at=None):
        return self.run("--metadata-url", f"{self.url}/metadata", "refresh", at=at)

    def download(self, *names, **how):
        named = [word for name in names for word in ("--target-name", name)]
        return self.run(
            "--metadata-url", f"{self.url}/metadata/", *named, "--target-dir", str(self.targets),
            "--target-base-url", f"{self.url}/targets/", "download", **how)

    def trusted(self):
        """The versions trusted, by file name."""
        return {path.name: json.loads(path.read_bytes())["signed"]["version"] for path in self.metadata.iterdir()}

    def version(self, role):
        return self.trusted().get(f"{quote(role, '')}.json")

    def got(self):
        """The files in the target directory, by path."""
        return {str(path.relative_to(self.targets)): path.read_bytes()
                for path in self.targets.rglob("*") if path.is_file()} if self.targets.exists() else {}


def edited(data, edit):
    """Metadata with an edit that python-tuf would not make. Signatures are left as they are."""
    document = json.loads(data)
    edit(document)
    return json.dumps(document).encode()


def copy_of(role):
    return copy.deepcopy(role)
