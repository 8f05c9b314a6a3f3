"""Tables of images as people have them: read where it is certain, said, and refused otherwise."""

import os
import random
import unicodedata

import numpy as np
import pytest
from PIL import Image

from test_source import placed, plant
from towernet.data import csv_text
from towernet.data.check import check
from towernet.data.encodings import AS_BEFORE
from towernet.data.source import open_source
from towernet.errors import ConfigError, DataError, TowernetError, UnknownNameError
from towernet.records.reading import Reading

ROWS = [("train/1.png", "ant"), ("train/2.png", "bée"), ("train/3.png", "ant")]
WANTED = {"train/1.png": ("ant", ""), "train/2.png": ("bée", ""), "train/3.png": ("ant", "")}


@pytest.fixture
def folder(tmp_path):
    return plant(tmp_path, *WANTED)


def read(folder, content, *, name="labels.csv", **options):
    """Write a table and open it."""
    content = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(content)
    return open_source(str(folder / name), Reading(**options))


def table(header="path,label", separator=",", end="\n", rows=ROWS):
    lines = [header, *(separator.join(row) for row in rows)]
    return "".join(line + end for line in lines)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (table("path;label", ";"), "separated by ';'"),
        (table("path\tlabel", "\t"), "separated by tabs"),
        (table("path|label", "|"), "separated by '|'"),
        ("sep=;\n" + table("path;label", ";"), "separated by ';'"),
        ("sep=,\r\n" + table(end="\r\n"), ""),
        (table(end="\r"), ""),
        (table(end="\r\n").encode("utf-8-sig"), ""),
        (table().encode("utf-16"), "read as UTF-16"),
        (table("path\tlabel", "\t", "\r\n").encode("utf-16"), "read as UTF-16"),
        (table().encode("utf-16-le"), "read as UTF-16"),
        (table().encode("utf-16-be"), "read as UTF-16"),
        (table().encode("utf-32"), "read as UTF-32"),
        (table().encode("cp1252"), "read as Windows-1252: bée; if that is wrong, give --encoding"),
        (table("path;label;score", ";", rows=[(*row, "0,5") for row in ROWS]), "column score"),
        (table(end=",\n"), ""),
        (table(" path , label ", rows=[(f" {path} ", f" {name} ") for path, name in ROWS]), ""),
        (table('"path", "label"', rows=[(f'"{path}"', f' "{name}"') for path, name in ROWS]), ""),
        ("# made by hand\n" + table(), "1 comment line"),
        (table() + ",\n\n", ""),
        (table("Image;Species", ";"), "the paths are in the column `Image`"),
        (table("file_name,ClassId"), "in the column `ClassId`"),
        (table("image_id,Breed"), "in the column `Breed`"),
        (table("filename,what"), "in the column `what`"),
        ("\n".join(",".join(row) for row in ROWS), "it has no header line"),
        (table().replace("/", "\\"), ""),
        (table().replace(".png", ""), "3 paths without a suffix"),
        (table().replace("png", "PNG"), "3 paths in upper or lower case"),
        (table().replace("train/", "/kaggle/input/x/train/"), "3 paths below /kaggle/input/x/"),
        (table().replace("train/", "C:\\Users\\me\\train\\"), "3 paths below C:/Users/me/"),
        (table().replace("train/", ""), "the paths are relative to train/"),
        (table().replace("train/", "").replace(".png", ""), "the paths are relative to train/"),
        (table() + "train/1.png,ant\n", "1 row that repeats another"),
        (table() + "./train\\1.png,ant\n", "1 row that repeats another"),
        (
            "image,ant,bée\ntrain/1.png,1,0\ntrain/2.png,0.0,1.0\ntrain/3.png,1.0,0\n",
            "2 classes with a column each (ant, bée)",
        ),
        (
            "image,ant,bée\ntrain/1.png,True,False\ntrain/2.png,FALSE,TRUE\n"
            "train/3.png,true,false\n",
            "2 classes with a column each (ant, bée)",
        ),
    ],
)
def test_a_table_is_read_and_what_was_guessed_is_said(folder, content, words):
    source = read(folder, content)
    assert placed(source) == WANTED
    assert source.unreadable == ()
    assert words in source.reading


