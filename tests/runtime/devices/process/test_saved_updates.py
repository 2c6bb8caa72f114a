"""Native updates save what they change: a kill at any place in one is taken back.

A page that a child process may not touch, or not write, is where it dies: in the middle
of saving a block, or between that and its update, or in the middle of its update.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import resource
import signal

import numpy as np
import pytest

from runtime.devices.cpu.device import CpuDevice, CpuProgram
from runtime.devices.host import HostSegment
from runtime.devices.process import journal
from runtime.devices.process.journal import Bytes, Journal
from runtime.devices.process.journal_layout import SEGMENT, Layout
from runtime.graph.plan import Layout as Tensors
from runtime.graph.plan import Plan, round_up
from runtime.graph.update import plan_update
from runtime.kernels.cpu.library import load

PAGE = mmap.PAGESIZE
# Of more than one block, and less; the fixed gamma is written by two rows.
PARAMETERS = {"w1": 2500, "gamma": 40, "w2": 700}
STATES = ("mean", "variance")
# The gradient is that of one device; adam's lr, wd, rescale, clip, betas and epsilon.
HYPER = (0.1, 0.01, 1.0, -1.0, 0.9, 0.999, 1e-8)


class Update:
    """The update of a worker, over memory that a child process shares."""

    def __init__(self) -> None:
        tensors = Tensors.pack(
            "parameter", [(n, (size,), "float32") for n, size in PARAMETERS.items()]
        )
        device = CpuDevice()
        plan = plan_update(
            "adam",
            tensors,
            list(PARAMETERS),
            states=STATES,
            hyper=len(HYPER),
            native=device.native,
            fixed_ones=("gamma",),
        )
        layout = Layout.of(plan, frozenset({"scaled"}))
        instrumented = layout.instrument(plan)
        self.memory = mmap.mmap(-1, sum(map(whole, instrumented.segments.values())))
        self.bytes = np.frombuffer(self.memory, np.uint8)
        self.segments = self._cut(instrumented)
        self.layout = layout
        self.program: CpuProgram = device.compile(
            instrumented,
            allocate=lambda name, *_: HostSegment.over(self.segments[name]),
        )
        self.journal = Journal(
            layout, self.segments[SEGMENT], lambda name, _: self.segments[name]
        )

    def _cut(self, plan: Plan) -> dict[str, Bytes]:
        """Each segment on pages of its own."""
        segments, begin = {}, 0
        for name, nbytes in plan.segments.items():
            segments[name] = self.bytes[begin : begin + nbytes]
            begin += whole(nbytes)
        return segments

    def fill(self, seed: int) -> None:
        """Values to begin with; the journal stays as it is."""
        random = np.random.default_rng(seed)
        for name in self.program.plan.segments:
            if name != SEGMENT:
                floats = self.segments[name].view(np.float32)
                floats[:] = random.random(floats.size)
        hyper = np.tile(HYPER, (len(PARAMETERS), 1))
        self.program.write("hyper", "hyper", hyper)

    def changing(self) -> dict[str, Bytes]:
        """What the update changes, as it is now."""
        names = ("parameter", *(f"state.{state}" for state in STATES))
        return {name: self.segments[name].copy() for name in names}

    def save_ahead(self, pieces: int) -> int:
        """As a parent does that finds the time for so many pieces."""
        left = iter(range(pieces))
        return self.journal.save_ahead("update", 0, lambda: next(left, None) is None)

    def run(self, number: int, saved: int = 0) -> None:
        """As a worker does."""
        self.journal.begin("update", 0, number, saved)
        self.program.launch("update")
        self.journal.end("update", number)

    def run_in_child(self, number: int, saved: int, page: int, protection: int) -> int:
        """Run it where a page must not be touched so; the signal it dies by, or 0."""
        pid = os.fork()
        if pid == 0:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            address = self.bytes.ctypes.data + page * PAGE
            failed = ctypes.CDLL(None).mprotect(
                ctypes.c_void_p(address), PAGE, protection
            )
            if not failed:
                self.run(number, saved)
            os._exit(failed)
        _, status = os.waitpid(pid, 0)
        return -os.waitstatus_to_exitcode(status)


def whole(nbytes: int) -> int:
    """Bytes of the pages that hold so many."""
    return round_up(nbytes, PAGE)


@pytest.fixture
def update() -> Update:
    if not load().available:
        pytest.skip("needs numba")
    return Update()


def same(a: dict[str, Bytes], b: dict[str, Bytes]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_an_update_saves_itself_but_where_two_rows_write(update: Update) -> None:
    entry = update.layout.entries["update"]
    lengths = [{span.end - span.begin for span, _ in kept} for kept in entry.within]
    assert lengths == [{4 * PARAMETERS["w1"]}, {4 * PARAMETERS["w2"]}]
    assert {span.segment for span, _ in entry.kept} == {
        "parameter",
        *(f"state.{state}" for state in STATES),
    }
    assert all(4 * 40 <= span.end - span.begin <= 192 for span, _ in entry.kept)


def test_what_is_saved_ahead_is_not_saved_again(update: Update) -> None:
    update.fill(3)
    saved = update.save_ahead(99)
    assert saved == 4 * (PARAMETERS["w1"] + PARAMETERS["w2"])
    copies = [
        update.segments[SEGMENT][offset : offset + span.end - span.begin]
        for kept in update.layout.entries["update"].within
        for span, offset in kept
    ]
    for copy in copies:
        copy[:] = 7
    update.run(1, saved)
    assert all((copy == 7).all() for copy in copies)


@pytest.mark.parametrize("pieces", [0, 2, 99])
@pytest.mark.parametrize("protection", [0, mmap.PROT_READ])
def test_killed_at_the_first_touch_of_any_page(
    update: Update, protection: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_AHEAD_BYTES", PAGE)
    update.fill(3)
    before = update.changing()
    update.run(1)
    after = update.changing()
    assert not same(after, before)
    deaths, changed = 0, 0
    for page in range(len(update.bytes) // PAGE):
        update.fill(4)
        update.run(3 * page + 2)  # what it has saved must not be taken for the next
        update.fill(3)
        number = 3 * page + 3
        saved = update.save_ahead(pieces)
        died = update.run_in_child(number, saved, page, protection)
        assert died in (0, signal.SIGSEGV)
        deaths += died != 0
        changed += died != 0 and not same(update.changing(), before)
        assert update.journal.recover("update", 0, number) == (not died)
        if died:
            assert same(update.changing(), before)
            number += 1
            update.run(number)
        assert same(update.changing(), after)
        update.journal.undo("update", 0, number)
        assert same(update.changing(), before)
    assert deaths >= 12
    assert changed >= 6  # or undoing does nothing
