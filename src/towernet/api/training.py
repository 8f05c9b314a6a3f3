"""Compare and train from Python: every command-line option is a keyword of the same name."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from towernet import choices, contestants, files
from towernet.api.found import Comparison
from towernet.api.options import Options, open_data
from towernet.choices import ReadingOptions
from towernet.comparison.conclusion import finished
from towernet.comparison.folders import read_single_run, reading_before, request_of
from towernet.comparison.longer import refuse_another_length
from towernet.comparison.story import compare as run_comparison
from towernet.comparison.story import train_single_run
from towernet.config import built_in_recipes, keys_of, override
from towernet.data.encodings import AS_BEFORE
from towernet.data.ranges import rules_of
from towernet.data.rules import Rules, of_contract
from towernet.data.source import DIGITS, Source, name_of, where
from towernet.engine.checkpoint import require_weights
from towernet.engine.device import require_device
from towernet.engine.runlog import Progress
from towernet.engine.session import Session
from towernet.engine.stop import StopSwitch
from towernet.errors import ConfigError, DataError
from towernet.names import NetworkName
from towernet.progress import screen
from towernet.records.protocol import Request
from towernet.records.run import Origin, read_run
from towernet.report.page import write_report
from towernet.report.pictures import pictures
from towernet.resume import Accept
from towernet.starts.find import FoundWeights, at_hand, resolve
from towernet.starts.load import backbone
from towernet.words import listed, percent, shown

# The options that can be combined with `resume`; the others are read from the run.
_OF_RESUMING = frozenset({
    "data", "weights", "resume", "workers", "device", "threads", "accept_data_change",
    "accept_changes", "max_archive_gb", "max_archive_entries", "progress", "command",
})  # fmt: skip


@choices.with_reading
def compare(
    data: str | Path,
    *,
    models: str | Sequence[str] = choices.DEFAULT_MODELS,
    attention: str | Sequence[str] | None = None,
    starts: str | Sequence[str] | None = None,
    weights: str | Sequence[str] | Mapping[str, str | Path] | None = None,
    against: str | None = None,
    runs: int = 1,
    equal_within: float = 0.5,
    measure: str = "accuracy",
    learning_curve: bool = False,
    shots: str | int | Sequence[int] | None = None,
    recipe: str = "default",
    epochs: int | None = None,
    minutes: float | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    resize: str | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    out: str | Path | None = None,
    images_per_class: int | None = None,
    no_flip: bool = False,
    workers: int | None = None,
    accept_data_change: bool = False,
    accept_changes: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
    command: str | None = None,
    **reading: Unpack[ReadingOptions],
) -> Comparison:
    """Train several networks under the same protocol and report which is best.

    Repeat the same call to continue a stopped comparison, or to read a finished one.

    Args:
        data: A folder with one sub-folder of images per class, a zip or tar of it, a CSV with
            the columns path,label, or "digits" (built in).
        models: Names of networks; `towernet models` lists them.
        attention: Blocks: each network is trained without attention and with each block.
        starts: "scratch", "frozen" or "finetuned": each network is compared with each of these
            starts. Frozen: a new last layer on pre-trained weights. Finetuned: all layers go on.
        weights: Pre-trained weights of networks whose names end in /frozen or /finetuned, each as
            "NETWORK=FILE", or {"NETWORK": FILE}; default: those that `towernet weights` lists.
        against: The only one of the networks to compare the others with; default: judge all
            pairs. Fewer pairs need fewer runs.
        runs: Training runs per network, each with different weights and training images.
        equal_within: Accuracies within this many percentage points count as equal.
        measure: What chooses epochs, learning rates and the network, and what is compared:
            "accuracy", or "balanced", the mean over the classes, for classes of uneven sizes.
        learning_curve: Also train the best network on half and a quarter of the images.
        shots: Also train every network on so many training images of each class, such as [1, 5,
            20]: what each start gives with few images.
        recipe: "default", "quick", "notebook", or a .toml file.
        epochs: Passes over the training images; default: the recipe's.
        minutes: Minutes of training for each run; default: the recipe's.
        size: Side of the images in pixels; default: the recipe's.
        batch_size: Images per step; default: the recipe's.
        resize: How images are made square: "crop", "pad" or "squash"; default: the recipe's.
        seed: The same seed reproduces the result.
        device: "auto", "cpu", "cuda" or "mps".
        threads: Computing threads; default: one per core. Another number changes results
            slightly.
        out: Folder for the results; default: runs/compare-DATA.
        images_per_class: Use only this many images of each class, for a quick test.
        no_flip: Never mirror images; for images where left and right matter.
        workers: Decoding processes; default: one per core.
        accept_data_change: Continue although images were removed or added.
        accept_changes: Continue with other versions, threads or device.
        strict: Refuse a network if a place in it cannot take its attention block. By default
            that place stays as it is, which is said before the training.
        progress: Receives the progress; default: a progress bar, or lines in a file.
        command: Recorded as the command that made the results; default: this call.
        **reading: How images are found and read: the fields of `towernet.records.reading.Reading`.

    Raises:
        TowernetError: the choices, the images or the machine do not allow it.
        Interrupted: it was stopped; the same call continues.
    """
    given = _given(locals())
    options = Options.of(given)
    given_weights = contestants.weights_given(weights)
    named, without = contestants.with_starts(
        contestants.model_names(models),
        starts,
        lambda base: base in contestants.networks_of(given_weights) or at_hand(base),
    )
    names, blocks = contestants.with_attention(named, attention)
    compared_with = contestants.compared_with(against, names, blocks)
    few = contestants.shots_of(shots)
    choices.require_margin(equal_within)
    choices.require_blocks(names)
    require_device(device)
    found = resolve(names, given_weights)
    progress = progress or screen()
    if without is not None:
        progress.say(without)
    with StopSwitch() as stop:
        folder = choices.out_folder(out, data, "compare", name_of(str(data)))
        reading_used = options.reading
        if (folder / "protocol.toml").exists():
            reading_used = reading_before(folder, options.reading)
        source = open_data(data, replace(options, reading=reading_used), progress)
        request = options.request(
            source,
            names,
            attention=blocks,
            against=compared_with,
            runs=runs,
            equal_within=equal_within,
            learning_curve=learning_curve,
            shots=few,
            weights=found,
        )
        _require_networks(request, found, source, strict=strict, say=progress.say)
        origin = Origin(
            command=command or _call(compare, given.items()),
            source=source.reading,
            data=where(str(data)),
            # Earlier comparisons have their own rules.
            reading=None if reading_used.encoding == AS_BEFORE else options.reading,
            weights=given_weights or None,
        )
        session = _session(source, folder, origin, options, progress, stop, found)
        run_comparison(request, session)
        _write_report(session)
    return Comparison(folder)


@choices.with_reading
def train(
    data: str | Path | None = None,
    *,
    model: str = "towernet_patch",
    weights: str | Sequence[str] | Mapping[str, str | Path] | None = None,
    recipe: str = "default",
    epochs: int | None = None,
    minutes: float | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    resize: str | None = None,
    measure: str = "accuracy",
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    images_per_class: int | None = None,
    no_flip: bool = False,
    workers: int | None = None,
    accept_data_change: bool = False,
    accept_changes: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
    command: str | None = None,
    **reading: Unpack[ReadingOptions],
) -> Comparison:
    """Train one network; return a comparison of one network, whose `winner` is the run.

    Args:
        data: As for `compare`; not needed with `resume`.
        model: A network's name; `towernet models` lists them.
        weights: See `compare`.
        recipe: See `compare`.
        epochs: See `compare`.
        minutes: See `compare`.
        size: See `compare`.
        batch_size: See `compare`.
        resize: See `compare`.
        measure: See `compare`; here it chooses the epoch.
        seed: See `compare`.
        device: See `compare`.
        threads: See `compare`.
        out: Folder for the run; default: runs/DATA-MODEL.
        resume: Folder of a stopped run to continue, with exactly the same result.
        images_per_class: See `compare`.
        no_flip: See `compare`.
        workers: See `compare`.
        accept_data_change: With `resume`: see `compare`.
        accept_changes: With `resume`: see `compare`.
        strict: See `compare`.
        progress: See `compare`.
        command: See `compare`.
        **reading: See `compare`.

    Raises:
        TowernetError: the choices, the images or the machine do not allow it.
        Interrupted: it was stopped; `resume` continues.
    """
    given = _given(locals())
    options = Options.of(given)
    progress = progress or screen()
    if resume is None and data is None:
        raise ConfigError("no images are given; pass a folder of images, or --resume RUN")
    with StopSwitch() as stop:
        if resume is not None:
            folder = Path(resume)
            if epochs is not None or minutes is not None:
                record = read_single_run(folder)
                longer = override(
                    record.config.recipe, train={"epochs": epochs, "minutes": minutes}
                )
                refuse_another_length(folder, record.config.recipe, longer, record.origin.command)
            choices.require_defaults(train, given.items(), but=_OF_RESUMING)
            if weights is not None and (folder / "results.json").exists():
                raise ConfigError(
                    f"--weights has no effect with --resume, since {folder} is finished; leave it"
                    " out"
                )
            if not _is_complete(folder, progress):
                request, session = _resumed(folder, data, weights, options, progress, stop)
                train_single_run(request, session, resume=True)
                _write_report(session)
            return Comparison(folder)
        assert data is not None
        if not isinstance(model, str):
            raise ConfigError(f"model is {model!r}; give one name, such as 'towernet_patch'")
        network = NetworkName(model)
        choices.require_blocks((network,))
        if accept_data_change or accept_changes:
            raise ConfigError("--accept-data-change and --accept-changes only apply with --resume")
        source = open_data(data, options, progress)
        found = resolve((network,), contestants.weights_given(weights))
        request = options.request(source, (network,), weights=found)
        _require_networks(request, found, source, strict=strict, say=progress.say)
        folder = choices.out_folder(out, data, source.name, network.folder_name)
        origin = Origin(
            command=command or _call(train, given.items()),
            source=source.reading,
            data=where(str(data)),
            reading=options.reading,
            weights=contestants.weights_given(weights) or None,
        )
        if (folder / "results.json").exists():
            before = read_single_run(folder).config.recipe
            refuse_another_length(folder, before, request.recipe, origin.command)
        session = _session(source, folder, origin, options, progress, stop, found)
        train_single_run(request, session)
        _write_report(session)
    return Comparison(folder)


def _session(
    source: Source,
    folder: Path,
    origin: Origin,
    options: Options,
    progress: Progress,
    stop: StopSwitch,
    weights: Mapping[str, FoundWeights],
) -> Session:
    return Session(
        source=source,
        folder=folder,
        origin=origin,
        device=options.device,
        threads=options.threads,
        workers=choices.num_workers(options.workers),
        accept=Accept(options.accept_data_change, options.accept_changes),
        progress=progress,
        stop=stop,
        weights=weights,
    )


def _require_networks(
    request: Request,
    found: Mapping[str, FoundWeights],
    source: Source,
    *,
    strict: bool,
    say: Callable[[str], None],
) -> None:
    """Check that each network takes images of its size, and its weights; say what decides both."""
    for name in request.models:
        size_px = request.recipe_of(name).data.size_px
        choices.require_networks((name,), size_px, strict=strict, say=say)
    of_network = {name.base: name for name in request.models if name.start}
    for network, weights in found.items():
        for note in weights.notes:
            say(note)
        data = request.recipe_of(of_network[network]).data
        # Weights that do not fit are refused before the images are read, which may take long.
        backbone(weights, len(source.class_names), data.size_px)
        trained = weights.weights.input
        if trained.size_px != data.size_px:
            say(
                f"{network} gets images of {data.size_px} px, as --size says; its weights were"
                f" trained on {trained.size_px} px"
            )
        if trained.resize != data.resize:
            share = (
                f" of {percent(trained.crop_share)} of the side" if trained.crop_share < 1 else ""
            )
            say(
                f"{network} gets images made square by {data.resize}, as --resize says; its weights"
                f" were trained with {trained.resize}{share}"
            )
    if found and (words := _no_effect(request)) is not None:
        say(words)


def _no_effect(request: Request) -> str | None:
    """Say what a user's own recipe decides only for networks from scratch; None if nothing."""
    if request.recipe_name in built_in_recipes():
        return None
    own, written = request.recipe.data, keys_of(request.recipe_name)
    with_weights = [name for name in request.models if name.start]
    datas = [request.recipe_of(name).data for name in with_weights]
    keys = [
        f"data.{key}"
        for key in ("size_px", "resize", "normalise")
        if f"data.{key}" in written
        and any(getattr(data, key) != getattr(own, key) for data in datas)
    ]
    if not keys:
        return None
    have = "has" if len(keys) == 1 else "have"
    return (
        f"{listed(keys)} in {shown(request.recipe_name)} {have} no effect on"
        f" {listed(with_weights)}, whose weights bring their own; --size and --resize apply to all"
        " networks"
    )


