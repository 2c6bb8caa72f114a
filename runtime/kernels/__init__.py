"""Native kernels of the devices."""
