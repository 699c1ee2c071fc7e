"""Many devices from one file: each whole or not at all, taken up again where it was, and every failure named."""

import csv
import fcntl
import json
import os
import shutil
import subprocess
import time

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from api import iot
from server import MUSTER, Identity


def rows(path, heads, *lines):
    with open(path, "w", newline="") as out:
        csv.writer(out).writerows([heads, *lines])
    return path


def whole(server, out, name):
    """A device's files, whose key and certificate belong together, and which the registry knows as ACTIVE."""
    home = out / name
    assert sorted(f.name for f in home.iterdir()) == sorted([f"{name}.crt", f"{name}.key", "root.crt"])
    assert (home / f"{name}.key").stat().st_mode & 0o777 == 0o600
    certificate = x509.load_pem_x509_certificate((home / f"{name}.crt").read_bytes())
    key = load_pem_private_key((home / f"{name}.key").read_bytes(), None)
    assert certificate.public_key() == key.public_key()
    return Identity(home / f"{name}.crt", home / f"{name}.key", home / "root.crt", name)


def test_a_file_of_devices_with_every_kind_of_wrong_row(shared, connect, tmp_path, fresh_name):
    shared.cli("group", "create", fresh_name("hall-bulk"))
    group = [g["groupName"] for g in iot(shared).list_thing_groups(namePrefixFilter="hall-bulk")["thingGroups"]][-1]
    good, taken = [fresh_name("bulk") for _ in range(5)], shared.device(fresh_name("bulk")).name
    file = rows(
        tmp_path / "devices.csv", ["name", "group", "policy", "attribute.serial", "attribute.site"],
        *([name, group, "", f"sn-{n}", "bonn"] for n, name in enumerate(good)),
        [taken, "", "", "", ""], ["a b", "", "", "", ""], ["", "", "", "x", ""], ["../up", "", "", "", ""],
        [fresh_name("bulk"), "nowhere", "", "", ""], [fresh_name("bulk"), "", "nothing", "", ""],
        [fresh_name("bulk"), "", "", "bad value!", ""], ["short"], [good[0], "", "", "", ""])
    out = tmp_path / "out"
    done = shared.run("device", "create", "--from", str(file), "--out", str(out), "--json")
    assert done.returncode != 0 and '"created": 5' in done.stdout and '"failed": 9' in done.stdout, done.stdout + done.stderr
    failures = list(csv.DictReader(open(out / "failures.csv")))
    assert sorted(int(f["line"]) for f in failures) == list(range(7, 16))
    said = {int(f["line"]): f for f in failures}
    for line, field, value, words in (
            (7, "name", taken, "exists already"), (8, "name", "a b", "thing name"), (9, "name", "", "no name"),
            (10, "name", "../up", "thing name"), (11, "group", "nowhere", "does not exist"),
            (12, "policy", "nothing", "does not exist"), (13, "attribute.serial", "bad value!", "at most"),
            (14, "", "", "1 fields"), (15, "name", good[0], "earlier row")):
        row = said[line]
        assert (row["field"], row["value"]) == (field, value) and words in row["error"], row
    assert sorted(d.name for d in out.iterdir() if d.is_dir()) == sorted(good), "what was refused leaves nothing behind"
    client = iot(shared)
    for n, name in enumerate(good):
        assert client.describe_thing(thingName=name)["attributes"] == {"serial": f"sn-{n}", "site": "bonn"}
        assert [g["groupName"] for g in client.list_thing_groups_for_thing(thingName=name)["thingGroups"]] == [group]
    assert connect(shared, whole(shared, out, good[0])).publish(f"dt/{good[0]}/x", "y") == 0
    again = shared.json("device", "create", "--from", str(rows(tmp_path / "good.csv", ["name"], *([n] for n in good))), "--out", str(out))
    assert again == {"created": 0, "present": 5, "failed": 0}
    assert not (out / "failures.csv").exists()
    for heads in (["serial"], ["name", "name"], ["name", "colour"]):
        said = shared.refused("device", "create", "--from", str(rows(tmp_path / "bad.csv", heads, ["x"] * len(heads))), "--out", str(out))
        assert "column" in said or "none called name" in said
    assert "--out" in shared.refused("device", "create", "--from", str(file))


def test_a_run_that_was_killed_is_taken_up_where_it_was(make_server, tmp_path, connect):
    server = make_server()
    names = [f"lamp-{n:03}" for n in range(150)]
    file, out = rows(tmp_path / "devices.csv", ["name"], *([n] for n in names)), tmp_path / "out"
    command = [MUSTER, "device", "create", "--from", str(file), "--out", str(out), "--data", str(server.data)]
    client = iot(server)

    def made():
        return {t["thingName"] for p in client.get_paginator("list_things").paginate() for t in p["things"]}

    for target in (20, 60):
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(made()) < target and run.poll() is None:
            time.sleep(0.02)
        run.kill()  # SIGKILL, and nothing where it has ended
        run.wait(30)
    before = {t: client.list_thing_principals(thingName=t)["principals"] for t in made()}
    assert before, "something was made before the last run"
    # A row whose answer was lost: the server knows the device, and only its key is here.
    lost = sorted(before)[0]
    (out / lost / f"{lost}.crt").unlink(missing_ok=True)
    done = server.json("device", "create", "--from", str(file), "--out", str(out))
    assert done["failed"] == 0 and done["created"] + done["present"] == len(names)
    assert made() == set(names)
    for thing, principals in before.items():
        assert client.list_thing_principals(thingName=thing)["principals"] == principals, "nobody got a second certificate"
    for name in names:
        whole(server, out, name)
    lamp = connect(server, whole(server, out, lost))
    assert lamp.publish(f"dt/{lost}/x", "y") == 0


