"""Judge the predictions of any program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from towernet import files
from towernet.api.tables import as_text, differences_of, ranking_of
from towernet.choices import known_measure, require_kind, require_margin
from towernet.comparison.answers.folder import require_free, write_judgement
from towernet.comparison.answers.judged import judge_answers
from towernet.comparison.answers.table import read_answers
from towernet.errors import DataError
from towernet.records.judgement import AnswersJudged
from towernet.registry import unknown_name


@dataclass(frozen=True, repr=False)
class Judgement:
    """The judgement of a table of predictions; a notebook shows it as a table.

    `judged` contains all results.
    """

    judged: AnswersJudged

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        return self.judged.sentence

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a careful reader should know in addition to the verdict."""
        return self.judged.remarks

    @property
    def ranking(self) -> pd.DataFrame:
        """The networks, in order.

        Columns: `rank`, `network`, `accuracy` with its 95 % interval from `low` to `high`; if the
        classes are known, `balanced_accuracy` from `balanced_low` to `balanced_high`.
        """
        return ranking_of(self.judged)

    @property
    def differences(self) -> pd.DataFrame:
        """Every pair of networks.

        Columns: `first`, `second`, `difference` of their accuracies or balanced accuracies with its
        95 % interval from `low` to `high`, `p_adjusted` and the `answer`.
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
    measure: str = "accuracy",
    against: str | None = None,
    title: str | None = None,
    out: str | Path | None = None,
) -> Judgement:
    """Report which networks are better, based on their predictions for the same images.

    Args:
        answers: A table, or a CSV or Parquet file, with one row per prediction. The columns
            `network`, `run` and `image` identify it; `right` (1 or 0), or `label` and `answer`,
            give whether it is right. Images with the same `group` belong together, such as near
            duplicates, and count as one; an empty `group` means none. Other columns are ignored.
            Runs are compared in pairs: run 0 of each network must be trained on the same images.
        equal_within: Accuracies within this many percentage points count as equal.
        measure: What is compared: "accuracy", or "balanced", the mean over the classes, for which
            the table needs a `label`.
        against: The only network to compare the others with; default: judge all pairs. Fewer pairs
            need fewer runs.
        title: Title of the report; default: the name of the file.
        out: A folder to write `judgement.json`, `results.csv`, `runs.csv`, `differences.csv` and
            `report.html` into.

    Raises:
        DataError: the table cannot be judged; the message names the row, network, run or image.
        ConfigError: equal_within is out of range, there is no such measure or network, or the
            folder contains something else.

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
    require_kind("against", against, "str | None")
    wanted = known_measure(measure)
    if title is None:
        title = "a table" if isinstance(answers, pd.DataFrame) else Path(answers).name
    folder = None if out is None else Path(out)
    if folder is not None:
        require_free(folder)
    table = read_answers(answers)
    if wanted == "balanced" and table.label_N is None:
        raise DataError(
            f"{title} has no column 'label', so the classes for --measure balanced are unknown; add"
            " the column, or leave out --measure"
        )
    if against is not None and against not in table.networks:
        raise unknown_name("network", against, table.networks)
    judged = judge_answers(
        table,
        title=title,
        equal_within=equal_within / 100,
        measure=wanted,
        against=against,
    )
    if folder is not None:
        _write(folder, judged)
    return Judgement(judged)


def _write(folder: Path, judged: AnswersJudged) -> None:
    from towernet.report.answers import write_answers_report

    with files.lock(folder / "lock", holder=str(folder)):
        require_free(folder)  # another process may have written to it
        write_judgement(folder, judged)
        write_answers_report(folder, judged)
