"""The life of a worker process, and what is told of its death."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio

import asyncmod.symbol as sym
from runtime.actors import open_runtime
from runtime.actors.actor import DeviceActor
from runtime.actors.crew import Crew
from runtime.actors.supervisor import WorkerPolicy
from runtime.context import DeviceId
from runtime.devices.contract import OnDeath, StepKey
from runtime.devices.factory import create_device
from runtime.devices.process import process
from runtime.devices.process.device import ProcessDevice
from runtime.devices.process.program import ProcessProgram
from runtime.errors import WorkerDied
from tests.conformance.nets import Net, mlp, results
from tests.processes import alive, wait_until
from tests.runtime.devices.process import liar
from tests.runtime.devices.process.sabotage import Point, sabotaged
from tests.timing import RUNS, check_fast

LATE = 0.1  # ten times the time in which a death is to be seen


class Home:
    """Owns a device, and lets it be started so and so often."""

    def __init__(self, restarts: int = 100, **policy: float) -> None:
        self.policy = WorkerPolicy(**policy)
        self.restarts = restarts
        self.pids: list[int] = []
        self.threads: list[str] = []

    def started(self, pid: int) -> None:
        self.pids.append(pid)
        self.threads.append(threading.current_thread().name)

    def ended(self) -> None:
        pass

    def may_restart(self, name: str) -> bool:
        self.restarts -= 1
        return self.restarts >= 0


def open_device(
    home: Home | None = None, kind: str = "cpu", on_death: OnDeath = "restart"
) -> ProcessDevice:
    device = create_device(kind, worker="process", home=home or Home())
    assert isinstance(device, ProcessDevice)
    return device.under(on_death)


def compiled(device: ProcessDevice, net: Net | None = None) -> ProcessProgram:
    program = (net or mlp()).compile(device, True)
    assert isinstance(program, ProcessProgram)
    (net or mlp()).load(program)
    return program


def run(program: ProcessProgram) -> None:
    program.launch("step")
    program.wait()


def pid_of(device: ProcessDevice) -> int:
    assert device.worker.process is not None
    return device.worker.process.pid


@pytest.fixture
def device() -> Iterator[ProcessDevice]:
    with closing(open_device(on_death="fail")) as device:
        yield device


def test_the_process_starts_with_the_first_plan_and_ends_with_the_device() -> None:
    home = Home()
    device = open_device(home)
    assert device.worker.process is None
    program = compiled(device)
    assert home.pids == [pid_of(device)]
    run(program)
    device.close()
    assert not alive(home.pids[0])
    device.close()


def test_a_worker_loads_nothing_that_it_does_not_need() -> None:
    """What it has in memory is what it takes to start, and to be gone."""
    code = "import sys, runtime.devices.process.serve, runtime.devices.cpu.device; "
    code += "print(*{'asyncio', 'numba', 'rich', 'scipy', 'ssl', 'structlog', 'trio'}"
    code += " & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_a_worker_has_a_session_of_its_own_and_no_ctrl_c(
    device: ProcessDevice,
) -> None:
    program = compiled(device)
    pid = pid_of(device)
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGINT)
    run(program)
    assert pid_of(device) == pid


def test_a_worker_has_nothing_open_but_its_own(device: ProcessDevice) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)  # as a careless library does
    compiled(device)
    names = [os.readlink(link) for link in Path(f"/proc/{pid_of(device)}/fd").iterdir()]
    assert len([n for n in names if n.startswith("socket")]) == 1
    assert f"pipe:[{os.stat(write).st_ino}]" not in names
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_death_in_a_step_is_told_with_its_signal(
    device: ProcessDevice, which: signal.Signals
) -> None:
    point = Point("forward", (2,), launch=1, signal=which)
    with sabotaged(point):
        program = compiled(device)
    pid = pid_of(device)
    program.launch("step", key=StepKey(step=7))
    with pytest.raises(WorkerDied) as caught:
        program.wait()
    died = caught.value
    assert str(died) == (
        f"the worker process of cpu(0) (pid {pid}) was killed by {which.name} "
        "during `step` of step 7"
    )
    assert (died.device, died.operation, died.step) == ("cpu(0)", "`step`", 7)
    assert (died.signal, died.exit_code, died.pid) == (which, None, pid)
    assert died.peak_memory > 1 << 20
    notes = "\n".join(getattr(died, "__notes__", ()))
    assert ("possibly out of memory" in notes) == (which == signal.SIGKILL)
    assert ("Segmentation fault" in notes) == (which == signal.SIGSEGV)
    assert ("sabotage.py" in notes) == (which == signal.SIGSEGV)  # the stack
    assert not alive(pid)


def test_an_exit_is_told_with_its_code_and_last_words(
    device: ProcessDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", ("-m", liar.__name__))
    monkeypatch.setenv(liar.VARIABLE, "leaves at once")
    with pytest.raises(
        WorkerDied, match="ended with exit code 1 during its start"
    ) as e:
        compiled(device)
    assert e.value.exit_code == 1
    assert e.value.signal is None
    assert e.value.stderr == "I will not work\n"
    assert "its last words:\nI will not work" in e.value.__notes__


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("too long", "a frame of 2147483648 bytes, the limit is 1048576"),
        ("nonsense", "not a frame"),
        ("unknown kind", "a frame of unknown kind"),
        ("unknown field", "`done` has the fields number, generation, pickle"),
        ("wrong number", "answer (number, generation) = (2, 1) to request (1, 1)"),
        ("stale generation", "answer (number, generation) = (1, 0) to request (1, 1)"),
        ("answers to nothing", "answer (number, generation) = (0, 1) to request"),
        ("no such launch", "it broke the protocol: launch 1 of 1 failed"),
        ("closes and stays", "it closed the connection"),
    ],
)
def test_a_worker_that_breaks_the_protocol_is_killed(
    device: ProcessDevice, monkeypatch: pytest.MonkeyPatch, lie: str, message: str
) -> None:
    monkeypatch.setattr(process, "COMMAND", ("-m", liar.__name__))
    monkeypatch.setattr(process, "_EXIT_SECONDS", 0.2)
    monkeypatch.setenv(liar.VARIABLE, lie)
    with pytest.raises(WorkerDied) as caught:
        compiled(device)
    assert "was killed because it " in str(caught.value)
    assert message in str(caught.value)
    assert not alive(caught.value.pid)


def test_a_worker_that_takes_long_to_die_has_died_of_what_it_was_killed_for(
    device: ProcessDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", ("-m", liar.__name__))
    monkeypatch.setenv(liar.VARIABLE, "nonsense")
    ended = iter([[], [0]])  # not in time, then it has
    monkeypatch.setattr(process.select, "select", lambda *args: (next(ended), [], []))
    with pytest.raises(WorkerDied, match="it broke the protocol: not a frame"):
        compiled(device)


def test_after_a_death_that_was_told_the_next_call_starts_another(
    device: ProcessDevice,
) -> None:
    program = compiled(device)
    run(program)
    expected = results(program)
    first = pid_of(device)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="during nothing: it was idle"):
        died_run(program, device)
    run(program)
    assert pid_of(device) != first
    for key, value in results(program).items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def died_run(program: ProcessProgram, device: ProcessDevice) -> None:
    """Run when the process has died for all to see."""
    process = device.worker.process
    while process is not None and not process.ended:
        time.sleep(0.001)
    run(program)


def test_a_worker_that_died_idle_is_replaced() -> None:
    home = Home()
    with closing(open_device(home)) as device:
        program = compiled(device)
        os.kill(pid_of(device), signal.SIGKILL)
        died_run(program, device)
        assert len(home.pids) == 2


def test_who_dies_too_often_stays_dead() -> None:
    home = Home(restarts=1)
    with closing(open_device(home)) as device:
        program = compiled(device)
        for deaths in (1, 2):
            os.kill(pid_of(device), signal.SIGKILL)
            if deaths == 1:
                died_run(program, device)
        with pytest.raises(WorkerDied) as caught:
            died_run(program, device)
        assert "it has died too often to be started once more" in caught.value.__notes__
        with pytest.raises(WorkerDied, match="killed by SIGKILL"):
            run(program)
        assert len(home.pids) == 2


def test_a_death_is_seen_at_once(device: ProcessDevice) -> None:
    with sabotaged(Point("forward", (1,) * RUNS, signal=signal.SIGSTOP)):
        program = compiled(device)
        check_fast(lambda: seen_after(program, device), LATE)


def seen_after(program: ProcessProgram, device: ProcessDevice) -> float:
    """Kill a worker that has stopped within a step; the time until that is raised."""
    killed = []
    device.start()
    pid = pid_of(device)

    def kill() -> None:
        while "\nState:\tT" not in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.001)
        killed.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(WorkerDied):
        run(program)
    seen = time.monotonic()
    killer.join()
    return seen - killed[0]


@pytest.mark.parametrize(
    ("how", "policy", "why", "where"),
    [
        (signal.SIGSTOP, {"heartbeat": 0.5}, "it gave no sign of life for 0.", None),
        (signal.SIGVTALRM, {"heartbeat": 0.5}, "it gave no sign of life", "loop"),
        (signal.SIGALRM, {"deadline": 0.5}, "it was not done after 0.5 s", "sleep"),
    ],
)
def test_a_worker_that_hangs_is_killed(
    how: int, policy: dict[str, float], why: str, where: str | None
) -> None:
    home = Home(**policy)
    with closing(open_device(home, on_death="fail")) as device:
        with sabotaged(Point("forward", (1,), signal=how)):
            program = compiled(device)
        begin = time.monotonic()
        with pytest.raises(WorkerDied) as caught:
            run(program)
        assert 0.4 < time.monotonic() - begin < 0.5 + 20 * LATE
        assert not alive(home.pids[0])
        assert f"was killed because {why}" in str(caught.value)
        if where is not None:  # a stopped process cannot say where it is
            assert "sabotage.py" in caught.value.stderr
            assert f"in {where}_for_ever" in caught.value.stderr


def test_want_of_memory_is_an_error_and_the_worker_lives(
    device: ProcessDevice,
) -> None:
    program = compiled(device)
    pid = pid_of(device)
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf(
        "SC_PAGE_SIZE"
    )
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (used + (16 << 20), hard))
    net = sym.FullyConnected(sym.Variable("data"), num_hidden=256, name="fc")
    large = Net(
        sym.MakeLoss(sym.Activation(net, act_type="tanh")), {"data": (30_000, 8)}
    )
    with pytest.raises(MemoryError) as caught:
        large.compile(device, True)
    assert f"in the worker process of cpu(0) (pid {pid})" in caught.value.__notes__[0]
    resource.prlimit(pid, resource.RLIMIT_AS, (hard, hard))
    large.compile(device, True)
    run(program)
    assert pid_of(device) == pid


def test_the_end_of_the_parent_is_the_end_of_its_workers(tmp_path: Path) -> None:
    script = (
        "from tests.runtime.devices.process.test_worker_process import *\n"
        "device = open_device()\n"
        "program = compiled(device)\n"
        "print(pid_of(device), flush=True)\n"
        "while True: run(program)\n"
    )

    def measure() -> float:
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert alive(pid)
            parent.kill()
            parent.wait()
            seconds = wait_until(lambda: not alive(pid), 60)
        assert seconds is not None
        return seconds

    check_fast(measure, LATE)


def test_workers_are_started_by_threads_that_stay() -> None:
    """For Linux kills a worker together with the thread that has started it."""
    trio.run(start_on_a_device_thread, 0.0)


@pytest.mark.slow
def test_a_worker_that_is_idle_for_twelve_seconds_lives() -> None:
    """Trio ends a thread of its own that was idle for ten."""
    trio.run(start_on_a_device_thread, 12.0)


async def start_on_a_device_thread(idle_seconds: float) -> None:
    threads = []

    def start(home: DeviceActor) -> ProcessDevice:
        threads.append(threading.current_thread().name)
        device = create_device("cpu", worker="process", home=home)
        assert isinstance(device, ProcessDevice)
        device.start()
        return device

    async with open_runtime() as runtime:
        actor = runtime.actor(DeviceId("cpu", worker="process"))
        crew = Crew([actor])
        (device,) = await crew.run("open", [partial(actor.device, start)])
        assert threads == ["cpu(0)"]
        pid = actor.pid
        await trio.sleep(idle_seconds)
        assert pid is not None
        assert alive(pid)
        (program,) = await crew.run("compile", [partial(compiled, device)])
        await crew.run("run", [partial(run, program)])
        assert actor.pid == pid
    assert not alive(pid)
