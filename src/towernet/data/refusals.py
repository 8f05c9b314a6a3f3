"""Why a tree of folders cannot be read with certainty, each in one sentence with the ways out."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from towernet.data.folders import Folder, class_level, leaves
from towernet.data.split_names import role_in, roles_of
from towernet.data.table import SPLITS, TEST, TRAIN, VALIDATION, path_bytes
from towernet.data.tree import FOLLOW_ALL, Ignored
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
        links: The symbolic links that are not followed.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[str],
        find_list: Callable[[], str],
        links: Sequence[Ignored] = (),
    ) -> None:
        self.name, self.paths, self.find_list, self.links = name, paths, find_list, links

    def links_words(self, links: Sequence[Ignored]) -> str:
        """Say how many links are not followed, and how they are."""
        first, one = min(links), len(links) == 1
        can = any(FOLLOW_ALL in link.detail for link in links)
        how = (
            f"give {FOLLOW_ALL} to read what {'it points' if one else 'they point'} to"
            if can
            else f"{shown(first.path)} is {first.detail}"
        )
        return (
            f"{counted(len(links), 'symbolic link')} {'is' if one else 'are'} not followed"
            f" ({'it' if one else 'the first'} is {shown(first.path)}); {how}"
        )

    def empty(self, names: Sequence[str], top: str) -> DataError:
        """Class folders contain no files."""
        links = [
            link
            for link in self.links
            if any(f"/{name}/" in f"/{link.path.removeprefix(top)}" for name in names)
        ]
        verb = "is an empty class folder" if len(names) == 1 else "are empty class folders"
        todo = f"{self.links_words(links)}," if links else "add images,"
        return DataError(
            f"{some_listed(names, most=5)} in {self.name} {verb}{':' if links else ';'} {todo} or"
            " leave out empty folders with --skip-empty"
        )

    def no_classes(
        self, *, split: bool, where: str = "", named: Sequence[Folder] = ()
    ) -> DataError:
        """There is no folder that could be a class; those `named` like splits hold the images."""
        example = "photos/train" if split else "photos"
        todo = f"make one sub-folder per class, such as {example}/cat/1.jpg and {example}/dog/1.jpg"
        if not self.paths and self.links:
            return DataError(f"{self.name} contains no files: {self.links_words(self.links)}")
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
        if named and all(sub.own for sub in named):
            todo += (
                f", or pass --layout classes if {_some([sub.name for sub in named])} are classes"
            )
        if self.links:
            todo += f"; {self.links_words(self.links)}"
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

    def unnamed_splits(
        self, splits: Sequence[tuple[str, str]], same: Sequence[Folder]
    ) -> DataError:
        """Beside splits there are folders with the same class folders."""
        names = sorted((f"{sub.name}/" for sub in same), key=path_bytes)
        missing = [split for split in SPLITS if split not in {one for one, _ in splits}]
        chosen = [*splits, (missing[-1] if missing else TRAIN, "FOLDER")]
        one = len(names) == 1
        return DataError(
            f"in {self.name}, {_some(names)} {'contains' if one else 'contain'} the same class"
            f" folders as {listed([f'{shown(name)}/' for _, name in splits])}, and"
            f" {'its name means' if one else 'their names mean'} no split: name the folders of each"
            f" split with --splits {splits_option(chosen)} (several of one split are"
            f" FOLDER+FOLDER), or leave {'it' if one else 'them'} out with --layout splits"
        )

    def variants(self, found: Mapping[str, str], *, split: bool) -> DataError:
        """Class folders have the names of others and a word more, such as cat_augmented."""
        names = sorted(found, key=path_bytes)
        pairs = [f"{name} beside {found[name]}" for name in names]
        it = "it is a class" if len(names) == 1 else "these are classes"
        return DataError(
            f"{self.name} has {_some(pairs)}: the same class, or another one; move"
            f" {'that folder' if len(names) == 1 else 'those folders'} into"
            f" {shown(found[names[0]])}{' and so on' if len(names) > 1 else ''}, or away, or, if"
            f" {it} of {'its' if len(names) == 1 else 'their'} own, pass --layout"
            f" {'splits' if split else 'classes'}"
        )

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

    def only_in(
        self,
        split: Folder,
        classes: Sequence[Folder],
        others: Sequence[tuple[str, Folder]],
        trained: str,
        known: Sequence[Folder],
    ) -> DataError:
        """A split has classes that the training split does not have.

        Args:
            split: Its folder.
            classes: Those that only it has.
            others: The folders of the other splits.
            trained: The split that must have every class.
            known: Its class folders.
        """
        names = sorted((sub.name for sub in classes), key=path_bytes)
        there = sorted({sub.name for sub in known}, key=path_bytes)
        if any(name != name.strip() for name in (*names, *there)):
            names, there = ([f"'{name}'" for name in some] for some in (names, there))
        num = sum(sub.total for sub in classes)
        s, it = ("", "it has") if len(names) == 1 else ("es", "they have")
        references = [folder for one, folder in others if one == trained]
        where = listed([shown(folder.path) for folder in references])
        chosen = splits_option([(one, folder.path[:-1]) for one, folder in others])
        are = listed([shown(folder.name) for folder in (split, *references)])
        return DataError(
            f"{self.name} has the class{s} {some_listed(names)} ({counted(num, 'file')}) in"
            f" {shown(split.path)} and not in {where} (there:"
            f" {some_listed(there, most=5)}): {it} nothing to learn from;"
            f" add images of {'it' if len(names) == 1 else 'them'} to {where}, move"
            f" {'that folder' if len(names) == 1 else 'those folders'} away, leave the split out"
            f" with --splits {chosen}, or, if {are} are classes, pass --layout classes"
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
        self, classes: Mapping[str, Sequence[str]], below: Collection[str], *, split: bool
    ) -> DataError:
        """Class folders contain folders and no images of their own.

        Args:
            classes: Of each such folder, the folders in it.
            below: The classes if the deepest folders are the classes.
            split: Whether they are in splits.
        """
        inner = list(dict.fromkeys(name for names in classes.values() for name in names))
        tops = sorted(classes, key=path_bytes)
        apart = [name for name in below if name not in inner]
        merged = ""
        if apart and not split and len(inner) < len(below):
            merged = (
                f" (folders of the same name as one class: --splits"
                f" {splits_option([(TRAIN, name) for name in tops])})"
            )
        return DataError(
            f"in {self.name} each of {_some(tops)} holds only folders"
            f" ({some_listed(inner, most=3)}): for these {len(classes):,} as the classes give"
            f" --layout {'splits' if split else 'classes'}; for the {len(below):,} folders below"
            f" give --layout leaves{merged}"
        )

    def own_splits(self, sets: Sequence[Folder], subs: Sequence[Folder]) -> DataError:
        """Folders contain splits of their own, and class folders below them."""
        chosen: list[tuple[str, str]] = []
        rest = []
        for one in subs:
            inside = []
            for level in (class_level(one), one):
                names = [sub.name for sub in level.image_subs]
                if roles := roles_of(names):
                    unnamed = [name for name in names if name not in roles]
                    if len(unnamed) == 1 and TRAIN not in roles.values():
                        roles[unnamed[0]] = TRAIN
                inside += [(role, f"{level.path}{name}") for name, role in roles.items()]
            chosen += dict.fromkeys(inside)
            rest += [] if inside else [one.name]
        left_out = f" (without {some_listed(rest, most=3)})" if rest else ""
        example = f"{self.name}/{sets[0].path[:-1]}"
        below = next(
            leaf for leaf in leaves(sets[0]) if leaf.path.count("/") > sets[0].path.count("/") + 1
        )
        return DataError(
            f"{self.name} contains {_some([sub.name for sub in sets])} with splits of"
            f" {'its' if len(sets) == 1 else 'their'} own, and class folders below these"
            f" ({shown(below.path)}): for all of them as one data set pass --splits"
            f" {splits_option(chosen)}{left_out}; for one of them pass its path, such as"
            f" {shown(example)}; --layout leaves makes the deepest folders the classes and --layout"
            f" classes {_some([sub.name for sub in subs])}, both without these splits"
        )

    def leaves_are_splits(self, names: Sequence[str]) -> DataError:
        """With --layout leaves, the classes would be the splits."""
        return DataError(
            f"the deepest folders of {self.name} are called {_some(names)}, like splits; omit"
            " --layout leaves if they are splits, or rename them if they are classes"
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
    names = [sub.name for sub in subs]
    suggested, rest = suggested_splits(names)
    if not rest:
        are = "if they are splits"
    elif "FOLDER" in suggested:
        are = "if they are splits (several folders of one split are FOLDER+FOLDER)"
    else:
        are = f"if the others ({some_listed(rest, most=3)}) are to be left out"
    return (
        f"pass --splits {suggested} {are}, --layout leaves if the deepest folders are the classes,"
        f" or --layout classes if {_some(names)} are"
    )


def suggested_splits(names: Sequence[str]) -> tuple[str, list[str]]:
    """Return a value for --splits, by the words in the names, and the names it does not use.

    Example:
        >>> suggested_splits(["rps", "rps-test-set"]), suggested_splits(["2019", "2020"])
        (('train=rps,test=rps-test-set', []), ('train=FOLDER,test=FOLDER', ['2019', '2020']))
    """
    found = [(role_in(name)[0], name) for name in names]
    rest = [name for role, name in found if not role]
    chosen = [(role, name) for role, name in found if role]
    roles = {role for role, _ in chosen}
    if chosen and len(rest) == 1 and TRAIN not in roles:
        return splits_option([(TRAIN, rest[0]), *chosen]), []
    if not chosen:
        chosen = [(TRAIN, "FOLDER"), (TEST, "FOLDER")]
    elif TRAIN not in roles and not rest and VALIDATION in roles:  # development beside test
        chosen = [(TRAIN if role == VALIDATION else role, name) for role, name in chosen]
    elif TRAIN not in roles:
        chosen = [(TRAIN, "FOLDER"), *chosen]
    return splits_option(chosen), rest


def splits_option(chosen: Sequence[tuple[str, str]]) -> str:
    """Return (split, folder) pairs as a value for --splits.

    Example:
        >>> splits_option([("test", "c"), ("train", "a"), ("train", "b")])
        'train=a+b,test=c'
    """
    value = ",".join(
        f"{split}={'+'.join(shown(name) for one, name in chosen if one == split)}"
        for split in SPLITS
        if any(one == split for one, _ in chosen)
    )
    return shlex.quote(value)


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
