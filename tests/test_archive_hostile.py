"""Hostile archives, the readers of zips and tars, and the cache of unpacked archives."""

import io
import os
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from hostile_archives import HOSTILE
from hostile_parts import before_good, block, many_empty_members
from test_archive import cache as cache
from test_archive import contents, make_tar, make_zip, written
from towernet import files
from towernet.data import archive, archive_store, archive_stream
from towernet.data.archive_tar import read_tar
from towernet.data.archive_zip import find_directory, read_zip
from towernet.data.source import open_source
from towernet.errors import ConfigError, DataError

# --- the catalogue


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_or_its_bad_members_are(tmp_path, cache, name):
    case = HOSTILE[name]
    path = case.make(tmp_path)
    before = set(tmp_path.parent.rglob("*"))
    if case.refused:
        with pytest.raises(DataError, match=case.refused) as error:
            open_source(str(path))
        assert len(str(error.value)) < 1000
        assert "\n" not in str(error.value)
        assert not [file for file in written(cache) if file.name != "index.json"]
    else:
        source = open_source(str(path))
        assert tuple((row.path, row.reason) for row in source.unreadable) == case.bad
        assert source.files
    outside = set(tmp_path.parent.rglob("*")) - before
    assert all(cache in (found, *found.parents) for found in outside)


# --- the readers, compared with the standard library's


def names_and_contents(listing):
    return [(entry.name, b"".join(content)) for entry, content in listing]


SIZES = [0, 1, 511, 512, 513, 9, 300_000, 4]
NAMES = ["a", "b/c.jpg", "é/😀.png", "x" * 99, "x" * 100, "x" * 101, "d/" * 60 + "e", "y" * 255]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_read_as_tarfile_reads_it(tmp_path, form, mode):
    path = tmp_path / "a"
    names = [name for name in NAMES if form != tarfile.USTAR_FORMAT or len(name) < 200]
    members = [(name, os.urandom(size)) for size, name in zip(SIZES, names, strict=False)]
    with tarfile.open(path, mode, format=form) as target:
        for name, content in members:
            if form == tarfile.USTAR_FORMAT and name == "x" * 101:
                continue  # it does not fit there
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5  # a pax header for the fraction
            target.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as tar:
        expected = [(info.name, tar.extractfile(info).read()) for info in tar]
    with path.open("rb") as stream:
        assert names_and_contents(read_tar(stream)) == expected


@pytest.mark.parametrize("method", [0, 8, 12, 14])
def test_a_zip_is_read_as_zipfile_reads_it(tmp_path, monkeypatch, method):
    path = tmp_path / "a.zip"
    contents = [b"", b"x", bytes(3_000_000), os.urandom(700_000)]
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in zip(NAMES, contents, strict=False):
            with target.open(name, "w", force_zip64=True) as member:
                member.write(content)
        target.comment = b"a comment"
    with zipfile.ZipFile(path) as source:
        expected = [(info.filename, source.read(info)) for info in source.infolist()]
    with path.open("rb") as stream:
        assert names_and_contents(read_zip(stream, find_directory(stream))) == expected


def test_a_zip_of_more_members_than_two_bytes_count_is_read(tmp_path):
    path = tmp_path / "a.zip"
    names = [f"c/{i}" for i in range(2**16 + 1)]
    with zipfile.ZipFile(path, "w") as target:
        for name in names:
            target.writestr(name, b"")
    with path.open("rb") as stream:
        assert [entry.name for entry, _ in read_zip(stream, find_directory(stream))] == names


def test_a_name_not_declared_as_utf8_is_read_as_utf8_or_dos(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("c/??.jpg", b"one"), ("d/!.jpg", b"two")])
    content = path.read_bytes().replace(b"??", "é".encode()).replace(b"d/!", b"d/\x82")
    path.write_bytes(content)
    assert set(contents(archive.unpack(path, "zip"))) == {"c/é.jpg", "d/é.jpg"}


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_bomb_is_unpacked_in_small_pieces(tmp_path, mode):
    path = make_tar(tmp_path / "a", [("zeros", bytes(2**24))], mode)
    with path.open("rb") as stream:
        ((_, content),) = [next(read_tar(stream))]
        assert max(len(piece) for piece in content) <= archive_stream.PIECE_BYTES


