"""Every block against its paper's equations, in plain Python loops over plain numbers.

Each seed draws sizes (small primes), options, parameters and a map. The loops do not use torch:
they take the numbers of the block's state and of the map, and return the attention map and the
output. The block must compute both in fp64 and in fp32, and its gradient must be the slope of the
loops along a random direction of the map and all parameters.

A sabotaged twin is the block's own source with one thing changed.
"""

import copy
import inspect
import math
import random
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from towernet.attention import ATTENTION, AttentionBlock, fused, shuffle_by_norm
from towernet.testing import build_block, feature_map

SEEDS = 200
DOUBLE_TOLERANCE = 1e-9
# fp32 has seven digits. A mean of 100 costs two of them; a flat map some more, since the slope of
# the gates of shuffle attention and SGE is then up to 316.
FLOAT_TOLERANCE = {0: 1e-4, 3: 1e-4, 100: 1e-3}
PRIMES = (2, 3, 5, 7, 11, 13)
SIDES = (1, 2, 3, 5, 7)

Vector = list[float]
Plane = list[Vector]  # rows of pixels
Image = list[Plane]  # channels
State = dict[str, Any]


# Helpers for the loops.


def sigmoid(value: float) -> float:
    return (1 + math.tanh(value / 2)) / 2  # 1 / (1 + exp(-value)), which overflows below -709


def relu(value: float) -> float:
    return max(0.0, value)


def pixels(plane: Plane) -> Vector:
    return [value for row in plane for value in row]


def mean(values: Vector) -> float:
    return math.fsum(values) / len(values)


def variance(values: Vector) -> float:
    return mean([(value - mean(values)) ** 2 for value in values])


def dot(left: Vector, right: Vector) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def linear(state: State, layer: str, values: Vector) -> Vector:
    """Apply a linear layer, or a 1 × 1 convolution at one position."""
    weight, bias = state[f"{layer}.weight"], state.get(f"{layer}.bias", [0.0] * 99)
    rows = [[w[0][0] if isinstance(w, list) else w for w in row] for row in weight]
    return [dot(row, values) + bias[r] for r, row in enumerate(rows)]


def filled(image: Image, value: Callable[[int, int, int], float]) -> Image:
    """Return an image of the same size with value(channel, row, column) at each position."""
    return [
        [[value(c, i, j) for j in range(len(row))] for i, row in enumerate(plane)]
        for c, plane in enumerate(image)
    ]


def gated(image: Image, gates: Image) -> Image:
    return filled(image, lambda c, i, j: image[c][i][j] * gates[c][i][j])


# The equations: from a block's state, its options and an image to its attention map and output.


def squeeze_excitation(state: State, _options: dict, image: Image) -> tuple[Image, Image]:
    squeezed = [mean(pixels(plane)) for plane in image]
    hidden = [relu(value) for value in linear(state, "squeeze", squeezed)]
    gate = [sigmoid(value) for value in linear(state, "excite", hidden)]
    gates = filled(image, lambda c, i, j: gate[c])
    return gates, gated(image, gates)


def efficient_channel(state: State, options: dict, image: Image) -> tuple[Image, Image]:
    (kernel,) = state["convolution.weight"][0]
    if options["kernel_size"] is None:
        wanted = (math.log2(len(image)) + 1) / 2
        assert len(kernel) == min(range(1, 99, 2), key=lambda odd: (abs(odd - wanted), -odd))
    means = [mean(pixels(plane)) for plane in image]
    gate = []
    for c in range(len(means)):
        total = 0.0
        for tap, weight in enumerate(kernel):
            neighbour = c + tap - len(kernel) // 2
            if 0 <= neighbour < len(means):
                total += weight * means[neighbour]
        gate.append(sigmoid(total))
    gates = filled(image, lambda c, i, j: gate[c])
    return gates, gated(image, gates)


