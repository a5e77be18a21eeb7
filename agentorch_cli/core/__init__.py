"""The pure core: no clock, no await, no I/O; time, ids and randomness are arguments."""
