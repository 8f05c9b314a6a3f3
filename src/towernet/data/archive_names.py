"""The names in an archive that does not say how they are encoded.

Zips made on Windows have names in the code page of the country, without a word about it. What all
of them read as decides; in a character of two bytes, the second can be 0x5C, which is no separator.
An archive is read once to see whether there are such names, and once more with their encoding.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from towernet.data import encodings
from towernet.data.encodings import AS_BEFORE
from towernet.errors import DataError
from towernet.words import shown

_MAX_SHORT_BYTES = 12  # of a name that may be UTF-8 by chance
_MAX_KEPT_BYTES = 2**20  # of names, to recognise the encoding


class Undecodable(Exception):
    """A name is not in the encoding that the others were recognised as."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


class Names:
    """Decodes names; at first those without an encoding get a placeholder and are collected.

    Args:
        encoding: What the user gave: a name of an encoding, None to recognise it, or `AS_BEFORE`:
            code page 437 in a zip, the bytes as they are in a tar.
        codec: The encoding, once it is known.
        path: The archive, for messages.

    Raises:
        UnknownNameError: there is no such encoding.
    """

    def __init__(
        self, encoding: str | None = None, codec: str = "", path: Path | None = None
    ) -> None:
        self.encoding = encoding
        self._path = path
        if encoding not in (None, AS_BEFORE):
            self.encoding = encodings.known_codec(str(encoding), of_names=True)
        self.codec = codec
        self.are_undecided = False
        self._folders: dict[bytes, None] = {}
        self._files: dict[bytes, None] = {}
        self._room = _MAX_KEPT_BYTES
        self._utf8: dict[bytes, None] = {}  # parts of folders that may be so by chance
        self._not_in_codec: dict[bytes, None] = {}
        self._text_of: dict[bytes, str] = {}
        self._raw_of: dict[str, bytes] = {}

    @property
    def key(self) -> str:
        """What the names depend on, for the name of a cache folder."""
        return "" if self.encoding is None else f"-{self.encoding.replace(' ', '_')}"

    def of_zip(self, raw: bytes) -> str:
        """Decode a name that is not declared as UTF-8."""
        if self.encoding is None and not self.codec and not raw.isascii() and _is_utf8(raw):
            for part in raw.split(b"/")[:-1]:
                if not part.isascii() and len(part) <= _MAX_SHORT_BYTES and len(self._utf8) < 1000:
                    self._utf8[part] = None
        return self._decode(raw, placeholder=("cp437", "strict"))

    def of_tar(self, raw: bytes) -> str:
        """Decode a name; whatever a tar contains is UTF-8 on most systems."""
        return self._decode(raw, placeholder=("utf-8", "surrogateescape"))

    def _decode(self, raw: bytes, placeholder: tuple[str, str]) -> str:
        if raw.isascii():
            if self.encoding != AS_BEFORE and not self.codec:
                self._keep(raw)
            return raw.decode()
        if self.codec:
            return self._decoded(raw)
        as_given = self.encoding not in (None, AS_BEFORE)
        try:
            if not as_given:
                return raw.decode()
        except UnicodeDecodeError:
            pass
        if self.encoding != AS_BEFORE:
            self.are_undecided = True
            self._keep(raw)
        return raw.decode(*placeholder)

    def _keep(self, raw: bytes) -> None:
        folders, _, file = raw.rpartition(b"/")
        parts = [(part, self._folders) for part in folders.split(b"/")]
        for part, kept in [*parts, (file, self._files)]:
            is_wanted = part and not (kept is self._files and part.isascii())
            if is_wanted and part not in kept and self._room >= len(part):
                kept[part] = None
                self._room -= len(part)

    def _decoded(self, raw: bytes) -> str:
        # No encoding has a '/' within a character.
        folders, slash, file = raw.rpartition(b"/")
        if not slash:
            return self._part(file)
        if folders not in self._text_of:
            parts = [(part, self._part(part)) for part in folders.split(b"/")]
            for part, text in parts:
                first = self._raw_of.setdefault(text, part)
                if first != part and not (_is_utf8(part) or _is_utf8(first)):
                    raise DataError(
                        f"{self._path} contains the folders {_bytes_of(first)} and"
                        f" {_bytes_of(part)}, which are both {shown(text)} in"
                        f" {encodings.said(self.codec)}; give another --encoding, or unpack the"
                        " archive and pass the folder"
                    )
            if len(self._text_of) >= 2**16:
                self._text_of.clear()
            self._text_of[folders] = "/".join(text for _, text in parts)
        return f"{self._text_of[folders]}/{self._part(file)}"

    def _part(self, raw: bytes) -> str:
        if raw.isascii():
            return raw.decode()
        if self.encoding is None and _is_utf8(raw) and not encodings.is_likelier(self.codec, raw):
            return raw.decode()
        try:
            return raw.decode(self.codec)
        except UnicodeError as error:
            if self.encoding is not None and _is_utf8(raw):
                self._not_in_codec[raw] = None
                return raw.decode()
            raise Undecodable(raw) from error

    def decided(self, path: Path, excluded: Iterable[str], *, is_tar: bool) -> Names | None:
        """Return how all names are decoded; None for those of a tar that nothing fits.

        Raises:
            DataError: several encodings are about as likely, or none is.
        """
        if self.encoding is not None:
            return Names(self.encoding, self.encoding, path)
        folders = [raw for raw in self._folders if raw.isascii() or not _is_utf8(raw)]
        files = [raw for raw in self._files if not _is_utf8(raw)]
        in_folders = any(not raw.isascii() for raw in folders)
        usual = encodings.ANSI if is_tar else encodings.OEM
        found = encodings.guess(
            folders if in_folders else files,
            usual,
            more=files if in_folders else [raw for raw in folders if raw.isascii()],
            excluded=frozenset(excluded),
        )
        if found and found.plausible and not found.others:
            return Names(None, found.codec, path)
        if is_tar:
            return None
        if not in_folders and not any(b"\\" in raw for raw in files):
            return Names(None, "cp437", path)  # the classes are the same
        unclear = [raw for raw in (folders if in_folders else files) if not raw.isascii()]
        if found and found.plausible:
            raise DataError(
                f"the names in {path} do not say how they are encoded, and"
                f" {encodings.candidates_words(found, unclear)} are about as likely; choose one,"
                f" for example with --encoding {found.codec}"
            )
        raise DataError(
            f"the names in {path} do not say how they are encoded, and they read as nothing known"
            f" (the first is {_bytes_of(unclear[0])}); give their encoding with --encoding, or"
            " unpack the archive and pass the folder"
        )

    def note(self, undecided: Names) -> str:
        """Return how the names were read, as a clause with examples."""
        raws = undecided._folders
        if all(raw.isascii() for raw in raws):
            raws = undecided._files
        texts = encodings.examples(self._part(raw) for raw in raws if raw not in self._not_in_codec)
        how = f"read as {encodings.said(self.codec)}: {texts}"
        if self.encoding is not None:
            rest = encodings.examples(raw.decode() for raw in self._not_in_codec)
            return f"names {how}{f'; others as UTF-8: {rest}' if rest else ''}"
        return (
            f"the names do not say how they are encoded; {how}; if that is wrong, give --encoding"
        )

    def note_of_utf8(self) -> str:
        """Return that names were read as UTF-8, if that can be by chance; otherwise ''."""
        unclear = [raw for raw in self._utf8 if encodings.is_uncertain(raw)]
        if not unclear:
            return ""
        texts = encodings.examples(raw.decode() for raw in unclear)
        return (
            f"the names do not say how they are encoded; read as UTF-8: {texts}; if that is wrong,"
            " give --encoding"
        )


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bytes_of(raw: bytes) -> str:
    return shown(raw.decode("ascii", "surrogateescape"))
