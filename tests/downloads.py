"""Many devices that download at once, over and over, each by its own certificate and the job it has: a load, no test.

    python tests/downloads.py HOST PORT PATH KEYS

KEYS holds a directory of NAME.crt, NAME.key and root.crt for each device. Prints `ready` once all of them receive, and
when standard input ends one line of JSON: the bytes that came, and over how many seconds.
"""

import asyncio
import json
import os
import ssl
import sys
import time
from pathlib import Path

READ_BYTES = 256 * 1024


class Load:
    def __init__(self, host, port, path):
        self.host, self.port, self.path = host, port, path
        self.bytes, self.receiving, self.failed = 0, 0, 0

    async def device(self, home, gate):
        """One device: a range request after the other on one connection, from its first byte and from its middle."""
        context = ssl.create_default_context(cafile=str(home / "root.crt"))
        context.load_cert_chain(str(home / f"{home.name}.crt"), str(home / f"{home.name}.key"))
        async with gate:
            reader, writer = await asyncio.open_connection(
                self.host, self.port, ssl=context, server_hostname=self.host, limit=READ_BYTES, ssl_handshake_timeout=60)
        first, start = True, 0
        while True:
            request = f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nRange: bytes={start}-\r\n\r\n"
            writer.write(request.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if " 206 " not in head.splitlines()[0]:
                raise SystemExit(head)
            left = int(next(line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length")))
            start = left // 2
            while left:
                piece = await reader.read(min(left, READ_BYTES))
                if not piece:
                    raise SystemExit("the server's answer ended early")
                if first:
                    first, self.receiving = False, self.receiving + 1
                left -= len(piece)
                self.bytes += len(piece)


async def main(host, port, path, keys):
    load, gate = Load(host, int(port), path), asyncio.Semaphore(50)
    homes = sorted(home for home in Path(keys).iterdir() if home.is_dir())
    tasks = [asyncio.create_task(load.device(home, gate)) for home in homes]
    while load.receiving < len(homes):
        done = [task for task in tasks if task.done()]
        if done:
            await done[0]
        await asyncio.sleep(0.1)
    began, before = time.monotonic(), load.bytes
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps({"downloads": len(homes), "bytes": load.bytes - before, "seconds": time.monotonic() - began}), flush=True)
    # Nothing to say goodbye to.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
