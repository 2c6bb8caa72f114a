"""Native float32 kernels of the CPU device.

`table` says which kernels there are and how their rows look; `library` compiles
them with Numba and runs tables of rows; the other modules define the kernels.
"""
