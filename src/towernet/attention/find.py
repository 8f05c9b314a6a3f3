"""placeholder until the branch arrives"""

from towernet.attention.base import ATTENTION


def attention_block(name):
    return ATTENTION[name]
