"""What a network was promised about its input and its answers, the same at every entry.

Made once from the training split and stored in every run. Standard library only.
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
