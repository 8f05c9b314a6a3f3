"""Share networks, in a folder or on the Hugging Face hub; needs `towernet[hub]`.

Nothing is uploaded or downloaded unless a call requests it: `push_to_hub`, or `download=True`.
"""

import os

from towernet.errors import MissingExtraError

# Read when huggingface_hub is imported; it would otherwise send data about its use.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
try:
    import huggingface_hub as huggingface_hub
except ImportError as error:
    raise MissingExtraError(
        "towernet.hub needs the package huggingface_hub; install it with:"
        " pip install 'towernet[hub]'"
    ) from error

from towernet.hub.network import HubNetwork

__all__ = ["HubNetwork"]
