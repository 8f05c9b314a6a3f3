"""`towernet check`: what is in the data, before anything is trained."""

from __future__ import annotations

from collections import Counter
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towernet import choices
from towernet.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from rich.console import Console

    from towernet.data.source import Source
    from towernet.errors import DataError
    from towernet.records.check import Checked, OfClass, Spread
    from towernet.records.leaks import Copy

FEW_IMAGES = 8
_CLASSES_SHOWN, _FILES_SHOWN, _COPIES_SHOWN = 100, 20, 5

_NOTES = {
    "EXIF_ORIENTED": "rotated upright, as their EXIF specifies",
    "EXIF_CORRUPT": "used; their damaged EXIF is ignored",
    "ALPHA": "transparent parts drawn on white",
    "PALETTE": "palette colours converted to RGB",
    "CMYK": "CMYK converted to RGB",
    "SIXTEEN_BIT": "16-bit values, scaled by one range for all images",
    "THIRTY_TWO_BIT": "32-bit values, scaled by one range for all images",
    "FLOAT": "decimal values, scaled by one range for all images",
    "UPPER_BITS": "of which only the upper 8 bits can be read",
    "MORE_CHANNELS": "with channels beside the colours, such as infrared, which are left out",
    "ICC_CONVERTED": "colours converted to sRGB, as their colour profile specifies",
    "ICC_IGNORED": "used; their unusable colour profile is ignored",
    "FIRST_FRAME": "animated or with several pages: the first one is used",
    "REDUCED": "huge images, read at a lower resolution",
    "DECODER_WARNED": "used although the decoder gave a warning",
    "WRONG_EXTENSION": "named as another format, read as their actual format",
    "CONSTANT": "of a single colour",
}


@options.reads_images
def check(
    data: options.Data,
    resize: options.Resize = None,
    workers: options.Workers = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for gallery.png and samples.parquet; default: runs/check-DATA."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    **reading: Any,
) -> None:
    """Decode every file of a data set; report damaged, duplicate and suspicious files.

    Example: towernet check photos.zip
    """
    from json import dumps

    from towernet import files, progress
    from towernet.data import check as data_check
    from towernet.data.class_sizes import require_trainable
    from towernet.data.gallery import gallery
    from towernet.data.source import open_source
    from towernet.data.splits import require_training_images
    from towernet.data.table import USED, write_table
    from towernet.errors import DataError

    screen = progress.screen()
    choices.require_resize(resize)
    num_workers = choices.num_workers(workers)
    source = open_source(data, choices.reading(reading), progress=screen.count)
    if not json:
        typer.echo(source.reading)
    folder = choices.out_folder(out, data, "check", source.name)
    table = data_check.check(source, workers=num_workers, progress=screen.count)
    written = [folder / "samples.parquet"]
    write_table(written[0], table)
    if (table.status == USED).any():
        written.append(folder / "gallery.png")
        with files.atomic(written[1]) as stream:
            gallery(table, source, seed=0).save(stream, "PNG")
    problem: DataError | None = None
    try:
        require_trainable(table, source.options.min_images)
        require_training_images(table)
    except DataError as error:  # raised at the end: the summary shows what to fix
        problem = error
    found = summarise(table, source, written, problem, resize=resize or "crop")
    if json:
        print(dumps(found.model_dump(), indent=2, allow_nan=False))
    else:
        _show(found)
    if problem:
        raise problem


def summarise(
    table: pd.DataFrame,
    source: Source,
    written: Sequence[Path],
    problem: DataError | None,
    *,
    resize: str,
) -> Checked:
    """Return the summary that `check` prints.

    Args:
        table: Every file, from `data.check.check`.
        source: The data set they belong to.
        written: The files with more details.
        problem: Why the data cannot be trained on; None if it can.
        resize: How its images would be made square.
    """
    from towernet.data import copies, leaks
    from towernet.data.ranges import rules_for
    from towernet.data.table import IGNORED, QUARANTINED, STATUSES, USED
    from towernet.records.check import Checked, NearDuplicates, OfClass, QuarantinedFile

    used = table[table.status == USED]
    tied, turned = leaks.tied(table), leaks.turned_across(table)
    quarantined = table[table.status == QUARANTINED]
    notes = Counter(note for row in used.notes for note in row.split(",") if note)
    by_status = {status: Counter(table.class_name[table.status == status]) for status in STATUSES}
    rows = quarantined[["path", "class_name", "reason", "detail"]].itertuples(index=False)
    return Checked(
        data=source.name,
        reading=source.reading,
        found=len(table),
        used=len(used),
        quarantined=len(quarantined),
        ignored=int((table.status == IGNORED).sum()),
        classes={
            name: OfClass(**{status: by_status[status][name] for status in STATUSES})
            for name in source.class_names
        },
        leaks=leaks.leaks(table),
        leaked=leaks.left_out(table),
        given_splits=dict(Counter(split for split in used.given_split if split)),
        width=_spread(used.width),
        height=_spread(used.height),
        modes=dict(Counter(used["mode"]).most_common()),
        formats=dict(Counter(used["format"]).most_common()),
        value_range=rules_for(table, source.options).value_range
        if used[["low", "high"]].any(axis=None)
        else None,
        notes={note: num for note, num in notes.items() if note not in copies.NOTES},
        quarantined_files=tuple(
            QuarantinedFile(path=path, class_name=name, reason=reason, detail=detail)
            for path, name, reason, detail in rows
        ),
        quarantined_reasons=dict(Counter(quarantined.reason).most_common()),
        ignored_reasons=dict(Counter(table.reason[table.status == IGNORED]).most_common()),
        duplicates=int((table.reason == "DUPLICATE").sum()),
        label_conflicts=int((table.reason == "LABEL_CONFLICT").sum()),
        near_duplicates=NearDuplicates(
            clusters=int(tied.cluster.nunique()),
            files=len(tied),
            not_tied=notes[copies.LUMP],
            across_classes=tuple(used.path[used.notes.str.contains(copies.OTHER_CLASS)]),
            groups=leaks.alike(table),
            num_turned_across=len(turned),
            turned_across=turned[: leaks.MAX_LISTED],
        ),
        warnings=tuple(_warnings(table, source, resize, notes)),
        written=tuple(map(str, written)),
        problem=str(problem) if problem else None,
    )


