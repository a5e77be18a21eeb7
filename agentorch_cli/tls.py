"""The three sides of an encrypted connection: who serves, who calls, and who calls itself."""

from __future__ import annotations

import ssl
from pathlib import Path

from agentorch_cli.errors import InvalidConfig


def context_for(url: str, ca: Path | None = None) -> ssl.SSLContext | None:
    """What a WebSocket client needs for this address; None where it is not encrypted."""
    return client_context(ca) if url.startswith("wss:") else None


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """For `serve`: TLS 1.2 or newer. Raises InvalidConfig where the files do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path, what in ((cert, "certificate"), (key, "key")):
        if not path.is_file():
            raise InvalidConfig(f"the TLS {what} {path} does not exist")
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")  # a locked key fails: nobody is asked
    except (ssl.SSLError, OSError) as error:
        raise InvalidConfig(
            f"the TLS certificate {cert} and the key {key} cannot be used: {_reason(error)}",
            hint="both are PEM files, the key is not locked with a password and belongs to the certificate",
        ) from error
    return context


def client_context(ca: Path | None = None) -> ssl.SSLContext:
    """For whoever calls: the certificate must be signed by `ca`, or by one that the system trusts."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (ssl.SSLError, OSError) as error:
        raise InvalidConfig(
            f"the certificates in {ca} cannot be read: {_reason(error)}", hint="--ca names a PEM file"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def own_context(cert: Path) -> ssl.SSLContext:
    """For a server's own agents, which call it by its loopback address: exactly this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cert)
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error).partition("(")[0]).strip("[] ").lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)
