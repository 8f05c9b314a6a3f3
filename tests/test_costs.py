"""The seconds of a step: measured in rounds, checked by the trials, and then never changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from made_results import a_network, some_times
from test_rates import images
from test_times import ChangesMood, compared, nets  # noqa: F401 (a fixture)
from towernet.comparison.costs import (
    check_by_trials,
    steps_of,
    typical,
    unchecked_words,
    with_final_steps,
)
from towernet.comparison.forecast import mixes, too_short_words, trial_rates
from towernet.comparison.judging.times import training_times
from towernet.comparison.protocol import make_protocol, read_protocol, write_protocol
from towernet.config import load_recipe, override
from towernet.engine.batches import steps_per_epoch
from towernet.engine.measure import Cost
from towernet.engine.runlog import Progress
from towernet.names import NetworkName
from towernet.records.ledger import Ledger, StepsFixed, Trial
from towernet.records.protocol import Decided, Protocol, Request
from towernet.records.run import PolicyChoices

NAMES = tuple(map(NetworkName, ("towernet", "resnet50", "vgg19", "mobilenet_v2", "resnet18")))
SECONDS = dict(zip(NAMES, (0.05, 0.3, 0.6, 0.04, 0.1), strict=True))


def a_cost(seconds: float, image_seconds: float = 0.001) -> Cost:
    return Cost(seconds, image_seconds, 1000, 1000)


def rounds_with_load(is_busy) -> list[dict[NetworkName, Cost]]:
    """Five rounds, in which a step takes twice as long while `is_busy(n)`, n the measurement."""
    return [
        {
            name: a_cost(SECONDS[name] * (1 + is_busy(len(NAMES) * number + place)))
            for place, name in enumerate(NAMES)
        }
        for number in range(5)
    ]


def unequal(costs: dict[NetworkName, Cost]) -> float:
    """Return the largest ratio of estimate to truth over the smallest: 1 if it is fair."""
    ratios = [cost.step_seconds / SECONDS[name] for name, cost in costs.items()]
    return max(ratios) / min(ratios)


def median_of_each(rounds: list[dict[NetworkName, Cost]]) -> dict[NetworkName, Cost]:
    """A wrong rule: every network by itself."""
    return {name: a_cost(median(of[name].step_seconds for of in rounds)) for name in NAMES}


def test_a_neighbour_that_comes_or_goes_changes_no_network_more_than_the_others():
    for start in range(25):
        for length in (1, 3, 5, 8, 25):
            rounds = rounds_with_load(lambda n, start=start, end=start + length: start <= n < end)
            assert unequal(typical(rounds)) == pytest.approx(1), (start, length)


def test_the_median_of_each_network_alone_would_be_unfair():
    rounds = rounds_with_load(lambda number: number >= 12)  # from the middle of the third round
    assert unequal(median_of_each(rounds)) == pytest.approx(2)
    assert unequal(rounds[2]) == pytest.approx(2)  # as is one round
    found = typical(rounds)
    assert unequal(found) == pytest.approx(1)
    assert SECONDS[NAMES[0]] <= found[NAMES[0]].step_seconds <= 2 * SECONDS[NAMES[0]]


# The check by the trials.

TWO = NAMES[:2]
DATASET = images((33,) * 10)
RATES = trial_rates(load_recipe("default"))


def a_protocol(
    estimates: dict[NetworkName, float], models=TWO, attention: tuple[str, ...] = ()
) -> Protocol:
    """A protocol of one minute whose steps follow from these seconds per step."""
    recipe = override(load_recipe("default"), train={"minutes": 1.0})
    decided = Decided(
        policy=PolicyChoices("cpu", "float32", True, 1, "test"),
        num_steps={name: int(60 / seconds) for name, seconds in estimates.items()},
        steps_are_final=False,
        mixes=dict.fromkeys(estimates, False),
        failures={},
        costs={name: a_cost(seconds, 1e-9) for name, seconds in estimates.items()},
    )
    request = Request(models=models, attention=attention, recipe=recipe)
    return make_protocol(request, "0" * 64, decided, {})


def a_ledger(folder: Path, seconds: dict[NetworkName, tuple[float | None, ...]]) -> Ledger:
    """A ledger with a trial of each rate that took these seconds per step; None: not recorded."""
    ledger = Ledger(folder / "ledger.jsonl")
    for name, of_rates in seconds.items():
        for rate, per_step in zip(RATES, of_rates, strict=True):
            ledger.add(
                Trial(
                    network=name, learning_rate=rate, num_steps=75, validation_loss=1.0,
                    validation_accuracy=0.5, reason=None, seconds=9.0, step_seconds=per_step,
                    image_seconds=None if per_step is None else 1e-9,
                )
            )  # fmt: skip
    return ledger


def steps_after(protocol: Protocol, ledger: Ledger) -> dict[NetworkName, int]:
    fixed = check_by_trials(protocol, ledger, DATASET)
    changed = {found.network for found in fixed.networks if found.steps != found.planned_steps}
    assert bool(changed) is fixed.corrected
    final = with_final_steps(protocol, fixed)
    assert final.decided.steps_are_final
    return final.decided.num_steps


A, B = TWO
PLANTED = {A: 0.1, B: 0.1}
PER_EPOCH = steps_per_epoch(len(DATASET.train), 32)
SAME = {A: (0.1,) * 3, B: (0.1,) * 3}


@pytest.mark.parametrize(
    ("in_trials", "steps"),
    [
        ({A: (0.1,) * 3, B: (0.1,) * 3}, (600, 600)),
        ({A: (0.105,) * 3, B: (0.095,) * 3}, (600, 600)),
        # One estimate is wrong: all steps are computed from the trials.
        ({A: (0.105,) * 3, B: (0.2,) * 3}, (571, 300)),
        # So are all, by the same factor: the promised minutes would not be kept.
        ({A: (0.2,) * 3, B: (0.2,) * 3}, (300, 300)),
        # A neighbour during one trial of one network changes nothing.
        ({A: (0.1, 0.1, 0.1), B: (0.1, 0.3, 0.1)}, (600, 600)),
        # Nor does one that comes with the second trial of B: the rounds are compared.
        ({A: (0.1, 0.1, 0.3), B: (0.2, 0.6, 0.6)}, (346, 173)),
        # Trials that say nothing: too short, or made by an earlier version.
        ({A: (0.01,) * 3, B: (0.001,) * 3}, (600, 600)),
        ({A: (None,) * 3, B: (None,) * 3}, (600, 600)),
        # One rate is too short for one network; the others decide.
        ({A: (0.1, 0.1, 0.1), B: (0.2, 0.2, 0.001)}, (600, 300)),
    ],
)
def test_the_trials_confirm_or_correct_the_steps(in_trials, steps, tmp_path):
    found = steps_after(a_protocol(PLANTED), a_ledger(tmp_path, in_trials))
    assert list(found.values()) == pytest.approx(list(steps), abs=1)


def test_a_failed_network_does_not_hide_the_others(tmp_path):
    ledger = a_ledger(tmp_path, {A: (0.2,) * 3})
    for rate in RATES:
        ledger.add(
            Trial(
                network=B, learning_rate=rate, num_steps=75, validation_loss=None,
                validation_accuracy=None, reason="diverged", seconds=9.0,
            )
        )  # fmt: skip
    assert steps_after(a_protocol(PLANTED), ledger) == pytest.approx({A: 300, B: 600}, abs=1)


def test_trials_that_are_too_short_for_one_network_check_the_others(tmp_path):
    models = (*TWO, NAMES[2])
    slow = models[2]
    estimates = PLANTED | {slow: 2.0}
    in_trials = {A: (0.1,) * 3, B: (0.2,) * 3, slow: (0.01,) * 3}
    ledger = a_ledger(tmp_path, in_trials)
    protocol = a_protocol(estimates, models)
    fixed = check_by_trials(protocol, ledger, DATASET)
    found = {each.network: each.steps for each in fixed.networks}
    assert found == pytest.approx({A: 600, B: 300, slow: 30}, abs=1)
    words = unchecked_words(fixed, ledger)
    assert words is not None and f"of {slow} (too short" in words
    assert A not in words.partition(slow)[0]
    (tmp_path / "same").mkdir()
    ledger = a_ledger(tmp_path / "same", SAME)
    assert unchecked_words(check_by_trials(a_protocol(PLANTED), ledger, DATASET), ledger) is None


def test_a_variant_that_is_not_trained_takes_no_steps_from_the_others(tmp_path):
    models = tuple(map(NetworkName, ("resnet18", "resnet18+se")))
    protocol = a_protocol({models[0]: 0.1, models[1]: 0.4}, models, ("none", "se"))
    ledger = a_ledger(tmp_path, {models[0]: (0.2,) * 3})
    for rate in RATES:
        ledger.add(
            Trial(
                network=models[1], learning_rate=rate, num_steps=75, validation_loss=None,
                validation_accuracy=None, reason="diverged", seconds=9.0,
            )
        )  # fmt: skip
    assert steps_after(protocol, ledger)[models[0]] == pytest.approx(300, abs=1)


def test_whether_images_are_mixed_follows_the_final_steps(tmp_path):
    from_epochs = load_recipe("default").augment.mixup_from_epochs
    seconds = 60 / (1.5 * from_epochs * PER_EPOCH)
    protocol = a_protocol({A: seconds, B: seconds})
    assert protocol.request.recipe.augment.mixup_alpha > 0
    mixed = protocol.decided.model_copy(update={"mixes": {A: True, B: True}})
    protocol = protocol.model_copy(update={"decided": mixed})
    ledger = a_ledger(tmp_path, {A: (seconds,) * 3, B: (3 * seconds,) * 3})
    fixed = check_by_trials(protocol, ledger, DATASET)
    assert with_final_steps(protocol, fixed).decided.mixes == {A: True, B: False}
    before = fixed.model_copy(
        update={"networks": tuple(n.model_copy(update={"mixes": None}) for n in fixed.networks)}
    )
    assert with_final_steps(protocol, before).decided.mixes == {A: True, B: True}
    (tmp_path / "same").mkdir()
    same = a_ledger(tmp_path / "same", {A: (seconds,) * 3, B: (seconds,) * 3})
    fewer = images((3,) * 10)  # images were removed since the steps were decided
    assert not mixes(protocol.request.recipe, protocol.decided.num_steps[A], images((99,) * 10))
    for changed in (fewer, images((99,) * 10)):
        confirmed = check_by_trials(protocol, same, changed)
        assert not confirmed.corrected
        assert with_final_steps(protocol, confirmed).decided.mixes == {A: True, B: True}


def test_the_steps_of_some_minutes_are_the_most_that_fit_with_their_evaluations():
    chance = np.random.default_rng(0)
    for _ in range(200):
        cost = a_cost(float(chance.uniform(0.01, 2)), float(chance.uniform(1e-4, 0.1)))
        seconds, batch_size = float(chance.uniform(0.1, 200)), int(chance.integers(2, 40))
        found = cost.steps_within(seconds, DATASET, batch_size)
        assert found == 1 or cost.seconds(found, DATASET, batch_size) <= seconds * (1 + 1e-9)
        # One more step does not fit, unless the next evaluation is what does not.
        assert cost.seconds(found + 1, DATASET, batch_size) > seconds * (1 - 1e-9)
    evaluation = len(DATASET.validation) * 0.05
    seconds = PER_EPOCH * 0.1 + evaluation + 0.35
    half = a_cost(0.1, 0.05).steps_within(seconds, DATASET, 32)
    assert half == PER_EPOCH  # no time is left to evaluate what more steps would change


def test_a_network_that_will_see_too_few_images_is_named_before_it_is_trained():
    request = a_protocol(PLANTED).request
    words = too_short_words(request, DATASET, {A: PER_EPOCH, B: PER_EPOCH // 2, NAMES[2]: 0})
    assert words is not None and words.startswith(f"{B} will not see all training images")
    minutes = float(words.partition("--minutes ")[2].split()[0])
    assert 2 < minutes < 2.6
    assert too_short_words(request, DATASET, {A: PER_EPOCH}) is None
    by_epochs = override(load_recipe("default"), train={"epochs": 1})
    by_epochs = request.model_copy(update={"recipe": by_epochs})
    assert too_short_words(by_epochs, DATASET, {B: 1}) is None


def test_variants_still_share_their_steps_after_a_correction(tmp_path):
    models = tuple(map(NetworkName, ("resnet18", "resnet18+se")))
    protocol = a_protocol(dict.fromkeys(models, 0.1), models, ("none", "se"))
    ledger = a_ledger(tmp_path, {models[0]: (0.1,) * 3, models[1]: (0.15,) * 3})
    assert set(steps_after(protocol, ledger).values()) == {
        399
    }  # as many as the slower has time for


def test_a_variant_that_ends_early_by_design_is_not_called_unfair(tmp_path):
    """It takes as many steps as the slowest variant of its network has time for."""
    models = tuple(map(NetworkName, ("resnet18", "resnet18+se", "vgg19", "vgg19+se")))
    estimates = dict(zip(models, (0.1, 0.15, 0.25, 0.3), strict=True))
    protocol = a_protocol(estimates, models, ("none", "se"))
    costs = {name: Cost.of(cost) for name, cost in protocol.decided.costs.items()}
    shared = steps_of(protocol.request, DATASET, costs, {})
    decided = protocol.decided.model_copy(update={"num_steps": shared})
    protocol = protocol.model_copy(update={"decided": decided})
    networks = [a_network(name) for name in models]
    took = {
        name: some_times(run_seconds=seconds)
        for name, seconds in zip(models, (40.0, 60.0, 50.0, 62.0), strict=True)
    }
    times = training_times(protocol, DATASET, networks, took)
    assert times is not None and not times.differ
    assert times.shorter_by_design == ("resnet18", "vgg19")
    assert (times.shortest, times.longest) == ("resnet18+se", "vgg19+se")
    slow = took | {models[3]: some_times(run_seconds=80.0)}
    assert training_times(protocol, DATASET, networks, slow).differ
    assert training_times(protocol, DATASET, networks[:2], took) is None  # nothing to compare


def test_a_protocol_says_only_that_its_steps_are_not_final(tmp_path):
    """Final ones are written as they were before, and those of earlier versions are final."""
    protocol = a_protocol(PLANTED)
    write_protocol(tmp_path / "protocol.toml", protocol)
    assert read_protocol(tmp_path / "protocol.toml").decided.num_steps == {A: 600, B: 600}
    assert not read_protocol(tmp_path / "protocol.toml").decided.steps_are_final
    assert "steps_are_final = false" in (tmp_path / "protocol.toml").read_text()
    final = protocol.model_copy(
        update={"decided": protocol.decided.model_copy(update={"steps_are_final": True})}
    )
    write_protocol(tmp_path / "protocol.toml", final)
    assert "steps_are_final" not in (tmp_path / "protocol.toml").read_text()
    assert read_protocol(tmp_path / "protocol.toml").decided.steps_are_final


class KeepsProtocol(ChangesMood):
    """Also keeps the protocol as it is when the first trial starts."""

    def say(self, text: str) -> None:
        super().say(text)
        if "trial of" in text and not Path("provisional.toml").exists():
            shutil.copy("out/protocol.toml", "provisional.toml")


def weights(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("best.safetensors")
    }


@pytest.mark.proof
@pytest.mark.timeout(300)  # three times, on a busy machine
def test_trials_correct_a_wrong_estimate_once_and_resuming_changes_nothing(nets, photos):  # noqa: F811
    """One network takes more than twice the measured time as soon as the trials begin."""
    recipe = "minutes = 0.05\ntrial_share = 0.5"
    progress = KeepsProtocol("trial of", 0.07)
    found = compared(photos, recipe, progress)
    assert any("steps corrected by the seconds per step of the trials" in s for s in progress.said)
    ledger = Ledger(found.folder / "ledger.jsonl")
    (fixed,) = ledger.find_all(StepsFixed)
    assert fixed.corrected
    calm, moody = fixed.networks
    assert moody.planned_steps / calm.planned_steps > 0.8
    assert 0.3 < moody.steps / calm.steps < 0.6
    decided = read_protocol(found.folder / "protocol.toml").decided
    assert list(decided.num_steps.values()) == [calm.steps, moody.steps]
    assert decided.steps_are_final
    # Without the correction the longer time would be more than twice the shorter.
    times = found.measured.times
    assert times.longest_seconds / times.shortest_seconds < 1.4, times
    protocol, best = (found.folder / "protocol.toml").read_bytes(), weights(found.folder)
    results = json.loads((found.folder / "results.json").read_text())["results"]
    for is_killed_before_the_protocol in (False, True):
        if is_killed_before_the_protocol:
            shutil.copy("provisional.toml", "out/protocol.toml")
        (found.folder / "results.json").unlink()
        shutil.rmtree(found.folder / "runs")
        again = compared(photos, recipe, Progress())
        assert (again.folder / "protocol.toml").read_bytes() == protocol
        assert Ledger(again.folder / "ledger.jsonl").count(StepsFixed) == 1
        assert weights(again.folder) == best
        assert json.loads((again.folder / "results.json").read_text())["results"] == results
