"""What the benchmark runner reckons and reads; what it measures is measured by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bench import machine
from bench.figures import Findings, compared, summary
from bench.peers import read
from bench.profile import _name, _shape, added_up
from bench.ratios import ratios
from bench.scenarios import scenarios


def found(**rates: float) -> Findings:
    findings = Findings()
    for name, value in rates.items():
        findings.add(name, value, "tasks/s", "more")
    return findings


def test_runs_are_told_by_their_median_and_spread() -> None:
    figures = summary([found(rate=3), found(rate=1), found(rate=2, other=5)])

    assert (figures["rate"]["median"], figures["rate"]["min"], figures["rate"]["max"]) == (2, 1, 3)
    assert figures["other"]["values"] == [5]


def test_two_documents_are_compared_as_ratios_and_judged_where_their_runs_do_not_overlap() -> None:
    def document(*rates: float) -> dict:
        return {"scenarios": {"drain": {"figures": summary([found(rate=rate) for rate in rates])}}}

    assert compared(document(1, 2), document(4, 5))[1].split()[2:] == ["1.5", "4.5", "3.00", "better"]
    assert compared(document(4, 5), document(1, 2))[1].split()[-1] == "worse"
    assert compared(document(1, 3), document(2, 4))[1].split()[-1] == "1.50"


def test_what_the_host_kept_is_told_beside_what_others_used(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cores = [100.0], 2
    stat = [[10.0, 0, 5.0, 80.0, 1.0, 0, 0, 2.0, 0, 0]]
    monkeypatch.setattr(machine.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(machine.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(machine.os, "times", lambda: (0.0, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(machine, "_processor_seconds", lambda: stat[0])
    own = [0.0]
    noise = machine.Noise(lambda: own[0])

    clock[0] += 10  # of two cores
    stat[0] = [14.0, 0, 7.0, 90.0, 1.0, 0, 0, 6.0, 0, 0]
    own[0] = 9.0

    assert noise.stolen() == pytest.approx(4 / 20)
    assert noise.share() == pytest.approx((4 + 2 + 4 - 9) / 20)


def test_a_system_that_tells_nothing_of_its_processors_is_taken_for_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_processor_seconds", list)
    noise = machine.Noise()

    assert (noise.share(), noise.stolen()) == (0.0, 0.0)


def test_ratios_are_of_the_same_round() -> None:
    done = {
        "drain": {"runs": [{"rate": 10.0}, {"rate": 30.0}]},
        "loop": {"runs": [{"rate, arrays": 20.0}, {"rate, arrays": 40.0}]},
    }
    peers = {"other": summary([found(drain=5)])}

    told = ratios(done, peers)

    assert told["drain / loop, arrays"]["values"] == [0.5, 0.75]
    assert told["drain / other"]["values"] == [4.0]


def test_lines_of_a_harness_of_peers_are_read(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    rows = [{"peer": "x", "case": "drain", "per_s": 7.0}, {"peer": "x", "case": "latency", "p50_ms": 2.0}]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert {name: one["median"] for name, one in summary(read(lines)).items()} == {
        "drain": 7.0,
        "latency p50": 2.0,
    }
    assert read(tmp_path / "missing") == []


def test_statements_of_a_log_are_added_up_by_their_names() -> None:
    log = (
        "2026-01-01 LOG:  duration: 0.5 ms  bind __asyncpg_stmt_1__: select pg_notify($1, $2)\n"
        "2026-01-01 LOG:  duration: 1.25 ms  execute __asyncpg_stmt_1__: select pg_notify($1, $2)\n"
        "2026-01-01 LOG:  duration: 3 ms  statement: vacuum\n\tfull\n"
        "2026-01-01 LOG:  checkpoint starting\n"
    )

    assert added_up(log) == [
        {"name": "vacuum full", "calls": 1, "total_ms": 3.0},
        {"name": "notify", "calls": 1, "total_ms": 1.75},
    ]


def test_a_statement_is_known_without_its_constants() -> None:
    assert (
        _shape("select 1 -- one\n where a = 'it''s' and $3 is not null")
        == "select $ where a = $ and $ is not $"
    )
    assert _name("select pg_notify($1, $2)") == "notify"
    assert _name(f"/* */ {'x' * 100}") == f"/* */ {'x' * 74}"


def test_a_graph_of_the_wanted_size_is_written(tmp_path: Path) -> None:
    from bench.scenarios.submission import _write_graph

    size = random.Random(0).randint(200, 300)
    edges = _write_graph(tmp_path / "graph.jsonl", size, 10 * size)

    tasks = [json.loads(line) for line in (tmp_path / "graph.jsonl").read_text().splitlines()]
    assert len(tasks) == size
    assert sum(len(task["depends_on"]) for task in tasks) == edges
    assert 0.95 < edges / (10 * size) < 1.05


def test_every_scenario_is_on_the_page_about_them() -> None:
    page = (Path(__file__).parents[1] / "bench" / "README.md").read_text()

    assert [name for name in scenarios() if f"| `{name}` |" not in page] == []
