"""Attention blocks: a contract over everything registered, and what single blocks promise."""

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


class BlendsOtherwiseInPlace(Sound):
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
        "missing 1 required positional argument: 'groups'); let its __init__ take the number of",
    ),
    (testing.check_interface, HasNoMap, "it has no attention_map of its own; write what is"),
    (testing.check_interface, IsNoBlock, "it is a class of another kind; derive it from tower"),
    (
        testing.check_interface, ReturnsTwo,
        "ReturnsTwo.forward returns a tuple for a map of (2, 128, 7, 5); let it return one tensor",
    ),
    (testing.check_interface, MapsNothing, "MapsNothing.attention_map returns None for a map of"),
    (testing.check_interface, Mistypes, "no attribute 'wieght'); fix it"),
    (testing.check_shape, DropsAnAxis, "(2, 128, 5, 7) came in and (2, 128, 7) went out"),
    (
        testing.check_shape, MapsTheOtherWayRound,
        "the attention map over (2, 128, 5, 7) is (2, 128, 7, 5)",
    ),
    (testing.check_gates, DoesNotSquash, "its attention map goes from 0."),
    (testing.check_batch_independence, SeesItsNeighbours, "an image among others differs by up"),
    (testing.check_gradients, CutsTheGradient, "none reaches weight;"),
    (testing.check_gradients, HasAnIdleParameter, "none reaches idle;"),
    (testing.check_gradients, HasAnInfiniteGradient, "that of the input is not finite"),
    (
        testing.check_layout, ForgetsTheLayout,
        "a channels_last map came in and another went out",
    ),
    (
        testing.check_layout, TurnsTheGradient,
        "the gradient of a channels_last map lies in another layout",
    ),
    (
        testing.check_autocast, ForgetsAutocast,
        "leave autocast in forward by `with towernet.attention.full_precision(x.device.type):`",
    ),
    (testing.check_autocast, CountsInBfloat16, "a bf16 map under autocast differs by up to"),
    (
        testing.check_parameters_and_dtypes, ReturnsWhatItsGatesAre,
        "it was given bfloat16 and returned float32",
    ),
    (
        testing.check_parameters_and_dtypes, OverflowsInHalf,
        "it returned numbers that are not finite",
    ),
    (testing.check_state, KeepsAWeightToItself, "the state in a fresh block differs by up to"),
    (testing.check_state, KeepsItsStatisticsToItself, "the state in a fresh block differs by up"),
    (testing.check_identity, IgnoresTheGain, "blend with a gain of 0 differs by up to"),
    (testing.check_identity, NeverArrives, "blend with a gain of 1 differs by up to"),
    (testing.check_identity, BlendsOtherwiseInPlace, "blend_ beside blend differs by up to"),
    (
        testing.check_identity, CallsItselfTheIdentity,
        "starts_as_identity is True, and as built it moves x by",
    ),
    (
        testing.check_identity, HidesThatItIsTheIdentity,
        "starts_as_identity is False, and as built it moves x by 0;",
    ),
    (testing.check_trains, StartsBehindTwoZeros, "first, second had no gradient in 2 steps"),
    (testing.check_trains, HidesThatItIsTheIdentity, "the gain, weight had no gradient in 2"),
    (testing.check_meta, MakesTensorsOnTheCpu, "RuntimeError: "),
    (
        testing.check_meta, LosesAnAxisWithoutNumbers,
        "(2, 128, 7, 5) came in and (2, 128, 5) went out",
    ),
    (testing.check_export, CountsItsCalls, "the program on 3 images differs by up to"),
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
def test_what_is_no_class_of_blocks_is_said_to_be_none(block, found):
    with pytest.raises(ContractError, match=found):
        testing.check_block(block)
    # What the tests' own type checks would refuse.
    assert builder_problem("se").startswith("is a str; give a class derived from")
    assert builder_problem(None).startswith("is None; give a class derived from")
    assert builder_problem(Sound) == builder_problem(Sound.__call__) == ""


