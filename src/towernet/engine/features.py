"""Features of images under pre-trained weights: computed once for each image, and kept.

They are what the last layer of a network reads. Each image's are kept in the cache by the hash of
its bytes, under a key of everything else that their bits depend on. So the bits depend neither on
the order of the images, nor on those beside them, nor on what was computed before: each batch has
the same size, filled up with black images, and is computed by one thread. Cores compute different
batches at the same time, which is also faster than sharing one.
Shapes: N images, B in a batch, S the side of the square, D features.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import IO

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from towernet import files
from towernet.data import cache, decode
from towernet.data.examine import Wanted, fitted
from towernet.data.rules import Rules
from towernet.data.source import Source
from towernet.data.workers import Count, Died, in_order
from towernet.engine import feature_store
from towernet.engine.augment import to_input
from towernet.engine.batches import prefetch
from towernet.engine.device import Policy, bits_depend_on, fp32, hardware
from towernet.errors import ConfigError, DataError
from towernet.models.optimize import optimize
from towernet.names import NetworkName
from towernet.records.contract import Contract
from towernet.shapes import run_on_meta
from towernet.words import shown

Rows = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

PIXELS_AT_ONCE, MOST_AT_ONCE = 4 * 224**2, 16
"""In a batch. A network is no faster with more, which only take more memory."""
_DECODED_AHEAD = 64


@dataclass(frozen=True)
class Backbone:
    """A network with pre-trained weights, up to its last layer.

    Args:
        model: The whole network with its weights; it is not changed.
        head: The name of its last layer, an `nn.Linear`, which is left out.
        network: The network's name.
        weights_sha256: Of the file that contained the weights.
    """

    model: nn.Module
    head: str
    network: NetworkName
    weights_sha256: str

    @property
    def num_features(self) -> int:
        """D, what the last layer reads.

        Raises:
            ConfigError: the last layer is not linear.
        """
        head = self.model.get_submodule(self.head)
        if not isinstance(head, nn.Linear):
            raise ConfigError(
                f"the last layer of {self.network}, {self.head}, is {type(head).__name__} and must"
                " be Linear for its features to be used; choose another network"
            )
        return head.in_features


class Extractor:
    """A backbone prepared to compute features, in the active policy (`policy`).

    Args:
        backbone: The network without its last layer.
        contract: How images become its input; the class names do not matter.
        policy: The run's. Features are computed in fp32 and, on a CPU, in channels_last with one
            thread per batch, so that they do not depend on the number of threads.

    Raises:
        ConfigError: the last layer is not linear, or is not all that reads one row of D numbers per
            image, as in networks with two last layers.
    """

    def __init__(self, backbone: Backbone, contract: Contract, policy: Policy) -> None:
        on_cpu = policy.device == "cpu"
        channels_last = on_cpu or policy.channels_last
        self.num_at_once = policy.threads if on_cpu else 1
        self.policy = replace(fp32(policy), channels_last=channels_last, threads=1, reason="")
        self.backbone, self.contract = backbone, contract
        self.num_features = backbone.num_features
        size_px = contract.size_px
        self.batch_size = max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // size_px**2))
        model = optimize(
            backbone.model,
            size_px=size_px,
            absorb=policy.kernels == "torch",
            memory_format=self.policy.memory_format,
        )
        model.set_submodule(backbone.head, nn.Identity())
        self._require_rows(model)
        self._model = self.policy.place(model)

    @torch.inference_mode()
    def features(self, pixels_BSS3: Pixels) -> Rows:
        """Return (B, D) features of fitted pixels."""
        images = torch.from_numpy(pixels_BSS3).to(self.policy.device)
        images_BCHW = to_input(images, self.contract.mean, self.contract.std)
        images_BCHW = images_BCHW.contiguous(memory_format=self.policy.memory_format)
        features: torch.Tensor = self._model(images_BCHW)
        return features.float().cpu().numpy()

    def _require_rows(self, model: nn.Module) -> None:
        """Refuse a network that computes anything else without its last layer than it reads."""
        size_px = self.contract.size_px
        try:
            features: object = run_on_meta(model, 2, 3, size_px, size_px)
        except Exception:  # networks raise different kinds of exceptions
            features = None
        shape = features.shape if isinstance(features, torch.Tensor) else ()
        if shape != (2, self.num_features):
            raise ConfigError(
                f"{self.backbone.network} has no features that only its last layer,"
                f" {self.backbone.head}, reads ({self.num_features} numbers per image); choose"
                " another network"
            )

    def key(self, rules: Rules) -> str:
        """Return a hash of everything that the features' bits depend on, besides the image.

        The features of a fixed batch are part of it. So are, through them, the code of networks
        that other packages bring, and settings of the processor's libraries.
        """
        contract, size_px = self.contract, self.contract.size_px
        shape = (self.batch_size, size_px, size_px, 3)
        probe = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        made_from = {
            "decoder": decode.VERSION,
            "rules": asdict(rules),
            "contract": [
                size_px,
                contract.resize,
                contract.crop_share,
                contract.mean,
                contract.std,
            ],
            "weights": self.backbone.weights_sha256,
            "network": [str(self.backbone.network), self.backbone.head],
            "policy": asdict(self.policy),
            "batch_size": self.batch_size,
            "bits": bits_depend_on(self.policy, [self.backbone.network]),
            "processor": hardware(self.policy).processor,
            "probe": hashlib.sha256(self.features(probe).tobytes()).hexdigest(),
        }
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Key:
    """Under which features are kept.

    Args:
        sha256: Of everything that their bits depend on, besides the image.
        num_features: D.
    """

    sha256: str
    num_features: int


def key_of(extractor: Extractor, rules: Rules) -> Key:
    """Return the key of the features that an extractor computes.

    Args:
        extractor: Any policy may be active.
        rules: How files become pixels.
    """
    with extractor.policy.active():
        return Key(extractor.key(rules), extractor.num_features)


def features_of(
    images: pd.DataFrame,
    source: Source,
    key: Key,
    extractor: Callable[[], Extractor],
    *,
    rules: Rules,
    workers: int,
    progress: Count | None = None,
) -> Rows:
    """Return the features of images; those that are not in the cache are computed and added to it.

    A command that is killed loses the work of seconds. Two that need the same features compute them
    once: the second one waits.

    Args:
        images: Rows of a sample table that are used.
        source: Where their files are.
        key: Of the extractor, from `key_of`.
        extractor: Makes it; only called if features are missing, since it takes half a second.
        rules: How files become pixels.
        workers: How many processes decode.
        progress: Called as progress(what, done, total) while computing.

    Returns:
        (N, D) float32, row i of the i-th image. They are mapped from a file without a name, so they
        take no memory of their own.

    Raises:
        DataError: an image changed since it was checked, or a feature is NaN or infinite.
        EnvironmentFault: the cache cannot be written.
    """
    store = feature_store.Store(key.sha256, key.num_features)
    with _Result(list(images.content_id), store) as result:
        result.fill()
        if result.missing:
            with store.locked():
                result.fill()  # another command may have computed them meanwhile
                todo = images.iloc[sorted(rows[0] for rows in result.missing.values())]
                if len(todo):
                    _compute(extractor(), todo, source, rules, result, workers, progress)
        return result.mapped()


class _Result:
    """The (N, D) features that are asked for, on their way: a file, and which rows it lacks."""

    def __init__(self, content_ids: Sequence[str], store: feature_store.Store) -> None:
        self.store, self._num = store, len(content_ids)
        self.missing: dict[str, list[int]] = {}
        for row, content_id in enumerate(content_ids):
            self.missing.setdefault(content_id, []).append(row)

    def __enter__(self) -> _Result:
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=self.store.folder)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise files.refused(self.store.folder, error) from error
            # What is kept in a cache that can only be read is still used.
            self._file = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def set(self, content_id: str, row_D: Rows) -> None:
        """Write an image's features in every row that asks for them."""
        content = row_D.tobytes()
        try:
            for row in self.missing.pop(content_id):
                self._file.seek(row * len(content))
                self._file.write(content)
        except OSError as error:
            raise files.refused(self.store.folder, error) from error

    def fill(self) -> None:
        """Take from the store what it has."""
        for content_id, row_D in self.store.rows(self.missing):
            self.set(content_id, row_D)

    def mapped(self) -> Rows:
        """Return the features."""
        shape = (self._num, self.store.num_features)
        if not self._num:
            return np.zeros(shape, np.float32)
        assert not self.missing
        try:
            self._file.flush()
        except OSError as error:
            raise files.refused(self.store.folder, error) from error
        # torch warns of arrays that cannot be written; a change would not reach the file.
        return np.memmap(self._file, np.float32, "c", shape=shape)


