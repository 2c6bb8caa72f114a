"""Trainings recorded from MXNet 1.9.1, step by step, on each device kind."""

from __future__ import annotations

from typing import Any

import pytest

import asyncmod as mx
from tests.golden.arrays import HERE, Tolerance, arrays, cases, tolerance
from tests.golden.module_coverage import config, covered

KINDS = {"cpu": mx.cpu, "reference": mx.reference, "guarded cpu": mx.cpu}
STEPS = [
    name
    for name in covered("training")
    if name != "lr_schedulers" and config(name).get("mode") != "fit"
]
FITS = [
    name
    for name in covered("training")
    if name != "lr_schedulers" and config(name).get("mode") == "fit"
]


def scheduler(settings: dict[str, Any]) -> Any:
    settings = dict(settings)
    return getattr(mx.lr_scheduler, settings.pop("class"))(**settings)


def symbol_of(case: dict[str, Any]) -> mx.symbol.Symbol:
    return mx.symbol.load(HERE / case["symbol"])


def bucketing_of(case: dict[str, Any], context: list[mx.Context]) -> Any:
    def sym_gen(key: int) -> tuple[mx.symbol.Symbol, list[str], list[str]]:
        symbol = mx.symbol.load(HERE / case["symbols"][str(key)])
        return symbol, case["data_names"], case["label_names"]

    return mx.BucketingModule(sym_gen, case["default_bucket_key"], context=context)


def module_of(case: dict[str, Any], context: list[mx.Context]) -> mx.Module:
    return mx.Module(
        symbol_of(case),
        data_names=case["data_names"],
        label_names=case["label_names"],
        context=context,
        work_load_list=case.get("work_load_list"),
        fixed_param_names=case.get("fixed_param_names"),
    )


def sequential_of(case: dict[str, Any], context: list[mx.Context]) -> Any:
    sequence = mx.SequentialModule()
    for part in case["modules"]:
        module = mx.Module(
            mx.symbol.load(HERE / part["symbol"]),
            data_names=part["data_names"],
            label_names=part["label_names"],
            context=context,
        )
        sequence.add(module, **part["meta"])
    return sequence


MAKERS = {
    "module": module_of,
    "bucketing": bucketing_of,
    "sequential": sequential_of,
}


def optimizer_of(case: dict[str, Any], module: mx.Module) -> tuple[Any, dict[str, Any]]:
    """What goes to init_optimizer: a name, or an object where multipliers are set."""
    settings = dict(case["optimizer_params"])
    if "lr_scheduler" in settings:
        settings["lr_scheduler"] = scheduler(settings["lr_scheduler"])
    if "mults" not in case:
        return case["optimizer"], settings
    inputs = {*module.data_names, *module.label_names}
    names = [n for n in module.symbol.list_arguments() if n not in inputs]
    optimizer = mx.optimizer.create(
        case["optimizer"],
        sym=module.symbol,
        param_idx2name=dict(enumerate(names)),
        **settings,
    )
    optimizer.set_lr_mult(case["mults"]["lr_mult"])
    optimizer.set_wd_mult(case["mults"]["wd_mult"])
    return optimizer, {}


