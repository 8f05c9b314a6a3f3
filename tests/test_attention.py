"""Attention blocks: the contract, for every registered block; properties of single blocks."""

import functools
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from towernet import testing
from towernet.attention import (
    ATTENTION,
    AttentionBlock,
    ConvolutionalBlockAttention,
    CoordinateAttention,
    EfficientChannelAttention,
    GatedBlock,
    GlobalContext,
    ShuffleAttention,
    SimAM,
    SpatialGroupEnhance,
    SqueezeExcitation,
    full_precision,
    fused,
)
from towernet.attention.base import paper
from towernet.attention.fit import builder_problem
from towernet.attention.shuffle import shuffle_channels
from towernet.errors import ConfigError, ContractError, UnknownNameError
from towernet.testing import build_block, feature_map

CHANNELS, GROUPS = 24, 3  # four channels in half a group


# The contract.


@pytest.mark.parametrize("check", testing.ATTENTION_CHECKS)
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


class MapsTheOtherWayRound(Sound):
    def forward(self, x_BCHW):
        return x_BCHW * self.attention_map(x_BCHW).transpose(2, 3)

    def attention_map(self, x_BCHW):
        return (super().attention_map(x_BCHW) * x_BCHW.sigmoid()).transpose(2, 3)


class DoesNotSquash(Sound):
    def attention_map(self, x_BCHW):
        return 3 * super().attention_map(x_BCHW)


class SeesItsNeighbours(Sound):
    def attention_map(self, x_BCHW):
        return super().attention_map(x_BCHW) * x_BCHW.sigmoid().mean()


class CutsTheGradient(Sound):
    def attention_map(self, x_BCHW):
        return super().attention_map(x_BCHW).detach()


class HasAnIdleParameter(Sound):
    def __init__(self, channels):
        super().__init__(channels)
        self.idle = nn.Parameter(torch.ones(channels))


class HasAnInfiniteGradient(Sound):
    def forward(self, x_BCHW):
        return super().forward(x_BCHW) + (x_BCHW * 0).sqrt().sum(dim=1, keepdim=True)


class ForgetsTheLayout(Sound):
    def forward(self, x_BCHW):
        return super().forward(x_BCHW).contiguous()


class TurnsTheGradient(Sound):
    def forward(self, x_BCHW):
        return ContiguousGradient.apply(super().forward(x_BCHW))


class ContiguousGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, grad):
        return grad.contiguous()


class CountsInBfloat16(Sound):
    def attention_map(self, x_BCHW):
        centred = x_BCHW - x_BCHW.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(10 * centred * self.weight[:, None, None].to(x_BCHW.dtype))


class ReturnsWhatItsGatesAre(Sound):
    def forward(self, x_BCHW):
        return x_BCHW * self.gates(x_BCHW)


class OverflowsInHalf(Sound):
    def attention_map(self, x_BCHW):
        scale = (x_BCHW.abs() * 1e6).to(x_BCHW.dtype).amax(dim=(1, 2, 3), keepdim=True)
        return super().attention_map(x_BCHW) * (x_BCHW / scale * scale / x_BCHW)


class KeepsAWeightToItself(Sound):
    def __init__(self, channels):
        super().__init__(channels)
        self.secret = float(torch.rand(()))

    def attention_map(self, x_BCHW):
        return super().attention_map(x_BCHW) * self.secret


class KeepsItsStatisticsToItself(Sound):
    def __init__(self, channels):
        super().__init__(channels)
        self.running = torch.ones(channels)

    def attention_map(self, x_BCHW):
        if self.training:
            self.running = x_BCHW.detach().float().mean(dim=(0, 2, 3)).sigmoid()
        return super().attention_map(x_BCHW) * self.running[:, None, None]


class IgnoresTheGain(Sound):
    def blend(self, x_BCHW, gain):
        return self(x_BCHW)


class NeverArrives(Sound):
    def blend(self, x_BCHW, gain):
        return super().blend(x_BCHW, gain / 2)


class BlendsDifferentlyInPlace(Sound):
    def blend_(self, x_BCHW, gain):
        return x_BCHW.add_(1)


class CallsItselfTheIdentity(Sound):
    starts_as_identity = True


class HidesThatItIsTheIdentity(AttentionBlock):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def attention_map(self, x_BCHW):
        return torch.sigmoid(x_BCHW)

    def forward(self, x_BCHW):
        added = self.attention_map(x_BCHW) * self.weight[:, None, None]
        return (x_BCHW + added).to(x_BCHW.dtype)


