"""Names in archives that do not say how they are encoded."""

import io
import random
import tarfile
import zipfile

import pytest

from foreign_names import NAMES, names_of
from towernet.data import archive
from towernet.data.encodings import AS_BEFORE
from towernet.data.source import open_source
from towernet.errors import DataError, TowernetError, UnknownNameError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A separate cache."""
    monkeypatch.setenv("TOWERNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Raw(zipfile.ZipInfo):
    """A member whose name is these bytes, without a flag."""

    def _encodeFilenameFlags(self):
        return self.raw, self.flag_bits & ~0x800


def make_zip(path, names):
    with zipfile.ZipFile(path, "w") as target:
        for number, name in enumerate(names):
            info = Raw(f"x{number}")
            info.raw = name
            target.writestr(info, f"content {number}")
    return path


def names_in(path, kind="zip", **options):
    return [member.name for member in archive.unpack(path, kind, **options).members]


@pytest.mark.parametrize("language", NAMES)
def test_names_from_windows_are_read_and_said(tmp_path, language):
    codec = NAMES[language][0][0]
    wanted = [f"{name}/{number}.png" for number, name in enumerate(names_of(language))]
    path = make_zip(tmp_path / "a.zip", [name.encode(codec) for name in wanted])
    assert names_in(path) == wanted
    assert "the names do not say how they are encoded; read as" in archive.unpack(path, "zip").note
    assert names_in(path, encoding=codec) == wanted


def test_runs_made_before_have_the_names_of_before(tmp_path):
    path = make_zip(tmp_path / "a.zip", ["蚂蚁/1".encode("gbk"), "犬/1".encode()])
    assert names_in(path, encoding=AS_BEFORE) == ["┬∞╥╧/1", "犬/1"]
    assert archive.unpack(path, "zip", encoding=AS_BEFORE).note == ""


def test_a_byte_within_a_character_is_no_separator(tmp_path):
    names = ["表札/1.png", "標識/1.png", "ソファ/表/1.png", "能面\\1.png", "十/ソ"]
    path = make_zip(tmp_path / "a.zip", [name.encode("cp932") for name in names])
    assert names_in(path) == [name.replace("\\", "/") for name in names]


def test_names_in_ascii_or_utf8_are_not_mentioned(tmp_path):
    names = ["cat/1.png", "bébé/1.png", "犬/1.png", "кот/1.png", "cat/é.png"]
    path = make_zip(tmp_path / "a.zip", [name.encode() for name in names])
    assert archive.unpack(path, "zip").note == ""
    assert names_in(path) == names


def test_names_that_may_be_utf8_by_chance_are_said_and_the_option_decides(tmp_path):
    path = make_zip(tmp_path / "a.zip", ["猫/1".encode("gbk"), "狗/1".encode(), "猫/2".encode()])
    assert names_in(path) == ["è/1", "狗/1", "猫/2"]
    assert archive.unpack(path, "zip").note == (
        "the names do not say how they are encoded; read as UTF-8: è; if that is wrong, give"
        " --encoding"
    )
    assert names_in(path, encoding="gbk") == ["猫/1", "狗/1", "猫/2"]
    note = archive.unpack(path, "zip", encoding="gbk").note
    assert note == "names read as GBK: 猫; others as UTF-8: 狗, 猫"


@pytest.mark.parametrize("order", [1, -1])
def test_one_name_in_two_encodings_is_one_folder_in_either_order(tmp_path, order):
    path = make_zip(tmp_path / "a.zip", ["狗/1".encode("gbk"), "狗/2".encode()][::order])
    assert names_in(path, encoding="gbk") == ["狗/1", "狗/2"][::order]


def test_a_name_with_the_flag_is_utf8_whatever_the_option_says(tmp_path):
    path, info = tmp_path / "a.zip", Raw("x")
    info.raw = "猫/1".encode("gbk")
    with zipfile.ZipFile(path, "w") as target:
        target.writestr(info, "not flagged")
        target.writestr("è/1", "flagged")
    assert names_in(path, encoding="gbk") == ["猫/1", "è/1"]


def test_names_in_two_encodings_are_each_read(tmp_path):
    names = [name.encode("gbk") for name in ("猫/1", "狗/1", "蚂蚁/1", "相机/1", "盆栽/1")]
    path = make_zip(tmp_path / "a.zip", [*names, "Tür/1".encode(), "大象/1".encode()])
    assert names_in(path) == ["猫/1", "狗/1", "蚂蚁/1", "相机/1", "盆栽/1", "Tür/1", "大象/1"]


def test_what_is_not_certain_is_refused_and_the_option_decides(tmp_path):
    path = make_zip(tmp_path / "a.zip", [b"ma\xa4a/1", b"\x88a/1"])
    with pytest.raises(DataError, match=r"do not say how they are encoded, and .*--encoding"):
        archive.unpack(path, "zip")
    assert names_in(path, encoding="cp850") == ["maña/1", "êa/1"]
    assert names_in(path, encoding="cp852") == ["maĄa/1", "ła/1"], "and again, with another"
    with pytest.raises(DataError, match=r"contains a name, .*, that is not in GBK; give another"):
        archive.unpack(path, "zip", encoding="gbk")
    with pytest.raises(UnknownNameError, match=r"no encoding is called 'cp85O'. Did you mean"):
        archive.unpack(path, "zip", encoding="cp85O")


def test_names_that_decide_no_class_are_never_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", [b"cat/\x88a.png", b"dog/\x81\x8d\xff.png"])
    assert [name.partition("/")[0] for name in names_in(path)] == ["cat", "dog"]


def test_two_folders_never_become_one(tmp_path):
    # Both mean the same character, of NEC and of IBM.
    path = make_zip(tmp_path / "a.zip", [b"\xed\x40/1", b"\xfa\x5c/1"])
    with pytest.raises(DataError, match=r"which are both .* in Shift-JIS; give another"):
        archive.unpack(path, "zip", encoding="cp932")


@pytest.mark.parametrize("name", [b"../\x95\x5c", b"\x95\x5c/../../x", b"/\xc2\xec/1", b"C:\\\xc2"])
@pytest.mark.parametrize("encoding", [None, "gbk", "cp932", "latin-1", AS_BEFORE])
def test_no_encoding_hides_a_path_outside(tmp_path, cache, name, encoding):
    path = make_zip(tmp_path / "a.zip", [b"a/1", name])
    with pytest.raises(DataError, match="is refused, nothing was unpacked"):
        archive.unpack(path, "zip", encoding=encoding)
    assert not [file for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_an_encoding_that_makes_a_path_outside_is_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", [b"\\u002e\\u002e/\\u002e\\u002e/x\xe9"])
    with pytest.raises(DataError, match="is refused, nothing was unpacked"):
        archive.unpack(path, "zip", encoding="raw_unicode_escape")


def test_names_in_a_tar_are_recognised_or_kept_as_bytes(tmp_path):
    def make_tar(names):
        with tarfile.open(tmp_path / "a.tar", "w") as target:
            for name in names:
                target.addfile(
                    tarfile.TarInfo(name.decode("utf-8", "surrogateescape")), io.BytesIO()
                )
        return tmp_path / "a.tar"

    wanted = [f"{name}/1.png" for name in names_of("Russian")]
    assert names_in(make_tar([name.encode("cp1251") for name in wanted]), "tar") == wanted
    path = make_tar([b"\xff\xfe\x81/1"])
    assert names_in(path, "tar") == ["\udcff\udcfe\udc81/1"]
    assert "read byte by byte" in archive.unpack(path, "tar").note


@pytest.mark.parametrize("seed", range(60))
def test_only_our_errors_escape_from_any_names(tmp_path, seed):
    rng = random.Random(seed)
    words = [name.encode(rng.choice(["gbk", "cp932", "cp866", "utf-8"]), "replace")
             for name in names_of(rng.choice([*NAMES]))]  # fmt: skip
    names = set()
    for _ in range(rng.randrange(1, 12)):
        name = bytearray(b"/".join(rng.choices([*words, b"cat", b"1.png"], k=rng.randrange(1, 4))))
        for _ in range(rng.randrange(4)):
            name[rng.randrange(len(name) + 1) : 0] = rng.choice(
                [rng.randbytes(1), b"\\", b"/", b"..", b"\0", b"\x81", b":"]
            )
        names.add(bytes(name) or b"x")
    path = make_zip(tmp_path / "a.zip", sorted(names))
    try:
        unpacked = archive.unpack(path, "zip", encoding=rng.choice([None, None, "gbk", "cp932"]))
    except DataError as error:
        assert "\n" not in str(error)
    except TowernetError as error:
        pytest.fail(f"{type(error).__name__}: {error}")
    else:
        assert len(unpacked.members) + len(unpacked.bad_members) + len(unpacked.folders) == len(
            names
        )
        assert all(".." not in member.name.split("/") for member in unpacked.members)


def test_the_reading_sentence_says_it(tmp_path):
    names = [f"{name}/{number}.png" for name in ("муравей", "дерево") for number in range(2)]
    path = make_zip(tmp_path / "a.zip", [name.encode("cp866") for name in names])
    assert open_source(str(path)).reading.endswith(
        "the names do not say how they are encoded; read as code page 866: муравей, дерево; if that"
        " is wrong, give --encoding"
    )
