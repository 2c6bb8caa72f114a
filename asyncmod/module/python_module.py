"""PythonModule: a module written in Python, without a symbol, in a SequentialModule.

It has everything but `forward`, `backward` and the shapes of its outputs.

Next: `asyncmod.module.python_loss_module`, which has these too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncmod.checkpoint.staging import Staging
from asyncmod.errors import (
    ArgumentError,
    NameMismatchError,
)
from asyncmod.io.batch import DataDesc
from asyncmod.module import bind_arguments
from asyncmod.module.batches import Array
from asyncmod.module.descriptions import batch_size, parse_shapes
from asyncmod.module.inside import State
from asyncmod.module.plain_inside import PlainInside
from asyncmod.module.scoped import ScopedModule
from asyncmod.module.user_arrays import Parameters


class PythonModule(ScopedModule):
    """Base of modules that compute in Python and have no parameters.

    A subclass defines `_compute_output_shapes`, `forward`, `get_outputs` and, if
    something before it is trained, `backward` and `get_input_grads`. Its parameters are
    two empty dicts; `init_params`, `init_optimizer` and `update` do nothing.

    Args:
        data_names: Names of the data inputs.
        label_names: Names of the labels; None means none.
        output_names: Names of the outputs.
        logger: A `logging.Logger` or a structlog logger.
    """

    def __init__(
        self,
        data_names: Sequence[str],
        label_names: Sequence[str] | None,
        output_names: Sequence[str],
        logger: Any = None,
    ) -> None:
        super().__init__(logger)
        self.inside = PlainInside(
            self,
            self._gather_state,
            self._put_back_state,
            counts=lambda: bool(self._label_shapes),
        )
        self._data_names = list(data_names)
        self._label_names = list(label_names or ())
        self._output_names = list(output_names)
        self._data_shapes: list[DataDesc] = []
        self._label_shapes: list[DataDesc] = []
        self._output_shapes: list[tuple[str, tuple[int, ...]]] = []

    @property
    def data_names(self) -> list[str]:
        """Names of the data inputs."""
        return list(self._data_names)

    @property
    def label_names(self) -> list[str]:
        """Names of the labels."""
        return list(self._label_names)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return list(self._output_names)

    @property
    def data_shapes(self) -> list[DataDesc]:
        """Descriptions of the data inputs."""
        self._need_bound("data_shapes")
        return list(self._data_shapes)

    @property
    def label_shapes(self) -> list[DataDesc]:
        """Descriptions of the labels; [] without labels."""
        self._need_bound("label_shapes")
        return list(self._label_shapes)

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each output."""
        self._need_bound("output_shapes")
        return list(self._output_shapes)

    async def bind(
        self,
        *shapes: Any,
        data_shapes: Any = None,
        label_shapes: Any = None,
        for_training: bool = True,
        inputs_need_grad: bool = False,
        force_rebind: bool = False,
        shared_module: Any = None,
        grad_req: Any = "write",
    ) -> None:
        """Note the shapes; arguments as of Module.bind.

        Raises:
            ArgumentError: `grad_req` is not "write", or `inputs_need_grad` without
                training.
            NameMismatchError: the names are not the module's, in its order.
        """
        arguments = bind_arguments.collect(
            shapes,
            {
                "data_shapes": data_shapes,
                "label_shapes": label_shapes,
                "for_training": for_training,
                "inputs_need_grad": inputs_need_grad,
                "force_rebind": force_rebind,
                "shared_module": shared_module,
                "grad_req": grad_req,
            },
        )
        self.scope.check_open("bind")
        if self.binded and not arguments.get("force_rebind"):
            self.logger.warning("Already bound, ignoring bind()")
            return
        wish = arguments.get("grad_req", "write")
        if wish != "write":
            raise ArgumentError(
                f"Python module only support write gradient: grad_req={wish!r}"
            )
        for_training = arguments.get("for_training", True)
        inputs_need_grad = arguments.get("inputs_need_grad", False)
        if inputs_need_grad and not for_training:
            raise ArgumentError(
                "inputs_need_grad=True needs for_training=True: without training "
                "there are no gradients"
            )
        data = parse_shapes("data_shapes", arguments["data_shapes"])
        labels = parse_shapes("label_shapes", arguments.get("label_shapes"))
        _check_names("data", data, self._data_names)
        if labels:
            _check_names("label", labels, self._label_names)
        batch_size([*data, *labels])
        before = self._data_shapes, self._label_shapes
        self._data_shapes, self._label_shapes = list(data), list(labels)
        try:
            self._output_shapes = list(self._compute_output_shapes())
        except BaseException:
            self._data_shapes, self._label_shapes = before
            raise
        self.binded = True
        self.for_training = for_training
        self.inputs_need_grad = inputs_need_grad

    def _compute_output_shapes(self) -> Sequence[tuple[str, tuple[int, ...]]]:
        """Name and shape of each output, from `data_shapes`; a subclass defines it."""
        raise self._abstract("_compute_output_shapes")

    async def init_params(
        self,
        initializer: Any = None,
        arg_params: Mapping[str, Any] | None = None,
        aux_params: Mapping[str, Any] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Nothing to initialize."""
        self._need_bound("init_params")
        self.params_initialized = True

    async def get_params(self) -> tuple[Parameters, Parameters]:
        """No parameters and no auxiliary states: two empty dicts."""
        return {}, {}

    async def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Nothing to optimize."""
        self._need_params("init_optimizer")
        self.optimizer_initialized = True

    async def update(self) -> None:
        """Nothing to update."""

    async def get_grads(self) -> Parameters:
        """No gradients of parameters: an empty dict."""
        return {}

    async def zero_grad(self) -> None:
        """No gradients to set to zero."""

    async def update_metric(
        self, eval_metric: Any, labels: Any, pre_sliced: bool = False
    ) -> None:
        """Update a metric with the outputs; does nothing if bound without labels.

        Raises:
            ArgumentError: `pre_sliced`: there are no devices to slice for.
        """
        self._need_bound("update_metric")
        if not self._label_shapes:
            return
        if pre_sliced:
            raise _Presliced(
                "a Python module takes the labels of the whole batch: pre_sliced=False"
            )
        await super().update_metric(eval_metric, labels)

    async def _gather_state(self, staging: Staging, prefix: str = "") -> State:
        """Nothing; a subclass that learns must say what."""
        return {}

    async def _put_back_state(
        self, arrays: Mapping[str, Array], state: Mapping[str, Any], prefix: str = ""
    ) -> None:
        """Nothing."""


class _Presliced(ArgumentError, RuntimeError):
    """MXNet raised a RuntimeError here."""


def _check_names(
    kind: str, described: Sequence[DataDesc], names: Sequence[str]
) -> None:
    given = [description.name for description in described]
    if given != list(names):
        raise NameMismatchError(
            f"`{kind}_shapes` describes {given}; this module's {kind} inputs are "
            f"{list(names)}, in this order"
        )
