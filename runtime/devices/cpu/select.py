"""Covering a graph with steps: which nodes run natively, and which are fused.

Fusions, each only where the value in between has one reader and is no output:
FullyConnected or Convolution + Activation; Activation + max Pooling (in this order in
the graph, swapped in the kernel); BatchNorm (+ elementwise sum) (+ Activation);
FullyConnected + SoftmaxOutput. In training a Convolution takes along the sums that a
BatchNorm behind it needs; in prediction it is one step with it and all that is fused
behind.

Next: `runtime.devices.cpu.dense` and its neighbors for the rows of each step.
"""

from __future__ import annotations

import math
from functools import partial

from runtime.devices.cpu.arithmetic import ConstantStep, MultiplyStep, WithNumberStep
from runtime.devices.cpu.batch_norm import BatchNormStep
from runtime.devices.cpu.convolution import ConvolutionStep, Statistics
from runtime.devices.cpu.dense import DenseStep, Masked
from runtime.devices.cpu.dropout import DropoutStep
from runtime.devices.cpu.elementwise import ActivationStep, AddStep
from runtime.devices.cpu.embedding import TABLES, EmbeddingStep
from runtime.devices.cpu.head import HeadStep
from runtime.devices.cpu.permutation import PermutationStep, can_permute
from runtime.devices.cpu.pieces import ConcatStep, SliceChannelStep
from runtime.devices.cpu.pooling import PoolStep
from runtime.devices.cpu.recurrent import RecurrentStep
from runtime.devices.cpu.softmax import SoftmaxStep
from runtime.graph.build import Builder, Step
from runtime.graph.definition import DefinitionStep
from runtime.graph.draft import CHANNEL_BLOCK
from runtime.graph.ir import Entry, Node

_LARGEST_INDEX = 255  # max pooling keeps positions in a byte