@pytest.mark.parametrize("name", ["labels.tsv", "list.txt"])
def test_lists_under_other_names_are_read(folder, name):
    source = read(folder, "train/1.png 0\ntrain/2.png 1\n", name=name)
    assert placed(source) == {"train/1.png": ("0", ""), "train/2.png": ("1", "")}
    assert "each line is a path, a blank and a class; it has no header line" in source.reading


def test_where_no_path_fits_one_that_would_is_named(folder):
    plant(folder, "a.txt", ".hidden.png", "notes")
    for path in ("01", "train/1.jpeg", "pictures/9.png"):
        with pytest.raises(DataError, match=r"none exists; .* to its folder, such as train/1\.png"):
            read(folder, table(rows=[(path, "ant")]))


def test_options_name_the_columns(folder):
    content = table("image,id,species", rows=[("x", *row) for row in ROWS])
    source = read(folder, content, image_column="ID", label_column="species")
    assert placed(source) == WANTED
    with pytest.raises(DataError, match=r"has no column 'specis' .did you mean 'species'.*--label"):
        read(folder, content, label_column="specis")


def test_an_encoding_that_was_given_is_used(folder):
    content = table(rows=[("train/1.png", "жук"), ("train/2.png", "кот")]).encode("koi8_r")
    assert read(folder, content, encoding="koi8-r").class_names == ("жук", "кот")
    with pytest.raises(DataError, match=r"labels\.csv is not in utf-8; give another --encoding"):
        read(folder, content, encoding="utf-8")
    with pytest.raises(UnknownNameError, match=r"no encoding is called 'gkb'\. Did you mean 'gbk'"):
        read(folder, content, encoding="gkb")


@pytest.mark.parametrize("encoding", ["rot13", "base64", "undefined", "x" * 1000, "\0", ""])
def test_what_is_no_encoding_is_refused(folder, encoding):
    with pytest.raises((UnknownNameError, DataError)):
        read(folder, table().encode("cp1252"), encoding=encoding)


def test_numbers_written_in_two_ways_are_one_class(folder):
    rows = [("train/1.png", "1"), ("train/2.png", "0.0"), ("train/3.png", "1.0")]
    source = read(folder, table(rows=rows))
    assert source.class_names == ("0", "1")
    assert "numbers such as 1.0 and 1 are one class" in source.reading
    rows[0] = ("train/1.png", "v1")
    assert read(folder, table(rows=rows)).class_names == ("0.0", "1.0", "v1")


@pytest.mark.parametrize(
    "several", ["ant|bee", "ant, bee", "bee;ant", "ant+bee", "ant & bee", "ant/bee", "ant bee",
                "['ant', 'bee']", "ant and bee", "ant, bee bee"],
)  # fmt: skip
def test_several_classes_in_a_cell_are_refused(folder, several):
    rows = [("train/1.png", "ant"), ("train/2.png", f'"{several}"'), ("train/3.png", "bee")]
    with pytest.raises(DataError, match=r"line 3 of .* one class only; leave such images out"):
        read(folder, table(rows=rows))
    rows[2] = ("train/3.png", "wasp")  # so ant|bee is a class like any other
    assert several in read(folder, table(rows=rows)).class_names


def test_one_number_with_zeros_before_it_and_without_is_refused(folder):
    rows = [("train/1.png", "00"), ("train/2.png", "01"), ("train/3.png", "10")]
    assert read(folder, table(rows=rows)).class_names == ("00", "01", "10")
    rows[2] = ("train/3.png", "1")
    with pytest.raises(DataError, match="classes 01 and 1, which are the same number; write them"):
        read(folder, table(rows=rows))


@pytest.mark.parametrize(
    "content",
    [
        "path,label\n1.png,\n2.png,ant\n3.png,bee\n",
        "path,ant,bee\n1.png,0,0\n2.png,1,0\n3.png,0,1\n",
    ],
)
def test_a_row_without_a_class_is_named_by_its_line(tmp_path, content):
    for number in range(1, 4):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    for line, text in ((2, content), (4, f"# made\n# by hand\n{content}")):
        table = check(read(tmp_path, text), workers=1)
        assert list(table.reason) == ["NO_CLASS", "", ""]
        where = tmp_path / "labels.csv"
        todo = f"line {line} of {where} has no class; fill it in, or remove the line"
        assert table.detail[0] == todo


def test_paths_in_another_case_than_the_folders_are_found_and_said(folder):
    rows = [(path.upper(), name) for path, name in ROWS]
    source = read(folder, table(rows=rows))
    assert placed(source) == WANTED
    assert "3 paths in upper or lower case, other than the file" in source.reading
    plant(folder, "Train/4.png")
    with pytest.raises(DataError, match="none exists"):
        read(folder, table(rows=rows))  # two folders differ only in case


