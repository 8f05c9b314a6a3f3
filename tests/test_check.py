"""Every file found gets one row and one status; and what the command prints."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from towernet.data.check import check
from towernet.data.source import open_source
from towernet.data.table import read_table
from towernet.errors import DataError, EnvironmentFault
from towernet.records.reading import Reading


def noise(seed, height=30, width=40):
    """Eight by eight random blocks, different for every seed, even small and in grey."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def data(tmp_path):
    """Two classes of 8 images, to which the tests add."""
    folder = tmp_path / "data"
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            noise(100 * number + i).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "cache"))


def checked(folder, **options):
    table = check(open_source(str(folder)), **({"workers": 1} | options))
    return table.set_index("path", drop=False)


def test_good_files_are_used_with_their_properties(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(55).save(data / "cat" / "turned.jpg", exif=exif)
    table = checked(data)
    assert list(table.path) == sorted(table.path)
    assert set(table.status) == {"used"}
    row = table.loc["cat/turned.jpg"]
    content = (data / "cat" / "turned.jpg").read_bytes()
    assert row.content_id == hashlib.sha256(content).hexdigest()
    assert (row.num_bytes, row.width, row.height) == (len(content), 30, 40)
    assert (row["mode"], row["format"], row.notes) == ("RGB", "JPEG", "EXIF_ORIENTED")
    assert (row.class_name, row.reason, row.detail, row.split) == ("cat", "", "", "")


def add_bad_files(data):
    (data / "cat" / "empty.jpg").write_bytes(b"")
    whole = (data / "cat" / "1.png").read_bytes()
    (data / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (data / "cat" / "page.jpg").write_text("<html>404</html>")
    (data / "dog" / "thin.png").write_bytes(b"")
    noise(1, 4, 40).save(data / "dog" / "thin.png")
    noise(60).save(data / "root.png")
    (data / ".hidden").mkdir()
    noise(61).save(data / ".hidden" / "a.png")


def test_bad_files_are_quarantined_each_with_its_reason_and_nothing_is_lost(data):
    add_bad_files(data)
    before = {path: path.stat() for path in data.rglob("*")}
    source = open_source(str(data))
    table = checked(data)
    reasons = {path: row.reason for path, row in table.iterrows() if row.status == "quarantined"}
    assert reasons == {
        "cat/empty.jpg": "EMPTY",
        "cat/cut.png": "TRUNCATED",
        "cat/page.jpg": "FORMAT",
        "dog/thin.png": "SHAPE",
        "root.png": "NO_CLASS",
    }
    assert all(table.detail[table.status == "quarantined"])
    assert len(table) == len(source.files) + len(source.ignored) + len(source.unreadable)
    assert table.path.is_unique
    assert set(table.status) == {"used", "quarantined", "ignored"}
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


def test_classes_with_too_few_usable_images_are_ignored_if_requested(data):
    (data / "eel").mkdir()
    for i in range(4):
        noise(900 + i).save(data / "eel" / f"{i}.png")
    (data / "eel" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    source = open_source(str(data), Reading(min_images=5))
    table = check(source, workers=1).set_index("path", drop=False)
    assert set(table.reason[table.status == "ignored"]) == {"FEW_IMAGES"}
    assert sorted(table.path[table.status == "ignored"]) == [f"eel/{i}.png" for i in range(4)]
    assert table.status["eel/cut.png"] == "quarantined"
    again = check(open_source(str(data)), workers=1)  # the table in the cache has all of them
    assert (again.status == "used").sum() == 20


def test_of_identical_files_in_one_class_the_first_is_used(data):
    shutil.copy(data / "cat" / "3.png", data / "cat" / "copy.png")
    shutil.copy(data / "cat" / "3.png", data / "cat" / "0-copy.png")
    table = checked(data)
    assert table.status["cat/0-copy.png"] == "used"  # '-' comes before '.' and '3'
    for path in ("cat/3.png", "cat/copy.png"):
        assert (table.status[path], table.reason[path]) == ("ignored", "DUPLICATE")
        assert table.detail[path] == "the same bytes as cat/0-copy.png"


def test_identical_files_in_two_classes_are_all_quarantined(data):
    shutil.copy(data / "cat" / "3.png", data / "cat" / "copy.png")
    shutil.copy(data / "cat" / "3.png", data / "dog" / "copy.png")
    table = checked(data)
    bad = table[table.status != "used"]
    assert sorted(bad.path) == ["cat/3.png", "cat/copy.png", "dog/copy.png"]
    assert set(bad.reason) == {"LABEL_CONFLICT"}
    assert set(bad.status) == {"quarantined"}
    assert bad.detail["dog/copy.png"] == "the same bytes as cat/3.png; keep it in one class only"


def test_near_duplicates_share_a_cluster_also_across_classes(data):
    with Image.open(data / "cat" / "0.png") as image:
        image.save(data / "cat" / "again.bmp")
        image.resize((80, 60), Image.Resampling.BICUBIC).save(
            data / "dog" / "large.jpg", quality=90
        )
    table = checked(data)
    tied = table[table.cluster != ""]
    assert sorted(tied.path) == ["cat/0.png", "cat/again.bmp", "dog/large.jpg"]
    assert set(tied.cluster) == {min(tied.content_id)}
    assert dict(zip(tied.path, tied.notes, strict=True)) == {
        "cat/0.png": "NEAR_DUPLICATE_OTHER_CLASS",
        "cat/again.bmp": "SAME_PIXELS,NEAR_DUPLICATE_OTHER_CLASS",
        "dog/large.jpg": "NEAR_DUPLICATE,NEAR_DUPLICATE_OTHER_CLASS",
    }
    assert tied.detail["cat/again.bmp"] == "the same pixels as cat/0.png"
    assert set(table.status) == {"used"}


def test_a_wrong_extension_and_a_single_colour_are_noted(data):
    Image.new("RGB", (30, 30), (1, 2, 3)).save(data / "cat" / "plain.jpg", "PNG")
    assert checked(data).notes["cat/plain.jpg"] == "CONSTANT,WRONG_EXTENSION"


def test_names_that_are_not_utf_8_are_used(data):
    (data / os.fsdecode(b"caf\xe9")).mkdir()
    for i in range(3):
        noise(70 + i).save(data / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff%d.png" % i))
    table = checked(data)
    assert table.status["caf\udce9/\udcff0.png"] == "used"
    assert checked(data).equals(table)


def test_the_table_does_not_depend_on_the_number_of_processes(data, monkeypatch, tmp_path):
    add_bad_files(data)
    one = checked(data)
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "other"))
    assert checked(data, workers=3).equals(one)


def test_a_file_that_cannot_be_read_is_quarantined(data):
    source = open_source(str(data))
    (data / "dog" / "2.png").unlink()
    table = check(source, workers=1).set_index("path")
    assert table.reason["dog/2.png"] == "UNREADABLE"
    assert table.detail["dog/2.png"] == "cannot be read: No such file or directory; check its disk"


def test_the_second_check_only_hashes(data):
    seen = []

    def note(what, done, total):
        assert 0 < done <= total == 16
        seen.append(what)

    first = checked(data, progress=note)
    assert seen == ["reading files"] * 16 + ["decoding images"] * 16
    seen.clear()
    assert checked(data, progress=note).equals(first)
    assert seen == ["reading files"] * 16
    noise(999).save(data / "cat" / "5.png")
    seen.clear()
    assert not checked(data, progress=note).equals(first)
    assert "decoding images" in seen


def test_a_damaged_cached_table_is_recomputed(data, tmp_path):
    first = checked(data)
    (remembered,) = (tmp_path / "cache" / "tables").iterdir()
    remembered.write_bytes(remembered.read_bytes()[:100])
    assert checked(data).equals(first)


def ends_in_zero(content):
    """The same image in bytes whose hash ends in a zero, which numpy would drop."""
    tail = next(i for i in range(99_999) if sha256(content + b"%d" % i).endswith("00"))
    return content + b"%d" % tail


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_hash_that_ends_in_a_zero_is_kept_whole(data):
    content = ends_in_zero((data / "cat" / "0.png").read_bytes())
    (data / "cat" / "0.png").write_bytes(content)
    (data / "cat" / "copy.png").write_bytes(content)
    shutil.copy(data / "cat" / "0.png", data / "cat" / "other.png")
    with Image.open(data / "cat" / "0.png") as image:
        image.save(data / "cat" / "same.bmp")
    table = checked(data)
    assert table.content_id["cat/0.png"] == sha256(content)
    assert list(table.path[table.reason == "DUPLICATE"]) == ["cat/copy.png", "cat/other.png"]
    tied = set(table.cluster[["cat/0.png", "cat/same.bmp"]])
    assert tied == {min(table.content_id[["cat/0.png", "cat/same.bmp"]])}


@pytest.mark.parametrize("moment", ["reading files", "decoding images"])
def test_a_disconnected_disk_is_not_taken_for_bad_images(data, monkeypatch, moment):
    monkeypatch.setattr("towernet.data.check.SECONDS_BETWEEN_ATTEMPTS", 0.01)

    def unplug(what, done, total):
        if (what, done) == (moment, 1):
            data.rename(data.with_name("elsewhere"))

    with pytest.raises(
        EnvironmentFault, match=r"data disappeared while its images were read \(No su"
    ):
        checked(data, progress=unplug)


def test_a_linked_folder_is_read_like_the_one_it_points_to(data, tmp_path):
    (tmp_path / "link").symlink_to(data)
    assert checked(tmp_path / "link").equals(checked(data))


def test_leftovers_of_a_command_killed_long_ago_are_removed(data, tmp_path):
    tables = tmp_path / "cache" / "tables"
    tables.mkdir(parents=True)
    for name, age_s in (("old", 90_000), ("young", 80_000)):
        leftover = tables / f".towernet-{name}.tmp"
        leftover.write_bytes(b"half")
        os.utime(leftover, (time.time() - age_s,) * 2)
    checked(data)
    assert [file.name for file in tables.glob(".*")] == [".towernet-young.tmp"]


def slow_png(path):
    """Half a second to decode, a few bytes to store."""
    Image.new("L", (6500, 6500), 7).save(path, compress_level=1)


def test_a_file_that_is_too_slow_is_stopped_and_retried_next_time(data, tmp_path):
    slow_png(data / "cat" / "slow.png")
    table = checked(data, time_limit_s=0.1)
    assert (table.status["cat/slow.png"], table.reason["cat/slow.png"]) == (
        "quarantined",
        "RESOURCE",
    )
    assert table.detail["cat/slow.png"] == "decoding it takes over 0.1 s; shrink it"
    assert (table.status == "used").sum() == 16
    assert not (tmp_path / "cache" / "tables").exists()
    assert checked(data).status["cat/slow.png"] == "used"


def test_a_file_whose_decoder_crashes_is_named_and_the_others_are_used(data):
    slow_png(data / "dog" / "slow.png")
    over = threading.Event()

    this = psutil.Process()
    others = set(this.children())  # of other tests, such as the lab's

    def crash():
        """Crash the process that decodes the large image, as a bug in a C library would."""
        while not over.wait(0.01):
            for child in set(this.children()) - others:
                with contextlib.suppress(psutil.NoSuchProcess):
                    # Until its program runs, a child is a copy of this process, and as large.
                    started = child.cmdline() != this.cmdline()
                    if started and child.memory_info().rss > 100 << 20:
                        child.send_signal(signal.SIGSEGV)

    killer = threading.Thread(target=crash)

    killer.start()
    try:
        table = checked(data)
    finally:
        over.set()
        killer.join()
    assert (table.status["dog/slow.png"], table.reason["dog/slow.png"]) == ("quarantined", "CRASH")
    assert "the decoder crashed on it (SIGSEGV)" in table.detail["dog/slow.png"]
    assert table.num_bytes["dog/slow.png"] == (data / "dog" / "slow.png").stat().st_size
    assert (table.status == "used").sum() == 16


def test_a_file_that_changes_while_it_is_read_is_an_error(data):
    def meddle(what, done, total):
        if (what, done) == ("reading files", total):
            noise(999).save(data / "dog" / "7.png")

    with pytest.raises(DataError, match=r"dog/7\.png changed while it was read; run the command"):
        checked(data, progress=meddle)


# --- the command


@pytest.fixture
def command(towernet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return towernet("check", *words, "--workers", 1)

    return run


def test_the_command_prints_everything_and_writes_gallery_and_table(data, command, tmp_path):
    add_bad_files(data)
    shutil.copy(data / "cat" / "3.png", data / "cat" / "copy.png")
    ended = command("data", "--out", "seen")
    assert (ended.returncode, ended.stderr) == (0, "reading files: 22\ndecoding images: 22\n")
    for words in (
        "I read this as 2 classes",
        "23 files found: 16 used, 5 quarantined, 2 ignored",
        "40 … 40 pixels, median 40",
        "PNG 16",
        "imbalance        none",
        "duplicates       1 (copies of another file: ignored)",
        "near duplicates  none",
        "label conflicts  none",
        "HIDDEN 1 · DUPLICATE 1",
        "(the files are left unchanged)",
        "  EMPTY          cat/empty.jpg: the file is empty",
        "seen/samples.parquet, seen/gallery.png",
    ):
        assert words in ended.stdout
    assert len(read_table(tmp_path / "seen" / "samples.parquet")) == 23
    with Image.open(tmp_path / "seen" / "gallery.png") as image:
        assert image.format == "PNG"


def test_json_is_one_object_and_nothing_else(data, command):
    ended = command("data", "--json")
    found = json.loads(ended.stdout)
    assert (found["found"], found["used"], found["problem"]) == (16, 16, None)
    assert found["classes"]["dog"] == {"used": 8, "quarantined": 0, "ignored": 0}
    assert found["written"] == [
        "runs/check-data/samples.parquet",
        "runs/check-data/gallery.png",
    ]


def test_a_small_class_gives_a_warning(data, command):
    for i in range(3, 8):
        (data / "cat" / f"{i}.png").unlink()
    ended = command("data")
    assert ended.returncode == 0
    assert "cat (3) has fewer than 8 images: their scores are mostly chance" in ended.stdout


def test_data_that_cannot_be_trained_on_are_shown_first(data, command):
    for i in range(8):
        (data / "cat" / f"{i}.png").write_bytes(b"")
    ended = command("data", "--json")
    found = json.loads(ended.stdout)
    assert ended.returncode == 3
    assert len(found["quarantined_files"]) == 8
    assert found["problem"]
    assert ended.stderr.endswith(f"error: {found['problem']}\n")


def test_hostile_names_are_escaped_in_the_terminal(data, command):
    name = "a\x1b[31m\n[red]‮"
    (data / name).mkdir()
    for i in range(8):
        noise(80 + i).save(data / name / f"{i}.png")
    (data / name / "\x07bad[red].png").write_bytes(b"")
    ended = command("data")
    assert ended.returncode == 0
    assert "a\\x1b[31m\\n[red]\\u202e" in ended.stdout
    assert "\\x07bad[red].png: the file is empty" in ended.stdout
    assert not any(character in ended.stdout for character in "\x1b\x07‮")


def test_lookalikes_give_a_warning(data, command):
    for i in range(9):  # one image nine times: over 5 % of its class, and more than five
        with Image.open(data / "cat" / "0.png") as image:
            image.save(data / "cat" / f"again{i}.jpg", quality=80 + i)
    with Image.open(data / "dog" / "0.png") as image:
        image.save(data / "cat" / "dog.bmp")
    ended = command("data")
    assert "images look so similar that keeping them together would put over 5 % of" in ended.stdout
    assert "2 images look the same as an image of another class: check their labels" in ended.stdout


def test_a_missing_folder_is_one_sentence(command):
    ended = command("nowhere")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith("error: nowhere does not exist; ")
