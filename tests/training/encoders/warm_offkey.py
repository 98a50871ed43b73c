"""Runs `offkey` commands in forks of one process that has loaded PyTorch, because loading it takes seconds.

`warm_offkey.py serve SOCKET TRACES` is that process; it reuses the traces of a folder. `warm_offkey.py run SOCKET
ARGUMENT...` runs a command in a fork of it, with its own folder, environment and standard streams, and exits with its
status.
"""

import json
import os
import runpy
import signal
import socket
import sys
import threading
from pathlib import Path


def serve(path: str, traces: str) -> None:
    """Load the modules of the commands, then fork for every connection."""
    import torch

    import service.app  # noqa: F401
    import training.evaluation.challenge.report
    import training.evaluation.report
    import training.export
    import training.loop  # noqa: F401

    reuse = runpy.run_path(str(Path(__file__).parents[1] / "traces.py"))["reuse"]
    torch.onnx.export = reuse(Path(traces))  # type: ignore[assignment]

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _run(connection)
            connection.close()


def _run(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    arguments, folder, environ = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["offkey", *arguments]
    threading.Thread(target=_end_with_client, args=(connection,), daemon=True).start()
    from service.cli import main

    try:
        status = main()
    except SystemExit as end:
        status = end.code
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(bytes([int(status or 0)]))
    os._exit(0)


def _end_with_client(connection: socket.socket) -> None:
    connection.recv(1)  # returns when the client has ended
    os.kill(os.getpid(), signal.SIGTERM)


def run(path: str, arguments: list[str]) -> int:
    """Run a command in a fork; return its status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        message = json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(connection, [message], [0, 1, 2])
        return (connection.recv(1) or b"\xff")[0]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    sys.exit(run(sys.argv[2], sys.argv[3:]))
