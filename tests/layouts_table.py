"""Write docs/layouts.md: how each folder of `layout_cases` is read. Run it when they change."""

from __future__ import annotations

import tempfile
from pathlib import Path

from layout_cases import CASES, Case, make
from towernet.data.source import open_source
from towernet.errors import TowernetError
from towernet.records.reading import DEFAULT

TABLE = Path(__file__).parent.parent / "docs" / "layouts.md"
HEAD = """# How folders are read

Each row is a folder that `tests/layouts_table.py` makes, and what `towernet check photos` says of
it: how it is read, or why not and what to do. `cat/3` means three pictures in `cat`, and `{a,b}/3`
three in each. A zip or a tar of the same files is read in the same way.

| the folder | its files | how it is read |
|---|---|---|
"""


def table() -> str:
    """Return the page."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [_row(case, Path(folder) / str(i)) for i, case in enumerate(CASES)]
    return HEAD + "".join(rows)


def _row(case: Case, folder: Path) -> str:
    data = make(case, folder / "photos")
    try:
        read = open_source(str(data), case.reading).reading
    except TowernetError as error:
        read = f"Refused: {error}"
    options = " ".join(
        f"--{name.replace('_', '-')}{'' if value is True else f' {value}'}"
        for name, value in vars(case.reading).items()
        if value != getattr(DEFAULT, name) and not name.startswith("__")
    )
    like = f"{case.like}" + (f" (`{options}`)" if options else "")
    files = case.files.partition("=")[0].replace("~", "\u00a0")
    cells = (like, f"`{files}`", read.replace(f"{folder}/", ""))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    TABLE.write_text(table())
