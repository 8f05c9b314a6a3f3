"""From the files of a folder or an archive to their layout, and what of them is left out."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from towernet.data.encodings import AS_BEFORE
from towernet.data.folders import has_ending
from towernet.data.kinds import Kinds, list_of_images, suffix_of
from towernet.data.layout import Layout, read_layout
from towernet.data.masks import masks_among, refuse_masks, words_of_masks
from towernet.data.split_folders import NO_CLASS_FOLDERS
from towernet.data.tree import Ignored, folder_of
from towernet.records.reading import Reading
from towernet.words import shown

_BESIDE = "not in a class folder, and not an image by its name"


def interpret(
    name: str,
    kinds: Kinds,
    folders: Sequence[str],
    reading: Reading,
    min_classes: int,
    location: Callable[[str], Path],
    where: Path | None = None,
    unreadable: Sequence[str] = (),
    links: Sequence[Ignored] = (),
) -> tuple[Layout, Kinds]:
    """Return the layout of the files found, and the files without the masks that are left out.

    Args:
        name: Of the data, for messages.
        kinds: The files.
        folders: All folders that are not hidden.
        reading: The options.
        min_classes: See `read_layout`.
        location: Returns where the bytes of a file are.
        where: The folder they are in; None for an archive.
        unreadable: Files that have no location.
        links: The symbolic links that are not followed.

    Raises:
        DataError: the folders or files could be read in several ways, or not at all.
    """

    def find_list() -> str:
        """Describe what to do with a CSV that lists the images."""
        listed_in = list_of_images(kinds, location)
        if listed_in and where:
            file = shown(str(where / listed_in))
            return f"{shown(listed_in)} lists them: towernet check {shlex.quote(file)}"
        todo = "unpack the archive and pass that file"
        return f"{shown(listed_in)} lists them: {todo}" if listed_in else ""

    def read(kinds: Kinds) -> Layout:
        return read_layout(
            [*kinds.images, *unreadable],
            folders,
            name=name,
            others=[*kinds.others, *kinds.masks],
            layout=reading.layout,
            splits=reading.splits,
            skip_empty=reading.skip_empty,
            min_classes=min_classes,
            find_list=find_list,
            links=links,
        )

    found = read(kinds)
    if reading.masks in ("keep", AS_BEFORE):
        return found, kinds
    in_classes = [path for path in kinds.images if found.place(path).class_name]
    masks = masks_among(in_classes, location)
    if not masks:
        return found, kinds
    if reading.masks is None:
        raise refuse_masks(masks, name)
    of = dict(masks)
    kinds = kinds._replace(images=[path for path in kinds.images if path not in of], masks=of)
    found = read(kinds)
    return found._replace(reading=f"{found.reading}; {words_of_masks(masks)}"), kinds


def without_others(kinds: Kinds, read: Layout, ignored: list[Ignored]) -> list[str]:
    """Return the files to check; add the others to `ignored`, each with its reason."""
    for path in kinds.others:
        if read.place(path).class_name:
            detail = f"an annotation or a note ({suffix_of(path)}), not an image"
            ignored.append(Ignored(path, "ANNOTATION", detail))
        else:
            ignored.append(Ignored(path, "NOT_AN_IMAGE", _BESIDE))
    for path, image in kinds.masks.items():
        ignored.append(Ignored(path, "MASK", f"a mask of {image}"))
    paths = []
    places = {folder: read.places.get(folder) for folder in set(map(folder_of, kinds.images))}
    for path in kinds.images:
        place = places[folder_of(path)]
        if place and place.left_out:
            reason = "NO_CLASS_FOLDERS" if place.left_out == NO_CLASS_FOLDERS else "LEFT_OUT"
            detail = f"in a folder that is not used: {place.left_out}"
            ignored.append(Ignored(path, reason, detail))
        elif not (place and place.class_name) and not has_ending(path):
            ignored.append(Ignored(path, "NOT_AN_IMAGE", _BESIDE))
        else:
            paths.append(path)
    return paths
