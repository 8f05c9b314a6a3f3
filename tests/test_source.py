"""Sources: how the data was read is one sentence, and every file found is accounted for."""

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layout_cases import Case, make
from towernet.comparison.folders import as_started, reading_before
from towernet.data import layout
from towernet.data.check import check
from towernet.data.digits import digits_folder
from towernet.data.encodings import AS_BEFORE
from towernet.data.left_out import left_out_words
from towernet.data.source import open_source
from towernet.errors import ConfigError, DataError, UnknownNameError
from towernet.records.reading import Reading


def plant(root, *paths):
    """Create files with their path as content; a path that ends in '/' is an empty folder."""
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(os.fsencode(path))
    return root


def pack(root, path):
    """Write a folder to a zip or tar, including empty folders."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as target:
            for found in sorted(root.rglob("*")):
                target.write(found, found.relative_to(root))
    else:
        with tarfile.open(path, "w:gz") as target:
            for found in sorted(root.iterdir()):
                target.add(found, found.name)
    return path


def placed(source):
    return {file.path: (file.class_name, file.given_split) for file in source.files}


def ignored(source):
    return {entry.path: entry.reason for entry in source.ignored}


@pytest.fixture(params=["folder", "zip", "tar.gz"])
def form(request, tmp_path):
    """A tree as a folder, a zip or a tar: all are read in the same way."""

    def make(*paths):
        root = plant(tmp_path / "photos", *paths)
        return (
            root if request.param == "folder" else pack(root, tmp_path / f"photos.{request.param}")
        )

    return make


# --- how trees are read


def test_one_sub_folder_per_class(form):
    data = form("cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    source = open_source(str(data))
    assert (
        source.reading == f"I read this as 2 classes, one sub-folder each, in {data.name}: 3 files"
    )
    assert (source.name, source.class_names, source.no_flip) == ("photos", ("cat", "dog"), False)
    assert placed(source) == {
        "cat/1.jpg": ("cat", ""),
        "cat/2.jpg": ("cat", ""),
        "dog/1.jpg": ("dog", ""),
    }
    assert all(file.file.read_bytes() == file.path.encode() for file in source.files)
    assert all(source.root in file.file.parents for file in source.files)


def test_one_folder_on_top_is_unwrapped_and_reported(form):
    data = form("Images/cat/1.jpg", "Images/dog/1.jpg", "LICENSE", "Images/README.txt")
    source = open_source(str(data))
    assert f"in {data.name} (one folder `Images/` on top): 2 files" in source.reading
    assert placed(source) == {"Images/cat/1.jpg": ("cat", ""), "Images/dog/1.jpg": ("dog", "")}
    assert ignored(source) == {"LICENSE": "NOT_AN_IMAGE", "Images/README.txt": "NOT_AN_IMAGE"}


def test_several_folders_on_top_are_unwrapped(form):
    data = form("a/b/cat/1.jpg", "a/b/dog/1.jpg")
    assert "(2 folders `a/b/` on top): 2 files" in open_source(str(data)).reading


def test_splits_are_recognised_and_reported(form):
    data = form(
        "train/cat/1.jpg", "train/dog/1.jpg", "Valid/cat/2.jpg", "Valid/dog/2.jpg", "test/cat/3.jpg"
    )
    source = open_source(str(data))
    assert source.reading == (
        f"I read this as 2 classes in each of the splits Valid/, test/, train/ in {data.name}:"
        " 5 files (2 train, 2 validation, 1 test); not in test/: dog"
    )
    assert source.class_names == ("cat", "dog")
    assert placed(source)["Valid/dog/2.jpg"] == ("dog", "validation")
    assert placed(source)["test/cat/3.jpg"] == ("cat", "test")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VAL"])
def test_each_name_of_the_validation_split_is_known(tmp_path, name):
    plant(tmp_path, "train/a/1", "train/b/1", f"{name}/a/1", f"{name}/b/1")
    assert placed(open_source(str(tmp_path)))[f"{name}/a/1"] == ("a", "validation")


@pytest.mark.parametrize("layout", ["auto", "splits"])
def test_a_split_without_class_folders_is_left_out_and_reported(tmp_path, layout):
    plant(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/2.jpg", "0.jpg")
    plant(tmp_path, "test/1.jpg", "test/labels.csv")
    source = open_source(str(tmp_path), Reading(layout=layout))
    assert placed(source)["train/2.jpg"] == ("", "train")
    assert placed(source)["0.jpg"] == ("", "")
    assert ignored(source) == {"test/1.jpg": "NO_CLASS_FOLDERS", "test/labels.csv": "NOT_AN_IMAGE"}
    assert source.reading.endswith(
        "2 files (2 train); test/ has no class folders: its 1 file is not used"
    )


def test_folders_named_like_splits_with_different_folders_are_refused(form):
    data = form("train/steam/1.jpg", "train/diesel/1.jpg", "test/tube/1.jpg", "test/dc/1.jpg")
    with pytest.raises(DataError, match=r"classes dc, tube \(2 files\) in test/ and not in"):
        open_source(str(data))
    as_classes = open_source(str(data), Reading(layout="classes"))
    assert as_classes.class_names == ("test", "train")
    assert "folders within a class folder belong" in as_classes.reading


def test_the_layout_overrides_the_names(tmp_path):
    plant(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg", "test/dog/1.jpg")
    source = open_source(str(tmp_path), Reading(layout="classes"))
    assert source.class_names == ("test", "train")
    assert source.reading.endswith("4 files; folders within a class folder belong to its class")


def test_a_layout_of_splits_needs_their_names(tmp_path):
    plant(tmp_path, "cat/x/1.jpg", "dog/x/1.jpg")
    with pytest.raises(DataError, match="its top level contains cat, dog instead of train,"):
        open_source(str(tmp_path), Reading(layout="splits"))


def test_a_training_folder_alone_is_a_split_if_requested(tmp_path):
    plant(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg")
    assert "(one folder `train/` on top)" in open_source(str(tmp_path)).reading
    source = open_source(str(tmp_path), Reading(layout="splits"))
    assert placed(source)["train/cat/1.jpg"] == ("cat", "train")


def test_an_unknown_layout_is_suggested(tmp_path):
    plant(tmp_path, "a/1", "b/1")
    with pytest.raises(
        UnknownNameError, match=r"no layout is called 'split'. Did you mean 'splits'"
    ):
        open_source(str(tmp_path), Reading(layout="split"))


def test_folders_within_a_class_belong_to_it(form):
    source = open_source(str(form("cat/old/fluffy/1.jpg", "cat/2.jpg", "dog/3.jpg")))
    assert placed(source)["cat/old/fluffy/1.jpg"] == ("cat", "")
    assert source.reading.endswith("3 files; folders within a class folder belong to its class")


def test_images_next_to_the_class_folders_have_no_class(form):
    source = open_source(str(form("cat/1.jpg", "dog/1.jpg", "loose.jpg", "labels.csv")))
    assert placed(source)["loose.jpg"] == ("", "")
    assert ignored(source) == {"labels.csv": "NOT_AN_IMAGE"}
    assert "2 files" in source.reading


def test_annotations_within_a_class_are_ignored_unless_they_begin_like_an_image(form, tmp_path):
    data = form("cat/1.jpg", "cat/1.xml", "cat/2.TXT", "dog/1.jpg", "dog/LICENSE", "dog/labels.csv")
    source = open_source(str(data))
    assert set(placed(source)) == {"cat/1.jpg", "dog/1.jpg", "dog/LICENSE"}
    assert set(ignored(source).values()) == {"ANNOTATION"}
    noise = Image.fromarray(np.zeros((9, 9, 3), np.uint8))
    noise.save(plant(tmp_path / "named", "cat/1.jpg", "dog/1.jpg") / "cat" / "2.txt", "PNG")
    assert "cat/2.txt" in placed(open_source(str(tmp_path / "named")))


def test_hidden_and_system_files_are_ignored_and_counted(form):
    data = form(
        *("cat/1.jpg", "dog/1.jpg", ".DS_Store", "__MACOSX/cat/._1.jpg", "cat/._1.jpg"),
        *("cat/Thumbs.db", "dog/desktop.ini", ".git/objects/1", ".git/objects/2"),
        *("dog/@eaDir/1.jpg", "cat/.ipynb_checkpoints/1.jpg"),
    )
    source = open_source(str(data))
    assert placed(source) == {"cat/1.jpg": ("cat", ""), "dog/1.jpg": ("dog", "")}
    assert set(ignored(source)) == {
        *(".DS_Store", "__MACOSX", "cat/._1.jpg", "cat/Thumbs.db", "dog/desktop.ini"),
        *(".git", "dog/@eaDir", "cat/.ipynb_checkpoints"),
    }
    assert set(ignored(source).values()) == {"HIDDEN"}


def test_links_and_pipes_are_neither_followed_nor_opened(tmp_path):
    root = plant(tmp_path / "photos", "cat/1.jpg", "dog/1.jpg")
    plant(tmp_path, "outside/secret.jpg")
    (root / "loop").symlink_to(root)
    (root / "cat" / "outside").symlink_to(tmp_path / "outside")
    (root / "cat" / "link.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    (root / "dog" / "nowhere").symlink_to("nothing")
    os.mkfifo(root / "dog" / "pipe.jpg")
    source = open_source(str(root))
    assert set(placed(source)) == {"cat/1.jpg", "dog/1.jpg"}
    assert ignored(source) == {
        "loop": "SYMLINK",
        "cat/outside": "SYMLINK",
        "cat/link.jpg": "SYMLINK",
        "dog/nowhere": "SYMLINK",
        "dog/pipe.jpg": "SPECIAL",
    }


def _linked(folder, names, real):
    """Make a folder in which each name is a link to a picture or a folder of `real`."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(real / name)
    return folder


