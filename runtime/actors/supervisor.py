"""When what has died is started again, and what else with it: the rules of OTP.

Children start in order. If one dies, it is started again ("one_for_one"), or it and
all that started after it ("rest_for_one"). More than so many deaths within so many
seconds mean that starting again does not help: the supervisor gives up, and the fault
goes on to whoever is above. Nothing is started here; this only decides.

Source: Erlang/OTP, "Supervisor Behaviour" (design principles, 5.3).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Strategy = Literal["one_for_one", "rest_for_one"]


@dataclass(frozen=True, slots=True)
class WorkerPolicy:
    """What is borne from worker processes.

    Attributes:
        restarts: That many deaths within `period`, of all workers of a runtime, are
            answered by a restart where the module wants that; the next one is raised,
            and no worker is started again.
        period: Seconds.
        deadline: Seconds that forward and backward, or an update, may take on one
            device before its worker counts as hung, and is killed. Compilation may
            take as long as it likes.
        heartbeat: Seconds without a sign of life after which a worker counts as hung.
    """

    restarts: int = 5
    period: float = 60.0
    deadline: float = 600.0
    heartbeat: float = 30.0

    def __post_init__(self) -> None:
        if self.restarts < 0:
            raise ValueError(f"restarts (={self.restarts}) must not be negative")
        for name in ("period", "deadline", "heartbeat"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(
                    f"{name} (={value}) must be a positive time in seconds"
                )


class Supervisor:
    """Decides about restarts; safe in any thread.

    Attributes:
        given_up: Whether too many have died; nothing is started again from then on.
    """

    def __init__(
        self,
        strategy: Strategy = "one_for_one",
        policy: WorkerPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if strategy not in ("one_for_one", "rest_for_one"):
            raise ValueError(
                f"strategy (={strategy!r}) must be 'one_for_one' or 'rest_for_one'"
            )
        self.given_up = False
        self._strategy = strategy
        self._policy = policy or WorkerPolicy()
        self._clock = clock
        self._children: dict[str, None] = {}
        self._deaths: deque[float] = deque()
        self._lock = threading.Lock()

    def started(self, child: str) -> None:
        """A child was started for the first time; later ones may depend on it."""
        with self._lock:
            self._children.setdefault(child)

    def ended(self, child: str) -> None:
        """A child was ended on purpose, and is not to be missed."""
        with self._lock:
            self._children.pop(child, None)

    def died(self, child: str) -> list[str] | None:
        """A child has died: which ones to start again, in order; None to give up.

        With "rest_for_one" those that still live are to be ended first, the last one
        first.
        """
        with self._lock:
            now = self._clock()
            self._deaths.append(now)
            while now - self._deaths[0] > self._policy.period:
                self._deaths.popleft()
            if len(self._deaths) > self._policy.restarts:
                self.given_up = True
            if self.given_up:
                return None
            children = list(self._children)
            if self._strategy == "one_for_one" or child not in children:
                return [child]
            return children[children.index(child) :]
