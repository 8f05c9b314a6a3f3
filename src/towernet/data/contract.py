"""What a network was promised about its input and its answers, the same at every entry.

Made once from the training split; stored in every run; compared by name. Standard library only,
since the small runtime ships this module unchanged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from towernet.errors import DataError


@dataclass(frozen=True)
class Contract:
    """Class names in the order of the logits, and how a picture becomes the network's input.

    Args:
        class_names: The answers, in the order of the logits.
        size_px: Side of the square input.
        resize: The rule of `decode.fit`: crop, pad, squash or squash_linear.
        mean: Per RGB channel, of values in [0, 1].
        std: Per RGB channel, of values in [0, 1].
        background: RGB that transparent pixels and padding get.
        orientation: "exif": the picture is turned as its EXIF tag says.
    """

    class_names: tuple[str, ...]
    size_px: int
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    background: tuple[int, int, int] = (255, 255, 255)
    orientation: str = "exif"

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return asdict(self) | {
            key: list(getattr(self, key)) for key in ("class_names", "mean", "std", "background")
        }

    @staticmethod
    def from_json(values: dict[str, Any]) -> Contract:
        """Rebuild what `to_json` gave.

        Raises:
            DataError: something is missing, is too much, or is of the wrong kind.
        """
        try:
            return Contract(
                **values
                | {key: tuple(values[key]) for key in ("class_names", "mean", "std", "background")}
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"the class contract is damaged ({error}); train again") from error

    def require_same_classes(self, class_names: tuple[str, ...], *, theirs: str) -> None:
        """Refuse other classes, or the same in another order, by name.

        Raises:
            DataError: with the names that are new, missing, or in another order.
        """
        if class_names == self.class_names:
            return
        new = sorted(set(class_names) - set(self.class_names))
        missing = sorted(set(self.class_names) - set(class_names))
        found = "; ".join(
            f"{word}: {', '.join(map(repr, names[:5]))}" + (" …" if len(names) > 5 else "")
            for word, names in (("new", new), ("missing", missing))
            if names
        )
        raise DataError(
            f"the run knows {len(self.class_names)} classes and {theirs} has {len(class_names)}"
            f" ({found or 'the same names in another order'}); train again on {theirs}"
        )
