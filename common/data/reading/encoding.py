"""Bytes as text: the encoding that a file declares, that a mapping names, or that its bytes speak for."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import IO

from common.errors import BadInputError

CHUNK_BYTES = 32 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ASIAN = {
    # what is common in each: characters that make up most of a text really written so
    "shift_jis": re.compile("[\u3040-\u30ff]"),
    "euc_jp": re.compile("[\u3040-\u30ff]"),
    "euc_kr": re.compile("[\uac00-\ud7a3]"),
    "gb18030": re.compile("[\u4e00-\u9fff]"),
    "big5": re.compile("[\u4e00-\u9fff]"),
}
_ENOUGH_LETTERS = 12
_WIDE = re.compile(r"[^\x00-\x7f]")


def declared(start: bytes, named: str = "") -> str:
    """The encoding that a file declares by its byte order mark, else the one named, else UTF-8."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    return named or "utf-8"


def guessed(sample: bytes) -> str:
    """The encoding that the bytes of a file without a mark speak for.

    Guarantee: the whole sample can be read in it, so no two texts of the sample become one.
    Raises: BadInputError where the bytes do not tell.
    """
    for width, name in ((2, "utf-16-le"), (2, "utf-16-be")):
        zeros = sample[1::width] if name.endswith("le") else sample[::width]
        if len(sample) > 3 and zeros.count(0) > 0.6 * len(zeros):
            return name
    if reads(sample, "utf-8"):
        return "utf-8"
    lines = b"\n".join(line for line in sample.split(b"\n") if any(byte > 127 for byte in line))
    scores = {name: score for name in _ASIAN if (score := _plausible(lines, name))}
    if (
        scores.get("euc_kr") == 1.0
        and len(set(_WIDE.findall(lines.decode("euc_kr", "ignore")))) >= _ENOUGH_LETTERS
    ):
        return "euc_kr"  # a Chinese text of so many letters would not stay in the part of the table that is Hangul
    best = sorted(scores, key=lambda name: -scores[name])
    if best and (len(best) == 1 or scores[best[0]] > scores[best[1]] + 0.05):
        return best[0]
    if best:
        raise BadInputError(
            f"the file is not UTF-8, and its bytes read as {' and as '.join(best[:3])}",
            hint=f'name it in a mapping, as in encoding = "{best[0]}"',
        )
    runs = re.findall(rb"[\x80-\xff]+", lines)
    if runs and sum(map(len, runs)) / len(runs) > 2.5 and reads(lines, "cp1251"):
        return "cp1251"
    return "cp1252" if reads(sample, "cp1252") else "latin-1"


def reads(sample: bytes, name: str) -> bool:
    """Whether the whole sample is text in this encoding; its last letter may be cut off."""
    try:
        codecs.getincrementaldecoder(name)().decode(sample)
    except (UnicodeDecodeError, LookupError):
        return False
    return True


def _plausible(lines: bytes, name: str) -> float:
    """How much of a text's wide characters are what a text in this encoding is made of; 0 if it is none."""
    if not reads(lines, name):
        return 0.0
    text = codecs.getincrementaldecoder(name)().decode(lines)
    wide = _WIDE.findall(text)
    runs = re.findall(r"[^\x00-\x7f]+", text)
    if not wide or len(wide) / len(runs) < 1.2:
        return 0.0  # single letters between ASCII ones: a European text
    usual = [letter for letter in wide if _ASIAN[name].match(letter)]
    score = len(usual) / len(wide)
    if name in ("gb18030", "big5"):
        code = "gb2312" if name == "gb18030" else "big5"
        first = sum(_first_level(letter, code) for letter in usual)
        score *= first / max(1, len(usual))
    return score if score > 0.3 else 0.0


def _first_level(letter: str, code: str) -> bool:
    """Whether a character is among the common ones, by where the encoding has it."""
    try:
        lead = letter.encode(code)[0]
    except UnicodeEncodeError:
        return False
    return 0xB0 <= lead <= 0xD7 if code == "gb2312" else 0xA4 <= lead <= 0xC6


def utf8_chunks(file: IO[bytes], encoding: str, newline: str = "\n") -> Iterator[bytes]:
    """The file as UTF-8 in chunks that end where a line does; the last line may lack its end.

    Bytes that are no text in the encoding become U+FFFD; the rules drop what has it in a column that is read.
    """
    rest = b""
    for block in _utf8_blocks(file, encoding):
        if newline == "\r":
            block = block.replace(b"\r", b"\n")
        block = block.replace(b"\x1f", b"\xef\xbf\xbd")  # the mark between columns that no line has: see text.py
        cut = block.rfind(b"\n") + 1
        if not cut:
            rest += block
            continue
        yield rest + block[:cut]
        rest = block[cut:]
    if rest:
        yield rest


def _utf8_blocks(file: IO[bytes], encoding: str) -> Iterator[bytes]:
    plain = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
    if plain:
        first = True
        while block := file.read(CHUNK_BYTES):
            yield block.removeprefix(codecs.BOM_UTF8) if first else block
            first = False
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    while block := file.read(CHUNK_BYTES):
        yield decoder.decode(block).removeprefix("\ufeff").encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")
