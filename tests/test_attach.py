"""Attention in existing networks: where it is inserted, what it changes, what is refused."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import re
import subprocess
import sys
import warnings

import pytest
import safetensors.torch
import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn
from torchvision.models import ResNet, detection, resnet18

from crashlab.lab import compiler
from test_0_torch_private import Dispatches, Functions
from towernet.attention import (
    ATTENTION,
    AttentionBlock,
    ConvolutionalBlockAttention,
    GatedBlock,
    ShuffleAttention,
    SqueezeExcitation,
    attention_maps,
)
from towernet.attention.attach import attach
from towernet.attention.blend import FromIdentity
from towernet.attention.inserted import (
    CHILD,
    attention_blocks,
    attention_parameters,
    detach,
    parameter_groups,
)
from towernet.attention.places import find_places
from towernet.attention.trace import trace
from towernet.config import TrainConfig
from towernet.engine.optimizer import make_optimizer
from towernet.errors import ConfigError, UnknownNameError
from towernet.models.catalogue import build
from towernet.models.optimize import foldable, optimize
from towernet.native import ops

SIZE_PX = 64
TINY = "shufflenet_v2_x0_5"


@functools.cache
def _shapes_of(name: str) -> nn.Module:
    with torch.device("meta"):
        return build(name, 5, 224)


def shapes_of(name: str) -> nn.Module:
    """Return a network on the meta device, without memory for its weights."""
    return copy.deepcopy(_shapes_of(name))


def names(model: nn.Module | str, where: object = "blocks", size_px: int = 224) -> list[str]:
    if isinstance(model, str):
        model = _shapes_of(model)
    return [place.name for place in find_places(trace(model, (1, 3, size_px, size_px)), where)]


def trained(model: nn.Module, size_px: int = SIZE_PX, channels: int = 3) -> nn.Module:
    """Move norms, scales and statistics off their initial values."""
    model.train()
    with torch.no_grad():
        for parameter in model.parameters():
            if sum(length > 1 for length in parameter.shape) < 2:
                parameter.add_(0.3 * torch.randn_like(parameter))
        model(torch.randn(8, channels, size_px, size_px) + 0.5)
    return model.eval()


@torch.no_grad()
def moved(model: nn.Module) -> nn.Module:
    """Move attention off its initial values."""
    for parameter in attention_parameters(model):
        parameter.add_(0.3 * torch.randn_like(parameter) + 0.1)
    return model


def images(*, size_px: int = SIZE_PX, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, size_px, size_px)


def relative_error(got, wanted):
    return ((got - wanted).norm() / wanted.norm()).item()


# Where


RESNET18 = [f"layer{stage}.{block}.bn2" for stage in (1, 2, 3, 4) for block in (0, 1)]


def test_in_residual_networks_attention_is_before_every_addition():
    assert names("resnet18") == RESNET18
    assert names("resnet50") == [
        f"layer{stage}.{block}.bn3"
        for stage, num_blocks in ((1, 3), (2, 4), (3, 6), (4, 3))
        for block in range(num_blocks)
    ]
    # MobileNet's blocks with a shortcut.
    with_shortcut = (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)
    assert names("mobilenet_v2") == [f"features.{i}.conv.3" for i in with_shortcut]


def test_places_have_their_channels_their_size_and_a_reason():
    first, *_, last = find_places(trace(_shapes_of("resnet50"), (1, 3, 160, 96)), "blocks")
    assert (first.channels, first.size, first.channels_last) == (256, (40, 24), False)
    assert (last.channels, last.size) == (2048, (5, 3))
    assert last.reason == "before the addition in layer4.2"


# A stage ends after its last addition or joint, where everything that follows depends on one map.
@pytest.mark.parametrize(
    ("name", "num_places", "first", "stages"),
    [
        ("resnet18", 8, "layer1.0.bn2", ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
        ("mobilenet_v2", 10, "features.3.conv.3", [f"features.{i}" for i in (3, 6, 13, 16)]),
        ("googlenet", 9, "inception3a", ["inception3b", "inception4e", "inception5b"]),
        (TINY, 16, "stage2.0", ["stage2.3", "stage3.7", "stage4.3"]),
        ("densenet121", 58, "features.denseblock1.denselayer1.conv2",
         [*(f"features.transition{i}.norm" for i in (1, 2, 3)), "features.norm5"]),
        ("vgg11_bn", 5, "features.2", [f"features.{i}" for i in (2, 6, 13, 20, 27)]),
        ("convnext_tiny", 18, "features.1.0.stochastic_depth",
         ["features.1.2", "features.3.2", "features.5.8", "features.7.2"]),
        ("swin_t", 24, "features.1.0.attn",
         ["features.1.1", "features.3.1", "features.5.5", "features.7.1"]),
        # Between module and addition there is only a scale.
        ("timm:nf_resnet26", 8, "stages.0.0.conv3", [f"stages.{i}.1" for i in range(4)]),
        # Its mixers are poolings, without parameters: the branch is found by descent, not by depth.
        ("timm:poolformerv2_s12", 24, "stages.0.blocks.0.token_mixer",
         [f"stages.{i}.blocks.{j}" for i, j in ((0, 1), (1, 1), (2, 5), (3, 1))]),
        # Of the branches that are added up, none is the shortcut; an identity among them is.
        ("timm:repvgg_a0", 18, "stages.0.1.drop_path",
         [f"stages.{i}.{j}.act" for i, j in ((0, 1), (1, 3), (2, 13), (3, 0))]),
        # One addition, otherwise joints.
        ("timm:hgnet_tiny", 4, "stages.0.blocks.0.aggregation.1",
         ["stages.0.blocks.0.aggregation.1", "stages.1.blocks.0.aggregation.1",
          "stages.2.blocks.1", "stages.3.blocks.0.aggregation.1"]),
        # timm's Swin has maps in its attention and tokens elsewhere.
        ("timm:swin_tiny_patch4_window7_224", 12, "layers.0.blocks.0.drop_path1",
         [f"layers.{i}.blocks.{j}" for i, j in ((0, 1), (1, 1), (2, 5), (3, 1))]),
        # 1×1 convolutions only, after matrix products.
        ("timm:levit_conv_128s", 20, "stages.0.blocks.0.attn.proj.ln.bn",
         [f"stages.{i}.blocks.{j}" for i, j in ((0, 1), (1, 2), (2, 3))]),
        # Rows of tokens that look like maps, and are converted to maps later.
        ("timm:mobilevitv2_050", 1, "stages.1.1.conv3_1x1.bn",
         ["stages.1.1", *(f"stages.{i}.1.conv_proj.bn" for i in (2, 3, 4))]),
        ("timm:mobilevit_xxs", 6, "stages.0.0.conv3_1x1.bn",
         ["stages.0.0", "stages.1.2", *(f"stages.{i}.1.conv_fusion.bn.act" for i in (2, 3, 4))]),
        # A joint follows the last addition, inside the stage's module.
        ("timm:dla46x_c", 12, "level2.tree1.bn3",
         [f"level{i}.root.relu" for i in ("2", "3.tree2", "4.tree2", "5")]),
        # No addition, no joint.
        ("timm:lcnet_050", 5, "blocks.0.0.bn2.act",
         [f"blocks.{i}.bn2.act" for i in ("0.0", "1.1", "2.1", "4.3", "5.1")]),
        # Its first convolution has 48 channels, made from pixels.
        ("timm:tresnet_m", 21, "body.layer1.0.se",
         [f"body.layer{i}.{j}.act" for i, j in ((1, 2), (2, 3), (3, 10), (4, 2))]),
    ],
)  # fmt: skip
def test_in_other_networks_the_places_follow_from_the_operations(name, num_places, first, stages):
    model = _shapes_of(name)
    found = [attached.place for attached in attach(model, "eca")]
    assert detach(model) == len(found) == num_places
    assert found[0].name == first
    assert all(place.channels > 1 and place.size != (1, 1) for place in found)
    assert names(name, "stages") == stages


def test_last_of_stage_is_the_last_place_of_each_size():
    assert names("resnet18", "last-of-stage") == [f"layer{i}.1.bn2" for i in (1, 2, 3, 4)]
    assert names("googlenet", "last-of-stage") == names("googlenet", "stages")
    assert names("timm:mobilevit_xxs", "last-of-stage") == [
        "stages.0.0.conv3_1x1.bn", "stages.1.2.conv3_1x1.bn",
        *(f"stages.{i}.1.conv_fusion.bn.act" for i in (2, 3, 4)),
    ]  # fmt: skip


def test_stages_of_tokens_can_end_in_maps():
    with pytest.raises(ConfigError, match="its features are tokens"):
        names("timm:pvt_v2_b0")
    assert names("timm:pvt_v2_b0", "stages") == [f"stages.{i}" for i in range(4)]


def test_modules_are_given_by_name_or_pattern_and_returned_in_their_order():
    model = _shapes_of("resnet18")
    assert names(model, "layer2.0.bn1") == ["layer2.0.bn1"]
    assert names(model, ["layer4.1", "layer2.0.bn1"]) == ["layer2.0.bn1", "layer4.1"]
    assert names(model, "layer[34].*.bn2") == RESNET18[4:]
    # Of the matches of a pattern, those that can have attention: no container, no module that is
    # called twice.
    assert names(model, "layer4.1*") == [
        f"layer4.1{part}" for part in (".conv1", ".bn1", ".conv2", ".bn2", "")
    ]
    # After one map there is attention once, even if several modules return that map.
    block = "stages.0.0"
    assert names(shapes_of("timm:repvgg_a0"), [block, f"{block}.act"]) == [block]


class Block(nn.Module):
    def __init__(self, channels, stride=1):
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, channels, 3, stride, 1)
        self.norm_1 = nn.BatchNorm2d(channels)
        self.conv_2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.norm_2 = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()

    def branch(self, x):
        return self.norm_2(self.conv_2(self.act(self.norm_1(self.conv_1(x)))))

    def forward(self, x):
        return self.act(self.branch(x) + x)


class Gated(Block):
    """The shortcut is the left operand, and the branch is scaled by hand."""

    def forward(self, x):
        scaled = self.branch(x).mul_(0.3)
        x = x + scaled
        return self.act(x)


class Parallel(Block):
    """Two parallel branches and the shortcut: a longer sum."""

    def forward(self, x):
        return x + self.norm_1(self.conv_1(x)) + self.norm_2(self.conv_2(x))


class TwoBranches(Block):
    """No shortcut: both branches have parameters."""

    def forward(self, x):
        return self.norm_1(self.conv_1(x)) + self.norm_2(self.conv_2(x))


class WithItself(Block):
    """Doubling a map is not a residual addition."""

    def forward(self, x):
        x = self.branch(x)
        return x + x


class Shared(Block):
    """One convolution for both halves."""

    def forward(self, x):
        return self.conv_1(self.conv_1(x)) + x


class OnChannelsLastInside(Block):
    def __init__(self, channels):
        super().__init__(channels)
        self.linear = nn.Linear(channels, channels)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = x + self.linear(x)
        return x.permute(0, 3, 1, 2)


class Gate(Block):
    """It has its own gate, which contains an addition."""

    def __init__(self, channels):
        super().__init__(channels)
        self.squeeze = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        gate = x.mean((2, 3), keepdim=True)
        gate = gate + self.squeeze(gate)
        return self.branch(x * gate.sigmoid()) + x


class SpatialGate(Gate):
    """The same with one channel."""

    def __init__(self, channels):
        super().__init__(channels)
        self.squeeze = nn.Conv2d(channels, 1, 1)
        self.refine = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        gate = self.squeeze(x)
        gate = gate + self.refine(gate)
        return self.branch(x * gate.sigmoid()) + x


class Doubled(torch.autograd.Function):
    """An operation that is not visible to torch function modes."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class CustomFunction(nn.Module):
    def forward(self, x):
        return Doubled.apply(x)


