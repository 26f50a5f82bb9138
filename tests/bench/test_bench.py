"""The command line, the inputs, and one small real run."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import bulk, inputs, search
from bench.__main__ import PARTS, Part, _are_sections, _rows
from bench.model import ROOT, WrongAnswer
from bench.plan import QUICK, Plan
from bench.process import children
from bench.report import Measure
from bench.serving import first_result_s, ours, serving
from embedding.model.weights import DEMO_PATH


EVERY = [measure.name for part in PARTS for measure in part.measures]
DEMO = ours(DEMO_PATH, OMP_NUM_THREADS="1", CLIP_PRECISION="fp32")


def bench(*arguments, **options):
    """Start `python -m bench`."""
    return subprocess.Popen([sys.executable, "-m", "bench", *arguments], cwd=ROOT, text=True, **options)


def workers_of(pid):
    """Return the workers that process *pid* has started."""
    return [child for child in children(pid) if b"bench.free" in command_line(child)]


def command_line(pid):
    """Return the command line of process *pid*, empty if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


class TestInputs:
    def test_same_bytes_each_time(self):
        """Every run, and every party, gets the same pictures, all different."""
        files = inputs.jpegs(3)

        assert files == inputs.jpegs(3)
        assert len(set(files)) == 3

    def test_like_a_cameras(self):
        """A picture is a JPEG of 640×480 with the bytes of a photograph."""
        for file in inputs.jpegs(3):
            image = Image.open(io.BytesIO(file))

            assert (image.format, image.size) == ("JPEG", (640, 480))
            assert 50_000 < len(file) < 110_000

    def test_job(self):
        """A job's body is JSON with the picture in base64 and no id."""
        assert json.loads(inputs.image_jobs([b"abc"])[0]) == {"input": {"image_base64": "YWJj"}}


class TestCommandLine:
    def test_list(self):
        """--list names every measure."""
        with bench("--list", stdout=subprocess.PIPE) as process:
            listed = [line.split()[0] for line in process.stdout]

        assert listed == [measure.name for part in PARTS for measure in part.measures] + [
            "preprocessing_routes"
        ]
        assert process.returncode == 0

    @pytest.mark.parametrize(
        ("names", "are_whole"),
        [
            ([measure.name for measure in (*bulk.MEASURES, *search.MEASURES)], True),
            ([measure.name for measure in bulk.MEASURES], False),
            ([bulk.QUEUE.name], False),
            ([measure.name for part in PARTS for measure in part.measures], True),
            (
                [
                    measure.name
                    for part in PARTS
                    for measure in part.measures
                    if "infinity" not in measure.name
                ],
                True,
            ),
            (["throughput"], False),
        ],
    )
    def test_what_the_document_may_get(self, names, are_whole):
        """A table of BENCHMARKS.md is written whole or not at all; a peer's measures may be missing."""
        assert _are_sections(names) is are_whole

    def test_a_failing_measure_is_a_row(self):
        """A measure that fails is told in its row, for those that were asked for."""

        def fail(_plan):
            raise RuntimeError("no such\nthing")

        part = Part("x", (Measure("asked", "", ""), Measure("not asked", "", "")), fail)
        rows = _rows(part, Plan(frozenset({"asked"}), QUICK))

        assert [(row.name, row.value, row.detail) for row in rows] == [
            ("asked", None, "failed: RuntimeError: no such thing")
        ]

    def test_interrupted(self):
        """Ctrl-C ends the run with 130 and leaves no process behind."""
        with bench("--quick", "--only", "free_engine", stderr=subprocess.PIPE) as process:
            deadline_s = time.monotonic() + 20
            while not (workers := workers_of(process.pid)) and time.monotonic() < deadline_s:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            told = process.stderr.read()

        assert process.returncode == 130
        assert told.endswith("interrupted; nothing is left running\n")
        assert workers
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


class TestServing:
    def test_small_run(self):
        """The real worker is driven by callers, and what they saw is told; wrong answers are no figures."""
        bodies = inputs.image_jobs(inputs.jpegs(2))
        with serving(DEMO) as served:
            seen = served.load(bodies, callers=4, duration_s=1.0)
            with pytest.raises(RuntimeError, match=r"jobs are FAILED: .*DECODE_ERROR"):
                served.load(inputs.image_jobs([b"no image"]), callers=1, duration_s=0.2)
            with pytest.raises(WrongAnswer):
                served.load(bodies, callers=1, duration_s=0.2, references=np.eye(512)[:2])

        assert seen.jobs > 4
        assert seen.jobs_per_s > 4
        assert 0 < seen.p50_ms <= seen.p95_ms <= seen.p99_ms
        assert seen.driver_cpu_ms < seen.worker_cpu_ms

    def test_first_result(self):
        """The time from the start of a worker to its first result, with what it wrote meanwhile."""
        took_s, log = first_result_s(DEMO, inputs.job({"text": "a red circle"}))

        assert 0.5 < took_s < 60
        assert "fingerprint" in log
