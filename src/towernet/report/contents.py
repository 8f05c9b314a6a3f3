"""Everything the report's templates print, read from a comparison's or a run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from towernet.comparison.wording.paper import paragraph
from towernet.comparison.wording.verdict import worth_using
from towernet.data.leaks import leak_words
from towernet.data.table import read_table
from towernet.engine.runlog import read_metrics
from towernet.records.ledger import LaterLook, Ledger
from towernet.records.results import (
    AllMeasured,
    Conclusion,
    LearningCurve,
    Made,
    Network,
    Results,
    Suspect,
)
from towernet.report import tables
from towernet.report.blocks import Ablation, ablation_section
from towernet.report.curves import (
    Cost,
    Growth,
    TrainingCurves,
    cost_section,
    growth_section,
    has_decoding,
    training_curves,
)
from towernet.report.first_screen import FirstScreen, first_screen
from towernet.report.images import DataCard, Sample, data_card, gallery
from towernet.report.networks import NetworkSection, Picture, network_sections, thumbnail
from towernet.report.shots import ShotsSection, shots_section
from towernet.report.starts import StartsSection, starts_section

_SUSPECTS_SHOWN = 24


@dataclass(frozen=True)
class Contents:
    """What is on the page, section by section; a section that is None is left out.

    Args:
        screen: The first screen.
        results: All that is exact.
        measured: What was timed.
        made: By what, where and when.
        machine: What the machine was, by name.
        ranked: The networks that are, best first.
        unranked: The others.
        scale: The ends of the scale on which scores are drawn.
        pair_scale: The same of differences.
        ablation: What attention did.
        cost: Accuracy against time.
        growth: Accuracy against images.
        details: Every network's own section.
        suspects: Labels that look wrong, each with its picture as a data URI or None.
        data: The images in numbers.
        gallery: One image of each class, with its picture as the suspects have it.
        curves: Training curves.
        rates: All learning rates that were tried.
        paper: A paragraph for a paper.
        later_looks: How often the test images were evaluated after the end.
        worth_using: Whether any network is better than guessing.
        has_files: Whether the tables are next to the page.
        leaks: A sentence for each pair of given splits with copies in both.
        starts: What each network knew before; None where none knew anything.
        shots: Every network on few images of each class; None where that was not asked for.
        has_decoding: Whether times for an image include decoding it.
        smaller_first: The networks that began with smaller images.
    """

    screen: FirstScreen
    results: Results
    measured: AllMeasured
    made: Made
    machine: tuple[tuple[str, str], ...]
    ranked: tuple[Network, ...]
    unranked: tuple[Network, ...]
    scale: tuple[float, float]
    pair_scale: tuple[float, float]
    ablation: Ablation | None
    cost: Cost | None
    growth: Growth | None
    details: tuple[NetworkSection, ...]
    suspects: tuple[tuple[Suspect, str | None], ...]
    data: DataCard
    gallery: tuple[tuple[Sample, str | None], ...]
    curves: TrainingCurves | None
    rates: tuple[float, ...]
    paper: str | None
    later_looks: int
    worth_using: bool
    has_files: bool
    leaks: tuple[str, ...]
    starts: StartsSection | None
    shots: ShotsSection | None
    has_decoding: bool
    smaller_first: tuple[str, ...]


def contents_of(folder: Path, conclusion: Conclusion, picture: Picture) -> Contents:
    """Gather what the page of a folder says.

    Args:
        folder: Holds `samples.parquet` and the runs.
        conclusion: What its `results.json` says.
        picture: As `write_report` takes it.

    Raises:
        DataError: a file of the folder is missing or damaged.
    """
    results, measured, made = conclusion.results, conclusion.measured, conclusion.made
    networks, curve = results.networks, results.learning_curve
    ranked = tuple(network for network in networks if network.status == "ranked")
    table = read_table(folder / "samples.parquet")
    later_looks = Ledger(folder / "ledger.jsonl").count(LaterLook)
    metrics = [[read_metrics(folder / run.folder) for run in network.runs] for network in networks]
    own_code = results.winner.name.own_code if results.winner else {}
    trusting = "".join(f"{variable}={path} " for variable, path in own_code.items())
    return Contents(
        screen=first_screen(results, metrics, trusting, measured.times),
        results=results,
        measured=measured,
        made=made,
        machine=tables.machine(made.hardware),
        ranked=ranked,
        unranked=tuple(network for network in networks if network.status != "ranked"),
        scale=tables.score_scale(ranked, results.guessing, results.measure),
        pair_scale=tables.difference_scale(results.comparisons),
        ablation=ablation_section(results, measured.networks),
        cost=cost_section(results, measured.networks),
        growth=growth_section(curve, results.measure) if isinstance(curve, LearningCurve) else None,
        details=tuple(network_sections(folder, networks, results.class_names, picture)),
        suspects=tuple(
            (suspect, thumbnail(picture, suspect.path))
            for suspect in results.suspects[:_SUSPECTS_SHOWN]
        ),
        data=data_card(table),
        gallery=tuple(
            (sample, thumbnail(picture, sample.path))
            for sample in gallery(table, seed=results.seed)
        ),
        curves=training_curves([n.name for n in networks], metrics, results.measure),
        rates=tuple(sorted({trial.learning_rate for n in networks for trial in n.trials})),
        paper=(
            paragraph(results, made, measured.times, later_looks=later_looks)
            if results.kind == "comparison"
            else None
        ),
        later_looks=later_looks,
        worth_using=worth_using(results),
        has_files=(folder / "paper.tex").exists(),
        leaks=tuple(leak_words(results.leaks)),
        starts=starts_section(results, measured.networks),
        shots=shots_section(results),
        has_decoding=results.has_starts and has_decoding(ranked, measured.networks),
        smaller_first=tuple(
            network.name
            for network in networks
            if network.first_size_px < (network.size_px or results.size_px)
        ),
    )