def convolutional_block(state: State, _options: dict, image: Image) -> tuple[Image, Image]:
    def mlp(pooled: Vector) -> Vector:
        return linear(state, "excite", [relu(h) for h in linear(state, "squeeze", pooled)])

    of_means = mlp([mean(pixels(plane)) for plane in image])
    of_maxima = mlp([max(pixels(plane)) for plane in image])
    channel = [sigmoid(a + b) for a, b in zip(of_means, of_maxima, strict=True)]
    refined = filled(image, lambda c, i, j: channel[c] * image[c][i][j])

    height, width = len(image[0]), len(image[0][0])
    at = [[[plane[i][j] for plane in refined] for j in range(width)] for i in range(height)]
    pooled = ([[mean(v) for v in row] for row in at], [[max(v) for v in row] for row in at])
    (kernels,) = state["spatial.weight"]
    reach = len(kernels[0]) // 2

    def spatial(i: int, j: int) -> float:
        total = 0.0
        for plane, kernel in zip(pooled, kernels, strict=True):
            for k in range(max(0, i - reach), min(height, i + reach + 1)):
                for m in range(max(0, j - reach), min(width, j + reach + 1)):
                    total += kernel[k - i + reach][m - j + reach] * plane[k][m]
        return sigmoid(total)

    position = [[spatial(i, j) for j in range(width)] for i in range(height)]
    gates = filled(image, lambda c, i, j: channel[c] * position[i][j])
    return gates, filled(image, lambda c, i, j: refined[c][i][j] * position[i][j])


def spatial_group(state: State, options: dict, image: Image) -> tuple[Image, Image]:
    size, gates = len(image) // options["groups"], []
    for g in range(options["groups"]):
        members = image[g * size : (g + 1) * size]
        means = [mean(pixels(plane)) for plane in members]
        likeness = [
            [dot(means, [plane[i][j] for plane in members]) for j in range(len(image[0][0]))]
            for i in range(len(image[0]))
        ]
        centre, spread = mean(pixels(likeness)), variance(pixels(likeness))
        weight, bias = state["weight"][g], state["bias"][g]
        gate = [
            [sigmoid(weight * (c - centre) / math.sqrt(spread + 1e-5) + bias) for c in row]
            for row in likeness
        ]
        gates += [gate] * size
    return gates, gated(image, gates)


def coordinate(state: State, options: dict, images: list[Image]) -> list[tuple[Image, Image]]:
    """For all images at once: in training, batch norm uses statistics of the batch."""
    strips = []  # [image][row or column][bottleneck channel]
    for image in images:
        height, width = len(image[0]), len(image[0][0])
        rows = [[mean(plane[i]) for plane in image] for i in range(height)]
        columns = [[mean([row[j] for row in plane]) for plane in image] for j in range(width)]
        strips.append([linear(state, "squeeze", place) for place in rows + columns])

    centre, spread = state["norm.running_mean"], state["norm.running_var"]
    if options["training"]:
        channels = list(zip(*[place for strip in strips for place in strip], strict=True))
        centre = [mean(channel) for channel in channels]
        spread = [variance(channel) for channel in channels]

    def hidden(r: int, value: float) -> float:
        normed = (value - centre[r]) / math.sqrt(spread[r] + 1e-5)
        value = state["norm.weight"][r] * normed + state["norm.bias"][r]
        return value * min(max(value + 3, 0), 6) / 6

    done = []
    for image, strip in zip(images, strips, strict=True):
        height = len(image[0])
        strip = [[hidden(r, value) for r, value in enumerate(place)] for place in strip]
        row = [[sigmoid(value) for value in linear(state, "rows", h)] for h in strip[:height]]
        column = [[sigmoid(value) for value in linear(state, "columns", h)] for h in strip[height:]]
        gates = filled(image, lambda c, i, j, row=row, column=column: row[i][c] * column[j][c])
        done.append((gates, gated(image, gates)))
    return done


