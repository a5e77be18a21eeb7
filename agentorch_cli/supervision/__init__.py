"""Processes that are kept running: what `agentorch up` starts, watches, starts again, and stops.

`supervisor` knows what should run and makes it so; a `child` is one process through all of its
lives; `replica` is what runs in such a process; `record` keeps what it writes; `control` is how
a second `up`, `down` and `up --status` talk to the supervisor of a data directory.
"""
