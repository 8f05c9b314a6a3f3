"""The options that several verbs share, each said once."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towernet.errors import TRUSTED, ConfigError, shown
from towernet.names import NONE, NetworkName

if TYPE_CHECKING:
    from towernet.config import Recipe
    from towernet.data.archive import Limits
    from towernet.data.source import Source
    from towernet.records.results import Results

Data = Annotated[
    str,
    typer.Argument(
        help="A folder with one sub-folder of images per class (or train/ and test/ with those),"
        " a zip or tar of it, a CSV with path,label, or `digits`, which is built in."
    ),
]
Models = Annotated[
    str, typer.Option(help="Networks, comma-separated; `towernet models` lists them.")
]
DEFAULT_MODELS = "towernet,towernet_patch,resnet50,vgg19,mobilenet_v2"
RecipeName = Annotated[
    str, typer.Option("--recipe", help="default, quick, notebook, or your own .toml file.")
]
Epochs = Annotated[
    int | None, typer.Option(help="Passes over the training images; else the recipe decides.")
]
Minutes = Annotated[
    float | None, typer.Option(help="Minutes of training for each run; else the recipe decides.")
]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels; else the recipe's.")]
BatchSize = Annotated[int | None, typer.Option(help="Images in one step; else the recipe's.")]
Seed = Annotated[int, typer.Option(help="Of all randomness; the same seed repeats the result.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="Computing threads, else one per core; another number changes results slightly."
    ),
]
AcceptDataChange = Annotated[
    bool,
    typer.Option(
        "--accept-data-change",
        help="Continue although images were removed or added; new ones are not used.",
    ),
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Continue with other versions, threads or device; results differ slightly.",
    ),
]
ImagesPerClass = Annotated[
    int | None, typer.Option(help="Use only so many images of each class, for a quick look.")
]
NoFlip = Annotated[
    bool, typer.Option("--no-flip", help="Never mirror: where left and right mean something.")
]
Workers = Annotated[int | None, typer.Option(help="Decoding processes; else one per core.")]
Layout = Annotated[
    str,
    typer.Option(help="auto, classes or splits: what the top folders are, should auto err."),
]
SkipEmpty = Annotated[bool, typer.Option("--skip-empty", help="Leave out classes without files.")]
MaxArchiveGb = Annotated[
    float | None,
    typer.Option(min=0, help="Unpack an archive up to this size, however much it shrinks."),
]
MaxArchiveEntries = Annotated[
    int | None, typer.Option(min=1, help="Unpack an archive of up to so many entries.")
]

# What may be said together with --resume.
OF_RESUMING = (
    "data", "resume", "workers", "device", "threads", "accept_data_change", "accept_changes",
    "max_archive_gb", "max_archive_entries",
)  # fmt: skip


def the_command() -> str:
    """Return the command as it was typed, to repeat it."""
    return shlex.join(["towernet", *sys.argv[1:]])


def num_workers(workers: int | None) -> int:
    """Return how many decoding processes to use.

    Raises:
        ConfigError: fewer than one was asked for.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}; give at least 1")
    if workers is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return workers or os.cpu_count() or 1


def archive_limits(gb: float | None, entries: int | None) -> Limits:
    """Return what an archive may unpack to."""
    from towernet.data.archive import Limits

    return Limits(max_bytes=None if gb is None else int(gb * 1e9), max_entries=entries)


