"""What was made of somebody's answers, as files."""

from __future__ import annotations

from pathlib import Path

from towernet import files
from towernet.comparison.csv_files import write_judged_csv_files
from towernet.errors import ConfigError
from towernet.records.judgement import AnswersJudged
from towernet.words import shown

JUDGEMENT_FILE = "judgement.json"


def require_free(folder: Path) -> None:
    """Refuse a folder that holds something else: a comparison's has files of the same names.

    Raises:
        ConfigError: naming it.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {shown(str(folder))} is a file; name a folder")
    if not files.is_empty(folder) and not (folder / JUDGEMENT_FILE).exists():
        raise ConfigError(
            f"--out {shown(str(folder))} holds something else, and no judgement; name a new folder"
        )


def write_judgement(folder: Path, judged: AnswersJudged) -> None:
    """Write `judgement.json`, and its tables as CSV: `results.csv`, `runs.csv`, `differences.csv`.

    Raises:
        EnvironmentFault: they cannot be written.
    """
    # What is of an earlier judgement goes first: no page stands beside another's figures.
    for name in ("report.html", "results.csv", "runs.csv", "differences.csv"):
        files.remove(folder / name)
    # Then the record, since the folder is known by it.
    files.write_json(folder / JUDGEMENT_FILE, judged.model_dump())
    write_judged_csv_files(folder, judged)
