"""Metrics beyond the golden cases: refusals, odd input, create and config."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from asyncmod import metric

LABEL = np.array([0, 1, 2, 1])
PRED = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]

EVERY = [
    metric.Accuracy(axis=1, name="a"),
    metric.TopKAccuracy(top_k=2),
    metric.F1(average="micro"),
    metric.MCC(),
    metric.Perplexity(None),
    metric.MAE(),
    metric.MSE(output_names=["out"], label_names=["lab"]),
    metric.RMSE(),
    metric.CrossEntropy(eps=1e-6),
    metric.NegativeLogLikelihood(),
    metric.PearsonCorrelation(average="micro"),
    metric.PCC(),
    metric.Loss(),
    metric.Torch(),
    metric.Caffe(),
    metric.create(["acc", metric.Perplexity(ignore_label=0)]),
]


@pytest.mark.parametrize("measure", EVERY, ids=lambda m: m.name)
def test_nan_before_any_update_and_after_a_reset(measure: metric.EvalMetric) -> None:
    for _ in range(2):
        for _, value in [
            *measure.get_name_value(),
            *measure.get_global_name_value(),
        ]:
            assert math.isnan(value)
        measure.reset()


@pytest.mark.parametrize("measure", EVERY, ids=lambda m: m.name)
def test_created_again_from_its_config(measure: metric.EvalMetric) -> None:
    config = measure.get_config()
    text = json.dumps(config)
    for described in (text, config):
        again = metric.create(described)
        assert type(again) is type(measure)
        assert json.dumps(again.get_config()) == text


def test_create() -> None:
    given = metric.Accuracy()
    assert metric.create(given) is given
    assert isinstance(metric.create("ACC"), metric.Accuracy)
    assert isinstance(metric.create(metric.MSE), metric.MSE)

    def half(label: Any, pred: Any) -> float:
        return 0.5

    made = metric.create(half)
    made.update([LABEL], [PRED])
    assert made.get() == ("half", 0.5)
    for family in (AssertionError, ValueError):
        with pytest.raises(family, match="cross-entropy is not registered"):
            metric.create("cross-entropy")
        with pytest.raises(family, match=r"axis.* is not registered"):
            metric.create({"axis": 1})


def test_a_metric_of_the_users_with_local_sums_only() -> None:
    @metric.alias("mine_too")
    @metric.register
    class Mine(metric.EvalMetric):
        def update(self, labels: Any, preds: Any) -> None:
            self.sum_metric += 3
            self.num_inst += 1

    made = metric.create("mine_too", name="m")
    assert isinstance(made, Mine)
    made.update([], [])
    assert made.get() == made.get_global() == ("m", 3)
    assert str(made) == "EvalMetric: {'m': 3.0}"


def test_labels_and_predictions_that_do_not_fit() -> None:
    for measure in (metric.Accuracy(), metric.MSE(), metric.F1(), metric.Perplexity(0)):
        with pytest.raises(ValueError, match=r"labels 1 does not match .* 0"):
            measure.update([LABEL], [])
        if not isinstance(measure, metric.MSE):
            with pytest.raises(ValueError, match=r"mismatch|does not match"):
                measure.update([LABEL[:3]], [PRED])
    with pytest.raises(ValueError, match="does not match"):
        metric.PearsonCorrelation().update([LABEL], [PRED])
    with pytest.raises(ValueError, match="does not match"):
        metric.TopKAccuracy(2).update([LABEL[:3]], [PRED])
    with pytest.raises(ValueError, match="at most 2 axes"):
        metric.TopKAccuracy(2).update([LABEL], [PRED[None]])
    with pytest.raises(ValueError, match="binary"):
        metric.F1().update([LABEL], [PRED])
    with pytest.raises(AssertionError, match="`top_k`"):
        metric.TopKAccuracy(1)


@pytest.mark.parametrize("bad", [-1, 3, np.nan])
@pytest.mark.parametrize(
    "measure",
    [metric.CrossEntropy(), metric.Perplexity(None)],
    ids=["ce", "perplexity"],
)
def test_a_label_that_is_no_class(measure: metric.EvalMetric, bad: float) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 2, and there is {bad}"):
        measure.update([np.array([0, bad])], [PRED[:2]])


def test_top_k_of_few_classes_and_of_classes() -> None:
    measure = metric.TopKAccuracy(5)
    measure.update([LABEL], [PRED])
    assert measure.get()[1] == 1
    measure = metric.TopKAccuracy(2)
    measure.update([LABEL], [np.array([0.0, 1.0, 2.0, 2.0])])
    assert measure.get()[1] == 0.75


def test_perplexity_of_the_impossible_is_bounded() -> None:
    measure = metric.Perplexity(None)
    measure.update([np.array([0])], [np.array([[0.0, 1.0]])])
    assert measure.get()[1] == pytest.approx(1e10)


def test_perplexity_along_another_axis() -> None:
    one, other = metric.Perplexity(None), metric.Perplexity(None, axis=1)
    probability = np.random.default_rng(0).random((2, 3, 4))
    label = np.array([[0, 1, 2], [3, 0, 1]])
    one.update([label], [probability])
    other.update([label], [probability.transpose(0, 2, 1)])
    assert other.get() == one.get()


def test_moments_joined_in_pieces_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    label, pred = rng.normal(5, 1, 60), rng.normal(5, 1, 60)
    measure = metric.PearsonCorrelation(average="micro")
    for piece in (slice(0, 7), slice(7, 30), slice(30, 60)):
        measure.update([label[piece]], [pred[piece]])
    assert measure.get()[1] == pytest.approx(np.corrcoef(label, pred)[0, 1])


def test_binary_pcc_is_mcc() -> None:
    label = np.array([0, 1, 1, 0, 1, 0])
    pred = np.eye(2)[[0, 1, 0, 0, 1, 1]]
    pcc, mcc = metric.PCC(), metric.MCC()
    pcc.update([label], [pred])
    mcc.update([label], [pred])
    assert pcc.get()[1] == pytest.approx(mcc.get()[1])


def test_composite() -> None:
    composite = metric.CompositeEvalMetric(["acc"])
    composite.add("ce")
    assert isinstance(composite.get_metric(1), metric.CrossEntropy)
    with pytest.raises(ValueError, match="index 2 is out of range"):
        composite.get_metric(2)
    composite.update_dict({"lab": LABEL}, {"out": PRED})
    assert composite.get()[0] == ["accuracy", "cross-entropy"]
    assert composite.get()[1][0] == 0.75
    composite.reset_local()
    assert math.isnan(composite.get()[1][0])
    assert composite.get_global()[1][0] == 0.75


def test_names_choose_among_labels_and_outputs() -> None:
    composite = metric.CompositeEvalMetric(
        ["acc"], output_names=["out"], label_names=["lab"]
    )
    wrong = np.zeros(4)
    composite.update_dict({"w": wrong, "lab": LABEL}, {"out": PRED, "x": wrong})
    assert composite.get()[1] == [0.75]


def test_extra_outputs_of_a_custom_metric() -> None:
    def rows(label: Any, pred: Any) -> tuple[float, int]:
        return float(len(pred)), 1

    strict, loose = metric.np(rows), metric.np(rows, allow_extra_outputs=True)
    with pytest.raises(ValueError, match="predictions 2"):
        strict.update([LABEL], [PRED, PRED])
    loose.update([LABEL], [PRED, PRED])
    assert loose.get() == ("rows", 4)
    with pytest.raises(NotImplementedError):
        loose.get_config()


def test_check_label_shapes() -> None:
    assert metric.check_label_shapes([1], [2], wrap=True) == ([1], [2])
    with pytest.raises(ValueError, match=r"labels 1 .* predictions 2"):
        metric.check_label_shapes([1], [2, 3])
    with pytest.raises(ValueError, match="does not match"):
        metric.check_label_shapes(LABEL, PRED, shape=True)


@pytest.mark.parametrize(
    "measure",
    [metric.F1(average="micro"), metric.MCC(average="micro"), metric.PCC()],
    ids=lambda m: m.name,
)
def test_pooled_counts_begin_anew_after_a_local_reset(measure: Any) -> None:
    label, pred = np.array([0, 1, 1, 0]), np.eye(2)[[0, 1, 0, 1]]
    measure.update([label], [pred])
    first, whole = measure.get(), measure.get_global()
    assert first == whole
    measure.reset_local()
    measure.update([label], [np.eye(2)[label]])
    assert measure.get()[1] == pytest.approx(1)
    assert first[1] < measure.get_global()[1] < 1