def _compute(
    extractor: Extractor,
    images: pd.DataFrame,
    source: Source,
    rules: Rules,
    result: _Result,
    workers: int,
    progress: Count | None,
) -> None:
    """Compute the features of images into the result and the store."""
    contract, paths = extractor.contract, list(images.path)
    wanted = cache.wanted_images(
        images,
        source,
        size_px=contract.size_px,
        resize=contract.resize,
        crop_share=contract.crop_share,
        rules=rules,
    )
    result.store.make_room(len(wanted))
    with (
        extractor.policy.active(),
        contextlib.closing(_computed(extractor, wanted, paths, workers)) as rows,
        result.store,
    ):
        for done, row_D in enumerate(rows, start=1):
            content_id = wanted[done - 1].content_id
            if not np.isfinite(row_D).all():
                raise DataError(
                    f"{extractor.backbone.network} computes NaN or Inf for"
                    f" {shown(paths[done - 1])}; its weights are probably corrupt, use others"
                )
            result.set(content_id, row_D)
            result.store.add(content_id, row_D)
            if progress:
                progress("computing features", done, len(wanted))


def _computed(
    extractor: Extractor, wanted: Sequence[Wanted], paths: Sequence[str], workers: int
) -> Generator[Rows, None, None]:
    """Yield each image's (D,) features in order, decoded and computed ahead."""
    size_px, num_at_once = extractor.contract.size_px, extractor.num_at_once
    begun: deque[tuple[int, Future[Rows]]] = deque()

    def decoded() -> Iterator[bytes | str | Died | None]:
        return in_order(
            fitted,
            wanted,
            workers=workers,
            ahead=_DECODED_AHEAD,
            alone_bytes=wanted[0].rules.max_bytes,
        )

    def first() -> Iterator[Rows]:
        num, future = begun.popleft()
        yield from future.result()[:num]

    # A thread's own number of OpenMP threads is not that of the thread that starts it.
    pool = ThreadPoolExecutor(num_at_once, "features", torch.set_num_threads, (1,))
    with pool, contextlib.closing(prefetch(decoded, _DECODED_AHEAD)) as answers:
        for start in range(0, len(wanted), extractor.batch_size):
            pixels_BSS3 = np.zeros((extractor.batch_size, size_px, size_px, 3), np.uint8)
            in_batch = paths[start : start + extractor.batch_size]
            for row, path in enumerate(in_batch):
                content = cache.require_pixels(path, next(answers))
                pixels_BSS3[row] = np.frombuffer(content, np.uint8).reshape(size_px, size_px, 3)
            begun.append((len(in_batch), pool.submit(extractor.features, pixels_BSS3)))
            if len(begun) > 2 * num_at_once:
                yield from first()
        while begun:
            yield from first()
