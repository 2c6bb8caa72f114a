"""The CPU device: native kernels where there are some, NumPy definitions elsewhere.

`select` covers a graph with steps, one file per family says how a step becomes rows of
`runtime.kernels.cpu`, `device` runs them.

Next: `runtime.devices.cpu.select`, then `runtime.devices.cpu.device`.
"""
