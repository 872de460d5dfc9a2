"""Commands without the seconds that importing torch takes: a server has imported it and forks for each.

`python warm.py SOCKET` is the server, `python -IS warm.py SOCKET restore …` a command, with its own arguments, folder,
environment and open files; signals reach it, and it ends as the command does. The package itself is not imported
before the fork. A test of the start itself (what is imported when, what is read from the environment) starts Python.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def command(path: str, arguments: list[str]) -> None:
    """Have it run, pass signals on, and end as it ended."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until there is something to pass them to
    server.connect(path)
    request = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    for number in SIGNALS:
        signal.signal(number, lambda number, _: server.sendall(bytes([number])))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    status = int.from_bytes(receive(server, 4), "big")
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def accept(listening: socket.socket) -> dict:
    """In the server: watch one command after the other. In the child of a fork: its request."""
    import torch  # noqa: F401 - no operator is run, so that there is one thread only

    while True:
        connection, _ = listening.accept()
        size, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
        request = json.loads(receive(connection, int.from_bytes(size, "big")))
        child = os.fork()
        if child == 0:
            for own, given in enumerate(descriptors):
                os.dup2(given, own)
                os.close(given)
            connection.close()
            listening.close()
            return request
        for descriptor in descriptors:
            os.close(descriptor)
        watch(connection, child)
        connection.close()


def watch(connection: socket.socket, child: int) -> None:
    """Until the child has ended: signals to it; SIGKILL once nobody waits for it any more."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            with contextlib.suppress(OSError):
                connection.sendall(status.to_bytes(4, "big"))
            return
        if select.select([connection], [], [], 0.005)[0]:
            number = connection.recv(1)
            os.kill(child, number[0] if number else signal.SIGKILL)
            if not number:
                os.waitpid(child, 0)
                return


if __name__ == "__main__":
    if len(sys.argv) > 2:
        command(sys.argv[1], sys.argv[2:])
    listening = socket.socket(fileno=int(sys.argv[1]))
    request = accept(listening)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["restormer", *request["arguments"]]
    from restormer_cli.cli import main

    sys.exit(main())