def test_pictures_that_are_all_links_are_refused_with_the_option(tmp_path):
    real = plant(tmp_path / "real", *(f"{x}/{i}.jpg" for x in ("cat", "dog") for i in (1, 2, 3)))
    files = [f"{name}/{i}.jpg" for name in ("cat", "dog") for i in (1, 2, 3)]
    for name, links, words in (
        ("files", files, "cat, dog in files are empty class folders: 6 symbolic links are not"),
        ("folders", ["cat", "dog"], "folders contains no files: 2 symbolic links are not"),
    ):
        linked = _linked(tmp_path / name, links, real)
        for mode in (None, "inside"):
            with pytest.raises(DataError, match=words) as error:
                open_source(str(linked), Reading(follow_links=mode))
            assert "(the first is cat" in str(error.value)
            assert "give --follow-links all to read what they point to" in str(error.value)
        read = open_source(str(linked), Reading(follow_links="all"))
        assert len(read.files) == 6 and "symbolic" not in read.reading


def test_pictures_of_one_class_that_are_links_are_named(tmp_path):
    real = plant(tmp_path / "real", *(f"{x}/{i}.jpg" for x in ("cat", "dog") for i in (1, 2, 3)))
    linked = _linked(tmp_path / "photos", ["cat/1.jpg", "cat/2.jpg"], real)
    plant(linked, "dog/1.jpg")
    with pytest.raises(DataError, match="cat in photos is an empty class folder: 2 symbolic"):
        open_source(str(linked))
    with pytest.raises(DataError, match=r"1 class, .* 2 symbolic links are not"):
        open_source(str(linked), Reading(skip_empty=True))


