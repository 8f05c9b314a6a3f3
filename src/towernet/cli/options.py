"""The options that several verbs share."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from towernet import choices
from towernet.choices import DEFAULT_MODELS as DEFAULT_MODELS
from towernet.errors import TRUSTED
from towernet.names import NetworkName
from towernet.words import shown

if TYPE_CHECKING:
    from towernet.records.results import Results

Data = Annotated[
    str,
    typer.Argument(
        help="A folder with one sub-folder of images per class (or train/ and test/ with"
        " those), a zip or tar of it, a CSV with the columns path,label, or `digits` (built in)."
    ),
]
Models = Annotated[
    str, typer.Option(help="Networks, comma-separated; `towernet models` lists them.")
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        help="Pre-trained weights, as NETWORK=FILE, for networks such as NETWORK/frozen; can be"
        " repeated. Also the folder of a run, or the name of a published set. Default: those that"
        " `towernet weights` lists."
    ),
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="default, quick, notebook, or your own .toml file.")
]
Epochs = Annotated[
    int | None, typer.Option(help="Passes over the training images; default: the recipe's.")
]
Minutes = Annotated[
    float | None, typer.Option(help="Minutes of training for each run; default: the recipe's.")
]
Size = Annotated[
    int | None, typer.Option(help="Side of the images in pixels; default: the recipe's.")
]
BatchSize = Annotated[int | None, typer.Option(help="Images per step; default: the recipe's.")]
Measure = Annotated[
    str,
    typer.Option(
        help="accuracy, or balanced (the mean over the classes, for classes of uneven sizes): what"
        " chooses epochs, learning rates and networks, and what is compared."
    ),
]
Seed = Annotated[int, typer.Option(help="Random seed; the same seed reproduces the result.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Computing threads; default: one per core. Another number changes results slightly.",
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
    int | None, typer.Option(help="Use only this many images of each class, for a quick test.")
]
NoFlip = Annotated[
    bool,
    typer.Option("--no-flip", help="Never mirror images; for images where left and right matter."),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse a network if a place in it cannot take its attention block."
    ),
]
Workers = Annotated[int | None, typer.Option(help="Decoding processes; default: one per core.")]
Resize = Annotated[
    str | None,
    typer.Option(
        help="How images are made square: crop (the centre), pad (the whole image, with a border)"
        " or squash; default: the recipe's."
    ),
]

MaxMegapixels = Annotated[
    float | None,
    typer.Option(help="Read images of up to this many million pixels; default: the run's."),
]

_GROUP = "Reading the images"
_READING = {
    "layout": Annotated[
        str,
        typer.Option(
            help="What the top-level folders are: classes, splits, leaves (the deepest folders are"
            " the classes), or auto (detect).",
            rich_help_panel=_GROUP,
        ),
    ],
    "splits": Annotated[
        str | None,
        typer.Option(
            help="Which folder is which split, such as train=Training,test=Testing; several of"
            " one split are train=fold1+fold2.",
            rich_help_panel=_GROUP,
        ),
    ],
    "skip_empty": Annotated[
        bool,
        typer.Option(
            "--skip-empty", help="Leave out classes without files.", rich_help_panel=_GROUP
        ),
    ],
    "min_images": Annotated[
        int | None,
        typer.Option(
            help="Leave out classes with fewer usable images than this.", rich_help_panel=_GROUP
        ),
    ],
    "follow_links": Annotated[
        str | None,
        typer.Option(
            help="Follow symbolic links: inside (to files in the folder) or all; default: none.",
            rich_help_panel=_GROUP,
        ),
    ],
    "masks": Annotated[
        str | None,
        typer.Option(
            help="What to do with masks in the same folders as their images: ignore or keep.",
            rich_help_panel=_GROUP,
        ),
    ],
    "encoding": Annotated[
        str | None,
        typer.Option(
            help="Encoding of the names in a zip, or of a CSV, such as gbk or cp1252; default:"
            " guessed.",
            rich_help_panel=_GROUP,
        ),
    ],
    "image_column": Annotated[
        str | None,
        typer.Option(help="The CSV's column with the images' paths.", rich_help_panel=_GROUP),
    ],
    "label_column": Annotated[
        str | None,
        typer.Option(help="The CSV's column with the classes.", rich_help_panel=_GROUP),
    ],
    "white_level": Annotated[
        float | None,
        typer.Option(
            help="Value of 16-bit, 32-bit and float images that becomes white; default: chosen"
            " once for all images.",
            rich_help_panel=_GROUP,
        ),
    ],
    "max_megapixels": Annotated[
        float | None,
        typer.Option(help="Read images of up to this many million pixels.", rich_help_panel=_GROUP),
    ],
    "max_archive_gb": Annotated[
        float | None,
        typer.Option(
            help="Unpack an archive of up to this many GB, at any compression ratio.",
            rich_help_panel=_GROUP,
        ),
    ],
    "max_archive_entries": Annotated[
        int | None,
        typer.Option(help="Unpack an archive of up to this many entries.", rich_help_panel=_GROUP),
    ],
}

Verb = TypeVar("Verb", bound=Callable[..., Any])


def reads_images(verb: Verb) -> Verb:
    """Give a verb the options about reading images; its last parameter is `**reading`."""
    return choices.with_reading(verb, _READING)


def the_command() -> str:
    """Return the command as it was typed."""
    return shlex.join(["towernet", *sys.argv[1:]])


def trusting(own_code: Mapping[str, str]) -> str:
    """Return the variables to set for a command, so that it imports a record's custom code.

    Args:
        own_code: The import paths, each by its variable.
    """
    words = []
    for variable in TRUSTED:  # include what is already set: the command is for copying
        named = [*os.environ.get(variable, "").split(","), own_code.get(variable, "")]
        if paths := dict.fromkeys(filter(None, named)):
            words.append(f"{variable}={shlex.quote(','.join(paths))}")
    return " ".join(words)


def predict_command(network: NetworkName, folder: Path) -> str:
    """Return the command that predicts an image with a run of this network."""
    words = [trusting(network.own_code)] if network.own_code else []
    return " ".join([*words, "towernet", "predict", shlex.quote(shown(str(folder))), "IMAGE"])


def require_success(results: Results) -> None:
    """End with the exit code of failed training when no network could be trained.

    Raises:
        TrainingError: with the reasons.
    """
    from towernet.errors import TrainingError

    if all(network.status == "failed" for network in results.networks):
        reasons = "; ".join(f"{network.name}: {network.reason}" for network in results.networks)
        raise TrainingError(f"no network could be trained: {reasons}")
