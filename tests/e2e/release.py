"""A release team: keys, trust roots and packages, all made offline; and what becomes of a package in bad hands."""

import io
import itertools
import json
import tarfile

from server import muster

HARDWARE = "board-1"


class Team:
    """Keys and documents in one directory. Nothing here ever speaks with a server."""

    def __init__(self, home):
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.numbers = itertools.count(1)

    def verb(self, *arguments):
        done = muster("firmware", *arguments, cwd=self.home)
        assert done.returncode == 0, f"{done.args}\n{done.stderr}"
        return done.stdout

    def key(self, name="first"):
        """A release key, made at the first call."""
        directory = self.home / f"key-{name}"
        if not directory.exists():
            self.verb("keygen", "--out", directory)
        return directory / "release.key"

    def public(self, name):
        return self.key(name).with_name("release.pub")

    def root(self, *keys, publics=(), threshold=1, previous=None, retire=(), more=()):
        """A trust root of the keys with these names; those in `publics` belong to it and do not sign."""
        out = self.home / f"root-{next(self.numbers)}.json"
        flags = []
        for name in keys or ("first",):
            flags += ["--key", self.key(name)]
        for name in publics:
            flags += ["--pub", self.public(name)]
        for name in retire:
            flags += ["--retire", self.key(name)]
        if previous:
            flags += ["--previous", previous]
        self.verb("root", *flags, "--threshold", threshold, *more, "--out", out)
        return out

    def delegate(self, root, name, *keys, by=("first",), previous=None, flags=()):
        """A targets document that leaves to the holders of these keys what `flags` say; signed by the keys in `by`."""
        out = self.home / f"targets-{next(self.numbers)}.json"
        words = [word for key in keys for word in ("--pub", self.public(key))]
        words += [word for key in by for word in ("--key", self.key(key))]
        if previous:
            words += ["--previous", previous]
        self.verb("delegate", name, "--root", root, *words, *flags, "--out", out)
        return out

    def package(self, name, version, image, *keys, hardware=HARDWARE, more=()):
        """A package of these bytes, signed by the keys with these names."""
        number = next(self.numbers)
        file, out = self.home / f"image-{number}", self.home / f"package-{number}"
        file.write_bytes(image)
        flags = []
        for key in keys or ("first",):
            flags += ["--key", self.key(key)]
        self.verb("sign", file, "--name", name, "--version", version, "--hardware", hardware, *flags, *more, "--out", out)
        return out

    def packed(self, manifest, image):
        """A package file of any manifest and any image."""
        out = self.home / f"package-{next(self.numbers)}"
        with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in (("manifest.json", manifest), ("image", image)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return out


def opened(package):
    """Manifest and image of a package."""
    with tarfile.open(package) as archive:
        assert archive.getnames() == ["manifest.json", "image"]
        return tuple(archive.extractfile(name).read() for name in archive.getnames())


def flipped(data, at=None):
    """One bit is another."""
    at = len(data) // 2 if at is None else at % len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def unsigned(manifest):
    """The document without its signatures."""
    document = json.loads(manifest)
    assert document["signatures"]
    document["signatures"] = []
    return json.dumps(document).encode()


def edited(manifest, **custom):
    """The document with other words in it under the old signatures."""
    document = json.loads(manifest)
    (target,) = document["signed"]["targets"].values()
    target["custom"].update(custom)
    return json.dumps(document).encode()