def test_links_that_lead_nowhere_are_said_to(tmp_path):
    linked = _linked(tmp_path / "photos", ["cat/1.jpg"], tmp_path / "gone")
    with pytest.raises(DataError, match=r"1 symbolic link .*1\.jpg is a .* points to nothing"):
        open_source(str(linked), Reading(follow_links="all"))


def linked(tmp_path):
    """A folder with links: out of it, within it, in loops, to nothing."""
    root = plant(tmp_path / "photos", "cat/1.jpg", "dog/1.jpg", "pool/2.jpg")
    plant(tmp_path, "outside/3.jpg", "outside/deep/4.jpg")
    (root / "cat" / "link.jpg").symlink_to(root / "pool" / "2.jpg")
    (root / "cat" / "out").symlink_to(tmp_path / "outside")
    (root / "cat" / "loop").symlink_to(root)
    (tmp_path / "outside" / "back").symlink_to(root)
    (tmp_path / "outside" / "again").symlink_to(tmp_path / "outside" / "deep")
    (root / "dog" / "nowhere").symlink_to("nothing")
    os.mkfifo(tmp_path / "outside" / "pipe")
    (root / "dog" / "pipe.jpg").symlink_to(tmp_path / "outside" / "pipe")
    return root


@pytest.mark.parametrize(
    ("follow", "found"),
    [
        (None, set()),
        ("inside", {"cat/link.jpg"}),
        ("all", {"cat/link.jpg", "cat/out/3.jpg", "cat/out/deep/4.jpg", "cat/out/again/4.jpg"}),
    ],
)
def test_links_are_followed_if_requested_and_never_in_loops(tmp_path, follow, found):
    source = open_source(str(linked(tmp_path)), Reading(follow_links=follow))
    assert set(placed(source)) == {"cat/1.jpg", "dog/1.jpg", "pool/2.jpg"} | found
    links = {path for path, reason in ignored(source).items() if reason == "SYMLINK"}
    assert {"cat/loop", "dog/nowhere", "dog/pipe.jpg"} <= links
    assert all(file.file.read_bytes() for file in source.files)