def _resumed(
    folder: Path,
    data: str | Path | None,
    weights: str | Sequence[str] | Mapping[str, str | Path] | None,
    options: Options,
    progress: Progress,
    stop: StopSwitch,
) -> tuple[Request, Session]:
    """Return a single run's request and session, with its images or those in `data`.

    Raises:
        DataError: the folder contains no run, or the images are missing.
    """
    record = read_single_run(folder)
    origin, started_with = record.origin, record.origin.data
    assert started_with is not None, "a single run records it"
    if data is None and started_with != DIGITS and not Path(started_with).exists():
        raise DataError(
            f"{started_with} does not exist any more; give the folder of the images:"
            f" towernet train IMAGES --resume {folder}"
        )
    reading = reading_before(folder, options.reading)
    limits = {
        name: value
        for name in ("max_archive_gb", "max_archive_entries")
        if (value := getattr(options.reading, name)) is not None
    }
    options = replace(options, reading=replace(reading, **limits))
    source = open_data(data or started_with, options, progress)
    given = contestants.weights_given(weights) or origin.weights or ()
    found = resolve((record.config.model,), given)
    session = _session(source, folder, origin, options, progress, stop, found)
    now = tuple(of.weights for of in found.values())
    return request_of(record).model_copy(update={"weights": now}), session


