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
        typer.Option(help="Text file with one class name per line, in the order of the outputs."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the run; new or empty.")],
    model: Annotated[
        str, typer.Option(help="The network, a name from `towernet models`.")
    ] = "towernet",
    size: Annotated[
        int | None, typer.Option(help="Side of the square training images, in pixels.")
    ] = None,
    mean: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Mean of red, green and blue in [0, 1] used for normalisation."),
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Standard deviation of red, green and blue used for normalisation."),
    ] = None,
) -> None:
    """Turn weights that were trained elsewhere into a run for `towernet predict`.

    No code in the file is executed. Default size, mean and std: those of the notebook for a
    .pdparams file; otherwise 128 pixels and those of ImageNet.

    Example: towernet import-weights resnet.pt --model resnet18 --classes classes.txt --out runs/old
    """

    from towernet import files
    from towernet.config import RunConfig, load_recipe, override
    from towernet.data.prepare import NOTEBOOK_MEAN, NOTEBOOK_STD
    from towernet.engine.checkpoint import write_weights
    from towernet.engine.device import versions
    from towernet.models.foreign import IMAGENET_MEAN, IMAGENET_STD, fit, read_foreign
    from towernet.models.own import code_of
    from towernet.records.contract import Contract
    from towernet.records.run import ForeignWeights, ImportedRun
    from towernet.words import shown

    _require_empty(out)
    network = NetworkName(model)
    choices.require_blocks((network,))
    class_names = read_class_names(classes)
    of_notebook = weights.suffix.lower() == ".pdparams"
    recipe_name = "notebook" if of_notebook else "default"
    recipe = override(load_recipe(recipe_name), data={"size_px": size})
    mean = mean or (NOTEBOOK_MEAN if of_notebook else IMAGENET_MEAN)
    std = std or (NOTEBOOK_STD if of_notebook else IMAGENET_STD)
    _require_scale(mean, std)
    contract = Contract(class_names, recipe.data.size_px, recipe.data.resize, mean, std)
    choices.require_networks((network,), contract.size_px)
    tensors = read_foreign(weights)
    state = fit(tensors, model, len(class_names), contract.size_px, path=weights)
    source = ForeignWeights(file=weights.name, sha256=files.sha256(weights))
    record = ImportedRun(
        format=files.FORMAT,
        status="finished",
        config=RunConfig(model=network, recipe_name=recipe_name, recipe=recipe),
        contract=contract,
        versions=versions() | code_of([network]),
        origin="imported",
        source=source,
        weights_sha256=write_weights(out / "best.safetensors", state, source.model_dump()),
    )
    # Written last, so that a folder with a run.json is complete.
    files.write_json(out / "run.json", record.model_dump())
    folder, seen = shown(str(out)), f"{contract.size_px}-px images"
    scale = f"the mean {_listed(contract.mean)} and the std {_listed(contract.std)}"
    typer.echo(f"{folder} contains {model} for {len(class_names)} classes and {seen} with {scale}.")
    typer.echo(f"predict with\n  {options.predict_command(network, out)}")


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the lines of a text file; each names one class.

    Raises:
        DataError: the file cannot be read, a line is empty, or a name appears twice.
    """
    from collections import Counter

    from towernet.data.layout import require_classes
    from towernet.errors import DataError
    from towernet.words import shown

    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    # Not splitlines, which also splits at a dozen other characters.
    names = tuple(line.strip() for line in text.removesuffix("\n").split("\n"))
    if "" in names:
        raise DataError(f"{path}: line {names.index('') + 1} is empty; give one name per line")
    twice = [name for name, num in Counter(names).items() if num > 1]
    if twice:
        raise DataError(
            f"{path} names the class '{shown(twice[0])}' twice; give each class its own name"
        )
    require_classes(names, Counter(names), name=str(path))
    return names


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