class StartsBehindTwoZeros(Sound):
    def __init__(self, channels):
        super().__init__(channels)
        self.first = nn.Parameter(torch.zeros(channels))
        self.second = nn.Parameter(torch.zeros(channels))

    def attention_map(self, x_BCHW):
        product = (self.first * self.second)[:, None, None]
        return super().attention_map(x_BCHW) * torch.sigmoid(product)


class MakesTensorsOnTheCpu(Sound):
    def attention_map(self, x_BCHW):
        return super().attention_map(x_BCHW) * torch.full((1, 1, 1, 1), 0.5, device="cpu").expand(
            len(x_BCHW), 1, 1, 1
        )


class LosesAnAxisWithoutNumbers(Sound):
    def forward(self, x_BCHW):
        y_BCHW = super().forward(x_BCHW)
        return y_BCHW[:, :, 0] if y_BCHW.is_meta else y_BCHW


class CountsItsCalls(Sound):
    calls = 0

    def attention_map(self, x_BCHW):
        self.calls += 1
        return super().attention_map(x_BCHW) / self.calls


class WritesTheBatchDown(Sound):
    def attention_map(self, x_BCHW):
        gates = super().attention_map(x_BCHW)
        return torch.cat([gates[i : i + 1] for i in range(len(x_BCHW))])


class NeedsTwoNumbers(Sound):
    def __init__(self, channels, groups):
        super().__init__(channels)


class HasNoMap(AttentionBlock):
    def forward(self, x_BCHW):
        return x_BCHW


class IsNoBlock(nn.Identity):
    pass


class ReturnsTwo(Sound):
    def forward(self, x_BCHW):
        return x_BCHW, self.attention_map(x_BCHW)


class MapsNothing(Sound):
    def forward(self, x_BCHW):
        return x_BCHW * Sound.attention_map(self, x_BCHW).to(x_BCHW.dtype)

    def attention_map(self, x_BCHW):
        super().attention_map(x_BCHW)


class Mistypes(Sound):
    def forward(self, x_BCHW):
        return x_BCHW * self.wieght


class ForgetsAutocast(AttentionBlock):
    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Linear(channels, channels)

    def attention_map(self, x_BCHW):
        return torch.sigmoid(self.mix(x_BCHW.mean(dim=(2, 3))))[:, :, None, None]

    def forward(self, x_BCHW):
        return x_BCHW * self.attention_map(x_BCHW)


def test_the_sound_block_keeps_every_promise():
    testing.check_block(Sound)


TWINS = [
    (
        testing.check_interface, NeedsTwoNumbers,
        "missing 1 required positional argument: 'groups'); its __init__ must take the number of",
    ),
    (testing.check_interface, HasNoMap, "it does not define attention_map; add what is"),
    (testing.check_interface, IsNoBlock, "it is a class of another kind; derive it from tower"),
    (
        testing.check_interface, ReturnsTwo,
        "ReturnsTwo.forward returns a tuple for a map of (2, 128, 7, 5); it must return one tensor",
    ),
    (testing.check_interface, MapsNothing, "MapsNothing.attention_map returns None for a map of"),
    (testing.check_interface, Mistypes, "no attribute 'wieght'); fix it"),
    (
        testing.check_shape, DropsAnAxis,
        "the input has shape (2, 128, 5, 7) and the output (2, 128, 7)",
    ),
    (
        testing.check_shape, MapsTheOtherWayRound,
        "the input has shape (2, 128, 5, 7) and the attention map (2, 128, 7, 5)",
    ),
    (testing.check_gates, DoesNotSquash, "its attention map ranges from 0."),
    (testing.check_batch_independence, SeesItsNeighbours, "an image in a batch differs by up"),
    (testing.check_gradients, CutsTheGradient, "no gradient reaches weight;"),
    (testing.check_gradients, HasAnIdleParameter, "no gradient reaches idle;"),
    (testing.check_gradients, HasAnInfiniteGradient, "the gradient of the input is not finite"),
    (testing.check_layout, ForgetsTheLayout, "the input is channels_last and the output is not"),
    (
        testing.check_layout, TurnsTheGradient,
        "the input is channels_last and its gradient is not",
    ),
    (
        testing.check_autocast, ForgetsAutocast,
        "disable autocast in forward with `with towernet.attention.full_precision(x.device.type):`",
    ),
    (testing.check_autocast, CountsInBfloat16, "a bf16 map under autocast differs by up to"),
    (
        testing.check_parameters_and_dtypes, ReturnsWhatItsGatesAre,
        "its input was bfloat16 and its output float32",
    ),
    (
        testing.check_parameters_and_dtypes, OverflowsInHalf,
        "it returned NaN or Inf",
    ),
    (testing.check_state, KeepsAWeightToItself, "a new block with its state differs by up to"),
    (testing.check_state, KeepsItsStatisticsToItself, "a new block with its state differs by up"),
    (testing.check_identity, IgnoresTheGain, "blend with a gain of 0 differs by up to"),
    (testing.check_identity, NeverArrives, "blend with a gain of 1 differs by up to"),
    (
        testing.check_identity, BlendsDifferentlyInPlace,
        "blend_, compared with blend, differs by up to",
    ),
    (
        testing.check_identity, CallsItselfTheIdentity,
        "starts_as_identity is True, and a new block changes x by",
    ),
    (
        testing.check_identity, HidesThatItIsTheIdentity,
        "starts_as_identity is False, and a new block changes x by 0;",
    ),
    (testing.check_trains, StartsBehindTwoZeros, "first, second had no gradient in 2 steps"),
    (testing.check_trains, HidesThatItIsTheIdentity, "the gain, weight had no gradient in 2"),
    (testing.check_meta, MakesTensorsOnTheCpu, "RuntimeError: "),
    (
        testing.check_meta, LosesAnAxisWithoutNumbers,
        "the input has shape (2, 128, 7, 5) and the output (2, 128, 5)",
    ),
    (testing.check_export, CountsItsCalls, "the exported program on 3 images differs by up to"),
    (testing.check_export, WritesTheBatchDown, "UserError: Constraints violated (batch)"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "sabotaged", "found"), TWINS)
