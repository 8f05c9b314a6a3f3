"""Why a tree of folders cannot be read with certainty, each in one sentence with the ways out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from towernet.data.folders import Folder
from towernet.data.split_names import role_in
from towernet.data.table import SPLITS, TEST, TRAIN, path_bytes
from towernet.errors import DataError
from towernet.registry import nearest
from towernet.words import counted, listed, shown, some_listed

_LEADING_WORD = re.compile(r"(.*?[^\W\d_].*?)[\W_]*\d+$")


class Data:
    """The data that is refused.

    Args:
        name: Of the data, as shown.
        paths: All files that may be images.
        find_list: Returns the CSV in it that lists its images, '' if there is none.
    """

    def __init__(self, name: str, paths: Sequence[str], find_list: Callable[[], str]) -> None:
        self.name, self.paths, self.find_list = name, paths, find_list

    def no_classes(self, *, split: bool, where: str = "") -> DataError:
        """There is no folder that could be a class."""
        example = "photos/train" if split else "photos"
        todo = f"make one sub-folder per class, such as {example}/cat/1.jpg and {example}/dog/1.jpg"
        if not self.paths:
            return DataError(f"{self.name} contains no files; {todo}")
        paths = [path for path in self.paths if path.startswith(where)]
        first = some_listed(sorted(paths, key=path_bytes), most=3)
        found = (
            f"{self.name} contains {counted(len(paths), 'file')}"
            f"{f' in {shown(where)}' if where else ''} ({first}) and no class folders"
        )
        if listed_in := self.find_list():
            return DataError(f"{found}, but {listed_in}")
        if words := leading_words(paths):
            found += (
                f"; the names begin with {counted(len(words), 'word')} ({some_listed(words, 5)})"
            )
            todo += ", or write a CSV with the columns path,label"
        return DataError(f"{found}; {todo}")

    def no_folder(self, given: str, top: Folder, *, empty: bool) -> DataError:
        """A folder of --splits is not there."""
        names = [sub.name for sub in top.image_subs]
        near = nearest(given, names)
        hint = f" Did you mean '{shown(near)}'?" if near and not empty else ""
        found = "contains no images" if empty else "does not exist"
        return DataError(
            f"--splits names the folder {shown(given)}, which {found} in {self.name}.{hint}"
            f" The folders there: {some_listed(sorted(names, key=path_bytes)) or 'none'}"
        )

    def inside(self, one: str, other: str) -> DataError:
        """A folder of --splits contains another."""
        return DataError(
            f"--splits names {shown(one)}, which is inside {shown(other)}, another split; give"
            " folders that are not inside each other"
        )

    def no_splits(self, top: Folder) -> DataError:
        """The layout of splits is given and no folder is named like one."""
        found = some_listed(sorted((sub.name for sub in top.image_subs), key=path_bytes), most=5)
        return DataError(
            f"{self.name} cannot be read as splits: its top level contains {found or 'no folders'}"
            " instead of train, validation and test; omit --layout, or name the folders with"
            " --splits train=FOLDER,test=FOLDER"
        )

    def like_splits(self, subs: Sequence[Folder], what: str) -> DataError:
        """Folders have names like splits, and it is uncertain whether they are."""
        folders = some_listed([f"{sub.name}/" for sub in subs], most=6)
        return DataError(f"{self.name} contains {folders}: {what}; {ways_out(subs)}")

    def flat_splits(self, splits: Sequence[Folder], beside: Sequence[Folder]) -> DataError:
        """Folders named like splits contain no class folders, and others are beside them."""
        names, one = [f"{sub.name}/" for sub in splits], len(splits) == 1
        return DataError(
            f"in {self.name}, {listed([*map(shown, names)])}"
            f" {'is named like a split and has' if one else 'are named like splits and have'} no"
            f" class folders, and beside {'it' if one else 'them'} there are"
            f" {some_listed([f'{sub.name}/' for sub in beside], most=5)}; pass --layout classes if"
            f" all of these are classes, or move {'it' if one else 'them'} out of {self.name}"
        )

    def only_in(self, split: Folder, classes: Sequence[Folder], reference: Folder) -> DataError:
        """A split has classes that the training split does not have."""
        names = sorted((sub.name for sub in classes), key=path_bytes)
        num = sum(sub.total for sub in classes)
        s, it = ("", "it has") if len(names) == 1 else ("es", "they have")
        return DataError(
            f"{self.name} has the class{s} {some_listed(names)} ({counted(num, 'file')}) in"
            f" {shown(split.path)} and not in {shown(reference.path)}: {it} nothing to learn from;"
            f" add images of {'it' if len(names) == 1 else 'them'} to {shown(reference.path)}, move"
            f" {'that folder' if len(names) == 1 else 'those folders'} away, leave the split out"
            f" with --splits {reference.name}={reference.name}, or, if"
            f" {shown(split.name)} and {shown(reference.name)} are classes, pass --layout classes"
        )

    def repeated(
        self, classes: Mapping[str, Sequence[Folder]], names: Sequence[str], *, split: bool
    ) -> DataError:
        """Class folders contain sub-folders of the same names."""
        todo = ways_out([folders[0] for folders in classes.values()])
        if split:
            todo = (
                "pass --layout leaves if the deepest folders are the classes, or --layout splits if"
                f" {_some(list(classes))} are"
            )
        return DataError(
            f"{self.name} contains {_some(list(classes))}, and each of them contains the same"
            f" folders ({some_listed(names, most=3)}); {todo}"
        )

    def nested(
        self, classes: Mapping[str, Sequence[str]], num: int, num_below: int, *, split: bool
    ) -> DataError:
        """Class folders contain folders and no images of their own."""
        inner = [name for names in classes.values() for name in names]
        return DataError(
            f"in {self.name} each of {_some(list(classes))} holds only folders"
            f" ({some_listed(inner, most=3)}): for these {num:,} as the classes give --layout"
            f" {'splits' if split else 'classes'}; for the {num_below:,} folders below give"
            " --layout leaves"
        )

    def parts(self, names: Sequence[str]) -> DataError:
        """The class folders look like parts of one folder."""
        listed_in = self.find_list()
        hint = f"; {listed_in}" if listed_in else ""
        return DataError(
            f"{self.name} contains {_some(names)}, which look like parts of one folder and not like"
            f" classes{hint}; make one sub-folder per class, or pass --layout classes if they are"
        )


def _some(names: Sequence[str]) -> str:
    return some_listed(names, most=5) if len(names) > 5 else listed([*map(shown, names)])


def ways_out(subs: Sequence[Folder]) -> str:
    """Name the options that decide what folders are."""
    return (
        f"pass --splits {suggested_splits([sub.name for sub in subs])} if they are splits, --layout"
        " leaves if the deepest folders are the classes, or --layout classes if"
        f" {_some([sub.name for sub in subs])} are"
    )


def suggested_splits(names: Sequence[str]) -> str:
    """Return a value for --splits: by the words in the names where there are any.

    Example:
        >>> suggested_splits(["rps", "rps-test-set"]), suggested_splits(["2019", "2020"])
        ('train=rps,test=rps-test-set', 'train=2019,test=2020')
    """
    chosen: dict[str, str] = {}
    for name in names:
        if role := role_in(name)[0]:
            chosen.setdefault(role, name)
    rest = [name for name in names if name not in chosen.values()]
    for split in (TRAIN, TEST) if not chosen else (TRAIN,):
        if split not in chosen and rest:
            chosen[split] = rest.pop(0)
    return ",".join(f"{split}={shown(chosen[split])}" for split in SPLITS if split in chosen)


def leading_words(paths: Sequence[str]) -> list[str]:
    """Return the words that numbered file names begin with, if they look like classes.

    Example:
        >>> leading_words(["cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg"])
        ['cat', 'dog']
    """
    stems = [path.rpartition("/")[2].rpartition(".")[0] for path in paths]
    found = [match[1] for match in map(_LEADING_WORD.match, stems) if match]
    words = Counter(found)
    if len(found) < 0.9 * len(paths) or not 2 <= len(words) <= len(found) / 2:
        return []
    return sorted(words, key=path_bytes)
