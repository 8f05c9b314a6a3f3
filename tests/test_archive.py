"""Archives: checked before a byte is written, unpacked once, never under their own names."""

import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile

import pytest

from towernet import files
from towernet.data import archive
from towernet.data.archive import Limits
from towernet.errors import DataError, EnvironmentFault


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A separate cache, so that a test can see what was written."""
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_zip(path, members, *, method=zipfile.ZIP_DEFLATED):
    """Write a zip of (name or ZipInfo, content) pairs."""
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in members:
            target.writestr(name, content)
    return path


def make_tar(path, members, mode="w"):
    """Write a tar of (name or TarInfo, content) pairs."""
    with tarfile.open(path, mode) as target:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    return path


def contents(unpacked):
    return {member.name: member.file.read_bytes() for member in unpacked.members}


def written(cache):
    """All files below the cache, except the locks."""
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


PLAIN = [("Images/cat/1.jpg", b"one"), ("Images/dog/2.jpg", b"two"), ("Images/dog/3.jpg", b"one")]


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.zip", ""), ("a.tar", "w"), ("a.tgz", "w:gz"), ("a.bz", "w:bz2"), ("a.xz", "w:xz")],
)
def test_members_are_stored_under_the_hash_of_their_content(tmp_path, name, mode):
    path = tmp_path / name
    kind = "tar" if mode else "zip"
    make_tar(path, PLAIN, mode) if mode else make_zip(path, PLAIN)
    unpacked = archive.unpack(path, kind)
    assert contents(unpacked) == dict(PLAIN)
    assert unpacked.bad_members == ()
    names = {member.file.name for member in unpacked.members}
    assert names == {files.sha256(member.file) for member in unpacked.members}
    assert len(names) == 2, "the same content is stored once"


def test_an_archive_is_unpacked_once(tmp_path):
    path = make_zip(tmp_path / "a.zip", PLAIN)
    first = archive.unpack(path, "zip")
    times = {member.file: member.file.stat().st_mtime_ns for member in first.members}
    moved = shutil.copy(path, tmp_path / "other name.zip")
    again = archive.unpack(moved, "zip")
    assert again == first
    assert {member.file: member.file.stat().st_mtime_ns for member in again.members} == times


@pytest.mark.parametrize("harm", ["empty", "gone", "no index"])
def test_files_missing_from_the_cache_are_unpacked_again(tmp_path, harm):
    path = make_zip(tmp_path / "a.zip", PLAIN)
    first = archive.unpack(path, "zip")
    if harm == "empty":
        first.members[0].file.write_bytes(b"")
    elif harm == "gone":
        first.members[0].file.unlink()
    else:
        (first.root / "index.json").unlink()
    assert contents(archive.unpack(path, "zip")) == dict(PLAIN)


def test_two_processes_unpack_one_archive_at_once(tmp_path, cache):
    members = [(f"c/{i}.jpg", os.urandom(2000)) for i in range(300)]
    path = make_zip(tmp_path / "a.zip", members)
    program = (
        "import sys; from pathlib import Path; from towernet.data import archive;"
        "found = archive.unpack(Path(sys.argv[1]), 'zip');"
        "print(len(found.members), sum(len(m.file.read_bytes()) for m in found.members))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in processes] == [b"300 600000\n"] * 2
    assert not list(cache.rglob("*.part"))


def test_what_a_killed_process_left_is_removed(tmp_path, cache):
    path = make_zip(tmp_path / "a.zip", PLAIN)
    root = archive.unpack(path, "zip").root
    root.rename(root.with_name(root.name + ".part"))
    assert contents(archive.unpack(path, "zip")) == dict(PLAIN)
    assert not list(cache.rglob("*.part"))


# --- hostile archives: refused, nothing written


@pytest.mark.parametrize(
    ("name", "danger"),
    [
        ("../../x", "a path that leaves the archive"),
        ("a/../../x", "a path that leaves the archive"),
        ("..\\..\\x", "a path that leaves the archive"),
        ("/tmp/x", "an absolute path"),
        ("//tmp/x", "an absolute path"),
        ("C:\\x", "an absolute path"),
        ("c:x", "an absolute path"),
        ("\\\\host\\x", "an absolute path"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_with_a_path_outside_is_refused(tmp_path, cache, kind, name, danger):
    make = make_zip if kind == "zip" else make_tar
    path = make(tmp_path / "a", [*PLAIN, (name, b"evil")])
    with pytest.raises(DataError) as error:
        archive.unpack(path, kind)
    assert f"is refused, nothing was unpacked: {name} ({danger}); create the" in str(error.value)
    assert written(cache) == []


def test_a_backslash_within_is_a_separator(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("cat\\1.jpg", b"one")])
    assert contents(archive.unpack(path, "zip")) == {"cat/1.jpg": b"one"}


def test_the_first_ten_dangerous_names_are_listed(tmp_path):
    path = make_zip(tmp_path / "a.zip", [(f"../{i:02d}", b"") for i in range(13)])
    with pytest.raises(DataError, match=r"\.\./00 .*\.\./09 \(a path .*\) and 3 more; create"):
        archive.unpack(path, "zip")


def unix_entry(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


@pytest.mark.parametrize(
    ("mode", "danger"),
    [
        (stat.S_IFLNK | 0o777, "a symbolic link"),
        (stat.S_IFIFO, "a device"),
        (stat.S_IFCHR, "a device"),
    ],
)
def test_a_zip_with_a_link_or_device_is_refused(tmp_path, cache, mode, danger):
    path = make_zip(tmp_path / "a.zip", [*PLAIN, (unix_entry("link", mode), b"/etc/passwd")])
    with pytest.raises(DataError, match=rf"nothing was unpacked: link \({danger}\)"):
        archive.unpack(path, "zip")
    assert written(cache) == []


@pytest.mark.parametrize(
    ("kind", "danger"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.FIFOTYPE, "a device"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.REGTYPE, "a setuid or setgid file"),
    ],
)
def test_a_tar_with_a_link_a_device_or_setuid_is_refused(tmp_path, cache, kind, danger):
    info = tarfile.TarInfo("odd")
    info.type, info.linkname, info.mode = kind, "Images/cat/1.jpg", 0o4755
    path = make_tar(tmp_path / "a.tar", [*PLAIN, (info, b"")])
    with pytest.raises(DataError, match=rf"nothing was unpacked: odd \({danger}\)"):
        archive.unpack(path, "tar")
    assert written(cache) == []


def test_the_refusals_fail_without_the_check(tmp_path, monkeypatch):
    """Sabotaged: without the check the archive is read, though never written outside."""
    monkeypatch.setattr(archive, "_danger", lambda entry: "")
    path = make_zip(tmp_path / "a.zip", [("../../x", b"evil")])
    (member,) = archive.unpack(path, "zip").members
    assert files.cache_folder() in member.file.parents
    assert not (tmp_path.parent / "x").exists()


def test_nested_archives_are_refused(tmp_path, cache):
    path = make_zip(tmp_path / "a.zip", [*PLAIN, ("Images/more.tar.gz", b"")])
    with pytest.raises(DataError, match=r"contains another archive, Images/more.tar.gz, and"):
        archive.unpack(path, "zip")
    assert written(cache) == []


# --- bombs and limits


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_is_refused_with_its_figure(tmp_path, cache, monkeypatch, kind):
    monkeypatch.setattr(archive, "RATIO_FREE_BYTES", 2**20)
    zeros = [("zeros", bytes(4 * 2**20))]
    path = tmp_path / "a"
    make_zip(path, zeros) if kind == "zip" else make_tar(path, zeros, "w:gz")
    with pytest.raises(DataError, match=r"would unpack to at least 4,194,\d+ bytes, 1,0"):
        archive.unpack(path, kind)
    assert written(cache) == []


def test_a_bomb_is_opened_if_that_many_bytes_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "RATIO_FREE_BYTES", 2**20)
    zeros = [("zeros", bytes(4 * 2**20))]
    path = make_zip(tmp_path / "a.zip", zeros)
    with pytest.raises(DataError, match=r"if you trust it, allow it with --max-archive-gb 1$"):
        archive.unpack(path, "zip")
    assert contents(archive.unpack(path, "zip", limits=Limits(max_bytes=10**9))) == dict(zeros)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_bytes_in_total_are_refused(tmp_path, kind):
    path = (make_zip if kind == "zip" else make_tar)(tmp_path / "a", PLAIN)
    with pytest.raises(
        DataError,
        match=r"to at least [\d,]+ bytes and the limit is 8; .* --max-archive-gb",
    ):
        archive.unpack(path, kind, limits=Limits(max_bytes=8))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_entries_are_refused(tmp_path, kind):
    path = (make_zip if kind == "zip" else make_tar)(tmp_path / "a", PLAIN)
    with pytest.raises(
        DataError, match=r"contains at least 3 entries and the limit is 2; .* --max-archive-entries"
    ):
        archive.unpack(path, kind, limits=Limits(max_entries=2))
    assert len(archive.unpack(path, kind, limits=Limits(max_entries=3)).members) == 3


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_many_nearly_empty_members_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archive, "ENTRIES_FREE", 2)
    path = (make_zip if kind == "zip" else make_tar)(tmp_path / "a", PLAIN)
    with pytest.raises(DataError, match="its first 3 entries contain 9 bytes, less than 64 each"):
        archive.unpack(path, kind)
    assert len(archive.unpack(path, kind, limits=Limits(max_entries=9)).members) == 3


def test_overlapping_members_are_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", PLAIN)
    content = bytearray(path.read_bytes())
    second = content.find(b"PK\x01\x02", content.find(b"PK\x01\x02") + 1)
    content[second + 42 : second + 46] = struct.pack("<I", 1)  # its data starts within the first's
    path.write_bytes(content)
    with pytest.raises(DataError, match="its members overlap, as in a zip bomb"):
        archive.unpack(path, "zip")


def test_a_disk_too_small_is_reported_before_anything_is_written(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(files.cache, "SPARE_DISK_BYTES", 2**70)
    path = make_zip(tmp_path / "a.zip", PLAIN)
    with pytest.raises(
        EnvironmentFault,
        match=r"needs [\d,]+ bytes in .*cache/archives and only [\d,]+ are free;",
    ):
        archive.unpack(path, "zip")
    assert written(cache) == []


def test_a_cache_that_cannot_be_written_is_an_environment_fault(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "file"))
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        archive.unpack(make_zip(tmp_path / "a.zip", PLAIN), "zip")


def test_a_folder_that_cannot_be_filled_leaves_nothing(tmp_path):
    def fill(part):
        (part / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        EnvironmentFault, match="x cannot be written: No space left on device; free"
    ):
        archive.make_folder(tmp_path / "x", fill)
    assert list(tmp_path.iterdir()) == []


# --- members that cannot be read: reported, and the others kept


def harmed_zip(path, at, new, *, method=zipfile.ZIP_STORED):
    """Write PLAIN and change the first member's header fields at (local, central) offsets."""
    make_zip(path, PLAIN, method=method)
    content = bytearray(path.read_bytes())
    local, central = at
    if local is not None:
        content[local : local + len(new)] = new
    if central is not None:
        start = content.find(b"PK\x01\x02") + central
        content[start : start + len(new)] = new
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("at", "new", "reason", "detail"),
    [
        ((6, 8), struct.pack("<H", 1), "PASSWORD", "protected by a password; unpack the archive"),
        ((8, 10), struct.pack("<H", 9), "CORRUPT", "compression method 9 is not supported"),
        ((8, 10), struct.pack("<H", 99), "CORRUPT", "compression method 99"),
        ((14, 16), b"\0\0\0\0", "CORRUPT", "it cannot be unpacked (its checksum is wrong)"),
        ((22, 24), struct.pack("<I", 2), "CORRUPT", "its archive declares 2 bytes and contains"),
        ((22, 24), struct.pack("<I", 9), "CORRUPT", "its archive declares 9 bytes and contains 3"),
        ((0, None), b"XXXX", "CORRUPT", "it cannot be unpacked (its header is damaged"),
    ],
    ids=[
        "password",
        "deflate64",
        "aes",
        "crc",
        "more than declared",
        "less than declared",
        "header",
    ],
)
def test_a_member_that_cannot_be_read_is_reported(tmp_path, at, new, reason, detail):
    unpacked = archive.unpack(harmed_zip(tmp_path / "a.zip", at, new), "zip")
    ((name, found_reason, found_detail),) = unpacked.bad_members
    assert (name, found_reason) == ("Images/cat/1.jpg", reason)
    assert found_detail.startswith(detail)
    assert contents(unpacked) == dict(PLAIN[1:])


