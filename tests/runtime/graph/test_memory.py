from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.graph.draft import Buffer, DefinitionDraft, Dense
from runtime.graph.passes.memory import place


def row(*buffers: Buffer) -> DefinitionDraft:
    forms = tuple(Dense(buffer, (buffer.nbytes,), "uint8") for buffer in buffers)
    return DefinitionDraft("=", "node", forms, ())


buffers = st.builds(
    Buffer,
    name=st.just("buffer"),
    nbytes=st.integers(1, 1000),
    geometry=st.sampled_from([None, None, (1, 2), (3, 4)]),
)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[Buffer], list[DefinitionDraft]]:
    made = draw(st.lists(buffers, min_size=1, max_size=20))
    for buffer in made:
        if buffer.geometry is not None:
            buffer.nbytes = 100 * buffer.geometry[0]
    rows = draw(st.lists(st.lists(st.sampled_from(made), max_size=4), max_size=20))
    return made, [row(*used) for used in rows]


@given(schedules())
def test_buffers_alive_at_once_do_not_overlap(
    schedule: tuple[list[Buffer], list[DefinitionDraft]],
) -> None:
    made, rows = schedule
    placement = place(rows)
    lives = {b: [i for i, draft in enumerate(rows) if b in draft.buffers] for b in made}
    used = [b for b in made if lives[b]]
    assert set(placement.addresses) == set(used)
    for i, a in enumerate(used):
        at = placement.addresses[a]
        assert at.offset + a.nbytes <= placement.segments[at.segment]
        assert at.offset % 64 == 0
        for b in used[:i]:
            other = placement.addresses[b]
            if at.segment != other.segment:
                continue
            apart = (
                at.offset + a.nbytes <= other.offset
                or other.offset + b.nbytes <= at.offset
            )
            alive = lives[a][0] <= lives[b][-1] and lives[b][0] <= lives[a][-1]
            assert apart or not alive
            if at.segment == "halo" and not apart:
                assert a.geometry == b.geometry
                assert at.offset == other.offset


def test_dead_memory_is_used_again() -> None:
    a, b, c = (Buffer(name, 640) for name in "abc")
    placement = place([row(a, b), row(b, c), row(c)])
    assert placement.addresses[a] == placement.addresses[c]
    assert placement.segments == {"arena": 1280}


def test_guards_keep_every_buffer_apart() -> None:
    a, b = Buffer("a", 100), Buffer("b", 100)
    placement = place([row(a), row(b)], guards=64)
    offsets = sorted(placement.addresses[x].offset for x in (a, b))
    assert offsets == [64, 64 + 128 + 64]


def test_packed_buffers_are_never_reused() -> None:
    a, b = Buffer("a", 64, segment="packed"), Buffer("b", 64, segment="packed")
    placement = place([row(a), row(b)])
    assert placement.addresses[a] != placement.addresses[b]
