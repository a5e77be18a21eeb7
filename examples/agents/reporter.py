"""Puts the results of others together: a timeline of all documents, and the report."""

from __future__ import annotations

from typing import Any

from common import read_text, sentences, serve

from agentorch_cli import Agent, Work

agent = Agent("reporter", type="script", capabilities=("report",))


@agent.handler("timeline")
def timeline(work: Work) -> dict[str, Any]:
    """Every dated sentence of the documents that were read, oldest first."""
    entries = []
    for facts in work.inputs.values():
        found = sentences(read_text(facts["document"]))
        entries += [
            {"date": date["iso"], "document": facts["document"], "sentence": found[date["sentence"]]}
            for date in facts["dates"]
        ]
    entries.sort(key=lambda entry: (entry["date"], entry["document"], entry["sentence"]))
    return {"kind": "timeline", "entries": entries, "first": entries[0]["date"], "last": entries[-1]["date"]}


@agent.handler("report")
def report(work: Work) -> dict[str, Any]:
    """Summaries, sizes and the timeline as one page of Markdown."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for result in work.inputs.values():
        by_kind.setdefault(result["kind"], []).append(result)
    summaries = sorted(by_kind["summary"], key=lambda summary: str(summary["document"]))
    (dates,) = by_kind["timeline"]
    (stock,) = by_kind["inventory"]
    lines = ["# What the documents say", ""]
    lines += [
        f"{len(summaries)} documents, {stock['words']:,} words, from {dates['first']} to {dates['last']}.",
        "",
    ]
    for summary in summaries:
        lines += [f"## {summary['document']}", "", " ".join(summary["sentences"]), ""]
    return {"kind": "report", "documents": len(summaries), "markdown": "\n".join(lines)}


if __name__ == "__main__":
    serve(agent)
