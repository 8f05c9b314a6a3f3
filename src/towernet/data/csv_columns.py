"""Which columns of a table hold the images' paths and their classes.

The documented names are `path` and `label`; other usual names are recognised where only one column
has such a name. Where that is not certain the user is asked, with the columns by name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from towernet.data.split_names import roles_of
from towernet.errors import DataError
from towernet.registry import nearest
from towernet.words import composed, listed, shown, some_listed

PATH, LABEL, SPLIT, GROUP = "path", "label", "split", "group"
_PATHS = (
    {
        "path", "paths", "filepath", "filepaths", "filename", "filenames", "file", "files", "image",
        "images", "img", "imgs", "imagepath", "imagepaths", "imgpath", "imagename", "imgname",
        "imagefile", "imgfile", "imagefilename", "imagefilepath", "relativepath", "relpath",
        "picture", "photo",
    },
    {"imageid", "imgid", "fileid", "photoid", "isicid", "idcode", "id", "name", "uuid"},
)  # fmt: skip
_LABELS = (
    {
        "label", "labels", "class", "classes", "classname", "classnames", "classlabel", "labelname",
        "category", "categories", "categoryname", "target", "species", "breed", "diagnosis", "dx",
        "variety", "cultivar", "disease", "emotion", "expression", "y",
    },
    {"classid", "labelid", "categoryid", "targetid", "speciesid", "level", "grade", "type", "kind"},
)  # fmt: skip
_SPLITS = {"split", "set", "subset", "dataset", "partition", "phase", "fold"}
# (pandas writes False and True.)
_ONE, _ZERO = (re.compile(rf"{n}([.,]0*)?|{word}", re.I) for n, word in ((1, "true"), (0, "false")))


class Columns(NamedTuple):
    """Where each part of a row is.

    Args:
        names: Of the columns, as written.
        path: Number of the column.
        label: Number of the column; -1 if each class has its own column.
        one_hot: The columns of the classes.
        split: Number of the column, -1 if there is none.
        group: Number of the column, -1 if there is none.
        has_header: The first line has the names.
    """

    names: tuple[str, ...]
    path: int
    label: int
    one_hot: tuple[int, ...] = ()
    split: int = -1
    group: int = -1
    has_header: bool = True

    @property
    def unused(self) -> list[str]:
        """The names of the columns that are not read."""
        used = {self.path, self.label, self.split, self.group, *self.one_hot}
        return [
            shown(name) if name else f"no. {number + 1}"
            for number, name in enumerate(self.names)
            if number not in used
        ]


class Sample(NamedTuple):
    """The first rows of a table, with its name for messages."""

    table: str
    header: list[str]
    rows: list[list[str]]
    exists: Callable[[str], bool]


@functools.lru_cache(1000)
def split_of(cell: str) -> str | None:
    """Return the split that a cell names, '' for none; None if it names no split.

    Example:
        >>> split_of("Testing"), split_of("dev"), split_of(" "), split_of("car")
        ('test', 'validation', '', None)
    """
    name = cell.strip()
    return roles_of([name]).get(name) if name else ""


def plain(name: str) -> str:
    """Return a column's name without case, blanks and underscores."""
    return re.sub(r"[\s_.-]+", "", name).casefold()


def num_roles(header: Sequence[str], asked: Sequence[str | None]) -> int:
    """Return how many of path and label a header has columns for."""
    names = {plain(name) for name in header}
    return sum(
        plain(want) in names if want else not names.isdisjoint({*usual[0], *usual[1]})
        for want, usual in zip(asked, (_PATHS, _LABELS), strict=True)
    )


def choose(sample: Sample, image_column: str | None, label_column: str | None) -> Columns:
    """Decide which column is which.

    Raises:
        DataError: several columns could be meant, or none.
    """
    names = tuple(composed(name.strip()) for name in sample.header)
    found = [plain(name) for name in names]
    if not (image_column or label_column or num_roles(names, (None, None))) and (
        without := _without_header(sample)
    ):
        return without
    documented = PATH in found and LABEL in found
    path = _asked(sample, names, image_column, "--image-column") if image_column else -1
    label = _asked(sample, names, label_column, "--label-column") if label_column else -1
    if path < 0:
        path = _usual(sample, names, PATH, _PATHS, documented, not_this=label)
    if label < 0:
        label = _usual(sample, names, LABEL, _LABELS, documented, not_this=path)
    others = [number for number, name in enumerate(names) if name and number not in (path, label)]
    if path < 0 and label >= 0 and len(others) == 1 and _exist(sample, others[0]):
        path, others = others[0], []
    split = group = -1
    for number in others:
        if found[number] == GROUP:
            group = number
        elif found[number] == SPLIT or (split < 0 and _are_splits(sample, number, found[number])):
            split = number
    others = [number for number in others if number not in (split, group)]
    one_hot: tuple[int, ...] = ()
    if path >= 0 and label < 0:
        one_hot = _one_hot(sample, names, others)
        if not one_hot and len(others) == 1:
            label = others[0]
    if path < 0 or (label < 0 and not one_hot):
        raise _absent(sample, names, path, label)
    for number in (path, label):
        if number >= 0 and names.count(names[number]) > 1:
            raise DataError(
                f"{sample.table} has the column {shown(names[number])} more than once; rename one"
            )
    return Columns(names, path, label, one_hot, split, group)


