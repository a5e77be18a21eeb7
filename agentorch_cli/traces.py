"""Spans for OpenTelemetry (the extra `otel`): what became of a task, for whoever follows a request.

    caller's span
    └── submit           storing a submission
        ├── queue        from ready to assigned, of each attempt
        └── attempt      from assigned to ended; the agent's own spans are its children
            └── settle   storing how it ended

A span is made when its end is known, with its beginning, and handed to the exporter's thread: nothing is
held open, so nothing is lost with a node but what it had not sent yet. Without `tracing.endpoint` none of
this is imported.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

from agentorch_cli import __version__
from agentorch_cli.core.tracing import SAMPLED, Context, of_attempt, parse_traceparent
from agentorch_cli.errors import InvalidConfig

FLUSH_SECONDS = 2.0
"""Spans that cannot be sent within that time at the end are lost: nobody waits for a collector."""

Value = str | int | float | bool


class Traces:
    """Where spans go. The libraries are imported with the first one."""

    def __init__(self, endpoint: str, service: str = "agentorch", *, exporter: Any = None) -> None:
        """`endpoint` is the base address of an OTLP/HTTP collector."""
        self._endpoint = endpoint.rstrip("/").removesuffix("/v1/traces") + "/v1/traces"
        self._service = service
        self._exporter = exporter
        self._kit: _Kit | None = None

    def open(self) -> _Kit:
        """Import what is needed. Raises InvalidConfig where the extra is not installed."""
        if self._kit is None:
            self._kit = _Kit(self._endpoint, self._service, self._exporter)
        return self._kit

    def begin(self, parent: str | None) -> Context:
        """A new span, under another one or of a new trace. Raises ValueError for what is no traceparent."""
        above = parse_traceparent(parent) if parent is not None else None
        trace_id = above.trace_id if above is not None else int(secrets.token_hex(16), 16) or 1
        return Context(trace_id, _new_id(), above.flags if above is not None else SAMPLED)

    def attempt(self, traceparent: str, message_id: str) -> str:
        """What the agent of an attempt is told: its spans are children of the attempt's."""
        try:
            return str(of_attempt(parse_traceparent(traceparent), message_id))
        except ValueError:  # whoever wrote that into the table knows what it means
            return traceparent

    def end(
        self,
        name: str,
        own: str | Context | None,
        parent: str | None,
        began: float,
        ended: float | None = None,
        *,
        kind: str = "INTERNAL",
        error: str | None = None,
        **attributes: Value | None,
    ) -> None:
        """A span that is over, in seconds since 1970; it is made here where nobody else needs it (None)."""
        try:
            above = parse_traceparent(parent) if parent is not None else None
            if not isinstance(own, Context):
                own = self.begin(parent) if own is None else parse_traceparent(own)
        except ValueError:
            return
        if own.is_sampled:
            ended = time.time() if ended is None else ended
            self.open().send(name, own, above, min(began, ended), ended, kind, error, attributes)

    def close(self) -> None:
        """Send what is left, for a bounded time; a collector that does not answer holds nobody up."""
        if self._kit is not None:
            closing = threading.Thread(target=self._kit.processor.shutdown, name="traces", daemon=True)
            closing.start()
            closing.join(FLUSH_SECONDS + 1)


class _Kit:
    """What the libraries bring. Raises InvalidConfig where they are not installed."""

    def __init__(self, url: str, service: str, exporter: Any) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import ReadableSpan
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError as error:
            raise InvalidConfig(
                "tracing.endpoint is set, and the libraries that traces need are not installed",
                hint='pip install "agentorch-cli[otel]", or leave tracing.endpoint empty',
            ) from error
        self._trace, self._span = trace, ReadableSpan
        name = os.environ.get("OTEL_SERVICE_NAME") or service
        self._resource = Resource.create({"service.name": name, "service.version": __version__})
        self._scope = InstrumentationScope("agentorch", __version__)
        self.processor = BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=url, timeout=FLUSH_SECONDS))

    def send(
        self,
        name: str,
        own: Context,
        above: Context | None,
        began: float,
        ended: float,
        kind: str,
        error: str | None,
        attributes: Mapping[str, Value | None],
    ) -> None:
        """Hand a span to the exporter's thread; this waits for nothing."""
        trace = self._trace
        code = trace.StatusCode.UNSET if error is None else trace.StatusCode.ERROR
        self.processor.on_end(
            self._span(
                name,
                context=self._told(own, is_remote=False),
                parent=self._told(above, is_remote=True) if above is not None else None,
                resource=self._resource,
                attributes=_named(attributes),
                kind=trace.SpanKind[kind],
                status=trace.Status(code, error),
                start_time=int(began * 1e9),
                end_time=int(ended * 1e9),
                instrumentation_scope=self._scope,
            )
        )

    def _told(self, context: Context, *, is_remote: bool) -> Any:
        flags = self._trace.TraceFlags(context.flags)
        return self._trace.SpanContext(context.trace_id, context.span_id, is_remote, flags)


def _new_id() -> int:
    return int(secrets.token_hex(8), 16) or 1


def _named(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    """`task_id` is `agentorch.task.id`."""
    told = {name: value for name, value in attributes.items() if value is not None}
    return {f"agentorch.{name.replace('_', '.', 1)}": value for name, value in told.items()}
