"""placeholder until the branch arrives."""

from towernet.attention.base import ATTENTION, AttentionBlock


def attention_block(name: str) -> type[AttentionBlock]:
    """Return it."""
    return ATTENTION[name]