class Player:
    """Runs the program of one case and compares at each `record`."""

    def __init__(self, name: str, kind: str, whole_steps: bool) -> None:
        self.case = config(name)
        self.arrays = arrays(self.case["arrays"])
        self.tolerance: Tolerance = tolerance(cases("training")[name])
        self.whole_steps = whole_steps
        context = [KINDS[kind](i) for i in range(self.case["contexts"])]
        self.module: Any = MAKERS[self.case["kind"]](self.case, context)
        self.metric = mx.metric.create(self.case.get("metric", "acc"))
        self.last = 0
        self.records = 0

    def batch(self, index: int) -> mx.io.DataBatch:
        names = self.case["batches"][index]

        def read(key: str) -> list[Any]:
            return [self.arrays[f"batch{index}.{name}"] for name in names[key]]

        return mx.io.DataBatch(
            read("data_names"),
            read("label_names"),
            bucket_key=names.get("bucket_key"),
        )

    def expected(self, what: str) -> dict[str, Any]:
        prefix = f"exp.rec{self.records}.{what}."
        return {k: self.arrays[k] for k in self.arrays if k.startswith(prefix)}

    async def prepare(self) -> None:
        bind = dict(self.case["bind"])
        await self.module.bind(**bind)
        recorded = self.arrays
        await self.module.init_params(
            arg_params={k[5:]: recorded[k] for k in recorded if k[:5] == "init."},
            aux_params={k[8:]: recorded[k] for k in recorded if k[:8] == "initaux."},
        )
        optimizer, settings = optimizer_of(self.case, self.module)
        await self.module.init_optimizer(self.case["kvstore"], optimizer, settings)

    async def play(self) -> None:
        program = self.case["program"]
        skip = False
        for position, (what, *arguments) in enumerate(program):
            if skip:
                skip = False
                continue
            if self.whole_steps and what == "forward_backward":
                following = program[position + 1]
                if following[0] == "update":
                    self.last = arguments[0]
                    await self.module.step(self.batch(self.last))
                    skip = True
                    continue
            await getattr(self, what)(*arguments)
        assert self.records > 0

    async def forward_backward(self, index: int) -> None:
        self.last = index
        await self.module.forward_backward(self.batch(index))

    async def forward(self, index: int, is_train: bool) -> None:
        self.last = index
        await self.module.forward(self.batch(index), is_train=is_train)

    async def backward(self) -> None:
        await self.module.backward()

    async def update(self) -> None:
        await self.module.update()

    async def update_metric(self) -> None:
        await self.module.update_metric(self.metric, self.batch(self.last).label)

    async def zero_grads(self) -> None:
        await self.module.zero_grad()

    async def record(self, *kinds: str) -> None:
        for kind in kinds:
            await getattr(self, f"record_{kind}")(self.expected(kind))
        self.records += 1

    async def record_out(self, expected: dict[str, Any]) -> None:
        outputs = await self.module.get_outputs()
        for key, array in expected.items():
            self.tolerance.check(key, outputs[int(key.split(".")[-1])], array)

    async def record_devout(self, expected: dict[str, Any]) -> None:
        outputs = await self.module.get_outputs(merge_multi_context=False)
        for key, array in expected.items():
            device, output = map(int, key.split(".")[-2:])
            self.tolerance.check(key, outputs[output][device], array)

    async def record_param(self, expected: dict[str, Any]) -> None:
        values, _ = await self.module.get_params()
        assert len(expected) == len(values)
        for key, array in expected.items():
            self.tolerance.check(key, values[key.split(".")[-1]], array)

    async def record_aux(self, expected: dict[str, Any]) -> None:
        _, values = await self.module.get_params()
        assert len(expected) == len(values)
        for key, array in expected.items():
            self.tolerance.check(key, values[key.split(".")[-1]], array)

    async def record_grad(self, expected: dict[str, Any]) -> None:
        """The records are per device and not summed; the module gives the sum."""
        got = await self.module.get_grads()
        sums: dict[str, Any] = {}
        for key, array in expected.items():
            name = key.split(".")[-1]
            sums[name] = sums.get(name, 0) + array
        assert sums.keys() == got.keys()
        for name, array in sums.items():
            self.tolerance.check(f"grad.{name}", got[name], array)

    async def record_igrad(self, expected: dict[str, Any]) -> None:
        got = await self.module.get_input_grads()
        for key, array in expected.items():
            self.tolerance.check(key, got[int(key.split(".")[-1])], array)

    async def record_metric(self, expected: dict[str, Any]) -> None:
        values = [value for _, value in self.metric.get_name_value()]
        for key, array in expected.items():
            self.tolerance.check(key, values, array)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Where a training runs: each kind of device, and once with guard zones."""
    if request.param == "guarded cpu":
        request.getfixturevalue("guard_zones")
    return str(request.param)


@pytest.mark.parametrize("name", STEPS)
async def test_training_follows_the_recorded_one(name: str, kind: str) -> None:
    player = Player(name, kind, whole_steps=False)
    async with player.module:
        await player.prepare()
        await player.play()


@pytest.mark.parametrize(
    "name", ["opt_sgd_mom_wd_clip_ctx2", "changing_batch_size", "sched_factor_sgd"]
)
async def test_step_is_forward_backward_and_update(name: str, kind: str) -> None:
    player = Player(name, kind, whole_steps=True)
    # `record` between backward and update is of no use here: the step does both.
    player.case["program"] = [
        step
        for step in player.case["program"]
        if step[0] != "record" or "param" in step
    ]
    kept = [
        index
        for index, step in enumerate(
            s for s in config(name)["program"] if s[0] == "record"
        )
        if "param" in step
    ]
    expected = player.expected

    def of_kept(what: str) -> dict[str, Any]:
        records, player.records = player.records, kept[player.records]
        found = expected(what)
        player.records = records
        return found

    player.expected = of_kept  # type: ignore[method-assign]
    async with player.module:
        await player.prepare()
        await player.play()
    assert player.records == len(kept) > 0


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("name", FITS)
async def test_fit_follows_the_recorded_one(
    name: str, kind: str, in_flight: int
) -> None:
    case = config(name)
    recorded = arrays(case["arrays"])
    close = tolerance(cases("training")[name])
    module = mx.Module(
        symbol_of(case), context=[KINDS[kind](i) for i in range(case["contexts"])]
    )

    def iterator(part: str, last_batch_handle: Any) -> mx.io.NDArrayIter:
        return mx.io.NDArrayIter(
            recorded[f"{part}.data"],
            recorded[f"{part}.softmax_label"],
            case["batch_size"],
            last_batch_handle=last_batch_handle,
        )

    # The records hold every row of the evaluation, whatever training does.
    train = iterator("train", case["last_batch_handle"])
    val = iterator("eval", "pad")
    rows: dict[str, list[Any]] = {"batch_end": [], "eval_end": []}

    def note(kind: str, param: mx.model.BatchEndParam) -> None:
        (_, value), *_ = param.eval_metric.get_name_value()
        rows[kind].append((param.epoch, param.nbatch, value))

    async def epoch_end(epoch: int, symbol: Any, args: Any, auxs: Any) -> None:
        assert symbol is module.symbol
        for name, array in args.items():
            key = f"exp.epoch{epoch}.param.{name}"
            close.check(key, array, recorded[key])
        for name, array in auxs.items():
            key = f"exp.epoch{epoch}.aux.{name}"
            close.check(key, array, recorded[key])

    async with module:
        await module.fit(
            train,
            eval_data=val,
            eval_metric=case["metric"],
            batch_end_callback=lambda param: note("batch_end", param),
            eval_end_callback=lambda param: note("eval_end", param),
            epoch_end_callback=epoch_end,
            kvstore=case["kvstore"],
            optimizer=case["optimizer"],
            optimizer_params=case["optimizer_params"],
            arg_params={k[5:]: recorded[k] for k in recorded if k[:5] == "init."},
            aux_params={k[8:]: recorded[k] for k in recorded if k[:8] == "initaux."},
            num_epoch=case["num_epoch"],
            count_pad=True,
            in_flight=in_flight,
        )
        for kind, seen in rows.items():
            close.check(f"exp.{kind}", seen, recorded[f"exp.{kind}"])
        scored = await module.score(val, case["metric"], count_pad=True)
        close.check("exp.score", [v for _, v in scored], recorded["exp.score"])
        scored = await module.score(val, case["metric"], num_batch=1, count_pad=True)
        close.check(
            "exp.score_1batch", [v for _, v in scored], recorded["exp.score_1batch"]
        )
        predicted = await module.predict(val, always_output_list=True)
        for i, array in enumerate(predicted):
            close.check(f"exp.predict.{i}", array, recorded[f"exp.predict.{i}"])
        count = 0
        async for outputs, nbatch, _ in module.iter_predict(val):
            key = f"exp.iter_predict.{nbatch}"
            close.check(key, outputs[0], recorded[key])
            count += 1
        assert count == sum(k.startswith("exp.iter_predict.") for k in recorded)


def test_schedulers_give_the_recorded_rates() -> None:
    recorded: Any = config("lr_schedulers")
    close = tolerance(cases("training")["lr_schedulers"])
    for case in recorded:
        schedule = scheduler(case["scheduler"])
        rates = [schedule(n) for n in range(len(case["lr"]))]
        close.check(str(case["scheduler"]), rates, case["lr"])
