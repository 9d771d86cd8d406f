"""The wire format between a process and its compile processes: JSON with its length before it. No pickle."""

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from jitwarm.errors import WorkerDiedError

_LENGTH_BYTES = 8
_MAX_BYTES = 64 << 20  # a job is some kilobytes: a longer one is not ours


def pack(message: Any) -> bytes:
    """One message as bytes."""
    body = json.dumps(message).encode()
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def unpack(data: bytes) -> Any:
    """The message of `pack`."""
    return json.loads(data[_LENGTH_BYTES:])


def send(sock: socket.socket, message: Any, descriptors: Sequence[int] = ()) -> None:
    """Send one message, and with it open files; this side keeps its own.

    Raises:
        OSError: The other side is gone.
    """
    data = pack(message)
    if descriptors:
        socket.send_fds(sock, [data[:_LENGTH_BYTES]], descriptors)
        data = data[_LENGTH_BYTES:]
    sock.sendall(data)


def receive(sock: socket.socket) -> Any:
    """The next message; None where the other side has closed the connection.

    Raises:
        WorkerDiedError: What came is no message, or ended in its middle.
        TimeoutError: The socket's own timeout passed.
    """
    return _body(sock, _exactly(sock, _LENGTH_BYTES))


def receive_with_descriptors(sock: socket.socket, n_descriptors: int) -> tuple[Any, list[int]]:
    """The next message, and the open files that came with it, at most so many. They are closed in whatever is started.

    Raises:
        WorkerDiedError: As `receive`.
    """
    head, descriptors, _, _ = socket.recv_fds(sock, _LENGTH_BYTES, n_descriptors)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    head += _exactly(sock, _LENGTH_BYTES - len(head)) if head else b""
    return _body(sock, head), descriptors


def _body(sock: socket.socket, head: bytes) -> Any:
    """What follows the length; None where the connection was closed before it."""
    if not head:
        return None
    length = int.from_bytes(head, "big")
    if length > _MAX_BYTES:
        raise WorkerDiedError(f"a compile process answered what is no message ({head!r})")
    try:
        return json.loads(_exactly(sock, length))
    except ValueError as exc:
        raise WorkerDiedError(f"a compile process answered what is no message: {exc}") from exc


def _exactly(sock: socket.socket, n_bytes: int) -> bytes:
    """`n_bytes`, or fewer where the connection ends."""
    parts = bytearray()
    while len(parts) < n_bytes:
        part = sock.recv(n_bytes - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)
