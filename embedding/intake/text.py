"""Text in, token ids out: CLIP's byte-pair tokenizer, equal to open_clip's default one token for token.

open_clip's own implementation stands behind an import of 4.5 seconds and rescans a word for every merge,
so that one word of 100 kB would hold a thread for minutes. Here merges wait in a heap: n log n.
The merges are OpenAI's, MIT-licensed as CLIP is: what open_clip reads of the vocabulary file that it ships,
kept as pairs of ids, which load ten times as fast as its text.

The heap gives the reference's result because of two facts about the file, which the tests assert: no
string is made by two merges, and both parts of a merge are made before it. So a merge never creates a
pair that ranks before one already waiting, and equal pairs leave the heap from left to right.

Reference: https://github.com/mlfoundations/open_clip, tokenizer.py, SimpleTokenizer(clean='lower').
"""

from __future__ import annotations

import heapq
import html
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import regex

from embedding.errors import InvalidInput, StartupError, TextTooLong


TOKENIZER_ID = "clip-bpe-16e6-lower"
MERGES = Path(__file__).with_name(
    "bpe_merges.npy"
)  # (48894, 2) uint16: the ids that are merged into 512, 513, …
VOCABULARY_SIZE = 49408
START, END = 49406, 49407

_BASE = 256  # ids 0..255: bytes inside a word; 256..511: bytes that end one
_SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}
_WORDS = regex.compile(
    r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
# Printable ASCII and plain breaks, without '&': repairing and unescaping such a text changes nothing.
_PLAIN = regex.compile(r"[\t\n\r !-%'-~]*")
_CACHED_WORDS = 1 << 16  # with _CACHED_CHARS, at most some 30 MB
_CACHED_CHARS = 32
_GONE = -1
# ftfy repairs a line again and again until nothing changes: "&amp;amp;amp;..." of 100 kB takes it 16 s.
# In parts of this many characters the same takes 0.4 s; shorter lines are not affected.
_REPAIRED_CHARS = 2048


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as ids, start and end tokens included, never more than the model's context.

    *count* is how many there were before truncation.
    """

    ids: tuple[int, ...]
    truncated: bool
    count: int


class Tokenizer:
    """CLIP's byte-pair tokenizer for a context of *context_length* tokens. Safe to share among threads."""

    def __init__(self, context_length: int = 77) -> None:
        self.context_length = context_length
        self._byte_ids = _byte_ids()
        self._merges = _read_merges(MERGES)
        self._cached_word = lru_cache(maxsize=_CACHED_WORDS)(self._encode_word)

    def tokenize(self, text: str, *, truncate: bool) -> Tokens:
        """Return the tokens of *text*.

        Raises TextTooLong where they exceed the context and *truncate* is false, and InvalidInput where
        the text cannot be read.
        """
        ids = [START, *self._encode(clean(text)), END]
        count = len(ids)
        if count <= self.context_length:
            return Tokens(ids=tuple(ids), truncated=False, count=count)
        if not truncate:
            raise TextTooLong(f"text has {count} tokens; the limit is {self.context_length}")
        return Tokens(ids=(*ids[: self.context_length - 1], END), truncated=True, count=count)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for word in _WORDS.findall(text):
            special = _SPECIAL.get(word)
            if special is not None:
                ids.append(special)
            elif len(word) <= _CACHED_CHARS:
                ids.extend(self._cached_word(word))
            else:
                ids.extend(self._encode_word(word))
        return ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        ids = [self._byte_ids[byte] for byte in word.encode()]
        ids[-1] += _BASE
        return self._merge(ids)

    def _merge(self, ids: list[int]) -> tuple[int, ...]:
        """Merge neighbours, lowest merge first and from left to right, until none is left to merge."""
        merges, end = self._merges, len(ids)
        before, after = list(range(-1, end - 1)), list(range(1, end + 1))
        waiting: list[tuple[int, int]] = []
        for at, (left, right) in enumerate(pairwise(ids)):
            _push(waiting, merges.get(left << 16 | right), at)
        while waiting:
            merged, at = heapq.heappop(waiting)
            right = after[at]
            if right == end or merges.get(ids[at] << 16 | ids[right]) != merged:
                continue
            ids[at], ids[right] = merged, _GONE
            after[at] = after[right]
            if after[at] != end:
                before[after[at]] = at
                _push(waiting, merges.get(merged << 16 | ids[after[at]]), at)
            if at:
                _push(waiting, merges.get(ids[before[at]] << 16 | merged), before[at])
        return tuple(token for token in ids if token != _GONE)


def clean(text: str) -> str:
    """Repair *text*, squeeze its white space, lower its case. Raises InvalidInput as `repair` does."""
    return squeeze(repair(text)).lower()


def squeeze(text: str) -> str:
    """Return *text* with single spaces between its words and none around them."""
    return " ".join(text.split())


def repair(text: str) -> str:
    """Undo mojibake and two layers of HTML escapes, as open_clip does first of all.

    Raises InvalidInput for a numeric character reference too long to be read.
    """
    if _PLAIN.fullmatch(text):
        return text
    import ftfy  # noqa: PLC0415  (its tables cost 80 ms, which plain English never needs)

    try:
        return html.unescape(html.unescape(ftfy.fix_text(text, max_decode_length=_REPAIRED_CHARS)))
    except ValueError as exc:  # int() refuses more than 4300 digits
        raise InvalidInput("text holds a numeric character reference that is too long") from exc


def _push(waiting: list[tuple[int, int]], merged: int | None, at: int) -> None:
    if merged is not None:
        heapq.heappush(waiting, (merged, at))


def _printable_bytes() -> list[int]:
    return [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]


def _byte_ids() -> list[int]:
    """Return the id of each byte inside a word: printable Latin-1 first, then the others."""
    printable = _printable_bytes()
    order = printable + sorted(set(range(_BASE)) - set(printable))
    ids = [0] * _BASE
    for token, byte in enumerate(order):
        ids[byte] = token
    return ids


def _read_merges(path: Path) -> dict[int, int]:
    """Return {left id << 16 | right id: merged id}; lower ids merge first.

    Raises StartupError if the file is missing or is not that vocabulary.
    """
    ids = range(2 * _BASE, VOCABULARY_SIZE - 2)
    try:
        pairs = np.load(path)
    except (OSError, EOFError, ValueError) as exc:
        raise StartupError(f"{path.name} of this installation is damaged; install the worker again") from exc
    if pairs.dtype != np.uint16 or pairs.shape != (len(ids), 2):
        raise StartupError(f"{path.name} of this installation is incomplete; install the worker again")
    left, right = pairs.astype(np.uint32).T
    return dict(zip((left << 16 | right).tolist(), ids, strict=True))
