"""How names are encoded that do not say so: recognised by what they would read as, all together.

Names are short, so byte statistics fail on them. For each encoding and language, the names are
given a likelihood: that of their letters in the language, less for letters of two scripts in one
word, for a capital after a small letter, for symbols, and for rare ideographs. The most likely
reading counts if the next different one is far less likely; if not, the user is asked.
"""

from __future__ import annotations

import codecs
import functools
import itertools
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from towernet.data.alphabets import HAN, HANGUL, LATIN, OTHER, VOWELS, Alphabet
from towernet.registry import unknown_name
from towernet.words import listed, shown

AS_BEFORE = "as before"  # of runs made before encodings were recognised; no option
OEM, ANSI = "oem", "ansi"  # which encodings are usual: those of zip programs, or those of Excel
MAX_SAMPLE_BYTES = 20_000  # of the names that are judged
MARGIN = 5.0  # how much likelier, as a logarithm, a reading must be than any other
_UNCERTAIN = 6.0  # the same for a name that is valid UTF-8; of é it is 5.2, of да 11
_MOST_OF_PLAIN = 2.0  # how much names in ASCII can count
_WORST = -11.0  # for a letter, on average: below it, no reading is plausible

_ASCII = -3.2
_FOREIGN_LETTER, _SYMBOL, _RARE_SYMBOL, _CONTROL = -12.0, -8.0, -11.0, -25.0
_MIXED, _GLUED, _INNER_CAPITAL, _CAPITAL = -14.0, -5.0, -4.0, -0.7
_CONSONANTS, _MISPLACED = -3.0, -3.0
_GREEK_WORD, _ACCENTS = re.compile("[ά-ώΐΰ]{3,}"), re.compile("[άέήίόύώΐΰ]")
_USUAL_SYMBOLS = frozenset("«»“”„’‘–—№°×ºª…·§")
_WIDE_SYMBOLS = frozenset("、。・ー々〇「」『』（）【】《》〜～－：，！？＆／＋　＿．")

# The names of encodings that people know, and that `--encoding` understands.
KNOWN = (
    "utf-8", "gbk", "gb18030", "big5", "cp950", "shift_jis", "cp932", "euc_jp", "euc_kr", "cp949",
    "cp437", "cp850", "cp852", "cp855", "cp857", "cp866", "cp737", "cp775", "cp862", "cp720",
    "cp874", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257",
    "koi8_r", "koi8_u", "latin-1", "mac_roman", "utf-16", "utf-16-le", "utf-16-be", "utf-32",
)  # fmt: skip
_PEOPLE_SAY = {
    "gbk": "GBK", "gb18030": "GB18030", "cp950": "Big5", "cp932": "Shift-JIS", "cp949": "EUC-KR",
    "euc_jp": "EUC-JP", "koi8_r": "KOI8-R", "koi8_u": "KOI8-U", "cp1252": "Windows-1252",
    "cp1250": "Windows-1250", "cp1251": "Windows-1251", "cp1253": "Windows-1253",
    "cp1254": "Windows-1254", "cp1255": "Windows-1255", "cp1256": "Windows-1256",
    "cp1257": "Windows-1257", "cp874": "Windows-874", "mac_roman": "Mac Roman",
}  # fmt: skip


# The names that are given if the texts read the same in several encodings.
_USUAL = ("cp1252", "cp1251", "cp866", "cp850", "gbk", "cp932")


class Language(NamedTuple):
    """A language in one encoding: how likely each of its characters is, as a logarithm."""

    codec: str
    table: dict[str, float]
    script: str  # "Latin", "alphabet" or "ideographs"
    prior: float
    alphabet: Alphabet = Alphabet("", (), ())
    has_vowels: bool = False  # hardly a word has four consonants together


class Guess(NamedTuple):
    """The most likely encoding, and others that are about as likely and read differently."""

    codec: str
    others: tuple[str, ...]
    plausible: bool


def said(codec: str) -> str:
    """Return the name of an encoding that people know."""
    if codec in _PEOPLE_SAY:
        return _PEOPLE_SAY[codec]
    return f"code page {codec[2:]}" if codec.startswith("cp") else codec


def known_codec(encoding: str, *, of_names: bool) -> str:
    """Return Python's name of an encoding.

    Args:
        encoding: What the user gave.
        of_names: It is for the names in an archive, which contain ASCII characters as such.

    Raises:
        UnknownNameError: there is no such encoding, or names are never encoded so.
    """
    try:
        codec = codecs.lookup(encoding).name
        plain = "".join(map(chr, range(0x20, 0x7F)))
        is_usual = not of_names or plain.encode().decode(codec).replace("‾", "~") == plain
        "".encode(codec)
        b"".decode(codec)
    except (LookupError, ValueError, TypeError):
        is_usual = False
    if not is_usual:
        known = [name for name in KNOWN if not (of_names and name.startswith(("utf-16", "utf-32")))]
        raise unknown_name("encoding", encoding, known)
    return codec


