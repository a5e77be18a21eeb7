"""Numbers as people and models write them, and groups of numbers that are near each other.

The *whole* answer must be a number: "take the first number of the text" makes wrong answers
equal to right ones. Values are exact fractions, so 0.1 + 0.2 is 0.3 and 1/3 is not 0.333.

Groups under a tolerance are not pairwise: 1.0, 1.9 and 2.8 are each within 1 of the next, but
1.0 and 2.8 are not the same answer. So: sort, cut where the gap to the next number is above
the tolerance, and cut any group wider than two tolerances at its widest gap until it is not.
Equal numbers are never cut apart. The group's answer is its median.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

MAX_DIGITS = 250
"""Longest number, in characters and in powers of ten: more is an attack or a mistake."""

_CURRENCY = r"(?:[$€£¥₹₩₽₺₫₱฿]|(?:USD|EUR|GBP|JPY|CHF|INR|CNY|AUD|CAD)\b)"
_DIGITS = r"(?:[0-9]{1,3}(?:(?P<mark>[,'’ \u00a0\u2009\u202f_])[0-9]{3})(?:(?P=mark)[0-9]{3})*|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,4}})?"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?(?:{_CURRENCY} ?)?(?P<inner>[+-]?)(?P<number>{_DECIMAL})(?: ?{_CURRENCY})?"
)
_RATIO = re.compile(r"(?P<sign>[+-]?)(?P<top>[0-9]+) ?/ ?(?P<bottom>[0-9]+)")
_MARKS = str.maketrans("", "", ",'’ \u00a0\u2009\u202f_")


def parse_number(value: Any) -> Fraction | None:
    """The exact number that a value is, or that its whole text writes; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Fraction(value) if value.bit_length() <= 3 * MAX_DIGITS else None
    if isinstance(value, float):
        return Fraction(repr(value)) if math.isfinite(value) else None
    return _parse_text(value) if isinstance(value, str) else None


@lru_cache(maxsize=4096)
def _parse_text(text: str) -> Fraction | None:
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if not text or len(text) > MAX_DIGITS:
        return None
    ratio = _RATIO.fullmatch(text)
    if ratio:
        bottom = int(ratio["bottom"])
        sign = -1 if ratio["sign"] == "-" else 1
        return Fraction(sign * int(ratio["top"]), bottom) if bottom else None
    found = _NUMBER.fullmatch(unicodedata.normalize("NFC", text))
    if not found or (found["sign"] and found["inner"]):
        return None
    plain = found["number"].translate(_MARKS).lower()
    exponent = plain.partition("e")[2]
    if exponent and abs(int(exponent)) > MAX_DIGITS:
        return None
    number = Fraction(plain.replace(".e", "e").rstrip("."))
    return -number if "-" in (found["sign"], found["inner"]) else number


def number_answer(number: Fraction) -> str:
    """The canonical text of a number: a plain decimal if it ends, else a fraction in lowest terms."""
    rest, places = number.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest //= prime
            power += 1
        places = max(places, power)
    if rest != 1:
        return f"{number.numerator}/{number.denominator}"
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    sign = "-" if number < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def median(ordered: Sequence[Fraction]) -> Fraction:
    """The middle of sorted numbers; the mean of the two middle ones if their count is even."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def trimmed_mean(ordered: Sequence[Fraction], trim: Fraction) -> Fraction:
    """The mean of sorted numbers without floor(trim * n) at each end."""
    drop = math.floor(trim * len(ordered))
    kept = ordered[drop : len(ordered) - drop]
    return sum(kept, Fraction(0)) / len(kept)


def groups(ordered: Sequence[Fraction], absolute: Fraction, relative: Fraction) -> list[Sequence[Fraction]]:
    """Sorted numbers as groups of equal answers, in order."""

    def reach(low: Fraction, high: Fraction) -> Fraction:
        return max(absolute, relative * max(abs(low), abs(high)))

    done: list[Sequence[Fraction]] = []
    waiting = [ordered] if ordered else []
    while waiting:
        run = waiting.pop()
        gaps = [(high - low, low, high) for low, high in pairwise(run)]
        cut = next((at for at, (gap, low, high) in enumerate(gaps, 1) if gap > reach(low, high)), None)
        if cut is None and run[-1] - run[0] > 2 * reach(run[0], run[-1]):
            widest = max(gap for gap, _, _ in gaps)
            middle = (run[0] + run[-1]) / 2
            # Of equally wide gaps the one nearest the middle, then the lower one.
            cut = min(
                (abs((gaps[at - 1][1] + gaps[at - 1][2]) / 2 - middle), at)
                for at in range(1, len(run))
                if gaps[at - 1][0] == widest
            )[1]
        if cut is None:
            done.append(run)
        else:
            waiting += [run[cut:], run[:cut]]
    return done
