"""PyTorch's fused optimizers alone: ELEMENTS SECONDS -> JSON of ns per element."""

from __future__ import annotations

import json
import sys

import torch
from updates import fastest


def main(elements: int, seconds: float) -> None:
    torch.set_num_threads(1)
    times = {}
    for name, make in (
        ("sgd", lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True)),
        ("adam", lambda p: torch.optim.Adam(p, lr=1e-3, fused=True)),
        ("adagrad", lambda p: torch.optim.Adagrad(p, lr=1e-3, fused=True)),
    ):
        weight = torch.randn(elements, requires_grad=True)
        weight.grad = torch.randn(elements)
        times[name] = fastest(make([weight]).step, seconds) / elements * 1e9
    print(json.dumps(times))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
