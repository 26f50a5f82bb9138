"""What the benchmark of bulk runs sends and lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.bulk import JOB, Setting, _filled


@pytest.mark.parametrize(("pictures", "jobs"), [(1, 1), (JOB // 2, 1), (JOB, 1), (3 * JOB, 3)])
def test_callers_send_what_a_run_sends(pictures, jobs):
    """Callers' jobs are full, so that jobs a second tell rows, and ask for base64 as a run does."""
    setting = Setting(Path(), [bytes([number]) for number in range(pictures)], rows=5)
    inputs = [json.loads(body)["input"] for body in setting.bodies()]

    assert len(inputs) == jobs
    assert {len(each["items"]) for each in inputs} == {JOB}
    assert len({item["image_base64"] for each in inputs for item in each["items"]}) == pictures
    assert {each["encoding_format"] for each in inputs} == {"base64"}


def test_a_run_has_its_rows(tmp_path):
    """The list names each picture as often as it takes, and every name is there."""
    _filled(tmp_path, Setting(Path(), [b"a", b"b", b"c"], rows=7))
    names = (tmp_path / "list.txt").read_text().split()

    assert len(names) == 7
    assert [(tmp_path / name).read_bytes() for name in names] == [b"a", b"b", b"c"] * 2 + [b"a"]
