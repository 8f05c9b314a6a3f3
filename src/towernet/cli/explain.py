"""`towernet explain`: draw the attention maps of a trained run for an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from towernet import choices
from towernet.cli import options


def explain(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a comparison.")],
    image: Annotated[Path, typer.Argument(help="An image file.")],
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .svg or .pdf.")] = Path(
        "maps.png"
    ),
    max_megapixels: options.MaxMegapixels = None,
) -> None:
    """Draw the attention map of each block of a trained network for an image.

    Example: towernet explain runs/mine cat.jpg --out maps.png

    A map shows how strongly the block weights each part, not necessarily why the network predicts
    what it does.
    """
    from towernet.explain.maps import explain as explained
    from towernet.explain.picture import figures, gain_figure, require_kind, write_picture
    from towernet.words import percent, shown

    require_kind(out)
    explanation = explained(run, image, max_megapixels=choices.megapixels(max_megapixels))
    write_picture(explanation, out)
    for block in explanation.maps:
        gain = "" if block.gain is None else f", gain {gain_figure(block.gain)}"
        typer.echo(f"{shown(block.place)}  {shown(block.block)}  {figures(block)}{gain}")
    typer.echo(
        f"{shown(str(out))} shows these maps for {shown(str(image))}:"
        f" {shown(explanation.class_name)} {percent(explanation.probability)}"
    )