def _asked(sample: Sample, names: Sequence[str], wanted: str, option: str) -> int:
    want = composed(wanted.strip())
    for same in (str, plain):
        fitting = [number for number, name in enumerate(names) if same(name) == same(want)]
        if len(fitting) == 1:
            return fitting[0]
    near = nearest(want, [name for name in names if name])
    hint = f" (did you mean '{shown(near)}'?)" if near else ""
    raise DataError(
        f"{sample.table} has no column '{shown(wanted)}'{hint}; its columns are"
        f" {some_listed([name for name in names if name])}: name one of them with {option}"
    )


def _usual(
    sample: Sample,
    names: Sequence[str],
    role: str,
    usual: Sequence[set[str]],
    documented: bool,
    *,
    not_this: int,
) -> int:
    """Return the one column with a usual name; -1 if there is none."""
    found = [plain(name) for name in names]
    if documented and found.count(role) == 1:
        return found.index(role)
    for group in usual:
        fitting = [
            number for number, name in enumerate(found) if name in group and number != not_this
        ]
        if role == PATH and len(fitting) > 1:
            fitting = [number for number in fitting if _exist(sample, number)] or fitting
        if len({names[number] for number in fitting}) > 1:
            option = "--image-column" if role == PATH else "--label-column"
            what = "the images' paths" if role == PATH else "the classes"
            several = listed([shown(names[number]) for number in fitting])
            raise DataError(
                f"{sample.table} has the columns {several}, and each could have {what}; name one"
                f" with {option}, for example {option} {shown(names[fitting[0]])}"
            )
        if fitting:
            return fitting[0]
    return -1


def _cells(sample: Sample, number: int) -> list[str]:
    return [row[number].strip() for row in sample.rows if number < len(row)]


def _exist(sample: Sample, number: int) -> bool:
    """Whether the first cells of a column name files."""
    cells = [cell for cell in _cells(sample, number)[:20] if cell]
    return bool(cells) and sum(map(sample.exists, cells)) * 2 > len(cells)


def _are_splits(sample: Sample, number: int, name: str) -> bool:
    return name in _SPLITS and all(split_of(cell) is not None for cell in _cells(sample, number))


def _one_hot(sample: Sample, names: Sequence[str], others: Sequence[int]) -> tuple[int, ...]:
    """Return the columns that have 0 or 1, or False or True, in each row; there must be two."""
    found = []
    for number in others:
        cells = _cells(sample, number)
        is_flag = all(_ONE.fullmatch(cell) or _ZERO.fullmatch(cell) for cell in cells)
        is_split = re.search("train|valid|test", names[number], re.IGNORECASE)
        if cells and is_flag and not is_split:
            found.append(number)
    return tuple(found) if len(found) > 1 else ()


def class_of(columns: Columns, cells: Sequence[str]) -> list[str]:
    """Return the classes that a row with one column per class marks with 1.

    Raises:
        ValueError: a cell is none of these; the argument is the column's name.
    """
    marked = []
    for number in columns.one_hot:
        cell = cells[number].strip()
        if _ONE.fullmatch(cell):
            marked.append(columns.names[number])
        elif not _ZERO.fullmatch(cell):
            raise ValueError(columns.names[number])
    return marked


def _without_header(sample: Sample) -> Columns | None:
    """Return the columns of a table without a header line, where its cells leave no doubt."""
    first = sample.header
    paths = [number for number, cell in enumerate(first) if sample.exists(cell.strip())]
    others = [number for number in range(len(first)) if number not in paths and first[number]]
    if len(paths) != 1 or len(others) != 1:
        return None
    names = tuple(f"no. {number + 1}" for number in range(len(first)))
    return Columns(names, paths[0], others[0], has_header=False)


def _absent(sample: Sample, names: Sequence[str], path: int, label: int) -> DataError:
    absent = [role for role, number in ((PATH, path), (LABEL, label)) if number < 0]
    options = [
        f"--{'image' if role == PATH else 'label'}-column"
        for role, number in ((PATH, path), (LABEL, label))
        if number < 0
    ]
    first = shown(", ".join(names))
    first = first if len(first) <= 80 else f"{first[:79]}…"
    how = f", or name the columns with {listed(options)}" if len(names) > 1 else ""
    return DataError(
        f"{sample.table} has no column {' and no column '.join(absent)} (its first line is"
        f" '{first}'); add the header line path,label{how}"
    )
