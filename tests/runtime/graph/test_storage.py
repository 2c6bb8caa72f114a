"""Which values are CSR, and which gradients are row-sparse, as MXNet infers it."""

from __future__ import annotations

import pytest

from asyncmod import symbol as sym
from runtime.graph.storage import infer_storage


def row_sparse(net: sym.Symbol, csr: tuple[str, ...] = ("x",)) -> set[str]:
    """Names of the values whose gradient is row-sparse."""
    names = [n for n in net.list_arguments() if n not in ("x", "label")]
    storage = infer_storage(net.graph, csr, names)
    return {entry.name for entry in storage.row_sparse}


x, w = sym.Variable("x"), sym.Variable("w")


def embedding(sparse_grad: bool = True, name: str = "e") -> sym.Symbol:
    return sym.Embedding(
        x, w, input_dim=5, output_dim=2, sparse_grad=sparse_grad, name=name
    )


# Names of nodes count up; other tests have theirs.
with sym.NameManager():
    NETS = {
        "embedding": (embedding(), {"w"}),
        "dense embedding": (embedding(False), set()),
        "older name": (
            sym.contrib.SparseEmbedding(x, w, input_dim=5, output_dim=2),
            {"w"},
        ),
        "read twice": (embedding() + embedding(name="f"), {"w"}),
        "read densely too": (embedding() + embedding(False, "f"), set()),
        "weight is an output": (sym.Group([embedding(), w]), set()),
        "not the parameter itself": (
            sym.Embedding(x, 2 * w, input_dim=5, output_dim=2, sparse_grad=True),
            set(),
        ),
        "csr.dot": (sym.dot(x, w), {"w"}),
        "csr.T.dot": (sym.dot(x, w, transpose_a=True), set()),
        "square of csr": (sym.dot(sym.square(x), w), {"w"}),
        "scaled csr": (sym.dot(x * 2, w), {"w"}),
        "exp of csr is dense": (sym.dot(sym.exp(x), w), set()),
        "square sum": (
            sym.dot(x, sym._internal._square_sum(w, axis=1, keepdims=True, name="s")),
            {"w", "s_output"},
        ),
        "square sum of columns": (
            sym.dot(x, sym._internal._square_sum(w, axis=0, name="s")),
            set(),
        ),
    }


@pytest.mark.parametrize("name", NETS)
def test_gradients(name: str) -> None:
    net, expected = NETS[name]
    assert row_sparse(net) == expected


def test_without_csr_a_product_is_dense() -> None:
    assert row_sparse(sym.dot(x, w), csr=()) == set()


def test_only_wanted_parameters() -> None:
    assert infer_storage(embedding().graph, (), ()).row_sparse == frozenset()