class WithCustomFunction(Block):
    def __init__(self, channels):
        super().__init__(channels)
        self.own = CustomFunction()

    def forward(self, x):
        return self.own(self.branch(x)) + x


CHANNELS = 32


def network_of(*blocks: nn.Module, channels: int = 3) -> nn.Module:
    """Return a custom network, a plain Sequential."""
    return nn.Sequential(
        nn.Conv2d(channels, CHANNELS, 3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(CHANNELS, 3),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (Block, ["1.norm_2"]),
        (Gated, ["1.norm_2"]),
        (Parallel, ["1"]),
        (TwoBranches, ["1"]),
        (WithItself, ["1"]),
        (Shared, ["1"]),
        (OnChannelsLastInside, ["1.linear"]),
        (Gate, ["1.norm_2"]),
        (SpatialGate, ["1.norm_2"]),
        (WithCustomFunction, ["1.own"]),
    ],
)
def test_the_branch_is_distinguished_from_the_shortcut(block, found):
    model = network_of(block(CHANNELS))
    assert [
        attached.place.name for attached in attach(model, "se", input_shape=(1, 3, 32, 32))
    ] == (found) or found == ["1"]
    assert names(network_of(block(CHANNELS)), "blocks", 32) == found


def test_a_custom_network_is_no_different():
    model = trained(network_of(Block(CHANNELS), Block(CHANNELS)), 32)
    x = images(size_px=32)
    wanted = model(x)
    assert len(attach(model, "cbam", input_shape=(1, 3, 32, 32))) == 2
    assert relative_error(model(x), wanted) < 1e-6
    assert relative_error(moved(model)(x), wanted) > 1e-3