def guess(
    raws: Sequence[bytes],
    usual: str,
    *,
    more: Sequence[bytes] = (),
    excluded: Collection[str] = (),
) -> Guess | None:
    """Return how names are encoded; None if they cannot be read in any encoding.

    Args:
        raws: The names: if they read the same in two encodings, either will do.
        usual: OEM or ANSI: which encodings are likelier.
        more: Other names in the same encoding.
        excluded: Encodings in which not all of the other names can be read.

    Example:
        >>> guess(["кошка".encode("cp866"), "собака".encode("cp866")], OEM).codec
        'cp866'
    """
    sample, plain = _sample([*raws, *more])
    num_deciding = len(_sample(raws)[0])
    readings: dict[tuple[str, ...], tuple[float, Language]] = {}
    texts_of: dict[str, tuple[str, ...] | None] = {}
    of_plain = [
        (sum(_likelihood(text, language) for text in plain) if language.script == "Latin" else None)
        for language in languages(usual)
    ]
    best_of_plain = max(likelihood for likelihood in of_plain if likelihood is not None)
    for language, plain_likelihood in zip(languages(usual), of_plain, strict=True):
        if language.codec not in texts_of:
            texts_of[language.codec] = decoded(sample, language.codec)
        texts = texts_of[language.codec]
        if texts is None or language.codec in excluded:
            continue
        likelihood = language.prior + sum(_likelihood(text, language) for text in texts)
        if plain_likelihood is not None:  # names in English may be among them
            likelihood += max(-_MOST_OF_PLAIN, plain_likelihood - best_of_plain)
        key = texts[:num_deciding]
        if key not in readings or readings[key][0] < likelihood:
            readings[key] = likelihood, language
    if not readings:
        return None
    ranked = sorted(readings.items(), key=lambda reading: -reading[1][0])
    best, language = ranked[0][1]
    others = tuple(
        other.codec
        for _, (likelihood, other) in ranked[1:]
        if likelihood
        > best - MARGIN - (other.alphabet.margin if language.script != "Latin" else 0.0)
    )
    texts = texts_of[language.codec]
    same = (codec for codec in _USUAL if texts_of.get(codec) == texts and codec not in excluded)
    codec = next(same, language.codec)
    return Guess(codec, others, _is_plausible(texts or (), language))


def _is_plausible(texts: Iterable[str], language: Language) -> bool:
    total, num_letters = 0.0, 0
    for text in texts:
        plain = [character for character in f"{text} " if character < "\x80"]
        total += _likelihood(text, language)
        total -= sum(language.table.get(character, _ASCII) for character in plain)
        num_letters += len(text) + 1 - len(plain)
    return total > _WORST * num_letters


def _sample(raws: Iterable[bytes]) -> tuple[list[bytes], list[str]]:
    """Return names that are not ASCII, and names that are: the first ones, each once."""
    sample, plain, room = [], [], MAX_SAMPLE_BYTES
    for raw in dict.fromkeys(raws):
        if len(raw) <= room:
            room -= len(raw)
            if raw.isascii():
                plain.append(raw.decode())
            else:
                sample.append(raw)
    return sample, plain


def is_likelier(codec: str, raw: bytes) -> bool:
    """Return whether a name that is valid UTF-8 reads better in another encoding.

    Two ideographs can happen to be valid: in UTF-8 they are two letters of Greek, Arabic or less.
    """
    # The others are in this encoding; three bytes that are UTF-8 by chance are rare.
    return _lead(codec, raw) + (MARGIN if max(raw.decode()) < "\u0800" else 0.0) > 0


def is_uncertain(raw: bytes) -> bool:
    """Return whether a name that is valid UTF-8 could be one of ideographs.

    Example:
        >>> is_uncertain("è".encode()), is_uncertain("Äpfel".encode())
        (True, False)
    """
    ideographs = {one.codec for one in languages(OEM) if one.script == "ideographs"}
    return max(raw.decode()) < "\u0800" and any(
        _lead(codec, raw) > -_UNCERTAIN for codec in ideographs
    )


def _lead(codec: str, raw: bytes) -> float:
    """Return how much likelier a name that is valid UTF-8 is in another encoding."""
    if (texts := decoded([raw], codec)) is None:
        return -math.inf
    there = [language for language in languages(OEM) if language.codec == codec]
    as_utf8 = max(_likelihood(raw.decode(), language) for language in languages(OEM))
    return max((_likelihood(texts[0], language) for language in there), default=-math.inf) - as_utf8


