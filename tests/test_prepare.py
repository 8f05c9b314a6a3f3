"""From a sample table to arrays: which pixels are evaluated, which are trained on, their scale."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from towernet.config import DataConfig
from towernet.data.decode import decode, fit
from towernet.data.prepare import NOTEBOOK_MEAN, Dataset, prepare, sample_table
from towernet.data.rules import NOW
from towernet.data.source import open_source
from towernet.errors import DataError
from towernet.records.contract import Contract

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def prepared(photos, **values) -> Dataset:
    source = open_source(str(photos))
    table = sample_table(source, seed=0, images_per_class=None, workers=1)
    return prepare(table, source, DataConfig(size_px=24, **values), seed=0, workers=1)


@pytest.mark.parametrize("margin", [1.0, 1.25])
def test_evaluation_sees_the_share_and_training_the_whole_square(photos, margin):
    dataset = prepared(photos, crop_share=0.75, train_margin=margin)
    assert dataset.contract.crop_share == 0.75
    for part in (dataset.train, dataset.test):
        for row, path in zip(part.rows, part.paths, strict=True):
            whole = decode((photos / path).read_bytes(), NOW).pixels
            assert (dataset.pixels[row] == fit(whole, 24, "crop", crop_share=0.75)).all()
            assert (dataset.train_pixels[row] == fit(whole, round(24 * margin), "crop")).all()
    assert prepared(photos, train_margin=1.0).train_pixels.shape[1] == 24


def test_without_a_share_one_array_serves_training_and_evaluation(photos):
    dataset = prepared(photos, train_margin=1.0)
    assert dataset.train_pixels is dataset.pixels


def test_mean_and_std_are_measured_or_given(photos):
    given = prepared(photos, normalise="given", mean=MEAN, std=STD).contract
    assert (given.mean, given.std) == (MEAN, STD)
    assert prepared(photos, normalise="notebook").contract.mean == NOTEBOOK_MEAN
    dataset = prepared(photos, crop_share=0.5)
    seen = dataset.pixels[dataset.train.rows].reshape(-1, 3).mean(0) / 255
    np.testing.assert_allclose(dataset.contract.mean, seen, atol=1e-6)


def test_a_contract_without_a_share_is_written_and_read_as_before():
    contract = Contract(("a", "b"), 24, "crop", MEAN, STD)
    written = TypeAdapter(Contract).dump_python(contract, mode="json")
    assert "crop_share" not in written
    assert Contract.from_json(written | {"crop_share": 0.5}).crop_share == 0.5
    for values in ({"crop_share": 1.5}, {"crop_share": 0.5, "resize": "pad"}):
        with pytest.raises(DataError, match=r"the class contract is damaged \(.*crop_share"):
            Contract.from_json(written | values)
