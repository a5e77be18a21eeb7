"""Ids and names for a completion: from whoever has them already, with nothing but the standard library.

A server that is chosen is asked over HTTP (`GET /names/KIND`). Without one, the embedded PostgreSQL of the
data directory is asked over its socket if it runs; it is never started. Where a database of one's own
is configured, a serve on this machine is asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

MOST = 2_000
"""Names that are looked at: of tasks, the newest."""

WAIT_SECONDS: Final = 0.15
_PROTOCOL: Final = 3 << 16
_PROJECT_FILE: Final = "agentorch.toml"
_APP: Final = "agentorch"


def names(kind: str, given: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Ids of a kind, with what they are. Raises OSError and others where nobody answers."""
    settings = _Settings(given, environ)
    server = settings.server
    if server and server != "local":
        return _ask_server(settings.profile(server), kind)
    if settings.database_url:
        return _ask_server({"url": f"ws://127.0.0.1:{settings.port}"}, kind)
    return _ask_postgres(settings.data_dir, kind)


def data_dir(given: Mapping[str, str], environ: Mapping[str, str]) -> Path:
    """Where everything of this machine is kept."""
    return _Settings(given, environ).data_dir


def profiles(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The user's profiles."""
    tables = _read(_user_file()).get("profiles")
    return {name: table for name, table in (tables or {}).items() if isinstance(table, dict)}


# --- where to ask -----------------------------------------------------------------------------------


class _Settings:
    """The few settings that say where things are, without checking the others."""

    def __init__(self, given: Mapping[str, str], environ: Mapping[str, str]) -> None:
        named = given.get("config") or environ.get("AGENTORCH_CONFIG")
        self._given, self._environ = given, environ
        self._user_file, self._file = _user_file(), Path(named or _PROJECT_FILE)
        self._user, self._project = _read(self._user_file), _read(self._file)
        if not named:  # a file that is merely found may not say where tokens are sent
            self._project = {
                key: value for key, value in self._project.items() if key not in ("server", "ca")
            }

    def _value(self, variable: str, section: str, key: str) -> Any:
        if self._environ.get(variable):
            return self._environ[variable]
        for layer in (self._project, self._user):
            table = layer.get(section, {}) if section else layer
            if isinstance(table, dict) and key in table:
                return table[key]
        return None

    @property
    def server(self) -> str:
        if self._given.get("server"):
            return self._given["server"]
        if self._given.get("data_dir") or self._given.get("database_url"):
            return "local"
        return str(self._value("AGENTORCH_SERVER", "", "server") or "")

    @property
    def database_url(self) -> str:
        given = self._given.get("database_url") or self._environ.get("AGENTORCH_DATABASE_URL")
        return str(given or self._value("DATABASE_URL", "database", "url") or "")

    @property
    def port(self) -> int:
        return int(self._value("AGENTORCH_GATEWAY_PORT", "gateway", "port") or 3001)

    @property
    def data_dir(self) -> Path:
        given = self._given.get("data_dir") or self._environ.get("AGENTORCH_DATA_DIR")
        if given:
            return Path(given).expanduser()
        for file, layer in ((self._file, self._project), (self._user_file, self._user)):
            if layer.get("data_dir"):
                return file.parent / Path(str(layer["data_dir"])).expanduser()
        import platformdirs

        return Path(platformdirs.user_data_dir(_APP, appauthor=False))

    def profile(self, server: str) -> dict[str, Any]:
        """The address of a server, and how to come in there."""
        found = {"url": server} if "://" in server else dict(profiles(self._environ)[server])
        ca = self._given.get("ca") or self._value("AGENTORCH_CA", "", "ca") or found.get("ca")
        return {**found, "ca": ca, "token": self._token(found)}

    def _token(self, profile: Mapping[str, Any]) -> str | None:
        environ, base = self._environ, self._user_file.parent
        if profile.get("token_env"):
            return environ.get(str(profile["token_env"]))
        if profile.get("token_file"):
            return _token_in(base / Path(str(profile["token_file"])).expanduser())
        if environ.get("AGENTORCH_TOKEN"):
            return environ["AGENTORCH_TOKEN"]
        file = environ.get("AGENTORCH_TOKEN_FILE")
        return _token_in(Path(file)) if file else None


def _token_in(path: Path) -> str:
    """The token of a file that only its owner can read. Raises OSError."""
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(str(path))
    return path.read_text("utf-8").strip()


def _user_file() -> Path:
    import platformdirs

    return Path(platformdirs.user_config_dir(_APP, appauthor=False)) / "config.toml"


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError:
        return {}


# --- a server ---------------------------------------------------------------------------------------


def _ask_server(profile: Mapping[str, Any], kind: str) -> dict[str, str]:
    import http.client

    parts = urlsplit(str(profile["url"]))
    host, is_secure = parts.hostname or "", parts.scheme == "wss"
    token = profile.get("token")
    if token and not is_secure and not _is_here(host) and not profile.get("insecure"):
        return {}  # others could read it
    if is_secure:
        import ssl

        context = ssl.create_default_context(cafile=profile.get("ca"))
        line: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=WAIT_SECONDS, context=context
        )
    else:
        line = http.client.HTTPConnection(host, parts.port, timeout=WAIT_SECONDS)
    path = parts.path.rstrip("/").removesuffix("/agents").removesuffix("/control")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with contextlib.closing(line):
        line.request("GET", f"{path}/names/{kind}", headers=headers)
        reply = line.getresponse()
        text = reply.read(10 << 20).decode("utf-8") if reply.status == 200 else ""
    pairs = (one.partition("\t") for one in text.split("\n") if one)
    return {name: about for name, _, about in pairs}


