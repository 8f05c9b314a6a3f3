"""`towernet import-weights`: turn weights that were trained elsewhere into a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from towernet import choices
from towernet.cli import options
from towernet.names import NetworkName


def import_weights(
    weights: Annotated[
        Path, typer.Argument(help="A .safetensors, a .pt or .pth state dict, or a .pdparams file.")
    ],
    classes: Annotated[
        Path,
        typer.Option(
            help="The class names in the order of the outputs: a text file with one per line, or a"
            " JSON or CSV file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the run; new or empty.")],
    model: Annotated[
        str, typer.Option(help="The network, a name from `towernet models`.")
    ] = "towernet",
    size: Annotated[
        int | None, typer.Option(help="Side of the square training images, in pixels.")
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(
            help="How images were made square in training: crop (the centre), pad (with a border)"
            " or squash. Default: crop."
        ),
    ] = None,
    mean: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Mean of red, green and blue in [0, 1] used for normalisation."),
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Standard deviation of red, green and blue used for normalisation."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Which weights of a checkpoint that contains several.")
    ] = None,
) -> None:
    """Turn weights that were trained elsewhere into a run for `towernet predict`.

    No code in the file is executed. A prefix of all names is removed, and what no prediction needs
    is left out; both are reported. Default size, resize, mean and std: those of the notebook for a
    .pdparams file; otherwise 128 pixels, crop, and those of ImageNet.

    Example: towernet import-weights resnet.pt --model resnet18 --classes classes.txt --out runs/old
    """

    from towernet import files
    from towernet.config import RunConfig, load_recipe, override
    from towernet.data.class_list import read_class_names
    from towernet.data.prepare import NOTEBOOK_MEAN, NOTEBOOK_STD
    from towernet.engine.checkpoint import write_weights
    from towernet.engine.device import versions
    from towernet.models.foreign import read_foreign
    from towernet.models.foreign_fit import find_weights, fit
    from towernet.models.own import code_of
    from towernet.records.contract import Contract
    from towernet.records.run import WEIGHTS_FILE, ForeignWeights, ImportedRun
    from towernet.records.weights import IMAGENET_MEAN, IMAGENET_STD
    from towernet.words import shown

    _require_empty(out)
    network = NetworkName(model)
    choices.require_blocks((network,))
    class_names = read_class_names(classes)
    of_notebook = weights.suffix.lower() == ".pdparams"
    recipe_name = "notebook" if of_notebook else "default"
    choices.require_resize(resize)
    recipe = override(load_recipe(recipe_name), data={"size_px": size, "resize": resize})
    has_scale = mean is not None or std is not None
    mean = mean or (NOTEBOOK_MEAN if of_notebook else IMAGENET_MEAN)
    std = std or (NOTEBOOK_STD if of_notebook else IMAGENET_STD)
    _require_scale(mean, std)
    contract = Contract(class_names, recipe.data.size_px, recipe.data.resize, mean, std)
    choices.require_networks((network,), contract.size_px)
    asked = (model, len(class_names), contract.size_px)
    tensors, notes = find_weights(read_foreign(weights), *asked, path=weights, key=key)
    state = fit(tensors, *asked, path=weights, classes=shown(str(classes)))
    source = ForeignWeights(file=weights.name, sha256=files.sha256(weights))
    record = ImportedRun(
        format=files.FORMAT,
        status="finished",
        config=RunConfig(model=network, recipe_name=recipe_name, recipe=recipe),
        contract=contract,
        versions=versions() | code_of([network]),
        origin="imported",
        source=source,
        weights_sha256=write_weights(out / WEIGHTS_FILE, state, source.model_dump()),
    )
    # Written last, so that a folder with a run.json is complete.
    files.write_json(out / "run.json", record.model_dump())
    for note in (*notes, *([] if has_scale else _notes_on_scale(network))):
        typer.echo(shown(f"{weights.name}: {note}"))
    seen = f"{contract.size_px}-px images, {_WAYS[contract.resize]},"
    scale = f"the mean {_listed(contract.mean)} and the std {_listed(contract.std)}"
    typer.echo(
        f"{shown(str(out))} contains {model} for {len(class_names)} classes and {seen} with"
        f" {scale}."
    )
    typer.echo(f"predict with\n  {options.predict_command(network, out)}")


_WAYS = {
    "crop": "cropped to the centre square",
    "pad": "padded to a square",
    "squash": "squashed to a square",
    "squash_linear": "squashed to a square without antialiasing",
}


def _notes_on_scale(network: NetworkName) -> list[str]:
    """Return what the default mean and std may be wrong for."""
    if network.base not in ("googlenet", "inception_v3"):
        return []
    return [
        "if the training started from torchvision's ImageNet weights, which scale their input"
        " (transform_input), import it with --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5"
    ]


def _listed(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _require_scale(mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
    from towernet.errors import ConfigError

    if not all(0 <= value <= 1 for value in mean):
        raise ConfigError(f"--mean is {_listed(mean)}; give three numbers in [0, 1]")
    if not all(1e-3 <= value <= 255 for value in std):
        raise ConfigError(f"--std is {_listed(std)}; give three numbers of at least 0.001")


def _require_empty(out: Path) -> None:
    from towernet.errors import ConfigError

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder; choose another --out")
