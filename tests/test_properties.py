"""What holds for any names, values, tables and seeds, and not only for those we thought of."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from towernet import files, rng
from towernet.config import DataConfig
from towernet.data import splits
from towernet.data.source import open_source
from towernet.data.table import COLUMNS, STATUSES, make_table, path_bytes, read_table, write_table
from towernet.data.tree import hidden_part
from towernet.errors import DataError
from towernet.records.reading import Reading
from towernet.words import shown

quick = settings(max_examples=40, deadline=None)

# What Python makes of a name on disk: any bytes but NUL; and any text that JSON can hold, in which
# two surrogates would come back as the one character they stand for.
names = st.binary(max_size=40).map(lambda name: os.fsdecode(name.replace(b"\0", b"")))
texts = names | st.text() | st.text(st.sampled_from("\\u\udc80\udcffd8\n\r\x85\u2028\"'"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
content_ids = st.binary(min_size=32, max_size=32).map(bytes.hex)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


# Tables.


@st.composite
def any_table(draw):
    num = draw(st.integers(0, 6))
    kinds = {
        name: texts if kind is str else st.integers(0, 2**40) for name, kind in COLUMNS.items()
    }
    kinds |= {"content_id": content_ids | st.just(""), "status": st.sampled_from(STATUSES)}
    return {name: draw(st.lists(kind, min_size=num, max_size=num)) for name, kind in kinds.items()}


@quick
@given(any_table())
def test_every_column_of_a_table_survives_the_round_trip(folder, columns):
    write_table(folder / "t.parquet", make_table(columns))
    assert read_table(folder / "t.parquet").to_dict("list") == columns
    first = (folder / "t.parquet").read_bytes()
    write_table(folder / "t.parquet", read_table(folder / "t.parquet"))
    assert (folder / "t.parquet").read_bytes() == first


@given(texts)
def test_a_name_that_is_shown_is_one_printable_line(name):
    assert shown(name).isprintable()
    assert shown(shown(name)) == shown(name)
    if name.isprintable():
        assert shown(name) == name


# From names on disk to the table.

parts = st.binary(min_size=1, max_size=60).filter(
    lambda name: b"/" not in name and b"\0" not in name and not hidden_part(os.fsdecode(name))
)


@settings(max_examples=25, deadline=None)
@example({b"a": {b"1.M"}, b"b": {b"2.txt"}})
@given(st.dictionaries(parts, st.sets(parts, min_size=1, max_size=3), min_size=2, max_size=4))
def test_names_on_disk_come_back_through_source_and_table(folder, tree):
    root = folder / "tree"
    shutil.rmtree(os.fsencode(root), ignore_errors=True)
    for class_name, file_names in tree.items():
        (root / os.fsdecode(class_name)).mkdir(parents=True)
        for name in file_names:
            # Whatever its name ends with, a file that begins as an image is one.
            (root / os.fsdecode(class_name) / os.fsdecode(name)).write_bytes(b"\x89PNG\r\n\x1a\n")
    try:
        source = open_source(str(root), Reading(layout="classes"))
    except DataError as error:
        assume("differ only" not in str(error))
        raise
    columns = {
        "path": [file.path for file in source.files],
        "class_name": [file.class_name for file in source.files],
    }
    write_table(folder / "tree.parquet", make_table(columns))
    table = read_table(folder / "tree.parquet")
    on_disk = sorted(
        path.removeprefix(os.fsencode(root) + b"/")
        for path in (os.fsencode(path) for path in root.rglob("*") if path.is_file())
    )
    assert [path_bytes(path) for path in table["path"]] == on_disk
    assert [path_bytes(name) for name in table["class_name"]] == [
        path.split(b"/")[0] for path in on_disk
    ]
    assert [path_bytes(name) for name in source.class_names] == sorted(tree)


# Files.


@quick
@given(json_values)
def test_any_json_value_survives_the_round_trip(folder, value):
    files.write_json(folder / "v.json", value)
    assert files.read_json(folder / "v.json") == value


@quick
@given(st.lists(st.dictionaries(texts, json_values, max_size=3), max_size=4))
def test_any_json_lines_survive_the_round_trip(folder, rows):
    files.write_jsonl(folder / "v.jsonl", rows)
    assert files.read_jsonl(folder / "v.jsonl") == rows


class Stop(BaseException):
    """Neither an error nor an exit: whatever may happen between two writes."""


def check_that_a_failure_changes_nothing(opened, folder, old, chunks, fails_at, error):
    path = folder / "kept" / "file"
    shutil.rmtree(path.parent, ignore_errors=True)
    files.write_bytes(path, old)
    with pytest.raises(error), opened(path) as stream:
        for number, chunk in enumerate(chunks):
            if number == fails_at:
                raise error
            stream.write(chunk)
        raise error
    assert path.read_bytes() == old
    assert [found.name for found in path.parent.iterdir()] == ["file"]


failures = (
    st.binary(max_size=30), st.lists(st.binary(max_size=3000), max_size=5), st.integers(0, 5),
    st.sampled_from([Stop, KeyboardInterrupt, ValueError, MemoryError, OSError]),
)  # fmt: skip


@quick
@given(*failures)
def test_a_write_that_fails_at_any_point_leaves_the_old_bytes(folder, old, chunks, at, error):
    check_that_a_failure_changes_nothing(files.atomic, folder, old, chunks, at, error)


def test_a_writer_that_writes_in_place_is_caught(folder):
    with pytest.raises(AssertionError):
        check_that_a_failure_changes_nothing(
            lambda path: path.open("wb"), folder, b"old", [b"new"], 1, Stop
        )


# Splits.

# Many ties, but few enough that most tables can be split: clusters and groups chain.
ties = st.sampled_from([*[""] * 8, *map(str, range(12))])


@st.composite
def split_tables(draw, *, within_classes=False):
    """Tables of used and other images, with clusters and groups, perhaps inside classes alone."""
    classes = draw(st.lists(st.integers(12, 30), min_size=2, max_size=4))
    labels = [f"c{number}" for number, num in enumerate(classes) for _ in range(num)]
    num = len(labels)
    columns = {
        "path": [f"{label}/{number}" for number, label in enumerate(labels)],
        "class_name": labels,
        "content_id": [f"{rng.derive(7, number):064x}"[::-1] for number in range(num)],
        "status": draw(
            st.lists(st.sampled_from([*["used"] * 9, "ignored"]), min_size=num, max_size=num)
        ),
    }
    for name in ("cluster", "group"):
        drawn = draw(st.lists(ties, min_size=num, max_size=num))
        if within_classes:
            drawn = [tie and tie + label for tie, label in zip(drawn, labels, strict=True)]
        columns[name] = drawn
    return make_table(columns)


def assigned(table, seed, repetition):
    try:
        return splits.assign(table, DataConfig(), seed=seed, repetition=repetition)
    except DataError as error:
        assume("is too small for a" not in str(error))
        raise


def check_split(before, after):
    """Every used image is in one split, the others in none, and nothing tied is apart."""
    used = after["status"] == "used"
    assert (used == (before["status"] == "used")).all()
    assert set(after["split"][used]) <= {"train", "validation", "test"}
    assert set(after["split"][~used]) <= {""}
    for column in ("cluster", "group"):
        tied = after[used & (after[column] != "")]
        assert (tied.groupby(column, observed=True)["split"].nunique() == 1).all()


@quick
@given(split_tables(), st.integers(0, 2**31 - 1), st.integers(0, 50))
def test_every_used_image_is_in_one_split_and_no_tie_is_divided(table, seed, repetition):
    check_split(table, assigned(table, seed, repetition))


@quick
@given(split_tables(), st.integers(0, 2**31 - 1), st.integers(1, 50), st.randoms())
def test_neither_row_order_nor_repetition_moves_the_test_split(table, seed, repetition, random):
    order = list(range(len(table)))
    random.shuffle(order)
    first, again = assigned(table, seed, 0), assigned(table.iloc[order], seed, 0)
    split_of = dict(zip(first["path"], first["split"], strict=True))
    assert split_of == dict(zip(again["path"], again["split"], strict=True))
    other = assigned(table, seed, repetition)
    assert ((other["split"] == "test") == (first["split"] == "test")).all()


@quick
@given(split_tables(within_classes=True), st.integers(0, 2**31 - 1))
def test_each_class_gets_its_share_to_within_its_largest_unit(table, seed):
    table = assigned(table, seed, 0)
    used = table[table["status"] == "used"].reset_index(drop=True)
    codes = [
        np.unique(used[name].astype(str), return_inverse=True)[1] for name in ("cluster", "group")
    ]
    for column, name in zip(codes, ("cluster", "group"), strict=True):
        column[(used[name] == "").to_numpy()] = -1
    unit_of = splits.connect(len(used), codes)
    for label, rows in used.groupby("class_name", observed=True):
        largest = max(Counter(unit_of[rows.index]).values())
        for split, share in (("test", 0.2), ("validation", 0.16)):
            num = (rows["split"] == split).sum()
            assert abs(num - share * len(rows)) <= largest + 0.5, (label, split)


def test_a_split_that_draws_each_image_alone_is_caught():
    table = make_table({
        "path": [str(number) for number in range(40)],
        "class_name": ["a", "b"] * 20,
        "status": ["used"] * 40,
        "group": [str(number // 4) for number in range(40)],
    })  # fmt: skip
    sabotaged = table.assign(split=["train", "validation", "test", "train"] * 10)
    with pytest.raises(AssertionError):
        check_split(table, sabotaged)


# Randomness.

seeds = st.integers(0, 2**63 - 1)
epochs = st.integers(0, 2**32 - 1)
items = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40, unique=True).map(
    lambda keys: np.array(keys, dtype=np.uint64)
)


def check_draws(uniform, seed, epoch, item_keys, purpose, num):
    """In [0, 1), and those of one item whoever else draws, how many, and in which order."""
    drawn = uniform(seed, epoch, item_keys, purpose, num)
    assert drawn.shape == (len(item_keys), num)
    assert ((drawn >= 0) & (drawn < 1)).all()
    alone = uniform(seed, epoch, item_keys[-1:], purpose, num)
    np.testing.assert_array_equal(drawn[-1:], alone)
    turned = uniform(seed, epoch, item_keys[::-1], purpose, num)
    np.testing.assert_array_equal(drawn[::-1], turned)
    more = uniform(seed, epoch, item_keys, purpose, num + 1)
    np.testing.assert_array_equal(drawn, more[:, :num])


@quick
@given(seeds, epochs, items, st.text(st.characters(codec="ascii")), st.integers(1, 7))
def test_draws_are_in_range_and_those_of_one_item_alone(seed, epoch, item_keys, purpose, num):
    check_draws(rng.uniform, seed, epoch, item_keys, purpose, num)


def test_a_generator_with_a_state_is_caught():
    def in_turn(seed, epoch, item_keys, purpose, num):
        return np.random.default_rng([seed, epoch]).random((len(item_keys), num))

    with pytest.raises(AssertionError):
        check_draws(in_turn, 0, 0, np.arange(5, dtype=np.uint64), "crop", 3)


@quick
@given(seeds, epochs, items, st.integers(1, 2**31))
def test_another_seed_epoch_or_purpose_draws_anew(seed, epoch, item_keys, step):
    drawn = rng.uniform(seed, epoch, item_keys, "crop")
    others = [
        rng.uniform(seed, (epoch + step) % 2**32, item_keys, "crop"),
        rng.uniform(seed ^ step, epoch, item_keys, "crop"),
        rng.uniform(seed, epoch, item_keys, "flip"),
        rng.uniform(seed, epoch, item_keys ^ np.uint64(step), "crop"),
    ]
    for other in others:
        assert (other != drawn).all()


@quick
@given(seeds, epochs, items)
def test_an_order_is_a_permutation_of_the_items_and_not_of_their_places(seed, epoch, item_keys):
    order = rng.order(seed, epoch, item_keys)
    assert sorted(order) == list(range(len(item_keys)))
    again = rng.order(seed, epoch, item_keys[::-1])
    np.testing.assert_array_equal(item_keys[::-1][again], item_keys[order])
