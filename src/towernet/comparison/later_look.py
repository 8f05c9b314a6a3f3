"""Later evaluations on test images: only after the comparison has ended, each one in the ledger.

A test split that is evaluated often is soon used to choose a network.
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
    """Return the folder of the comparison that a run is part of, or of the run itself."""
    comparison = folder.resolve().parent.parent
    return comparison if (comparison / "protocol.toml").exists() else folder


def require_open(folder: Path, record: RunRecord | ImportedRun, progress: Progress) -> None:
    """Refuse to evaluate test images before the end; check now that the ledger can be written.

    Raises:
        DataError: the comparison, or the single run, is not finished.
        EnvironmentFault: the ledger cannot be written.
    """
    place = ledger_folder(folder)
    if not (place / "results.json").exists():
        if place != folder:
            why = "whose comparison is not finished; rerun its command to finish it"
        elif isinstance(record, RunRecord) and record.is_single_run:
            why = f"which is not finished; resume it with: towernet train --resume {folder}"
        else:
            why = "which is outside the folder of its comparison; pass it from there"
        raise DataError(
            f"some of these images are test images of {folder}, {why}, or use --split validation"
        )
    # Now, so that a folder that cannot be written is detected before the work.
    with _ledger(place, progress):
        pass


def record_later_look(folder: Path, num_images: int, progress: Progress) -> int:
    """Record an evaluation on test images; return how many there were since the end."""
    place = ledger_folder(folder)
    run = folder.resolve().relative_to(place.resolve()).as_posix()
    with _ledger(place, progress) as ledger:
        ledger.add(LaterLook(run=run, num_images=num_images, date=files.now()))
        return ledger.count(LaterLook)


@contextlib.contextmanager
def _ledger(folder: Path, progress: Progress) -> Iterator[Ledger]:
    """Read a folder's ledger while holding its lock."""
    with files.lock(folder / "lock", holder=str(folder), wait=True, say=progress.say):
        yield Ledger(folder / "ledger.jsonl")