def test_a_damaged_stream_is_reported(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a", os.urandom(500) * 9), ("b", b"good")])
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)
    unpacked = archive.unpack(path, "zip")
    assert [bad.name for bad in unpacked.bad_members] == ["a"]
    assert contents(unpacked) == {"b": b"good"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")  # of the writer: intended here
def test_of_equal_names_the_first_is_kept_and_the_others_reported(tmp_path, kind):
    members = [("a/1", b"one"), ("a/1", b"two"), ("a/./1", b"three"), ("a/1 (again, 1)", b"four")]
    path = (make_zip if kind == "zip" else make_tar)(tmp_path / "a", members)
    unpacked = archive.unpack(path, kind)
    names = [row.name for row in (*unpacked.members, *unpacked.bad_members)]
    assert contents(unpacked) == {"a/1": b"one"}
    assert {bad.reason for bad in unpacked.bad_members} == {"DUPLICATE_NAME"}
    assert unpacked.bad_members[0].detail == "the archive contains a/1 more than once"
    assert len(set(names)) == 4


def test_names_that_are_not_utf8_and_long_ones_are_kept(tmp_path):
    names = ["\udcff\udcfe\udc81/" + "x" * 300, "猫/😀.png"]
    path = make_tar(tmp_path / "a.tar", [(name, b"x") for name in names])
    assert list(contents(archive.unpack(path, "tar"))) == names
    assert list(contents(archive.unpack(path, "tar"))) == names, "and again from the cache"


# --- archives that cannot be read at all


@pytest.mark.parametrize(
    ("kind", "keep"), [("zip", 0.7), ("tar", 0.7), ("tar", 0.5), ("tgz", 0.6), ("tar", 0.05)]
)
def test_a_truncated_archive_is_refused(tmp_path, cache, kind, keep):
    members = [(f"c/{i}", os.urandom(3000)) for i in range(5)]
    path = tmp_path / "a"
    make_zip(path, members) if kind == "zip" else make_tar(
        path, members, "w:gz" if kind == "tgz" else "w"
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(DataError, match="as it may be incomplete"):
        archive.unpack(path, "zip" if kind == "zip" else "tar")
    assert written(cache) == []


def test_a_damaged_header_in_a_tar_is_not_taken_for_its_end(tmp_path):
    """tarfile silently takes a damaged header in the middle for the end."""
    path = make_tar(tmp_path / "a.tar", PLAIN)
    content = bytearray(path.read_bytes())
    content[1024:1100] = b"\xff" * 76
    path.write_bytes(content)
    with tarfile.open(path) as tar:
        assert len(tar.getmembers()) == 1
    with pytest.raises(DataError, match="a header is damaged"):
        archive.unpack(path, "tar")


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_never_crashes(tmp_path, seed):
    import random

    draw = random.Random(seed)
    path = tmp_path / "a"
    kind = draw.choice(["zip", "tar"])
    make_zip(path, PLAIN) if kind == "zip" else make_tar(path, PLAIN, draw.choice(["w", "w:gz"]))
    content = bytearray(path.read_bytes())
    for _ in range(draw.randrange(1, 8)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    path.write_bytes(content)
    try:
        unpacked = archive.unpack(path, kind)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert all(member.file.exists() for member in unpacked.members)


def test_an_archive_that_changes_while_it_is_read_is_refused(tmp_path, cache):
    path = make_zip(tmp_path / "a.zip", PLAIN)

    def append(what, done, total):
        with path.open("ab") as stream:
            stream.write(b"more")

    with pytest.raises(DataError, match=r"a.zip changed while it was read; run the command again"):
        archive.unpack(path, "zip", progress=append)
    assert written(cache) == []


def test_progress_is_reported(tmp_path):
    calls = []
    path = make_zip(tmp_path / "a.zip", PLAIN)
    archive.unpack(path, "zip", progress=lambda *call: calls.append(call))
    assert calls == [("unpacking", 0, 3), ("unpacking", 3, 3)]
