"""Names without an encoding: recognised from what they read as, or left to the user."""

import random
from collections import Counter

import pytest

from foreign_names import NAMES, names_of
from towernet.data import encodings
from towernet.data.encodings import ANSI, OEM, guess, known_codec
from towernet.errors import UnknownNameError

SIZES = (2, 3, 5, 10, 40)
NUM_SAMPLES = 12


def outcome(names, codec, usual):
    """Return "right", "wrong" or "refused" for names in an encoding."""
    raws = [name.encode(codec) for name in names]
    found = guess(raws, usual)
    if found is None or not found.plausible or found.others:
        return "refused"
    return "right" if encodings.decoded(raws, found.codec) == tuple(names) else "wrong"


def outcomes(language, codec, usual, sizes=SIZES, num_samples=NUM_SAMPLES):
    """Return how often names of a language are recognised, by how many there are."""
    rng = random.Random(f"{language} {codec}")
    found = {size: Counter() for size in sizes}
    for size in sizes:
        for _ in range(num_samples):
            names = rng.sample(names_of(language), min(size, len(names_of(language))))
            if not all(name.isascii() for name in names):
                found[size][outcome(names, codec, usual)] += 1
    return found


PAIRS = [
    (language, codec, usual)
    for language, (codecs, _) in NAMES.items()
    for codec, usual in zip(codecs * 2, (OEM, ANSI), strict=False)
]


@pytest.mark.parametrize(("language", "codec", "usual"), PAIRS)
def test_names_are_recognised_or_refused(language, codec, usual):
    """Over all: 92 % right, 8 % refused, in 5,000 sets of 2 to 40 names; two sets were wrong."""
    found = outcomes(language, codec, usual)
    total = sum(found.values(), Counter())
    assert total["wrong"] == 0
    assert total["right"] >= (0.4 if language == "Hebrew" else 0.6) * total.total()
    assert set(found[40]) == {"right"}


@pytest.mark.parametrize("language", ["Chinese", "Taiwanese", "Japanese", "Korean", "Russian"])
def test_five_names_in_other_letters_are_enough(language):
    codec = NAMES[language][0][0]
    assert set(outcomes(language, codec, OEM, sizes=(5, 10))[5]) == {"right"}


def test_without_likelihoods_names_are_not_recognised(monkeypatch):
    """Sabotaged: if every reading is as likely, all sets of names are refused."""
    monkeypatch.setattr(encodings, "_likelihood", lambda text, language: 0.0)
    assert outcome(["蚂蚁", "盆栽"], "gbk", OEM) == "refused"


def test_names_that_read_the_same_in_several_encodings_are_no_question():
    assert guess(["Tür".encode("cp437"), b"Fenster"], OEM).others == ()


def test_other_names_help_and_exclude():
    raws = ["表".encode("cp932")]
    assert (
        guess(raws, OEM, more=["ソファ".encode("cp932"), "カメラ".encode("cp932")]).codec == "cp932"
    )
    assert guess(raws, OEM, excluded={"cp932"}).codec != "cp932"


def test_a_name_that_is_utf8_by_chance_reads_better_in_the_others_encoding():
    for name in ("猫", "鹿", "路"):
        raw = name.encode("gbk")
        assert raw.decode() != name, "it is valid UTF-8"
        assert encodings.is_likelier("gbk", raw)
    for name in ("Tür", "café", "кот", "猫"):
        assert not encodings.is_likelier("gbk", name.encode())


@pytest.mark.parametrize(
    "encoding", ["GBK", "Shift-JIS", "windows-1252", "866", "latin1", "mac_roman"]
)
def test_names_of_encodings_are_pythons(encoding):
    assert known_codec(encoding, of_names=True)


@pytest.mark.parametrize("encoding", ["utf-16", "rot13", "hex", "cp037", "klingon", "", "\0"])
def test_encodings_that_names_cannot_have_are_refused(encoding):
    with pytest.raises(UnknownNameError, match="no encoding is called"):
        known_codec(encoding, of_names=True)
