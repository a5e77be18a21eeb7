"""Takes dates, quantities and names out of a document, by rules."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from common import COMMON_WORDS, NUMBER, read_text, sentences, serve

from agentorch_cli import Agent, Work

agent = Agent("extractor", type="script", capabilities=("extract",), slots=2)

MONTHS = {
    "January": 1,
    "February": 2,
    "March": 3,
    "April": 4,
    "May": 5,
    "June": 6,
    "July": 7,
    "August": 8,
    "September": 9,
    "October": 10,
    "November": 11,
    "December": 12,
}

UNITS: dict[str, tuple[str, float]] = {
    "cubic metres per second": ("m3/s", 1),
    "million cubic metres": ("m3", 1e6),
    "cubic metres": ("m3", 1),
    "square kilometres": ("m2", 1e6),
    "square metres": ("m2", 1),
    "hectares": ("m2", 1e4),
    "million euros": ("EUR", 1e6),
    "euros": ("EUR", 1),
    "crowns": ("crown", 1),
    "litres per minute": ("l/min", 1),
    "litres": ("l", 1),
    "km": ("m", 1000),
    "mm": ("m", 0.001),
    "m": ("m", 1),
    "tonnes": ("kg", 1000),
    "kg": ("kg", 1),
    "g": ("kg", 0.001),
    "gigabytes": ("byte", 1e9),
    "kWh": ("kWh", 1),
    "kN": ("N", 1000),
    "bar": ("bar", 1),
    "percent": ("%", 1),
    "°C": ("°C", 1),
    "minutes": ("min", 1),
    "hours": ("min", 60),
    "days": ("day", 1),
    "nights": ("night", 1),
    "weeks": ("day", 7),
    "months": ("month", 1),
    "years": ("year", 1),
    "people": ("person", 1),
    "passengers": ("person", 1),
    "visitors": ("person", 1),
    "volumes": ("volume", 1),
    "trees": ("tree", 1),
    "leaks": ("leak", 1),
    "colonies": ("colony", 1),
    "asteroids": ("asteroid", 1),
    "comets": ("comet", 1),
    "seats": ("seat", 1),
    "beds": ("bed", 1),
}
"""What is measured, in words, to a base unit and its factor. Longer words stand before their beginnings."""

DATE = re.compile(rf"(?:\b(\d{{1,2}}) )?\b({'|'.join(MONTHS)}) (\d{{4}})\b")
YEAR = re.compile(
    r"\b(?:[Ii]n|[Ss]ince|[Uu]ntil|[Ff]rom|[Bb]y|of|before|to|after) (1[5-9]\d\d|20\d\d)\b(?![ -]\w*m\b)"
)
QUANTITY = re.compile(rf"(?<![\w.])({NUMBER.pattern}) ({'|'.join(map(re.escape, UNITS))})(?!\w)")
NAME = re.compile(r"\b[A-ZÀ-Þ][\w'’-]+(?: (?:of )?[A-ZÀ-Þ][\w'’-]+)*")


@agent.handler("extract_facts")
def extract_facts(work: Work) -> dict[str, Any]:
    return {"kind": "facts", "document": work.data["document"], **extract(read_text(work.data["document"]))}


def extract(text: str) -> dict[str, Any]:
    """Dates and quantities with the number of their sentence (from 0), and names with how often they come."""
    found = sentences(text)
    named = Counter(name for sentence in found for name in names(sentence))
    return {
        "dates": [{**date, "sentence": at} for at, sentence in enumerate(found) for date in dates(sentence)],
        "quantities": [
            {**quantity, "sentence": at}
            for at, sentence in enumerate(found)
            for quantity in quantities(sentence)
        ],
        "names": dict(sorted(named.items(), key=lambda item: (-item[1], item[0]))),
    }


def dates(sentence: str) -> list[dict[str, str]]:
    """Days, months and years, in order, as they are written and as ISO 8601 of the same precision."""
    spans = [
        (match.start(), match.group(), _iso(match.group(1), match.group(2), match.group(3)))
        for match in DATE.finditer(sentence)
    ]
    spans += [(match.start(1), match.group(1), match.group(1)) for match in YEAR.finditer(sentence)]
    return [{"text": text, "iso": iso} for _, text, iso in sorted(spans)]


def _iso(day: str | None, month: str, year: str) -> str:
    whole_month = f"{year}-{MONTHS[month]:02}"
    return f"{whole_month}-{int(day):02}" if day else whole_month


def names(sentence: str) -> list[str]:
    """Words with capitals, in order. A single one at the beginning of a sentence says nothing."""
    found = []
    for match in NAME.finditer(sentence):
        first, *rest = match.group().split()
        words = rest if first.lower() in COMMON_WORDS else [first, *rest]
        is_opening = match.start() == 0 and len(words) == 1 and not (rest and words == rest)
        if words and words[0] not in MONTHS and not is_opening:
            found.append(" ".join(words))
    return found


def quantities(sentence: str) -> list[dict[str, Any]]:
    """Numbers with a unit, in order, as they are written and in the base unit."""
    return [
        {
            "text": match.group(),
            "value": _base_value(match.group(1), match.group(2)),
            "unit": UNITS[match.group(2)][0],
        }
        for match in QUANTITY.finditer(sentence)
    ]


def _base_value(number: str, unit: str) -> float:
    return round(float(number.replace(",", "")) * UNITS[unit][1], 6)


if __name__ == "__main__":
    serve(agent)
