"""What may stand at the cursor: the answer to a shell that completes a line.

A shell asks at each press of a key, so nothing heavy is imported, nothing is started, and whoever
might keep us waiting has `LONGEST_SECONDS`. The first line of the answer says what follows: `files`
(the shell knows those better), `open` (the word goes on) or `values`; then a value a line, for zsh and
fish with a tab and what it is.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LONGEST_SECONDS = 0.15
"""For the ids, from whoever has them."""

FILES = "files"

ARGUMENTS: dict[str, tuple[str | None, ...]] = {
    "agent register": ("agent",),
    "agent show": ("agent",),
    "agent remove": ("agent",),
    "agent pause": ("agent",),
    "agent drain": ("agent",),
    "agent resume": ("agent",),
    "agent run": ("agent",),
    "agent attach": ("agent",),
    "task submit": (FILES,),
    "task validate": (FILES,),
    "task show": ("task",),
    "task wait": ("task",),
    "task cancel": ("task",),
    "task why": ("task",),
    "task depend": ("task",),
    "task graph": ("task",),
    "task timeline": ("task",),
    "task retry": ("task",),
    "budget set": ("budget",),
    "budget show": ("budget",),
    "budget remove": ("budget",),
    "schedule add": ("schedule", FILES),
    "schedule show": ("schedule",),
    "schedule pause": ("schedule",),
    "schedule resume": ("schedule",),
    "schedule remove": ("schedule",),
    "schedule run": ("schedule",),
    "limit set": ("limit", None),
    "limit remove": ("limit",),
    "outcome": ("task",),
    "consensus show": ("vote",),
    "consensus vote": ("vote",),
    "consensus close": ("vote",),
    "deadlock show": ("deadlock",),
    "deadlock resolve": ("deadlock",),
    "db backup": (FILES,),
    "db restore": (FILES,),
    "config init": (FILES,),
    "config get": (None,),
    "config set": (None, None),
    "config unset": (None,),
    "init": (FILES,),
    "up": (FILES,),
    "logs": ("log",),
    "config show": (None,),
    "profile add": (None,),
    "profile use": ("profile",),
    "profile remove": ("profile",),
    "token create": (None,),
    "token revoke": ("token",),
    "schema output": (None,),
    "protocol output": (None,),
    "help": ("topic",),
    "explain": ("field",),
}
"""What the arguments of a command are, in their order; the last goes on for those that may be repeated."""

OPTIONS: dict[str, str] = {
    "--agent": "agent",
    "--task": "task",
    "--on": "task",
    "--as": "agent",
    "--server": "server",
    "--output": "format",
    "--rule": "rule",
    "--missed": "missed",
    "--overlap": "overlap",
    "--period": "period",
    "--restart": "process",
    "--scale": "scale",
}
"""What the values of options are, where they are not files; metavars with FILE or DIR are."""


class Word(NamedTuple):
    """Something that may stand at the cursor."""

    value: str
    about: str = ""


def answer(environ: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Answer the shell that asks, on stdout."""
    from agentorch_cli.text import one_line

    shell = environ["_AGENTORCH_COMPLETE"]
    words = _split(environ.get("_AGENTORCH_LINE", "")) if shell == "bash" else list(arguments)
    kind, found = candidates(words or [""], environ)
    skip = _kept_by_bash(words[-1] if words else "", environ.get("_AGENTORCH_BREAKS", ""))
    lines = [kind]
    for word in found:
        value, about = one_line(word.value), one_line(word.about, 200)
        lines.append(value[skip:] if shell == "bash" else f"{value}\t{about}")
    sys.stdout.write("\n".join(lines) + "\n")


def candidates(words: Sequence[str], environ: Mapping[str, str]) -> tuple[str, list[Word]]:
    """What follows and what it may be, for the words after the program's name; the last is being typed."""
    from agentorch_cli.cli.app import build

    *before, current = words
    place = _Place(build(), environ)
    for word in before:
        place.take(word)
    name, sign, value = current.partition("=")
    if place.pending is not None:
        return _of_kind(place, place.kind_of(place.pending), current)
    if current.startswith("--") and sign:
        option = place.option(name)
        kind, found = _of_kind(place, place.kind_of(option) if option else None, value)
        return kind, [Word(f"{name}={word.value}", word.about) for word in found]
    if current.startswith("-") and not place.is_closed:
        return "values", _beginning(current, place.options())
    if place.is_group:
        return "values", _beginning(current, place.commands())
    return _of_kind(place, place.argument(), current)


