"""Which options about reading images have an effect on which kind of data."""

from __future__ import annotations

from towernet.data.encodings import AS_BEFORE
from towernet.errors import ConfigError
from towernet.records.reading import DEFAULT, Reading
from towernet.words import listed, shown

FOLDER, ARCHIVE, CSV, BUILT_IN = "a folder", "an archive", "a CSV", "built in"
_FOR = {
    "layout": (FOLDER, ARCHIVE),
    "splits": (FOLDER, ARCHIVE),
    "skip_empty": (FOLDER, ARCHIVE),
    "follow_links": (FOLDER,),
    "masks": (FOLDER, ARCHIVE),
    "encoding": (ARCHIVE, CSV),
    "image_column": (CSV,),
    "label_column": (CSV,),
    "max_archive_gb": (ARCHIVE,),
    "max_archive_entries": (ARCHIVE,),
}
_INSTEAD = {
    ("splits", CSV): ", and write the split of each image into a column `split`",
    ("image_column", FOLDER): ", or pass the CSV itself",
    ("label_column", FOLDER): ", or pass the CSV itself",
}
# What a run made before there were these options is read with, whatever its data are.
_OF_BEFORE = ("layout", "skip_empty", "masks", "encoding", "max_archive_gb", "max_archive_entries")


def require_effect(reading: Reading, data: str, kind: str) -> None:
    """Refuse options that have no effect on this data.

    Args:
        reading: The options.
        data: What the user passed.
        kind: FOLDER, ARCHIVE, CSV or BUILT_IN.

    Raises:
        ConfigError: naming the first of them.
    """
    for name, kinds in _FOR.items():
        value = getattr(reading, name)
        if value == AS_BEFORE or (name in _OF_BEFORE and reading.encoding == AS_BEFORE):
            continue
        if value != getattr(DEFAULT, name) and kind not in kinds:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{option} is for {listed(kinds, 'or')}, and {shown(data)} is {kind}; leave it"
                f" out{_INSTEAD.get((name, kind), '')}"
            )
