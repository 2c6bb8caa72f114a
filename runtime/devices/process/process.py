"""One worker process as its parent sees it: started, talked to, watched, ended."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress

import numpy as np

from runtime.actors.supervisor import WorkerPolicy
from runtime.devices.process.death import Death
from runtime.errors import DeviceError
from runtime.transport.descriptors import needs_descriptors
from runtime.transport.frames import REPLIES, Frame, FrameReader, ProtocolError, send
from runtime.transport.machine import oom_kills
from runtime.transport.shared_memory import SharedMemory

# What a fresh interpreter is told to run.
COMMAND: tuple[str, ...] = ("-m", "runtime.devices.process.worker")

_ONE_THREAD = {
    f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "MKL", "OMP", "BLIS")
}
_STDERR_BYTES = 1 << 16
_GLANCE_SECONDS = 0.1  # between two looks at the heartbeat
_EXIT_SECONDS = 2.0
_DUMP_SECONDS = 1.0


class Ended(Exception):
    """The process has ended, whoever ended it."""

    def __init__(self, death: Death) -> None:
        super().__init__(death)
        self.death = death


class WorkerProcess:
    """A fresh interpreter that serves one device; see the module.

    It must be started by a thread that lives as long as it is wanted: Linux kills it
    with that thread.

    Attributes:
        pid: Its process id, and that of its process group.
        pidfd: Readable when it has ended; -1 where the system has no such thing.
        generation: Which one of its device, from 1.
    """

    def __init__(
        self, kind: str, index: int, generation: int, policy: WorkerPolicy
    ) -> None:
        self.generation = generation
        self._policy = policy
        self._death: Death | None = None
        self._oom_kills = oom_kills()
        page = SharedMemory(8)
        self._heartbeat = page.data.view(np.int64)
        with (
            ExitStack() as inherited,
            ExitStack() as kept,
            needs_descriptors("a worker process"),
        ):
            inherited.callback(page.close)
            self._connection, theirs = socket.socketpair()
            inherited.callback(theirs.close)
            kept.callback(self._connection.close)
            kept.callback(self._let_page_go)
            null = os.open(os.devnull, os.O_RDWR)
            inherited.callback(os.close, null)
            self._errors, errors = os.pipe()
            inherited.callback(os.close, errors)
            kept.callback(os.close, self._errors)
            self._process = subprocess.Popen(
                [
                    *(sys.executable, *COMMAND),
                    *map(str, (os.getpid(), generation, theirs.fileno(), page.fd)),
                    *(kind, str(index)),
                ],
                stdin=null,
                stdout=null,
                stderr=errors,
                pass_fds=(theirs.fileno(), page.fd),
                start_new_session=True,
                env=os.environ | _ONE_THREAD | {"PYTHONPATH": _search_path()},
            )
            kept.callback(self._process.wait)
            kept.callback(self._process.kill)
            self.pid = self._process.pid
            self.pidfd = _open_pidfd(self.pid)
            kept.pop_all()
        self._stderr = Tail(self._errors)
        self._reader = FrameReader(self._connection, REPLIES)
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN)
        if self.pidfd >= 0:
            self._poll.register(self.pidfd, select.POLLIN)

    def send(self, frame: Frame, fds: Sequence[int] = ()) -> None:
        """Send a request; one to a process that has ended is lost without a word."""
        with suppress(BrokenPipeError, ConnectionResetError):
            send(self._connection, frame, fds)

    def receive(self, deadline: float | None, expected: bytes = b"") -> Frame | None:
        """Wait for the next reply; the interpreter lock is free meanwhile.

        Args:
            deadline: Seconds after which the process counts as hung.
            expected: What will come if all goes well, packed: to compare takes less
                time than to decode, after others have used the caches.

        Returns:
            The reply; None if it is the expected one.

        Raises:
            Ended: the process has ended: by itself, or because it hung or sent what
                it must not send.
        """
        begin = time.monotonic()
        silent, beats = 0.0, self._beats
        while True:
            try:
                if self._reader.take(expected):
                    return None
                frame = self._reader.next()
                if frame is not None:
                    return frame
                before = time.monotonic()
                if self._poll.poll(1000 * _GLANCE_SECONDS):
                    # What it said before its end counts, so that is read first.
                    if not self._reader.fill():
                        raise EOFError
                    continue
            except EOFError:
                raise Ended(self._reap()) from None
            except ProtocolError as error:
                raise Ended(self.kill(f"it broke the protocol: {error}")) from None
            now = time.monotonic()
            if self._beats != beats or beats == 0:  # at 0 it has not come so far yet
                silent, beats = 0.0, self._beats
            else:
                # If this process was stopped, too, that was no silence.
                silent += min(now - before, 2 * _GLANCE_SECONDS)
            if silent > self._policy.heartbeat:
                raise Ended(
                    self._end_hung(f"it gave no sign of life for {silent:.1f} s")
                )
            if deadline is not None and now - begin > deadline:
                raise Ended(self._end_hung(f"it was not done after {deadline:.1f} s"))

    @property
    def is_heard(self) -> bool:
        """Whether a reply has come, or its end; looks at once and never waits."""
        return bool(self._poll.poll(0))

    def kill(self, why: str | None = None) -> Death:
        """End the process and all that it has started, at once."""
        if self._death is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return self._reap(why)

    def close(self) -> None:
        """Ask the process to end, and see to it."""
        if self._death is None:
            with suppress(OSError):  # it has closed its end
                # A forked child may hold the connection, too: it ends for all of them.
                self._connection.shutdown(socket.SHUT_RDWR)
            if self.pidfd >= 0:
                _readable(self.pidfd, _EXIT_SECONDS)
            self.kill()

    @property
    def ended(self) -> bool:
        """Whether the process has ended; looks at once and never waits."""
        if self._death is not None:
            return True
        if self.pidfd < 0:
            return False
        return _readable(self.pidfd, 0)

    def _let_page_go(self) -> None:
        self._heartbeat = np.zeros(1, np.int64)

    @property
    def _beats(self) -> int:
        return int(self._heartbeat[0])

    def _end_hung(self, why: str) -> Death:
        """Let it say where it hangs, then end it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        self._stderr.wait_quiet(_DUMP_SECONDS)
        return self.kill(why)

    def _reap(self, why: str | None = None) -> Death:
        """What the process died of, and the release of all that it held here."""
        if self._death is not None:
            return self._death
        if (
            self.pidfd >= 0
            and not select.select([self.pidfd], [], [], _EXIT_SECONDS)[0]
        ):
            # It has closed the connection, and goes on.
            return self.kill(why or "it closed the connection")
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it has started itself
        self._connection.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        text = self._stderr.finish()
        self._let_page_go()
        os.close(self._errors)
        self._death = Death(
            self.pid,
            self._process.returncode,
            why,
            usage.ru_maxrss * 1024,
            oom_kills() - self._oom_kills,
            text,
        )
        return self._death


