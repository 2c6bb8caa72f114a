"""PythonLossModule: a loss whose gradient is a function of the user's.

Next: `asyncmod.module.sequential`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    InputError,
    ModuleStateError,
    UnsupportedError,
)
from asyncmod.module.batches import Array, as_array
from asyncmod.module.metrics import LARGE
from asyncmod.module.plain_inside import PlainInside
from asyncmod.module.python_module import PythonModule
from asyncmod.module.step import CompletedStep, Step
from asyncmod.module.user_arrays import face
from asyncmod.nd import NDArray

GradientFunction = Callable[[Array, Array], Any | Awaitable[Any]]


class PythonLossModule(PythonModule):
    """A loss at the end of a SequentialModule: passes scores on, returns a gradient.

    Args:
        name: The output is called `<name>_output`.
        data_names: The one data input: the scores.
        label_names: The one label.
        logger: A `logging.Logger` or a structlog logger.
        grad_func: (scores, labels) -> gradient of the loss by the scores, an array of
            the scores' shape; `def` or `async def`. A `def` runs in a thread where the
            arrays have more than 1 MB. Without it a subclass defines `_gradient`, or
            `_backward_impl`, which takes `_scores` and `_labels` and sets
            `_scores_grad`.

    Raises:
        ArgumentError: not exactly one data input and one label.
        ArgumentTypeError: `grad_func` cannot be called.
    """

    def __init__(
        self,
        name: str = "pyloss",
        data_names: Sequence[str] = ("data",),
        label_names: Sequence[str] = ("softmax_label",),
        logger: Any = None,
        grad_func: GradientFunction | None = None,
    ) -> None:
        super().__init__(data_names, label_names, [f"{name}_output"], logger)
        self.inside = PlainInside(
            self,
            self._gather_state,
            self._put_back_state,
            self._begin_step,
            self._begin_predict,
            counts=lambda: bool(self._label_shapes),
            accumulates=True,  # there are no parameters, and so nothing to add up
        )
        if len(self._data_names) != 1 or len(self._label_names) != 1:
            raise ArgumentError(
                "a PythonLossModule has one data input and one label; it was given "
                f"data_names={self._data_names} and label_names={self._label_names}"
            )
        if grad_func is not None and not callable(grad_func):
            raise ArgumentTypeError(
                f"`grad_func` must be a function of (scores, labels), not {grad_func!r}"
            )
        self._grad_func = grad_func
        self._scores: Array | None = None
        self._labels: Array | None = None
        self._scores_grad: Array | None = None

    def _compute_output_shapes(self) -> Sequence[tuple[str, tuple[int, ...]]]:
        return [(self._output_names[0], self._data_shapes[0].shape)]

    async def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Keep copies of the scores and, when training, of the labels.

        Raises:
            ModuleStateError: not bound.
            InputError: not one array of scores, or no labels when training.
        """
        self._need_bound("forward")
        scores = _only("data", self._data_names[0], data_batch.data)
        training = self.for_training if is_train is None else is_train
        labels: Array | None = None
        if training:
            labels = _only("label", self._label_names[0], data_batch.label)

        def copy() -> tuple[Array, Array | None]:
            kept = None if labels is None else face(labels.copy())
            return face(scores.copy()), kept

        self._scores, self._labels = await _run(scores.nbytes > LARGE, copy)
        self._scores_grad = None

    async def backward(self, out_grads: Any = None) -> None:
        """Call the gradient function on the scores and labels of the last forward.

        Cancelled, it leaves no gradient.

        Raises:
            ArgumentError: `out_grads` was given: a loss has none.
            ModuleStateError: not bound for training, or no training forward before.
            UnsupportedError: there is no `grad_func`.
            InputError: the gradient has not the scores' shape.
        """
        self._need_bound("backward")
        if out_grads is not None:
            raise ArgumentError(
                "a PythonLossModule is a loss: it takes no `out_grads`, so nothing may "
                "come after it"
            )
        if not self.for_training:
            raise ModuleStateError(
                "`backward` needs a module that is bound for training: "
                "`await mod.bind(..., for_training=True, force_rebind=True)`"
            )
        scores, labels = self._scores, self._labels
        if scores is None or labels is None:
            raise ModuleStateError(
                "`backward` needs a forward in training mode before it: "
                "`await mod.forward(batch, is_train=True)`"
            )
        gradient = as_array("grad_func's result", await self._gradient(scores, labels))
        if gradient.shape != scores.shape:
            raise InputError(
                f"the gradient function returned shape {gradient.shape} for scores of "
                f"shape {scores.shape}; it must be the loss's gradient by each score"
            )
        self._scores_grad = gradient

    async def _gradient(self, scores: Array, labels: Array) -> Any:
        """Gradient of the loss by the scores."""
        function = self._grad_func
        backward = getattr(self, "_backward_impl", None)
        if function is None and backward is not None:  # MXNet's name for it
            await _run(scores.nbytes > LARGE, backward)
            return self._scores_grad
        if function is None:
            raise UnsupportedError(
                f"{type(self).__name__} has no gradient: give grad_func=(scores, "
                "labels) -> gradient, or define `_gradient` in a subclass"
            )
        large = scores.nbytes > LARGE and not inspect.iscoroutinefunction(function)
        result = await _run(large, lambda: function(scores, labels))
        return await result if inspect.isawaitable(result) else result

    async def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """The scores of the last forward.

        Raises:
            ArgumentError: `merge_multi_context` is False: there are no devices.
            ModuleStateError: there was no forward.
        """
        _check_merged(merge_multi_context)
        self._need_bound("get_outputs")
        return [await _copy(_given(self._scores, "get_outputs", "forward(batch)"))]

    async def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """The gradient by the scores, of the last backward.

        Raises:
            ArgumentError: `merge_multi_context` is False: there are no devices.
            ModuleStateError: not bound with inputs_need_grad=True, or no backward.
        """
        _check_merged(merge_multi_context)
        self._need_bound("get_input_grads")
        if not self.inputs_need_grad:
            raise ModuleStateError(
                "`get_input_grads` needs `await mod.bind(..., inputs_need_grad=True)`"
            )
        gradient = _given(self._scores_grad, "get_input_grads", "backward()")
        return [await _copy(gradient)]

    async def _begin_step(self, batch: Any) -> Step:
        """A step, with outputs that the next one does not change."""
        await self.step(batch)
        outputs = await self.get_outputs()

        async def kept() -> list[Array]:
            return list(outputs)

        return CompletedStep(kept)

    async def _begin_predict(self, batch: Any) -> Step:
        """The scores as they are; a pending `backward` is not disturbed."""
        scores = await _copy(_only("data", self._data_names[0], batch.data))

        async def kept() -> list[Array]:
            return [scores]

        return CompletedStep(kept)


def _only(kind: str, name: str, arrays: Any) -> Array:
    """The one array of a batch."""
    if not isinstance(arrays, list | tuple) or len(arrays) != 1:
        count = len(arrays) if isinstance(arrays, list | tuple) else "no list of"
        raise InputError(
            f"the batch has {count} {kind} arrays; a PythonLossModule needs one, "
            f"`{name}`: give DataBatch(..., {kind}=[array])"
        )
    return as_array(name, arrays[0])


def _given(array: Array | None, call: str, before: str) -> Array:
    if array is None:
        raise ModuleStateError(f"`{call}` needs `await mod.{before}` before it")
    return array


def _check_merged(merge_multi_context: bool) -> None:
    if not merge_multi_context:
        raise ArgumentError(
            "merge_multi_context=False makes no sense here: a Python module runs on no "
            "devices"
        )


async def _copy(array: Array) -> NDArray:
    """A copy for the caller, made in a thread if it has more than 1 MB."""
    copied: Array = await _run(array.nbytes > LARGE, array.copy)
    return face(copied)


async def _run(in_thread: bool, function: Callable[[], Any]) -> Any:
    if in_thread:
        return await trio.to_thread.run_sync(function)
    await trio.lowlevel.checkpoint()
    return function()