def global_context(state: State, _options: dict, image: Image) -> tuple[Image, Image]:
    height, width = len(image[0]), len(image[0][0])
    places = [[plane[i][j] for plane in image] for i in range(height) for j in range(width)]
    scores = [linear(state, "key", place)[0] for place in places]
    powers = [math.exp(score - max(scores)) for score in scores]
    weights = [power / math.fsum(powers) for power in powers]
    context = linear(state, "squeeze", [dot(weights, pixels(plane)) for plane in image])
    centre, spread = mean(context), variance(context)
    hidden = []
    for r, value in enumerate(context):
        normed = (value - centre) / math.sqrt(spread + 1e-5)
        hidden.append(relu(state["norm.weight"][r] * normed + state["norm.bias"][r]))
    added = linear(state, "excite", hidden)
    map_of_one = filled(image[:1], lambda _, i, j: weights[i * width + j])
    return map_of_one, filled(image, lambda c, i, j: image[c][i][j] + added[c])


def simam(_state: State, options: dict, image: Image) -> tuple[Image, Image]:
    centre = [mean(pixels(plane)) for plane in image]
    spread = [variance(pixels(plane)) for plane in image]

    def gate(c: int, i: int, j: int) -> float:
        above = 4 * (spread[c] + options["lambda_"])
        below = (image[c][i][j] - centre[c]) ** 2 + 2 * spread[c] + 2 * options["lambda_"]
        energy = above / below
        return sigmoid(1 / energy)

    gates = filled(image, gate)
    return gates, gated(image, gates)


