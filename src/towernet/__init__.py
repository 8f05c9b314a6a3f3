"""Train and compare small image classifiers from scratch, honestly, on your own pictures.

    import towernet

    comparison = towernet.compare("photos/", models=["towernet_patch", "resnet18"], minutes=1)
    print(comparison.verdict)
    comparison.winner.predict(["cat.jpg"])

Nothing heavy is imported before it is used.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

__version__ = "0.1.0"

if _TYPE_CHECKING:
    from towernet.api.answers import Judgement as Judgement
    from towernet.api.answers import judge as judge
    from towernet.api.found import Comparison as Comparison
    from towernet.api.found import Run as Run
    from towernet.api.found import load as load
    from towernet.api.training import compare as compare
    from towernet.api.training import train as train
    from towernet.attention.attach import attach as attach
    from towernet.attention.attach import detach as detach
    from towernet.models.optimize import optimize as optimize
    from towernet.models.timm_models import register_with_timm as register_with_timm

# Where each thing that the door opens to lies.
_OFFERED = {
    "compare": "towernet.api.training",
    "train": "towernet.api.training",
    "load": "towernet.api.found",
    "judge": "towernet.api.answers",
    "Comparison": "towernet.api.found",
    "Run": "towernet.api.found",
    "Judgement": "towernet.api.answers",
    "attach": "towernet.attention.attach",
    "detach": "towernet.attention.attach",
    "optimize": "towernet.models.optimize",
    "register_with_timm": "towernet.models.timm_models",
}

__all__ = sorted([*_OFFERED, "__version__"])


def __getattr__(name: str) -> object:
    """Import what is asked for: `import towernet` alone stays fast."""
    from importlib import import_module

    if name not in _OFFERED:
        raise AttributeError(f"module 'towernet' has no attribute '{name}'")
    return getattr(import_module(_OFFERED[name]), name)


def __dir__() -> list[str]:
    """Return what there is, imported or not."""
    return sorted({*globals(), *_OFFERED})
