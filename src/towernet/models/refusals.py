"""What every reader of foreign weights says of a file that it refuses."""

from __future__ import annotations

from pathlib import Path

from towernet.errors import DataError
from towernet.words import shown

SAVE = "torch.save(network.state_dict(), 'weights.pt')"


def quoted(name: str) -> str:
    """Return a name from a file in quotes, printable and not too long."""
    return f"'{shown(name)[:80]}'"


def damaged(path: Path, found: str) -> DataError:
    """Return the error for a file whose content contradicts its format."""
    first = next(iter(found.splitlines()), "")[:120]
    return DataError(f"{path} is damaged ({first}); copy it again, or save it again with {SAVE}")


def no_weights(path: Path, found: str) -> DataError:
    """Return the error for a sound file without the weights of a network."""
    return DataError(f"{path} contains no network weights ({found}); save them with {SAVE}")