def test_grey_images_need_no_option():
    model = trained(network_of(Block(CHANNELS), channels=1), 32, channels=1)
    x = images(size_px=32, channels=1)
    wanted = model(x)
    assert len(attach(model, "se")) == 1
    assert relative_error(model(x), wanted) < 1e-6


# What is refused


@pytest.mark.parametrize(
    ("model", "words", "error", "message"),
    [
        ("resnet18", {"where": "layer1"}, ConfigError,
         "attention cannot go after layer1: it only calls its children one after another; name the"
         " last of them"),
        ("resnet18", {"where": "layer1.0.relu"}, ConfigError,
         "attention cannot go after layer1.0.relu: it is called 2 times per image; name the module"
         " that contains it"),
        ("resnet18", {"where": "fc"}, ConfigError,
         "attention cannot go after fc: its output is no feature map (B, C, H, W); name a module"
         " that returns one"),
        ("resnet18", {"where": ""}, ConfigError,
         "attention cannot go after the network itself: its output is no feature map (B, C, H, W);"
         " name a module that returns one"),
        ("resnet18", {"where": []}, ConfigError,
         "where names no module; give names, or one of 'blocks', 'last-of-stage', 'stages'"),
        ("resnet18", {"where": "layer1.0.bn3"}, UnknownNameError,
         "no module or place is called 'layer1.0.bn3'. Did you mean 'layer1.0.bn2'? Known: avgp"),
        ("resnet18", {"where": "last_of_stage"}, UnknownNameError,
         "no module or place is called 'last_of_stage'. Did you mean 'last-of-stage'? Known:"
         " blocks, last-of-stage, stages"),
        ("resnet18", {"block": "cbma"}, UnknownNameError,
         "no attention block is called 'cbma'. Did you mean 'cbam'? Known:"),
        ("resnet18", {"block": "Shuffle"}, UnknownNameError, "Did you mean 'shuffle'? Known:"),
        ("resnet18", {"block": "se@stages"}, ConfigError,
         "the block is 'se@stages'; give the place separately, where='stages'"),
        ("resnet18", {"block": nn.Conv2d}, ConfigError,
         "Conv2d is a class of another kind; derive it from towernet.attention.AttentionBlock"),
        ("resnet18", {"block": GatedBlock}, ConfigError,
         "GatedBlock does not define attention_map; add what is missing"),
        ("resnet18", {"block": SqueezeExcitation(64)}, ConfigError,
         "the block is already built; give the class SqueezeExcitation, so that each place gets"),
        ("resnet18", {"block": lambda channels: nn.Identity()}, ConfigError,
         "at layer1.0.bn2, <lambda> builds an Identity; derive it from"),
        ("resnet18", {"where": "Stage"}, UnknownNameError, "Did you mean 'stages'? Known: blocks"),
        ("resnet18", {"where": ["layer1.0.bn2", "layer9.0.bn2"]}, UnknownNameError,
         "no module or place is called 'layer9.0.bn2'. Did you mean 'layer"),
        ("resnet18", {"input_shape": (1, 1, 64, 64)}, ConfigError,
         "ResNet cannot be run on an input of shape (1, 1, 64, 64) (RuntimeError: Invalid channel"
         " dimensions); give input_shape=(1, channels, height, width) that it takes"),
        ("vit_b_16", {}, ConfigError,
         "VisionTransformer has no place before a residual addition, after a joint of branches or"
         " at a stage's end: its features are tokens, which have no height and no width; name"
         " modules whose output is a feature map, if it has any"),
        ("vit_b_16", {"where": "stages"}, ConfigError,
         "VisionTransformer has no stage that ends in one map: its features are tokens,"),
        ("timm:efficientvim_m1", {"where": "stages"}, ConfigError,
         "EfficientViM has no stage that ends in one map: no module that is called exactly once"
         " returns only a feature map; name modules whose output is a feature map, if it has any"),
        ("timm:naflexvit_base_patch16_gap", {"where": "last-of-stage"}, ConfigError,
         "NaFlexVit has no place before a stage's last addition, joint or end: it has no feature"
         " maps with a height and a width;"),
    ],
)  # fmt: skip
def test_an_impossible_place_is_refused_in_a_sentence_and_the_network_is_unchanged(
    model, words, error, message
):
    model = shapes_of(model)
    before = list(model.state_dict())
    words = {"block": "se", "where": "blocks"} | words
    with pytest.raises(error) as raised:
        attach(model, **words)
    assert message in str(raised.value)
    assert list(model.state_dict()) == before
    assert not any(module._forward_hooks for module in model.modules())


