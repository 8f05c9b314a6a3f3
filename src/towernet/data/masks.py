"""Masks among or beside their images: found by their names, confirmed by their pixels.

A mask is no example of its class: a network that is trained on both learns something else.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from towernet.data.decode import decode
from towernet.data.formats import BadImage
from towernet.data.rules import NOW
from towernet.data.split_names import is_masks
from towernet.data.table import path_bytes
from towernet.data.tree import folder_of
from towernet.data.workers import in_processes
from towernet.errors import DataError
from towernet.words import counted, shown

# As in 12_mask.png, 12mask.png, 12_mask_1.png, 12 (mask).png, 12_L.png and mask_12.png, of 12.png.
_MEANS_MASK = (
    "(?:mask|masks|seg|segmentation|segmented|label|labels|gt|groundtruth|ground_truth|annotation|"
    "annotations|annotated|trimap|contour)"
)
_BETWEEN = r"[\s_.(\[-]"
_NAMED = re.compile(
    rf"(.+?)(?:{_BETWEEN}+|(?<=\d))(?:{_MEANS_MASK}(?:[\s_.-]*\d+)?|(?-i:L))[)\]]?$", re.IGNORECASE
)
_LED = re.compile(rf"[(\[]?{_MEANS_MASK}(?:[\s_.)\]-]+(?:of[\s_.-]+)?|(?=\d))(.+)$", re.IGNORECASE)
_WORDS = ("mask", "seg", "label", "gt", "truth", "annotat", "trimap", "contour", "_l.")
_LOSSLESS = {"png", "bmp", "gif", "tif", "tiff", "pgm", "pbm"}
_NUM_EXAMINED = 8
_NUM_WORDS = 4
_FEW_COLOURS = 8
_FEW_SHARE = 0.95
"""So much of a mask's area has its most frequent colours; JPEG adds others along the edges."""


class Mask(NamedTuple):
    """A file that looks like the mask of another one."""

    path: str
    image: str


def masks_among(paths: Sequence[str], location: Callable[[str], Path]) -> list[Mask]:
    """Return the masks among the images of classes.

    Args:
        paths: The files in class folders.
        location: Returns where the bytes of one are.
    """
    paths = _worth_a_look(paths)
    in_folders = _in_mask_folders(paths)
    others = {mask.path for mask in in_folders}
    rest = [path for path in paths if path not in others]
    beside: list[Mask] = []
    for kind in (*_beside(rest), _in_folders_of_a_class(rest)):
        if kind and _are_masks(kind, location):
            beside += kind
    return sorted([*in_folders, *beside], key=lambda mask: path_bytes(mask.path))


def refuse_masks(masks: Sequence[Mask], name: str) -> DataError:
    """Return the question what to do with masks."""
    first = masks[0]
    verb = "file looks like a mask" if len(masks) == 1 else "files look like masks"
    return DataError(
        f"{len(masks):,} {verb} of other images in {name} (the first is {shown(first.path)}, of"
        f" {shown(first.image)}); leave {'it' if len(masks) == 1 else 'them'} out with --masks"
        " ignore, or use them as images of their class with --masks keep"
    )


def _worth_a_look(paths: Sequence[str]) -> list[str]:
    """Return the paths in folders with names of masks, or with files of two kinds.

    There may be a million files, and usually none is a mask.
    """
    named: set[str] = set()
    kinds: set[tuple[str, bool]] = set()
    for path in paths:
        folder = folder_of(path)
        kinds.add((folder, _is_lossless(path)))
        if folder not in named and any(word in path.lower() for word in _WORDS):
            named.add(folder)
    mixed = {folder for folder, lossless in kinds if lossless and (folder, False) in kinds}
    above = {one for folder in named for one in _two_above(folder)}
    return [
        path
        for path in paths
        if (folder := folder_of(path)) in named
        or folder in mixed
        or (named and not above.isdisjoint((folder, *_two_above(folder))))
    ]


def _two_above(folder: str) -> tuple[str, str]:
    """Return the folder that a folder is in, and the one above that."""
    above = folder_of(folder[:-1])
    return above, folder_of(above[:-1])


def _stem(path: str) -> str:
    name = path[path.rfind("/") + 1 :]
    return name.rpartition(".")[0] or name


def _plain(stem: str) -> str:
    """Return a stem without the words that mean a mask."""
    found = _NAMED.match(stem) or _LED.match(stem)
    return found[1] if found else stem


