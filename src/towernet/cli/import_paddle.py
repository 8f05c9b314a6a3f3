"""`towernet import-paddle`: the original notebook's trained network becomes a run that predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_paddle(
    parameters: Annotated[Path, typer.Argument(help="The .pdparams file the notebook saved.")],
    classes: Annotated[
        Path, typer.Option(help="A text file: one class name a line, in the order of the outputs.")
    ],
    out: Annotated[Path, typer.Option(help="Where the run is written; new or empty.")],
) -> None:
    """Turn TowerNet's parameters from PaddlePaddle into a run for `towernet predict`.

    Nothing in the file is executed, and PaddlePaddle is not needed.

    Example: towernet import-paddle best_model.pdparams --classes classes.txt --out runs/original
    """
    from towernet import files
    from towernet.config import RunConfig, load_recipe
    from towernet.data.contract import Contract
    from towernet.data.prepare import NOTEBOOK_MEAN, NOTEBOOK_STD
    from towernet.engine.checkpoint import write_weights
    from towernet.engine.device import versions
    from towernet.models.paddle import read_pdparams, towernet_state_dict

    _require_empty(out)
    class_names = read_class_names(classes)
    state = towernet_state_dict(read_pdparams(parameters))
    _require_as_many(class_names, len(state["head.bias"]), classes, parameters)

    recipe = load_recipe("notebook")
    config = RunConfig(model="towernet", recipe_name="notebook", recipe=recipe)
    contract = Contract(
        class_names, recipe.data.size_px, recipe.data.resize, NOTEBOOK_MEAN, NOTEBOOK_STD
    )
    source = {"file": parameters.name, "sha256": files.sha256(parameters)}
    write_weights(out / "best.safetensors", state, source)
    # Last, so that a folder with a run.json holds all that it promises.
    record = {
        "config": config.model_dump(mode="json"),
        "contract": contract.to_json(),
        "origin": "imported from Paddle",
        "source": source,
        "status": "finished",
        "versions": versions(),
    }
    files.write_json(out / "run.json", record)
    typer.echo(f"{out} holds TowerNet for {len(class_names)} classes; ask it with")
    typer.echo(f"  towernet predict {out} IMAGE…")


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the lines of a text file; each names one class.

    Raises:
        DataError: the file cannot be read, a line is empty, or two are the same.
    """
    from towernet.errors import DataError

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    names = tuple(line.strip() for line in lines)
    if "" in names:
        raise DataError(f"{path}: line {names.index('') + 1} is empty; give one class name a line")
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise DataError(f"{path} names the class '{twice[0]}' twice; give each class its own name")
    return names


def _require_as_many(
    class_names: tuple[str, ...], num_outputs: int, classes: Path, parameters: Path
) -> None:
    from towernet.errors import DataError

    if len(class_names) != num_outputs:
        raise DataError(
            f"{classes} names {len(class_names)} classes and the network in {parameters} has"
            f" {num_outputs} outputs; give one line for each output, in their order"
        )


def _require_empty(out: Path) -> None:
    from towernet.errors import ConfigError

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder; choose another --out")