NO_NETWORK = "; pass one that is built, such as torchvision.models.resnet18()"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"start": "zero"}, "start is 'zero'; give 'identity' or 'paper'"),
        ({"block": None}, "the block is None; give a name such as 'se', a class derived from"),
        ({"block": ["se", "eca"]}, "the block is a list; give a name such as 'se', a class der"),
        ({"model": "resnet18"}, f"the network is a str{NO_NETWORK}"),
        ({"model": ResNet}, f"the network is 'ResNet', which builds one{NO_NETWORK}"),
        ({"model": resnet18}, f"the network is 'resnet18', which builds one{NO_NETWORK}"),
        ({"where": 3}, "where is an int; give names, or one of 'blocks', 'last-of-stage', 'stage"),
        ({"where": None}, "where is None; give names, or one of"),
        ({"where": ["0", 3]}, "where holds an int; give names, or one of"),
        ({"input_shape": 224}, "input_shape is 224; give (1, channels, height, width)"),
        ({"input_shape": (64, 64)}, "input_shape is (64, 64); give (1, channels, height, width)"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(words, message):
    words = {"model": network_of(), "block": "se", "where": "0"} | words
    with pytest.raises(ConfigError) as raised:
        untyped(attach)(**words)
    assert str(raised.value).startswith(message)
    if "model" in words and not isinstance(words["model"], nn.Module):
        for other in (detach, attention_blocks):
            with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
                untyped(other)(words["model"])


def untyped(function):
    """Return a function without the tests' runtime type checks."""
    return inspect.unwrap(function)


def test_a_module_must_be_given_by_name():
    model = network_of(Block(CHANNELS))
    with pytest.raises(ConfigError, match=r"^where is a BatchNorm2d; give its name, '1.norm_2'$"):
        untyped(attach)(model, "se", model[1].norm_2)


class NeedsAnOption(SqueezeExcitation):
    def __init__(self, channels, groups):
        super().__init__(channels)


class Refuses(SqueezeExcitation):
    def __init__(self, channels):
        raise ValueError("no.")


class IsNotBegun(SqueezeExcitation):
    def __init__(self, channels):
        pass


class Halves(SqueezeExcitation):
    def forward(self, x_BCHW):
        return super().forward(x_BCHW)[:, :, ::2]


class ReturnsTwo(SqueezeExcitation):
    def forward(self, x_BCHW):
        return x_BCHW, x_BCHW


class IsOfOneSize(SqueezeExcitation):
    def forward(self, x_BCHW):
        return x_BCHW * torch.ones(7, 7)


class ClaimsToBeTheIdentity(SqueezeExcitation):
    starts_as_identity = True


class DoesNotBlend(SqueezeExcitation):
    def blend(self, x_BCHW, gain):
        return self(x_BCHW)


class HalvesWhatItBlends(SqueezeExcitation):
    def blend(self, x_BCHW, gain):
        return x_BCHW[:, :, ::2]


class FailsToBlend(SqueezeExcitation):
    def blend(self, x_BCHW, gain):
        raise NotImplementedError("later")


class StumblesOverItself(SqueezeExcitation):
    def __init__(self, channels):
        super().__init__(channels)
        self.half = None // 2


class IsNoNumber(SqueezeExcitation):
    def blend(self, x_BCHW, gain):
        return x_BCHW + gain * torch.nan


class ReturnsDouble(SqueezeExcitation):
    starts_as_identity = True

    def forward(self, x_BCHW):
        return x_BCHW.double()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (NeedsAnOption, "NeedsAnOption cannot be built with 32 channels (TypeError: NeedsAnOption."
         "__init__() missing 1 required positional argument: 'groups'); its __init__ must take the"
         " number of channels, and anything else by keyword with a default"),
        (Refuses, "Refuses cannot be built with 32 channels (ValueError: no); fix its __init__, or"
         " choose other places"),
        (IsNotBegun, "IsNotBegun is not a module yet; call super().__init__() first in its"
         " __init__"),
        (StumblesOverItself, "StumblesOverItself cannot be built with 32 channels (TypeError:"
         " unsupported operand type(s) for //: 'NoneType' and 'int'); fix its __init__, or choose"),
        (Halves, "Halves.forward returns (2, 32, 8, 16) for a map of (2, 32, 16, 16); it must"
         " return the shape of its input"),
        (HalvesWhatItBlends, "HalvesWhatItBlends.blend returns (2, 32, 8, 16) for a map of (2, 32,"
         " 16, 16); it must return the shape of its input"),
        (FailsToBlend, "FailsToBlend.blend cannot be run on a map of (2, 32, 16, 16)"
         " (NotImplementedError: later); fix it"),
        (ReturnsTwo, "ReturnsTwo.forward returns a tuple for a map of (2, 32, 16, 16); it"
         " must return one tensor"),
        (IsOfOneSize, "IsOfOneSize.forward cannot be run on a map of (2, 32, 16, 16) (RuntimeError:"
         " The size of tensor a (16) must match the size of tensor b (7) at non-singleton"
         " dimension 3); fix it"),
        (ClaimsToBeTheIdentity, "ClaimsToBeTheIdentity does not start as the identity: it changes a"
         " map of (2, 32, 16, 16) by up to 0."),
        (DoesNotBlend, "DoesNotBlend does not start as the identity: it changes a map of"),
        (IsNoNumber, "IsNoNumber does not start as the identity: it changes a map of (2, 32, 16,"
         " 16) by up to nan; make blend(x, 0) return x, and set starts_as_identity only if"
         " Block(channels)(x) is x, or give start='paper'"),
        (ReturnsDouble, "ReturnsDouble.forward returns torch.float64 for a map of (2, 32, 16, 16)"
         " of torch.float32; it must end with .to(x.dtype)"),
    ],
)  # fmt: skip
def test_a_block_that_breaks_its_contract_in_its_place_is_not_inserted(block, message):
    model = network_of(Block(CHANNELS))
    before = list(model.state_dict())
    with pytest.raises(ConfigError) as raised:
        attach(model, block, "1.norm_2", input_shape=(1, 3, 32, 32))
    assert str(raised.value).startswith(f"at 1.norm_2, {message}")
    assert list(model.state_dict()) == before
    assert not any(module._forward_hooks for module in model.modules())