def test_each_check_rejects_its_sabotaged_twins_in_a_sentence(check, sabotaged, found):
    with pytest.raises(ContractError) as caught:
        check(sabotaged)
    sentence = str(caught.value)
    assert sentence.startswith(f"{sabotaged.__name__} does not ")
    assert f" ({check.__name__}, 128 channels, on a map of (" in sentence
    assert found in sentence
    assert sentence.count("\n") == 0


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (
            SqueezeExcitation(64),
            "SqueezeExcitation does not .* it is already built; give the class",
        ),
        (functools.partial(SqueezeExcitation, reduction=200), "reduction at most 128$"),
        (lambda channels: nn.Identity(), "<lambda> builds an Identity; derive it from"),
    ],
)
def test_an_object_that_builds_no_blocks_is_refused_with_the_reason(block, found):
    with pytest.raises(ContractError, match=found):
        testing.check_block(block)
    # Arguments that the tests' runtime type checks would refuse.
    assert builder_problem("se").startswith("is a str; give a class derived from")
    assert builder_problem(None).startswith("is None; give a class derived from")
    assert builder_problem(Sound) == builder_problem(Sound.__call__) == ""


def test_a_promise_broken_only_with_few_channels_is_reported():
    def build(channels):
        return (Sound if channels > 100 else SeesItsNeighbours)(channels)

    with pytest.raises(
        ContractError, match=r"independence, 24 channels, on a map of \(4, 24, 7, 5"
    ):
        testing.check_block(build)


def test_autocast_and_conversion_give_the_same_advice():
    """Following one check's advice does not break the other check."""
    sentences = []
    for check, sabotaged in (
        (testing.check_autocast, ForgetsAutocast),
        (testing.check_parameters_and_dtypes, ReturnsWhatItsGatesAre),
    ):
        with pytest.raises(ContractError) as caught:
            check(sabotaged)
        sentences.append(str(caught.value))
    advice = "compute in the parameters' number format, for example x.to(self.weight.dtype)"
    assert all(advice in sentence for sentence in sentences)

    class Fixed(ForgetsAutocast):
        def attention_map(self, x_BCHW):
            return super().attention_map(x_BCHW.to(self.mix.weight.dtype))

        def forward(self, x_BCHW):
            with full_precision(x_BCHW.device.type):
                gates = self.attention_map(x_BCHW)
            return x_BCHW * gates.to(x_BCHW.dtype)

    testing.check_block(Fixed)


def test_every_check_has_a_sabotaged_twin():
    assert {check for check, _, _ in TWINS} == set(testing.ATTENTION_CHECKS)


@pytest.mark.parametrize("sabotaged", sorted({twin for _, twin, _ in TWINS}, key=str))
def test_a_block_that_breaks_one_promise_is_refused(sabotaged):
    with pytest.raises(ContractError, match=rf"^{sabotaged.__name__} does not [^\n]+: [^\n]+; "):
        testing.check_block(sabotaged)


COMPILE = """
import torch
from torch import nn
from towernet.attention import ATTENTION

class DependsOnValues(ATTENTION["se"]):
    def attention_map(self, x):
        gates = super().attention_map(x)
        return gates / 2 if x.mean() > 0 else gates

def compiles(block_class):
    block, x = block_class(128).eval(), torch.randn(2, 128, 7, 5)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="eager")(x), block(x))
    x, gain = x.contiguous(memory_format=torch.channels_last), torch.tensor(0.5)
    with torch.autocast("cpu", torch.bfloat16):
        compiled = torch.compile(block.blend, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x, gain), block.blend(x, gain))

for block_class in ATTENTION.values():
    compiles(block_class)
try:
    compiles(DependsOnValues)
except torch._dynamo.exc.Unsupported:
    print("all compile, and the twin does not")
"""