def shuffle(state: State, options: dict, image: Image) -> tuple[Image, Image]:
    half = len(image) // (2 * options["groups"])
    centre = [mean(pixels(plane)) for plane in image]
    spread = [variance(pixels(plane)) for plane in image]

    def gate(c: int, i: int, j: int) -> float:
        k = c % half
        if c // half % 2 == 0:
            return sigmoid(state["channel_weight"][k] * centre[c] + state["channel_bias"][k])
        normed = (image[c][i][j] - centre[c]) / math.sqrt(spread[c] + 1e-5)
        normed = state["norm_weight"][k] * normed + state["norm_bias"][k]
        return sigmoid(state["spatial_weight"][k] * normed + state["spatial_bias"][k])

    gates = filled(image, gate)
    weighed = gated(image, gates)
    first, second = weighed[: len(image) // 2], weighed[len(image) // 2 :]
    return gates, [plane for pair in zip(first, second, strict=True) for plane in pair]


# Random sizes and options.


def _reduced(draw: random.Random, least: int = 1) -> tuple[int, dict]:
    channels = draw.choice([c for c in PRIMES if c >= least])
    return channels, {"reduction": draw.randint(1, channels // least)}


def _odd_kernel(draw: random.Random) -> tuple[int, dict]:
    channels = draw.choice(PRIMES)
    kernel_size = draw.choice([None, *range(1, min(2 * channels, 8), 2)])
    return channels, {"kernel_size": kernel_size}


def _window(draw: random.Random) -> tuple[int, dict]:
    channels, options = _reduced(draw)
    return channels, {**options, "kernel_size": draw.choice((1, 3, 5, 7))}


def _groups(draw: random.Random) -> tuple[int, dict]:
    groups, size = draw.choice((1, 2, 3, 5)), draw.choice((1, 2, 3))
    return groups * size, {"groups": groups}


def _groups_of_halves(draw: random.Random) -> tuple[int, dict]:
    channels, options = _groups(draw)
    return 2 * channels, options


def _lambda(draw: random.Random) -> tuple[int, dict]:
    return draw.choice(PRIMES), {"lambda_": draw.choice((1e-4, 0.1))}


Loops = Callable[[State, dict, list[Image]], list[tuple[Image, Image]]]


def each(loops: Callable[[State, dict, Image], tuple[Image, Image]]) -> Loops:
    """Return loops over all images, from loops over one image."""
    return lambda state, options, images: [loops(state, options, image) for image in images]


class Equations(NamedTuple):
    """A block's equations, and how a seed's sizes and options are drawn."""

    loops: Loops
    draw: Callable[[random.Random], tuple[int, dict]]


EQUATIONS = {
    "se": Equations(each(squeeze_excitation), _reduced),
    "eca": Equations(each(efficient_channel), _odd_kernel),
    "cbam": Equations(each(convolutional_block), _window),
    "sge": Equations(each(spatial_group), _groups),
    "coordinate": Equations(coordinate, _reduced),
    "global_context": Equations(each(global_context), lambda draw: _reduced(draw, 2)),
    "simam": Equations(each(simam), _lambda),
    "shuffle": Equations(each(shuffle), _groups_of_halves),
}


def check_equations(name: str, block_class: Callable[..., AttentionBlock], seed: int) -> None:
    """Compare the block of one seed with the loops: its map, its output and its gradient.

    As runs compute it, and as other programs do.
    """
    with fused.formula_only():
        check_as_it_is(name, block_class, seed)
    if name == "shuffle":
        check_as_it_is(name, block_class, seed)


def check_as_it_is(name: str, block_class: Callable[..., AttentionBlock], seed: int) -> None:
    equations, draw = EQUATIONS[name], random.Random(seed)
    channels, options = equations.draw(draw)
    num_images, height, width = draw.choice((1, 2, 3)), draw.choice(SIDES), draw.choice(SIDES)
    block = build_block(lambda c: block_class(c, **options), channels, seed)
    for buffer in block.buffers():
        if buffer.is_floating_point():
            buffer.copy_(feature_map(*buffer.shape, seed=seed).abs() + 0.1)
    x = feature_map(num_images, channels, height, width, seed=seed)
    offset = draw.choice(list(FLOAT_TOLERANCE))
    x = x * draw.choice((0.5, 1, 3)) + offset
    block.train(draw.random() < 0.5)
    options["training"] = block.training

    def in_loops(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        numbers = {key: value.tolist() for key, value in state.items()}
        maps, outputs = zip(*equations.loops(numbers, options, x.tolist()), strict=True)
        return torch.tensor(maps, dtype=torch.double), torch.tensor(outputs, dtype=torch.double)

    state = {key: value.clone() for key, value in block.state_dict().items()}
    wanted_map, wanted = in_loops(state, x)
    for dtype, tolerance in (
        (torch.double, DOUBLE_TOLERANCE),
        (torch.float, FLOAT_TOLERANCE[offset]),
    ):
        candidate = copy.deepcopy(block).to(dtype)
        with torch.no_grad():
            found_map = candidate.attention_map(x.to(dtype)).double()
            found = candidate(x.to(dtype)).double()
        errors = [_error(found_map.expand_as(wanted_map), wanted_map), _error(found, wanted)]
        assert max(errors) <= tolerance, (dtype, errors)

    _check_slope(block.double(), state, x.double(), in_loops, seed)


def _error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float(((found - wanted).abs() / (1 + wanted.abs())).max())


def _check_slope(block: nn.Module, state: dict[str, Tensor], x: Tensor, in_loops: Any, seed: int):
    """Check the block's gradient along a random direction against a difference quotient."""
    generator = torch.Generator().manual_seed(seed)
    direction = {
        key: torch.randn(value.shape, generator=generator, dtype=torch.double)
        for key, value in (*block.named_parameters(), ("", x))
    }
    weights = torch.randn(x.shape, generator=generator, dtype=torch.double)
    step, sides = 1e-6, []
    for sign in (1, -1):
        moved = {
            key: value.double() + sign * step * direction[key] if key in direction else value
            for key, value in state.items()
        }
        _, y = in_loops(moved, x + sign * step * direction[""])
        sides.append(float((y * weights).sum()))
    wanted = (sides[0] - sides[1]) / (2 * step)

    x = x.clone().requires_grad_()
    (block(x) * weights).sum().backward()
    found = float((x.grad * direction[""]).sum())
    for key, parameter in block.named_parameters():
        assert parameter.grad is not None, key
        found += float((parameter.grad * direction[key]).sum())
    assert abs(found - wanted) <= 1e-5 * (1 + abs(wanted)), (found, wanted)


@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_every_block_computes_its_papers_equations(name):
    for seed in range(SEEDS):
        check_equations(name, ATTENTION[name], seed)


TWINS = [
    ("se", "torch.sigmoid", ""),
    ("se", "torch.relu", "nn.functional.gelu"),
    (
        "se",
        "channel_means(x_BCHW, wide(x_BCHW, self.squeeze.weight))",
        "x_BCHW.amax((2, 3))",
    ),
    ("se", "return gate_BC[", "return gate_BC.mean(0, keepdim=True).expand_as(gate_BC)["),
    ("se", "return gate_BC[", "return gate_BC.flip(1)["),
    ("se", "return gate_BC[", "return gate_BC.detach()["),
    ("se", "self.squeeze(mean_BC)", "self.squeeze(mean_BC.detach())"),
    ("eca", "torch.sigmoid", ""),
    (
        "eca",
        "channel_means(x_BCHW, wide(x_BCHW, self.convolution.weight))",
        "x_BCHW.amax((2, 3))",
    ),
    ("eca", "bias=False", "bias=True"),
    ("eca", "bias=False", 'padding_mode="circular", bias=False'),
    ("eca", "mean_BC[:, None]", "mean_BC.flip(1)[:, None]"),
    ("eca", "PAPERS_GAMMA, PAPERS_B = 2, 1", "PAPERS_GAMMA, PAPERS_B = 2, 2"),
    ("eca", "else below + 1", "else below - 1"),
    ("eca", "return gate_BC[", "return gate_BC.mean(0, keepdim=True).expand_as(gate_BC)["),
    ("eca", "return gate_BC[", "return gate_BC.detach()["),
    ("cbam", "torch.sigmoid(self._mlp", "(self._mlp"),
    ("cbam", "torch.sigmoid(self.spatial", "(self.spatial"),
    ("cbam", "torch.relu", "nn.functional.gelu"),
    ("cbam", "self._mlp(mean_BC) + self._mlp(max_BC)", "self._mlp(mean_BC)"),
    ("cbam", "self._mlp(mean_BC) + self._mlp(max_BC)", "self._mlp(mean_BC + max_BC)"),
    ("cbam", "over_positions(x_BCHW).max(dim=1).values", "over_positions(x_BCHW).mean(dim=1)"),
    ("cbam", "x_BCHW.max(dim=1, keepdim=True).values", "x_BCHW.mean(dim=1, keepdim=True)"),
    ("cbam", "x_BCHW * channel_BC11", "x_BCHW"),
    ("cbam", "self.spatial_gate(refined_BCHW)", "self.spatial_gate(refined_BCHW.detach())"),
    ("cbam", "[mean_B1HW, max_B1HW]", "[max_B1HW, mean_B1HW]"),
    ("cbam", "2, bias=False", '2, padding_mode="circular", bias=False'),
    ("cbam", "* spatial_B1HW", "* spatial_B1HW.transpose(2, 3).reshape(spatial_B1HW.shape)"),
    ("cbam", "* spatial_B1HW", "* spatial_B1HW.mean(0)"),
    ("sge", "torch.sigmoid", ""),
    ("sge", "correction=0", "correction=1"),
    ("sge", "unflatten(1, (self.groups, -1))", "unflatten(1, (-1, self.groups)).transpose(1, 2)"),
    (
        "sge",
        "repeat_interleave(self.channels // self.groups, dim=1)",
        "repeat(1, self.channels // self.groups, 1, 1)",
    ),
    ("sge", ".sum(dim=2)", ".mean(dim=2)"),
    ("sge", ".sum(dim=2)", ".amax(dim=2)"),
    ("sge", "_EPSILON = 1e-5", "_EPSILON = 1e-4"),
    ("sge", "(likeness_BGHW, dim=(2, 3)", "(likeness_BGHW, dim=(0, 2, 3)"),
    ("sge", "self.weight[:, None, None] +", "self.weight.mean() +"),
    ("sge", "(x_BCHW * mean_BC11)", "(x_BCHW * mean_BC11.detach())"),
    ("sge", "(x_BCHW * mean_BC11)", "(x_BCHW - x_BCHW.detach() + x_BCHW.amax(1, keepdim=True))"),
    ("coordinate", "torch.sigmoid(self.rows(hidden_BRH1))", "self.rows(hidden_BRH1)"),
    ("coordinate", "torch.sigmoid(self.columns(hidden_BRW1))", "self.columns(hidden_BRW1)"),
    ("coordinate", "hardswish", "silu"),
    ("coordinate", "hardswish", "relu"),
    ("coordinate", "self.norm(self.squeeze(means_BCL1))", "self.squeeze(means_BCL1)"),
    ("coordinate", "torch.sigmoid(self.rows(", "torch.sigmoid(self.columns("),
    ("coordinate", "rows_BCH1 * columns_BC1W", "rows_BCH1 + 0 * columns_BC1W"),
    ("coordinate", "rows_BCH1 * columns_BC1W", "rows_BCH1.flip(2) * columns_BC1W"),
    ("coordinate", "rows_BCH1 * columns_BC1W", "rows_BCH1 * columns_BC1W.detach()"),
    ("coordinate", "rows_BCH1 * columns_BC1W", "rows_BCH1.mean(0) * columns_BC1W"),
    ("coordinate", "x_BCHW.mean(dim=3, keepdim=True, dtype=dtype)", "x_BCHW.amax(3, keepdim=True)"),
    ("coordinate", "BatchNorm2d(bottleneck)", "BatchNorm2d(bottleneck, eps=1e-3)"),
    ("global_context", "torch.relu", "nn.functional.gelu"),
    (
        "global_context",
        "torch.softmax(score_B1HW.flatten(2), dim=2)",
        "torch.sigmoid(score_B1HW.flatten(2))",
    ),
    ("global_context", "dim=2)", "dim=0)"),
    ("global_context", "self.norm(self.squeeze(pooled_BC))", "self.squeeze(pooled_BC)"),
    ("global_context", "x_BCHW + self.context(x_BCHW)", "x_BCHW * self.context(x_BCHW)"),
    ("global_context", "self.attention_map(wide_BCHW)", "self.attention_map(wide_BCHW).detach()"),
    (
        "global_context",
        "weight_B1HW: Tensor = weight_B1N.",
        "weight_B1HW: Tensor = weight_B1N.flip(2).",
    ),
    ("global_context", "[:, :, 0]", "[:, :, 0].mean(0, keepdim=True).expand(x_BCHW.shape[:2])"),
    ("global_context", "return context_BC[", "return context_BC.flip(1)["),
    ("simam", "torch.sigmoid", ""),
    ("simam", "+ 0.5", ""),
    ("simam", "(4 * ", "(2 * "),
    ("simam", "** 2", ".abs()"),
    ("simam", "var_BC11 + self.lambda_", "var_BC11 + 1e-4"),
    ("simam", "(x_BCHW - mean_BC11)", "(x_BCHW - mean_BC11.detach())"),
    ("simam", "squares_BCHW /", "squares_BCHW.detach() /"),
    ("simam", "squares_BCHW.mean(dim=(2, 3)", "squares_BCHW.mean(dim=(0, 2, 3)"),
    ("simam", "squares_BCHW.mean(dim=(2, 3)", "squares_BCHW.amax(dim=(2, 3)"),
    ("simam", "x_BCHW.mean(dim=(2, 3)", "x_BCHW.mean(dim=(1, 2, 3)"),
    (
        "simam",
        "squares_BCHW.mean(dim=(2, 3), keepdim=True)",
        "(x_BCHW**2).mean((2, 3), keepdim=True) - mean_BC11**2",
    ),
    ("shuffle", "torch.sigmoid", ""),
    ("shuffle", "correction=0", "correction=1"),
    ("shuffle", "_EPSILON = 1e-5", "_EPSILON = 1e-4"),
    (
        "shuffle",
        "[channel_offset_BGk, spatial_offset_BGk]",
        "[spatial_offset_BGk, channel_offset_BGk]",
    ),
    (
        "shuffle",
        "torch.var_mean(x_BCHW, dim=(2, 3), correction=0)",
        "(x_BCHW**2).mean((2, 3)) - x_BCHW.mean((2, 3)) ** 2, x_BCHW.mean((2, 3))",
    ),
    ("shuffle", "= mean_BGhk.unbind(2)", "= mean_BGhk.flip(2).unbind(2)"),
    ("shuffle", "spatial_weight * norm_bias - slope", "norm_bias - slope"),
    ("shuffle", "(groups, 2, -1)", "(2, groups, -1)).transpose(1, 2"),
    ("shuffle", "unflatten(1, (2, -1))", "unflatten(1, (-1, 2))"),
    ("shuffle", "return shuffle_channels(y_BCHW) if shuffles else y_BCHW", "return y_BCHW"),
    ("shuffle", "slope_BGk * spatial_mean_BGk", "slope_BGk * spatial_mean_BGk.detach()"),
    (
        "shuffle",
        "mean_BGhk = mean_BC.",
        "mean_BGhk = mean_BC.mean(0, keepdim=True).expand_as(mean_BC).",
    ),
]


def sabotaged(name: str, old: str, new: str) -> type[AttentionBlock]:
    """Return the block whose source has `new` in place of `old`."""
    module = sys.modules[ATTENTION[name].__module__]
    source = re.sub(r"^@ATTENTION.*\n", "", inspect.getsource(module), flags=re.MULTILINE)
    return changed(source, old, new)[ATTENTION[name].__name__]


def changed(source: str, old: str, new: str) -> dict[str, Any]:
    """Return what a module has if its source has `new` in place of `old`."""
    assert old in source, f"the source no longer contains {old!r}"
    twin: dict[str, Any] = {"__name__": "sabotaged"}
    exec(source.replace(old, new), twin)
    return twin


@pytest.mark.parametrize(("name", "old", "new"), TWINS)
def test_the_equations_reject_every_sabotaged_twin(name, old, new):
    twin = sabotaged(name, old, new)
    with pytest.raises(AssertionError):
        for seed in range(SEEDS):
            check_equations(name, twin, seed)


@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_a_twin_without_a_change_is_not_rejected(name):
    """The twins are rejected because of their change, not because of how they are made."""
    twin = sabotaged(name, "torch.", "torch.")
    for seed in range(SEEDS // 10):
        check_equations(name, twin, seed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.sigmoid(z)", "z"),
        ("bias, epsilon)", "bias, 10 * epsilon)"),
        ("spatial_weight * norm_bias", "norm_bias"),
        ("channel_NkHW.mean((2, 3)", "channel_NkHW.mean((0, 2, 3)"),
        ("(spatial_NkHW, z_NkHW)", "(spatial_NkHW.detach(), z_NkHW)"),
        ("spatial_NkHW - spatial_NkHW.detach().mean((2, 3), keepdim=True)", "spatial_NkHW"),
        ("unflatten(1, (2, -1))", "unflatten(1, (-1, 2))"),
        ("chunk(2, dim=1)", "flip(1).chunk(2, dim=1)"),
    ],
)
def test_the_equations_reject_a_wrong_norm(old, new, monkeypatch):
    twin = changed(inspect.getsource(shuffle_by_norm), old, new)
    monkeypatch.setattr(shuffle_by_norm, "shuffle_attention", twin["shuffle_attention"])
    with pytest.raises(AssertionError):
        for seed in range(SEEDS):
            check_equations("shuffle", ATTENTION["shuffle"], seed)