def test_a_trial_call_draws_no_random_numbers_and_leaves_the_block_as_it_was():
    class Draws(SqueezeExcitation):
        def forward(self, x_BCHW):
            self.seen = (self.training, torch.is_grad_enabled())
            return x_BCHW * torch.rand(())

    states = []
    for block in (SqueezeExcitation, Draws):  # a built-in block gets no trial call
        torch.manual_seed(3)
        model = network_of(Block(CHANNELS))
        (attached,) = attach(model, block, input_shape=(1, 3, 32, 32))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    assert not hasattr(attached.block.block, "seen")
    assert all(module.training for module in attached.block.modules())


@pytest.mark.parametrize(
    ("network", "num_places"),
    [
        ("ssdlite320_mobilenet_v3_large", 10),
        pytest.param("retinanet_resnet50_fpn", 16, marks=pytest.mark.proof),
    ],
)
@torch.no_grad()
def test_detectors_are_networks_like_any_other(network, num_places):
    model = getattr(detection, network)(weights=None, weights_backbone=None).eval()
    x = [torch.rand(3, 200, 180)]
    (wanted,) = model(x)
    assert len(attach(model, "se")) == num_places
    (found,) = model(x)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network_of(Block(CHANNELS))

    def forward(self, left, right):
        return self.body(left) - self.body(right)


def test_for_a_network_with_two_inputs_the_reason_is_given():
    with pytest.raises(ConfigError) as raised:
        attach(TwoInputs(), "se")
    assert str(raised.value).endswith(
        "; the network takes 2 inputs (left, right), but tracing uses a single image: attach to a"
        " part of it that takes only an image"
    )


def test_tensors_that_a_network_keeps_are_not_left_on_the_meta_device():
    class Keeps(nn.Sequential):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    model = Keeps(nn.Conv2d(3, CHANNELS, 3))
    model.last = torch.ones(1)
    attach(model, "se", "0")
    assert torch.equal(model.last, torch.ones(1))


def test_for_a_module_that_is_not_called_the_reason_is_given():
    model = network_of(Block(CHANNELS))
    model[1].spare = nn.Conv2d(CHANNELS, CHANNELS, 1)
    with pytest.raises(ConfigError, match=r"1\.spare: it is not called; name a module that is"):
        attach(model, "se", "1.spare")


