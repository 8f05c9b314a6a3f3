"""Are copies found, is nothing else taken for one, and what does the search cost?

python benchmarks/leaks.py --sheet pairs.png
python benchmarks/leaks.py --only planted

1. Of the real pictures of three sets, all pairs of turned or mirrored copies: named, checked at a
   higher resolution, and drawn on a sheet to be looked at.
2. A folder of these pictures with its own splits, into whose training images 50 copies of test
   images of each kind are planted: how many `towernet check` leaves out, and what else it does.
3. `towernet check` of 10,000 crops of them, at the commit before this search and at this one, in
   turns: seconds on the clock and of the processors.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from _commits import checked_out, git
from _common import data_set, write_result
from towernet.data import duplicates
from towernet.data.connected import components
from towernet.data.decode import decode
from towernet.data.examine import Examined, examine
from towernet.data.source import open_source
from towernet.data.turns import CODES, UPRIGHT, back, then, turned

SETS = ("caltech16", "caltech16b", "sign-digits")
BEFORE = "4844923"
NUM_PLANTED = 50  # of each kind
NUM_TIMED = 10_000
CHECKED_PX, MAX_DIFFERENCE = 96, 8.0  # grey levels, in colour: far below different pictures
TEST_SHARE, VALIDATION_SHARE = 0.25, 0.15
SPLITS = ("train", "val", "test")
Real = tuple[str, Path, Examined]  # its name as set/class/file, the file, what was found in it


def real_pictures() -> list[Real]:
    """Return every picture of the sets."""
    return [
        (f"{name}/{found.class_name}/{Path(found.path).name}", found.file, examine(found.file))
        for name in SETS
        for found in open_source(str(data_set(f"{name}.zip"))).files
    ]


def search(real: list[Real], classes: list[str]) -> duplicates.NearDuplicates:
    """Return the near duplicates among real pictures."""
    grey = np.array([np.frombuffer(examined.thumbnail, np.uint8) for _, _, examined in real])
    return duplicates.find(
        np.array([int(examined.pixel_id[:16], 16) for _, _, examined in real], np.uint64),
        lambda some: grey[some],
        np.unique(classes, return_inverse=True)[1],
    )


def rgb(file: Path) -> Image.Image:
    """Return the decoded picture."""
    return Image.fromarray(decode(file.read_bytes()).pixels)


def added_pairs(real: list[Real]) -> list[dict[str, Any]]:
    """Return every pair that the search before would not have found."""
    classes = ["/".join(name.split("/")[1:-1]) for name, _, _ in real]
    found = search(real, classes)
    pairs = [tuple(pair) for pair in found.turned_across.tolist()]
    signs, duplicates._SIGNS = duplicates._SIGNS, (UPRIGHT,)  # as before: by one hash alone
    before = search(real, classes).clusters
    duplicates._SIGNS = signs
    for members in duplicates.groups(np.where(found.clusters >= 0, found.clusters * 8, -1)):
        for turn in {*found.turns[members].tolist()}:
            upright = members[found.turns[members] == turn]
            alone = np.where(before[upright] >= 0, before[upright], -1 - upright)
            for other in np.unique(alone)[1:]:
                second, first = upright[alone == other][0], upright[alone != other][0]
                pairs.append((int(second), int(first), UPRIGHT))
    for members in duplicates.groups(found.clusters):
        for turn in sorted({*found.turns[members].tolist()} - {found.turns[members[0]]}):
            first = members[0]
            second = members[found.turns[members] == turn][0]
            relation = then(back(int(found.turns[first])), turn)
            pairs.append((int(second), int(first), relation))
    rows = []
    for second, first, turn in pairs:
        square = [
            np.asarray(rgb(real[i][1]).resize((CHECKED_PX, CHECKED_PX)), np.float64)
            for i in (second, first)
        ]
        difference = float(np.abs(square[0] - turned(square[1][None], turn)[0]).mean())
        rows.append(
            {
                "first": real[first][0],
                "second": real[second][0],
                "how": CODES[turn],
                "difference": round(difference, 2),
                "is_copy": difference <= MAX_DIFFERENCE,
            }
        )
    return rows


def draw_sheet(rows: list[dict[str, Any]], real: list[Real], path: Path) -> None:
    """Draw all pairs side by side, to be looked at."""
    files, side, columns = {name: file for name, file, _ in real}, 72, 10
    sheet = Image.new("RGB", (columns * (2 * side + 8), -(-len(rows) // columns) * (side + 16)))
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        x, y = number % columns * (2 * side + 8), number // columns * (side + 16)
        for place, name in enumerate((row["first"], row["second"])):
            sheet.paste(rgb(files[name]).resize((side, side)), (x + place * side, y))
        pen.text((x, y + side), f"{row['how'][:12]} {row['difference']}", fill="white")
    sheet.save(path)


# --- planted leaks


def saved_again(image: Image.Image) -> bytes:
    """Return a picture at 80 % of its size, as JPEG of quality 60."""
    stream = io.BytesIO()
    size = (round(image.width * 0.8), round(image.height * 0.8))
    image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=60)
    return stream.getvalue()


def as_format(image: Image.Image, kind: str) -> bytes:
    """Return a picture in a lossless format."""
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


TRANSPOSED = {
    "turned by 90°": Image.Transpose.ROTATE_270,
    "turned by 180°": Image.Transpose.ROTATE_180,
    "turned by 270°": Image.Transpose.ROTATE_90,
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
}
KINDS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "same bytes": (".jpg", lambda file: file.read_bytes()),
    "same pixels, another format": (".bmp", lambda file: as_format(rgb(file), "BMP")),
    "near: JPEG 60 at 80 %": (".jpg", lambda file: saved_again(rgb(file))),
}


def transposed(how: Image.Transpose, *, again: bool) -> Callable[[Path], bytes]:
    """Return what makes a turned or mirrored copy, lossless or saved again."""

    def copied(file: Path) -> bytes:
        image = rgb(file).transpose(how)
        return saved_again(image) if again else as_format(image, "PNG")

    return copied


for words, how in TRANSPOSED.items():
    KINDS[words] = (".png", transposed(how, again=False))
    KINDS[f"{words}, JPEG 60 at 80 %"] = (".jpg", transposed(how, again=True))


def draw(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def plant(real: list[Real], folder: Path) -> dict[str, str]:
    """Write the pictures into given splits, and copies of test images into training.

    Pictures that the sets share, or have several times, are left out: they are leaks of their own.

    Returns:
        The kind of each planted copy, by its path.
    """
    found = search(real, ["all"] * len(real))
    alike = components(len(real), np.stack([np.arange(len(real)), found.clusters], axis=1)[
        found.clusters >= 0
    ])  # fmt: skip
    first = np.unique(alike, return_index=True)[1]
    single = [real[i] for i in first[np.bincount(alike)[alike[first]] == 1] if not found.in_lump[i]]
    of_test = []
    for name, file, _ in single:
        set_name, class_name, picture = name.split("/")
        part = draw(name)
        split = SPLITS[2 if part < TEST_SHARE else 1 if part < TEST_SHARE + VALIDATION_SHARE else 0]
        to = folder / split / f"{set_name}-{class_name}" / picture
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)
        if split == "test":
            of_test.append((to.parent.name, file))
    planted: dict[str, str] = {}
    of_test.sort(key=lambda row: draw(f"plant {row[0]} {row[1].name}"))
    chosen = iter(of_test)
    for kind, (suffix, copied) in KINDS.items():
        for number in range(NUM_PLANTED):
            class_name, file = next(chosen)
            # Names before and after those of the test split: the split decides which one stays.
            name = f"{'az'[number % 2]}-{len(planted):04d}{suffix}"
            to = folder / "train" / class_name / name
            to.write_bytes(copied(file))
            planted[to.relative_to(folder).as_posix()] = kind
    return planted


def planted_result(real: list[Real]) -> dict[str, Any]:
    """Return how many planted copies of each kind `towernet check` leaves out."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "planted"
        planted = plant(real, folder)
        words = [sys.executable, "-m", "towernet", "check", str(folder), "--json", "--workers", "2"]
        words += ["--out", str(Path(temporary) / "out")]
        environment = os.environ | {"TOWERNET_CACHE": str(Path(temporary) / "cache")}
        printed = subprocess.run(words, env=environment, capture_output=True, check=True).stdout
        seen = json.loads(printed)
        left_out = {copy["path"] for copy in seen["leaked"]}
        return {
            "num_pictures": seen["found"] - len(planted),
            "num_planted": len(planted),
            "found": {
                kind: sum(path in left_out for path, of in planted.items() if of == kind)
                / NUM_PLANTED
                for kind in KINDS
            },
            "missed": sorted(planted.keys() - left_out),
            "left_out_although_no_copy": [
                {"path": copy["path"], "detail": copy["detail"]}
                for copy in seen["leaked"]
                if copy["path"] not in planted
            ],
            "as_said": seen["leaks"],
        }