def _is_complete(folder: Path, progress: Progress) -> bool:
    """Whether a run has its results and its report; remove its temporary files.

    Raises:
        DataError: its weights are missing or were changed, or a file is damaged.
    """
    if not (folder / "results.json").exists():
        return False
    with files.lock(folder / "lock", holder=str(folder)):
        files.sweep(folder)
        require_weights(folder, read_single_run(folder).weights_sha256)
        finished(folder)
    if not (folder / "report.html").exists():
        return False
    progress.say(f"{folder} is already finished; its results are unchanged")
    return True


def _write_report(session: Session) -> None:
    with session.locked():  # the report is part of the folder, too
        rules = _rules_of_runs(session.folder, session.source)
        write_report(session.folder, picture=pictures(session.source, rules))


def _rules_of_runs(folder: Path, source: Source) -> Rules:
    """Return how the images became pixels in a run or comparison: in all its runs alike."""
    limits = rules_of(source.options)
    for record in sorted([*folder.glob("run.json"), *folder.glob("runs/*/run.json")]):
        with contextlib.suppress(DataError):  # a run that failed
            return of_contract(read_run(record.parent, todo="train again").contract, limits)
    return limits


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, with those about reading images."""
    given = {**values, **values["reading"]}
    del given["reading"]
    return given


def _call(function: Callable[..., Comparison], given: Iterable[tuple[str, object]]) -> str:
    """Return a call as Python source, without arguments that have their default."""
    parameters = inspect.signature(function).parameters
    words = [
        repr(_plain(value)) if name == "data" else f"{name}={_plain(value)!r}"
        for name, value in given
        if name not in ("progress", "command") and value != parameters[name].default
    ]
    return f"towernet.{function.__name__}({', '.join(words)})"


def _plain(value: object) -> object:
    """Return a path as a string."""
    return str(value) if isinstance(value, Path) else value
