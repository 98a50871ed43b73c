"""Forks workers for the service. The command takes the descriptor of the socket to the service, and the limits."""

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
    """Running workers by process id, each with its lifeline."""

    def __init__(self, control: socket.socket, decode_limits: DecodeLimits) -> None:
        self._control = control
        self._decode_limits = decode_limits
        self._lifelines: dict[int, socket.socket] = {}
        self._watch = selectors.DefaultSelector()
        self._exits, exit_signal = socket.socketpair()
        for end in (self._exits, exit_signal):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wakeup descriptor works only with a Python handler
        signal.set_wakeup_fd(exit_signal.detach(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Fork, kill and reap workers until the service closes its socket."""
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

    def close(self) -> None:
        """Kill and reap all workers."""
        for pid in self._lifelines:
            os.kill(pid, signal.SIGKILL)
        self._reap(0)

    def _fork(self) -> bool:
        request, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
        if not request:
            return False
        with socket.socket(fileno=descriptors[0]) as connection:
            lifeline = socket.socket(fileno=descriptors[1])
            try:
                fork_server, pid = os.getpid(), os.fork()
            except OSError as error:  # the service sees both sockets close
                print(f"offkey: no decoder process could be started: {error}", file=sys.stderr, flush=True)
                lifeline.close()
                return True
            if pid == 0:
                run_worker(connection, self._decode_limits, fork_server)
        self._lifelines[pid] = lifeline
        self._watch.register(lifeline, selectors.EVENT_READ, pid)
        return True

    def _kill(self, pid: int) -> None:
        # The service closed the lifeline. The process is not reaped yet, so its id has not been reused.
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
            with lifeline, suppress(OSError):  # the service may have closed it
                lifeline.sendall(STATUS.pack(status))


def main() -> None:
    """Run a fork server until the service closes its end of the socket or dies."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # They are sent to the whole process group, and the service may have clips to finish.
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # keeps the imported modules shared with the workers
    with socket.socket(fileno=int(sys.argv[1])) as control:
        fork_server = ForkServer(control, DecodeLimits.from_json(sys.argv[2]))
        try:
            fork_server.run()
        finally:
            fork_server.close()


if __name__ == "__main__":
    main()
