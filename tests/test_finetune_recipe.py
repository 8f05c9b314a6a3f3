"""How fine-tuned networks are trained, and how a recipe file changes that."""

from __future__ import annotations

import pytest

from towernet.config import keys_of, load_finetune, load_recipe, override, own_training
from towernet.errors import ConfigError, UnknownNameError
from towernet.names import NetworkName
from towernet.records.protocol import Request


def recipe_file(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_table_of_a_recipe_file_changes_fine_tuning_and_nothing_else(tmp_path):
    name = recipe_file(
        tmp_path, "[train]\nepochs = 3\n[finetune.train]\nlearning_rate = 0.123\n"
        "[finetune.augment]\nbrightness = 0.0\n",
    )  # fmt: skip
    usual, mine = load_finetune("default"), load_finetune(name)
    assert mine.train == override(usual, train={"learning_rate": 0.123}).train
    assert mine.augment == override(usual, augment={"brightness": 0.0}).augment
    assert load_recipe(name) == override(load_recipe("default"), train={"epochs": 3})
    assert usual.train.norm_statistics == "fixed"
    assert usual.train.layer_decay < 1


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("[finetune.train]\nlearning_rat = 1\n", UnknownNameError, "learning_rate"),
        ("[finetune.train]\nlearning_rate = 0\n", ConfigError, "learning_rate is 0"),
        ("[finetune.data]\nsize_px = 64\n", ConfigError, r"\[finetune.train\] only"),
        ("finetune = 3\n", ConfigError, "finetune of recipe .* is 3"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, text, error, said):
    with pytest.raises(error, match=said):
        load_finetune(recipe_file(tmp_path, text))


def test_it_is_no_recipe_of_networks_from_scratch():
    with pytest.raises(UnknownNameError, match="finetune"):
        load_recipe("finetune")
    for train in ({"norm_statistics": "fixed"}, {"layer_decay": 0.5}):
        recipe = override(load_recipe("default"), train=train)
        with pytest.raises(ValueError, match=r"resnet18 cannot be trained with from scratch"):
            Request(models=(NetworkName("resnet18"),), recipe=recipe)


@pytest.mark.parametrize(
    ("text", "is_own"),
    [
        ("[train]\nlearning_rate = 0.1\n", True),
        ("[augment]\nbrightness = 0.1\n", True),
        ("[train]\nepochs = 4\n[augment]\nflip = false\n", False),
        ("[train]\nlearning_rate = 0.1\n[finetune.train]\nlearning_rate = 0.2\n", False),
    ],
)
def test_settings_that_fine_tuning_does_not_use_are_known(tmp_path, text, is_own):
    assert own_training(recipe_file(tmp_path, text)) == is_own


def test_a_recipe_for_scratch_alone_is_refused_where_nothing_starts_from_scratch(
    photos, weight_files, tmp_path, towernet
):
    name = recipe_file(tmp_path, "[train]\nepochs = 2\nlearning_rate = 0.1\n")
    words = (
        "--recipe", name, "--weights",
        f"mobilenet_v2={weight_files / 'mobilenet_v2-b0353104.pth'}", "--out", tmp_path / "out",
    )  # fmt: skip
    done = towernet("train", photos, "--model", "mobilenet_v2/finetuned", *words)
    assert done.returncode == 2
    assert "says how networks from scratch are trained, and there are none" in done.stderr
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_file_is_only_blamed_for_what_it_says(tmp_path):
    name = recipe_file(tmp_path, "[data]\ntest_fraction = 0.0\n")
    assert keys_of(name) == {"data.test_fraction"}
