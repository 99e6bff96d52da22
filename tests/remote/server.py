"""An S3 server of our own: a process that can be killed and started again, behind a wire that can be cut."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading

_REQUEST = re.compile(rb"(?:GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n")
_SERVE = """
import os, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # ends with the process that started it
os._exit(0)
"""


class Server:
    """moto's S3, in a process of its own. What it stores dies with it.

    Attributes:
        port: Where it listens; another one after each start.
    """

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-W", "ignore", "-c", _SERVE]
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet)
        assert self._process.stdout is not None
        port = self._process.stdout.readline()
        assert port, "the server has ended"
        self.port = int(port)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """Have it hang: connections stay, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None


class Wire:
    """What lies between a client and the server: forwards, counts, and can be cut and mended.

    Attributes:
        port: Where the client finds it.
        received: Bytes that the client has received.
        requests: What the client has asked for.
        lose_answer_to: A pattern; the wire is cut when the server answers the next request that it matches.
        cut_after: The wire is cut once the client has received so many bytes.
        mend_after_seconds: The next cut is mended after so many seconds.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = _listening(0)
        self.port: int = self._listener.getsockname()[1]
        self.reset()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def reset(self) -> None:
        self.received = 0
        self.requests: list[str] = []
        self.lose_answer_to: re.Pattern[str] | None = None
        self.cut_after: int | None = None
        self.mend_after_seconds: float | None = None

    def cut(self) -> None:
        """End every connection; new ones are refused."""
        with self._lock:
            _close(self._listener)
            for connection in self._open:
                _close(connection)
            self._open.clear()
            if self.mend_after_seconds is not None:
                threading.Timer(self.mend_after_seconds, self.mend).start()
                self.mend_after_seconds = None

    def mend(self) -> None:
        """Let connections through again, if it was cut."""
        with self._lock:
            if self._listener.fileno() != -1:
                return
            self._listener = _listening(self.port)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # it was cut
            try:
                server = socket.create_connection(("127.0.0.1", self._server.port))
            except OSError:
                _close(client)
                continue
            with self._lock:
                self._open |= {client, server}
            answers = threading.Event()
            for work, source, target in ((self._up, client, server), (self._down, server, client)):
                threading.Thread(target=self._forward, args=(work, source, target, answers), daemon=True).start()

    def _forward(self, work, source: socket.socket, target: socket.socket, lose: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(1 << 16)) and work(data, lose):
                target.sendall(data)
        _close(source)
        _close(target)

    def _up(self, data: bytes, lose: threading.Event) -> bool:
        for match in _REQUEST.finditer(data):
            path = match[0].decode()
            self.requests.append(path.rpartition(" ")[0])
            if self.lose_answer_to is not None and self.lose_answer_to.search(path):
                self.lose_answer_to = None
                lose.set()
        return True

    def _down(self, data: bytes, lose: threading.Event) -> bool:
        self.received += len(data)
        if lose.is_set() or (self.cut_after is not None and self.received > self.cut_after):
            self.cut()
        return not lose.is_set()


class Refusing:
    """A server that answers everything with 403."""

    def __init__(self) -> None:
        self._listener = _listening(0)
        self.port: int = self._listener.getsockname()[1]
        self.requests = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        _close(self._listener)

    def _accept(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        head = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                asked = client.recv(1 << 16)
                self.requests += 1
                client.sendall(head + (b"" if asked.startswith(b"HEAD") else body))


def environment(port: int) -> dict[str, str]:
    """What points an S3 client at a server on this machine, and nowhere else."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