# --- time


def write_crops(real: list[Real], folder: Path) -> None:
    """Write 10,000 different crops of the pictures, as JPEG, in 32 classes."""
    for number in range(NUM_TIMED):
        image = rgb(real[number % len(real)][1])
        chance = np.random.default_rng(number)
        width, height = (round(side * chance.uniform(0.6, 0.9)) for side in image.size)
        left, top = (int(chance.integers(0, rest + 1)) for rest in (
            image.width - width, image.height - height,
        ))  # fmt: skip
        image = image.crop((left, top, left + width, top + height))
        image.thumbnail((256, 256))
        to = folder / f"class{number % 32:02d}" / f"{number:05d}.jpg"
        to.parent.mkdir(parents=True, exist_ok=True)
        image.save(to, quality=90)


def timed_result(real: list[Real], rounds: int) -> dict[str, Any]:
    """Return the times of `check` at the commit before and at this one, in turns."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    cpu_seconds: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_crops(real, folder / "crops")
        with (
            checked_out("old", BEFORE, folder, folder) as old,
            checked_out("new", git("rev-parse", "HEAD"), folder, folder) as new,
        ):
            for number in range(rounds):
                for commit in (old, new) if number % 2 == 0 else (new, old):
                    shutil.rmtree(commit.cache, ignore_errors=True)
                    words = ["check", str(folder / "crops"), "--workers", "2", "--out", "out"]
                    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
                    subprocess.run(
                        [sys.executable, "-m", "towernet", *words],
                        cwd=folder, env=commit.environment(), capture_output=True, check=True,
                    )  # fmt: skip
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    seconds[commit.role].append(round(time.monotonic() - began, 2))
                    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
                    cpu_seconds[commit.role].append(round(spent, 2))
    return {
        "num_pictures": NUM_TIMED,
        "before": BEFORE,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        **{
            f"{name}_times_as_long": round(
                statistics.median(of["new"]) / statistics.median(of["old"]), 3
            )
            for name, of in (("seconds", seconds), ("cpu_seconds", cpu_seconds))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheet", type=Path, help="Draw the pairs into this picture.")
    parser.add_argument("--rounds", type=int, default=5, help="Of the times.")
    parser.add_argument("--only", choices=("pairs", "planted", "time"), help="Writes no result.")
    args = parser.parse_args()
    real = real_pictures()
    parts: dict[str, Any] = {}
    if args.only in (None, "pairs"):
        rows = added_pairs(real)
        if args.sheet:
            draw_sheet(rows, real, args.sheet)
        parts["pairs"] = {
            "num_pictures": len(real),
            "num_pairs": len(rows),
            "by_kind": Counter(row["how"] for row in rows),
            "false": [row for row in rows if not row["is_copy"]],
            "pairs": [[row["first"], row["second"], row["difference"]] for row in rows],
        }
    if args.only in (None, "planted"):
        parts["planted"] = planted_result(real)
    if args.only in (None, "time"):
        parts["time"] = timed_result(real, args.rounds)
    if args.only is None:
        write_result("leaks", parts)
    else:
        print(json.dumps(parts, indent=2)[:4000])


if __name__ == "__main__":
    main()
