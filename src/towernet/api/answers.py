"""Judging predictions, whatever program made them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from towernet import files
from towernet.api.tables import as_text, differences_of, ranking_of
from towernet.choices import require_margin
from towernet.comparison.answers.folder import require_free, write_judgement
from towernet.comparison.answers.judged import judge_answers
from towernet.comparison.answers.table import read_answers
from towernet.records.judgement import AnswersJudged


@dataclass(frozen=True, repr=False)
class Judgement:
    """What somebody's answers are worth; in a notebook it shows itself.

    `judged` is all that was found.
    """

    judged: AnswersJudged

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        return self.judged.sentence

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a careful reader should know beside the verdict."""
        return self.judged.remarks

    @property
    def ranking(self) -> pd.DataFrame:
        """The networks, by accuracy.

        Columns: `rank`, `network`, `accuracy` with its 95 % interval from `low` to `high`.
        """
        return ranking_of(self.judged)

    @property
    def differences(self) -> pd.DataFrame:
        """Every pair of networks.

        Columns: `first`, `second`, `difference` of their accuracies with its 95 % interval from
        `low` to `high`, `p_adjusted` and the `answer`.
        """
        return differences_of(self.judged)

    def __repr__(self) -> str:
        return as_text(self.verdict, self.ranking)

    def _repr_html_(self) -> str:
        from towernet.report.notebook import judged_html

        return judged_html(self.judged)


def judge(
    answers: pd.DataFrame | str | Path,
    *,
    equal_within: float = 0.5,
    title: str | None = None,
    out: str | Path | None = None,
) -> Judgement:
    """Say which networks are better than which, by the answers they gave for the same images.

    Args:
        answers: A table, or a CSV or Parquet file of one, with a row for each answer. `network`,
            `run` and `image` say whose it is, in which of its trainings, and for what; `right` (1
            or 0) or `label` and `answer` say whether it is right. Images with the same `group`
            belong together, as near duplicates do, and count as one; an empty one is none.
            Whatever else the table has is not read. Runs are compared in pairs: run 0 of each
            network is one training on the same images.
        equal_within: Accuracies within so many percentage points count as equal.
        title: What the answers are called in the report; else as their file is.
        out: A folder to write `judgement.json`, `results.csv`, `runs.csv`, `differences.csv` and
            `report.html` into.

    Raises:
        DataError: the table cannot be judged; the message names the row, network, run or image.
        ConfigError: equal_within is out of range, or the folder holds something else.

    Example:
        >>> table = pd.DataFrame(
        ...     {
        ...         "network": ["a"] * 50 + ["b"] * 50,
        ...         "run": 0,
        ...         "image": [*range(50), *range(50)],
        ...         "right": [True] * 80 + [False] * 20,
        ...     }
        ... )
        >>> judge(table).differences.loc[0, "answer"]
        'better'
    """
    require_margin(equal_within)
    if title is None:
        title = "a table" if isinstance(answers, pd.DataFrame) else Path(answers).name
    folder = None if out is None else Path(out)
    if folder is not None:
        require_free(folder)
    table = read_answers(answers)
    judged = judge_answers(table, title=title, equal_within=equal_within / 100)
    if folder is not None:
        _write(folder, judged)
    return Judgement(judged)


def _write(folder: Path, judged: AnswersJudged) -> None:
    from towernet.report.answers import write_answers_report

    with files.lock(folder / "lock", holder=str(folder)):
        require_free(folder)  # somebody else may have come first
        write_judgement(folder, judged)
        write_answers_report(folder, judged)
