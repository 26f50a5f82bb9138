"""The tokenizer gives open_clip's tokens for any text, in bounded time."""

from __future__ import annotations

import html
import io
import time
from itertools import pairwise

import ftfy
import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.errors import InvalidInput, StartupError, TextTooLong
from embedding.intake import text as text_module
from embedding.intake.text import END, START, Tokenizer, repair, squeeze


FRAGMENTS = [
    "<start_of_text>", "<end_of_text>", "<END_OF_TEXT>", "<ſtart_of_text>", "<start_of", "_text>",
    "<|", "a photo of", "it's", "WE'LL", "'ſ", "don't", "''", "&amp;", "&amp;amp;lt;", "&lt;b&gt;",
    "&", "&#39;", "&#x1F600;", "&notit;", "Ã©", "â€™", "â‚¬", "Ã\x83Â©", "Â\xa0", "é", "e\u0301",
    "İ", "ß", "ﬁ", "ＦＵＬＬ", "字", "한글", "\u1112\u1161", "😀", "👩\u200d👩\u200d👧", "مرحبا",
    "0123456789",
    "½", "x²", "!!!", "...", " ", "\n", "\r\n", "\t", "\x00", "\x1b[31m", "\x85", "\u2028",
    "\ufeff", "\ud800", "\udfff", "\u200b", "aaaaaaaaaa", "supercalifragilisticexpialidocious",
]  # fmt: skip
ANY_CHARACTER = st.characters(exclude_categories=())
ANY_TEXT = st.one_of(st.text(ANY_CHARACTER), st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join))


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer for CLIP's usual context."""
    return Tokenizer(77)


class TestEquality:
    @settings(max_examples=400, deadline=None)
    @given(text=ANY_TEXT)
    def test_any_text(self, tokenizer, text):
        """Every text has the tokens that open_clip gives it, truncation included."""
        expected = open_clip.tokenize(text)[0].tolist()

        tokens = tokenizer.tokenize(text, truncate=True)

        assert expected == [*tokens.ids, *[0] * (77 - len(tokens.ids))]

    @settings(max_examples=200, deadline=None)
    @given(text=ANY_TEXT)
    def test_count(self, tokenizer, text):
        """The count is that of open_clip's tokens before truncation, start and end included."""
        expected = len(open_clip.tokenizer._tokenizer.encode(text)) + 2

        assert expected == tokenizer.tokenize(text, truncate=True).count

    @settings(max_examples=200, deadline=None)
    @given(word=st.text(st.sampled_from("ab'!eéー"), min_size=1, max_size=200))
    def test_repetitive_word(self, tokenizer, word):
        """Words of few letters, whose pairs overlap, are merged as open_clip merges them."""
        expected = open_clip.tokenizer._tokenizer.encode(word)

        assert expected == tokenizer._encode(text_module.clean(word))

    @settings(max_examples=300, deadline=None)
    @given(text=st.text(st.characters(max_codepoint=126)).filter(text_module._PLAIN.fullmatch))
    def test_plain_text_needs_no_repair(self, text):
        """Repair would change nothing but the white space of plain ASCII, where it is skipped."""
        repaired = html.unescape(html.unescape(ftfy.fix_text(text)))

        assert squeeze(repaired) == squeeze(text)
        assert repair(text) == text

    @pytest.mark.parametrize("context_length", [8, 32, 77])
    def test_context_length(self, context_length):
        """A model's own context length is where its texts are cut."""
        text = "one two three four five six seven eight nine ten"
        expected = open_clip.tokenize(text, context_length=context_length)[0].tolist()

        ids = Tokenizer(context_length).tokenize(text, truncate=True).ids

        assert expected[: len(ids)] == list(ids)
        assert not any(expected[len(ids) :])


class TestLimits:
    @pytest.mark.parametrize(("words", "truncated"), [(74, False), (75, False), (76, True)])
    def test_truncation(self, tokenizer, words, truncated):
        """75 one-token words fit beside the start and end tokens; the 76th is cut and said to be."""
        tokens = tokenizer.tokenize("dog " * words, truncate=True)

        assert truncated == tokens.truncated
        assert words + 2 == tokens.count
        assert min(words + 2, 77) == len(tokens.ids)
        assert (tokens.ids[0], tokens.ids[-1]) == (START, END)

    def test_refusal(self, tokenizer):
        """A text that may not be truncated is refused with its count and the limit."""
        assert tokenizer.tokenize("dog " * 75, truncate=False).count == 77
        with pytest.raises(TextTooLong, match=r"^text has 93 tokens; the limit is 77$"):
            tokenizer.tokenize("dog " * 91, truncate=False)

    def test_empty_text(self, tokenizer):
        """An empty text is its start and its end."""
        assert tokenizer.tokenize("", truncate=False).ids == (START, END)

    @pytest.mark.parametrize(
        "text",
        ["a" * 100_000, "!" * 100_000, "é" * 100_000, "&" + "amp;" * 25_000, "a" + "\u0300\u0327" * 50_000],
        ids=["word", "punctuation", "accents", "escaped ampersands", "combining marks"],
    )
    def test_hostile_text(self, tokenizer, text):
        """No text of 100 kB holds a thread for long; open_clip takes minutes for some of these."""
        started = time.perf_counter()

        tokenizer.tokenize(text, truncate=True)

        assert time.perf_counter() - started < 5

    def test_endless_number(self, tokenizer):
        """A character reference with more digits than Python converts is refused, not a crash."""
        with pytest.raises(InvalidInput, match="character reference"):
            tokenizer.tokenize(f"&#{'9' * 5000};", truncate=True)

    def test_cache_is_bounded(self):
        """Long words, which strangers can invent without end, are never cached."""
        tokenizer = Tokenizer(77)

        tokenizer.tokenize(f"{'x' * 33} {'y' * 32}", truncate=True)

        assert tokenizer._cached_word.cache_info().currsize == 1
        assert tokenizer._cached_word.cache_info().maxsize == 1 << 16


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


class TestVocabulary:
    def test_heap_order_is_sound(self, tokenizer):
        """No merge is made twice, and both parts of a merge are made before it."""
        merges = tokenizer._merges
        merged = list(merges.values())

        assert len(set(merged)) == len(merged)
        assert all(a < b for a, b in pairwise(merged))
        assert all(pair >> 16 < token and pair & 0xFFFF < token for pair, token in merges.items())

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"no array",
            _npy(np.zeros((48894, 2), np.uint16))[:-1],
            _npy(np.zeros((48893, 2), np.uint16)),
            _npy(np.zeros((48894, 2), np.int64)),
            _npy(np.array([{}])),
        ],
        ids=["empty", "not an array", "cut short", "too few", "another type", "pickle"],
    )
    def test_damaged_file(self, tmp_path, monkeypatch, content):
        """A damaged vocabulary file stops the start with a line that says what to do."""
        file = tmp_path / "merges.npy"
        file.write_bytes(content)
        monkeypatch.setattr(text_module, "MERGES", file)

        with pytest.raises(StartupError, match=r"installation is \w+; install the worker again"):
            Tokenizer(77)
