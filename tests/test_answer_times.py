"""The time for an image is measured after the answers; nothing may depend on it."""

from __future__ import annotations

from towernet.comparison.judging.answers import milliseconds
from towernet.config import load_recipe
from towernet.data.prepare import prepare, sample_table
from towernet.data.source import open_source
from towernet.predict import load_run


def test_files_that_vanished_leave_the_time_of_decoding_out(finished_run, own_photos):
    source = open_source(str(own_photos))
    table = sample_table(source, seed=0, images_per_class=None, workers=1)
    dataset = prepare(table, source, load_recipe("default").data, seed=0, workers=1)
    predictor = load_run(finished_run)
    of_network, of_decoding = milliseconds(predictor, dataset, source)
    assert of_network > 0
    assert of_decoding is not None and of_decoding > 0
    files = list(own_photos.rglob("*.png"))
    files[0].write_bytes(b"no image any more")
    for file in files[1:]:
        file.unlink()
    of_network, of_decoding = milliseconds(predictor, dataset, source)
    assert of_network > 0
    assert of_decoding is None
