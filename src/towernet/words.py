"""Format names, counts, shares, sizes and times for people."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

NOTHING = "–"  # in a table, where a figure is missing
Number = float | int


def shown(name: str) -> str:
    r"""Return a name fit for one line of a terminal or a message.

    Example:
        >>> print(shown("two\nlines"), shown("caf\udce9"))
        two\nlines caf\xe9
    """
    if name.isprintable():
        return name
    return "".join(
        character
        if character.isprintable()
        else f"\\x{ord(character) - 0xDC00:02x}"
        if "\udc80" <= character <= "\udcff"
        else character.encode("unicode_escape").decode()
        for character in name
    )


def composed(name: str) -> str:
    """Return a name in the form in which names are compared: macOS writes é as two characters.

    Example:
        >>> composed("e\u0301") == "\u00e9"
        True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def one_line(message: str) -> str:
    """Return a message that may contain any name as one printable line."""
    return shown(" ".join(message.split()))


def counted(num: int, noun: str) -> str:
    """Return a count with its noun: `counted(1, "file")` is "1 file"."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def signed_points(fraction: float) -> str:
    """Write a difference in percentage points with its sign.

    Example:
        >>> signed_points(0.0984), signed_points(-0.02)
        ('+9.8', '−2.0')
    """
    return f"{'+' if fraction > 0 else ''}{in_points(fraction)}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return words as a list in a sentence: `listed(["a", "b", "c"])` is "a, b and c"."""
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def some_listed(names: Sequence[str], most: int = 10) -> str:
    """Return names as a list, shortened if there are many."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def percent(fraction: Number | None, digits: int = 1) -> str:
    """Return 0.9123 as '91.2 %'."""
    return NOTHING if fraction is None else f"{100 * fraction:.{digits}f} %"


def in_points(fraction: float) -> str:
    """Return a difference in percentage points; a small one is not rounded to 0.

    Example:
        >>> in_points(0.0312), in_points(-0.0002), in_points(-0.0000001)
        ('3.1', '\u22120.02', '0.0')
    """
    points = 100 * fraction
    text = f"{points:.1f}" if abs(points) >= 0.05 else f"{points:.2f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\u2212")


def p_value(p: float) -> str:
    """Return a p value to three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def compact(number: Number | None) -> str:
    """Return 1559600 as '1.56 M'."""
    if number is None:
        return NOTHING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # 999,999 is one million to three digits
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def in_bytes(num_bytes: Number) -> str:
    """Return a size with its unit.

    Example:
        >>> in_bytes(1_320_000), in_bytes(999_600), in_bytes(999.7)
        ('1.32 MB', '1 MB', '1 kB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5:  # more is 1,000 to three digits
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def duration(seconds: Number | None) -> str:
    """Return 200 as '3 min 20 s'."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock_time(seconds: float) -> str:
    """Return a time as minutes and seconds."""
    minutes, seconds = divmod(int(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        if minutes >= 60
        else f"{minutes}:{seconds:02d}"
    )


def rough_time(seconds: float) -> str:
    """Return a rounded duration.

    Example:
        >>> rough_time(0.2), rough_time(150.0), rough_time(5995.0), rough_time(7200.0)
        ('1 second', '2.5 minutes', '100 minutes', '2.0 hours')
    """
    if seconds < 100:
        return counted(round(max(seconds, 1)), "second")
    if seconds < 100 * 60:
        minutes = seconds / 60
        return f"{minutes:.0f} minutes" if minutes >= 10 else f"{minutes:.2g} minutes"
    return f"{seconds / 3600:.1f} hours"


def kind(value: object) -> str:
    """Return the type of a value in words, with its article."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return "a class of another kind"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
