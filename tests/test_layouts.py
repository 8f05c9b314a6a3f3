"""Folders as people have them: read right, or refused with the ways out; as archives, too."""

import zipfile

import pytest

from layout_cases import CASES, Case, make, outcome
from layouts_table import TABLE, table
from towernet.data.source import open_source
from towernet.errors import TowernetError


def read(case, data):
    """Return what was read, and the sentence; or why it was refused."""
    try:
        source = open_source(str(data), case.reading)
    except TowernetError as error:
        assert "\n" not in str(error)
        return f"refused: {error}", ""
    return outcome(source), source.reading


def holds(case, found, sentence):
    if case.expected.startswith("refused: "):
        words = case.expected.removeprefix("refused: ").split(" … ")
        return found.startswith("refused: ") and all(word in found for word in words)
    return found == case.expected and case.note in sentence


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.like)
def test_a_layout_is_read_right_or_refused_as_folder_and_as_zip(case, tmp_path):
    folder = make(case, tmp_path / "photos")
    found, sentence = read(case, folder)
    assert holds(case, found, sentence), f"{found}; {sentence}"
    packed = tmp_path / "photos.zip"
    with zipfile.ZipFile(packed, "w") as target:
        for path in sorted(folder.rglob("*")):
            target.write(path, path.relative_to(folder))
    of_zip, sentence = read(case, packed)
    assert holds(case, of_zip.replace("photos.zip", "photos"), sentence.replace(".zip", ""))


def test_every_file_of_a_layout_is_accounted_for(tmp_path):
    for i, case in enumerate(CASES):
        folder = make(case, tmp_path / str(i))
        if case.expected.startswith("refused: "):
            continue
        source = open_source(str(folder), case.reading)
        found = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        }
        hidden = {path for path in found if "__MACOSX" in path or path.startswith(".")}
        listed = {file.path for file in source.files} | {one.path for one in source.ignored}
        assert found - hidden == listed - {"__MACOSX", ".DS_Store"}, case.like


def test_the_check_of_an_outcome_notices_another_one():
    case = Case("", "", "cat, dog: 7", note="two")
    assert holds(case, "cat, dog: 7", "two") and not holds(case, "cat, dog: 6", "two")
    assert not holds(case, "cat, dog: 7", "three")
    refused = Case("", "", "refused: a … b")
    assert holds(refused, "refused: xaxbx", "") and not holds(refused, "refused: xax", "")


def test_there_are_at_least_forty_layouts():
    assert len(CASES) >= 40 and len({case.like for case in CASES}) == len(CASES)


def test_the_table_of_layouts_is_what_the_program_does():
    assert TABLE.read_text() == table()
