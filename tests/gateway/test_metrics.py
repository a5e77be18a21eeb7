"""The metrics page, read strictly; and what is built on it: the dashboard and the alert rules."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from fleet import Fleet
from test_door import get

from agentorch_cli.gateway.metrics import kinds

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|Inf)|NaN")
UNITS = ("_seconds", "_bytes", "_total", "_size", "_info", "_usd", "_tokens")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


class Sample(NamedTuple):
    """One line of the page."""

    name: str
    labels: dict[str, str]
    value: float


class Family(NamedTuple):
    """One metric."""

    kind: str
    help: str
    samples: list[Sample]


def parse(page: str) -> dict[str, Family]:
    """The text format, version 0.0.4, and what good pages do beyond it. Raises AssertionError."""
    assert page.endswith("\n")
    families: dict[str, Family] = {}
    current, text = "", ""
    for line in page.splitlines():
        assert line, "there is an empty line"
        if found := re.fullmatch(rf"# HELP ({NAME}) (.+)", line):
            current, text = found[1], found[2]
            assert current not in families, f"{current} is there twice"
        elif found := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram)", line):
            assert found[1] == current, f"{line} comes without its HELP"
            families[current] = Family(found[2], text, [])
        else:
            assert not line.startswith("#"), line
            sample = _sample(line)
            family = families[current]
            assert sample.name.removeprefix(current) in SUFFIXES[family.kind], line
            family.samples.append(sample)
    for name, family in families.items():
        _check(name, family)
    return families


def _sample(line: str) -> Sample:
    found = re.fullmatch(rf"({NAME})(?:\{{(.*)\}})? (\S+)", line)
    assert found, line
    assert NUMBER.fullmatch(found[3]), line
    labels = dict(LABEL.findall(found[2] or ""))
    assert ",".join(f'{key}="{value}"' for key, value in labels.items()) == (found[2] or "").rstrip(","), line
    return Sample(found[1], labels, float(found[3]))


def _check(name: str, family: Family) -> None:
    seen = [(one.name, tuple(sorted(one.labels.items()))) for one in family.samples]
    assert len(seen) == len(set(seen)), f"{name} has one series twice"
    assert (family.kind == "counter") == name.endswith("_total"), name
    if family.kind == "counter":
        assert all(one.value >= 0 for one in family.samples), name
    if family.kind == "histogram":
        _check_histogram(name, family)


def _check_histogram(name: str, family: Family) -> None:
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for one in family.samples:
        key = tuple(sorted((k, v) for k, v in one.labels.items() if k != "le"))
        series.setdefault(key, []).append(one)
    for key, samples in series.items():
        buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name == f"{name}_bucket"]
        total = next(s.value for s in samples if s.name == f"{name}_count")
        assert [b for b, _ in buckets] == sorted({b for b, _ in buckets}), (name, key)
        assert [v for _, v in buckets] == sorted(v for _, v in buckets), (name, key)
        assert buckets[-1] == (math.inf, total), (name, key)
        assert any(s.name == f"{name}_sum" for s in samples), (name, key)


@pytest.mark.parametrize(
    "page",
    [
        "x 1\n",
        "# HELP x a\n# TYPE x counter\nx 1\n",
        "# HELP x_total a\n# TYPE x_total counter\nx_total -1\n",
        "# HELP x a\n# TYPE x gauge\nx 1\nx 2\n",
        "# HELP x a\n# TYPE x gauge\nx one\n",
        '# HELP x a\n# TYPE x gauge\nx{a="b} 1\n',
        "# TYPE x gauge\nx 1\n",
        '# HELP x a\n# TYPE x histogram\nx_bucket{le="1"} 2\nx_bucket{le="+Inf"} 1\nx_count 1\nx_sum 1\n',
        '# HELP x a\n# TYPE x histogram\nx_bucket{le="1"} 2\nx_count 2\nx_sum 1\n',
        "# HELP x a\n# TYPE x gauge\nx 1",
    ],
)
def test_the_parser_refuses_what_is_wrong(page: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        parse(page)


async def test_the_page_is_strictly_right_and_says_what_happened(fleet: Fleet, submit: Any) -> None:
    agent = await fleet.join()
    await submit(required_capabilities=["work"])
    await submit(required_capabilities=["nobody"])
    work = await agent.expect("execute_task")
    await agent.finish(work, usage={"costUsd": 0.25, "inputTokens": 7})
    await agent.expect("ack")
    orchestrator = fleet.orchestrator
    await orchestrator.engine.ledger.write()

    families = parse((await get(orchestrator.url, "/metrics"))[1])

    own = {name: family.kind for name, family in families.items() if name.startswith("agentorch_")}
    assert own == kinds()
    values = {(one.name, *one.labels.values()): one.value for f in families.values() for one in f.samples}
    assert values["agentorch_leader", "default"] == values["agentorch_chief",] == 1
    assert values["agentorch_fleet_tasks", "ready"] == 1
    assert values["agentorch_fleet_oldest_ready_seconds",] > 0
    assert values["agentorch_spend_usd_total",] == 0.25
    assert values["agentorch_spend_tokens_total",] == 7
    assert values["agentorch_attempt_seconds_count", "completed"] == 1
    assert values["agentorch_queue_seconds_count",] == 1
    assert values["agentorch_settle_batch_size_sum",] == 1
    assert values["agentorch_database_connections", "idle"] >= 1
    assert "process_cpu_seconds_total" in families


async def test_no_label_grows_with_the_fleet(fleet: Fleet, submit: Any) -> None:
    """Ten agents and ten tasks make as many series as one: none carries the name of either."""

    async def series() -> set[tuple[str, ...]]:
        page = (await get(fleet.orchestrator.url, "/metrics"))[1]
        return {(s.name, *s.labels) for f in parse(page).values() for s in f.samples}

    before = await series()
    for number in range(10):
        agent = await fleet.join(f"agent-{number}")
        await submit(type=f"type-{number}", required_capabilities=["work"])
        await agent.finish(await agent.expect("execute_task"))
        await agent.expect("ack")

    assert await series() == before


async def test_a_page_is_told_without_the_tables(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentorch_cli.errors import DatabaseUnreachable

    async def gone(*_: Any) -> None:
        raise DatabaseUnreachable("it is away")

    monkeypatch.setattr(fleet.orchestrator.store.db, "fetch_one", gone)
    status, page = await get(fleet.orchestrator.url, "/metrics")
    monkeypatch.undo()

    families = parse(page)
    assert status == 200
    assert not families["agentorch_fleet_tasks"].samples
    assert families["agentorch_sessions"].samples


async def test_statements_that_fail_are_counted_by_kind(orchestrator: Any) -> None:
    from agentorch_cli.errors import DatabaseUnreachable

    db = orchestrator.store.db
    with pytest.raises(DatabaseUnreachable):
        async with db.connected() as connection:
            await connection.execute("set statement_timeout = '1ms'; select pg_sleep(10)")

    assert db.errors["statement_timeout"] == 1


# --- what is built on the page ------------------------------------------------------------------


def names_in(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    return set(re.findall(r"\b(?:agentorch|process)_[a-z0-9_]+", expression))


def told() -> set[str]:
    """The names of all series that a page can have."""
    found = {
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
    }
    for name, kind in kinds().items():
        found |= {f"{name}{suffix}" for suffix in SUFFIXES[kind]}
    return found


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_every_alert_asks_for_what_there_is_and_says_what_to_do() -> None:
    rules = alerts()

    assert len({rule["alert"] for rule in rules}) == len(rules) >= 8
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "description"} <= set(rule["annotations"])
        assert names_in(rule["expr"]) <= told(), rule["alert"]
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        for commands in re.findall(r"`agentorch ([a-z-]+)", rule["annotations"]["description"]):
            from agentorch_cli.cli.app import Root

            assert commands in Root.entries


def test_every_panel_asks_for_what_there_is() -> None:
    found = panels()

    assert len(found) >= 10
    assert len({panel["id"] for panel in found}) == len(found)
    for panel in found:
        assert panel["title"] and panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert names_in(target["expr"]) <= told(), (panel["title"], target["expr"])
            assert names_in(target["expr"]), panel["title"]


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_prometheus_itself_takes_the_page_and_what_is_asked_of_it(fleet: Fleet, tmp_path: Path) -> None:
    page = (await get(fleet.orchestrator.url, "/metrics"))[1]
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked = [one.replace("$__rate_interval", "5m").replace("$job", ".*") for one in asked]
    rules_of_panels = [{"record": f"panel:{n}", "expr": one} for n, one in enumerate(asked)]
    board = tmp_path / "board.yaml"
    board.write_text(json.dumps({"groups": [{"name": "board", "rules": rules_of_panels}]}))

    rules = subprocess.run(
        ["promtool", "check", "rules", DEPLOY / "alerts.yaml", board], capture_output=True, text=True
    )
    metrics = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)

    assert rules.returncode == 0, rules.stdout + rules.stderr
    assert metrics.returncode == 0, metrics.stdout + metrics.stderr


def test_metrics_that_measure_say_in_which_unit() -> None:
    plain = {name for name, kind in kinds().items() if kind == "histogram" and not name.endswith(UNITS)}

    assert plain == set()
