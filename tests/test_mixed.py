"""Bad files beside good ones: the same training, to the byte (the benchmark does it with 1,200)."""

import importlib
from pathlib import Path

import pytest


@pytest.mark.proof
def test_bad_files_beside_good_ones_change_no_byte_of_a_training(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    faults_images = importlib.import_module("faults_images")
    found = faults_images.measure_mixed(num_good=30, num_bad=7)
    assert found["nothing_lost"], found
    assert found["same_weights"], found
    assert found["same_metrics"], found
