"""How `python handler.py` decides what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding.errors import StartupError
from embedding.serve.mode import Mode, check_test_input, choose
from embedding.settings import Settings


QUEUE = {"RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1/job-take/$ID?gpu=x"}
SERVERLESS = {"RUNPOD_SERVERLESS": "1"}


@pytest.mark.parametrize(
    ("environment", "arguments", "has_test_input", "mode"),
    [
        ({}, [], True, Mode.SMOKE_TEST),
        ({"RUNPOD_SERVERLESS": "0"}, [], True, Mode.SMOKE_TEST),
        (QUEUE, [], False, Mode.SMOKE_TEST),
        (SERVERLESS, [], True, Mode.DRY_RUN),
        (SERVERLESS, [], False, Mode.SMOKE_TEST),
        (SERVERLESS, ["--test_input", "{}"], False, Mode.DRY_RUN),
        (SERVERLESS, ["--test_input={}"], False, Mode.DRY_RUN),
        (SERVERLESS, ["--rp_serve_api", "--rp_api_port", "8001"], True, Mode.LOCAL_API),
        (SERVERLESS | QUEUE, [], True, Mode.QUEUE),
        (SERVERLESS | QUEUE, ["--test_input", "{}"], True, Mode.QUEUE),
        (SERVERLESS, ["--rp_serve"], True, Mode.LOCAL_API),
        (SERVERLESS | {"RUNPOD_REALTIME_PORT": "8001"}, [], True, Mode.LOCAL_API),
        (SERVERLESS | QUEUE, ["--rp_serve_api"], True, Mode.LOCAL_API),
    ],
)
def test_mode_follows_environment_and_arguments(tmp_path, environment, arguments, has_test_input, mode):
    """The queue's address, the SDK's own flags and test_input.json decide; in doubt the mode that serves."""
    if has_test_input:
        (tmp_path / "test_input.json").write_text("{}", encoding="utf-8")

    assert choose(Settings.from_env(environment), arguments, tmp_path) is mode


GOOD = '{"input": {"text": "x"}}'


class TestDryRunInput:
    @pytest.mark.parametrize("arguments", [["--test_input", GOOD], [f"--test_input={GOOD}"]])
    def test_job_on_the_command_line(self, tmp_path, arguments):
        """A job is taken in either spelling of the flag."""
        check_test_input(arguments, tmp_path)

    @pytest.mark.parametrize("content", [b"{", b"[]", b'{"input": null}', b'{"text": "x"}', b"\xff", b""])
    def test_what_is_no_job_is_refused(self, tmp_path, content):
        """From the file or the flag, what is no job is named in one line before the model is loaded."""
        (tmp_path / "test_input.json").write_bytes(content)
        with pytest.raises(StartupError, match=r"test_input\.json"):
            check_test_input([], tmp_path)
        with pytest.raises(StartupError, match="--test_input"):
            check_test_input(["--test_input", content.decode("utf-8", "replace")], tmp_path)

    def test_file_of_the_repository_is_a_job(self):
        """The test_input.json that ships is one."""
        check_test_input([], Path(__file__).parents[2])


def test_only_these_serve_strangers():
    """The local modes need no secret and may run the demo model."""
    assert [mode for mode in Mode if mode.serves] == [Mode.QUEUE, Mode.HTTP, Mode.LOCAL_API]