def decoded(raws: Sequence[bytes], codec: str) -> tuple[str, ...] | None:
    """Return all names decoded; None if one is not in this encoding."""
    try:
        return tuple(raw.decode(codec) for raw in raws)
    except UnicodeError:
        return None


def examples(texts: Iterable[str], most: int = 3) -> str:
    """Return the first names that are not ASCII, for a sentence."""
    names = list(itertools.islice((t for t in dict.fromkeys(texts) if not t.isascii()), most + 1))
    more = ", …" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def candidates_words(found: Guess, raws: Sequence[bytes]) -> str:
    """Return "GBK (猫) or Big5 (艙)": the encodings that are about as likely, with an example."""
    words = []
    for codec in dict.fromkeys([found.codec, *found.others[:3]]):
        texts = decoded(raws, codec) or ()
        words.append(f"{said(codec)} ({examples(texts, most=2)})")
    return listed(words, "or")


@functools.cache
def languages(usual: str) -> tuple[Language, ...]:
    """Return each language in each of its encodings."""
    found = []
    for alphabets, script in ((LATIN, "Latin"), (OTHER, "alphabet")):
        for alphabet in alphabets.values():
            table = _letters(alphabet, script) | _plain(alphabet.plain)
            for codec, prior in _priors(alphabet, usual).items():
                has_vowels = not VOWELS.isdisjoint(alphabet.letters) and script == "alphabet"
                found.append(Language(codec, table, script, prior, alphabet, has_vowels))
    for codec, prior, table in (
        ("gbk", 0.0, _chinese()),
        ("gb18030", -6.0, _chinese()),
        ("cp950", 0.0, _taiwanese()),
        ("cp932", 0.0, _japanese()),
        ("euc_jp", -4.0, _japanese()),
        ("cp949", 0.0, _korean()),
    ):
        found.append(Language(codec, table, "ideographs", prior))
    return tuple(found)


def _priors(alphabet: Alphabet, usual: str) -> dict[str, float]:
    oem = {codec: -num / 2 for num, codec in enumerate(alphabet.oem)}
    ansi = {codec: -4.0 * num for num, codec in enumerate(alphabet.ansi)}
    likelier, other, less = (oem, ansi, -2.0) if usual == OEM else (ansi, oem, -4.0)
    priors = {codec: prior + less for codec, prior in other.items()} | likelier
    return {codec: prior + alphabet.prior for codec, prior in priors.items()}


def _letters(alphabet: Alphabet, script: str) -> dict[str, float]:
    if script == "Latin":
        table = {letter: -4.2 - 0.25 * num for num, letter in enumerate(alphabet.letters)}
    else:
        scale = 33 / len(alphabet.letters)
        falls = [0.05 * scale * num + 0.0025 * (scale * num) ** 2 for num in range(80)]
        whole = math.log(sum(math.exp(-fall) for fall in falls[: len(alphabet.letters)]))
        table = {
            letter: -whole - fall for letter, fall in zip(alphabet.letters, falls, strict=False)
        }
    table |= {
        letter.upper(): likelihood + _CAPITAL
        for letter, likelihood in table.items()
        if len(letter.upper()) == 1 and not letter.upper().isascii()
    }
    return table


def _plain(letters: str) -> dict[str, float]:
    """Return the likelihood of the letters from a to z, in small letters and capitals."""
    small = {letter: -2.1 - 0.13 * num for num, letter in enumerate(letters)}
    return small | {letter.upper(): likelihood for letter, likelihood in small.items()}


def _in_standard(codec: str, leads: range, trails: range) -> Iterator[str]:
    for lead, trail in itertools.product(leads, trails):
        try:
            character = bytes([lead, trail]).decode(codec)
        except UnicodeError:
            continue
        if character.isalpha():
            yield character


def _with_common(
    parts: Iterable[tuple[Iterable[str], float]], common: frozenset[str], share: float
) -> dict[str, float]:
    """Return the likelihood of each character of the parts, each with its share of a text."""
    table: dict[str, float] = {}
    for characters, of_part in parts:
        new = [character for character in characters if character not in table]
        table |= dict.fromkeys(new, math.log(of_part / max(1, len(new))))
    usual = [character for character in common if character in table]
    table |= dict.fromkeys(usual, math.log(share / len(usual)))
    return table