@pytest.mark.proof
def test_every_block_compiles_into_one_graph():
    """In another process: torch.compile cannot trace the tests' shape checks."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.stdout == "all compile, and the twin does not\n", done.stderr


# Shuffle attention beyond its equations.


def test_a_new_block_is_a_number_times_a_permutation():
    x = feature_map(2, CHANNELS, 5, 7)
    wanted = torch.sigmoid(torch.tensor(1.0)) * shuffle_channels(x)
    torch.testing.assert_close(ShuffleAttention(CHANNELS, groups=GROUPS)(x), wanted)


def test_the_spatial_half_of_a_single_pixel_is_constant():
    block = build_block(lambda channels: ShuffleAttention(channels, groups=GROUPS), CHANNELS)
    gates = block.attention_map(feature_map(9, CHANNELS, 1, 1))
    spatial = gates.unflatten(1, (GROUPS, 2, -1))[:, :, 1]
    wanted = torch.sigmoid(block.spatial_weight * block.norm_bias + block.spatial_bias)
    # The slope is up to 316 there, so rounding x in fp32 changes the gates by more than usual.
    wanted = wanted[:, None, None].expand_as(spatial)
    torch.testing.assert_close(spatial, wanted, rtol=1e-4, atol=1e-4)


def test_the_formula_does_not_copy_channels_last_into_another_layout():
    block = ShuffleAttention(128)
    x = feature_map(2, 128, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.ones_like(x)
    with fused.formula_only(), torch.profiler.profile() as profile:
        block(x).backward(grad)
    copies = sum(event.count for event in profile.key_averages() if event.key == "aten::clone")
    assert copies == 2  # the shuffle and its gradient; torch's own channel_shuffle needs more
    assert x.grad is not None
    assert x.grad.stride() == x.stride()


def test_the_gates_of_coordinate_attention_have_the_maps_memory_layout():
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
            SqueezeExcitation, 8, {"reduction": 16},
            "SqueezeExcitation: reduction=16 leaves none of the 8 channels;"
            " give reduction at most 8",
        ),
        (SqueezeExcitation, 8, {"reduction": 0}, "SqueezeExcitation: reduction=0; give at least 1"),
        (SqueezeExcitation, 0, {}, "SqueezeExcitation: channels=0; give at least 1"),
        (
            ConvolutionalBlockAttention, 8, {"reduction": 16},
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
            GlobalContext, 24, {"reduction": 16},
            "GlobalContext: reduction=16 leaves 1 of the 24 channels, and layer norm over one"
            " channel is always 0; give reduction at most 12",
        ),
        (
            GlobalContext, 1, {"reduction": 1},
            "GlobalContext: reduction=1 leaves 1 of the 1 channels, and layer norm over one"
            " channel is always 0; give at least 2 channels",
        ),
        (
            GlobalContext, 8, {"reduction": 16},
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


def test_for_a_misspelt_name_the_nearest_is_suggested():
    for misspelt, meant in (("shufle", "shuffle"), ("SE", "se"), ("Shuffle", "shuffle")):
        message = f"no attention block is called '{misspelt}'. Did you mean '{meant}'"
        with pytest.raises(UnknownNameError, match=message):
            ATTENTION[misspelt]


@pytest.mark.parametrize("block_class", [SqueezeExcitation, ConvolutionalBlockAttention])
def test_a_bottleneck_adapts_to_few_channels(block_class):
    for channels, bottleneck in ((1, 1), (8, 1), (16, 1), (31, 1), (64, 4), (256, 16)):
        assert block_class(channels).squeeze.out_features == bottleneck


def test_a_block_cites_its_paper_in_its_docstring_or_its_module():
    class Cites(Sound):
        """Weighs.

        Source: Doe, Roe. A gate of
        gates. 2026. Another sentence.

        Not this one, eq. 5.
        """

    assert paper(Cites) == "A gate of gates. 2026. Another sentence."
    assert paper(SimAM).startswith("SimAM: A simple,") and paper(SimAM).endswith("PMLR 139")
    assert paper(Sound) == ""


def test_global_context_adapts_to_few_channels():
    for channels, bottleneck in ((2, 2), (3, 3), (8, 2), (24, 2), (64, 4), (256, 16)):
        assert GlobalContext(channels).squeeze.out_features == bottleneck