class _Place:
    """Where in the line the cursor is: below which command, and behind which option."""

    def __init__(self, root: Any, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.command = root
        self.ctx = root.context_class(root, info_name="agentorch", resilient_parsing=True)
        self.path: list[str] = []
        self.words: list[str] = []
        """Arguments that stand there already."""
        self.pending: Any = None
        """The option whose value comes next."""
        self.is_closed = False
        """Behind `--`: there are no more options."""
        self.given: dict[str, str] = {}
        """Options that say where the ids are."""

    @property
    def is_group(self) -> bool:
        return hasattr(self.command, "list_commands")

    def take(self, word: str) -> None:
        """A whole word before the cursor."""
        if self.pending is not None:
            self.given[self.pending.name] = word
            self.pending = None
        elif word == "--":
            self.is_closed = True
        elif word.startswith("-") and word != "-" and not self.is_closed:
            name, sign, value = word.partition("=")
            option = self.option(name)
            if option is None or option.is_flag:
                return
            if sign:
                self.given[option.name] = value
            else:
                self.pending = option
        elif self.is_group:
            inner = self.command.get_command(self.ctx, word)
            if inner is not None:
                self.path.append(word)
                self.command = inner
                self.ctx = inner.context_class(inner, info_name=word, parent=self.ctx, resilient_parsing=True)
        else:
            self.words.append(word)

    def _parameters(self) -> list[Any]:
        from agentorch_cli.cli.help import common_options

        own = [param for param in self.command.params if param.param_type_name == "option"]
        return own if not self.is_group else list(common_options())

    def option(self, name: str) -> Any:
        return next((param for param in self._parameters() if name in param.opts), None)

    def options(self) -> Iterator[Word]:
        for param in self._parameters():
            yield from (
                Word(name, param.help or "")
                for name in (*param.opts, *param.secondary_opts)
                if name[:2] == "--"
            )
        yield Word("--help", "Show this page.")

    def commands(self) -> Iterator[Word]:
        from agentorch_cli.cli.help import summary_of

        for name in self.command.list_commands(self.ctx):
            entry = self.command.entries.get(name)
            yield Word(name, entry.summary if entry else summary_of(self.command.get_command(self.ctx, name)))

    def argument(self) -> str | None:
        """What the argument at the cursor is."""
        kinds = ARGUMENTS.get(" ".join(self.path), ())
        arguments = [param for param in self.command.params if param.param_type_name == "argument"]
        count = len(self.words)
        if not kinds or (count >= len(arguments) and arguments[-1].nargs == 1):
            return None
        return kinds[min(count, len(kinds) - 1)]

    def kind_of(self, option: Any) -> str | None:
        """What the value of an option is."""
        metavar = option.metavar or ""
        if "FILE" in metavar or metavar.endswith(("DIR", ".json")):
            return FILES
        if "--status" in option.opts:
            return f"{self.path[0]} status"
        return next((OPTIONS[name] for name in option.opts if name in OPTIONS), None)


def _of_kind(place: _Place, kind: str | None, current: str) -> tuple[str, list[Word]]:
    """The values of a kind that begin like this."""
    if kind == FILES:
        return FILES, []
    if kind in _KNOWN:
        return "values", _beginning(current, _KNOWN[kind](place))
    if kind == "field":
        return _fields(current)
    if kind == "scale":
        found = [Word(f"{name}=", about) for name, about in in_time(lambda: _scaled(place)).items()]
        return "open", _beginning(current, found)
    if kind is None:
        return "values", []
    return "values", _ids(place, kind, current)


def _beginning(current: str, words: Iterable[Word]) -> list[Word]:
    return [word for word in words if word.value.startswith(current)]


def _ids(place: _Place, kind: str, current: str) -> list[Word]:
    """Ids that begin like this; where none does, those of the things whose names do."""
    found = [Word(one, about) for one, about in in_time(lambda: _look_up(place, kind)).items()]
    return _beginning(current, found) or [word for word in found if word.about.startswith(current)]


def _look_up(place: _Place, kind: str) -> dict[str, str]:
    from agentorch_cli.cli import lookup, nearby

    if kind == "process":
        return nearby.processes(_fleet_file(place))
    if kind == "log":
        return nearby.logs(lookup.data_dir(place.given, place.environ))
    return lookup.names(kind, place.given, place.environ)


def _scaled(place: _Place) -> dict[str, str]:
    from agentorch_cli.cli import nearby

    return nearby.agents(_fleet_file(place))


def _fleet_file(place: _Place) -> Path:
    """That of `up`: where none is named, the one that it takes by itself."""
    return Path(place.words[0] if place.words else "agents.toml")


def in_time(look: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What it finds within the time limit; nothing where it does not, or fails."""

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
    try:
        return look()
    except Exception:  # a completion that fails completes nothing
        return {}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _fields(current: str) -> tuple[str, list[Word]]:
    """One step of a path at a time."""
    from agentorch_cli.guide.outline import outline

    depth = current.count(".")
    known = dict(outline())
    tables = {path.rpartition(".")[0] for path in known}
    paths = {f"{path}." if path in tables else path: meaning for path, meaning in known.items()}
    paths |= {path.removeprefix("config."): meaning for path, meaning in paths.items()}  # known by both
    found = [
        Word(path, meaning)
        for path, meaning in paths.items()
        if path.startswith(current) and path.rstrip(".").count(".") == depth
    ]
    return ("open" if any(word.value.endswith(".") for word in found) else "values"), found


def _profiles(place: _Place) -> Iterator[Word]:
    from agentorch_cli.cli import lookup

    yield from (
        Word(name, str(table.get("url", ""))) for name, table in lookup.profiles(place.environ).items()
    )
    yield Word("local", "No server: the database of this machine.")


def _topics(place: _Place) -> Iterator[Word]:
    from agentorch_cli.guide.topics import TOPICS, title

    yield from (Word(name, title(name)) for name in TOPICS)
    root = place.ctx.find_root().command
    yield from (Word(name, entry.summary) for name, entry in root.entries.items() if name not in TOPICS)


def _words(*values: str) -> Callable[[_Place], list[Word]]:
    return lambda _: [Word(value) for value in values]


def _states(name: str) -> Callable[[_Place], list[Word]]:
    def known(_: _Place) -> list[Word]:
        from agentorch_cli.core import model

        return [Word(str(one)) for one in getattr(model, name)]

    return known


def _rules(_: _Place) -> list[Word]:
    from agentorch_cli.core.vote import Rule

    return [Word(str(rule)) for rule in Rule]


def _formats(place: _Place) -> list[Word]:
    from agentorch_cli.cli.session import FORMATS

    return [Word(one) for one in (*FORMATS, *getattr(place.command, "pictures", ()))]


_KNOWN: dict[str | None, Callable[[_Place], Iterable[Word]]] = {
    "server": _profiles,
    "profile": _profiles,
    "topic": _topics,
    "format": _formats,
    "task status": _states("TaskStatus"),
    "agent status": _states("AgentStatus"),
    "rule": _rules,
    "missed": _words("skip", "once", "all"),
    "overlap": _words("allow", "skip"),
    "period": _words("day", "week", "month", "none"),
}
"""Kinds whose values are known without asking anybody."""


def _split(line: str) -> list[str]:
    """The words of a line up to the cursor, without the program; the last may be open, or empty."""
    for end in ("", '"', "'"):
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        is_new = line[-1:].isspace() and not end and not line.endswith("\\ ")
        return [*words[1:], *([""] if is_new or len(words) < 2 else [])]
    return [""]


def _kept_by_bash(word: str, breaks: str) -> int:
    """How much of the word bash keeps by itself: it splits at `=` and `:` where we do not."""
    return max((word.rfind(one) + 1 for one in breaks if one in "=:"), default=0)


def main() -> None:
    """The way in from `__main__`."""
    answer(os.environ, sys.argv[1:])
