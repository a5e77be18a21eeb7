"""Costs a building from its bill of materials: quantities with waste, labour, overheads, contingency."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from common import read_text, serve

from agentorch_cli import Agent, Work

agent = Agent("estimator", type="construction", capabilities=("cost_estimation",))

CENT = Decimal("0.01")


@agent.handler("plan_footbridge")
@agent.handler("estimate_cost")
def estimate_cost(work: Work) -> dict[str, Any]:
    bill = json.loads(read_text(work.data["bill"]), parse_float=Decimal, parse_int=Decimal)
    return {"kind": "estimate", "bill": work.data["bill"], **estimate(bill)}


def estimate(bill: dict[str, Any]) -> dict[str, Any]:
    """Every line rounded to the cent, then the surcharges on their sum, each on what stands above it."""
    lines = [
        {
            "item": item["item"],
            "cost": _cents(item["quantity"] * (1 + item.get("waste", 0)) * item["unit_price"]),
        }
        for item in bill["materials"]
    ] + [
        {"item": work["trade"], "cost": _cents(work["hours"] * work["hourly_rate"])}
        for work in bill["labour"]
    ]
    net = sum((line["cost"] for line in lines), Decimal())
    overheads = _cents(net * bill["overheads"])
    contingency = _cents((net + overheads) * bill["contingency"])
    dearest = max(lines, key=lambda line: (line["cost"], line["item"]))
    return {
        "lines": [{"item": line["item"], "cost": float(line["cost"])} for line in lines],
        "net": float(net),
        "overheads": float(overheads),
        "contingency": float(contingency),
        "total": float(net + overheads + contingency),
        "dearest": dearest["item"],
        "currency": bill["currency"],
    }


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, rounding=ROUND_HALF_UP)


if __name__ == "__main__":
    serve(agent)
