"""The contracts of attention blocks and networks, as checks for custom ones.

    from towernet.testing import check_block, check_network
    check_block(MyAttention)
    check_network(MyNet)

A check raises ContractError with one sentence: which promise is broken, by which check and on what
input, what was found, and what to do. The checks need only torch.
"""

from towernet.testing.blocks import (
    ATTENTION_CHECKS,
    build_block,
    check_autocast,
    check_batch_independence,
    check_block,
    check_export,
    check_gates,
    check_gradients,
    check_identity,
    check_interface,
    check_layout,
    check_meta,
    check_parameters_and_dtypes,
    check_shape,
    check_state,
    check_trains,
    feature_map,
)
from towernet.testing.networks import (
    NETWORK_CHECKS,
    check_network,
    check_network_building,
    check_network_gradients,
    check_network_layout,
    check_network_logits,
    check_network_neighbours,
    check_network_outline,
    check_network_repetition,
    check_network_seed,
    check_network_sizes,
    check_network_state,
)

__all__ = [
    "ATTENTION_CHECKS",
    "NETWORK_CHECKS",
    "build_block",
    "check_autocast",
    "check_batch_independence",
    "check_block",
    "check_export",
    "check_gates",
    "check_gradients",
    "check_identity",
    "check_interface",
    "check_layout",
    "check_meta",
    "check_network",
    "check_network_building",
    "check_network_gradients",
    "check_network_layout",
    "check_network_logits",
    "check_network_neighbours",
    "check_network_outline",
    "check_network_repetition",
    "check_network_seed",
    "check_network_sizes",
    "check_network_state",
    "check_parameters_and_dtypes",
    "check_shape",
    "check_state",
    "check_trains",
    "feature_map",
]
