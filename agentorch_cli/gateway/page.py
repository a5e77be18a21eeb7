"""The web page of `/ui`: a handful of files of the package, and the headers that keep it harmless.

The files hold no data, so whoever reaches the port may have them; what the page shows it asks for on
`/control`, as any client does, and there whoever comes with an `Origin` is a browser and may only read.
The policy lets the page run its own script and talk to where it came from, and nothing else: text that
an agent wrote cannot become script, frame it, or be sent elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from agentorch_cli.pictures.ink import STYLE

ROOT: Final = "/ui"

KINDS: Final = MappingProxyType(
    {
        "html": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
)

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # drawings, which as images run nothing and load nothing
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",  # no text is ever read as markup, not even by mistake
    )
)

HEADERS: Final = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), microphone=(), geolocation=()"),
    ("Cache-Control", "no-cache"),  # ask each time: the tag says whether it is still the same
)


@dataclass(frozen=True, slots=True)
class File:
    """One file of the page."""

    kind: str
    body: bytes
    tag: str
    """Of its content: another version of the program has other tags."""


@cache
def page_files() -> dict[str, File]:
    """The files by their path, read when somebody looks for the first time.

    A path is looked up and never followed, so there is none that leads out of the folder.
    """
    found: dict[str, File] = {}
    for one in files("agentorch_cli.gateway").joinpath("ui").iterdir():
        if one.name.rpartition(".")[2] in KINDS:
            found[f"{ROOT}/{one.name}"] = _file(one.name, one.read_bytes())
    found[f"{ROOT}/picture.css"] = _file("picture.css", STYLE.encode())
    found[ROOT] = found.pop(f"{ROOT}/index.html")
    return found


def _file(name: str, body: bytes) -> File:
    return File(KINDS[name.rpartition(".")[2]], body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def page_of(path: str, request: Request) -> Response | None:
    """The answer to a request for a part of the page; None where the path is not one."""
    if not path.startswith(ROOT):
        return None
    if path == f"{ROOT}/":
        return _answer(HTTPStatus.PERMANENT_REDIRECT, Headers([*HEADERS, ("Location", "../ui")]), b"")
    file = page_files().get(path)
    if file is None:
        return None
    headers = Headers([*HEADERS, ("Content-Type", file.kind), ("ETag", file.tag)])
    if file.tag in _tags(request):
        return _answer(HTTPStatus.NOT_MODIFIED, headers, b"")
    return _answer(HTTPStatus.OK, headers, file.body)


def _tags(request: Request) -> set[str]:
    shown = ",".join(request.headers.get_all("If-None-Match"))
    return {tag.strip().removeprefix("W/") for tag in shown.split(",")}


def _answer(status: HTTPStatus, headers: Headers, body: bytes) -> Response:
    headers["Connection"] = "close"
    if status is not HTTPStatus.NOT_MODIFIED:
        headers["Content-Length"] = str(len(body))
    return Response(status.value, status.phrase, headers, body)
