"""Recipes, overrides, and the message for each fault in them."""

import pytest

from towernet.config import Recipe, RunConfig, load_recipe, make, override
from towernet.errors import ConfigError, DataError, UnknownNameError
from towernet.registry import Registry
from towernet.resume import choices_of, differences


@pytest.mark.parametrize("name", ["default", "quick", "notebook"])
def test_every_recipe_in_the_package_is_complete(name):
    recipe = load_recipe(name)
    assert (recipe.train.epochs is None) != (recipe.train.minutes is None)


def test_the_notebook_recipe_is_the_original_protocol():
    recipe = load_recipe("notebook")
    assert recipe.data.size_px == 256
    assert recipe.data.split_rule == "every_fifth"
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.learning_rate) == (
        100,
        32,
        0.01,
    )
    assert (recipe.train.momentum, recipe.train.nesterov) == (0.9, False)
    assert recipe.train.weight_decay_by_network == {"towernet": 2e-4}
    assert recipe.train.weight_decay == 1e-4
    assert recipe.train.decay_everything
    assert (recipe.augment.rotation_degrees, recipe.augment.interpolation) == (10, "nearest")


def test_giving_one_budget_removes_the_other():
    recipe = override(load_recipe("default"), train={"epochs": 3, "minutes": None})
    assert (recipe.train.epochs, recipe.train.minutes) == (3, None)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"epochs": 0}, "train.epochs is 0; give at least 1"),
        ({"batch_size": 1}, "train.batch_size is 1; give at least 2"),
        ({"label_smoothing": 1.0}, "train.label_smoothing is 1.0; give less than 1"),
        ({"momentum": -0.5}, "train.momentum is -0.5; give at least 0"),
        ({"learning_rate": 0.0}, "train.learning_rate is 0.0; give more than 0"),
        ({"learning_rate": 0}, "train.learning_rate is 0; give more than 0"),
        ({"minutes": float("inf")}, "train.minutes is inf; give a finite number"),
        ({"trial_factors": []}, "train.trial_factors is []; give at least 1"),
        ({"schedule": "step"}, "train.schedule is 'step'; give 'cosine' or 'notebook'"),
        (
            {"epochs": 3, "minutes": 2.0},
            "train.epochs is 3 and train.minutes is 2; give one budget, not both",
        ),
    ],
)
def test_a_wrong_value_is_one_sentence(train, message):
    with pytest.raises(ConfigError) as caught:
        override(load_recipe("default"), train=train)
    assert str(caught.value) == message


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nlearning_rat = 0.1\n")
    with pytest.raises(UnknownNameError, match=r"'learning_rat'\. Did you mean 'learning_rate'\?"):
        load_recipe(str(path))


def test_a_recipe_that_is_not_toml_or_is_missing_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    with pytest.raises(DataError, match="cannot be read"):
        load_recipe(str(path))
    path.write_text("[train\n")
    with pytest.raises(DataError, match="is not TOML"):
        load_recipe(str(path))


def test_an_unknown_recipe_is_refused_with_the_nearest_known_one():
    with pytest.raises(
        UnknownNameError, match=r"no recipe is called 'quik'\. Did you mean 'quick'\?"
    ):
        load_recipe("quik")


def test_a_config_is_the_same_after_json():
    config = RunConfig(model="towernet", recipe=load_recipe("notebook"))
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert make(Recipe, config.recipe.model_dump(mode="json"), where="test") == config.recipe


def test_differences_names_each_key_that_changed():
    before = {"seed": 0, "train": {"epochs": 3, "factors": [1.0, 2.0]}}
    now = {"seed": 1, "train": {"epochs": 3, "factors": (1.0, 2.0), "minutes": 2}}
    assert differences(before, now) == ["seed: 0 → 1", "train.minutes: None → 2"]
    assert differences(before, before) == []


def test_a_choice_that_is_not_written_while_default_is_named_by_its_value():
    config = RunConfig(model="towernet", recipe=load_recipe("default"))
    train = config.recipe.train.model_copy(update={"logit_adjustment": 1.0})
    recipe = config.recipe.model_copy(update={"train": train})
    other = config.model_copy(update={"measure": "balanced", "recipe": recipe})
    assert "measure" not in config.model_dump()
    wanted = ["measure: accuracy → balanced", "recipe.train.logit_adjustment: 0.0 → 1.0"]
    assert differences(choices_of(config), choices_of(other)) == wanted
    written = other.model_dump(mode="json")
    assert {key: choices_of(other)[key] for key in written if key != "recipe"} == {
        key: value for key, value in written.items() if key != "recipe"
    }


def test_a_registry_suggests_the_nearest_name():
    shapes = Registry("shape")
    shapes.register("round")(object())
    with pytest.raises(UnknownNameError) as caught:
        shapes["rund"]
    assert str(caught.value) == "no shape is called 'rund'. Did you mean 'round'? Known: round"