def _spread(values: pd.Series[int]) -> Spread | None:
    from towernet.records.check import Spread

    if not len(values):
        return None
    return Spread(min=int(values.min()), median=float(values.median()), max=int(values.max()))


def _warnings(table: pd.DataFrame, source: Source, resize: str, notes: Counter[str]) -> list[str]:
    from towernet.data import copies, leaks
    from towernet.data.balance import uneven_words
    from towernet.data.left_out import crop_words
    from towernet.data.table import USED
    from towernet.words import shown

    used = table[table.status == USED]
    counts = Counter(used.class_name)
    few = [name for name in source.class_names if 0 < counts[name] < FEW_IMAGES]
    warnings: list[str] = []
    if few:
        names = ", ".join(f"{shown(name)} ({counts[name]})" for name in few[:10])
        more = f" and {len(few) - 10} more classes" if len(few) > 10 else ""
        verb = "has" if len(few) == 1 else "have"
        warnings.append(
            f"{names}{more} {verb} fewer than {FEW_IMAGES} images: their scores are mostly chance"
        )
    if words := uneven_words(counts):
        warnings.append(words)
    if words := leaks.augmented_words(leaks.augmented(table)):
        warnings.append(words)
    if words := _other_ranges(used, source):
        warnings.append(words)
    if words := crop_words(used, resize):
        warnings.append(words)
    if across := notes[copies.OTHER_CLASS]:
        warnings.append(
            f"{across} images look the same as an image of another class: check their labels (their"
            " note in samples.parquet is NEAR_DUPLICATE_OTHER_CLASS)"
        )
    if mirrored := notes[copies.MIRRORED_OTHER_CLASS]:
        warnings.append(
            f"{mirrored} images are mirrored copies of an image of another class: if left and right"
            " matter, train with --no-flip; if not, check their labels (their note in"
            f" samples.parquet is {copies.MIRRORED_OTHER_CLASS})"
        )
    if turned := notes[copies.TURNED_OTHER_CLASS]:
        warnings.append(
            f"{turned} images are turned copies of an image of another class, which is right for"
            " signs and letters (a turned 6 is a 9); otherwise check their labels (their note in"
            f" samples.parquet is {copies.TURNED_OTHER_CLASS})"
        )
    if in_lump := notes[copies.LUMP]:
        warnings.append(
            f"{in_lump} images look so similar that keeping them together would put over 5 % of a"
            " class into one split, so "
            + (
                "they stay in the splits they came with"
                if (used.given_split != "").any()
                else "they are split individually"
            )
            + ", and test images may resemble training images"
        )
    return warnings


def _other_ranges(used: pd.DataFrame, source: Source) -> str:
    """Return a warning if the classes differ in the range of their 16-bit or float values."""
    from towernet.data.ranges import differ, ranges_of_classes
    from towernet.words import shown

    ranges = ranges_of_classes(used)
    if source.options.white_level is not None or not ranges or not differ(ranges.values()):
        return ""
    classes_of: dict[str, list[str]] = {}
    for name, values in sorted(ranges.items(), key=lambda item: item[1][1]):
        classes_of.setdefault(_range_words(values), []).append(shown(name))
    found = "; ".join(
        f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}: {words}"
        for words, names in classes_of.items()
    )
    return (
        f"the classes differ in the range of their values ({found}): if other cameras or settings"
        " are the reason, a network learns those; all are scaled alike (--white-level sets how)"
    )


def _range_words(values: tuple[float, float]) -> str:
    from towernet.data.deep import USUAL_BITS

    low, high = values
    bits = next((f" ({bits} bits)" for bits in USUAL_BITS if (low, high) == (0, 2**bits - 1)), "")
    return f"{low:,g} … {high:,g}{bits}" if high < 1000 else f"{low:,.0f} … {high:,.0f}{bits}"


