"""Class names are compared in one form: macOS writes é as two characters, other systems as one."""

import unicodedata

import numpy as np
import pytest

from towernet.comparison.evaluation import _require_known_classes
from towernet.data import changes, prepare
from towernet.data.source import Source
from towernet.data.table import USED, make_table
from towernet.errors import DataError

NAMES = ("café", "thé")
APART = tuple(unicodedata.normalize("NFD", name) for name in NAMES)


def table(names):
    return make_table(
        {"path": ["1", "2"], "content_id": ["a", "b"], "class_name": names, "status": [USED] * 2}
    )


@pytest.mark.parametrize(("mine", "its"), [(NAMES, APART), (APART, NAMES)])
def test_the_classes_of_a_run_are_known_in_both_forms(tmp_path, mine, its):
    assert mine != its
    np.testing.assert_array_equal(prepare.labels_of(table(mine), its), [0, 1])
    assert not any(changes.changes(table(mine), table(its)))
    source = Source("x", tmp_path, "", mine, (), ())
    _require_known_classes(source, set(), its, tmp_path)
    with pytest.raises(DataError, match=r"contains a class that the run .* was not trained on"):
        _require_known_classes(source, set(), its[1:], tmp_path)
