"""The contract of networks: built-in and third-party ones keep it; each violation is detected."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from towernet import testing
from towernet.errors import ContractError
from towernet.models.catalogue import OURS
from towernet.models.classics import build_torchvision
from towernet.models.own import network_problem

SIZE_PX = 32


@pytest.mark.parametrize(
    ("network", "size_px"),
    [
        *((OURS[name], 128) for name in OURS),
        *(
            (functools.partial(build_torchvision, name, size_px=64), 64)
            for name in ("shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "resnet18")
        ),
    ],
)
def test_known_networks_keep_every_promise(network, size_px):
    testing.check_network(network, size_px=size_px)


class Sound(nn.Module):
    """Keeps every promise; each below breaks one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, num_classes)

    def maps(self, x):
        return F.relu(self.norm(self.conv(x)))

    def features(self, x):
        return self.maps(x).mean(dim=(2, 3))

    def forward(self, x):
        return self.head(self.features(x))


class NeedsTwoNumbers(Sound):
    def __init__(self, num_classes, width):
        super().__init__(num_classes)


def IsNoNetwork(num_classes):
    return F.relu


class IsOfAnotherKind:
    pass


class HasNothingToTrain(Sound):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.requires_grad_(False)


def ReturnsTheSame(num_classes):
    return ONE_FOR_ALL


class DecidesByNumbers(Sound):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        if float(self.conv.weight.abs().sum()) > 1e6:
            self.conv.weight.data.zero_()


class MakesTensorsOnTheCpu(Sound):
    def features(self, x):
        return super().features(x) * torch.ones(8, device="cpu")


class LosesAnAxisWithoutNumbers(Sound):
    def forward(self, x):
        logits = super().forward(x)
        return logits[:, 0] if logits.is_meta else logits


class IsNarrowerWithNumbers(Sound):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        width = 4 if self.conv.weight.is_meta else 2
        self.more = nn.Parameter(torch.ones(width))

    def features(self, x):
        return super().features(x) * self.more.sum()


class DrawsWithNumpy(Sound):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        drawn = np.random.default_rng().normal(size=(8,)).astype(np.float32)
        self.more = nn.Parameter(torch.from_numpy(drawn))

    def features(self, x):
        return super().features(x) * self.more


class IgnoresTheClasses(Sound):
    def __init__(self, num_classes):
        super().__init__(5)


class ReturnsTwoInTraining(Sound):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class AnswersWithProbabilities(Sound):
    def forward(self, x):
        return super().forward(x).softmax(dim=1)


class DividesByZero(Sound):
    def features(self, x):
        return super().features(x) / 0


class DropsAlways(Sound):
    def features(self, x):
        return F.dropout(super().features(x), 0.5)


class NormalisesByTheBatch(Sound):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)


class SqueezesTooMuch(Sound):
    def features(self, x):
        return super().features(x).squeeze()