def model_names(models: str) -> tuple[NetworkName, ...]:
    """Return the networks that `--models` names, each by its shortest name.

    Raises:
        ConfigError: a name is empty or said twice, or names no network with attention.
    """
    given = [name.strip() for name in models.split(",")]
    if not all(given):
        raise ConfigError(f"--models is '{models}'; give names, comma-separated")
    names = tuple(NetworkName(name).canonical() for name in given)
    trust_blocks(names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--models names {twice[0]} twice; use --runs to repeat networks")
    return names


def with_attention(
    names: tuple[NetworkName, ...], attention: str | None
) -> tuple[tuple[NetworkName, ...], tuple[str, ...]]:
    """Return the networks, each without attention and with every block, and the blocks' names.

    Raises:
        ConfigError: a block is empty or said twice, or a network's name says its own.
    """
    if attention is None:
        return names, ()
    blocks = tuple(block.strip() for block in attention.split(","))
    if not all(blocks):
        raise ConfigError(f"--attention is '{attention}'; give names of blocks, comma-separated")
    if twice := sorted({block for block in blocks if blocks.count(block) > 1}):
        raise ConfigError(f"--attention names {twice[0]} twice; name each block once")
    for name in names:
        if name.block is not None:
            raise ConfigError(
                f"--models names {name} and --attention gives each network its blocks; leave one"
                " of the two out"
            )
    if set(blocks) == {NONE}:
        raise ConfigError("--attention names no block; give one that each network is tried with")
    blocks = (NONE, *(block for block in blocks if block != NONE))
    variants = tuple(name.with_block(block) for name in names for block in blocks)
    trust_blocks(variants)
    if twice := sorted({name for name in variants if variants.count(name) > 1}):
        raise ConfigError(f"--attention names {twice[0]} in two ways; name each block once")
    return variants, blocks


def check_blocks(names: Iterable[NetworkName]) -> None:
    """Hold the attention blocks that networks' names ask for, and are not ours, to their promises.

    Raises:
        UnknownNameError: no block has the name.
        ContractError: one does not keep a promise.
    """
    names = tuple(names)
    trust_blocks(names)
    blocks = {name.block for name in names} - {None, NONE}
    if blocks:
        from towernet.attention.base import ATTENTION
        from towernet.attention.find import attention_block
        from towernet.testing import check_block

        for block in sorted(filter(None, blocks)):
            found = attention_block(block)
            if block not in ATTENTION:  # ours are held to it by the tests
                check_block(found)


def trust_blocks(names: Iterable[NetworkName]) -> None:
    """Let the blocks be imported that networks' names ask for, which the user said."""
    for block in filter(None, (name.block for name in names)):
        trust_block(block)


def trust_block(block: str) -> None:
    """Let a block that the user names be imported, also from the folder the command is said in.

    Not where a run's record names it: that may come from somebody else, with a file beside it.
    """
    from towernet.attention.find import trust

    trust(block)
    if ":" in block:
        look_here()


def look_here() -> None:
    """Let modules be found in the folder the command is said in, last: they hide no package."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))


def trusting(*blocks: str) -> str:
    """Return what to write before a command for it to follow a record to these blocks."""
    said = filter(None, os.environ.get(TRUSTED, "").split(","))
    return f"{TRUSTED}={shlex.quote(','.join(dict.fromkeys([*said, *blocks])))}"


def to_ask(network: NetworkName, folder: Path) -> str:
    """Return the command that asks a run of this network about an image."""
    words = [trusting(network.own_block)] if network.own_block else []
    return " ".join([*words, "towernet", "predict", shlex.quote(shown(str(folder))), "IMAGE"])


def resolve_recipe(
    name: str,
    source: Source,
    *,
    epochs: int | None,
    minutes: float | None,
    size: int | None,
    batch_size: int | None,
    no_flip: bool,
) -> Recipe:
    """Read the recipe and put the command line's choices, and the data's own, over it."""
    from towernet.config import load_recipe, override

    return override(
        load_recipe(name),
        data={"size_px": size},
        augment={"flip": False if no_flip or source.no_flip else None},
        train={"epochs": epochs, "minutes": minutes, "batch_size": batch_size},
    )


def out_folder(out: Path | None, data: str, *parts: str) -> Path:
    """Return the folder a result goes to: the one named, or the same for the same words.

    Raises:
        ConfigError: it lies among the images, and would be read as one of them next time.
    """
    names = [part.replace(":", "_").replace("/", "_") for part in parts]
    folder = out or Path("runs") / "-".join(names)
    images = Path(data)
    if images.is_dir() and folder.resolve().is_relative_to(images.resolve()):
        raise ConfigError(f"the output {folder} would lie among the images; give --out elsewhere")
    return folder


def require_defaults(
    verb: Callable[..., Any], given: dict[str, Any], *, but: tuple[str, ...]
) -> None:
    """Refuse options that would change nothing, since the run knows its own.

    Args:
        verb: The verb, whose signature holds the defaults.
        given: What it was called with.
        but: The options that have an effect.

    Raises:
        ConfigError: naming the first one.
    """
    for name, parameter in inspect.signature(verb).parameters.items():
        if name not in but and given[name] != parameter.default:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} has no effect with --resume; leave it out")


def require_success(results: Results) -> None:
    """End with the exit code of failed training when no network could be trained.

    Raises:
        TrainingError: with the reasons.
    """
    from towernet.errors import TrainingError

    if all(network.status == "failed" for network in results.networks):
        reasons = "; ".join(f"{network.name}: {network.reason}" for network in results.networks)
        raise TrainingError(f"no network could be trained: {reasons}")
