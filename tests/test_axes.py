"""Which axes of a tensor are pixels after its shape was changed; checked with numbered pixels."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from towernet.attention.axes import image, pixels, regrouped
from towernet.attention.trace import trace

B, C, H, W = 2, 6, 12, 8


class Applies(nn.Module):
    """A network that applies one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def axes_after(function):
    """Return the axes found for a function's output, and the output for numbered pixels."""
    x_BCHW = torch.arange(B * C * H * W).reshape(B, C, H, W).float()
    seen = trace(Applies(function), (B, C, H, W))
    return seen.returned[""].axes, function(x_BCHW)


def is_map(y, rows, columns):
    """Whether two axes are the rows and columns of a whole image's pixels, in their order."""
    (images, channels) = (i for i in range(4) if i not in (rows, columns))
    y_BCHW = y.permute(images, channels, rows, columns).long()
    row, column, image_number = (y_BCHW // W) % H, y_BCHW % W, y_BCHW // (C * H * W)
    return bool(
        (row == row[:1, :1, :, :1]).all()
        and (column == column[:1, :1, :1]).all()
        and (image_number == image_number[:, :1, :1, :1]).all()
        and (row.diff(dim=2) > 0).all()
        and (column.diff(dim=3) > 0).all()
    )


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: x, (2, 3)),
        (lambda x: x.permute(0, 2, 3, 1), (1, 2)),
        (lambda x: x.movedim(1, -1), (1, 2)),
        (lambda x: x.transpose(1, 2).transpose(2, 3), (1, 2)),
        (lambda x: x.flatten(2).transpose(1, 2).reshape(B, H, W, C), (1, 2)),
        (lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).unflatten(2, (H, W)), (2, 3)),
        (lambda x: x.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2), (2, 3)),
        (lambda x: x.chunk(2, dim=1)[1], (2, 3)),
        (lambda x: x[:, :, ::2, 1::2], (2, 3)),
        (lambda x: x[:, [0, 2, 1]], (2, 3)),
        (lambda x: x.unsqueeze(2).squeeze(2), (2, 3)),
        (lambda x: x.unflatten(1, (2, 3)).unbind(1)[0], (2, 3)),
        (lambda x: x.mul(2).add(x).relu(), (2, 3)),
        (lambda x: x * x.mean((2, 3), keepdim=True), (2, 3)),
        (lambda x: torch.cat([x, x.neg()], dim=1), (2, 3)),
        # Every other position of both axes becomes a channel: how Swin and Focus shrink a map.
        (lambda x: into_channels(x), (1, 2)),
        (lambda x: from_windows(into_windows(x)), (1, 2)),
        (lambda x: into_windows(x), None),
        (lambda x: into_grid(x), None),
        (lambda x: x.transpose(2, 3), None),
        (lambda x: x.flatten(2), None),
        # Rows of patches and rows of pixels in a patch, as MobileViT has them.
        (lambda x: into_patches(x), None),
        (lambda x: x.flatten(2).reshape(B, C, W, H), None),
        # A class token among the pixels.
        (lambda x: torch.cat([x.flatten(2)[:, :, :1], x.flatten(2)], 2)[:, :, 1:], None),
    ],
)  # fmt: skip
def test_the_axes_of_a_map_are_found(function, found):
    axes, y = axes_after(function)
    assert pixels(axes) == found
    if found is not None and sorted(y.flatten()) == list(range(B * C * H * W)):
        assert y.shape[found[0]] == H // 2 or is_map(y, *found)


