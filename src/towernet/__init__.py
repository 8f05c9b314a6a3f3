"""Train and compare small image classifiers from scratch, honestly, on your own pictures."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from towernet.models.optimize import optimize as optimize
    from towernet.models.timm_models import register_with_timm as register_with_timm


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for: `import towernet` alone stays fast."""
    if name == "optimize":
        from towernet.models.optimize import optimize

        return optimize
    if name == "register_with_timm":
        from towernet.models.timm_models import register_with_timm

        return register_with_timm
    raise AttributeError(f"module 'towernet' has no attribute '{name}'")
