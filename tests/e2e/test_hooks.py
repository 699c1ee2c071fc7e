"""What starts the images of a device: the hooks, in their order, through restarts and power cuts."""

import pytest

from api import iot
from devices import Agent, eventually, outcome
from release import Team

IMAGE = "image of {}"


class Board:
    """A device with a bootloader of two variables, `kept` and `try`, and `runs`: what was booted last."""

    def __init__(self, server, team, home):
        self.server, self.team, self.home = server, team, home
        home.mkdir()
        self.identity = server.device("board-1", "--group", "boards")
        (home / "runs").write_text("none")
        self.agent = None

    def hooks(self, activate):
        log = f'echo "$1 $MUSTER_SLOT $MUSTER_VERSION" >>{self.home}/log'

        def hook(name, more):
            return f"set -- {name}; {log}; {more}"

        home = self.home
        return ["--on-install", hook("install", f'cp "$MUSTER_IMAGE" {home}/partition-$MUSTER_SLOT'),
                "--on-activate", hook("activate", activate),
                "--on-booted", hook("booted", f'test "$(cat {home}/runs)" = $MUSTER_SLOT'),
                "--on-confirm", hook("confirm", f"echo $MUSTER_SLOT >{home}/kept; rm -f {home}/try"),
                "--on-revert", hook("revert", f"rm -f {home}/try; test ! -e {home}/stuck")]

    def power(self, activate="true", health="true", *more):
        self.agent = Agent(self.server, self.identity, self.home / "state", *self.hooks(activate), *more, health=health)
        return self.agent

    def log(self):
        path = self.home / "log"
        return path.read_text().splitlines() if path.exists() else []

    def boot(self):
        """What the bootloader does: what is to be tried, once; else what is kept."""
        tried = self.home / "try"
        runs = tried if tried.exists() else self.home / "kept"
        (self.home / "runs").write_text(runs.read_text().strip() if runs.exists() else "none")
        tried.unlink(missing_ok=True)

    def order(self, version):
        rollout = self.server.json("rollout", "start", "os", version, "--group", "boards")["id"]
        return f"{rollout}-wave-1"

    def end(self, job):
        return outcome(iot(self.server), job, "board-1")


@pytest.fixture
def board(server, tmp_path):
    team = Team(tmp_path / "team")
    server.cli("firmware", "trust", team.root())
    for version in ("1", "2", "3"):
        server.cli("firmware", "add", team.package("os", version, IMAGE.format(version).encode()))
    server.cli("group", "create", "boards")
    made = Board(server, team, tmp_path / "board")
    yield made
    if made.agent:
        made.agent.stop()


def reboot(home):
    """The activate hook of a device that starts again: the bootloader is told, and the power goes."""
    return f"echo $MUSTER_SLOT >{home}/try; kill -9 $PPID; sleep 60"


def test_hooks_come_in_their_order_and_a_failed_one_speaks(board):
    board.power()
    assert board.end(board.order("1"))[0] == "SUCCEEDED"
    assert board.log() == ["install a 1", "activate a 1", "confirm a 1"]
    assert (board.home / "partition-a").read_text() == IMAGE.format("1")
    board.agent.stop()
    board.power("echo no fw_setenv >&2; exit 4")
    status, said = board.end(board.order("2"))
    assert (status, said["reason"]) == ("FAILED", "activate hook: exit 4: no fw_setenv")
    eventually(lambda: board.log()[3:] == ["install b 2", "activate b 2", "revert b 2"], board.log)
    assert board.agent.status()["version"] == "1"


def test_a_device_that_restarts_into_the_trial_is_judged_there(board):
    board.power(reboot(board.home))
    job = board.order("1")
    board.agent.process.wait(60)
    board.boot()
    assert (board.home / "runs").read_text() == "a"
    board.agent.start()
    assert board.end(job)[0] == "SUCCEEDED"
    assert board.log() == ["install a 1", "activate a 1", "booted a 1", "confirm a 1"]
    # The next one: its bootloader gave the new image up by itself.
    job = board.order("2")
    board.agent.process.wait(60)
    board.boot()
    board.boot()
    assert (board.home / "runs").read_text() == "a"
    board.agent.start()
    status, said = board.end(job)
    assert status == "FAILED" and said["reason"].startswith("booted hook: exit 1"), said
    eventually(lambda: board.log()[-1] == "revert b 2", board.log)
    assert board.agent.status()["version"] == "1"


def test_nothing_new_begins_before_what_starts_images_knows_of_the_old(board):
    board.power()
    assert board.end(board.order("1"))[0] == "SUCCEEDED"
    board.agent.stop()
    (board.home / "stuck").touch()
    board.power("true", "echo dark >&2; exit 3")
    status, said = board.end(board.order("2"))
    assert (status, said["reason"]) == ("FAILED", "health command: exit 3: dark")
    board.agent.kill9()
    board.power()
    job = board.order("3")
    eventually(lambda: board.log().count("revert b 2") >= 3, board.log)
    assert "install b 3" not in board.log()
    (board.home / "stuck").unlink()
    assert board.end(job)[0] == "SUCCEEDED"


def test_a_watchdog_is_fed_in_the_trial_and_disarmed_after(board):
    device = board.home / "watchdog"
    device.touch()
    board.power("true", "true", "--watchdog", str(device))
    assert board.end(board.order("1"))[0] == "SUCCEEDED"
    assert device.read_bytes().startswith(b"\0") and device.read_bytes().endswith(b"V")
    board.agent.stop()
    board.power("true", "true", "--watchdog", "/nowhere/watchdog")
    status, said = board.end(board.order("2"))
    assert status == "FAILED" and "watchdog /nowhere/watchdog" in said["reason"], said
