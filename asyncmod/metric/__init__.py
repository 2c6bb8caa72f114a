"""Metrics in plain NumPy, under MXNet's names."""

from asyncmod.metric.base import EvalMetric, MetricError, check_label_shapes
from asyncmod.metric.binary import F1, MCC
from asyncmod.metric.classification import Accuracy, TopKAccuracy
from asyncmod.metric.composite import CompositeEvalMetric
from asyncmod.metric.custom import CustomMetric, np
from asyncmod.metric.likelihood import (
    CrossEntropy,
    NegativeLogLikelihood,
    Perplexity,
)
from asyncmod.metric.loss import Caffe, Loss, Torch
from asyncmod.metric.multiclass import PCC
from asyncmod.metric.registry import UnknownMetricError, alias, create, register
from asyncmod.metric.regression import MAE, MSE, RMSE, PearsonCorrelation

__all__ = [
    "F1",
    "MAE",
    "MCC",
    "MSE",
    "PCC",
    "RMSE",
    "Accuracy",
    "Caffe",
    "CompositeEvalMetric",
    "CrossEntropy",
    "CustomMetric",
    "EvalMetric",
    "Loss",
    "MetricError",
    "NegativeLogLikelihood",
    "PearsonCorrelation",
    "Perplexity",
    "TopKAccuracy",
    "Torch",
    "UnknownMetricError",
    "alias",
    "check_label_shapes",
    "create",
    "np",
    "register",
]
