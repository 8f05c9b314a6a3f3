"""Does a run that an earlier commit started end with the same bytes here, and answer as it did?

python benchmarks/resume_before.py 4844923
python benchmarks/resume_before.py 4844923 --only train

Each case is run by the old commit to its end; then again by the old commit, interrupted, and
finished by the new one. The images are those whose reading changed: 16-bit values, colour
profiles, copies across given splits, mirrored copies, names in Windows' encodings, links. Then both
commits evaluate the old commit's run and predict with it. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from _commits import OUT, Case, CaseFault, Commit, checked_out, finish, git, interrupt, this_machine
from _common import write_result
from _same_files import compare_folders
from towernet.errors import INTERRUPTED

MIN_COMMON = 0.95
CLASSES = ("ant", "bée", "cat")
FEW = "--epochs 1 --size 32 --batch-size 4 --threads 1 --workers 1"
CASES = (
    Case(
        "train", f"train photos --model towernet_patch {FEW} --out {OUT}", f"train --resume {OUT}"
    ),
    Case(
        "compare",
        f"compare photos --models towernet_patch,shufflenet_v2_x0_5 {FEW} --out {OUT}",
        f"compare photos --models towernet_patch,shufflenet_v2_x0_5 {FEW} --out {OUT}",
    ),
    Case(
        "train-zip",
        f"train names_archive --model towernet_patch {FEW} --out {OUT}",
        f"train --resume {OUT}",
    ),
    Case(
        "compare-folders",
        f"compare named_as_splits --models towernet_patch {FEW} --out {OUT}",
        f"compare named_as_splits --models towernet_patch {FEW} --out {OUT}",
    ),
)


def picture(kind: int, number: int) -> Image.Image:
    rng = np.random.default_rng([kind, number])
    coarse = rng.integers(0, 200, (6, 8, 3), dtype=np.uint8)
    coarse[..., kind] += 55
    return Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)


def make_images(folder: Path) -> None:
    """Make the three data sets of the cases."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for kind, name in enumerate(CLASSES):
        for split, start in (("train", 0), ("val", 30), ("test", 40)):
            place = folder / "photos" / split / name
            place.mkdir(parents=True)
            for number in range(start, start + 10 + 20 * (split == "train")):
                image = picture(kind, number)
                if number % 5 == 1:  # a 16-bit image, some with one bright pixel
                    grey = np.asarray(image.convert("L")).astype(np.uint16) * 12
                    grey[0, 0] = 4200 if number % 2 else grey[0, 0]
                    Image.fromarray(grey).save(place / f"{number}.png")
                else:
                    image.save(place / f"{number}.png", icc_profile=profile * (number % 5 == 2))
        copied = folder / "photos" / "val" / name / "copied.png"
        shutil.copy(folder / "photos" / "train" / name / "0.png", copied)
        turned = Image.open(folder / "photos" / "train" / name / "3.png").transpose(
            Image.Transpose.ROTATE_90
        )
        turned.save(folder / "photos" / "train" / name / "turned.png")
        (folder / "photos" / "train" / name / "link.png").symlink_to("0.png")
    for kind, name in enumerate(("Training", "Testing")):
        for number in range(60):
            place = folder / "named_as_splits" / name / CLASSES[number % 3]
            place.mkdir(parents=True, exist_ok=True)
            picture(kind, number).save(place / f"{number}.png")
    with zipfile.ZipFile(folder / "names_archive", "w") as archive:
        for kind, name in enumerate(("муравей", "дерево", "камера")):
            for number in range(20):
                stream = io.BytesIO()
                picture(kind, number).save(stream, "PNG")
                info = _Raw(f"{kind}/{number}.png")
                info.raw = f"{name}/{number}.png".encode("cp866")
                archive.writestr(info, stream.getvalue())


class _Raw(zipfile.ZipInfo):
    """An entry whose name is written in any encoding, without saying which."""

    raw = b""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw, self.flag_bits & ~0x800


def compared(case: Case, images: Path, old: Commit, new: Commit) -> list[str]:
    """Run a case as described above; return the differences."""
    whole, resumed = (commit.outputs / case.name for commit in (old, new))
    try:
        for folder in (whole, resumed):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(images, folder, symlinks=True)
        finish(case.command, old, whole)
        interrupt(case.command, old, resumed)
        finish(case.again, new, resumed)
        found = list(compare_folders(whole / OUT, resumed / OUT).differences)
        return found + _different_answers(case, old, new, whole)
    except CaseFault as fault:
        return [str(fault)]


def _different_answers(case: Case, old: Commit, new: Commit, whole: Path) -> list[str]:
    """Compare the answers of both commits for the same images.

    Which of two copies an evaluation uses has changed, so only the images that both use count.
    """
    data, found = case.command.split()[1], []
    commands = [["evaluate", OUT, data, "--split", "all"]]
    if Path(whole / data).is_dir():
        files = sorted(str(path.relative_to(whole)) for path in (whole / data).rglob("*.png"))
        commands.append(["predict", OUT, *files])
    for words in commands:
        before, after = (_answers(words, commit, whole) for commit in (old, new))
        common = before.keys() & after.keys()
        if len(common) < MIN_COMMON * len(before):
            found.append(f"towernet {words[0]}: only {len(common)} of {len(before)} images agree")
        different = [name for name in sorted(common) if before[name] != after[name]]
        found += [f"towernet {words[0]}: {name} is answered differently" for name in different[:1]]
    return found


def _answers(words: list[str], commit: Commit, folder: Path) -> dict[str, object]:
    """Return the answer for each image."""
    table = folder / f"{commit.role}.csv"
    is_evaluation = words[0] == "evaluate"
    options = ["--predictions", str(table)] if is_evaluation else ["--json"]
    done = subprocess.run(
        [sys.executable, "-m", "towernet", *words, *options],
        cwd=folder, env=commit.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise CaseFault(f"towernet {words[0]} by the {commit.role} commit: {done.stderr[-300:]}")
    if is_evaluation:
        rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
        return {row["path"]: row for row in rows}
    return {answer["path"]: answer for answer in json.loads(done.stdout)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", help="The commit that started the runs.")
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES])
    args = parser.parse_args()
    shas = {role: git("rev-parse", name) for role, name in (("old", args.old), ("new", "HEAD"))}
    rows = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="resume-before-")))
        old, new = (
            stack.enter_context(checked_out(role, sha, folder, folder / "outputs"))
            for role, sha in shas.items()
        )
        images = folder / "images"
        images.mkdir()
        make_images(images)
        for case in CASES:
            if not args.only or case.name in args.only:
                rows[case.name] = compared(case, images, old, new)
                print(f"{case.name:<20}{'; '.join(rows[case.name]) or 'equal'}")
    if not args.only:
        write_result(
            "resume_before", {"old": shas["old"], "new": shas["new"], "differences": rows,
                              "machine": this_machine()},
        )  # fmt: skip
    return int(any(rows.values()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
