"""`agentorch serve`: the engine, until somebody stops it."""

from __future__ import annotations

import contextlib
import signal
from typing import Annotated

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.options import LogFormat, LogLevel
from agentorch_cli.cli.session import ENDINGS, FIRST_START, Session, heard


def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Address to listen on; loopback if not said."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", "-p", metavar="PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one."
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool", metavar="NAME", help='The pool whose tasks it assigns; "default" if not said.'
        ),
    ] = None,
    is_insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen where others can connect, without tokens and TLS.")
    ] = False,
    tls_cert: Annotated[
        str | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate (PEM): wss:// only.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's private key (PEM).")
    ] = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Run the engine: take agents, give them tasks, keep every step.

    $ agentorch serve
    $ agentorch serve --port 0 --data-dir ./fleet
    $ agentorch serve --port 0 --pool gpu
    $ agentorch serve --port 0 --log-format json --log-level warning
    $ agentorch serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem

    Listening anywhere but on loopback wants a certificate, and tokens from whoever connects:
    agentorch token create makes them.

    Ctrl-C or SIGTERM takes nothing new, lets agents finish for a while, and gives back what
    is left: nothing fails because the engine stops. A second signal stops at once.
    """
    session = Session.of(ctx)
    session.more_flags |= {
        "gateway.host": host,
        "gateway.port": port,
        "engine.pool": pool,
        "gateway.insecure": is_insecure or None,
        "gateway.tls_cert": tls_cert,
        "gateway.tls_key": tls_key,
        "logging.level": log_level,
        "logging.format": log_format,
    }
    session.only_here("serve", "runs the engine on this machine")
    _ = session.data_dir_here
    number = session.run(_serve(session), is_long=True)
    if number:
        raise typer.Exit(128 + number)


app = single(serve)


async def _serve(session: Session) -> int | None:
    """Serve until a signal; the number of the second signal, if there was one."""
    import asyncio

    from agentorch_cli import wiring
    from agentorch_cli.cli.ui import page_address

    stop, stop_now = asyncio.Event(), asyncio.Event()
    second: int | None = None

    def on_signal(number: int) -> None:
        nonlocal second
        if stop.is_set():
            second = number
            stop_now.set()
            return
        stop.set()  # before a word is said: stderr may be closed
        with contextlib.suppress(OSError, ValueError):
            session.say("Stopping: agents finish what they hold. Once more stops at once.")

    def on_ready(url: str) -> None:
        page = page_address(url)
        if session.format == "table":
            session.say(f"agentorch is ready: agents connect to {url}")
            session.say(f"Look at it in a browser: {page}")
            session.say("Submit work with: agentorch task submit task.toml --wait    Stop with Ctrl-C.")
        else:
            session.print_document({"event": "ready", "url": url, "ui": page})

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, *heard(ENDINGS)):
        loop.add_signal_handler(number, on_signal, number)
    if session.makes_database and session.format == "table":
        session.say(f"{FIRST_START}: {session.settings.data_dir}")
    await wiring.serve(session.settings, on_ready=on_ready, stop=stop, stop_now=stop_now)
    return second