def peak_bytes(read):
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_standard_library_unpacks_a_bomb_in_one_piece(tmp_path):
    """Sabotaged: why zips are parsed here."""
    path = make_zip(tmp_path / "a.zip", [("zeros", bytes(2**24))], method=zipfile.ZIP_BZIP2)

    def by_zipfile():
        with zipfile.ZipFile(path) as source, source.open("zeros") as content:
            content.read(1000)

    def by_read_zip():
        with path.open("rb") as stream:
            ((_, content),) = read_zip(stream, find_directory(stream))
            assert sum(map(len, content)) == 2**24

    assert peak_bytes(by_zipfile) > 2**24
    assert peak_bytes(by_read_zip) < 2**22


def test_the_standard_library_keeps_all_entries_of_a_zip_in_memory(tmp_path):
    """Sabotaged: two million entries are allowed, and would take more than a gigabyte."""
    path, num_entries = tmp_path / "a.zip", 10_000
    path.write_bytes(many_empty_members(num_entries))

    def by_zipfile():
        with zipfile.ZipFile(path) as source:
            assert len(source.infolist()) == num_entries

    def by_read_zip():
        with path.open("rb") as stream:
            assert sum(1 for _ in read_zip(stream, find_directory(stream))) == num_entries

    assert peak_bytes(by_zipfile) > 300 * num_entries
    assert peak_bytes(by_read_zip) < 100 * num_entries


def test_a_pax_header_of_digits_is_refused_at_once(tmp_path):
    """tarfile searches it with a pattern that takes 17 s on these 128 KiB (Python 3.11.7)."""
    path, num_bytes = tmp_path / "a.tar", 2**17
    path.write_bytes(before_good(block(b"x", num_bytes, b"x"), b"1" * num_bytes))
    start_s = time.process_time()
    with pytest.raises(DataError, match="a pax header is damaged"):
        archive.unpack(path, "tar")
    assert time.process_time() - start_s < 2


# --- the store


def a_good_archive(tmp_path, number, num_bytes=100_000):
    return make_zip(tmp_path / f"{number}.zip", [(f"c/{number}", os.urandom(num_bytes))], method=0)


def unpack_elsewhere(path):
    """Unpack in another process, which ends and so no longer uses the folder."""
    program = (
        "import sys; from pathlib import Path; from towernet.data import archive;"
        "print(archive.unpack(Path(sys.argv[1]), 'zip').root)"
    )
    command = [sys.executable, "-c", program, str(path)]
    return Path(subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip())


def test_the_least_recently_used_makes_room(tmp_path, monkeypatch):
    monkeypatch.setenv("TOWERNET_CACHE_GB", "0.00025")  # two of them
    first, second = (unpack_elsewhere(a_good_archive(tmp_path, number)) for number in (1, 2))
    assert unpack_elsewhere(tmp_path / "1.zip") == first  # used again
    third = unpack_elsewhere(a_good_archive(tmp_path, 3))
    assert [folder.exists() for folder in (first, second, third)] == [True, False, True]


def test_a_folder_in_use_is_not_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv("TOWERNET_CACHE_GB", "0")
    used = archive.unpack(a_good_archive(tmp_path, 1), "zip")
    unpack_elsewhere(a_good_archive(tmp_path, 2))
    assert used.members[0].file.exists()
    os.close(archive_store._held.pop(used.root))  # as if this process had ended
    unpack_elsewhere(a_good_archive(tmp_path, 3))
    assert not used.root.exists(), "sabotaged: a folder that is not held is dropped"


def test_leftovers_of_killed_processes_are_removed_by_the_next(tmp_path, cache):
    left = cache / "archives" / f"{'0' * 64}-1.part"
    left.mkdir(parents=True)
    (left / "member").write_bytes(b"half")
    working = cache / "archives" / f"{'1' * 64}-1.part"
    working.mkdir()
    with files.lock(archive_store.lock_of(working.with_suffix("")), holder="another"):
        archive.unpack(a_good_archive(tmp_path, 1), "zip")
        assert (left.exists(), working.exists()) == (False, True)


def test_a_limit_that_is_not_a_number_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TOWERNET_CACHE_GB", "much")
    with pytest.raises(ConfigError, match="TOWERNET_CACHE_GB is 'much'; set it to a number"):
        archive.unpack(a_good_archive(tmp_path, 1), "zip")