def test_links_that_are_not_followed_are_counted_and_reported(tmp_path):
    reading = open_source(str(linked(tmp_path))).reading
    assert reading.endswith("; 5 symbolic links are not followed (--follow-links all follows them)")


def test_an_unknown_way_to_follow_links_is_refused(tmp_path):
    plant(tmp_path, "a/1", "b/1")
    with pytest.raises(UnknownNameError, match="no value of --follow-links is called 'insid'"):
        open_source(str(tmp_path), Reading(follow_links="insid"))


def test_everything_is_sorted_by_the_bytes_of_its_name(form):
    names = ["Z/1.jpg", "a/2.jpg", "a/10.jpg", "a.b/1.jpg", "é/1.jpg", "猫/1.jpg"]
    source = open_source(str(form(*names)))
    assert [file.path for file in source.files] == sorted(names, key=str.encode)
    assert source.class_names == ("Z", "a", "a.b", "é", "猫")


def test_names_that_are_not_utf8_or_strange_are_kept(tmp_path):
    classes = ["caf\udce9", "a\nb", "__proto__", "None", "=cmd|x", "<script>", "é" * 127]
    plant(tmp_path, *(f"{name}/1.jpg" for name in classes))
    source = open_source(str(tmp_path))
    assert set(source.class_names) == set(classes)
    assert all(file.file.read_bytes() for file in source.files)


def test_the_root_itself_can_be_a_link_or_hidden_or_end_in_a_slash(tmp_path, monkeypatch):
    plant(tmp_path / ".photos", "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "link").symlink_to(".photos")
    assert open_source(str(tmp_path / "link")).name == "link"
    assert open_source(str(tmp_path / ".photos") + "/").name == ".photos"
    monkeypatch.chdir(tmp_path / ".photos")
    assert open_source(".").name == ".photos"


# --- trees that are refused


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((), "photos contains no files; make one sub-folder per class, such as photos/cat/1.jpg"),
        (
            ("1.jpg", "2.jpg", "3.jpg", "4.jpg"),
            r"photos contains 4 files \(1.jpg, 2.jpg, 3.jpg and 1 more\) and no class folders; make"
            " one sub-folder per class, such as photos/cat/1.jpg and photos/dog/1.jpg",
        ),
        (
            ("cat/1.jpg", "cat/2.jpg"),
            r"photos contains 1 class, cat \(2 files\) and at least two are needed",
        ),
        (("cat/1.jpg", "ant/"), "ant in photos is an empty class folder; add .* with --skip-empty"),
        (("a/1.jpg", "b/", "c/.x", "d/e/"), "b, c, d in photos are empty class folders; add"),
        (("Cat/1.jpg", "cat/1.jpg"), "'Cat' and 'cat': they differ only in upper and lower"),
        (("train/a/1", "test/A/1", "train/A/1"), "'A' and 'a': they differ only in upper"),
        (
            ("caf\u00e9/1.jpg", "cafe\u0301/1.jpg"),
            r"'caf.+' \(U\+0063 .* U\+0301\) and 'caf.' \(.* U\+00E9\): they differ only in the"
            " encoding of accents, which some systems ignore; rename one of them or merge",
        ),
        (
            (*(f"c{i}/" for i in range(7)), "x/1"),
            "c0, c1, c2, c3, c4 and 2 more in photos are empty",
        ),
    ],
)
def test_a_tree_without_classes_is_refused(tmp_path, paths, message):
    (tmp_path / "photos").mkdir()
    plant(tmp_path / "photos", *paths)
    with pytest.raises(DataError, match=message) as error:
        open_source(str(tmp_path / "photos"))
    assert "\n" not in str(error.value)


def test_the_refusal_of_similar_names_fails_without_the_check(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "require_classes", lambda *_, **__: None)
    plant(tmp_path, "Cat/1.jpg", "cat/1.jpg")
    assert open_source(str(tmp_path)).class_names == ("Cat", "cat")


def test_an_empty_class_folder_is_left_out_if_requested_and_reported(form):
    source = open_source(
        str(form("cat/1.jpg", "dog/1.jpg", "ant/", "bee/x/")), Reading(skip_empty=True)
    )
    assert source.class_names == ("cat", "dog")
    assert source.reading.endswith("2 files; left out as empty: ant, bee")


def test_one_class_left_after_the_empty_ones_is_refused(tmp_path):
    plant(tmp_path, "cat/1.jpg", "dog/")
    with pytest.raises(DataError, match=r"contains 1 class, cat \(1 file\)"):
        open_source(str(tmp_path), Reading(skip_empty=True))


