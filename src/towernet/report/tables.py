"""What the report's tables say: names made inert, numbers made readable, scales of the bars.

Everything here is plain Python; the templates print it and compute nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from towernet import words
from towernet.config import Measure
from towernet.records.judgement import AnsweringNetwork, Pair
from towernet.records.results import Network
from towernet.records.run import Hardware
from towernet.words import NOTHING, Number, shown

MAX_CLASS_ROWS = 100  # so that a thousand classes still make a page one can open


def percent(fraction: Number | None, digits: int = 1) -> str:
    """Return 0.9123 as '91.2 %', which no line breaks."""
    return words.percent(fraction, digits).replace(" ", "\u00a0")


def short(text: str, limit: int = 40) -> str:
    """Return the text visibly, the middle left out when it is longer than `limit`."""
    text = shown(text)
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def interval(bounds: Sequence[Number] | None) -> str:
    """Return (0.85, 0.97) as '85.0 % to 97.0 %'."""
    return NOTHING if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"


def span(bounds: Sequence[Number]) -> str:
    """Return (0.85, 0.974) as '85.0–97.4', in percent."""
    return f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"


def whole(number: Number | None, unit: str = "") -> str:
    """Return 1559600 as '1,559,600'."""
    return NOTHING if number is None else f"{number:,.0f} {unit}".rstrip()


def significant(number: Number | None, unit: str = "") -> str:
    """Return a number to three digits, without the exponent of large ones."""
    if number is None:
        return NOTHING
    return whole(number, unit) if number >= 999.5 else f"{number:.3g} {unit}".rstrip()


def decimals(number: Number | None, digits: int = 2) -> str:
    """Return a number with fixed digits, so that a column lines up."""
    return NOTHING if number is None else f"{number:.{digits}f}"


def machine(hardware: Hardware) -> tuple[tuple[str, str], ...]:
    """Return what the machine was and how it computed, by name."""
    return (
        ("channels last", "yes" if hardware.channels_last else "no"),
        ("cores", str(hardware.cores)),
        ("device", hardware.device),
        ("dtype", hardware.dtype),
        ("kernels", hardware.kernels),
        ("memory", f"{hardware.memory_gib:.3g} GiB"),
        ("processor", hardware.processor),
        ("threads", str(hardware.threads)),
    )


def difference_scale(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return the ends, in whole points, of the scale on which differences are drawn."""
    bounds = [0.0, 0.01, *(bound for pair in pairs for bound in pair.interval)]
    return math.floor(100 * min(bounds)) / 100, math.ceil(100 * max(bounds)) / 100


def score_scale(
    networks: Sequence[Network] | Sequence[AnsweringNetwork],
    guessing: Number | None,
    measure: Measure,
) -> tuple[float, float]:
    """Return the ends, in whole 5 %, of the scale on which the scores are drawn."""
    values = [] if guessing is None else [guessing]
    for network in networks:
        values += network.score_interval(measure) or ()
        values += [score for run in network.runs if (score := run.score(measure)) is not None]
    low = math.floor(20 * min(values)) / 20
    return low, max(math.ceil(20 * max(values)) / 20, low + 0.05)
