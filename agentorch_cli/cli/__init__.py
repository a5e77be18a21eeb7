"""The command line: every command parses, calls one operation, and renders the answer.

    app.py        the table of commands; a command's module is imported when it is used
    help.py       the shape of help pages, and the options that every command takes
    session.py    one invocation: its flags, its settings, its client, its way out
    failure.py    how an error is told, and which exit code it gives
    look.py, tables.py, columns.py    signs and colours, tables that fit, what a row shows
    board.py, watch.py, story.py, follow.py    the fleet, live; one task; a wait

Modules here import the heavy libraries inside functions: `--help` must not pay for them.
"""
