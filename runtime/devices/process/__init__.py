"""A device whose plans run in a worker process; only its memory is here.

Follow one launch: `ProcessProgram` (program.py) asks `Worker` (client.py), which sends
one frame to the process that it watches (process.py); there `serve.py` runs the section
on an ordinary device over the same memory, and keeps a journal of it (journal.py).
"""
