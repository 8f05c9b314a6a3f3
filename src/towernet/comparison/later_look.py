"""Test images looked at after the end: not before it, and each time written into the ledger.

A test split that is looked at often becomes one that is chosen by.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from towernet import files
from towernet.engine.runlog import Progress
from towernet.errors import DataError
from towernet.records.ledger import LaterLook, Ledger
from towernet.records.run import ImportedRun, RunRecord


def ledger_folder(folder: Path) -> Path:
    """Return the comparison that a run is part of, or the run itself."""
    comparison = folder.resolve().parent.parent
    return comparison if (comparison / "protocol.toml").exists() else folder


def require_open(folder: Path, record: RunRecord | ImportedRun, progress: Progress) -> None:
    """Refuse to look at test images before the end; meet a ledger that cannot be written now.

    Raises:
        DataError: the comparison, or the run alone, is not finished.
        EnvironmentFault: the ledger cannot be written.
    """
    place = ledger_folder(folder)
    if not (place / "results.json").exists():
        if place != folder:
            todo = "its comparison has ended; say the command of that again"
        elif isinstance(record, RunRecord) and record.origin.data is not None:  # trained alone
            todo = f"it is finished; go on with it by: towernet train --resume {folder}"
        else:
            todo = "its comparison has ended, and it lies outside; give it where that is"
        raise DataError(
            f"some of these images are test images of {folder} and stay locked until {todo}, or ask"
            " about others (--split validation)"
        )
    # Here, so that a folder that cannot be written is met before the work.
    with _ledger(place, progress):
        pass


def note_look(folder: Path, num_images: int, progress: Progress) -> int:
    """Write down that test images were looked at; return how often that was done since the end."""
    place = ledger_folder(folder)
    run = folder.resolve().relative_to(place.resolve()).as_posix()
    with _ledger(place, progress) as ledger:
        ledger.add(LaterLook(run=run, num_images=num_images, date=files.now()))
        return ledger.count(LaterLook)


@contextlib.contextmanager
def _ledger(folder: Path, progress: Progress) -> Iterator[Ledger]:
    """Read a folder's ledger and hold its lock."""
    with files.lock(folder / "lock", holder=str(folder), wait=True, say=progress.say):
        yield Ledger(folder / "ledger.jsonl")