def into_channels(x_BCHW):
    x = x_BCHW.permute(0, 2, 3, 1).reshape(B, H // 2, 2, W // 2, 2, C)
    return x.permute(0, 1, 3, 4, 2, 5).flatten(3)


def into_windows(x_BCHW, size=4):
    x = x_BCHW.permute(0, 2, 3, 1).view(B, H // size, size, W // size, size, C)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size, size, C)


def from_windows(x, size=4):
    x = x.reshape(B, H // size, W // size, size, size, C)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)


def into_patches(x_BCHW):
    x = x_BCHW.reshape(B, C, H // 2, 2, W // 2, 2)
    return x.permute(0, 1, 3, 5, 2, 4).reshape(B, C, 4, H * W // 4)


def into_grid(x_BCHW, size=4):
    x = x_BCHW.permute(0, 2, 3, 1).view(B, size, H // size, size, W // size, C)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, size, size, C)


def test_attention_among_tokens_keeps_their_positions():
    def function(x):
        q = k = v = x.flatten(2).transpose(1, 2).unflatten(2, (3, 2)).transpose(1, 2)
        by_hand = (q @ k.transpose(2, 3)).softmax(-1) @ v
        at_once = nn.functional.scaled_dot_product_attention(q, k, v)
        return (by_hand + at_once).transpose(2, 3).reshape(B, C, H, W)

    assert pixels(axes_after(function)[0]) == (2, 3)


def lost(x):
    """Return a map by operations that the tracer does not follow."""
    return nn.functional.fold(nn.functional.unfold(x, 1), (H, W), 1)


@pytest.mark.parametrize(
    "reads",
    [
        nn.Conv2d(C, C, 3, padding=1),
        nn.Conv2d(C, C, 1),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(C, C, 2),
    ],
)
def test_a_lost_map_is_recognised_again_by_the_layer_that_reads_it(reads):
    network = nn.Sequential(Applies(lost), nn.BatchNorm2d(C), reads).eval()
    seen = trace(network, (B, C, H, W))
    assert all(seen.returned[name].is_feature_map for name in ("0", "1", "2"))
    assert not trace(network[:2], (B, C, H, W)).returned["1"].is_feature_map


def test_rows_of_tokens_that_a_1x1_convolution_reads_are_not_a_map():
    def rows(x):
        return nn.functional.unfold(x, 1).reshape(B, C, 4, H * W // 4)

    seen = trace(nn.Sequential(Applies(rows), nn.Conv2d(C, C, 1)), (B, C, H, W))
    assert not seen.returned["1"].is_feature_map


@st.composite
def chains(draw):
    """Draw lists of functions that split, permute and merge a tensor's axes."""
    kinds = st.sampled_from(["permute", "split", "merge", "pixels"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 99)), max_size=6))


def apply(x, chain):
    for kind, seed in chain:
        random = Random(seed)
        sizes = list(x.shape)
        if kind == "permute":
            order = list(range(x.dim()))
            random.shuffle(order)
            x = x.permute(order)
        elif kind == "split" and x.dim() < 7:
            axis = random.randrange(x.dim())
            size = random.choice([d for d in (1, 2, 3, 4, 6) if sizes[axis] % d == 0])
            x = x.unflatten(axis, (sizes[axis] // size, size))
        elif kind == "merge" and x.dim() > 1:
            axis = random.randrange(x.dim() - 1)
            x = x.flatten(axis, axis + 1)
        elif kind == "pixels":
            x = x + x.neg() * 0
    return x


@settings(max_examples=150, deadline=None)
@given(chains())
def test_what_is_reported_as_a_map_is_one(chain):
    axes, y = axes_after(lambda x: apply(x, chain))
    found = pixels(axes)
    if found is not None:
        assert y.dim() == 4
        # A coarse part of a split axis is a map of fewer pixels, with its rows in order, too.
        if y.shape[found[0]] == H and y.shape[found[1]] == W:
            assert is_map(y, *found)


def test_numbered_pixels_distinguish_a_transposed_map_from_a_map():
    x_BCHW = torch.arange(B * C * H * W).reshape(B, C, H, W)
    assert is_map(x_BCHW, 2, 3)
    assert not is_map(x_BCHW, 3, 2)
    assert not is_map(x_BCHW.flip(2), 2, 3)
    assert not is_map(x_BCHW.reshape(B, C, W, H), 2, 3)


def test_sizes_that_do_not_divide_are_unknown():
    assert regrouped(image((2, 3, 4, 5)), (5, 4, 6))[0] == (("?", 5),)
    assert regrouped(image((0, 3, 4, 5)), (0, 60)) == ((("?", 0),), (("?", 60),))
