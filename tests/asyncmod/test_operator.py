"""Operators of one's own: `mx.operator` and `mx.sym.Custom`."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from runtime.ops import custom
from tests.golden.custom.operators import make_operators, net, operator_of

GOLDEN = Path(__file__).parents[1] / "golden" / "custom" / "training.npz"
BATCH = 16


@pytest.fixture(autouse=True)
def operators() -> Iterator[None]:
    """Those of the golden nets; what a test registers is gone after it."""
    before = dict(custom._kinds)
    make_operators(mx)
    yield
    custom._kinds.clear()
    custom._kinds.update(before)


def recorded() -> dict[str, np.ndarray[Any, Any]]:
    """What MXNet was given, and what it made of it."""
    with np.load(GOLDEN) as golden:
        return dict(golden)


Twice = operator_of(
    mx,
    lambda operator, is_train, inputs, aux: [2 * inputs[0]],
    lambda operator, heads, inputs, *_: [2 * heads[0]] * len(inputs),
)


def registered(operator: Any = Twice, **methods: Any) -> type[mx.operator.CustomOpProp]:
    """A kind of operator as `test`; `methods` replace those of CustomOpProp."""

    def create_operator(self: Any, ctx: Any, shapes: Any, dtypes: Any) -> Any:
        return operator()

    methods = {"create_operator": create_operator, **methods}
    made = type("Prop", (mx.operator.CustomOpProp,), methods)
    return mx.operator.register("test")(made)


def twice(*args: Any, **attributes: Any) -> mx.symbol.Symbol:
    return mx.sym.Custom(
        *(args or [mx.sym.Variable("data")]), op_type="test", name="t", **attributes
    )


# Against MXNet ------------------------------------------------------------------------


@pytest.mark.parametrize("device", [mx.cpu, mx.reference])
@pytest.mark.parametrize("count", [1, 2])
async def test_a_training_as_in_mxnet(device: Any, count: int) -> None:
    golden = recorded()
    data = mx.io.NDArrayIter(golden["data"], golden["label"], BATCH)
    context = [device(i) for i in range(count)]
    async with mx.Module(net(mx.sym), context=context) as mod:
        await mod.fit(
            data,
            num_epoch=3,
            optimizer_params={"learning_rate": 0.1, "momentum": 0.9},
            arg_params={
                name.removeprefix("before_"): value
                for name, value in golden.items()
                if name.startswith("before_")
            },
            aux_params={"center_mean": np.zeros(16, np.float32)},
            initializer=None,
        )
        arguments, auxiliaries = await mod.get_params()
        outputs = await mod.predict(data)
    assert len(arguments) == 4
    for name, value in {**arguments, **auxiliaries}.items():
        want = golden[f"after{count}_{name}"]
        np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(outputs, golden[f"outputs{count}"], rtol=1e-4, atol=1e-6)


async def test_a_loss_of_ones_own_trains_as_softmax_output() -> None:
    golden = recorded()
    trained = []
    for loss in (
        lambda x: mx.sym.Custom(x, op_type="golden_softmax", name="softmax"),
        lambda x: mx.sym.SoftmaxOutput(x, name="softmax"),
    ):
        symbol = loss(mx.sym.FullyConnected(num_hidden=4, name="fc"))
        async with mx.Module(symbol, data_names=["fc_data"]) as mod:
            data = mx.io.NDArrayIter(
                {"fc_data": golden["data"]}, golden["label"], BATCH
            )
            await mod.fit(data, initializer=mx.init.One(), num_epoch=2)
            trained.append((await mod.get_params())[0]["fc_weight"])
    np.testing.assert_allclose(*trained, rtol=1e-5, atol=1e-6)


# What operators are given -------------------------------------------------------------


async def test_what_is_given_to_the_constructor_and_the_operator() -> None:
    seen: dict[str, Any] = {}

    def __init__(self: Any, alpha: str, name_of_it: str = "none") -> None:
        mx.operator.CustomOpProp.__init__(self)
        seen.update(alpha=alpha, name_of_it=name_of_it)

    def create_operator(self: Any, ctx: Any, shapes: Any, dtypes: Any) -> Any:
        seen.update(ctx=ctx, shapes=shapes, dtypes=dtypes)
        return Twice()

    registered(__init__=__init__, create_operator=create_operator)
    symbol = twice(alpha=0.5, attr={"__lr_mult__": "2"})
    assert symbol.attr("alpha") == "0.5"
    async with mx.bind(symbol, {"data": np.ones((2, 3), np.float16)}) as ex:
        (output,) = await ex.forward()
    assert output.dtype == np.float16
    assert (output == 2).all()
    assert seen == {
        "alpha": "0.5",
        "name_of_it": "none",
        "ctx": mx.cpu(0),
        "shapes": [[2, 3]],
        "dtypes": [np.float16],
    }


async def test_gradients_go_where_they_are_wanted() -> None:
    wants: list[list[str]] = []

    class Product(  # type: ignore[misc, valid-type]
        operator_of(
            mx,
            lambda _, is_train, x, aux: [x[0] * x[1], x[0] - x[1]],
            lambda _, heads, x, *rest: [
                heads[0] * x[1] + heads[1],
                heads[0] * x[0] - heads[1],
            ],
        )
    ):
        def backward(self, **given: Any) -> None:
            wants.append(given["req"])
            super().backward(**given)

    registered(
        Product,
        list_arguments=lambda self: ["left", "right"],
        list_outputs=lambda self: ["product", "difference"],
    )
    symbol = twice(mx.sym.Variable("a"), right=mx.sym.Variable("b"))
    assert symbol.list_outputs() == ["t_product", "t_difference"]
    values = {
        "a": np.array([[1.0, 2.0]], np.float32),
        "b": np.array([[3.0, 5.0]], np.float32),
    }
    heads = [np.array([[1.0, 10.0]], np.float32), np.array([[100.0, 0.0]], np.float32)]
    async with mx.bind(symbol, values, grad_req={"a": "write", "b": "add"}) as ex:
        for count in (1, 2):
            product, difference = await ex.forward(is_train=True)
            grads = await ex.backward(heads)
            assert (product == [[3, 10]]).all()
            assert (difference == [[-2, -3]]).all()
            assert (grads["a"] == [[103, 50]]).all()
            assert (grads["b"] == count * np.array([[-99, 20]])).all()
    async with mx.bind(symbol, values, grad_req={"a": "null", "b": "write"}) as ex:
        await ex.forward(is_train=True)
        assert list(await ex.backward(heads)) == ["b"]
    assert wants == [["write", "write"], ["write", "write"], ["null", "write"]]


async def test_auxiliary_states_count_with_the_update() -> None:
    class Counting(Twice):  # type: ignore[misc, valid-type]
        def forward(self, **given: Any) -> None:
            super().forward(**given)
            given["aux"][0][:] += 1

        def backward(self, **given: Any) -> None:
            super().backward(**given)
            given["aux"][0][:] += 10

    registered(
        Counting,
        list_auxiliary_states=lambda self: ["count"],
        infer_shape=lambda self, shapes: (shapes, shapes[:1], [(1,)]),
    )
    values = {"data": np.ones((2, 3), np.float32)}
    aux = {"t_count": np.zeros(1, np.float32)}
    async with mx.bind(twice(), values, aux=aux, grad_req="write") as ex:
        await ex.forward(is_train=False)
        await ex.forward(is_train=True)
        assert (await ex.aux())["t_count"] == 0
        await ex.backward([np.ones((2, 3), np.float32)])
        assert (await ex.aux())["t_count"] == 11
        await ex.backward([np.ones((2, 3), np.float32)])  # its forward is done again
        assert (await ex.aux())["t_count"] == 22


async def test_a_monitored_step_uses_an_operator_of_its_own() -> None:
    golden = recorded()
    batch = mx.io.DataBatch([golden["data"][:BATCH]], [golden["label"][:BATCH]])
    kept = []
    for monitored in (False, True):
        async with mx.Module(net(mx.sym)) as mod:
            await mod.bind([("data", (BATCH, 8))], [("softmax_label", (BATCH,))])
            means = {"center_mean": np.zeros(16, np.float32)}
            await mod.init_params(mx.init.One(), None, means, allow_missing=True)
            await mod.init_optimizer()
            if monitored:
                monitor = mx.mon.Monitor(1, monitor_all=True)
                mod.install_monitor(monitor)
                monitor.tic()
            await mod.step(batch)
            if monitored:
                told = [name for _, name, _ in monitor.toc()]
                assert "center_output" in told
                assert "softmax_output" in told
            kept.append(await mod.get_params())
    for plain, seen in zip(*kept, strict=True):
        assert plain.keys() == seen.keys()
        assert all((plain[name] == seen[name]).all() for name in plain)


def test_symbols_are_saved_and_loaded() -> None:
    symbol = net(mx.sym)
    again = mx.sym.load_json(symbol.tojson())
    assert again.tojson() == symbol.tojson()
    assert again.list_auxiliary_states() == ["center_mean"]
    assert again.list_arguments()[-1] == "softmax_label"
    _, outputs, auxiliaries = again.infer_shape(data=(7, 3))
    assert (outputs, auxiliaries) == ([(7, 4)], [(16,)])


def test_on_arrays() -> None:
    registered()
    output = mx.nd.Custom(mx.nd.ones((2, 3)), op_type="test")
    assert isinstance(output, mx.nd.NDArray)
    assert (output == 2).all()


def test_all_are_listed() -> None:
    names = mx.operator.get_all_registered_operators()
    assert {"FullyConnected", "Custom", "golden_softmax"} <= set(names)


# What goes wrong ----------------------------------------------------------------------


def test_an_unknown_one_names_those_that_there_are() -> None:
    with pytest.raises(mx.errors.OperatorError, match=r"`nothing`.*golden_softmax"):
        mx.sym.Custom(mx.sym.Variable("data"), op_type="nothing")


@pytest.mark.parametrize(
    ("methods", "told"),
    [
        ({"infer_shape": lambda self, s: (s, [], [])}, r"infer_shape.*\[1, 0, 0\]"),
        ({"infer_shape": lambda self, s: s[7]}, "infer_shape.*`test`.*IndexError"),
        ({"list_outputs": lambda self: ["a", "a"]}, "list_outputs.*each of them once"),
        ({"list_arguments": lambda self: []}, "list_arguments.*one or more"),
    ],
)
def test_rules_that_make_no_sense(methods: dict[str, Any], told: str) -> None:
    registered(**methods)
    with pytest.raises(mx.errors.GraphError, match=told):
        twice().infer_shape(data=(2, 3))


def test_a_rule_of_dtypes_that_fails_is_told() -> None:
    registered(infer_type=lambda self, dtypes: dtypes[7])
    with pytest.raises(mx.errors.OperatorError, match=r"infer_type.*`test`.*IndexErr"):
        twice().infer_type(data=np.float32)


def test_a_failing_rule_is_told_while_a_label_is_not_known() -> None:
    def infer_shape(self: Any, shapes: Any) -> Any:
        return [shapes[0], (shapes[0][9],)], [shapes[0]], []

    registered(list_arguments=lambda self: ["data", "label"], infer_shape=infer_shape)
    with pytest.raises(
        mx.errors.OperatorError, match=r"IndexError.*label \?"
    ) as caught:
        twice().infer_shape(data=(2, 3))
    assert isinstance(caught.value.__cause__, IndexError)  # with the program's line
    arguments, _, _ = twice().infer_shape_partial(t_label=(2,))
    assert arguments == [(), (2,)]


def test_a_constructor_that_fails_is_told() -> None:
    registered()
    with pytest.raises(
        mx.errors.OperatorError, match=r"constructor of .*`test` failed.*'alpha'"
    ):
        twice(alpha=1)


async def test_what_is_no_operator() -> None:
    registered(create_operator=lambda self, *given: 5)
    with pytest.raises(mx.errors.ArgumentTypeError, match="a CustomOp, not 5"):
        async with mx.bind(twice(), {"data": np.ones((2, 3), np.float32)}):
            pass


def test_a_class_whose_name_is_taken_is_forgotten() -> None:
    gone = weakref.ref(registered())
    twice()
    registered()
    gc.collect()
    assert gone() is None


async def test_a_class_that_takes_the_name_leaves_what_is_bound() -> None:
    registered(
        list_arguments=lambda self: ["data", "other"],
        infer_shape=lambda self, shapes: ([shapes[0]] * 2, shapes[:1], []),
    )
    values = {name: np.ones((2, 3), np.float32) for name in ("data", "t_other")}
    async with mx.bind(twice(), values, grad_req="write") as ex:
        registered()
        await ex.forward(is_train=True)
        grads = await ex.backward([np.ones((2, 3), np.float32)])
    assert (grads["t_other"] == 2).all()


async def test_an_error_in_an_operator_names_node_and_device() -> None:
    class Broken(Twice):  # type: ignore[misc, valid-type]
        def forward(self, **given: Any) -> None:
            raise ZeroDivisionError("mine")

    registered(Broken)
    async with mx.bind(twice(), {"data": np.ones((2, 3), np.float32)}) as ex:
        with pytest.raises(ZeroDivisionError, match="mine") as caught:
            await ex.forward()
    assert any("`t` (Custom) on cpu(0)" in note for note in caught.value.__notes__)


async def test_inputs_cannot_be_overwritten() -> None:
    class Greedy(Twice):  # type: ignore[misc, valid-type]
        def forward(self, **given: Any) -> None:
            given["in_data"][0][:] = 0

    registered(Greedy)
    async with mx.bind(twice(), {"data": np.ones((2, 3), np.float32)}) as ex:
        with pytest.raises(ValueError, match="read-only"):
            await ex.forward()


async def test_worker_processes_do_not_know_them() -> None:
    registered()
    context = mx.cpu(0, worker="process")
    with pytest.raises(mx.errors.OperatorError, match="worker='thread'"):
        async with mx.bind(
            twice(), {"data": np.ones((2, 3), np.float32)}, context=context
        ):
            pass


def test_what_cannot_be_registered() -> None:
    with pytest.raises(mx.errors.ArgumentTypeError, match="must be a string, not 7"):
        mx.operator.register(7)  # type: ignore[arg-type]
    with pytest.raises(mx.errors.ArgumentTypeError, match="derives from CustomOpProp"):
        mx.operator.register("test")(Twice)  # type: ignore[type-var]


def test_an_unknown_request() -> None:
    with pytest.raises(mx.errors.ArgumentError, match=r"'sub'.*must be 'null'"):
        Twice().assign(np.zeros(1), "sub", 1)
