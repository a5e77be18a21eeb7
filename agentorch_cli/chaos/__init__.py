"""The proof that nothing is lost: a fleet that is killed at random, and a checker that reads what is left.

    workload.py    tasks of every kind, from a seed
    client.py      a process that submits them and keeps a journal of what it was told
    agent.py       an agent written from docs/protocol.md alone, with a journal; sdk_agent.py uses the SDK
    processes.py   serve, agents and clients as processes; what can be killed
    injectors.py   the faults
    trial.py       one run: start, submit, break, recover, wait, check
    evidence.py    journals and tables, read when all is over
    checker.py     the rules; recount.py counts the votes once more

Journals, evidence and checker use no code of the engine: a mistake there must not hide itself here.
`agentorch chaos` and `make chaos` run it.
"""
