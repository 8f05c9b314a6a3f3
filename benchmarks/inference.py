"""Inference without decoding, batch 1 and 32, at 256 px: built-in networks and tuned peers in turn.

`default` is torch with its default settings, `optimized` is `towernet.models.optimize` in bf16 and
channels_last, `compiled` is that under torch.compile with frozen weights. Of a peer's modes the
fastest counts. Decoding a JPEG of caltech16 is measured too.
"""

from __future__ import annotations

import argparse
import zipfile
from functools import partial
from typing import Any

import torch

from _common import data_set, write_result
from _contenders import MEASURED_SECONDS, Contenders, Measure, serve, timed
from towernet.data.decode import decode, fit
from towernet.engine.device import choose_policy, hardware, versions
from towernet.models.catalogue import build
from towernet.models.optimize import optimize

SIZE_PX, NUM_CLASSES = 256, 16
BATCHES = (1, 32)
OURS, PEERS = ("towernet", "towernet_patch"), ("mobilenet_v2", "resnet50")
MODES = ("default", "optimized", "compiled")


def decoding() -> Measure:
    """Measure one image after another, from bytes to the network's pixels."""
    with zipfile.ZipFile(data_set("caltech16.zip")) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::60]
        contents = [archive.read(name) for name in names]

    def measure() -> dict[str, Any]:
        def all_of_them() -> None:
            for content in contents:
                fit(decode(content).pixels, SIZE_PX, "crop", (255, 255, 255))

        return {"decode_ms": 1000 * timed(all_of_them) / len(contents)}

    return measure


def make(name: str) -> Measure:
    if name == "decoding":
        return decoding()
    network, _, mode = name.partition(" ")
    torch.manual_seed(0)
    model = build(network, NUM_CLASSES, SIZE_PX).eval()
    memory_format, bf16 = torch.contiguous_format, False
    policy = None if mode == "default" else choose_policy()
    if policy is not None:
        bf16 = policy.dtype == "bfloat16"
        memory_format = policy.memory_format
        with policy.active():
            model = optimize(
                model,
                size_px=SIZE_PX,
                dtype=policy.torch_dtype,
                absorb=policy.kernels == "torch",
                memory_format=memory_format,
            )
    called: Any = model
    if mode == "compiled":
        called = torch.compile(model, options={"freezing": True})
    images = {
        size: torch.randn(size, 3, SIZE_PX, SIZE_PX).contiguous(memory_format=memory_format)
        for size in BATCHES
    }

    def predict(size: int) -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            called(images[size])

    def measure() -> dict[str, Any]:
        return {
            f"batch_{size}_ms": 1000 * timed(partial(predict, size), MEASURED_SECONDS / 2)
            for size in BATCHES
        }

    if policy is not None:  # else torch's default settings: no memory kept
        measure = policy.active()(measure)
    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--contender", help="One of the programs, started by this script.")
    args = parser.parse_args()
    if args.contender:
        serve(make)
        return
    names = [f"{network} {mode}" for network in (*OURS, *PEERS) for mode in MODES]
    contenders = Contenders(["decoding", *names])
    for _ in range(args.rounds):
        contenders.round()
    contenders.end()
    summary = contenders.summary()

    def best(network: str, key: str) -> str:
        there = [f"{network} {mode}" for mode in MODES if f"{network} {mode}" in summary]
        return min(there, key=lambda name: float(summary[name][key]["median"]))

    times = {}
    for size in BATCHES:
        key = f"batch_{size}_ms"
        for network in OURS:
            for peer in PEERS:
                # The peer's best time divided by the network's time when optimized.
                times[f"{network} over {peer}, batch {size}"] = contenders.ratio(
                    key, best(peer, key), f"{network} optimized"
                )
    write_result(
        "inference",
        {
            "contenders": summary,
            "failed": contenders.failed,
            "times_peer": times,
            "hardware": hardware(choose_policy()),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()
