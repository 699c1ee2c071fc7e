"""Strangers and devices open as many connections as the system lets the server have: what the registry is told is kept all
the same, and operators and downloads have their places."""

import socket

import api as https
from api import iot
from server import Identity, allow, document
from wire import CONNACK, Closed, Wire
from wire import connect as hello

LIMIT = 512
LISTENERS = ("mqtt", "wss", "https", "http")


def test_connections_of_strangers_leave_the_registry_its_descriptors(make_server, request):
    server = make_server(wrapper=("prlimit", f"--nofile={LIMIT}:{LIMIT}", "--"))
    server.device("lamp-1")
    api = iot(server)
    api.create_thing(thingName="before")
    strangers = []

    def leave():
        while strangers:
            strangers.pop().close()

    request.addfinalizer(leave)
    for number in range(5):
        for nth in range(2 * LIMIT):
            address = server.place(LISTENERS[nth % len(LISTENERS)])
            try:
                strangers.append(socket.create_connection(address, timeout=1))
            except OSError:
                # The queue before the door is full as well.
                break
        # Over the connection that is there already, as an operator's console has one: an operator keeps its place.
        api.create_thing(thingName=f"meanwhile-{number}")
    # It went up to what strangers may have, or this tests nothing.
    server.said("too many from its address")
    leave()
    server.cli("device", "revoke", "lamp-1", "--yes")
    server.restart()
    # All that was to be said before has been said.
    assert "no more changes" not in server.stderr()
    pages = iot(server).get_paginator("list_things").paginate()
    things = {thing["thingName"] for page in pages for thing in page["things"]}
    assert things >= {f"meanwhile-{number}" for number in range(5)}


def test_devices_that_are_merely_connected_leave_operators_and_downloads_their_places(make_server, request):
    limit = 160
    server = make_server(wrapper=("prlimit", f"--nofile={limit}:{limit}", "--"))
    server.policy("any-name", document(allow("Connect", "client/*")))
    # No one of them may have all places.
    lamps = [server.device(f"lamp-{number}", "--policy", "any-name") for number in range(4)]
    lamp = lamps[0]
    held = []
    request.addfinalizer(lambda: [wire.socket.close() for wire in held])
    refused = None
    while refused is None:
        assert len(held) < limit
        try:
            wire = Wire(server, lamps[len(held) % len(lamps)])
            held.append(wire)
            wire.send(hello(f"lamp-{len(held)}"))
            assert wire.packet()[0] == CONNACK
        except Closed as error:
            refused = error
    # As many as there are places for, or this tests nothing.
    assert len(held) > limit // 4
    admin = server.data / "operators"
    admin = Identity(admin / "admin.crt", admin / "admin.key", server.root, "admin")
    status, _, things = https.send(server, "GET", "/things", identity=admin)
    assert (status, [thing["thingName"] for thing in things["things"]]) == (200, [lamp.name for lamp in lamps])
    assert https.send(server, "GET", "/.well-known/est/cacerts", identity=lamp)[0] == 200