def test_one_class_is_read_where_one_is_enough(form):
    data = form("cat/1.jpg", "cat/2.jpg")
    with pytest.raises(DataError, match=r"contains 1 class, cat \(2 files\)"):
        open_source(str(data))
    source = open_source(str(data), min_classes=1)
    assert source.reading == f"I read this as one class, the one sub-folder of {data.name}: 2 files"
    assert placed(source) == {"cat/1.jpg": ("cat", ""), "cat/2.jpg": ("cat", "")}


def test_one_class_in_a_csv_or_in_splits_is_read_where_one_is_enough(tmp_path):
    plant(tmp_path, "csv/1.jpg", "splits/train/cat/1.jpg", "splits/test/cat/2.jpg")
    (tmp_path / "csv" / "labels.csv").write_text("path,label\n1.jpg,cat\n")
    listed = open_source(str(tmp_path / "csv" / "labels.csv"), min_classes=1)
    assert "one class in the column `label` of labels.csv: 1 files" in listed.reading
    divided = open_source(str(tmp_path / "splits"), min_classes=1)
    assert "one class in each of the splits test/, train/ in splits: 2 files" in divided.reading


@pytest.mark.parametrize("rows", ["1.jpg,\n", "1.jpg,\n2.jpg,\n"])
def test_no_class_is_refused_even_where_one_is_enough(tmp_path, rows):
    plant(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}")
    with pytest.raises(DataError, match=r"labels\.csv contains no labelled file"):
        open_source(str(tmp_path / "labels.csv"), min_classes=1)


def test_a_class_that_one_split_lacks_is_not_empty(tmp_path):
    plant(tmp_path, "train/cat/1", "train/dog/1", "test/cat/1", "test/dog/")
    assert open_source(str(tmp_path)).class_names == ("cat", "dog")


def test_folders_too_deep_are_refused_without_recursion(tmp_path):
    plant(tmp_path, "cat/1.jpg")
    deep = tmp_path / "dog"
    deep.mkdir()
    with contextlib.chdir(deep):
        for _ in range(300):
            Path("d").mkdir()
            os.chdir("d")
    try:
        with pytest.raises(DataError, match="the limit is 255; move the images up"):
            open_source(str(tmp_path))
    finally:  # pytest's own removal would recurse
        subprocess.run(["rm", "-rf", deep], check=True)


def test_a_path_too_long_for_the_system_is_refused(tmp_path):
    plant(tmp_path, "cat/1.jpg")
    with contextlib.chdir(tmp_path):
        for _ in range(20):
            Path("n" * 250).mkdir()
            os.chdir("n" * 250)
    with pytest.raises(DataError, match="the limit is 255; move the images up"):
        open_source(str(tmp_path))
    subprocess.run(["rm", "-rf", tmp_path / ("n" * 250)], check=True)