class Selection:
    """The cover of one graph."""

    def __init__(self, b: Builder) -> None:
        self._b = b
        self._readers: dict[Entry, list[Node]] = {}
        for node in b.graph.nodes:
            for entry in node.inputs:
                self._readers.setdefault(entry, []).append(node)
        self._absorbed: set[Node] = set()
        self._masked = Masked()

    def steps(self) -> list[Step]:
        """All steps, in the order of their last nodes."""
        roots: dict[Node, Step] = {}
        for node in self._b.graph.nodes:
            if node.operator is None:
                continue
            step = self._fused(node)
            if step is not None:
                roots[node] = step
                self._absorbed.update(n for n in step.nodes if n is not node)
        steps: list[Step] = []
        for node in self._b.graph.nodes:
            if node.operator is None or node in self._absorbed:
                continue
            step = roots.get(node) or self._single(node) or DefinitionStep(node)
            if isinstance(step, ConvolutionStep):
                step.prepare(self._b)
            steps.append(step)
        self._b.unpadded |= self._unpadded(steps)
        return steps

    def _unpadded(self, steps: list[Step]) -> set[Entry]:
        """Inputs of few channels that only convolutions read, as their data."""
        layers = {
            step.layer
            for step in steps
            if isinstance(step, ConvolutionStep)
            and step.layer.attributes.num_group == 1
        }
        data = {layer.inputs[0] for layer in layers}
        others = {
            entry
            for step in steps
            for node in step.nodes
            for entry in (node.inputs[1:] if node in layers else node.inputs)
        }
        return {
            entry
            for entry in data - others
            if entry.node.operator is None and self._b.shape(entry)[1] < CHANNEL_BLOCK
        }

    def _fused(self, node: Node) -> Step | None:
        if self._is(node, "Activation"):
            return self._behind_activation(node)
        if self._is(node, "BatchNorm") and self._can_normalize(node):
            # An activation behind it may still take over.
            return self._folded(node, None, None)
        if self._is(node, "Pooling") and self._can_pool(node):
            source = self._only(node.inputs[0], "Activation")
            if source is not None and node.attributes.pool_type == "max":
                return PoolStep(node, source)
        if self._is(node, "SoftmaxOutput") and self._can_head(node):
            layer = self._only(node.inputs[0], "FullyConnected")
            if layer is not None and self._floats(layer):
                return HeadStep(self._dense(layer, None), SoftmaxStep(node))
        return None

    def _behind_activation(self, node: Node) -> Step | None:
        source = node.inputs[0]
        if self._only_reader_is_max_pool(Entry(node)):
            return None
        layer = self._only(source, "FullyConnected")
        if layer is not None and self._floats(layer):
            return self._dense(layer, node)
        layer = self._only(source, "Convolution")
        if layer is not None and self._can_convolve(layer):
            return ConvolutionStep(layer, node)
        norm = self._only(source, "BatchNorm")
        if norm is not None and self._can_normalize(norm):
            return self._norm(norm, None, node)
        addition = self._only(source, "elemwise_add")
        if addition is not None and self._floats(addition):
            for entry in reversed(addition.inputs):
                norm = self._only(entry, "BatchNorm")
                if norm is not None and self._can_normalize(norm):
                    return self._norm(norm, addition, node)
        return None

    def _single(self, node: Node) -> Step | None:
        if self._is(node, "FullyConnected") and self._floats(node):
            return self._dense(node, None)
        if self._is(node, "Convolution") and self._can_convolve(node):
            return ConvolutionStep(node, statistics=self._statistics(Entry(node)))
        if self._is(node, "Pooling") and self._can_pool(node):
            return PoolStep(node)
        if self._is(node, "BatchNorm") and self._can_normalize(node):
            return self._norm(node, None, None)
        if self._is(node, "SoftmaxOutput") and self._can_head(node):
            return SoftmaxStep(node)
        if self._is(node, "Activation") and self._floats(node):
            return ActivationStep(node)
        if self._is(node, "RNN") and self._floats(node):
            return RecurrentStep(node)
        if self._is(node, "Dropout") and self._can_drop(node):
            return DropoutStep(node)
        if any(map(partial(self._is, node), TABLES)) and self._floats(node):
            return EmbeddingStep(node)
        if self._is(node, "Concat") and self._floats(node):
            return ConcatStep(node)
        if self._is(node, "SliceChannel") and self._floats(node):
            return SliceChannelStep(node)
        if self._permutes(node) and self._floats(node) and can_permute(self._b, node):
            return PermutationStep(node)
        if self._is(node, "elemwise_mul") and self._floats(node):
            return MultiplyStep(node)
        if WithNumberStep.knows(node) and self._floats(node) and self._is_array(node):
            return WithNumberStep(node)
        if ConstantStep.knows(node) and self._floats(node):
            return ConstantStep(node)
        if self._is(node, "elemwise_add") and self._floats(node):
            return AddStep(node)
        return None

    def _dense(self, layer: Node, activation: Node | None) -> DenseStep:
        step = DenseStep(layer, activation, self._masked)
        if activation is not None:
            self._masked.activated[step.output] = activation
        return step

    def _norm(self, norm: Node, addition: Node | None, activation: Node | None) -> Step:
        folded = self._folded(norm, addition, activation)
        if folded is not None:
            return folded
        statistics = self._requested.get(norm.inputs[0])
        return BatchNormStep(norm, addition, activation, statistics)

    def _folded(
        self, norm: Node, addition: Node | None, activation: Node | None
    ) -> ConvolutionStep | None:
        """One step with the convolution in front, if nothing else reads its output."""
        output = norm.inputs[0]
        layer = output.node
        if self._b.is_train or len(self._readers[output]) > 1:
            return None
        if self._b.is_output(output) or not self._is(layer, "Convolution"):
            return None
        if not self._can_convolve(layer):
            return None
        return ConvolutionStep(layer, activation, None, norm, addition)

    @property
    def _requested(self) -> dict[Entry, Statistics]:
        """Sums that convolutions take along, by the convolution's output."""
        if not hasattr(self, "_sums"):
            self._sums = {
                node.inputs[0]: Statistics(node.inputs[3])
                for node in self._b.graph.nodes
                if self._b.is_train
                and self._is(node, "BatchNorm")
                and self._can_normalize(node)
                and self._is(node.inputs[0].node, "Convolution")
                and self._can_convolve(node.inputs[0].node)
            }
        return self._sums

    def _statistics(self, output: Entry) -> Statistics | None:
        return self._requested.get(output)

    # Conditions ------------------------------------------------------------------

    def _is(self, node: Node, operator: str) -> bool:
        return node.operator is not None and node.operator.name == operator

    def _only(self, entry: Entry, operator: str) -> Node | None:
        """The node that makes a value, if nothing but the asking node sees it."""
        private = len(self._readers.get(entry, ())) == 1
        free = entry.node not in self._absorbed and entry.index == 0
        if private and free and not self._b.is_output(entry):
            return entry.node if self._is(entry.node, operator) else None
        return None

    def _only_reader_is_max_pool(self, entry: Entry) -> bool:
        readers = self._readers.get(entry, [])
        if len(readers) != 1 or self._b.is_output(entry):
            return False
        pool = readers[0]
        if not self._is(pool, "Pooling") or not self._can_pool(pool):
            return False
        return bool(pool.attributes.pool_type == "max")

    def _floats(self, node: Node) -> bool:
        entries = (*node.inputs, Entry(node))
        return all(
            self._b.dtype(entry) == "float32" and math.prod(self._b.shape(entry))
            for entry in entries
        )

    def _can_convolve(self, node: Node) -> bool:
        p = node.attributes
        stride, dilate = p.stride or (1, 1), p.dilate or (1, 1)
        return (
            len(p.kernel) == 2
            and p.num_group in (1, p.num_filter)
            and (p.num_group == 1 or self._b.shape(node.inputs[1])[1] == 1)
            and p.layout in (None, "NCHW")
            and self._floats(node)
            # The data gradient's taps are evenly spaced only then.
            and (tuple(dilate) == (1, 1) or tuple(stride) == (1, 1))
        )

    def _can_pool(self, node: Node) -> bool:
        p = node.attributes
        shape = self._b.shape(node.inputs[0])
        if len(shape) != 4 or not self._floats(node):
            return False
        if p.pool_type == "lp" or p.layout not in (None, "NCHW"):
            return False
        kernel = shape[2:] if p.global_pool else p.kernel
        if p.pool_type == "max":
            return math.prod(kernel) <= _LARGEST_INDEX and not self._has_void(node)
        return True

    def _has_void(self, node: Node) -> bool:
        """Whether a window of a pooling lies in the padding alone."""
        p = node.attributes
        if p.global_pool:
            return False
        sizes = self._b.shape(node.inputs[0])[2:]
        results = self._b.shape(Entry(node))[2:]
        strides, pads = p.stride or (1, 1), p.pad or (0, 0)
        return any(
            (result - 1) * stride - pad >= size
            for size, result, stride, pad in zip(
                sizes, results, strides, pads, strict=True
            )
        )

    def _can_normalize(self, node: Node) -> bool:
        p = node.attributes
        seen = (Entry(node, 1), Entry(node, 2))
        return (
            len(self._b.shape(node.inputs[0])) == 4
            and p.axis == 1
            and not (p.use_global_stats and self._b.is_train)
            and not p.output_mean_var
            and not any(e in self._readers or self._b.is_output(e) for e in seen)
            and self._floats(node)
        )

    def _is_array(self, node: Node) -> bool:
        """Whether the result is not a CSR matrix."""
        return Entry(node) not in self._b.storage.csr

    def _permutes(self, node: Node) -> bool:
        return self._is(node, "SwapAxis") or self._is(node, "transpose")

    def _can_drop(self, node: Node) -> bool:
        return self._floats(node) and not node.attributes.axes

    def _can_head(self, node: Node) -> bool:
        p = node.attributes
        data, label = (self._b.shape(entry) for entry in node.inputs)
        return (
            len(data) == 2
            and label == data[:1]
            and not p.out_grad
            and not p.multi_output
            and self._floats(node)
        )