def of_a_hundred_groups_at_most(channels):
    return ShuffleAttention(channels, groups=min(channels // 4, 100))


def test_with_strict_a_block_that_does_not_fit_one_place_is_not_inserted_at_all():
    model = shapes_of("resnet18")
    with pytest.raises(ConfigError, match=r"^at layer4.0.bn2, ShuffleAttention: 512 channels"):
        attach(model, of_a_hundred_groups_at_most, strict=True)
    assert not attention_blocks(model)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_place_that_cannot_take_a_block_stays_as_it_is_and_is_named():
    model = shapes_of("resnet18")
    found = attach(model, of_a_hundred_groups_at_most)
    assert [attached.place.name for attached in found] == RESNET18[:6]
    assert [skipped.place.name for skipped in found.skipped] == RESNET18[6:]
    assert found.words.startswith(
        "2 of 8 places cannot take it and stay as they are: layer4.0.bn2, layer4.1.bn2"
        " (ShuffleAttention: 512 channels cannot be cut into 100 groups"
    )
    assert detach(model) == 6
    whole = attach(shapes_of("resnet18"), "se", strict=True)
    assert (len(whole), whole.skipped, whole.words) == (8, [], "")


def test_a_block_that_fits_no_place_is_refused():
    model = shapes_of("resnet18")
    with pytest.raises(ConfigError, match=r"^at layer1.0.bn2, ShuffleAttention: 64 channels"):
        attach(model, lambda channels: ShuffleAttention(channels, groups=channels))
    assert not attention_blocks(model)


def test_attention_is_attached_once_and_not_after_attention():
    model = shapes_of("resnet18")
    attach(model, "shuffle")
    with pytest.raises(ConfigError, match=r"^layer1.0.bn2 already has attention; call detach"):
        attach(model, "se")
    with pytest.raises(
        ConfigError, match="it belongs to an attention block; name the module before"
    ):
        attach(model, "se", f"layer1.0.bn2.{CHILD}")
    assert len(attention_blocks(model)) == 8
    assert len(attach(model, "se", "stages")) == 4  # other modules
    assert detach(model) == 12


def test_traced_programs_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        traced = torch.jit.trace(network_of(), images())
    with pytest.raises(ConfigError, match="is a TorchScript program, which cannot be changed"):
        attach(traced, "se", "0")
    compiled = network_of()
    compiled[1].compile()
    with pytest.raises(ConfigError, match=r"compiled already; attach attention before torch.comp"):
        attach(compiled, "se", "0")


# What it does not change


@pytest.mark.parametrize("block", sorted(ATTENTION))
@torch.no_grad()
def test_every_block_starts_as_the_identity(block):
    model = trained(network_of(Block(CHANNELS)), 32)
    x = images(size_px=32)
    wanted = model(x)
    (attached,) = attach(model, block, input_shape=(1, 3, 32, 32))
    assert attached.num_parameters == sum(p.numel() for p in attention_parameters(model))
    assert relative_error(model(x), wanted) < 1e-6
    assert relative_error(moved(model)(x), wanted) > 1e-4


@torch.no_grad()
def test_a_start_that_is_not_the_identity_is_detected():
    model = trained(build("resnet18", 5, SIZE_PX))
    x = images()
    wanted = model(x)
    attach(model, "shuffle", start="paper")
    assert relative_error(model(x), wanted) > 1e-2


@pytest.mark.parametrize(
    "name", [TINY, "timm:test_resnet", "timm:test_convnext", "timm:test_mambaout"]
)
@torch.no_grad()
def test_outputs_stay_then_move_and_are_restored_bit_for_bit(name):
    model = trained(build(name, 5, SIZE_PX))
    x = images()
    wanted, before = model(x), list(model.state_dict())
    num_blocks = len(attach(model, "shuffle"))
    assert relative_error(model(x), wanted) < 1e-6
    assert relative_error(moved(model)(x), wanted) > 1e-3
    assert detach(model) == num_blocks
    assert torch.equal(model(x), wanted)
    assert list(model.state_dict()) == before
    assert detach(model) == 0


def test_every_parameter_of_attention_learns_by_the_second_step():
    model = trained(build("resnet18", 5, SIZE_PX)).train()
    attach(model, "shuffle")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in (1, 2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images()), torch.tensor([0, 1])).backward()
        silent = {name for name, p in model.named_parameters() if not p.grad.any()}
        assert all(f".{CHILD}.block." in name for name in silent) == (step == 1 or not silent)
        optimizer.step()
    assert not silent
    # The sabotaged twin: a block that detaches its map does not learn, which is detected.
    network = trained(build("resnet18", 5, SIZE_PX)).train()
    attach(network, Detaches, "layer4.1.bn2")
    nn.functional.cross_entropy(network(images()), torch.tensor([0, 1])).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == [
        f"layer4.1.bn2.{CHILD}.block.squeeze.{what}" for what in ("weight", "bias")
    ] + [f"layer4.1.bn2.{CHILD}.block.excite.{what}" for what in ("weight", "bias")]


class Detaches(SqueezeExcitation):
    def attention_map(self, x_BCHW):
        return super().attention_map(x_BCHW).detach()


@torch.no_grad()
def test_weights_load_before_and_after_without_a_pickle(tmp_path):
    model = trained(build(TINY, 5, SIZE_PX))
    plain = copy.deepcopy(model.state_dict())
    x = images()
    wanted = model(x)
    attach(model, "shuffle")
    added = set(model.state_dict()) - set(plain)
    assert added and all(f".{CHILD}." in name for name in added)

    fresh = build(TINY, 5, SIZE_PX).eval()
    attach(fresh, "shuffle")
    missing, unexpected = fresh.load_state_dict(plain, strict=False)
    assert (set(missing), unexpected) == (added, [])
    assert torch.equal(fresh(x), wanted)

    moved(model)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    fresh.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(fresh(x), model(x))


@torch.no_grad()
def test_a_copy_has_its_own_attention():
    model = trained(build(TINY, 5, SIZE_PX))
    attach(model, "se")
    x = images()
    wanted = model(x)
    other = moved(copy.deepcopy(model))
    assert not set(attention_parameters(other)) & set(attention_parameters(model))
    assert torch.equal(model(x), wanted)
    assert relative_error(other(x), wanted) > 1e-3
    assert detach(other) == len(attention_blocks(model)) == 16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@torch.no_grad()
def test_blocks_take_the_number_format_of_their_place(dtype):
    model = trained(build("timm:test_convnext", 5, SIZE_PX)).to(dtype)
    x = images().to(dtype)
    wanted = model(x)
    attach(model, "shuffle")
    assert {p.dtype for p in attention_parameters(model)} == {dtype}
    assert torch.equal(model(x), wanted)
    assert moved(model)(x).dtype == dtype


@torch.no_grad()
def test_blocks_take_mode_layout_and_device_of_their_place():
    model = build("resnet18", 5, SIZE_PX).to(memory_format=torch.channels_last).eval()
    model.layer4.train()
    attach(model, "cbam")
    blocks = attention_blocks(model)
    assert [block.training for block in blocks.values()] == [False] * 6 + [True] * 2
    weight = blocks[f"layer1.0.bn2.{CHILD}"].block.spatial.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    model.eval()
    x = images().contiguous(memory_format=torch.channels_last)
    seen = []
    model.layer1[0].bn2.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(x)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)

    on_meta = shapes_of("resnet18")
    attach(on_meta, "cbam")
    assert {p.device.type for p in attention_parameters(on_meta)} == {"meta"}