def test_addresses_of_files_are_paths(folder):
    plant(folder, "train/a b.png")
    rows = [(f"file://{folder}/{path}", name) for path, name in ROWS]
    rows += [(f"file://localhost{folder}/train/a%20b.png", "ant")]
    source = read(folder, table(rows=rows))
    assert placed(source) == WANTED | {"train/a b.png": ("ant", "")}
    rows = [(f"file:///C:/elsewhere/{path}", name) for path, name in ROWS]
    source = read(folder, table(rows=rows))
    assert placed(source) == WANTED
    assert "3 paths below C:/elsewhere/, read from the table's folder" in source.reading
    with pytest.raises(DataError, match="lists an address"):
        read(folder, table(rows=[("file://server/1.png", "ant")]))


def test_splits_have_the_names_of_folders(folder):
    rows = [(*row, split) for row, split in zip(ROWS, ("TRAIN", "dev", "Testing"), strict=True)]
    for column in ("split", "phase"):
        source = read(folder, table(f"path,label,{column}", rows=rows))
        assert [file.given_split for file in source.files] == ["train", "validation", "test"]
        assert "the split dev is validation; the split Testing is test" in source.reading
    rows[1] = (*ROWS[1], "training and test")
    with pytest.raises(DataError, match="has the split 'training and test'; write train, valid"):
        read(folder, table("path,label,split", rows=rows))


def test_splits_have_columns_of_other_names(folder):
    rows = [(*row, split) for row, split in zip(ROWS, ("train", "valid", "test"), strict=True)]
    source = read(folder, table("path,label,data set", rows=rows))
    assert [file.given_split for file in source.files] == ["train", "validation", "test"]
    assert "the splits are in the column `data set`" in source.reading
    rows[0] = ("train/1.png", "ant", "Sony")
    source = read(folder, table("path,label,set", rows=rows))
    assert "not used: the column set" in source.reading


def test_a_path_in_the_other_coding_of_accents_is_found(tmp_path):
    plant(tmp_path, unicodedata.normalize("NFD", "é/café.png"), "b.png")
    source = read(tmp_path, "path,label\né/café.png,a\nb.png,b\n")
    assert unicodedata.normalize("NFD", "é/café.png") in placed(source)
    assert "1 path with accents in another coding" in source.reading


def test_each_file_is_looked_for_in_all_folders_beside_the_table(tmp_path):
    plant(tmp_path, "part_1/1.jpg", "part_2/2.jpg", "part_2/2.txt")
    source = read(tmp_path, "image_id,dx\n1,a\n2,b\n3,b\n")
    assert placed(source) == {"part_1/1.jpg": ("a", ""), "part_2/2.jpg": ("b", "")}
    assert [bad.reason for bad in source.unreadable] == ["MISSING"]
    assert "the paths are relative to part_1/, part_2/" in source.reading


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table("image,file,label", rows=[("x", "y", "a")]), "columns image and file, and each co"),
        (table("path,class,species", rows=[("x", "y", "a")]), "columns class and species, and ea"),
        (table("path,class,species", rows=[("x", "y", "a")]), "example --label-column class"),
        (table("a,b,c", rows=[("x", "y", "z")]), "no column path and no column label .its first"),
        ("x.png,cat\ny.png,dog\n", "no column path .*its first line is 'x.png, cat'"),
        (table("image,ant,bee", rows=[("train/1.png", "1", "1")]), "line 2 .*several columns, ant"),
        (
            table("image,a,b", rows=[("train/1.png", "1", "0")] * 300 + [("x", "2", "1")]),
            "line 302",
        ),
        (table() + "http://x.org/1.png,ant\n", "line 5 .* lists an address, .*downloads nothing"),
        (table() + "train/1.png,bée\n", "line 5 .*train/1.png with class 'bée', and line 2 lists"),
        (table("path,label,label", rows=[("train/1.png", "a", "b")]), "label more than once"),
        (table("path;label,x"), "line 2 of .* has 1 cell and the first line has 2; write a"),
        (table() + "train/1.png,ant,x\n", "has 3 cells and the first line has 2; quote a cell"),
        ("path,label\n" + "x" * 3_000_000, "line 2 of .* is longer than 1,000,000 characters"),
        ('path,label\n"train/1.png,ant\n' + "x\n" * 200_000, "line [0-9,]+ of .* cannot be read"),
        (b"path,label\na\0b\xff\xfe\x81,a\n", "is not text; save the table as a CSV in UTF-8"),
        (b"path,label\n1.png,\x81\x8d\x8f\x90\xff\n", "is not in UTF-8"),
        (b"PK\x03\x04....", "is an Excel workbook or a zip under the name of a CSV"),
        (b"\xff\xfe\x00", "begins as UTF-16 and is not"),
        ("", "has no column path and no column label"),
        ("\n\n\n", "has no column path and no column label"),
    ],
)
def test_a_table_that_is_not_certain_is_refused_with_what_to_do(folder, content, message):
    with pytest.raises(DataError, match=message) as error:
        read(folder, content)
    assert "\n" not in str(error.value)


