"""The sample table: what is written is read, byte for byte and name for name."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towernet.data.table import (
    COLUMNS,
    Texts,
    hex_column,
    large_table,
    make_table,
    path_bytes,
    read_frame,
    read_table,
    write_frame,
    write_table,
)
from towernet.errors import DataError, EnvironmentFault
from towernet.words import shown

# Every code point, lone surrogates among them, and what escaping could trip over.
NAMES = st.text(max_size=12) | st.text(st.characters(categories=["Cs"]) | st.sampled_from("\\ud7a"))


def table_of(paths):
    return make_table({"path": paths, "class_name": paths, "num_bytes": range(len(paths))})


@settings(max_examples=40, deadline=None)
@given(st.lists(NAMES, max_size=8))
def test_any_name_survives_the_round_trip(tmp_path_factory, names):
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    write_table(path, table_of(names))
    table = read_table(path)
    assert table["path"].tolist() == names
    assert table.to_dict("list") == table_of(names).to_dict("list")


@pytest.mark.parametrize("name", ["caf\udce9", "a\\b", "a\\udce9", "a\\\\udce9", "\ud800", ""])
def test_names_that_escaping_could_confuse_survive(tmp_path, name):
    write_table(tmp_path / "t.parquet", table_of([name, "a"]))
    assert read_table(tmp_path / "t.parquet")["path"].tolist() == [name, "a"]


def test_the_round_trip_test_rejects_an_escape_that_cannot_be_undone(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "towernet.data.table._escape", lambda text: text.encode(errors="replace").decode()
    )
    write_table(tmp_path / "t.parquet", table_of(["caf\udce9"]))
    assert read_table(tmp_path / "t.parquet")["path"].tolist() != ["caf\udce9"]


def test_the_same_table_gives_the_same_bytes(tmp_path):
    table = table_of(["a/1.jpg", "b/caf\udce9.jpg"])
    write_table(tmp_path / "one.parquet", table)
    write_table(tmp_path / "two.parquet", read_table(tmp_path / "one.parquet"))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@settings(max_examples=40, deadline=None)
@given(st.lists(NAMES, max_size=8))
def test_a_large_table_means_and_is_stored_the_same_as_a_small_one(tmp_path_factory, names):
    folder = tmp_path_factory.getbasetemp()
    content_ids = [f"{i:064x}" if i % 3 else "" for i in range(len(names))]
    small = make_table(
        {
            "path": names,
            "class_name": names,
            "content_id": content_ids,
            "reason": ["EMPTY" if i % 2 else "" for i in range(len(names))],
            "status": ["used"] * len(names),
        }
    )
    large = large_of(small)
    assert large.to_dict("list") == small.to_dict("list")
    write_table(folder / "small.parquet", small)
    write_table(folder / "large.parquet", large)
    assert (folder / "small.parquet").read_bytes() == (folder / "large.parquet").read_bytes()
    assert read_table(folder / "large.parquet").equals(large)


def large_of(table):
    num = len(table)
    columns = {}
    for name, kind in COLUMNS.items():
        values = table[name].to_numpy()
        columns[name] = Texts.of(values, num) if kind is str else values
    columns["path"] = table["path"].to_numpy()
    digests = [bytes.fromhex(content_id) for content_id in table["content_id"]]
    columns["content_id"] = hex_column(np.array(digests, "S32"))
    return large_table(columns)


def test_a_table_of_several_blocks_is_read_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("towernet.data.table._ROWS_AT_ONCE", 3)
    table = table_of([f"{i}.jpg" for i in range(10)])
    write_table(tmp_path / "t.parquet", table)
    assert read_table(tmp_path / "t.parquet").to_dict("list") == table.to_dict("list")
    digests = np.array([bytes([i] * 32) for i in range(1, 8)], "S32")
    assert list(hex_column(digests)) == [f"{i:02x}" * 32 for i in range(1, 8)]


def test_a_column_can_have_more_texts_than_a_byte_can_number():
    column = Texts(300)
    for row in range(300):
        column[row] = f"text {row}"
    assert [column[row] for row in (0, 127, 128, 299)] == [
        "text 0",
        "text 127",
        "text 128",
        "text 299",
    ]
    assert list(column.objects()) == [f"text {row}" for row in range(300)]


def test_a_table_has_all_columns_and_text_stays_text():
    table = make_table({"path": ["None/NaN"], "class_name": ["None"]})
    assert list(table.columns) == list(COLUMNS)
    assert table.loc[0, "class_name"] == "None"
    assert table.loc[0, "reason"] == "" and table.loc[0, "width"] == 0
    assert all(
        table[name].dtype == (object if kind is str else kind) for name, kind in COLUMNS.items()
    )


def test_other_tables_keep_their_numbers(tmp_path):
    frame = pd.DataFrame({"path": ["a", "b"], "confidence": np.float32([0.25, 1]), "n": [3, 4]})
    write_frame(tmp_path / "f.parquet", frame)
    read = read_frame(tmp_path / "f.parquet")
    assert read.dtypes.astype(str).tolist() == ["object", "float32", "int64"]
    assert read.to_numpy().tolist() == frame.to_numpy().tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"gone.parquet does not exist; is .* the folder of a run\?"),
        (b"PAR1 no", r"gone.parquet cannot be read \(.*\); restore it or start over"),
        (b"", r"gone.parquet cannot be read \(.*\); restore it or start over"),
    ],
)
def test_a_missing_or_damaged_table_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "gone.parquet").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "gone.parquet")


def test_another_parquet_file_is_not_a_sample_table(tmp_path):
    write_frame(tmp_path / "f.parquet", pd.DataFrame({"x": [1]}))
    with pytest.raises(DataError, match=r"is not a sample table \(its columns are x\); pass the"):
        read_table(tmp_path / "f.parquet")


def test_a_table_with_a_column_of_another_type_is_refused(tmp_path):
    write_frame(tmp_path / "f.parquet", table_of(["a"]).assign(path=3))
    with pytest.raises(DataError, match="is not a sample table"):
        read_table(tmp_path / "f.parquet")


@pytest.mark.parametrize("wrong", [b"c\xe9t", b"\xed\xb3\xa9"])
def test_a_text_that_is_not_utf8_is_damage(tmp_path, wrong):
    path = tmp_path / "t.parquet"
    write_table(path, table_of(["cat"]))
    path.write_bytes(path.read_bytes().replace(b"cat", wrong))
    with pytest.raises(DataError, match=r"t.parquet cannot be read \(.*\); restore it"):
        read_table(path)


def test_a_table_that_cannot_be_written_is_an_environment_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        write_table(tmp_path / "file" / "t.parquet", table_of(["a"]))


@given(NAMES)
def test_a_shown_name_is_one_line_that_a_terminal_can_print(name):
    line = shown(name)
    assert line.isprintable()
    line.encode("utf-8")


def test_a_shown_name_includes_its_bytes():
    assert shown("caf\udce9\x1b[31m\n") == "caf\\xe9\\x1b[31m\\n"
    assert shown("猫 é 😀") == "猫 é 😀"


def test_paths_are_ordered_as_their_bytes_on_disk_are():
    raw = [b"a\xff", "a猫".encode(), b"a\xe9", b"Z", b"a/b"]
    names = [name.decode("utf-8", "surrogateescape") for name in raw]
    assert [path_bytes(name) for name in sorted(names, key=path_bytes)] == sorted(raw)
    assert path_bytes("\ud800")  # not a byte of any name, and no reason to fail


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")
def test_no_thread_of_arrow_is_left_behind(tmp_path):
    """Such a thread may hold a Python file until the process ends, which then aborts."""
    path = tmp_path / "table.parquet"
    write_frame(path, pd.DataFrame({"image": ["a.png"] * 100, "label": ["cat"] * 100}))
    reads = f"""
from pathlib import Path
from towernet.comparison.answers.reading import load_table
from towernet.data.table import read_frame
path, threads = Path({str(path)!r}), Path("/proc/self/task")
before = len(list(threads.iterdir()))
HERE
print(len(list(threads.iterdir())) - before)
"""

    def left_behind(code: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", reads.replace("HERE", code)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert left_behind("read_frame(path)") == 0
    assert left_behind("load_table(path)") == 0
    # What the count is seen to reject: the same file read in threads.
    assert left_behind("import pyarrow.parquet; pyarrow.parquet.read_table(path)") > 0