def test_attached_in_inference_mode_it_can_be_trained():
    model = network_of(Block(CHANNELS))
    with torch.inference_mode():
        attach(model, "se", input_shape=(1, 3, 32, 32))
    model(images(size_px=32)).sum().backward()
    assert all(p.grad is not None for p in attention_parameters(model))


def test_maps_with_the_channels_last_are_permuted_for_the_block_and_back():
    model = trained(build("timm:test_mambaout", 5, SIZE_PX))
    seen = []
    for attached in attach(model, "coordinate"):
        assert attached.place.channels_last
        attached.block.register_forward_hook(lambda m, inputs, y: seen.append(inputs[0].shape))
    model(images())
    assert seen[0] == (2, 16, 16, 16) and seen[-1] == (2, 64, 2, 2)


@pytest.mark.parametrize("start", ["identity", "paper"])
@pytest.mark.parametrize("block", ["shuffle", "cbam"])
@torch.no_grad()
def test_norms_fold_with_attention_after_them(start, block):
    model = trained(build("resnet18", 5, SIZE_PX))
    num_norms = len(foldable(model, SIZE_PX))
    attach(model, block, start=start)
    assert len(foldable(model, SIZE_PX)) == num_norms == 20
    moved(model)
    x = images()
    fast = optimize(model, size_px=SIZE_PX)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert relative_error(fast(x), model(x)) < 1e-5
    assert len(attention_blocks(model)) == 8
    # If folding a norm removed its attention, the comparison above would detect it.
    detach(fast)
    assert relative_error(fast(x), model(x)) > 1e-2


@torch.no_grad()
def test_a_norm_after_attention_is_not_folded_through_it():
    model = trained(network_of(Block(CHANNELS)), 32)
    attach(model, "se", "1.conv_1", input_shape=(1, 3, 32, 32))
    moved(model)
    assert foldable(model, 32) == [("1.conv_2", "1.norm_2")]
    x = images(size_px=32)
    assert relative_error(optimize(model, size_px=32)(x), model(x)) < 1e-5


@pytest.mark.parametrize("block", sorted(ATTENTION))
@torch.no_grad()
def test_the_exported_program_computes_the_networks_outputs(block):
    model = trained(network_of(Block(CHANNELS)), 32)
    attach(model, block, input_shape=(1, 3, 32, 32))
    moved(model)
    x = images(size_px=32)
    program = torch.export.export(model, (x,)).module()
    detached = relative_error(program(x), (detach(copied := copy.deepcopy(model)), copied(x))[1])
    assert relative_error(program(x), model(x)) < 1e-5 < detached


COMPILED = """
import torch
from torch import nn
from towernet.attention.attach import attach
from towernet.attention.inserted import attention_parameters

model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten())
x = torch.randn(2, 3, 16, 16)
attach(model, "shuffle", "1", input_shape=(1, 3, 16, 16))
with torch.no_grad():
    for parameter in attention_parameters(model):
        parameter.add_(0.3)
wanted = model(x)
gradients = torch.autograd.grad(wanted.square().sum(), list(attention_parameters(model)))
for backend in {backends}:
    found = torch.compile(model, backend=backend, fullgraph=True)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    got = torch.autograd.grad(found.square().sum(), list(attention_parameters(model)))
    torch.testing.assert_close(got, gradients, rtol=1e-3, atol=1e-2)
    torch.compiler.reset()
print("the same")
"""


@pytest.mark.proof
def test_the_compiled_network_is_one_graph_and_learns_as_the_network_does():
    # In a process without the tests' shape checks, which the compiler cannot read.
    backends = ["aot_eager"] if compiler() is None else ["aot_eager", "inductor"]
    code = COMPILED.format(backends=backends)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr


class ReadsTwice(nn.Module):
    """Reads a module's output after attention has weighed it."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return x + 2 * self.module(x)


def strong(model: nn.Module) -> nn.Module:
    """Move the blocks of a network off the identity."""
    for block in attention_blocks(model).values():
        block.gain.data.fill_(0.8)
    return model.eval()


with_kernels = pytest.mark.skipif(compiler() is None, reason="no C compiler")


@with_kernels
@pytest.mark.parametrize("module", [nn.Dropout(), nn.Identity()])
def test_an_output_that_is_the_modules_input_is_not_overwritten(module):
    model = network_of(ReadsTwice(module))
    attach(model, "shuffle", "1.module", input_shape=(1, 3, 32, 32))
    strong(model)
    x = torch.randn(2, 3, 32, 32)
    with ops.enabled(True):
        wanted = model(x)
        with torch.no_grad():
            assert torch.equal(model(x), wanted)


class Seen(nn.BatchNorm2d):
    """A subclass of torch's norm may have passed its map to other code."""


