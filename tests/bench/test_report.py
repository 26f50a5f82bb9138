"""The table and the arithmetic behind it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.figures import percentile, rate, ratio
from bench.model import WrongAnswer, check_answer
from bench.report import Measure, markdown, table, to_json, write_section


FASTER = Measure("faster", "jobs/s", "×", 72, at_least=True)
SMALLER = Measure("smaller", "memory", "GB", 1.05)
TOLD = Measure("told", "lag", "ms")


class TestRows:
    @pytest.mark.parametrize(
        ("measure", "value", "met"),
        [
            (FASTER, 71.9, False),
            (FASTER, 72.0, True),
            (FASTER, 72.1, True),
            (SMALLER, 1.04, True),
            (SMALLER, 1.05, True),
            (SMALLER, 1.06, False),
            (TOLD, 5.0, None),
        ],
    )
    def test_target(self, measure, value, met):
        """A target is met at its very limit, and a figure without target is neither met nor missed."""
        assert measure.row(value, "").met is met

    def test_limit_of_the_run(self):
        """A limit that only the run knows stands in the table."""
        row = TOLD.row(30.0, "", limit=34.0)

        assert (row.target, row.met) == ("≤ 34.0 ms", True)

    def test_table(self):
        """Each figure stands beside its target and whether it was met; a failure says why."""
        lines = table([FASTER.row(75.94, "a / b"), SMALLER.row(1.1, "x"), SMALLER.failed("no GPU")]).split(
            "\n"
        )

        assert [line.split("  ")[0] for line in lines] == ["measure", "faster", "smaller", "smaller"]
        assert "75.9 ×" in lines[1]
        assert "≥ 72.0 ×" in lines[1]
        assert " yes " in lines[1]
        assert " NO " in lines[2]
        assert lines[3].endswith("failed: no GPU")

    def test_json(self):
        """The JSON holds machine, rows and rounds."""
        document = json.loads(to_json([FASTER.row(75.9, "")], {"CPU": "x"}, {"ours": [1.0]}))

        assert document["rows"][0]["value"] == 75.9
        assert (document["machine"], document["jobs_per_s"]) == ({"CPU": "x"}, {"ours": [1.0]})

    def test_markdown(self, tmp_path):
        """Writing a section again replaces it and leaves the rest of the document alone."""
        file = tmp_path / "B.md"
        write_section(file, "measures", markdown([FASTER.row(75.9, "old")], {"CPU": "x"}))
        file.write_text(file.read_text() + "\nMy words.\n")
        write_section(file, "routes", "| a |")
        write_section(file, "measures", markdown([FASTER.row(75.9, "new")], {"CPU": "x"}))
        text = file.read_text()

        assert ("old" in text, "new" in text, "My words." in text, "| a |" in text) == (
            False,
            True,
            True,
            True,
        )
        assert text.startswith("# Benchmarks\n")


class TestFigures:
    def test_percentile(self):
        """Percentiles lie between the values, by distance."""
        assert [percentile(range(101), p) for p in (0, 50, 99, 100)] == [0, 50, 99, 100]
        assert percentile([1.0, 2.0], 50) == 1.5

    @pytest.mark.parametrize("batch", [1, 8, 32])
    def test_rate_of_batches(self, batch):
        """Jobs that end in batches of any size have the rate of jobs that end one by one."""
        ended_s = np.repeat(np.arange(20) * batch / 80, batch)

        assert rate(ended_s) == pytest.approx(80, rel=0.01)

    @pytest.mark.parametrize("ended_s", [[], [1.0], [1.0, 1.0]])
    def test_rate_of_too_little(self, ended_s):
        """One moment has no rate."""
        with pytest.raises(ValueError, match="a rate needs more"):
            rate(ended_s)

    def test_ratio(self):
        """A ratio is one of medians, which a single disturbed round does not move."""
        assert ratio([75, 76, 20], [1, 1, 1]) == 75


class TestAnswers:
    REFERENCES = np.eye(4)

    @pytest.mark.parametrize(
        ("embedding", "told"),
        [([0, 2, 0, 0], "cosine 0.00000"), ([1, 0.04, 0, 0], "cosine 0.99920")],
        ids=["another's", "too coarse"],
    )
    def test_wrong_vectors_are_found(self, embedding, told):
        """A vector that is another picture's, or too far from open_clip's, is no answer."""
        raw = json.dumps({"output": {"embedding": embedding}}).encode()

        with pytest.raises(WrongAnswer, match=told):
            check_answer(raw, 0, self.REFERENCES)

    def test_nearer_to_another(self):
        """A vector nearer to another picture's is no answer, however near it is to its own."""
        close = np.array([[1, 0], [0.99999, 0.001]])
        raw = json.dumps({"output": {"embedding": [1, 0.001]}}).encode()

        with pytest.raises(WrongAnswer, match="picture 1"):
            check_answer(raw, 0, close / np.linalg.norm(close, axis=1, keepdims=True))

    def test_length_does_not_matter(self):
        """Vectors are compared by direction."""
        assert check_answer(b'{"output": {"embedding": [3, 0, 0, 0]}}', 0, self.REFERENCES) == 1.0
