"""The names of a network's classes, in the order of its outputs, from the files people have.

Text with one name per line, JSON as torchvision, Keras, fastai and Hugging Face write it, and CSV.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from towernet.data.layout import require_classes
from towernet.errors import DataError
from towernet.words import shown

_MAX_BYTES = 10_000_000
# The keys of a larger JSON file under which the classes are.
_KEYS = (
    "id2label", "label2id", "class_to_idx", "idx_to_class", "class_indices", "class_names",
    "classes", "names", "labels", "categories", "vocab",
)  # fmt: skip
_HEADS_OF_NAMES = {
    "class", "classes", "class_name", "classname", "name", "names", "label", "labels", "category",
    "display_name",
}  # fmt: skip
_NUMBERED = re.compile(r"(\d+)\s*[\s:,;=)]\s*(\S.*)")
_FORMS = '["ant", "bee"], {"0": "ant", "1": "bee"} or {"ant": 0, "bee": 1}'


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names in a text, JSON or CSV file, in the order of the network's outputs.

    Raises:
        DataError: the file cannot be read, a line is empty, or a name or number appears twice.
    """
    text = _text(path)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        raise DataError(f"{path} is YAML; give the class names one per line, in order")
    if suffix == ".json" or (text.lstrip()[:1] in ("[", "{") and _is_json(text)):
        names = _from_json(path, text)
    elif suffix in (".csv", ".tsv"):
        names = _from_csv(path, text)
    else:
        names = _from_lines(path, text)
    twice = [name for name, num in Counter(names).items() if num > 1]
    if twice:
        raise DataError(
            f"{path} names the class '{shown(twice[0])}' twice; give each class its own name"
        )
    if len(names) < 2:
        only = f" ({shown(names[0])})" if names else ""
        raise DataError(
            f"{path} contains {len(names)} class{only if names else 'es'}, and at least two are"
            " needed; give one name for each output of the network"
        )
    require_classes(names, Counter(names), name=str(path))
    return names


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is too large for a list of class names; check the path")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        # Not universal newlines: a name may contain other characters that end lines.
        text = content.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path} is not a text file; give the class names one per line")
    return text


def _from_lines(path: Path, text: str) -> tuple[str, ...]:
    # Not splitlines, which also splits at a dozen other characters.
    names = [line.strip() for line in text.split("\n")]
    while len(names) > 1 and not names[-1]:
        names.pop()
    if "" in names:
        raise DataError(f"{path}: line {names.index('') + 1} is empty; give one name per line")
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    by_number = {int(found[1]): found[2] for found in numbered if found and len(found[1]) < 9}
    if len(names) > 1 and len({*by_number.values()}) == len(names) and _counts(by_number):
        return tuple(by_number[i] for i in range(len(names)))
    return tuple(names)


def _counts(numbers: Any) -> bool:
    """Whether these are the numbers 0, 1, … in any order."""
    return set(numbers) == set(range(len(numbers)))


# JSON.


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _from_json(path: Path, text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not sound JSON ({str(error)[:80]}); write it as {_FORMS}"
        ) from error
    if isinstance(found, dict):
        inner = next((found[key] for key in _KEYS if isinstance(found.get(key), dict | list)), None)
        found = found if inner is None else inner
    names = _of_list(found) if isinstance(found, list) else _of_dict(path, found)
    if names is None:
        raise DataError(f"{path} is JSON, but no list of class names; write it as {_FORMS}")
    return tuple(name.strip() for name in names)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"'{shown(twice)}' is in it twice")
    return found


def _of_list(found: list[Any]) -> list[str] | None:
    if all(isinstance(name, str) and name.strip() for name in found):
        return found
    # A list of objects with a number and a name, as COCO's categories.
    if all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in found):
        ids = {each.get("id"): each["name"] for each in found}
        return [ids[i] for i in range(len(found))] if _counts(ids) else None
    return None


def _of_dict(path: Path, found: Any) -> list[str] | None:
    if not isinstance(found, dict) or not found:
        return None
    to_index = {key: _index(value) for key, value in found.items()}
    if all(index is not None for index in to_index.values()):
        by_number: dict[Any, Any] = {index: key for key, index in to_index.items()}
    else:
        by_number = {_index(key): value for key, value in found.items()}
        # Keras' file for ImageNet has [code, name].
        by_number = {
            index: value[-1] if isinstance(value, list) and value else value
            for index, value in by_number.items()
        }
    if None in by_number or not all(isinstance(name, str) for name in by_number.values()):
        return None
    if len(by_number) < len(found) or not _counts(by_number):
        numbers = sorted(by_number)
        raise DataError(
            f"{path} numbers its {len(found)} classes {numbers[0]} to {numbers[-1]}; number them 0"
            f" to {len(found) - 1}, each once, in the order of the network's outputs"
        )
    return [by_number[i] for i in range(len(by_number))]


def _index(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,8}", value):
        return int(value)
    return None


# CSV.


def _from_csv(path: Path, text: str) -> tuple[str, ...]:
    delimiter = max("\t;,", key=lambda mark: text.partition("\n")[0].count(mark))
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        ]
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read as CSV ({error}); give one name per line"
        ) from error
    rows = [row for row in rows if any(row)]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise DataError(f"{path} has rows of {min(widths)} and of {max(widths)} cells; give it one"
                        " name per line")  # fmt: skip
    head = [cell.lower() for cell in rows[0]] if rows else []
    has_head = bool(_HEADS_OF_NAMES.intersection(head))
    body = rows[1:] if has_head else rows
    numbers = [i for i in range(len(head)) if _counts_up([row[i] for row in body])]
    of_names = [i for i, cell in enumerate(head) if cell in _HEADS_OF_NAMES] if has_head else []
    of_names = of_names or [i for i in range(len(head)) if i not in numbers]
    if len(of_names) != 1 or len(set(numbers) - set(of_names)) > 1:
        raise DataError(
            f"{path} has {len(head)} columns, and it is not clear which one names the classes; give"
            " it one name per line, or a column 'name'"
        )
    (column,) = of_names
    others = [i for i in numbers if i != column]
    if others:
        body = sorted(body, key=lambda row: int(row[others[0]]))
    names = tuple(row[column] for row in body)
    if "" in names:
        raise DataError(f"{path}: class {names.index('') + 1} has no name; give each class one")
    return names


def _counts_up(cells: Sequence[str]) -> bool:
    found = [_index(cell) for cell in cells]
    return bool(found) and len({*found}) == len(found) and _counts(found)