def _nothing(*_):
    """A hook that changes nothing."""


WATCHERS = {
    "none": lambda norm: contextlib.nullcontext(),
    "a later hook": lambda norm: norm.register_forward_hook(_nothing),
    "an earlier hook": lambda norm: norm.register_forward_hook(_nothing, prepend=True),
    "a hook for all": lambda norm: nn.modules.module.register_module_forward_hook(_nothing),
    "a hook of the block": lambda norm: norm.get_submodule(CHILD).register_forward_hook(_nothing),
    "another forward": lambda norm: setattr(
        norm, "forward", functools.partial(type(norm).forward, norm)
    ),
    "another forward of the block": lambda norm: setattr(
        norm.get_submodule(CHILD), "forward", norm.get_submodule(CHILD).forward
    ),
    "another class": lambda norm: setattr(norm, "__class__", Seen),
    "functions": lambda norm: Functions(),
    "operations": lambda norm: Dispatches(),
    "forward derivatives": lambda norm: forward_ad.dual_level(),
}


@with_kernels
@pytest.mark.parametrize("name", WATCHERS)
def test_a_map_that_other_code_can_hold_is_not_overwritten(name, monkeypatch):
    model, x = network_of(Block(CHANNELS)), torch.randn(2, 3, 32, 32)
    attach(model, "shuffle", input_shape=(1, 3, 32, 32))
    strong(model)
    over = []
    right = ops._attend
    monkeypatch.setattr(
        ops, "_attend", lambda *a, **k: over.append(k.get("in_place", False)) or right(*a, **k)
    )
    with ops.enabled(True):
        wanted = model(x).detach()
        assert over.pop() is False  # a gradient is needed
        watcher = WATCHERS[name](model[1].norm_2) or contextlib.nullcontext()
        with torch.no_grad(), watcher:
            assert torch.equal(model(x), wanted)
    assert over == [name in ("none", "a later hook")]


def test_optimisers_leave_attention_undecayed():
    model = build(TINY, 5, SIZE_PX)
    attach(model, functools.partial(ConvolutionalBlockAttention, reduction=8))
    of_attention = set(attention_parameters(model))
    decayed, undecayed = parameter_groups(model, weight_decay=0.1)
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    assert set(undecayed["params"]) == of_attention
    assert len(decayed["params"]) + len(of_attention) == len(list(model.parameters()))

    optimizer = make_optimizer(model, TrainConfig(), TINY)
    for group in optimizer.param_groups:
        if group["weight_decay"] or group["orthogonal"]:
            assert not set(group["params"]) & of_attention
    stepped = {p for group in optimizer.param_groups for p in group["params"]}
    assert of_attention <= stepped == set(model.parameters())


def replaced(network):
    network[1] = Block(CHANNELS)


def without_block(network):
    del network[1].norm_2.added_attention


def with_none(network):
    network[1].norm_2.added_attention = None


def with_another(network):
    network[1].norm_2.added_attention = SqueezeExcitation(CHANNELS)


def with_a_module(network):
    network[1].norm_2.added_attention = nn.Identity()


def synchronised(network):
    nn.SyncBatchNorm.convert_sync_batchnorm(network)


def without_hooks(network):
    network[1].norm_2._forward_hooks.clear()


GONE = "the attention block after 1.norm_2 was removed, but 1.norm_2 still calls it; call"
IDLE = "the attention block after 1.norm_2 is never called: the module that called it was"


@pytest.mark.parametrize(
    ("change", "num_blocks", "num_places", "message"),
    [
        (lambda network: None, 1, 1, None),
        (replaced, 0, 0, None),
        (with_another, 1, 1, None),
        (with_a_module, 0, 1, None),
        (without_block, 0, 1, GONE),
        (with_none, 0, 1, GONE),
        (synchronised, 0, 1, IDLE),
        (without_hooks, 0, 1, IDLE),
    ],
)
@torch.no_grad()
def test_partly_changed_attention_is_reported(change, num_blocks, num_places, message):
    model = network_of(Block(CHANNELS)).eval()
    x, plain = images(size_px=32), list(model.state_dict())
    attach(model, "se", input_shape=(1, 3, 32, 32))
    change(model)
    uses = [
        attention_blocks,
        lambda network: attention_maps(network, x),
        lambda network: parameter_groups(network, weight_decay=0.1)[1]["params"],
    ]
    if message is None:
        assert [bool(use(model)) for use in uses] == [num_blocks > 0] * 3
    else:
        for use in [*uses, lambda network: attach(network, "eca", "0")]:
            with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
                use(model)
    assert detach(model) == num_places
    assert list(model.state_dict()) == plain
    if not isinstance(model[1].norm_2, nn.SyncBatchNorm):
        model(x)
    assert len(attach(model, "se", input_shape=(1, 3, 32, 32))) == 1


def test_blocks_inside_a_gain_are_counted_once():
    model = network_of(Block(CHANNELS))
    (attached,) = attach(model, "se", input_shape=(1, 3, 32, 32))
    assert isinstance(attached.block, FromIdentity)
    assert list(attention_blocks(model)) == [f"1.norm_2.{CHILD}"]
    assert all(isinstance(block, AttentionBlock) for block in attention_blocks(model).values())
