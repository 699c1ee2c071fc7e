"""Strangers open as many connections as the system lets the server have: what the registry is told is kept all the same."""

import socket

from api import iot

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
    assert "too many from its address" in server.stderr()
    leave()
    server.cli("device", "revoke", "lamp-1", "--yes")
    assert "no more changes" not in server.stderr()
    server.restart()
    pages = iot(server).get_paginator("list_things").paginate()
    things = {thing["thingName"] for page in pages for thing in page["things"]}
    assert things >= {f"meanwhile-{number}" for number in range(5)}