class TakesOneSize(Sound):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.head = nn.Linear(8 * (SIZE_PX // 2) ** 2, num_classes)

    def features(self, x):
        return self.maps(x).flatten(1)


class TakesOneLayout(TakesOneSize):
    def features(self, x):
        return self.maps(x).view(len(x), -1)


class ReadsTheMemory(Sound):
    def features(self, x):
        maps = self.maps(x)
        order = sorted(range(1, 4), key=maps.stride, reverse=True)
        return maps.permute(0, *order).reshape(len(x), 8, -1).mean(dim=2)


class MakesImagesOfRows(TakesOneSize):
    def features(self, x):
        return self.maps(x).reshape(-1, self.head.in_features)


class RefusesOtherNumbers(Sound):
    def features(self, x):
        if x.shape[-1] != SIZE_PX and not x.is_meta:
            raise ValueError("not this size")
        return super().features(x)


class KeepsAWeightToItself(Sound):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.secret = float(torch.rand(()))

    def features(self, x):
        return super().features(x) * self.secret


class KeepsItsStatisticsToItself(Sound):
    seen = 0.0

    def features(self, x):
        if self.training:
            self.seen = float(x.mean())
        return super().features(x) + self.seen


class WarmsUpByItself(Sound):
    steps = 0

    def features(self, x):
        if not self.training:
            return super().features(x)
        self.steps += 1
        return super().features(x) * min(1.0, self.steps / 100)


class HasAWordInItsState(Sound):
    def get_extra_state(self):
        return "a word"

    def set_extra_state(self, state):
        pass


class HasAnIdleParameter(Sound):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.idle = nn.Parameter(torch.ones(2))


class CutsTheGradient(Sound):
    def features(self, x):
        return super().features(x).detach()


class IgnoresItsInput(Sound):
    def features(self, x):
        return super().features(x) * 0

    def forward(self, x):
        return self.head(self.features(x)) * 0


class HasAnInfiniteGradient(Sound):
    def features(self, x):
        return super().features(x) + (self.norm.bias * 0).sqrt()


ONE_FOR_ALL = Sound(5)

TWINS = [
    (
        testing.check_network_building, NeedsTwoNumbers,
        "missing 1 required positional argument: 'width'; it must take the number of classes, and",
    ),
    (
        testing.check_network_building, IsNoNetwork,
        "it builds a function; it must return an instance of torch.nn.Module",
    ),
    (testing.check_network_building, IsOfAnotherKind, "it is a class of another kind; derive it"),
    (testing.check_network_building, HasNothingToTrain, "nothing in it is trained; give it para"),
    (testing.check_network_building, ReturnsTheSame, "two of them share their weights; each cal"),
    (testing.check_network_outline, DecidesByNumbers, "RuntimeError: Tensor.item() cannot be cal"),
    (testing.check_network_outline, MakesTensorsOnTheCpu, "RuntimeError: "),
    (
        testing.check_network_outline, LosesAnAxisWithoutNumbers,
        "an image gave a tensor of (1,) and not of (1, 5)",
    ),
    (
        testing.check_network_outline, IsNarrowerWithNumbers,
        "more has another shape on the meta device",
    ),
    (
        testing.check_network_seed, DrawsWithNumpy,
        "with the same seed, more was built with different numbers",
    ),
    (
        testing.check_network_logits, IgnoresTheClasses,
        "in training mode, 3 images and 2 classes gave a tensor of (3, 5) and not of (3, 2)",
    ),
    (testing.check_network_logits, ReturnsTwoInTraining, "in training mode, 3 images and 2 classe"),
    (testing.check_network_logits, AnswersWithProbabilities, "are probabilities; leave out the so"),
    (testing.check_network_logits, DividesByZero, "3 images and 2 classes gave NaN or Inf"),
    (
        testing.check_network_repetition, DropsAlways,
        "for the same images, its outputs differ by up to",
    ),
    (testing.check_network_neighbours, NormalisesByTheBatch, "the output for 1 of 5 images d"),
    (
        testing.check_network_neighbours, SqueezesTooMuch,
        "the output for 1 of 5 images is (5,) and not (1, 5)",
    ),
    (testing.check_network_layout, TakesOneLayout, "view size is not compatible"),
    (testing.check_network_layout, ReadsTheMemory, "the output in channels_last differs by up to"),
    (
        testing.check_network_sizes, MakesImagesOfRows,
        "in training mode, 2 images of 64 px gave a tensor of (8, 5) and not of (2, 5)",
    ),
    (
        testing.check_network_sizes, RefusesOtherNumbers,
        "in training mode, 2 images of 16 px raise ValueError: not this size, but meta tensors of",
    ),
    (
        testing.check_network_state, KeepsAWeightToItself,
        "in evaluation mode, the outputs of a new one with its state differ by up to",
    ),
    (
        testing.check_network_state, KeepsItsStatisticsToItself,
        "in evaluation mode, the outputs of a new one with its state differ by up to",
    ),
    (
        testing.check_network_state, WarmsUpByItself,
        "in training mode, the outputs of a new one with its state differ by up to",
    ),
    (
        testing.check_network_state, HasAWordInItsState,
        "_extra_state in its state is a str, which no weights file can store",
    ),
    (testing.check_network_gradients, HasAnIdleParameter, "in 3 steps no gradient reached idle;"),
    (
        testing.check_network_gradients, CutsTheGradient,
        "in 3 steps no gradient reached conv.weight, norm.bias, norm.weight;",
    ),
    (testing.check_network_gradients, IgnoresItsInput, "no gradient reached any parameter;"),
    (
        testing.check_network_gradients, HasAnInfiniteGradient,
        "the gradient of norm.bias is not finite;",
    ),
]  # fmt: skip


def test_the_sound_network_keeps_every_promise():
    testing.check_network(Sound, size_px=SIZE_PX)


@pytest.mark.parametrize(("check", "sabotaged", "found"), TWINS)
def test_each_check_rejects_its_sabotaged_twins_in_a_sentence(check, sabotaged, found):
    with pytest.raises(ContractError) as caught:
        check(sabotaged, SIZE_PX)
    sentence = str(caught.value)
    assert sentence.startswith(f"{sabotaged.__name__} does not ")
    assert f" ({check.__name__}, 5 classes, {SIZE_PX}-px images): " in sentence
    assert found in sentence
    assert sentence.count("\n") == 0


def test_every_check_has_a_sabotaged_twin():
    assert {check for check, _, _ in TWINS} == set(testing.NETWORK_CHECKS)


@pytest.mark.parametrize("sabotaged", sorted({twin for _, twin, _ in TWINS}, key=str))
def test_a_network_that_breaks_one_promise_is_refused(sabotaged):
    with pytest.raises(ContractError, match=rf"^{sabotaged.__name__} does not [^\n]+: [^\n]+; "):
        testing.check_network(sabotaged, size_px=SIZE_PX)


class StartsWithZeros(Sound):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.norm.weight)


class DropsWhileItTrains(Sound):
    def features(self, x):
        return F.dropout(super().features(x), 0.5, self.training)


@pytest.mark.parametrize(
    "network",
    [
        TakesOneSize,
        StartsWithZeros,
        DropsWhileItTrains,
        functools.partial(Sound),
        lambda k: Sound(k),
    ],
)
def test_allowed_behaviour_of_a_network_is_not_refused(network):
    testing.check_network(network, size_px=SIZE_PX)


def test_a_network_for_one_size_is_refused_at_another():
    with pytest.raises(
        ContractError, match=r"^TakesOneSize does not run on meta tensors \(.*64-px"
    ):
        testing.check_network(TakesOneSize, size_px=64)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (
            Sound(2),
            "is already built; give the class Sound, so that each run has its own weights",
        ),
        (
            42,
            "is an int; give a class derived from torch.nn.Module, or a function of the number of",
        ),
        (dict, "is a class of another kind; derive it from torch.nn.Module"),
        (IsNoNetwork, ""),
    ],
)
def test_an_object_that_builds_no_networks_is_refused_with_the_reason(found, problem):
    assert network_problem(found).startswith(problem)
    assert bool(network_problem(found)) == bool(problem)


def test_a_check_leaves_torchs_generator_where_it_was():
    before = torch.get_rng_state()
    testing.check_network(DropsWhileItTrains, size_px=SIZE_PX)
    assert torch.equal(before, torch.get_rng_state())