def _in_mask_folders(paths: Sequence[str]) -> list[Mask]:
    """Return files in folders such as `masks/` or `masks/cat/` if most are named like an image."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        folders[folder_of(path)].append(path)
    without = {
        folder: "".join(part for part in _parts(folder) if not is_masks(part[:-1]))
        for folder in folders
    }
    of_masks = {folder: rest for folder, rest in without.items() if rest != folder}
    if not of_masks:
        return []
    images: dict[tuple[str, str], str] = {}
    for folder, files in folders.items():
        if folder not in of_masks:
            # Next to the folder of masks, or in one next to it.
            parts = _parts(folder)
            near = {folder, *("".join(parts[:i] + parts[i + 1 :]) for i in range(len(parts)))}
            for path in files:
                for one in near:
                    images.setdefault((one, _stem(path)), path)
    found: list[Mask] = []
    for folder, rest in of_masks.items():
        pairs = [
            Mask(path, image)
            for path in folders[folder]
            if (image := images.get((rest, _stem(path))) or images.get((rest, _plain(_stem(path)))))
        ]
        if 2 * len(pairs) >= len(folders[folder]):
            of = {pair.path: pair.image for pair in pairs}
            found += [Mask(path, of.get(path, pairs[0].image)) for path in folders[folder]]
    return found


def _parts(folder: str) -> list[str]:
    """Return the names in a path of folders, each with its '/'."""
    return [f"{name}/" for name in folder.split("/")[:-1]]


def _in_folders_of_a_class(paths: Sequence[str]) -> list[Mask]:
    """Return files in folders such as `cat_masks/` if most are named like one in `cat/`."""
    files_of: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for path in paths:
        files_of[folder_of(path)][_stem(path)] = path
    found: list[Mask] = []
    for folder, files in files_of.items():
        above, name = folder_of(folder[:-1]), folder[:-1].rpartition("/")[2]
        images = files_of.get(f"{above}{_plain(name)}/")
        if not images or _plain(name) == name:
            continue
        of = {stem: images.get(stem) or images.get(_plain(stem)) for stem in files}
        pairs = [Mask(files[stem], image) for stem, image in of.items() if image]
        if 2 * len(pairs) >= len(files):
            found += [Mask(path, of[stem] or pairs[0].image) for stem, path in files.items()]
    return found


def _beside(paths: Sequence[str]) -> list[list[Mask]]:
    """Return pairs in one folder, by kind: 1_mask.png of 1.jpg, 1.png and 1_any word.png of it."""
    files_of: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for path in paths:
        files_of[folder_of(path), _stem(path)].append(path)
    named: list[Mask] = []
    same: list[Mask] = []
    by_word: defaultdict[str, list[Mask]] = defaultdict(list)
    for (folder, stem), files in files_of.items():
        plain = _plain(stem)
        if plain != stem and (images := files_of.get((folder, plain))):
            named += [Mask(file, images[0]) for file in files]
        elif len(files) == 2:
            image, mask = sorted(files, key=_is_lossless)
            if not _is_lossless(image) and _is_lossless(mask):
                same.append(Mask(mask, image))
        elif _is_lossless(files[0]):
            for end in reversed([found.start() for found in re.finditer(_BETWEEN, stem)]):
                images = files_of.get((folder, stem[:end]))
                if images and not _is_lossless(images[0]):
                    by_word[re.sub(r"\d+", "", stem[end:])].append(Mask(files[0], images[0]))
                    break
    others = sorted(by_word.values(), key=len, reverse=True)
    return [named, same, *others[:_NUM_WORDS]]


def _is_lossless(path: str) -> bool:
    return path.rpartition(".")[2].lower() in _LOSSLESS


def _are_masks(pairs: Sequence[Mask], location: Callable[[str], Path]) -> bool:
    """Whether most of the first files of pairs have few colours and their images have not."""
    step = -(-len(pairs) // _NUM_EXAMINED)
    some = pairs[::step]
    files = [location(path) for pair in some for path in pair]
    few: dict[int, bool] = {}
    for position, answer in in_processes(has_few_colours, files, workers=1):
        few[position] = answer is True
    confirmed = sum(few[2 * i] and not few[2 * i + 1] for i in range(len(some)))
    return 2 * confirmed > len(some)


def has_few_colours(file: Path, max_bytes: int) -> bool:
    """Whether an image has only some colours, as masks do; False if it cannot be decoded.

    Raises:
        MemoryError: decoding takes more than `max_bytes`.
    """
    try:
        if file.stat().st_size > max_bytes:
            return False
        decoded = decode(file.read_bytes(), NOW, max_bytes=max_bytes)
    except (OSError, BadImage):
        return False
    pixels = decoded.pixels.reshape(-1, 3).astype(np.int64) >> 4
    _, counts = np.unique(pixels @ np.array([256, 16, 1]), return_counts=True)
    most = np.sort(counts)[-_FEW_COLOURS:].sum()
    return bool(most >= _FEW_SHARE * len(pixels))


def words_of_masks(masks: Sequence[Mask]) -> str:
    """Return how many masks are left out, for the sentence about reading."""
    return f"{counted(len(masks), 'mask')} {'is' if len(masks) == 1 else 'are'} left out"
