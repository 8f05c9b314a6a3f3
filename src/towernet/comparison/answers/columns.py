"""The columns of a table of answers: which are required, and how their cells are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from towernet.comparison.answers.reading import RawTable
from towernet.errors import DataError
from towernet.registry import nearest
from towernet.words import counted, listed, shown

Ints = npt.NDArray[np.int64]

KEYS = ("network", "run", "image")
# Other common names of these columns. They are only suggested, never assumed: a wrong guess would
# give wrong numbers.
_OTHER_NAMES = {
    "network": ("model", "classifier", "architecture", "net", "method"),
    "run": ("seed", "repetition", "fold", "trial", "run_id"),
    "image": ("path", "file", "filename", "file_name", "img", "picture", "sample", "id"),
    "right": ("correct", "hit", "is_right", "is_correct"),
    "label": ("target", "true", "truth", "y_true", "class", "class_name", "ground_truth"),
    "answer": ("prediction", "predicted", "pred", "y_pred", "output"),
    "group": ("groups", "cluster", "group_id"),
}


@dataclass(frozen=True)
class Column:
    """A column of texts, each distinct text stored once.

    Args:
        codes: (R,) for each row, the index of its text.
        texts: The distinct texts, in the order of their first row.
    """

    codes: Ints
    texts: tuple[str, ...]

    def __getitem__(self, row: int) -> str:
        return quoted(self.texts[self.codes[row]])


def require_columns(table: RawTable) -> None:
    """Refuse a table that lacks a required column, or whose group column may be misnamed.

    Raises:
        DataError: it names the missing columns, the existing ones, and those that may be meant.
    """
    has = [str(column) for column in table.frame.columns]
    if "right" in has:
        lacking = [name for name in KEYS if name not in has]
    elif "label" in has or "answer" in has:
        lacking = [name for name in (*KEYS, "label", "answer") if name not in has]
    else:
        lacking = [name for name in (*KEYS, "right") if name not in has]
    others = [column for column in has if column not in _OTHER_NAMES]
    if not lacking:
        if "group" not in has and (near := _similar("group", others, cutoff=0.8)):
            raise DataError(
                f"{table.name} has a column {quoted(near)} and none called 'group'; rename it"
                " if it shows which images belong together, or leave it out"
            )
        return
    words = [f"'{name}'" for name in lacking]
    wanted = list(lacking)
    if lacking[-1] == "right":
        words[-1] = "'right' (nor 'label' and 'answer')"
        wanted += ["label", "answer"]
    hints = {name: near for name in wanted if (near := _similar(name, others))}
    renamed = [f"{quoted(near)} to '{name}'" for name, near in hints.items()]
    advice = [f"rename {listed(renamed)}, if that is their meaning"] if renamed else []
    if "run" in lacking and "run" not in hints:
        advice.append("if each network has one run, use 0 in every row")
    found = listed([quoted(column) for column in has[:12]]) if has else "none"
    more = f" and {len(has) - 12} more" if len(has) > 12 else ""
    raise DataError(
        f"{table.name} has no column {listed(words, 'or')}; its columns are {found}{more}:"
        f" {'; '.join(advice) or 'add the missing ones'}"
    )


def column_of(table: RawTable, name: str, *, empty: bool = False) -> Column:
    """Return a column as texts.

    Args:
        table: The table.
        name: The column's name.
        empty: Whether empty cells are allowed; their code is -1.
    """
    values = table.frame[name]
    try:
        codes, distinct = _factorized(values)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"the column '{name}' of {table.name} has values that are neither text nor numbers;"
            " make it text"
        ) from error
    texts = [_text(value) for value in distinct]
    # 1, 1.0 and "1" are the same text.
    merged, once = pd.factorize(np.array(texts, dtype=object))
    codes = np.where(codes < 0, -1, merged[codes]) if len(merged) else codes
    is_empty = np.array([not text.strip() for text in once], dtype=bool)
    if is_empty.any():
        codes = np.where((codes >= 0) & is_empty[codes], -1, codes)
    if not empty and (codes < 0).any():
        num = int((codes < 0).sum())
        more = "" if num == 1 else f" and {counted(num - 1, 'more row')}"
        raise DataError(
            f"{table.name}: '{name}' is empty in {table.row(int((codes < 0).argmax()))}{more};"
            " fill it in"
        )
    # In the order of the rows: the order of categories may differ.
    codes[codes >= 0], order = pd.factorize(codes[codes >= 0])
    return Column(codes.astype(np.int64), tuple(str(once[code]) for code in order))


def quoted(text: str) -> str:
    """Return a text of the table in quotes, for a message: printable, and not too long."""
    text = shown(text)
    return f"'{text}'" if len(text) <= 60 else f"'{text[:40]}…{text[-19:]}'"


def _factorized(values: pd.Series) -> tuple[Ints, list[object]]:
    """Return the index of each value among the distinct values, -1 if missing, and those values."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return np.array(values.cat.codes, np.int64), list(values.cat.categories)
    # Not as a series: pandas would make an index of the texts, which need not be valid UTF-8.
    array = values.to_numpy() if values.dtype == object else values.array
    codes, distinct = pd.factorize(array)
    return np.array(codes, np.int64), list(distinct)


def _text(value: object) -> str:
    """Return a cell as text; 3.0 becomes 3, since a missing value makes a column of floats."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _similar(column: str, others: list[str], *, cutoff: float = 0.6) -> str | None:
    """Return the other column that may be meant by this one, None if there is none."""
    for name in _OTHER_NAMES[column]:
        if name in others:
            return name
    return nearest(column, others, cutoff=cutoff)