class Tail:
    """The last bytes that were written to a pipe, read by a thread of its own.

    The thread waits in the kernel nearly always; without it a worker that writes much
    would wait for a parent that is busy elsewhere.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = b""
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_quiet(self, seconds: float) -> None:
        """Wait until something has come and no more follows."""
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            time.sleep(0.01)
            if self._last > begin and time.monotonic() - self._last > 0.05:
                return

    def finish(self) -> str:
        """All that is left, as text, once the writer has ended."""
        self._thread.join(_DUMP_SECONDS)
        return self._data.decode(errors="replace")

    def _read(self) -> None:
        with suppress(OSError):  # closed
            while data := os.read(self._fd, _STDERR_BYTES):
                self._data = (self._data + data)[-_STDERR_BYTES:]
                self._last = time.monotonic()


def check_available() -> None:
    """Refuse where the system cannot run worker processes.

    Raises:
        DeviceError: this is not a Unix.
    """
    if not hasattr(socket, "send_fds") or not hasattr(os, "wait4"):
        raise DeviceError(
            f"worker (='process') needs sockets that carry descriptors, which "
            f"{sys.platform} does not have: use worker='thread'"
        )


def _search_path() -> str:
    """Where this process finds modules, for one that must find the same."""
    return os.pathsep.join(path or os.getcwd() for path in sys.path)


def _readable(fd: int, seconds: float) -> bool:
    """Whether a descriptor is readable, or becomes so in time."""
    poll = select.poll()  # `select` cannot take large numbers
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _open_pidfd(pid: int) -> int:
    return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
