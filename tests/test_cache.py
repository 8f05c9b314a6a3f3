"""The decoded images on disk: correct, complete, built once, bounded."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from towernet.data.cache import open_pixels
from towernet.data.check import check
from towernet.data.decode import VERSION, decode, fit
from towernet.data.rules import Rules
from towernet.data.source import Files, open_source
from towernet.data.table import Texts
from towernet.errors import ConfigError, DataError, EnvironmentFault

SIZE_PX = 16
NUM_USED = 42


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pixels"


@pytest.fixture
def source(own_photos):
    (own_photos / "lying" / "empty.png").write_bytes(b"")
    return open_source(str(own_photos))


@pytest.fixture
def table(source):
    return check(source, workers=1)


def opened(table, source, **options):
    defaults = {"size_px": SIZE_PX, "resize": "crop", "workers": 1}
    return open_pixels(table, source, **(defaults | options))


@pytest.mark.parametrize("resize", ["crop", "pad", "squash", "squash_linear"])
def test_row_i_is_the_ith_used_file_decoded_and_fitted(table, source, resize):
    background = (9, 90, 200)
    pixels = opened(table, source, resize=resize, rules=Rules(background=background))
    assert (pixels.shape, pixels.dtype) == ((NUM_USED, SIZE_PX, SIZE_PX, 3), np.uint8)
    where = {file.path: file.file for file in source.files}
    for row, path in zip(pixels, table.path[table.status == "used"], strict=True):
        whole = decode(where[path].read_bytes(), Rules(background=background)).pixels
        assert (row == fit(whole, SIZE_PX, resize, background)).all()


def test_the_pixels_are_mapped_and_read_only(table, source):
    pixels = opened(table, source)
    assert isinstance(pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_all_readers_of_the_same_images_share_one_mapping(table, source, cache):
    pixels = opened(table, source)
    assert opened(table, source) is pixels
    assert opened(table, source, size_px=SIZE_PX + 1) is not pixels
    (file, _) = sorted(cache.glob("*.npy"), key=lambda file: file.stat().st_size)
    file.unlink()  # dropped to make room, and rebuilt: another file
    again = opened(table, source)
    assert again is not pixels
    assert (again == pixels).all()


def test_the_file_does_not_depend_on_the_number_of_processes(table, source, cache):
    opened(table, source, workers=1)
    (file,) = cache.glob("*.npy")
    one = file.read_bytes()
    file.unlink()
    opened(table, source, workers=3)
    assert file.read_bytes() == one


def test_images_are_decoded_once_with_progress(table, source):
    calls = []

    def note(*words):
        calls.append(words)

    first = opened(table, source, progress=note)
    assert calls == [("preparing images", i, NUM_USED) for i in range(1, NUM_USED + 1)]
    again = opened(table, source, progress=note)
    assert len(calls) == NUM_USED
    assert (first == again).all()


def test_another_size_rule_background_or_set_of_files_is_another_array(table, source, cache):
    opened(table, source)
    opened(table, source, size_px=17)
    opened(table, source, resize="pad")
    opened(table, source, rules=Rules(background=(0, 0, 0)))
    opened(table, source, crop_share=0.8)
    fewer = table.copy()
    fewer.loc[fewer.path == "lying/03.png", "status"] = "ignored"
    assert len(opened(fewer, source)) == NUM_USED - 1
    assert len(list(cache.glob("*.npy"))) == 6


def test_an_array_of_the_whole_square_keeps_the_name_it_had_before_shares(table, source, cache):
    opened(table, source, crop_share=1.0)
    content_ids = list(table.content_id[table.status == "used"])
    made_from = [VERSION, content_ids, SIZE_PX, "crop", asdict(Rules())]
    name = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    assert [file.name for file in cache.glob("*.npy")] == [f"{name}.npy"]


def damage_cut(file):
    os.truncate(file, file.stat().st_size - 1)


def damage_grown(file):
    with file.open("ab") as stream:
        stream.write(b"\0")


def damage_header(file):
    file.write_bytes(file.read_bytes().replace(b"|u1", b"|O1", 1))


def damage_all(file):
    file.write_bytes(b"")


def damage_bit(file):
    """Of a pixel of the last row, before the checksums."""
    content = bytearray(file.read_bytes())
    content[-4 * NUM_USED - 1] ^= 1
    file.write_bytes(content)


def damage_checksum(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 128
    file.write_bytes(content)


DAMAGES = [damage_cut, damage_grown, damage_header, damage_all, damage_bit, damage_checksum]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_array_is_rebuilt(table, source, cache, damage, monkeypatch):
    whole = np.array(opened(table, source))
    (file,) = cache.glob("*.npy")
    damage(file)
    as_another_process(monkeypatch)
    assert (opened(table, source) == whole).all()


def as_another_process(monkeypatch):
    """Forget which checksums were verified."""
    monkeypatch.setattr("towernet.data.cache._verified", set())


def test_the_test_of_damage_fails_without_checksums(table, source, cache, monkeypatch):
    whole = np.array(opened(table, source))
    (file,) = cache.glob("*.npy")
    damage_bit(file)
    as_another_process(monkeypatch)
    monkeypatch.setattr("towernet.data.cache._is_intact", lambda *_: True)
    assert (opened(table, source) != whole).any()


def test_checksums_are_compared_once_in_a_process(table, source, monkeypatch):
    opened(table, source)
    monkeypatch.setattr("towernet.data.cache._is_intact", pytest.fail)
    opened(table, source)


def test_a_file_changed_since_the_check_is_named(table, source, own_photos):
    Image.new("RGB", (40, 36)).save(own_photos / "lying" / "05.png")
    message = r"lying/05\.png changed since it was checked; run the command again"
    with pytest.raises(DataError, match=message):
        opened(table, source)


def without_first(files):
    """All files except the first, as if it had been removed."""
    num = len(files) - 1
    texts = [Texts.of(texts, num) for texts in zip(*(file[1:4] for file in files[1:]), strict=True)]
    return Files(files.paths[1:], files.locations[1:], *texts)


def test_a_file_removed_since_the_check_is_named(table, source, own_photos, cache):
    (own_photos / "standing" / "02.png").unlink()
    with pytest.raises(DataError, match=r"standing/02\.png changed since it was checked"):
        opened(table, source)
    without = source._replace(files=without_first(source.files))
    with pytest.raises(DataError, match="changed since it was checked"):
        opened(table, without)
    assert not list(cache.iterdir())  # nothing half done is left


def test_leftovers_of_a_killed_build_are_removed(table, source, cache):
    cache.mkdir(parents=True)
    (cache / ".towernet-half.tmp").write_bytes(b"half")
    opened(table, source)
    assert not list(cache.glob(".*.tmp"))


def test_the_least_recently_used_arrays_are_dropped_above_the_limit(
    table, source, cache, monkeypatch
):
    first = opened(table, source, size_px=20)
    opened(table, source, size_px=21)
    (old, kept) = sorted(cache.glob("*.npy"), key=lambda file: file.stat().st_size)
    os.utime(old, ns=(1, 1))
    os.utime(kept, ns=(2, 2))
    opened(table, source, size_px=20)  # used again: the other one is now the oldest
    old, kept = kept, old
    monkeypatch.setenv("TOWERNET_CACHE_GB", str(2.2 * kept.stat().st_size / 1e9))
    opened(table, source, size_px=20)
    copy = np.array(first)
    opened(table, source, size_px=19)
    assert kept.exists()
    assert not old.exists()
    monkeypatch.setenv("TOWERNET_CACHE_GB", "0")
    opened(table, source, size_px=18)
    assert len(list(cache.glob("*.npy"))) == 1
    assert (first == copy).all()  # a mapped array can be read after its file is removed


def test_a_limit_that_is_not_a_number_is_refused(table, source, monkeypatch):
    monkeypatch.setenv("TOWERNET_CACHE_GB", "much")
    with pytest.raises(ConfigError, match="TOWERNET_CACHE_GB is 'much'; set it to a number of gig"):
        opened(table, source)


def test_a_disk_too_small_is_reported_before_anything_is_decoded(table, source):
    free = shutil.disk_usage("/").free
    size_px = int((free / NUM_USED) ** 0.5)  # three times what is free
    with pytest.raises(EnvironmentFault, match=r"need [\d,]+ bytes in .* and only [\d,]+ are free"):
        opened(table, source, size_px=size_px, progress=pytest.fail)


BUILD = """
import sys
from towernet.data.cache import open_pixels
from towernet.data.check import check
from towernet.data.rules import Rules
from towernet.data.source import Files, open_source
from towernet.data.table import Texts

source = open_source(sys.argv[1])
table = check(source, workers=1)
print("ready", flush=True)
sys.stdin.readline()
built = []
note = lambda *_: built.append(1)
open_pixels(table, source, size_px=64, resize="crop", workers=1, progress=note)
print(len(built))
"""


def test_two_processes_at_once_build_once(own_photos, cache):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, own_photos],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    built = sorted(int(process.communicate()[0]) for process in both)
    assert built == [0, NUM_USED]
    assert len(list(cache.glob("*.npy"))) == 1
