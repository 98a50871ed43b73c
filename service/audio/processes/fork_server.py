"""Forks decoders for the service. Run as a command: the descriptor of its socket to the service, then the terms."""

import gc
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress

from service.audio.processes.messages import STATUS, DecodeLimits
from service.audio.processes.worker import run_worker


class ForkServer:
    """Decoders that live, each by process id, with the socket that holds its life."""

    def __init__(self, control: socket.socket, decode_limits: DecodeLimits) -> None:
        self._control = control
        self._decode_limits = decode_limits
        self._lifelines: dict[int, socket.socket] = {}
        self._watch = selectors.DefaultSelector()
        self._exits, exit_signal = socket.socketpair()
        for end in (self._exits, exit_signal):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler of Python's own, nothing is written
        signal.set_wakeup_fd(exit_signal.detach(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Fork, kill and bury until the service hangs up."""
        self._watch.register(self._control, selectors.EVENT_READ)
        self._watch.register(self._exits, selectors.EVENT_READ)
        while True:
            for key, _ in self._watch.select():
                if key.fileobj is self._exits:
                    self._exits.recv(4_096)
                elif key.fileobj is not self._control:
                    self._kill(key.data)
                elif not self._fork():
                    return
            self._reap(os.WNOHANG)

    def end(self) -> None:
        """Leave no decoder behind."""
        for pid in self._lifelines:
            os.kill(pid, signal.SIGKILL)
        self._reap(0)

    def _fork(self) -> bool:
        word, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
        if not word:
            return False
        with socket.socket(fileno=descriptors[0]) as connection:
            lifeline = socket.socket(fileno=descriptors[1])
            try:
                fork_server, pid = os.getpid(), os.fork()
            except OSError as error:  # the service sees both sockets end
                print(f"offkey: no decoder could be started: {error}", file=sys.stderr, flush=True)
                lifeline.close()
                return True
            if pid == 0:
                run_worker(connection, self._decode_limits, fork_server)
        self._lifelines[pid] = lifeline
        self._watch.register(lifeline, selectors.EVENT_READ, pid)
        return True

    def _kill(self, pid: int) -> None:
        # The service let go of the life. The process id is nobody else's yet: it is not buried.
        if pid in self._lifelines:
            self._watch.unregister(self._lifelines[pid])
            os.kill(pid, signal.SIGKILL)

    def _reap(self, options: int) -> None:
        while self._lifelines:
            pid, status = os.waitpid(-1, options)
            if pid == 0:
                return
            lifeline = self._lifelines.pop(pid)
            if lifeline in self._watch.get_map():
                self._watch.unregister(lifeline)
            with lifeline, suppress(OSError):  # the service may have let go
                lifeline.sendall(STATUS.pack(status))


def main() -> None:
    """Run a nursery until the service that started it closes its end of the socket, in order or by its death."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # They come to the whole group of processes, and the service still has clips to finish.
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # what is imported stays shared with the decoders
    with socket.socket(fileno=int(sys.argv[1])) as control:
        fork_server = ForkServer(control, DecodeLimits.from_json(sys.argv[2]))
        try:
            fork_server.run()
        finally:
            fork_server.end()


if __name__ == "__main__":
    main()
