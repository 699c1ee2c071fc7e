"""Servers, devices and clients for the suites, and what is shown when a test fails."""

import itertools

import pytest

from clients import Paho
from server import EVERYTHING, Server


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """One server for tests that do not mind each other: each makes devices and policies of its own."""
    server = Server(tmp_path_factory.mktemp("shared"))
    server.policy("everything", EVERYTHING)
    yield server
    server.stop()


@pytest.fixture
def make_server(tmp_path):
    """Makes servers of the test's own, each in a directory of its own."""
    made = []

    def make(*flags, **how):
        home = tmp_path / f"server-{len(made)}"
        home.mkdir()
        server = Server(home, *flags, start=False, **{k: v for k, v in how.items() if k != "start"})
        made.append(server)
        if how.get("start", True):
            server.start()
        return server

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def server(make_server):
    """A server of the test's own, fresh."""
    return make_server()


NUMBERS = itertools.count(1)


@pytest.fixture
def fresh_name():
    """Names no other test uses."""
    return lambda kind="lamp": f"{kind}-{next(NUMBERS)}"


@pytest.fixture
def device(shared, fresh_name):
    """Makes a device on the shared server: `device()`, `device("--policy", "everything")`."""
    return lambda *flags, name=None: shared.device(name or fresh_name(), *flags)


@pytest.fixture
def connect():
    """Connects paho clients that are closed after the test: `connect(server, identity, version=5)`."""
    clients = []

    def make(server, identity, **how):
        client = Paho(server, identity, **how)
        clients.append(client)
        return client.connect()

    yield make
    for client in clients:
        client.close()


# -- what a failure shows, and what a run prints

SHOWN_LINES = 30


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the servers have said since the test began."""
    report = yield
    if call.when == "setup":
        item.logs_before = {server.home: len(server.stderr()) for server in Server.running}
    if report.failed:
        used = {value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Server)}
        for server in used | Server.running:
            said = server.stderr()[getattr(item, "logs_before", {}).get(server.home, 0):]
            report.sections.append((f"server {server.home.name}", "\n".join(said.splitlines()[-SHOWN_LINES:])))
    return report


def pytest_terminal_summary(terminalreporter):
    """Prints what tests have measured: `record_property("measured", "…")`."""
    lines = [
        text
        for report in terminalreporter.stats.get("passed", [])
        for name, text in getattr(report, "user_properties", [])
        if name == "measured"
    ]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
