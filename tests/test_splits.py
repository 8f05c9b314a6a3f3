"""Splits: no image is on two sides, every class is on each, and only the seed matters."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towernet.config import DataConfig
from towernet.data import class_sizes, splits
from towernet.data.table import make_table
from towernet.errors import ConfigError, DataError

CONFIG = DataConfig()


def content_id(text):
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def table_of(classes, **columns):
    """A table of {class name: number of images}."""
    paths = [f"{name}/{i:04d}.jpg" for name, num in classes.items() for i in range(num)]
    return make_table(
        {
            "path": paths,
            "class_name": [path.split("/")[0] for path in paths],
            "content_id": [content_id(path) for path in paths],
            "status": ["used"] * len(paths),
            **columns,
        }
    )


def assign(table, config=CONFIG, seed=0, repetition=0):
    return splits.assign(table, config, seed=seed, repetition=repetition)


def split_of(table):
    return dict(zip(table["path"], table["split"], strict=True))


def counts(table, class_name=None):
    rows = table if class_name is None else table[table["class_name"] == class_name]
    return rows["split"].value_counts().to_dict()


def divided(table, column):
    """The clusters or groups that are on two sides."""
    sides = {}
    used = table[(table["status"] == "used") & (table[column] != "")]
    for tie, split in zip(used[column], used["split"], strict=True):
        sides.setdefault(tie, set()).add(split)
    return [tie for tie, found in sides.items() if len(found) > 1]


@st.composite
def tables(draw, num_ties=12):
    """Tables of 2 to 4 classes, with groups and clusters drawn by a random generator for speed."""
    classes = draw(
        st.dictionaries(st.sampled_from("abcdé"), st.integers(3, 40), min_size=2, max_size=4)
    )
    random = draw(st.randoms(use_true_random=False))
    num = sum(classes.values())
    ties = ["", "", *map(str, range(num_ties))] if num_ties else [""]
    free = draw(st.integers(0, 8)) * num_ties
    return table_of(
        classes,
        group=[random.choice(ties) for _ in range(num)],
        cluster=[random.choice(ties + [""] * free) for _ in range(num)],
    )


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 99), st.integers(0, 3))
def test_no_tie_is_divided_and_every_class_is_on_each_side(table, seed, repetition):
    try:
        table = assign(table, seed=seed, repetition=repetition)
    except DataError as error:
        assert "is too small for a" in str(error)
        return
    assert not divided(table, "group") and not divided(table, "cluster")
    for name in set(table["class_name"]):
        assert set(counts(table, name)) == {"train", "validation", "test"}


@settings(max_examples=60, deadline=None)
@given(tables(num_ties=0), st.integers(0, 99))
def test_without_ties_every_class_gets_its_fractions(table, seed):
    table = assign(table, seed=seed)
    for name in set(table["class_name"]):
        found = counts(table, name)
        num = sum(found.values())
        assert abs(found["test"] - 0.20 * num) <= max(0.5, 1 - 0.20 * num) + 1e-9
        assert abs(found["validation"] - 0.2 * (num - found["test"])) <= 1
        assert found["train"] >= 1


@settings(max_examples=30, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(table, random):
    order = list(range(len(table)))
    random.shuffle(order)
    try:
        expected = split_of(assign(table))
    except DataError as error:
        with pytest.raises(DataError, match="is too small for a") as other:
            assign(table.iloc[order].reset_index(drop=True))
        assert str(other.value) == str(error)
        return
    assert split_of(assign(table.iloc[order].reset_index(drop=True))) == expected


def test_the_fractions_are_64_16_20_exactly_where_they_can_be():
    table = assign(table_of({"a": 100, "b": 50}))
    assert counts(table, "a") == {"train": 64, "validation": 16, "test": 20}
    assert counts(table, "b") == {"train": 32, "validation": 8, "test": 10}


def test_three_images_are_one_for_each_split():
    table = assign(table_of({"a": 3, "b": 3}))
    assert counts(table, "a") == counts(table, "b") == {"train": 1, "validation": 1, "test": 1}


def test_the_test_split_depends_on_the_seed_alone():
    def chosen(split, seed, repetition):
        table = assign(table_of({"a": 60, "b": 60}), seed=seed, repetition=repetition)
        return {path for path, found in split_of(table).items() if found == split}

    assert chosen("test", 0, 0) == chosen("test", 0, 1)
    assert chosen("validation", 0, 0) != chosen("validation", 0, 1)
    assert chosen("test", 0, 0) != chosen("test", 1, 0)
    assert chosen("validation", 3, 2) == chosen("validation", 3, 2)


def test_what_is_not_used_gets_no_split():
    table = table_of({"a": 10, "b": 10})
    table.loc[0, "status"], table.loc[1, "status"] = "quarantined", "ignored"
    found = assign(table)
    assert found["split"].tolist()[:2] == ["", ""]
    assert "" not in found["split"].tolist()[2:]
    assert table["split"].tolist() == [""] * 20, "the table given is left alone"


def test_clusters_and_groups_tie_through_each_other():
    # 0 and 1 share a cluster, 1 and 2 a group: all three stay together, always.
    table = table_of({"a": 20, "b": 20})
    table.loc[[0, 1], "cluster"] = "c"
    table.loc[[1, 2], "group"] = "g"
    for seed in range(20):
        assert len(set(assign(table, seed=seed)["split"].tolist()[:3])) == 1


def test_the_tie_test_rejects_a_split_that_ignores_ties(monkeypatch):
    monkeypatch.setattr(splits, "connect", lambda num, ties: np.arange(num))
    table = table_of({"a": 20, "b": 20}, cluster=(["c"] * 10 + [""] * 10) * 2)
    assert divided(assign(table), "cluster") == ["c"]


def test_tied_images_are_not_gathered_on_one_side():
    """Drawing large units first would make the test split one of near duplicates."""
    table = table_of(
        {"a": 400, "b": 400}, cluster=[f"{i // 2}" * (i % 400 < 200) for i in range(800)]
    )
    table = assign(table)
    test = table[table["split"] == "test"]
    assert 0.35 < (test["cluster"] != "").mean() < 0.65


def test_groups_of_several_classes_are_divided_near_the_fractions():
    table = table_of({"a": 100, "b": 100}, group=[f"patient {i % 25}" for i in range(200)])
    table = assign(table)
    assert not divided(table, "group")
    for name in "ab":
        assert counts(table, name) == {"train": 64, "validation": 16, "test": 20}


def test_a_class_of_two_groups_cannot_be_divided():
    table = table_of({"a": 9, "b": 9}, group=["p"] * 5 + ["q"] * 4 + [""] * 9)
    with pytest.raises(
        DataError,
        match="class a is too small for a test split: near duplicates and groups stay together, so"
        " its 9 images form only 2 units, and 3 unshared units are needed; add images",
    ):
        assign(table)


def test_fractions_that_leave_nothing_are_refused():
    config = DataConfig(validation_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ConfigError, match="leaves nothing to train on; set less than 1 in total"):
        assign(table_of({"a": 9, "b": 9}), config)


def test_a_split_of_no_share_is_not_drawn():
    assert counts(assign(table_of({"a": 50, "b": 50}), DataConfig(test_fraction=0))) == {
        "train": 84,
        "validation": 16,
    }


# --- splits that came with the data


def given_table(**num):
    """Two classes with these numbers of images in each given split."""
    column = [split for split, n in num.items() for _ in range(n)]
    return table_of({"a": len(column), "b": len(column)}, given_split=column * 2)


def test_given_splits_are_kept():
    table = given_table(train=10, validation=5, test=3)
    found = assign(table)
    assert found["split"].tolist() == found["given_split"].tolist()
    assert split_of(assign(table, seed=9, repetition=4)) == split_of(found)


def test_a_missing_validation_split_is_drawn_from_the_training_images():
    found = assign(given_table(train=40, test=10))
    assert counts(found, "a") == {"train": 32, "validation": 8, "test": 10}
    assert set(found[found["given_split"] == "test"]["split"]) == {"test"}


def test_a_missing_test_split_is_drawn_from_the_training_images():
    found = assign(given_table(train=84, validation=16))
    assert counts(found, "a") == {"train": 64, "validation": 16, "test": 20}
    assert set(found[found["given_split"] == "validation"]["split"]) == {"validation"}


def test_images_without_a_split_are_trained_on_if_others_have_one():
    table = given_table(train=8, validation=4, test=4)
    table.loc[0, "given_split"] = ""
    assert assign(table).loc[0, "split"] == "train"


def test_near_duplicates_across_given_splits_stay_only_in_the_last():
    table = given_table(train=8, validation=4, test=4)
    table.loc[[0, 1, 8, 12], "cluster"] = "all"  # two to train on, one validation, one test
    table.loc[[2, 9], "cluster"] = "two"  # train and validation
    table.loc[[3, 4], "cluster"] = "one"
    found = assign(table)
    gone = found[found["status"] == "ignored"]
    assert gone.index.tolist() == [0, 1, 2, 8]
    assert set(gone["reason"]) == {"DUPLICATE_ACROSS_SPLITS"} and set(gone["split"]) == {""}
    assert gone["detail"].tolist() == [
        f"a near duplicate of it is in the {split} split that came with the data"
        for split in ("test", "test", "validation", "test")
    ]
    assert not divided(found, "cluster")
    assert len(found) == len(table)


def test_a_group_in_two_given_splits_is_refused():
    table = given_table(train=8, validation=4, test=4)
    table.loc[[0, 12], "group"] = "patient\n7"
    with pytest.raises(
        DataError, match=r"group patient\\n7 has images in both train and test, and a group must"
    ):
        assign(table)


def test_a_class_without_training_images_is_named():
    table = given_table(train=8, validation=4, test=4)
    table.loc[table["class_name"] == "b", "given_split"] = "test"
    with pytest.raises(
        DataError, match="class b has no training images, its 16 images are assigned to test; move"
    ):
        assign(table)


# --- the notebook's rule


def test_every_fifth_file_of_a_class_is_held_out_in_byte_order():
    table = table_of({"a": 11, "b": 4})
    table = table.iloc[::-1].reset_index(drop=True)
    found = split_of(assign(table, DataConfig(split_rule="every_fifth"), seed=5))
    held_out = {path for path, split in found.items() if split == "validation"}
    assert held_out == {"a/0000.jpg", "a/0005.jpg", "a/0010.jpg", "b/0000.jpg"}
    assert set(found.values()) == {"train", "validation"}


def test_every_fifth_refuses_splits_that_came_with_the_data():
    with pytest.raises(
        ConfigError, match=r"the data has its own splits \(test, train\); pass only"
    ):
        assign(given_table(train=8, test=4), DataConfig(split_rule="every_fifth"))


# --- quick looks, and what cannot be trained on


def test_limit_keeps_that_many_of_each_class_in_any_order():
    table = table_of({"a": 30, "b": 4})
    found = splits.limit(table, 7, seed=3)
    used = found[found["status"] == "used"]
    assert used["class_name"].value_counts().to_dict() == {"a": 7, "b": 4}
    left_out = found[found["status"] == "ignored"]
    assert set(left_out["reason"]) == {"NOT_SAMPLED"}
    assert set(left_out["detail"]) == {"not among the 7 images per class that were drawn"}
    again = splits.limit(table.iloc[::-1].reset_index(drop=True), 7, seed=3)
    assert set(again[again["status"] == "used"]["path"]) == set(used["path"])
    other = splits.limit(table, 7, seed=4)
    assert set(other[other["status"] == "used"]["path"]) != set(used["path"])


def test_limit_takes_from_each_given_split_in_proportion():
    found = splits.limit(given_table(train=80, validation=10, test=10), 10, seed=0)
    used = found[(found["status"] == "used") & (found["class_name"] == "a")]
    assert used["given_split"].value_counts().to_dict() == {"train": 8, "validation": 1, "test": 1}


def test_a_class_with_too_few_images_is_named_with_its_quarantine():
    table = table_of({"a": 5, "b": 5, "c": 5})
    table.loc[5:8, "status"] = "quarantined"
    with pytest.raises(
        DataError,
        match=r"class b has 1 usable image \(4 quarantined\) and needs 3, one for each split; fix"
        " the quarantined files or add images, or leave it out with --min-images 3",
    ):
        class_sizes.require_trainable(table)


def test_all_classes_with_too_few_images_are_named_at_once():
    many = {f"c{i:02d}": 1 + i % 2 for i in range(14)}
    with pytest.raises(
        DataError,
        match=r"14 of 16 classes have fewer than 3 usable images, one for each split: c00 \(1\),"
        r" c01 \(2\), .*, c09 \(2\) and 4 more; add images, or leave them out with --min-images 3",
    ):
        class_sizes.require_trainable(table_of({"a": 5, "b": 5} | many))
    with pytest.raises(DataError, match=r"c00 \(1\), c01 \(2\); add images$"):
        class_sizes.require_trainable(table_of({"a": 5, "c00": 1, "c01": 2}))


def test_classes_with_too_few_usable_images_are_left_out():
    table = table_of({"a": 5, "b": 5, "c": 6, "d": 2})
    table.loc[10:13, "status"] = "quarantined"
    found = class_sizes.leave_out_small(table, 3)
    few = found[found["reason"] == "FEW_IMAGES"]
    assert few["class_name"].tolist() == ["c", "c", "d", "d"]
    assert set(few["status"]) == {"ignored"}
    assert set(few["detail"]) == {"its class has 2 usable images and --min-images is 3"}
    assert (found["status"] == "quarantined").sum() == 4 and len(found) == len(table)
    class_sizes.require_trainable(found, 3)
    assert class_sizes.left_out_classes(found, 3) == {"c", "d"}
    assert class_sizes.leave_out_small(table, None) is table
    found = class_sizes.leave_out_small(table, 6)
    with pytest.raises(DataError, match=r"no class and .* \(4 others left out by --min-images 6\)"):
        class_sizes.require_trainable(found, 6)


def test_one_class_cannot_be_trained_on():
    table = table_of({"a": 5, "": 5})
    with pytest.raises(DataError, match="the data has one class, a, and at least two are needed"):
        class_sizes.require_trainable(table)


def test_two_classes_of_three_images_can_be_trained_on():
    class_sizes.require_trainable(table_of({"a": 3, "b": 3}))


def test_names_that_are_not_utf8_are_divided_like_others():
    table = table_of({"caf\udce9": 10, "thé": 10})
    found = assign(splits.limit(table, 8, seed=0))
    class_sizes.require_trainable(found)
    assert counts(found) == {"": 4, "train": 10, "validation": 2, "test": 4}
    held_out = assign(table, DataConfig(split_rule="every_fifth"))
    assert counts(held_out) == {"train": 16, "validation": 4}
