"""Fixtures: real small images, real small networks, a separate cache for the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crashlab.lab import Lab, compiler

# A shell's background jobs ignore Ctrl-C; the programs that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY_NETWORK = "shufflenet_v2_x0_5"  # a step at 64 px lasts milliseconds


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


def process_state() -> dict[str, object]:
    """Return everything that a policy sets for the whole process and can restore."""
    import torch

    from towernet.attention import fused
    from towernet.native import ops

    return {
        "threads": torch.get_num_threads(),
        "kernels": ops._enabled,
        "compiled for": fused._devices,
        "benchmark": torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cudnn.allow_tf32,
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warns only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    before = process_state()
    yield
    assert process_state() == before, "the test changed the state of the process"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All tests of a process share a cache, and never touch the user's caches or weights."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.getbasetemp()
        patch.setenv("TOWERNET_CACHE", str(folder / "cache"))
        patch.setenv("TOWERNET_STORE", str(folder / "weights"))
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        yield


@pytest.fixture
def kernels_are_used(_own_cache: None) -> Iterator[None]:
    """The C kernels are enabled; where they cannot be compiled, the test is skipped."""
    from towernet.native import library, ops

    if isinstance(found := library.load(), library.Missing):
        pytest.skip(found.reason)
    with ops.enabled(True):
        yield


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes × 14 images of 40 × 36 pixels: horizontal, vertical or diagonal stripes."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(5)
    rows, columns = np.mgrid[:36, :40]
    for name, wave in {"lying": rows, "standing": columns, "leaning": rows + columns}.items():
        (folder / name).mkdir()
        for i in range(14):
            stripes = np.sin(wave * draw.uniform(0.5, 0.9) + draw.uniform(0, 6))
            pixels = 128 + 80 * stripes[:, :, None] * draw.uniform(0.6, 1, 3)
            pixels = np.clip(pixels + draw.normal(0, 12, (36, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """A copy that a test can change."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


@pytest.fixture(scope="session")
def data_sets() -> Path:
    """The folder of the larger image sets; without it the test is skipped."""
    folder = os.environ.get("TOWERNET_DATA")
    if not folder:
        pytest.skip("TOWERNET_DATA is not set to a folder of image sets")
    return Path(folder)


@pytest.fixture(scope="session")
def weight_files() -> Path:
    """The folder of published weights; without it the test is skipped."""
    beside = os.environ.get("TOWERNET_DATA")
    folder = os.environ.get("TOWERNET_WEIGHTS") or (beside and str(Path(beside).parent / "weights"))
    if not folder or not Path(folder).is_dir():
        pytest.skip("neither TOWERNET_WEIGHTS nor a folder weights next to TOWERNET_DATA is there")
    return Path(folder)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Runs the command with injected faults: see `crashlab.lab`."""
    if compiler() is None:
        pytest.skip("no C compiler to build the fault injection with")
    with Lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


def run_towernet(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; return its exit code and output."""
    return subprocess.run(
        [sys.executable, "-m", "towernet", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.fixture
def towernet(capfd):
    """Run the command in this process, which has already imported torch."""
    from towernet.cli.main import main

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        exit_code = main([str(word) for word in words])
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(words, exit_code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def finished_run(photos, tmp_path_factory):
    from towernet.cli.main import main

    folder = tmp_path_factory.mktemp("run") / "run"
    words = (
        f"train {photos} --model {TINY_NETWORK} --epochs 1 --size 64 --batch-size 8 --out {folder}"
    )
    assert main(words.split()) == 0
    return folder