def test_a_name_that_several_files_have_is_refused(tmp_path):
    plant(tmp_path, "train/1.png", "train/1.jpg", "a/2.png", "b/2.png", "x/3.png", "3.png")
    with pytest.raises(DataError, match=r"line 2 of .* lists train/1, which could be any of train"):
        read(tmp_path, "path,label\ntrain/1,a\n")
    with pytest.raises(
        DataError, match=r"lists 2.png, which exists as a/2.png, b/2.png; write the"
    ):
        read(tmp_path, "path,label\n2.png,a\n")
    with pytest.raises(DataError, match=r"could be any of x/3.png, 3.png; write the path of one"):
        read(tmp_path, "path,label\n/data/x/3.png,a\n")


def test_encodings_about_as_likely_are_named(folder):
    with pytest.raises(DataError, match=r"about as likely; choose one, for example with --encodi"):
        read(folder, "path,label\ntrain/1.png,pão\ntrain/2.png,b\n".encode("cp1252"))


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet", ".json", ".mat"])
def test_other_tables_are_named_with_what_to_do(folder, suffix):
    with pytest.raises(DataError, match=r"which is not read; save it as a CSV with the columns"):
        read(folder, b"PK\x03\x04", name=f"labels{suffix}")


def test_runs_made_before_read_their_table_as_before(tmp_path):
    plant(tmp_path, "caf\udce9.jpg", " b.jpg", "1.jpg")
    content = os.fsencode("path,label\ncaf\udce9.jpg,\udce9\n b.jpg,1.0\n1.jpg,1\n./1,1\n")
    source = read(tmp_path, content, encoding=AS_BEFORE)
    assert placed(source) == {
        "caf\udce9.jpg": ("\udce9", ""), " b.jpg": ("1.0", ""), "1.jpg": ("1", "")
    }  # fmt: skip
    assert [bad.path for bad in source.unreadable] == ["1"]
    assert source.reading == "I read this as 3 classes in the column `label` of labels.csv: 4 files"


@pytest.mark.parametrize("seed", range(150))
def test_only_our_errors_escape_from_any_bytes(folder, seed, monkeypatch):
    """Changed, cut and random tables in every encoding; bounded, since each is small."""
    monkeypatch.setattr(csv_text, "MAX_LINE", 500)
    rng = random.Random(seed)
    codec = rng.choice(["utf-8", "utf-16", "utf-16-le", "cp1252", "gbk", "cp932", "utf-32"])
    content = bytearray(
        table(rng.choice(["path,label", "image,ant,bée", "a;b"])).encode(codec, "replace")
    )
    for _ in range(rng.randrange(12)):
        at = rng.randrange(len(content) + 1)
        piece = rng.choice([b'"', b"\0", b"\r", b",", b";", b"\xff", b"sep=", b"#", b"\\", b"/../"])
        content[at : at + rng.randrange(3)] = piece * rng.randrange(
            1, 300 if rng.random() < 0.1 else 3
        )
    if rng.random() < 0.3:
        content = content[: rng.randrange(len(content) + 1)]
    if rng.random() < 0.2:
        content = rng.randbytes(400)
    options = {"encoding": rng.choice([None, None, None, "gbk", "utf-16", "utf-7", AS_BEFORE])}
    try:
        source = read(folder, bytes(content), **options)
    except (DataError, ConfigError) as error:
        assert "\n" not in str(error)
    except TowernetError as error:
        pytest.fail(f"{type(error).__name__}: {error}")
    else:
        assert source.class_names
