"""Cases for iterators: no batch is lost, whatever is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from asyncmod import io
from tests.asyncmod.cancellation.trial import Case

ROWS, WIDTH, BATCH = 6, 3, 2


def values() -> np.ndarray[Any, Any]:
    return np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)


def from_arrays(folder: Path) -> io.NDArrayIter:
    return io.NDArrayIter(values(), np.arange(ROWS), BATCH, shuffle=True)


def from_csv(folder: Path) -> io.CSVIter:
    path = folder / "values.csv"
    np.savetxt(path, values(), delimiter=",")
    return io.CSVIter(data_csv=path, data_shape=(WIDTH,), batch_size=BATCH)


def from_libsvm(folder: Path) -> io.LibSVMIter:
    path = folder / "values.libsvm"
    path.write_text("".join(f"{row} 0:{row + 1} 2:5\n" for row in range(ROWS)))
    return io.LibSVMIter(data_libsvm=path, data_shape=(WIDTH,), batch_size=BATCH)


def from_mnist(folder: Path) -> io.MNISTIter:
    images, labels = folder / "images", folder / "labels"
    pixels = np.arange(ROWS * 4, dtype=np.uint8).tobytes()
    header = np.array([2051, ROWS, 2, 2], ">i4").tobytes()
    images.write_bytes(header + pixels)
    header = np.array([2049, ROWS], ">i4").tobytes()
    labels.write_bytes(header + bytes(range(ROWS)))
    return io.MNISTIter(image=images, label=labels, batch_size=BATCH)


def of_sentences(folder: Path) -> io.BucketSentenceIter:
    sentences = [[row, *range(row % 2 + 1)] for row in range(8)]
    return io.BucketSentenceIter(sentences, BATCH, buckets=[2, 3])


def resized(folder: Path) -> io.ResizeIter:
    return io.ResizeIter(from_arrays(folder), 4)


def prefetching(folder: Path) -> io.PrefetchingIter:
    return io.PrefetchingIter(from_arrays(folder))


ITERATORS: dict[str, Callable[[Path], io.DataIter]] = {
    "NDArrayIter": from_arrays,
    "CSVIter": from_csv,
    "LibSVMIter": from_libsvm,
    "MNISTIter": from_mnist,
    "BucketSentenceIter": of_sentences,
    "ResizeIter": resized,
    "PrefetchingIter": prefetching,
}


class IteratorSubject:
    """An iterator of which one batch was read."""

    def __init__(self, iterator: io.DataIter) -> None:
        self.iterator = iterator
        self.closed = False

    async def observe(self) -> Any:
        """Its state."""
        return self.closed or self.iterator.get_state()

    async def go_on(self) -> Any:
        """The rest of this epoch, and the next one."""
        if self.closed:
            return "closed"
        batches = await rest(self.iterator)
        await self.iterator.reset()
        return batches + await rest(self.iterator)

    async def aclose(self) -> None:
        await self.iterator.aclose()


async def rest(iterator: io.DataIter) -> list[Any]:
    batches = []
    async for batch in iterator:
        batches.append([dense(array) for array in (*batch.data, *batch.label)])
    return batches


def dense(array: Any) -> Any:
    return array.toarray() if hasattr(array, "toarray") else np.array(array)


async def read(subject: IteratorSubject) -> None:
    await subject.iterator.next()


async def read_by_loop(subject: IteratorSubject) -> None:
    async for _ in subject.iterator:
        break


async def reset(subject: IteratorSubject) -> None:
    await subject.iterator.reset()


async def close(subject: IteratorSubject) -> None:
    subject.closed = True
    await subject.iterator.aclose()


async def use(subject: IteratorSubject) -> None:
    subject.closed = True
    async with subject.iterator as iterator:
        await iterator.next()


def cases() -> dict[str, Case]:
    """By class and member."""
    return {
        f"{name}.{member}": case
        for name, make in ITERATORS.items()
        for member, case in cases_of(make).items()
    }


def cases_of(make: Callable[[Path], io.DataIter]) -> dict[str, Case]:
    async def fresh(folder: Path) -> IteratorSubject:
        return IteratorSubject(make(folder))

    async def begun(folder: Path) -> IteratorSubject:
        subject = await fresh(folder)
        await read(subject)
        return subject

    closed: list[Callable[[IteratorSubject], Awaitable[object]]] = [close]
    return {
        "next": Case(begun, read),
        "next (the first)": Case(fresh, read),
        "__anext__": Case(begun, read_by_loop),
        "reset": Case(begun, reset),
        "aclose": Case(begun, close, closed),
        "__aenter__": Case(fresh, use, closed),
        "__aexit__": Case(fresh, use, closed),
    }
