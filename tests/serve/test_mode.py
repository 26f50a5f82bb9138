"""How `python handler.py` decides what to do."""

from __future__ import annotations

import pytest

from embedding.serve.mode import Mode, choose
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


def test_only_queue_and_local_api_serve_strangers():
    """The local modes need no secret and may run the demo model."""
    assert [mode for mode in Mode if mode.serves] == [Mode.QUEUE, Mode.LOCAL_API]
