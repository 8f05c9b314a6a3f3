"""`towernet plan`: what a budget of hours allows, before it is spent."""

from __future__ import annotations

import shlex
import shutil

import numpy as np
import pytest

from conftest import TINY_NETWORK

MODELS = f"{TINY_NETWORK},towernet_patch"
WORDS = ("--models", MODELS, "--size", 64, "--batch-size", 8, "--workers", 1)


def command_of(done):
    return shlex.split(done.stdout.splitlines()[-1])


@pytest.mark.proof
def test_it_proposes_a_comparison_and_its_detectable_difference(towernet, photos, tmp_path):
    data = shutil.copytree(photos, tmp_path / "my photos")
    done = towernet("plan", data, *WORDS, "--hours", 2, "--images-per-class", 9, "--seed", 3)
    assert done.returncode == 0, done.stderr
    words = command_of(done)
    assert words[:3] == ["towernet", "compare", str(data)]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given["--models"] == MODELS
    assert int(given["--runs"]) >= 6  # the fewest that can show a difference
    assert (given["--seed"], given["--images-per-class"], given["--size"]) == ("3", "9", "64")
    minutes = float(given["--minutes"])
    # Two networks, their runs, and three trials that each take a share of a run.
    assert 60 < minutes * 2 * (int(given["--runs"]) + 0.5) <= 120
    assert "points" in done.stdout
    assert "e+" not in done.stdout
    assert "none" in done.stdout  # single runs cannot show a difference


def test_too_few_hours_are_reported(towernet, photos):
    done = towernet("plan", photos, *WORDS, "--hours", 0.002)
    assert done.returncode == 0, done.stderr
    assert "These hours are too few to compare networks" in done.stdout


@pytest.mark.proof
def test_with_too_few_hours_smaller_images_are_proposed(towernet, photos):
    words = ("plan", photos, "--models", MODELS, "--batch-size", 8)
    done = towernet(*words, "--workers", 1, "--hours", 0.0005)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.endswith(" points")]
    sizes = {row.replace("→", "").split()[0] for row in rows}
    assert sizes == {"128", "96", "64"}
    fixed = towernet(*words, "--workers", 1, "--hours", 0.0005, "--size", 128)
    assert " 96 " not in fixed.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hours", 0), "--hours is 0; give more than 0 and less than 100,000"),
        (("--hours", 200_000), "--hours is 200000; give more than 0 and less than 100,000"),
        (("--models", "resnet18"), "--models is 'resnet18'; give two or more to compare"),
        (("--models", "resnet18,"), "--models is 'resnet18,'; give names, comma-separated"),
    ],
)
def test_what_cannot_be_planned_is_refused(towernet, photos, words, message):
    done = towernet("plan", photos, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"error: {message}"


def test_more_runs_and_more_images_show_smaller_differences():
    from towernet.comparison.judging.variance import Cells
    from towernet.comparison.proposal import detectable

    def shown(num_runs, num_images, tied=1, labels=None):
        return detectable(4, num_runs, Cells.of(np.arange(num_images) // tied, labels))

    assert shown(8, 350) > shown(16, 350) > shown(16, 3500)
    assert shown(16, 350, tied=7) > shown(16, 350)
    assert shown(7, 10**5) is None
    # A balanced accuracy is as certain as its smallest class.
    assert shown(16, 350, labels=np.arange(350) % 2) == shown(16, 350)
    assert shown(16, 350, labels=(np.arange(350) < 10).astype(int)) > 2 * shown(16, 350)


@pytest.mark.parametrize(
    ("minutes", "runs", "num_states", "num_states_of_trials"),
    [(0.67, 1, 0, 0), (3.9, 5, 0, 0), (9, 2, 2, 0), (60, 2, 15, 1)],
)
def test_all_that_will_be_written_is_the_best_weights_once_and_a_state_every_four_minutes(
    minutes, runs, num_states, num_states_of_trials
):
    from test_rates import images
    from towernet.comparison.forecast import SPARE_BYTES, budget, bytes_in_all
    from towernet.config import load_recipe, override
    from towernet.engine.measure import Cost
    from towernet.names import NetworkName
    from towernet.records.protocol import Request

    recipe = override(load_recipe("default"), train={"minutes": minutes, "epochs": None})
    names = (NetworkName("resnet18"), NetworkName("towernet"))
    request = Request(models=names, recipe_name="default", recipe=recipe, seed=0, runs=runs)
    dataset = images((40, 40))
    costs = {names[0]: Cost(0.05, 0.0, 1000, 1), names[1]: Cost(0.01, 0.0, 100, 1)}
    steps = {name: budget(recipe, cost, dataset) + 1 for name, cost in costs.items()}
    of_runs = runs * (1 + 4 * num_states)
    for has_trials in (True, False):
        of_trials = 3 * 4 * num_states_of_trials * has_trials
        found = bytes_in_all(request, dataset, costs, steps, has_trials=has_trials)
        assert found - SPARE_BYTES == 4 * 1100 * (of_runs + of_trials)


def test_fewer_pairs_need_fewer_runs(towernet, photos):
    words = ("plan", photos, "--models", f"{MODELS},resnet18,resnet34", *WORDS[2:])
    runs = {}
    for option in ((), ("--against", "resnet18")):
        done = towernet(*words, *option, "--hours", 2, "--images-per-class", 9)
        assert done.returncode == 0, done.stderr
        command = command_of(done)
        assert (("--against" in command) and "resnet18" in command) == bool(option)
        rows = [line for line in done.stdout.splitlines() if line.endswith(" points")]
        runs[option] = min(int(row.replace("→", "").split()[0]) for row in rows)
    assert runs["--against", "resnet18"] < runs[()]


@pytest.mark.proof
def test_networks_with_weights_are_planned_at_their_own_size(towernet, photos, weight_files):
    words = ("--weights", f"mobilenet_v2={weight_files / 'mobilenet_v2-b0353104.pth'}")
    for models in ("mobilenet_v2/frozen,towernet_patch", "towernet_patch,mobilenet_v2/frozen"):
        done = towernet("plan", photos, "--models", models, *words, "--workers", 1, "--hours", 3)
        assert done.returncode == 0, done.stderr
        assert "--size" not in command_of(done)
        assert "128 px" not in done.stdout  # that is the size of one of them
