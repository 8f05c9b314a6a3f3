"""The original network against PaddlePaddle's numbers, in `golden/` next to the image sets."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from towernet.cli.import_weights import import_weights
from towernet.config import load_recipe
from towernet.engine.device import Policy
from towernet.engine.optimizer import make_optimizer
from towernet.engine.schedule import learning_rate
from towernet.engine.step import train_step
from towernet.engine.validation import predict_logits
from towernet.models.paddle import read_pdparams, towernet_state_dict
from towernet.models.towernet import TowerNet
from towernet.predict import load_run

MEAN = (0.50950350, 0.54632660, 0.57409690)
STD = (0.26059777, 0.26041326, 0.29220656)


@pytest.fixture(scope="module")
def golden() -> Path:
    data = os.environ.get("TOWERNET_DATA")
    if not data:
        pytest.skip("TOWERNET_DATA is not set: the golden files are next to that folder")
    folder = Path(data).resolve().parent / "golden"
    if not (folder / "expected.npz").exists():
        pytest.skip(f"{folder} contains no expected.npz")
    return folder


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "expected.npz", allow_pickle=False) as stored:
        return dict(stored)


def images(expected: dict[str, np.ndarray]) -> Tensor:
    """Return the notebook's evaluation input for pixels that are 256² already."""
    x_BHWC = torch.from_numpy(expected["images"]).float() / 255
    normalised_BHWC = (x_BHWC - torch.tensor(MEAN)) / torch.tensor(STD)
    # Contiguous, as in the original measurement. In channels_last batch norm adds in another order,
    # and with these weights the two largest values in a max-pooling window agree to eight digits
    # (3.55800197 and 3.55800204), so the gradient goes to the other one.
    return normalised_BHWC.permute(0, 3, 1, 2).contiguous()


def imported(path: Path) -> TowerNet:
    network = TowerNet(16)
    network.load_state_dict(towernet_state_dict(read_pdparams(path)))
    return network


def relative(found: Tensor, wanted: np.ndarray) -> float:
    """Return the largest difference divided by the largest value."""
    difference = np.abs(found.detach().double().numpy() - wanted).max()
    return float(difference / np.abs(wanted).max())


def check_parity(network: TowerNet, expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Check the logits at the start, in three training steps, and after them."""
    x, labels = images(expected), torch.from_numpy(expected["labels"])
    figures = {}
    with torch.no_grad():
        figures["start"] = relative(network.eval()(x), expected["eval_logits_start"])
    assert figures["start"] <= 1e-5

    # The engine's own optimiser, schedule and step, as `--recipe notebook` uses them.
    recipe = load_recipe("notebook").train
    policy = Policy("cpu", "float32", False, torch.get_num_threads(), "parity")
    optimizer = make_optimizer(network, recipe, "towernet")
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 4500, recipe, recipe.learning_rate)
        loss, logits = train_step(
            network, optimizer, x, labels, label_smoothing=recipe.label_smoothing, policy=policy
        )
        figures[f"logits {step}"] = relative(logits, expected["train_logits"][step])
        figures[f"loss {step}"] = abs(loss.item() / expected["train_losses"][step] - 1)
        assert figures[f"logits {step}"] <= 1e-5
        assert figures[f"loss {step}"] <= 1e-5

    with torch.no_grad():
        # torch's running variance is unbiased and Paddle's is not: 2e-4 after three steps.
        figures["after"] = relative(network.eval()(x), expected["eval_logits_after"])
    assert figures["after"] <= 1e-3
    return figures


def test_the_exact_network_gives_paddles_numbers(golden, expected, record_property):
    for name, value in check_parity(imported(golden / "start.pdparams"), expected).items():
        record_property(name, f"{value:.1e}")


def test_an_imported_run_predicts_paddles_logits(golden, expected, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("".join(f"class {number}\n" for number in range(16)))
    import_weights(golden / "start.pdparams", classes, tmp_path / "run")
    predictor = load_run(tmp_path / "run")
    found = predict_logits(
        predictor.model, expected["images"], predictor.contract, predictor.policy
    )
    assert relative(torch.as_tensor(found), expected["eval_logits_start"]) <= 1e-5


def test_the_trained_weights_are_paddles(golden, expected):
    network = imported(golden / "start.pdparams")
    check_parity(network, expected)
    wanted = imported(golden / "after_3_steps.pdparams").state_dict()
    for name, value in network.state_dict().items():
        # A bias before batch norm has a gradient of rounding errors only. Of the others, the biases
        # of stage 1 differ most, since they started at 0 three steps ago.
        if not name.endswith(("num_batches_tracked", "conv.bias")):
            scale = wanted[name].abs().max()
            assert (value - wanted[name]).abs().max() <= 1e-2 * scale, name


@torch.no_grad()
def test_evaluation_is_the_same_in_channels_last(golden, expected):
    network = imported(golden / "start.pdparams").eval().to(memory_format=torch.channels_last)
    x = images(expected).contiguous(memory_format=torch.channels_last)
    assert relative(network(x), expected["eval_logits_start"]) <= 1e-5


def _forgets_the_shortcut(network: TowerNet) -> None:
    torch.nn.init.zeros_(network.inception_6.shortcut.weight)


def _uses_torchs_epsilon(network: TowerNet) -> None:
    network.stage_2.norm.eps = 1e-5


def _freezes_a_bias(network: TowerNet) -> None:
    network.head.bias.requires_grad_(False)


def _keeps_other_statistics(network: TowerNet) -> None:
    network.stage_1.norm.momentum = 0.2


def _leaves_the_channels_in_their_order(network: TowerNet) -> None:
    network.attention_6.shuffles = False


def _attends_in_fewer_groups(network: TowerNet) -> None:
    network.attention_6.groups //= 2
    for name, parameter in list(network.attention_6.named_parameters()):
        setattr(network.attention_6, name, torch.nn.Parameter(parameter.repeat(2)))


@pytest.mark.parametrize(
    "sabotage",
    [
        _forgets_the_shortcut,
        _uses_torchs_epsilon,
        _freezes_a_bias,
        _keeps_other_statistics,
        _leaves_the_channels_in_their_order,
        _attends_in_fewer_groups,
    ],
)
def test_parity_rejects_its_sabotaged_twins(golden, expected, sabotage):
    network = imported(golden / "start.pdparams")
    sabotage(network)
    with pytest.raises(AssertionError):
        check_parity(network, expected)
