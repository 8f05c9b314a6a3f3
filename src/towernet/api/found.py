"""Finished comparisons and trained runs, for reading and for use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack

import pandas as pd

from towernet import choices
from towernet.api.options import open_images
from towernet.api.tables import as_text, differences_of, ranking_of
from towernet.choices import ReadingOptions
from towernet.comparison.answers.export import answers_table
from towernet.comparison.conclusion import finished
from towernet.comparison.evaluation import evaluate, open_predictor
from towernet.data.pictures import find_pictures
from towernet.errors import ConfigError, DataError
from towernet.names import NetworkName
from towernet.predict import TRAIN_AGAIN, Predictor, load_run, predict_classes
from towernet.progress import screen
from towernet.records.evaluation import Evaluation
from towernet.records.prediction import NoPrediction
from towernet.records.results import AllMeasured, Conclusion, Made, Results
from towernet.records.run import read_run
from towernet.words import shown


class Run:
    """A trained network, ready to predict.

    Args:
        folder: The folder of the run.

    Raises:
        DataError: the folder contains no run, or a damaged one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder = Path(folder)
        self.name: NetworkName = read_run(folder, todo=TRAIN_AGAIN).config.model

    def __repr__(self) -> str:
        return f"<towernet run of {self.name} in {shown(str(self.folder))}>"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names, in the order of the network's outputs."""
        return self._predictor.contract.class_names

    def predict(
        self,
        images: str | Path | Sequence[str | Path],
        *,
        on_error: Literal["raise", "leave_out"] = "raise",
    ) -> pd.DataFrame:
        """Predict the class of each image.

        Args:
            images: A folder with images at any depth, or a list of image files and folders.
            on_error: For files that cannot be used: raise an error for the first one, or leave
                out each.

        Returns:
            One row per image: `file`, `class_name`, `probability` in [0, 1], and `sure`: whether
            the probability reaches the run's threshold; None if the run is not calibrated.

        Raises:
            DataError: an image cannot be used, or the run's weights were changed.
            ConfigError: `images` is the name of a file instead of a list.
        """
        if isinstance(images, str | Path):
            if not Path(images).is_dir():
                raise ConfigError(f"images is '{images}'; give a list of files: ['{images}']")
            images = [images]
        rows = []
        pictures = find_pictures([Path(image) for image in images])
        for row in predict_classes(self._predictor, pictures):
            if isinstance(row, NoPrediction):
                if on_error == "raise":
                    raise DataError(row.error)
                continue
            (best,) = row.predictions
            rows.append((row.path, best.class_name, best.probability, row.sure))
        names = ["file", "class_name", "probability", "sure"]
        # Names may not be UTF-8, which pandas' string type requires.
        table = pd.DataFrame(rows, columns=names, dtype=object)
        return table.astype({"probability": float})

    @choices.with_reading
    def evaluate(
        self,
        data: str | Path,
        *,
        split: str = "unseen",
        workers: int | None = None,
        **reading: Unpack[ReadingOptions],
    ) -> Evaluation:
        """Measure its accuracy on labelled images, in total and per class.

        Each evaluation on test images is recorded in the ledger and mentioned in the remarks:
        images used for evaluation often end up being used for choices.

        Args:
            data: As for `towernet.compare`.
            split: Which images: "unseen" (used neither to train it nor to choose its epoch),
                "test", "validation", "train" or "all".
            workers: Decoding processes; default: one per core.
            **reading: As for `towernet.compare`; default: as the run's images were read, if these
                are the run's.

        Raises:
            DataError: no image is left, or one has a class that the network does not know.
        """
        progress, num_workers = screen(), choices.num_workers(workers)
        predictor = open_predictor(self.folder, say=progress.say)
        source = open_images(predictor, str(data), reading, progress)
        report, _ = evaluate(predictor, source, split=split, workers=num_workers, progress=progress)
        return report

    @cached_property
    def _predictor(self) -> Predictor:
        return load_run(self.folder)


