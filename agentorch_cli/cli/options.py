"""Options that several commands take, each said once: the same name, the same words, the same meaning."""

from __future__ import annotations

from typing import Annotated

import typer

LogLevel = Annotated[
    str | None, typer.Option("--log-level", metavar="debug|info|warning|error", help="Least urgent lines.")
]
LogFormat = Annotated[
    str | None, typer.Option("--log-format", metavar="text|json", help="Lines for people, or for programs.")
]
TellEverybody = Annotated[
    bool, typer.Option("--insecure", help="Send the token over a connection that is not encrypted.")
]
"""What `Target.refuse_to_tell_everybody` is asked for; `serve --insecure` is another thing."""