def _show(found: Checked) -> None:
    """Print the summary as text."""
    from rich.console import Console
    from rich.text import Text

    from towernet.data.copies import ACROSS_SPLITS
    from towernet.data.leaks import leak_words
    from towernet.words import shown

    console = Console(highlight=False, soft_wrap=True)

    def line(label: str, words: str, style: str = "") -> None:
        console.print(Text.assemble((f"{label:<17}", "bold"), (words, style)))

    def counts(of: dict[str, int]) -> str:
        return " · ".join(f"{shown(name)} {num:,}" for name, num in of.items())

    def listed(copies: Sequence[Copy], num: int) -> None:
        for copy in copies[:_COPIES_SHOWN]:
            console.print(Text(f"  {shown(copy.path)}: {shown(copy.detail)}"))
        if num > _COPIES_SHOWN:
            console.print(f"  … and {num - _COPIES_SHOWN:,} more (--json lists up to 1,000)")

    if found.leaks:
        for label, words in zip(
            chain(["leaks"], repeat("")), leak_words(found.leaks), strict=False
        ):
            line(label, words, "yellow")
        listed(found.leaked, found.ignored_reasons[ACROSS_SPLITS])
    elif found.given_splits:
        line("leaks", "none: no image of a given split is a copy of one in another split")
    console.print(
        f"{found.found:,} files found: {found.used:,} used,"
        f" {found.quarantined:,} quarantined, {found.ignored:,} ignored\n"
    )
    _show_classes(console, found.classes)
    if found.given_splits:
        line("given splits", counts(found.given_splits))
    for label, spread in (("width", found.width), ("height", found.height)):
        if spread is not None:
            line(
                label,
                f"{spread.min:,} … {spread.max:,} pixels, median {spread.median:,.0f}",
            )
    for label, of in (("formats", found.formats), ("modes", found.modes)):
        if of:
            line(label, counts(of))
    if found.value_range:
        line("values", f"{_range_words(found.value_range)} become black … white (--white-level)")
    sizes = {name: of.used for name, of in found.classes.items()}
    if sizes and min(sizes.values()):
        largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
        line(
            "imbalance",
            f"{sizes[largest] / sizes[smallest]:.1f} × between the largest class,"
            f" {shown(largest)} ({sizes[largest]:,}), and the smallest,"
            f" {shown(smallest)} ({sizes[smallest]:,})"
            if sizes[largest] > sizes[smallest]
            else "none",
        )
    near, copies, conflicts = found.near_duplicates, found.duplicates, found.label_conflicts
    line("duplicates", f"{copies:,} (copies of another file: ignored)" if copies else "none")
    line(
        "near duplicates",
        f"{near.files:,} (clusters: {near.clusters:,}; each is kept within one split)"
        if near.files
        else "none",
    )
    listed([copy for group in near.groups for copy in group[1:]], near.files - near.clusters)
    if num := near.num_turned_across:
        line("turned copies", f"{num:,} (of images of another class: used, not kept together)")
        listed(near.turned_across, num)
    line(
        "label conflicts",
        f"{conflicts:,} (identical files in two classes: quarantined)" if conflicts else "none",
    )
    for label, (note, num) in zip(chain(["noted"], repeat("")), found.notes.items(), strict=False):
        line(label, f"{num:,} {_NOTES[note]}")
    if found.ignored_reasons:
        line("ignored", counts(found.ignored_reasons))
    bad = found.quarantined_files
    if bad:
        line("quarantined", f"{counts(found.quarantined_reasons)} (the files are left unchanged)")
        for row in bad[:_FILES_SHOWN]:
            words = f"  {row.reason:<15}{shown(row.path)}: {shown(row.detail)}"
            console.print(Text(words))
        if len(bad) > _FILES_SHOWN:
            console.print(f"  … and {len(bad) - _FILES_SHOWN:,} more, all in samples.parquet")
    for warning in found.warnings:
        line("warning", warning, "yellow")
    console.print()
    line("written", ", ".join(shown(path) for path in found.written))


def _show_classes(console: Console, classes: dict[str, OfClass]) -> None:
    from rich.table import Table
    from rich.text import Text

    from towernet.words import shown

    headers = ["used"] + [
        status
        for status in ("quarantined", "ignored")
        if any(getattr(of, status) for of in classes.values())
    ]
    rows = Table(box=None, pad_edge=False, header_style="bold")
    rows.add_column("class", overflow="fold")
    for header in headers:
        rows.add_column(header, justify="right", no_wrap=True)
    for name, of in list(classes.items())[:_CLASSES_SHOWN]:
        rows.add_row(Text(shown(name)), *(f"{getattr(of, header):,}" for header in headers))
    console.print(rows)
    if len(classes) > _CLASSES_SHOWN:
        console.print(f"… and {len(classes) - _CLASSES_SHOWN:,} more classes (--json lists all)")
    console.print()