@functools.cache
def _chinese() -> dict[str, float]:
    return _with_common(
        [
            (_in_standard("gb2312", range(0xB0, 0xD8), range(0xA1, 0xFF)), 0.3),
            (_in_standard("gb2312", range(0xD8, 0xF8), range(0xA1, 0xFF)), 0.05),
            (_in_standard("gbk", range(0x81, 0xFF), range(0x40, 0xFF)), 0.004),
        ],
        HAN,
        0.63,
    )


@functools.cache
def _taiwanese() -> dict[str, float]:
    return _with_common(
        [
            (_in_standard("cp950", range(0xA4, 0xC7), range(0x40, 0xFF)), 0.35),
            (_in_standard("cp950", range(0xC9, 0xFA), range(0x40, 0xFF)), 0.03),
        ],
        HAN,
        0.6,
    )


@functools.cache
def _japanese() -> dict[str, float]:
    kana = [chr(code) for code in range(0x30A1, 0x30F7)]
    return _with_common(
        [
            (kana, 0.35),
            ([chr(code) for code in range(0x3041, 0x3094)], 0.2),
            ("ー", 0.04),
            (_in_standard("shift_jis", range(0x88, 0x99), range(0x40, 0xFD)), 0.1),
            (_in_standard("shift_jis", range(0x98, 0xEB), range(0x40, 0xFD)), 0.01),
            ([chr(code) for code in range(0xFF66, 0xFFA0)], 0.002),
        ],
        HAN,
        0.25,
    )


@functools.cache
def _korean() -> dict[str, float]:
    return _with_common(
        [
            (_in_standard("euc_kr", range(0xB0, 0xC9), range(0xA1, 0xFF)), 0.15),
            (_in_standard("euc_kr", range(0xCA, 0xFE), range(0xA1, 0xFF)), 0.003),
            (_in_standard("cp949", range(0x81, 0xC7), range(0x41, 0xFF)), 0.003),
        ],
        HANGUL,
        0.84,
    )


def _likelihood(text: str, language: Language) -> float:
    """Return the logarithm of how likely a language's name reads so."""
    total, before, num_capitals, num_consonants = 0.0, " ", 0, 0
    for character in f"{text} ":
        has_no_vowel = language.has_vowels and _is_consonant(character)
        num_consonants = num_consonants + 1 if has_no_vowel else 0
        if num_consonants > 3:
            total += _CONSONANTS
        if character < "\x80":
            total += language.table.get(character, _ASCII)
        else:
            total += language.table.get(character) or _unlisted(character, language.script)
        if character >= "\x80" or before >= "\x80":
            total += _joined(before, character, num_capitals, language)
        num_capitals = num_capitals + 1 if character.isupper() else 0
        before = character
    if "ά" in language.table:  # a Greek word has one accent
        accents = [len(_ACCENTS.findall(word)) for word in _GREEK_WORD.findall(text)]
        total += _MISPLACED * sum(num != 1 for num in accents)
    return total


def _joined(before: str, character: str, num_capitals: int, language: Language) -> float:
    """Return how unlikely it is that one character follows another, at least one not in ASCII."""
    total = 0.0
    if before.islower() and character.isupper():
        total += _INNER_CAPITAL
    if num_capitals > 1 and character.islower():
        total += _INNER_CAPITAL
    first, second = (_is_letter(one, language) for one in (before, character))
    if first != second:  # one is a symbol or a space
        symbol, letter = (character, before) if first else (before, character)
        if symbol >= "\x80" and letter < "\x80" and symbol != "’":
            total += _GLUED
    if (
        (second and before in language.alphabet.only_last)
        or (not first and character.lower() in language.alphabet.never_first)
        or (not second and before in language.alphabet.never_last)
    ):
        total += _MISPLACED
    if (
        first
        and second
        and language.script != "Latin"
        and (before < "\x80") != (character < "\x80")
    ):
        plain = min(before, character)
        total += _MIXED if language.script == "alphabet" or plain.islower() else _MIXED / 4
    return total


def _is_consonant(character: str) -> bool:
    return character >= "\x80" and character.isalpha() and character.lower() not in VOWELS


def _is_letter(character: str, language: Language) -> bool:
    return character in language.table or character.isalpha()


def _unlisted(character: str, script: str) -> float:
    if character in _WIDE_SYMBOLS:
        return _SYMBOL if script == "ideographs" else _RARE_SYMBOL
    if character in _USUAL_SYMBOLS:
        return _SYMBOL
    if character.isalpha() or character.isalnum():
        return _FOREIGN_LETTER if script != "ideographs" else _FOREIGN_LETTER - 3
    category = unicodedata.category(character)
    return _CONTROL if category in ("Cc", "Cn", "Co", "Cs") else _RARE_SYMBOL
