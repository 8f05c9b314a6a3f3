"""The files of a judgement."""

from __future__ import annotations

from pathlib import Path

from towernet import files
from towernet.comparison.csv_files import write_judged_csv_files
from towernet.errors import ConfigError
from towernet.records.judgement import AnswersJudged
from towernet.words import shown

JUDGEMENT_FILE = "judgement.json"


def require_free(folder: Path) -> None:
    """Refuse a folder with other content: a comparison's folder has files of the same names.

    Raises:
        ConfigError: the folder contains something else, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {shown(str(folder))} is a file; choose a folder")
    if not files.is_empty(folder) and not (folder / JUDGEMENT_FILE).exists():
        raise ConfigError(
            f"--out {shown(str(folder))} is not empty and contains no judgement; choose a new"
            " folder"
        )


def write_judgement(folder: Path, judged: AnswersJudged) -> None:
    """Write `judgement.json`, and its tables as CSV: `results.csv`, `runs.csv`, `differences.csv`.

    Raises:
        EnvironmentFault: a file cannot be written.
    """
    # Remove the files of an earlier judgement first: no report must be next to other figures.
    for name in ("report.html", "results.csv", "runs.csv", "differences.csv"):
        files.remove(folder / name)
    # Then the record, by which the folder is recognised.
    files.write_json(folder / JUDGEMENT_FILE, judged.model_dump())
    write_judged_csv_files(folder, judged)
