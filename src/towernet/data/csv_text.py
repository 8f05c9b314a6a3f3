"""The text of a table that lists images: its encoding, its lines, and its cells.

Spreadsheets write tables in many ways. Nothing is assumed that the file contradicts: a file in
UTF-8 is read as that, and another encoding is recognised from what all of it reads as.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from towernet.data import encodings
from towernet.data.encodings import ANSI, AS_BEFORE
from towernet.errors import DataError
from towernet.words import shown

DELIMITERS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
SPACES = " "  # between a path and a label, in a list such as those of ImageNet
MAX_LINE = 1_000_000  # characters
MAX_ROWS = 10_000_000
_CHUNK_BYTES = 2**20
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Bytes that are in no character of two bytes.
_CELL_ENDS = re.compile(rb"[,;\t\r\n\"/]+")
_WORD_BYTES = 200


class Encoded(NamedTuple):
    """How a file is encoded, and a clause about it if that was not certain."""

    codec: str
    errors: str = "strict"
    note: str = ""


def encoding_of(path: Path, encoding: str | None) -> Encoded:
    """Return how a table is encoded.

    Args:
        path: The table.
        encoding: What the user gave, if not None.

    Raises:
        DataError: it is not in this encoding, or in none that is recognised.
        UnknownNameError: there is no such encoding.
    """
    if encoding == AS_BEFORE:
        return Encoded("utf-8-sig", "surrogateescape")
    with path.open("rb") as stream:
        head = stream.read(2**16)
    by_mark = next((codec for mark, codec in _BOMS if head.startswith(mark)), None)
    if encoding is not None:
        codec = encodings.known_codec(encoding, of_names=False)
        if by_mark and by_mark[:6].startswith(codec[:6]):
            codec = by_mark
        if not _is_readable(path, codec):
            raise DataError(
                f"{shown(str(path))} is not in {encodings.said(codec)}; give another --encoding"
            )
        return Encoded(codec, note=f"read as {encodings.said(codec)}")
    wide = by_mark if by_mark != "utf-8-sig" else None
    if wide := wide or _without_mark(head):
        if not _is_readable(path, wide):
            raise DataError(
                f"{shown(str(path))} begins as UTF-{wide[4:6]} and is not; save it as UTF-8"
            )
        return Encoded(wide, note=f"read as UTF-{wide[4:6]}")
    if _is_readable(path, "utf-8-sig"):
        return Encoded("utf-8-sig")
    if b"\0" in head:
        raise DataError(f"{shown(str(path))} is not text; save the table as a CSV in UTF-8")
    return _recognised(path)


def _without_mark(head: bytes) -> str | None:
    """Recognise UTF-16 without a mark: each second byte of digits, letters and commas is 0."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) < max(2, len(head) // 20) or min(even, odd) * 10 > max(even, odd):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _is_readable(path: Path, codec: str) -> bool:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except (UnicodeError, ValueError):
        return False
    return True


def _recognised(path: Path) -> Encoded:
    words = _words(path)
    excluded: set[str] = set()
    while found := encodings.guess(words, ANSI, excluded=excluded):
        if not _is_readable(path, found.codec):
            excluded.add(found.codec)
            continue
        if not found.plausible:
            break
        if found.others:
            raise DataError(
                f"{shown(str(path))} is not in UTF-8, and"
                f" {encodings.candidates_words(found, _unclear(words))} are about as likely; choose"
                f" one, for example with --encoding {found.codec}, or save it as UTF-8"
            )
        texts = encodings.decoded(_unclear(words), found.codec) or ()
        return Encoded(
            found.codec,
            note=f"it is not in UTF-8 and was read as {encodings.said(found.codec)}:"
            f" {encodings.examples(texts)}; if that is wrong, give --encoding",
        )
    first = shown(_unclear(words)[0].decode("ascii", "surrogateescape")[:60])
    raise DataError(
        f"{shown(str(path))} is not in UTF-8 or any encoding that towernet recognises (such as in"
        f" '{first}'); save it as UTF-8, or give its encoding with --encoding"
    )


def _unclear(words: Sequence[bytes]) -> list[bytes]:
    return [word for word in words if not word.isascii()]


def _words(path: Path) -> list[bytes]:
    """Return distinct cells and parts of paths, those that are not ASCII first."""
    unclear: dict[bytes, None] = {}
    plain: dict[bytes, None] = {}
    rest = b""
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            *cells, rest = _CELL_ENDS.split(rest + chunk)
            rest = rest[-_WORD_BYTES:]
            for cell in cells:
                kept = plain if cell.isascii() else unclear
                if len(kept) < 1000:
                    kept[cell.strip()[-_WORD_BYTES:] if cell.isascii() else cell.strip()] = None
    if not rest.isascii():
        unclear[rest.strip()] = None
    short = [word for word in unclear if len(word) <= _WORD_BYTES]
    return [*(short or [word[:_WORD_BYTES] for word in [*unclear][:1]]), *[*plain][:200]]


class Lines:
    """The lines of a table, without comments and `sep=` before its header line.

    Args:
        path: The table.
        encoded: How it is encoded.
        verbatim: Keep comments and `sep=`.
    """

    def __init__(self, path: Path, encoded: Encoded, *, verbatim: bool = False) -> None:
        self.path = path
        self.number = 0
        self.delimiter = ""  # as `sep=` says
        self.num_comments = 0
        self._encoded = encoded
        self._verbatim = verbatim

    def __iter__(self) -> Iterator[str]:
        self.number = self.num_comments = 0
        is_before = not self._verbatim
        # newline="" ends a line at \r, \n or both, as csv.reader wants it
        with self.path.open(
            encoding=self._encoded.codec, errors=self._encoded.errors, newline=""
        ) as stream:
            try:
                while line := stream.readline(MAX_LINE):
                    self.number += 1
                    if len(line) == MAX_LINE and not line.endswith(("\r", "\n")):
                        raise DataError(
                            f"line {self.number:,} of {shown(str(self.path))} is longer than"
                            f" {MAX_LINE:,} characters; is it a table with one row per image?"
                        )
                    if is_before and line.startswith("#"):
                        self.num_comments += 1
                    elif is_before and line.lower().startswith("sep=") and len(line.strip()) <= 5:
                        self.delimiter = line[4:5].strip("\r\n") or "\t"
                    elif is_before and not line.strip():
                        pass
                    else:
                        is_before = False
                        yield line
            except UnicodeError as error:
                raise DataError(
                    f"line {self.number + 1:,} of {shown(str(self.path))} is not in"
                    f" {encodings.said(self._encoded.codec)}; save it as UTF-8, or give its"
                    " encoding with --encoding"
                ) from error


def records(
    lines: Lines, delimiter: str, *, verbatim: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each record that has any, with its last line.

    Raises:
        DataError: naming the line that cannot be read.
    """
    if delimiter == SPACES:
        yield from ((lines.number, line.rsplit(None, 1)) for line in lines if line.strip())
        return
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=not verbatim)
    try:
        for num, cells in enumerate(reader):
            if num > MAX_ROWS:
                raise DataError(
                    f"{shown(str(lines.path))} has more than {MAX_ROWS:,} rows; split it"
                )
            if cells and (verbatim or any(cell.strip() for cell in cells)):
                yield lines.number, cells
    except csv.Error as error:
        raise DataError(
            f"line {lines.number:,} of {shown(str(lines.path))} cannot be read ({error}); fix that"
            " line"
        ) from error