def _is_here(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name, and 127.example.org is one too
        return host == "localhost"


# --- the embedded PostgreSQL ------------------------------------------------------------------------


def _ask_postgres(data_dir: Path, kind: str) -> dict[str, str]:
    """One statement over the socket of the server that runs there. Raises OSError where none does."""
    from agentorch_cli.store.queries import statements

    facts = (data_dir / "postgres" / "postmaster.pid").read_text("utf-8").splitlines()
    port, folder = facts[3], facts[4]
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(WAIT_SECONDS)
        line.connect(os.path.join(folder, f".s.PGSQL.{port}"))  # noqa: PTH118  bytes that are no path
        words = ("user", "postgres", "database", _APP, "application_name", "agentorch completion")
        options = ("options", "-c default_transaction_read_only=on -c statement_timeout=150")
        body = b"".join(word.encode() + b"\0" for word in (*words, *options)) + b"\0"
        line.sendall(struct.pack("!ii", len(body) + 8, _PROTOCOL) + body)
        with _Reader(line) as reader:
            reader.until_ready()
            line.sendall(_query(statements()["known_names"], kind, str(MOST)))
            return dict(reader.until_ready())


def _query(statement: str, *values: str) -> bytes:
    """Parse, bind, execute, sync: with the values apart from the statement."""
    bound = b"".join(struct.pack("!i", len(value.encode())) + value.encode() for value in values)
    return (
        _message(b"P", b"\0" + statement.encode() + b"\0" + struct.pack("!h", 0))
        + _message(b"B", b"\0\0" + struct.pack("!hh", 0, len(values)) + bound + struct.pack("!h", 0))
        + _message(b"E", b"\0" + struct.pack("!i", 0))
        + _message(b"S", b"")
    )


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


class _Reader:
    """What the server says, message by message."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def until_ready(self) -> list[tuple[str, str]]:
        """The rows that came before it was ready again. Raises OSError for anything but an answer."""
        rows: list[tuple[str, str]] = []
        while True:
            kind, size = struct.unpack("!ci", self._line.read(5))
            body = self._line.read(size - 4)
            if kind == b"Z":
                return rows
            if kind == b"E" or (kind == b"R" and struct.unpack("!i", body[:4])[0] != 0):
                raise OSError("the server refuses")
            if kind == b"D":
                rows.append(_row(body))


def _row(body: bytes) -> tuple[str, str]:
    columns, at = [], 2
    for _ in range(struct.unpack("!h", body[:2])[0]):
        (size,) = struct.unpack("!i", body[at : at + 4])
        at += 4
        columns.append(body[at : at + max(size, 0)].decode("utf-8"))
        at += max(size, 0)
    return columns[0], columns[1]
