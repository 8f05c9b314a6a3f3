"""Train and compare small image classifiers, honestly, on your own pictures.

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
    from towernet.attention.inserted import detach as detach
    from towernet.errors import Interrupted as Interrupted
    from towernet.errors import TowernetError as TowernetError
    from towernet.models.optimize import optimize as optimize
    from towernet.models.timm_models import register_with_timm as register_with_timm

_OFFERED = (
    "Comparison", "Interrupted", "Judgement", "Run", "TowernetError", "attach", "compare", "detach",
    "judge", "load", "optimize", "register_with_timm", "train",
)  # fmt: skip

__all__ = ["__version__", *_OFFERED]


def __getattr__(name: str) -> object:
    """Import a name when it is first used: `import towernet` alone stays fast."""
    if name in ("compare", "train"):
        from towernet.api import training

        return getattr(training, name)
    if name in ("Interrupted", "TowernetError"):
        from towernet import errors

        return getattr(errors, name)
    if name in ("Comparison", "Run", "load"):
        from towernet.api import found

        return getattr(found, name)
    if name in ("Judgement", "judge"):
        from towernet.api import answers

        return getattr(answers, name)
    if name in ("attach", "detach"):
        from towernet import attention

        return getattr(attention, name)
    if name == "optimize":
        from towernet.models.optimize import optimize

        return optimize
    if name == "register_with_timm":
        from towernet.models.timm_models import register_with_timm

        return register_with_timm
    raise AttributeError(f"module 'towernet' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return all public names, imported or not."""
    return sorted(__all__)
