"""Forks decoders for the service. Run as a command: the descriptor of its socket to the service, then the terms."""

import gc
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress

from service.decoding.child import live
from service.decoding.wire import STATUS, Terms


class Nursery:
    """Decoders that live, each by process id, with the socket that holds its life."""

    def __init__(self, control: socket.socket, terms: Terms) -> None:
        self._control = control
        self._terms = terms
        self._lives: dict[int, socket.socket] = {}
        self._watch = selectors.DefaultSelector()
        self._deaths, death = socket.socketpair()
        for end in (self._deaths, death):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler of Python's own, nothing is written
        signal.set_wakeup_fd(death.detach(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Fork, kill and bury until the service hangs up."""
        self._watch.register(self._control, selectors.EVENT_READ)
        self._watch.register(self._deaths, selectors.EVENT_READ)
        while True:
            for key, _ in self._watch.select():
                if key.fileobj is self._deaths:
                    self._deaths.recv(4_096)
                elif key.fileobj is not self._control:
                    self._kill(key.data)
                elif not self._fork():
                    return
            self._bury(os.WNOHANG)

    def end(self) -> None:
        """Leave no decoder behind."""
        for pid in self._lives:
            os.kill(pid, signal.SIGKILL)
        self._bury(0)

    def _fork(self) -> bool:
        word, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
        if not word:
            return False
        with socket.socket(fileno=descriptors[0]) as line:
            life = socket.socket(fileno=descriptors[1])
            try:
                nursery, pid = os.getpid(), os.fork()
            except OSError as error:  # the service sees both sockets end
                print(f"offkey: no decoder could be started: {error}", file=sys.stderr, flush=True)
                life.close()
                return True
            if pid == 0:
                live(line, self._terms, nursery)
        self._lives[pid] = life
        self._watch.register(life, selectors.EVENT_READ, pid)
        return True

    def _kill(self, pid: int) -> None:
        # The service let go of the life. The process id is nobody else's yet: it is not buried.
        if pid in self._lives:
            self._watch.unregister(self._lives[pid])
            os.kill(pid, signal.SIGKILL)

    def _bury(self, options: int) -> None:
        while self._lives:
            pid, status = os.waitpid(-1, options)
            if pid == 0:
                return
            life = self._lives.pop(pid)
            if life in self._watch.get_map():
                self._watch.unregister(life)
            with life, suppress(OSError):  # the service may have let go
                life.sendall(STATUS.pack(status))


def main() -> None:
    """Run a nursery until the service that started it closes its end of the socket, in order or by its death."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # They come to the whole group of processes, and the service still has clips to finish.
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # what is imported stays shared with the decoders
    with socket.socket(fileno=int(sys.argv[1])) as control:
        nursery = Nursery(control, Terms.from_json(sys.argv[2]))
        try:
            nursery.run()
        finally:
            nursery.end()


if __name__ == "__main__":
    main()