class Comparison:
    """A finished comparison; a notebook shows it as a table.

    Args:
        folder: The folder of the comparison, or of a single run (a comparison of one network).

    `conclusion` is the content of `results.json`.

    Raises:
        DataError: the folder contains no finished comparison, or a damaged one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder = Path(folder)
        conclusion = finished(folder) if folder.is_dir() else None
        if conclusion is None:
            raise DataError(
                f"{folder} contains no finished comparison or run; give the folder of one, or rerun"
                " the command that started it"
            )
        self.conclusion: Conclusion = conclusion

    @property
    def results(self) -> Results:
        """The exact results; they are the same in every repetition."""
        return self.conclusion.results

    @property
    def measured(self) -> AllMeasured:
        """The measured times."""
        return self.conclusion.measured

    @property
    def made(self) -> Made:
        """The versions, machine and time it was made with."""
        return self.conclusion.made

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        return self.results.sentence

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a careful reader should know in addition to the verdict."""
        cheapest = self.measured.cheapest
        return (*self.results.remarks, *([] if cheapest is None else [cheapest]))

    @property
    def ranking(self) -> pd.DataFrame:
        """The networks; the ranked ones come first.

        Columns: `rank`, `network`, `accuracy` with its 95 % interval from `low` to `high`,
        `balanced_accuracy` with its interval from `balanced_low` to `balanced_high`,
        `macro_f1`, `parameters`, `multiply_adds`, `epochs` (missing if only a last layer was
        fitted), `training_seconds`, and for one image `latency_ms` of the network and `decode_ms`.
        """
        networks, measured = self.results.networks, self.measured.networks
        timed = [measured[network.name] for network in networks]
        return ranking_of(self.results).assign(
            macro_f1=pd.array([network.macro_f1 for network in networks], dtype="Float64"),
            parameters=[network.parameters for network in networks],
            multiply_adds=[network.multiply_adds for network in networks],
            epochs=pd.array([n.trained(n.epochs) for n in networks], dtype="Float64"),
            training_seconds=[of.training_seconds for of in timed],
            latency_ms=pd.array([of.latency_ms for of in timed], dtype="Float64"),
            decode_ms=pd.array([of.decode_ms for of in timed], dtype="Float64"),
        )

    @property
    def differences(self) -> pd.DataFrame:
        """Every pair of networks that was judged.

        Columns: `first`, `second`, `difference` of their accuracies or balanced accuracies with its
        95 % interval from `low` to `high`, `p_adjusted` and the `answer`.
        """
        return differences_of(self.results)

    def answers(self) -> pd.DataFrame:
        """Return the predictions of every run of the ranked networks for the final images.

        One row per prediction, with the columns `network`, `run`, `image`, `label`, `answer` and
        `group`, which near duplicates share: the table that `towernet.judge` reads.

        Raises:
            DataError: a run's predictions are missing or damaged.
        """
        return answers_table(self.folder, self.results)

    @property
    def winner(self) -> Run:
        """The run to use, chosen on validation images; a single run is its own winner.

        Raises:
            DataError: no network could be ranked.
        """
        winner = self.results.winner
        if winner is not None:
            return Run(self.folder / winner.folder)
        if self.results.kind == "run" and self.runs:
            return self.runs[0]
        raise DataError(
            f"no network in {self.folder} learned enough to be ranked; compare for more epochs or"
            " minutes, into another folder"
        )

    @property
    def runs(self) -> list[Run]:
        """Every run of every network, in the order of the ranking."""
        return [
            Run(self.folder / run.folder)
            for network in self.results.networks
            for run in network.runs
        ]

    @property
    def report(self) -> Path:
        """The path of the report, an HTML page."""
        return self.folder / "report.html"

    def __repr__(self) -> str:
        return as_text(" ".join([self.verdict, *self._unequal_times]), self.ranking)

    def _repr_html_(self) -> str:
        from towernet.report.notebook import judged_html

        return judged_html(self.results, self._unequal_times)

    @property
    def _unequal_times(self) -> tuple[str, ...]:
        times = self.measured.times
        return () if times is None or not times.differ else (times.sentence,)


def load(folder: str | Path) -> Comparison:
    """Read a finished comparison, or a finished single run, from its folder.

    Raises:
        DataError: the folder contains none, or a damaged one.

    Example:
        >>> load("runs/no-such-folder")
        Traceback (most recent call last):
        ...
        towernet.errors.DataError: runs/no-such-folder contains no finished comparison or run; \
give the folder of one, or rerun the command that started it
    """
    return Comparison(Path(folder))
