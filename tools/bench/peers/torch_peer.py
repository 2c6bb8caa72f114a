"""PyTorch: eager mode; the variant `tuned` adds channels_last and the fused SGD."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from measurement import Clock, Options, read_options, report
from torch import nn
from workloads import (
    BLOCKS_PER_GROUP,
    GROUPS,
    HIDDEN,
    LEARNING_RATE,
    MOMENTUM,
    RECURRENT_LAYERS,
    RECURRENT_WIDTH,
    SEPARABLE,
    STEM,
    WORKLOADS,
    Workload,
)


def mlp(workload: Workload) -> nn.Module:
    layers: list[nn.Module] = []
    width = workload.shape[0]
    for hidden in HIDDEN[workload.network]:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, workload.classes))


def lenet(workload: Workload) -> nn.Module:
    layers: list[nn.Module] = []
    for channels, filters in ((1, 20), (20, 50)):
        layers += [nn.Conv2d(channels, filters, 5), nn.Tanh(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(800, 500), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(500, workload.classes))


def normalized_convolution(
    channels: int, filters: int, kernel: int, stride: int, groups: int = 1
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(
            channels,
            filters,
            kernel,
            stride,
            kernel // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(filters),
    )


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.first = normalized_convolution(channels, filters, 3, stride)
        self.second = normalized_convolution(filters, filters, 3, 1)
        self.shortcut: nn.Module = nn.Identity()
        if channels != filters:
            self.shortcut = normalized_convolution(channels, filters, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(F.relu(self.first(x), inplace=True))
        return F.relu(y + self.shortcut(x), inplace=True)


def resnet20(workload: Workload) -> nn.Module:
    layers = [normalized_convolution(3, 16, 3, 1), nn.ReLU(inplace=True)]
    channels = 16
    for filters, first_stride in GROUPS:
        for block in range(BLOCKS_PER_GROUP):
            stride = first_stride if block == 0 else 1
            layers.append(ResidualBlock(channels, filters, stride))
            channels = filters
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels, workload.classes))


def mobilenet(workload: Workload) -> nn.Module:
    layers: list[nn.Module] = [
        normalized_convolution(3, STEM, 3, 1),
        nn.ReLU(inplace=True),
    ]
    channels = STEM
    for filters, stride in SEPARABLE:
        layers += [
            normalized_convolution(channels, channels, 3, stride, groups=channels),
            nn.ReLU(inplace=True),
            normalized_convolution(channels, filters, 1, 1),
            nn.ReLU(inplace=True),
        ]
        channels = filters
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels, workload.classes))


class LanguageModel(nn.Module):
    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.embedding = nn.Embedding(workload.classes, RECURRENT_WIDTH)
        self.layers = nn.LSTM(RECURRENT_WIDTH, RECURRENT_WIDTH, RECURRENT_LAYERS)
        self.last = nn.Linear(RECURRENT_WIDTH, workload.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.layers(self.embedding(x))
        return self.last(y).flatten(0, 1)


BUILD: dict[str, Callable[[Workload], nn.Module]] = {
    "mlp": mlp,
    "tiny": mlp,
    "lenet": lenet,
    "resnet20": resnet20,
    "language_model": LanguageModel,
    "mobilenet": mobilenet,
}


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    workload = WORKLOADS[options.workload]
    model = BUILD[workload.network](workload)
    if workload.is_sequence:
        data = torch.randint(0, workload.classes, workload.data_shape)
    else:
        data = torch.randn(workload.data_shape)
    label = torch.randint(0, workload.classes, workload.label_shape).flatten()
    tuned = options.variant == "tuned"
    if tuned and data.dim() == 4:
        model = model.to(memory_format=torch.channels_last)
        data = data.contiguous(memory_format=torch.channels_last)
    model.train(options.training)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=tuned or None
    )

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(data), label).backward()
        optimizer.step()

    @torch.inference_mode()
    def predict() -> None:
        model(data)

    step = train if options.training else predict
    clock = Clock(options.seconds)
    for steps in clock:
        for _ in range(steps):
            step()
    report("torch", torch.__version__, options, clock)


if __name__ == "__main__":
    main(read_options())
