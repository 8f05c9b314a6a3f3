"""Attention blocks: a contract over everything registered, and the paper's equations in loops."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from towernet.attention import (
    ATTENTION,
    ConvolutionalBlockAttention,
    CoordinateAttention,
    EfficientChannelAttention,
    GatedBlock,
    GlobalContext,
    ShuffleAttention,
    SimAM,
    SpatialGroupEnhance,
    SqueezeExcitation,
)
from towernet.attention.shuffle import shuffle_channels
from towernet.errors import ConfigError, UnknownNameError

CHANNELS, GROUPS = 24, 3  # four channels in half a group


def build(block_class: Callable[..., GatedBlock], channels: int = 128) -> GatedBlock:
    """Return a block whose parameters have left their start values, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        block = block_class(channels)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    return block


def feature_map(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# The contract.


def check_shape(block_class: Callable[..., GatedBlock]) -> None:
    """Same shape out as in, down to one pixel; the gates fit over the map."""
    for height, width in ((5, 7), (1, 1), (1, 3)):
        x = feature_map(2, 128, height, width)
        block = build(block_class)
        assert block(x).shape == x.shape
        assert torch.broadcast_shapes(block.attention_map(x).shape, x.shape) == x.shape


def check_gates(block_class: Callable[..., GatedBlock]) -> None:
    """Gates lie between 0 and 1."""
    gates = build(block_class).attention_map(feature_map(2, 128, 5, 7))
    assert 0 <= gates.min() < gates.max() <= 1


def check_batch_independence(block_class: Callable[..., GatedBlock]) -> None:
    """An image does not see its neighbours in the batch."""
    block, x = build(block_class).eval(), feature_map(4, 128, 7, 5)
    torch.testing.assert_close(block(x)[2:3], block(x[2:3]))


def check_gradients(block_class: Callable[..., GatedBlock]) -> None:
    """The input and every parameter get a gradient, finite and not zero."""
    block, x = build(block_class), feature_map(2, 128, 7, 5).requires_grad_()
    (block(x) * feature_map(2, 128, 7, 5, seed=2)).sum().backward()
    for tensor in (x, *block.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert (tensor.grad != 0).any()


def check_layout(block_class: Callable[..., GatedBlock]) -> None:
    """The memory layout that comes in goes out, and its gradient back, with the same numbers."""
    x = feature_map(2, 128, 7, 5)
    wanted = build(block_class)(x)
    assert wanted.is_contiguous()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    found = build(block_class)(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, wanted)


def check_autocast(block_class: Callable[..., GatedBlock]) -> None:
    """Under bf16 autocast a bf16 map stays one, and only its rounding shows, even far from 0."""
    x = (feature_map(2, 128, 7, 5) + 30).bfloat16()
    block = build(block_class)
    with torch.autocast("cpu", torch.bfloat16):
        found = block(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), block(x.float()), rtol=2**-8, atol=1e-3)


CHECKS = [
    check_shape,
    check_gates,
    check_batch_independence,
    check_gradients,
    check_layout,
    check_autocast,
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_every_block_keeps_every_promise(name, check):
    check(ATTENTION[name])


class Sound(GatedBlock):
    """Keeps every promise; each class below breaks one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def attention_map(self, x_BCHW: Tensor) -> Tensor:
        mean_BC11 = x_BCHW.float().mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(mean_BC11 * self.weight[:, None, None])


class DropsAnAxis(Sound):
    def forward(self, x_BCHW):
        return super().forward(x_BCHW)[:, :, 0]


class DoesNotSquash(Sound):
    def attention_map(self, x_BCHW):
        return 3 * super().attention_map(x_BCHW)


class SeesItsNeighbours(Sound):
    def attention_map(self, x_BCHW):
        return super().attention_map(x_BCHW) * x_BCHW.sigmoid().mean()


class CutsTheGradient(Sound):
    def attention_map(self, x_BCHW):
        return super().attention_map(x_BCHW).detach()


class ForgetsTheLayout(Sound):
    def forward(self, x_BCHW):
        return super().forward(x_BCHW).contiguous()


class CountsInBfloat16(Sound):
    def attention_map(self, x_BCHW):
        centred = x_BCHW - x_BCHW.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(10 * centred * self.weight[:, None, None].to(x_BCHW.dtype))


def test_the_sound_block_keeps_every_promise():
    for check in CHECKS:
        check(Sound)


@pytest.mark.parametrize(
    ("check", "sabotaged"),
    [
        (check_shape, DropsAnAxis),
        (check_gates, DoesNotSquash),
        (check_batch_independence, SeesItsNeighbours),
        (check_gradients, CutsTheGradient),
        (check_layout, ForgetsTheLayout),
        (check_autocast, CountsInBfloat16),
    ],
)
def test_each_check_rejects_its_sabotaged_twin(check, sabotaged):
    with pytest.raises(AssertionError):
        check(sabotaged)


# The paper's equations.


def in_plain_loops(block: ShuffleAttention, x_BCHW: Tensor) -> Tensor:
    """Shuffle attention as the paper and the notebook write it, one channel at a time, fp64."""
    w, b = block.channel_weight.double(), block.channel_bias.double()
    s, t = block.spatial_weight.double(), block.spatial_bias.double()
    gamma, beta = block.norm_weight.double(), block.norm_bias.double()
    num_images, channels = x_BCHW.shape[:2]
    half = channels // (2 * block.groups)
    gated = torch.empty_like(x_BCHW, dtype=torch.float64)
    for image in range(num_images):
        for group in range(block.groups):
            for j in range(half):
                first = group * 2 * half + j
                x0 = x_BCHW[image, first].double()
                x1 = x_BCHW[image, first + half].double()
                gated[image, first] = x0 * torch.sigmoid(w[j] * x0.mean() + b[j])
                mean = x1.mean()
                normed = (x1 - mean) / torch.sqrt(((x1 - mean) ** 2).mean() + 1e-5)
                gate = torch.sigmoid(s[j] * (gamma[j] * normed + beta[j]) + t[j])
                gated[image, first + half] = x1 * gate
    shuffled = torch.empty_like(gated)
    for channel in range(channels):
        half_of_all, place = divmod(channel, channels // 2)
        shuffled[:, 2 * place + half_of_all] = gated[:, channel]
    return shuffled


def check_equations(block_class: Callable[..., GatedBlock]) -> None:
    """The numbers are the equations', also where the mean is large against the spread."""
    block = build(lambda channels: block_class(channels, groups=GROUPS), CHANNELS)
    for offset, tolerance in ((0.0, 2e-6), (100.0, 2e-4)):
        x = feature_map(2, CHANNELS, 5, 7) + offset
        found, wanted = block(x).double(), in_plain_loops(block, x)
        # fp32 keeps seven digits of x; its spread is 1, so 100 of mean cost two of them.
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


class CancelsItsVariance(ShuffleAttention):
    """E[x²] − μ²: what the block must not do."""

    def attention_map(self, x_BCHW):
        groups_of_halves = (self.groups, 2, -1)
        x = x_BCHW.unflatten(1, groups_of_halves)[:, :, 1]
        mean = x.mean(dim=(3, 4), keepdim=True)
        var = ((x**2).mean(dim=(3, 4), keepdim=True) - mean**2).clamp(min=0)
        columns = [p[:, None, None] for p in (self.spatial_weight, self.norm_weight)]
        slope = columns[0] * columns[1] * (var + 1e-5).rsqrt()
        offset = (self.spatial_weight * self.norm_bias + self.spatial_bias)[:, None, None]
        channel = super().attention_map(x_BCHW).unflatten(1, groups_of_halves)[:, :, 0]
        spatial = torch.sigmoid(slope * (x - mean) + offset)
        return torch.stack([channel, spatial], dim=2).flatten(1, 3)


class ShufflesTheOtherWay(ShuffleAttention):
    def forward(self, x_BCHW):
        gated = GatedBlock.forward(self, x_BCHW)
        return gated.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)


class SwapsTheHalves(ShuffleAttention):
    def attention_map(self, x_BCHW):
        halves = x_BCHW.unflatten(1, (self.groups, 2, -1)).flip(2).flatten(1, 3)
        gates = super().attention_map(halves)
        return gates.unflatten(1, (self.groups, 2, -1)).flip(2).flatten(1, 3)


def test_shuffle_attention_is_the_papers_equations():
    check_equations(ShuffleAttention)


@pytest.mark.parametrize("sabotaged", [CancelsItsVariance, ShufflesTheOtherWay, SwapsTheHalves])
def test_the_equations_reject_their_sabotaged_twins(sabotaged):
    with pytest.raises(AssertionError):
        check_equations(sabotaged)


def test_its_gradients_are_those_of_finite_differences():
    block = build(lambda channels: ShuffleAttention(channels, groups=1), 4).double()
    x = feature_map(2, 4, 2, 3).double().requires_grad_()
    names = dict(block.named_parameters())

    def gated(x, *parameters):
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(block, state, (x,))

    assert torch.autograd.gradcheck(gated, (x, *names.values()))


def test_at_its_start_it_is_a_number_times_a_permutation():
    x = feature_map(2, CHANNELS, 5, 7)
    wanted = torch.sigmoid(torch.tensor(1.0)) * shuffle_channels(x)
    torch.testing.assert_close(ShuffleAttention(CHANNELS, groups=GROUPS)(x), wanted)


def test_the_spatial_half_of_a_single_pixel_is_constant():
    block = build(lambda channels: ShuffleAttention(channels, groups=GROUPS), CHANNELS)
    gates = block.attention_map(feature_map(9, CHANNELS, 1, 1))
    spatial = gates.unflatten(1, (GROUPS, 2, -1))[:, :, 1]
    wanted = torch.sigmoid(block.spatial_weight * block.norm_bias + block.spatial_bias)
    # The slope is up to 316 there, and fp32 forgets the seventh digit of x times it.
    wanted = wanted[:, None, None].expand_as(spatial)
    torch.testing.assert_close(spatial, wanted, rtol=1e-4, atol=1e-4)


def test_channels_last_is_not_copied_into_another_layout():
    block = ShuffleAttention(128)
    x = feature_map(2, 128, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.ones_like(x)
    with torch.profiler.profile() as profile:
        block(x).backward(grad)
    copies = sum(event.count for event in profile.key_averages() if event.key == "aten::clone")
    assert copies == 2  # the shuffle and its gradient; torch's own channel_shuffle needs more
    assert x.grad is not None
    assert x.grad.stride() == x.stride()


def test_the_gates_of_coordinate_attention_lie_in_memory_as_the_map_does():
    block, x = CoordinateAttention(128), feature_map(2, 128, 5, 7)
    assert block.attention_map(x).is_contiguous()
    x = x.contiguous(memory_format=torch.channels_last)
    assert block.attention_map(x).is_contiguous(memory_format=torch.channels_last)


def test_each_layer_of_towernet_has_twelve_parameters():
    assert sum(parameter.numel() for parameter in ShuffleAttention(256).parameters()) == 12


@pytest.mark.parametrize(
    ("channels", "groups", "message"),
    [
        (64, 64, "64 channels cannot be cut into 64 groups of two halves; give groups=32,"),
        (96, 64, "96 channels cannot be cut into 64 groups of two halves; give groups=48,"),
        (320, 64, "give groups=40, or another number whose double divides 320"),
        (7, 1, "7 channels cannot be cut into 1 groups of two halves; give an even number"),
        (64, 0, "64 channels cannot be cut into 0 groups"),
    ],
)
def test_groups_that_do_not_divide_are_refused(channels, groups, message):
    with pytest.raises(ConfigError, match=f"^ShuffleAttention: .*{message}"):
        ShuffleAttention(channels, groups=groups)


@pytest.mark.parametrize(
    ("block_class", "channels", "options", "message"),
    [
        (
            SqueezeExcitation, 8, {},
            "SqueezeExcitation: reduction=16 leaves none of the 8 channels;"
            " give reduction at most 8",
        ),
        (SqueezeExcitation, 8, {"reduction": 0}, "SqueezeExcitation: reduction=0; give at least 1"),
        (SqueezeExcitation, 0, {}, "SqueezeExcitation: channels=0; give at least 1"),
        (
            ConvolutionalBlockAttention, 8, {},
            "ConvolutionalBlockAttention: reduction=16 leaves none of the 8 channels;"
            " give reduction at most 8",
        ),
        (
            ConvolutionalBlockAttention, 64, {"kernel_size": 4},
            "ConvolutionalBlockAttention: kernel_size=4 has no middle;"
            " give an odd number, the paper's is 7",
        ),
        (
            EfficientChannelAttention, 64, {"kernel_size": 4},
            "EfficientChannelAttention: kernel_size=4 does not fit 64 channels;"
            " give an odd number from 1 to 127",
        ),
        (
            EfficientChannelAttention, 2, {"kernel_size": 5},
            "EfficientChannelAttention: kernel_size=5 does not fit 2 channels;"
            " give an odd number from 1 to 3",
        ),
        (
            EfficientChannelAttention, 0, {},
            "EfficientChannelAttention: channels=0; give at least 1",
        ),
        (
            SpatialGroupEnhance, 96, {"groups": 64},
            "SpatialGroupEnhance: 96 channels cannot be cut into 64 groups;"
            " give groups=48, or another divisor of 96",
        ),
        (
            SpatialGroupEnhance, 7, {"groups": 0},
            "SpatialGroupEnhance: 7 channels cannot be cut into 0 groups;"
            " give groups=7, or another divisor of 7",
        ),
        (SpatialGroupEnhance, 0, {}, "SpatialGroupEnhance: channels=0; give at least 1"),
        (
            CoordinateAttention, 64, {"reduction": 0},
            "CoordinateAttention: reduction=0; give at least 1",
        ),
        (CoordinateAttention, 0, {}, "CoordinateAttention: channels=0; give at least 1"),
        (
            GlobalContext, 24, {},
            "GlobalContext: reduction=16 leaves 1 of the 24 channels, which layer norm would make"
            " 0; give reduction at most 12",
        ),
        (
            GlobalContext, 1, {"reduction": 1},
            "GlobalContext: reduction=1 leaves 1 of the 1 channels, which layer norm would make"
            " 0; give at least 2 channels",
        ),
        (
            GlobalContext, 8, {},
            "GlobalContext: reduction=16 leaves none of the 8 channels; give reduction at most 8",
        ),
        (
            SimAM, 8, {"lambda_": 0.0},
            "SimAM: lambda_=0.0; give a number above 0, the paper's is 1e-4",
        ),
        (SimAM, 0, {}, "SimAM: channels=0; give at least 1"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(block_class, channels, options, message):
    with pytest.raises(ConfigError) as caught:
        block_class(channels, **options)
    assert str(caught.value) == message


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"no attention block is called 'shufle'. Did you"):
        ATTENTION["shufle"]
