"""A stretch of network between devices and a server that can be held up in the middle of a download."""

import socket
import threading

PIECE_BYTES = 16 * 1024


class Holdup:
    """Passes bytes on between devices and `port`, untouched. While it holds, a connection gets `after` bytes and then no more."""

    def __init__(self, port, after):
        self.target, self.after = ("127.0.0.1", port), after
        self.open, self.over = threading.Event(), False
        self.open.set()
        self.held = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self):
        self.held.clear()
        self.open.clear()

    def release(self):
        self.open.set()

    def close(self):
        self.over = True
        self.release()
        self.listener.close()

    def _accept(self):
        while not self.over:
            try:
                device, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(device,), daemon=True).start()

    def _serve(self, device):
        try:
            server = socket.create_connection(self.target)
        except OSError:
            device.close()
            return
        threading.Thread(target=self._pass, args=(device, server, None), daemon=True).start()
        self._pass(server, device, self.after)

    def _pass(self, source, sink, limit):
        passed = 0
        try:
            while piece := source.recv(PIECE_BYTES):
                if limit is not None and passed >= limit and not self.open.is_set():
                    self.held.add(sink)
                    self.open.wait()
                sink.sendall(piece)
                passed += len(piece)
        except OSError:
            """One side is gone; so is the other."""
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                """It was the one that went."""
            end.close()
