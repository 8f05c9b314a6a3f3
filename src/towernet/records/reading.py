"""How images are found and read: one group of options, the same for every verb that reads images.

Recorded in each run and protocol, so that resuming, evaluating and predicting read the same files
in the same way.
"""

from __future__ import annotations

from dataclasses import fields

from pydantic import ConfigDict, StrictBool, StrictFloat, StrictInt
from pydantic.dataclasses import dataclass

from towernet.records.base import Text


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Reading:
    """How images are found and read; a run without it was made before these rules existed.

    Args:
        layout: What the top-level folders are: "classes", "splits", "leaves" (the deepest folders
            are the classes), or "auto" (detect).
        splits: Which folder is which split, as "train=Training,test=Testing".
        skip_empty: Leave out classes without files.
        min_images: Leave out classes with fewer usable images.
        follow_links: Follow symbolic links: those to files "inside" the folder, or "all"; None: no.
        masks: Masks in the same folder as their images: "ignore" or "keep" them; None: ask.
        encoding: Of the names in a zip, or of a CSV; None: guessed if they are not UTF-8.
        image_column: The CSV's column with the images' paths; None: one of the usual names.
        label_column: The CSV's column with the classes; None: one of the usual names.
        white_level: Value of 16-bit, 32-bit and float images that becomes white; None: the end of
            the smallest usual range with all values of the images outside the test split.
        max_megapixels: The most pixels of an image, in millions; None: the default limits.
        max_archive_gb: Unpack an archive of up to this many GB; None: the default limits.
        max_archive_entries: Unpack an archive of up to this many entries; None: the default limit.
    """

    layout: str = "auto"
    splits: Text | None = None
    skip_empty: StrictBool = False
    min_images: StrictInt | None = None
    follow_links: str | None = None
    masks: str | None = None
    encoding: Text | None = None
    image_column: Text | None = None
    label_column: Text | None = None
    white_level: StrictFloat | StrictInt | None = None
    max_megapixels: StrictFloat | StrictInt | None = None
    max_archive_gb: StrictFloat | StrictInt | None = None
    max_archive_entries: StrictInt | None = None


DEFAULT = Reading()


def options_of(reading: Reading) -> list[str]:
    """Return the words on the command line that give these options.

    Example:
        >>> options_of(Reading(skip_empty=True, min_images=3))
        ['--skip-empty', '--min-images', '3']
    """
    words = []
    for each in fields(reading):
        if (value := getattr(reading, each.name)) != each.default:
            words.append(f"--{each.name.replace('_', '-')}")
            if value is not True:
                words.append(str(value).removesuffix(".0"))
    return words
