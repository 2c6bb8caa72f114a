"""What goes between this process and its workers: frames, memory, plans and errors.

Next: `runtime.transport.frames`, then `runtime.devices.process` for who talks.
"""
