"""Whether a result looks as its task asked: `result_schema`, for every agent and every kind of task.

A result that does not fit is a failed attempt with the reason. Most checks take microseconds
and happen on the settler's loop. One that could take longer (a large result, a schema that refers
to itself, many patterns) goes to the inspector, and its report is set aside until then, so that
nobody else waits for it.

A ballot that is `null` is an abstention and fits every schema.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from agentorch_cli.core.model import AttemptStatus
from agentorch_cli.engine.inspector import Inspector, Undecided
from agentorch_cli.engine.state import Report
from agentorch_cli.logs import facts
from agentorch_cli.schemas import Fault, Fit, Fits

log = logging.getLogger("agentorch.checks")


class Checks:
    """Checks reports, at once or aside."""

    def __init__(self, come_back: Callable[[Report], None]) -> None:
        """`come_back` is given each report that was set aside, once it is checked."""
        self._come_back = come_back
        self._fits = Fits()
        self._inspector = Inspector()
        self._aside: dict[str, asyncio.Task[None]] = {}

    @property
    def is_idle(self) -> bool:
        """Nothing is set aside."""
        return not self._aside

    def check(self, report: Report, schema: str, *, is_ballot: bool) -> Report | None:
        """The report as it counts; None where it comes back later.

        `schema` is JSON text.
        """
        result = report.result
        if report.is_checked or report.status is not AttemptStatus.COMPLETED or result is None:
            return report
        if is_ballot and result == "null":
            return report
        try:
            fit = self._fits.of(schema)
        except ValueError as error:
            return _failed(report, f"the task's result_schema cannot be used: {error}", retryable=False)
        if fit.is_quick(len(result)):
            value = orjson.loads(result)
            if fit.takes(value):
                return report
            if fit.is_quickly_told(len(result)):
                return _told(report, fit, value)
        if report.message_id not in self._aside:
            self._aside[report.message_id] = asyncio.create_task(self._inspect(report, schema))
        return None

    async def close(self) -> None:
        """Forget what is set aside: its agents keep their results until the ack."""
        for task in list(self._aside.values()):
            task.cancel()
        await asyncio.gather(*self._aside.values(), return_exceptions=True)
        self._aside.clear()
        await self._inspector.close()

    async def _inspect(self, report: Report, schema: str) -> None:
        checked = replace(report, is_checked=True)
        try:
            fault = await self._inspector.fault(schema, report.result or "null")
            if fault is not None:
                checked = _misfit(checked, fault)
        except Undecided as error:
            log.warning(
                "the result of attempt %s could not be checked: %s",
                report.message_id,
                error,
                extra=_about(report),
            )
            checked = _failed(checked, f"the result could not be checked against its schema: {error}")
        except Exception:
            log.exception(
                "the result of attempt %s could not be checked", report.message_id, extra=_about(report)
            )
            checked = _failed(checked, "the result could not be checked against its schema")
        self._aside.pop(report.message_id, None)
        self._come_back(checked)


def _told(report: Report, fit: Fit, value: Any) -> Report:
    fault = fit.fault(value)
    return report if fault is None else _misfit(report, fault)


def _misfit(report: Report, fault: Fault) -> Report:
    failed = _failed(report, f"the result does not fit its schema: {fault}")
    assert failed.error is not None
    failed.error["pointer"] = fault.pointer
    return failed


def _failed(report: Report, message: str, *, retryable: bool = True) -> Report:
    error = {"code": "invalid_result", "message": message[:1_000], "retryable": retryable}
    return replace(report, status=AttemptStatus.FAILED, result=None, error=error, is_checked=True)


def _about(report: Report) -> dict[str, Any]:
    return facts(task=report.task_id, agent=report.agent_id, attempt=report.message_id)