def test_there_already_is_what_is_there(shared, tmp_path, connect, fresh_name):
    """Its key beside its certificate, and the server knowing it: a file that was made long ago, or restored, is no device."""
    gone, revoked, keyless, other, kept = names = [fresh_name("bulk") for _ in range(5)]
    file, out = rows(tmp_path / "devices.csv", ["name"], *([n] for n in names)), tmp_path / "out"
    make = lambda: shared.run("device", "create", "--from", str(file), "--out", str(out), "--json")
    assert '"created": 5' in make().stdout
    shared.cli("device", "delete", gone, "--yes")
    shared.cli("device", "revoke", revoked, "--yes")
    (out / keyless / f"{keyless}.key").unlink()
    shutil.copy(out / kept / f"{kept}.key", out / other / f"{other}.key")
    done = make()
    assert done.returncode != 0, done.stdout
    assert json.loads(done.stdout) == {"created": 1, "present": 1, "failed": 3}
    failures = {f["name"]: f["error"] for f in csv.DictReader(open(out / "failures.csv"))}
    assert set(failures) == {revoked, keyless, other}
    assert "REVOKED" in failures[revoked] and "device replace" in failures[revoked]
    assert all("is not the key of" in failures[name] for name in (keyless, other)), failures
    assert not (out / keyless / f"{keyless}.key").exists()
    assert connect(shared, whole(shared, out, gone)).publish(f"dt/{gone}/x", "y") == 0


def test_files_of_a_device_that_was_given_others_are_not_called_there(shared, tmp_path, connect, fresh_name):
    replaced, anew, renewed = names = [fresh_name("bulk") for _ in range(3)]
    file, out = rows(tmp_path / "devices.csv", ["name"], *([n] for n in names)), tmp_path / "out"
    make = lambda: shared.run("device", "create", "--from", str(file), "--out", str(out), "--json")
    assert '"created": 3' in make().stdout
    shared.cli("device", "replace", replaced, "--yes", "--out", str(tmp_path / "elsewhere"))
    shared.cli("device", "delete", anew, "--yes")
    shared.cli("device", "create", anew, "--out", str(tmp_path / "anew"))
    done = make()
    assert done.returncode != 0 and json.loads(done.stdout) == {"created": 0, "present": 1, "failed": 2}, done.stdout
    failures = {f["name"]: f["error"] for f in csv.DictReader(open(out / "failures.csv"))}
    assert set(failures) == {replaced, anew}
    assert "REVOKED" in failures[replaced] and "another certificate" in failures[anew], failures


def test_a_long_file_takes_no_more_memory_than_a_short_one(shared, tmp_path):
    def peak_kib(count):
        file = tmp_path / f"{count}.csv"
        # Rows that are refused where they are read: what is measured is the reading, the queue and the report.
        with open(file, "w") as out:
            out.write("name,attribute.serial\n")
            out.writelines(f"lamp {n},{n}\n" for n in range(count))
        run = subprocess.Popen(
            [MUSTER, "device", "create", "--from", str(file), "--out", str(tmp_path / str(count)), "--data", str(shared.data)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
        assert run.returncode == 1
        assert sum(1 for _ in open(tmp_path / str(count) / "failures.csv")) == count + 1
        return usage.ru_maxrss

    assert peak_kib(100_000) < peak_kib(1_000) + 8 * 1024


def test_two_runs_do_not_share_a_directory(shared, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with open(out / "failures.csv", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = shared.refused("device", "create", "--from", str(rows(tmp_path / "one.csv", ["name"], ["x"])), "--out", str(out))
        assert "another run" in said


def test_a_file_of_ones_own_called_as_the_report_is_left_alone(shared, tmp_path, fresh_name):
    own, name = tmp_path / "failures.csv", fresh_name("bulk")
    file = rows(tmp_path / "one.csv", ["name"], [name])
    # Another list, the very list that is read, and one that was cut short: none is a report.
    for text, source in (("my own list\n", file), (f"name\n{name}\n", own), ("line,name", file)):
        own.write_text(text)
        said = shared.refused("device", "create", "--from", str(source), "--out", str(tmp_path))
        assert str(own) in said and "move it away" in said, said
        assert own.read_text() == text and not (tmp_path / name).exists()
    # What a run wrote is another matter, whatever became of that run.
    for text in ("", "line,name,field,value,error\n", "line,name,field,value,error\n2,x,name,x,no\n"):
        own.write_text(text)
        shared.cli("device", "create", "--from", str(file), "--out", str(tmp_path))
        assert not own.exists()


def test_a_quotation_mark_left_open_is_named(shared, tmp_path):
    file = tmp_path / "open.csv"
    file.write_text('name\n"lamp-1\n' + "x" * 100_000)
    done = shared.run("device", "create", "--from", str(file), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "quotation mark" in (tmp_path / "out/failures.csv").read_text()
