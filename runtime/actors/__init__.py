"""Device threads and the scope that owns them; knows nothing of graphs.

Next: `runtime.actors.runtime`, then `command` for what the threads are told.
"""

from runtime.actors.runtime import Runtime, current_runtime, open_runtime
from runtime.actors.supervisor import WorkerPolicy

__all__ = ["Runtime", "WorkerPolicy", "current_runtime", "open_runtime"]