@contextlib.contextmanager
def unprivileged():
    """Drop root privileges for a while, since root can read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("what", ["photos", "photos/cat", "photos.zip"])
def test_a_path_without_permission_is_named(what):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        plant(Path(folder), "photos/cat/1.jpg", "photos/dog/1.jpg", "photos.zip")
        (Path(folder) / what).chmod(0)
        data = str(Path(folder) / what.removesuffix("/cat"))
        with (
            unprivileged(),
            pytest.raises(DataError, match=rf"{what} cannot be read \(permission denied\); ask"),
        ):
            open_source(data)
        (Path(folder) / what).chmod(0o700)


# --- other files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "gone",
            None,
            "gone does not exist; pass a folder, a zip, a tar, a CSV, or the word digits",
        ),
        ("a.rar", b"Rar!\x1a\x07", "a.rar is a RAR archive; pass a folder, a zip, a tar"),
        ("a.7z", b"7z\xbc\xaf'\x1c", "a.7z is a 7-Zip archive; pass"),
        ("a.zip", b"\x89PNG\r\n\x1a\n", "a.zip is a PNG image; pass"),
        ("a.zip", b"<!doctype html>", "a.zip is an HTML or XML page, perhaps of a failed download"),
        ("a.zip", b"version https://git-lfs.github.com", "a.zip is a Git LFS pointer, not"),
        ("a.zip", b"", "a.zip is an empty file; pass"),
        ("a.zip", b"hello", "a.zip is not a known kind of archive; pass"),
        (
            "a.zip",
            b"PK\x03\x04 and then nothing",
            r"a.zip cannot be read \(File is not a zip file\)",
        ),
        (
            "a.gz",
            b"\x1f\x8b nothing",
            r"a.gz cannot be read \(.*\); download it again",
        ),
    ],
)
def test_a_file_that_is_not_data_is_described(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / name))


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is neither a folder nor a file; pass one of them"):
        open_source(str(tmp_path / "pipe"))


def test_a_path_that_goes_through_a_file_or_is_too_long_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/x does not exist; pass a folder"):
        open_source(str(tmp_path / "file" / "x"))
    with pytest.raises(DataError, match="cannot be read: File name too long; check the path"):
        open_source("x" * 5000)


def test_an_archive_with_bytes_before_it_is_read(tmp_path):
    path = pack(plant(tmp_path / "photos", "cat/1.jpg", "dog/1.jpg"), tmp_path / "photos.zip")
    path.write_bytes(b"#!/bin/sh\nself-extractor\n" + path.read_bytes())
    assert open_source(str(path)).class_names == ("cat", "dog")


def test_members_that_cannot_be_unpacked_keep_their_class(tmp_path):
    path = pack(plant(tmp_path / "photos", "cat/1.jpg", "dog/1.jpg"), tmp_path / "photos.zip")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"dog/1.jpgdog", b"dog/1.jpgdig"))
    source = open_source(str(path))
    assert set(placed(source)) == {"cat/1.jpg"}
    (bad,) = source.unreadable
    assert bad[:4] == ("dog/1.jpg", "dog", "", "CORRUPT")
    assert "2 files" in source.reading and source.class_names == ("cat", "dog")


# --- CSV


def write_csv(folder, text):
    plant(folder, "img/1.jpg", "img/2.jpg", "img/3, odd.jpg")
    (folder / "labels.csv").write_bytes(os.fsencode(text))
    return str(folder / "labels.csv")


def test_a_csv_lists_paths_labels_splits_and_groups(tmp_path):
    data = write_csv(
        tmp_path,
        "\ufeffpath,Label,split,group,camera\nimg/2.jpg, cat ,val,p1,x\n"
        'img/1.jpg,dog,,p2,x\n\n"./img/3, odd.jpg",dog,TEST,p2,y\n',
    )
    source = open_source(data)
    assert source.reading == (
        "I read this as 2 classes in the column `Label` of labels.csv: 3 files;"
        " not used: the column camera"
    )
    assert source.name == "labels" and source.class_names == ("cat", "dog")
    assert [file[:4] for file in source.files] == [
        ("img/1.jpg", "dog", "", "p2"),
        ("img/2.jpg", "cat", "validation", "p1"),
        ("img/3, odd.jpg", "dog", "test", "p2"),
    ]
    assert [file.file.read_bytes() for file in source.files][2] == b"img/3, odd.jpg"


def test_a_csv_can_list_files_anywhere(tmp_path):
    plant(tmp_path, "elsewhere/4.jpg", "set/img/5.jpg")
    (tmp_path / "set" / "link.jpg").symlink_to("img/5.jpg")
    absolute, inside = tmp_path / "elsewhere" / "4.jpg", tmp_path / "set" / "img" / "5.jpg"
    data = write_csv(
        tmp_path / "set",
        f"path,label\n{absolute},a\n../elsewhere/4.jpg,b\n{inside},b\nlink.jpg,a\nimg\\1.jpg,a\n",
    )
    assert {file.path for file in open_source(data).files} == {
        *(str(absolute), "../elsewhere/4.jpg", "img/5.jpg", "link.jpg", "img/1.jpg")
    }


def test_missing_files_that_a_csv_lists_are_unreadable(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    data = write_csv(tmp_path, "path,label\nimg/1.jpg,a\nimg/9.jpg,b\npipe,b\nimg,b\nimg/\0,b\n")
    source = open_source(data)
    assert [bad.path for bad in source.unreadable] == ["img", "img/\0", "img/9.jpg", "pipe"]
    assert source.unreadable[2][1:4] == ("b", "", "MISSING")
    assert source.unreadable[2].detail == f"line 3 of {data} lists it and there is no such file"
    assert source.class_names == ("a", "b")


def test_rows_without_a_label_have_no_class(tmp_path):
    data = write_csv(tmp_path, 'path,label\nimg/1.jpg,a\nimg/2.jpg,b\n"img/3, odd.jpg",\n')
    assert placed(open_source(data))["img/3, odd.jpg"] == ("", "")


def test_a_csv_in_another_encoding_keeps_its_bytes(tmp_path):
    plant(tmp_path, "caf\udce9.jpg")
    data = write_csv(tmp_path, "path,label\ncaf\udce9.jpg,a\nimg/1.jpg,b\n")
    assert placed(open_source(data))["caf\udce9.jpg"] == ("a", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            r"labels.csv has no column path and no column label \(its first line is ''\); add the",
        ),
        (
            "where;what\n",
            r"has no column path and no column label \(its first line is 'where, what'\); add the"
            " header line path,label, or name the columns with --image-column and --label-column",
        ),
        (
            "path,width,height\n",
            r"labels.csv has no column label \(its first line is 'path, width, height'\); add",
        ),
        ("path,label\n", "lists 0 files and none exists; write paths relative to its folder"),
        (
            "path,label\nx.jpg,a\ny.jpg,b\n",
            r"lists 2 files \(the first is x.jpg\) and none exists",
        ),
        (
            "path,label\nimg/1.jpg,a\nimg/2.jpg\n",
            "line 3 of .*labels.csv has 1 cell and the first",
        ),
        ("path,label\nimg/1.jpg,a,b\n", "line 2 of .* has 3 cells and the first line has 2; quote"),
        ("path,label\n,a\n", "line 2 of .* has no path; fill it in or remove the line"),
        (
            "path,label,split\nimg/1.jpg,a,tset\n",
            "line 2 of .* has the split 'tset'; write train, validation or test",
        ),
        (
            "path,label\nimg/1.jpg,a\nimg/2.jpg,b\nimg/../img/1.jpg,b\n",
            "line 4 of .* lists img/1.jpg with class 'b', and line 2 lists it with class .a.;",
        ),
        (
            "path,label\nimg/1.jpg,a\nimg/2.jpg,a\n",
            r"labels.csv contains 1 class, a \(2 files\) and at least two",
        ),
        (
            "path,label\nimg/1.jpg,a\nimg/2.jpg,A\n",
            "labels.csv has the classes 'A' and 'a': they differ",
        ),
        ('path,label\n"img/1.jpg"x,a\n', "line 2 of .* cannot be read .*; fix that line"),
        (f"path,label\n{'x' * 200000},a\n", "line 2 of .* cannot be read .field larger than"),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused_by_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        open_source(write_csv(tmp_path, text))
    assert "\n" not in str(error.value)


# --- the built-in digits


def test_the_digits_are_real_and_written_once():
    source = open_source("digits")
    assert source.reading == (
        "I read this as 10 classes, the handwritten digits that come with scikit-learn, enlarged"
        " to 64 pixels: 1,797 files"
    )
    assert source.class_names == tuple("0123456789")
    assert (source.name, len(source.files), source.no_flip) == ("digits", 1797, True)
    times = {file.file: file.file.stat().st_mtime_ns for file in source.files}
    assert {
        file.file: file.file.stat().st_mtime_ns for file in open_source("digits").files
    } == times
    with Image.open(source.files[0].file) as image:
        assert (image.size, image.mode) == ((64, 64), "L")

    from sklearn.datasets import load_digits

    digits = load_digits()
    for file in source.files[::150]:
        index = int(file.file.stem)
        assert int(file.class_name) == digits.target[index]
        with Image.open(file.file) as image:
            small = np.asarray(image.resize((8, 8), Image.Resampling.BOX)).astype(float) / 255 * 16
        assert np.abs(small - digits.images[index]).mean() < 1.5


def test_missing_digits_are_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path))
    lost, emptied, *_ = sorted(digits_folder().glob("*/*.png"))
    lost.unlink()
    emptied.write_bytes(b"")
    assert len(open_source("digits").files) == 1797
    assert lost.stat().st_size > 0 and emptied.stat().st_size > 0


def test_a_folder_called_digits_is_not_taken_for_the_built_in_ones(tmp_path, monkeypatch):
    plant(tmp_path, "digits/cat/1.jpg", "digits/dog/1.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"also contains digits; pass \./digits to use yours"):
        open_source("digits")
    assert open_source("./digits").class_names == ("cat", "dog")
    shutil.rmtree("digits")
    assert open_source("digits").no_flip


def bytes_per_file(folder, use):
    """Peak memory of finding the files of a folder, per file."""
    tracemalloc.start()
    try:
        files = use(open_source(str(folder)).files)
        return tracemalloc.get_traced_memory()[1] / len(files)
    finally:
        tracemalloc.stop()


def test_many_files_take_little_memory_each(tmp_path):
    for number in range(4):
        (tmp_path / f"class {number}").mkdir()
        for i in range(1500):
            (tmp_path / f"class {number}" / f"picture {i:07d}.jpg").touch()
    assert bytes_per_file(tmp_path, lambda files: files) < 300
    assert bytes_per_file(tmp_path, list) > 300  # sabotaged: each file is an object


def test_the_limits_of_an_archive_can_be_given(tmp_path):
    data = pack(plant(tmp_path / "photos", "cat/1.jpg", "dog/1.jpg"), tmp_path / "photos.zip")
    with pytest.raises(DataError, match="entries"):
        open_source(str(data), Reading(max_archive_entries=1))
    assert len(open_source(str(data), Reading(max_archive_entries=9)).files) == 2


def test_reading_a_source_imports_neither_torch_nor_scikit_learn(tmp_path):
    plant(tmp_path, "cat/1.jpg", "dog/1.jpg")
    program = (
        "import sys; from towernet.data.source import open_source; open_source(sys.argv[1]);"
        "print([name for name in ('torch', 'torchvision', 'sklearn') if name in sys.modules])"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_larger_image_sets_are_read_as_they_are(data_sets):
    source = open_source(str(data_sets / "caltech16.zip"))
    assert source.reading == (
        "I read this as 16 classes, one sub-folder each, in caltech16.zip (one folder `Images/` on"
        " top): 1,780 files"
    )
    assert len(open_source(str(data_sets / "sign-digits.zip")).files) == 2062


# --- options without an effect


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("a.csv", {"layout": "leaves"}, "--layout is for a folder or an archive, and .* is a CSV"),
        ("a.csv", {"splits": "train=a"}, "leave it out, and write the split of each image into"),
        ("a.csv", {"follow_links": "all"}, "--follow-links is for a folder, and"),
        ("a.csv", {"masks": "keep"}, "--masks is for"),
        ("a.csv", {"max_archive_gb": 3.0}, "--max-archive-gb is for an archive, and"),
        ("photos", {"image_column": "a"}, "--image-column is for a CSV, and .* is a folder; leave"),
        ("photos", {"encoding": "gbk"}, "--encoding is for an archive or a CSV, and"),
        ("photos", {"max_archive_entries": 3}, "--max-archive-entries is for an archive, and"),
        ("a.zip", {"label_column": "a"}, "--label-column is for a CSV, and .* is an archive"),
        ("a.zip", {"follow_links": "all"}, "--follow-links is for a folder, and"),
        ("digits", {"layout": "classes"}, "and digits is built in; leave it out"),
        ("digits", {"encoding": "gbk"}, "and digits is built in; leave it out"),
    ],
)
def test_options_without_an_effect_are_refused(tmp_path, monkeypatch, data, options, message):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path, "photos/ant/1.png", "photos/bee/1.png")
    pack(tmp_path / "photos", tmp_path / "a.zip")
    (tmp_path / "a.csv").write_text("path,label\nphotos/ant/1.png,ant\nphotos/bee/1.png,bee\n")
    assert len(open_source(data).class_names) > 1
    with pytest.raises(ConfigError, match=message):
        open_source(data, Reading(**options))


def test_a_run_made_before_keeps_the_options_it_was_made_with(tmp_path):
    plant(tmp_path, "photos/ant/1.png", "photos/bee/1.png")
    (tmp_path / "a.csv").write_text("path,label\nphotos/ant/1.png,ant\nphotos/bee/1.png,bee\n")
    before = Reading(layout="splits", skip_empty=True, masks="keep", encoding=AS_BEFORE)
    assert len(open_source(str(tmp_path / "a.csv"), before).files) == 2


def test_a_run_that_was_started_is_not_asked_about_masks_that_are_found_today(
    tmp_path, finished_run
):
    assert reading_before(finished_run, Reading()) == Reading(masks=AS_BEFORE)
    assert reading_before(tmp_path / "new", Reading()) == Reading()
    case = Case("", "{cat,dog}/{1,2,3}.jpg {cat,dog}/{1,2,3}_manual1.gif=mask README.txt", "")
    data = str(make(case, tmp_path / "photos"))
    with pytest.raises(DataError, match="6 files look like masks"):
        open_source(data, Reading())
    source = open_source(data, as_started(Reading()))
    assert len(source.files) == 12
    assert left_out_words(check(source, workers=1), source).endswith(f"check {data}` lists them")
    for masks in ("keep", "ignore"):
        assert as_started(Reading(masks=masks)).masks == masks


@pytest.mark.parametrize("limits", [{"max_archive_entries": 3}, {"max_archive_gb": 1e-9}])
def test_a_limit_is_obeyed_although_the_archive_is_unpacked(tmp_path, limits):
    data = pack(plant(tmp_path / "photos", "ant/1.png", "bee/1.png"), tmp_path / "a.zip")
    assert len(open_source(str(data)).files) == 2
    with pytest.raises(DataError, match=r"limit is \d; if you trust it, allow"):
        open_source(str(data), Reading(**limits))
