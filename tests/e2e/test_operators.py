"""Operators come, get other keys and go by verbs; who is gone is refused, and told what to do."""

import stat

import pytest

import api
from server import Identity, muster


@pytest.fixture
def as_operator():
    """Runs a verb with an operator's own credentials, as from elsewhere; whether it was done, and what was said."""

    def run(credentials, *words):
        done = muster("--credentials", credentials, *words)
        assert "panicked" not in done.stderr
        return done.returncode == 0, done.stderr

    return run


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_an_operator_is_made_works_gets_other_keys_and_goes(server, tmp_path, as_operator):
    ada = tmp_path / "ada"
    told = server.cli("operator", "create", "ada", "--role", "viewer", "--out", str(ada))
    assert f"muster --credentials {ada}/ada.credentials status" in told
    assert sorted(path.name for path in ada.iterdir()) == ["ada.credentials", "ada.crt", "ada.key"]
    assert mode(ada / "ada.credentials") == mode(ada / "ada.key") == 0o600
    assert as_operator(ada / "ada.credentials", "device", "list")[0]
    done, said = as_operator(ada / "ada.credentials", "group", "create", "hall")
    assert not done and "viewer" in said
    listed = server.json("operator", "list")["operators"]
    assert [(one["name"], one["role"]) for one in listed] == [("ada", "viewer"), ("admin", "admin")]

    # What is secret stands in files alone, and no file is written over.
    made = server.json("operator", "create", "bob", "--role", "operator", "--out", str(tmp_path / "bob"))
    assert made["name"] == "bob" and not {"privateKey", "credentials"} & set(made)
    assert "exists already" in server.refused("operator", "rotate", "ada", "--yes", "--out", str(ada))
    assert as_operator(ada / "ada.credentials", "device", "list")[0]

    new = tmp_path / "new"
    server.cli("operator", "rotate", "ada", "--yes", "--out", str(new))
    assert as_operator(new / "ada.credentials", "device", "list")[0]
    done, said = as_operator(ada / "ada.credentials", "device", "list")
    assert not done and str(ada / "ada.credentials") in said and "muster operator rotate" in said
    assert [one["role"] for one in server.json("operator", "list")["operators"] if one["name"] == "ada"] == ["viewer"]

    assert "--yes" in server.refused("operator", "delete", "ada")
    server.cli("operator", "delete", "ada", "--yes")
    assert not as_operator(new / "ada.credentials", "device", "list")[0]
    assert "ada" in server.refused("operator", "delete", "ada", "--yes")
    assert "ada" in server.refused("operator", "rotate", "ada", "--yes", "--out", str(tmp_path / "never"))
    assert not (tmp_path / "never").exists()
    assert "admin" in server.refused("operator", "delete", "admin", "--yes")


def test_the_admins_own_files_follow_and_go(server, tmp_path, as_operator):
    kept = server.data / "operators/admin.credentials"
    leaked = tmp_path / "leaked.credentials"
    leaked.write_bytes(kept.read_bytes())
    told = server.cli("operator", "rotate", "admin", "--yes")
    assert "written anew" in told and mode(kept) == 0o600 and kept.read_bytes() != leaked.read_bytes()
    assert server.json("device", "list") is not None
    assert not as_operator(leaked, "device", "list")[0]
    by_key = Identity(kept.with_name("admin.crt"), kept.with_name("admin.key"), server.root, "admin")
    assert api.send(server, "GET", "/muster/v1/operators", identity=by_key)[0] == 200
    server.restart()
    assert server.json("device", "list") is not None
    assert not as_operator(leaked, "device", "list")[0]

    own = tmp_path / "own"
    server.cli("operator", "create", "ada", "--role", "admin", "--out", str(own))
    assert as_operator(own / "ada.credentials", "operator", "delete", "admin", "--yes") == (True, "")
    assert [path.name for path in kept.parent.iterdir()] == ["operators.json"]
    told = server.refused("device", "list")
    assert "--credentials FILE" in told and "admin was deleted" in told
    # Of that name, with another role, and its files put where verbs on --data look: nobody is told to use a file that is refused.
    create = ("operator", "create", "admin", "--role", "viewer", "--out", str(kept.parent))
    assert as_operator(own / "ada.credentials", *create)[0]
    assert server.json("device", "list") is not None
    assert as_operator(own / "ada.credentials", "operator", "delete", "admin", "--yes") == (True, "")
    kept.write_bytes(leaked.read_bytes())
    told = server.refused("device", "list")
    assert str(kept) in told and "muster operator create" in told


@pytest.mark.parametrize("name", ["", "../x", "a/b", "Ada", "x" * 33])
def test_a_name_that_is_none_is_refused_and_leaves_nothing(server, tmp_path, name):
    out = tmp_path / "out"
    text = server.refused("operator", "create", "--role", "viewer", "--out", str(out), name)
    assert "operator name" in text or "a-z" in text
    assert not out.exists()
    assert len(server.json("operator", "list")["operators"]) == 1