def test_a_promise_broken_on_few_channels_is_said_to_be():
    def build(channels):
        return (Sound if channels > 100 else SeesItsNeighbours)(channels)

    with pytest.raises(
        ContractError, match=r"independence, 24 channels, on a map of \(4, 24, 7, 5"
    ):
        testing.check_block(build)


def test_autocast_and_conversion_are_given_one_advice():
    """What is done on one check's word does not break the other's."""
    said = []
    for check, sabotaged in (
        (testing.check_autocast, ForgetsAutocast),
        (testing.check_parameters_and_dtypes, ReturnsWhatItsGatesAre),
    ):
        with pytest.raises(ContractError) as caught:
            check(sabotaged)
        said.append(str(caught.value))
    assert all(
        "compute in the parameters' number format, x.to(self.weight.dtype)" in s for s in said
    )

    class Mended(ForgetsAutocast):
        def attention_map(self, x_BCHW):
            return super().attention_map(x_BCHW.to(self.mix.weight.dtype))

        def forward(self, x_BCHW):
            with full_precision(x_BCHW.device.type):
                gates = self.attention_map(x_BCHW)
            return x_BCHW * gates.to(x_BCHW.dtype)

    testing.check_block(Mended)


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

class LooksAtItsNumbers(ATTENTION["se"]):
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
    compiles(LooksAtItsNumbers)
except torch._dynamo.exc.Unsupported:
    print("all compile, and the twin does not")
"""


@pytest.mark.proof
def test_every_block_compiles_into_one_graph():
    """In a process of its own: torch.compile cannot see through the checks of shapes."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.stdout == "all compile, and the twin does not\n", done.stderr


# Shuffle attention beyond its equations.


def test_at_its_start_it_is_a_number_times_a_permutation():
    x = feature_map(2, CHANNELS, 5, 7)
    wanted = torch.sigmoid(torch.tensor(1.0)) * shuffle_channels(x)
    torch.testing.assert_close(ShuffleAttention(CHANNELS, groups=GROUPS)(x), wanted)


def test_the_spatial_half_of_a_single_pixel_is_constant():
    block = build_block(lambda channels: ShuffleAttention(channels, groups=GROUPS), CHANNELS)
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
            "GlobalContext: reduction=16 leaves 1 of the 24 channels, which layer norm would make"
            " 0; give reduction at most 12",
        ),
        (
            GlobalContext, 1, {"reduction": 1},
            "GlobalContext: reduction=1 leaves 1 of the 1 channels, which layer norm would make"
            " 0; give at least 2 channels",
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


def test_a_misspelt_name_is_answered_with_the_nearest():
    for misspelt, meant in (("shufle", "shuffle"), ("SE", "se"), ("Shuffle", "shuffle")):
        message = f"no attention block is called '{misspelt}'. Did you mean '{meant}'"
        with pytest.raises(UnknownNameError, match=message):
            ATTENTION[misspelt]


@pytest.mark.parametrize("block_class", [SqueezeExcitation, ConvolutionalBlockAttention])
def test_a_bottleneck_fits_itself_to_few_channels(block_class):
    for channels, bottleneck in ((1, 1), (8, 1), (16, 1), (31, 1), (64, 4), (256, 16)):
        assert block_class(channels).squeeze.out_features == bottleneck


def test_a_block_names_its_paper_itself_or_in_its_file():
    class Cites(Sound):
        """Weighs.

        Source: Doe, Roe. A gate of
        gates. 2026. Another sentence.

        Not this one, eq. 5.
        """

    assert paper(Cites) == "A gate of gates. 2026. Another sentence."
    assert paper(SimAM).startswith("SimAM: A simple,") and paper(SimAM).endswith("PMLR 139")
    assert paper(Sound) == ""


def test_global_context_fits_itself_to_few_channels():
    for channels, bottleneck in ((2, 2), (3, 3), (8, 2), (24, 2), (64, 4), (256, 16)):
        assert GlobalContext(channels).squeeze.out_features == bottleneck
