"""The environment: defaults, limits, and what is said of a bad value."""

from __future__ import annotations

from typing import get_args

import pytest

from embedding.errors import StartupError
from embedding.settings import Settings, environment_of_children, unknown_variables


# For each variable the values at both ends of its range, and those just outside.
RANGES = {
    "MODEL_NAME": ("served_name", ["m", "m" * 127, "m" * 128], ["m" * 129]),
    "GPU_DEVICE": ("gpu_device", ["0", "1", "7"], ["-1", "cuda"]),
    "AUTH_TIME_WINDOW_SECONDS": ("auth_window_s", ["1", "2", "3599", "3600"], ["0", "3601"]),
    "AUTH_MIN_VERSION": ("auth_min_version", ["1", "2", "3"], ["0", "4"]),
    "MAX_BATCH_SIZE": ("max_batch_size", ["1", "2", "4095", "4096"], ["0", "4097", "many", "1.5"]),
    "MAX_RESPONSE_SIZE_BYTES": ("max_response_bytes", ["1", "2"], ["0", "-1", "1e6"]),
    "MAX_REQUEST_SIZE_BYTES": ("max_request_bytes", ["1", "2"], ["0", "-1", "1e6"]),
    "PORT": ("port", ["0", "1", "65534", "65535"], ["-1", "65536", "http"]),
    "PORT_HEALTH": ("port_health", ["1", "2", "65534", "65535"], ["0", "65536"]),
    "WORKER_CONCURRENCY": ("worker_concurrency", ["3", "4", "4095", "4096"], ["2", "4097"]),
    "TOTAL_REQUEST_TIMEOUT_S": (
        "job_timeout_s",
        ["0.001", "86399", "86400"],
        ["0", "-1", "86400.001", "86401"],
    ),
    "CACHE_MAX_BYTES": ("cache_max_bytes", ["0", "1", "2"], ["-1", "1e6"]),
    "MAX_IMAGE_SIZE_BYTES": ("max_image_bytes", ["1", "2", "536870911", "536870912"], ["0", "536870913"]),
    "IMAGE_DOWNLOAD_TIMEOUT_S": (
        "download_timeout_s",
        ["0.001", "599", "600"],
        ["0", "-1", "600.001", "601"],
    ),
    "DOWNLOAD_CONCURRENCY": ("download_concurrency", ["1", "2", "1023", "1024"], ["0", "1025"]),
}
CHOICES = {
    "CLIP_PRECISION": ("precision", ["auto", "fp32", "fp16", "bf16"], ["fp8", "FP16"]),
    "JOB_LOOP": ("job_loop", ["event", "sdk"], ["own", "SDK"]),
    "RUNPOD_SERVERLESS": ("serverless", ["0", "1", "true"], ["2", "maybe"]),
    "SERVE_PAGE": ("serve_page", ["0", "1", "true"], ["2", "maybe"]),
    "WORKER_EVENTS": ("worker_events", ["0", "1", "true"], ["2", "maybe"]),
    "RUNPOD_LOG_LEVEL": (
        "log_level", ["NOTSET", "TRACE", "DEBUG", "INFO", "debug", "WARN", "ERROR"], ["LOUD", "WARNING"]
    ),
}  # fmt: skip
DEFAULTS = {
    "serverless": False,
    "worker_mode": "queue",
    "host": "0.0.0.0",  # noqa: S104
    "port": 8000,
    "serve_page": True,
    "gpu_device": 0,
    "precision": "auto",
    "allow_demo_model": False,
    "model_roots": ("/models", "/runpod-volume/models"),
    "allow_insecure_auth": False,
    "allow_operator_actions": False,
    "auth_window_s": 120,
    "auth_min_version": 1,
    "max_batch_size": 64,
    "max_response_bytes": 10_000_000,
    "max_request_bytes": 30_000_000,
    "worker_concurrency": 128,
    "job_loop": "event",
    "job_timeout_s": 120.0,
    "cache_max_bytes": 0,
    "max_image_bytes": 10_485_760,
    "download_timeout_s": 10.0,
    "download_concurrency": 32,
    "allow_http": False,
    "allowed_domains": (),
    "list_files_roots": ("/runpod-volume", "/models"),
    "worker_events": False,
    "realtime_port": 0,
    "log_level": "INFO",
}


class TestLimits:
    @pytest.mark.parametrize(("name", "row"), [*RANGES.items(), *CHOICES.items()], ids=[*RANGES, *CHOICES])
    def test_each_variable_has_its_range(self, name, row):
        """A value inside the limits is taken, one just outside is refused by the variable's name."""
        field, good, bad = row
        for value in good:
            taken = str(getattr(Settings.from_env({name: value}), field))
            assert taken in {value, f"{value}.0", value.upper(), str(value in {"1", "true"})}
        for value in bad:
            with pytest.raises(StartupError, match=name):
                Settings.from_env({name: value})

    def test_every_range_has_its_row(self):
        """A bound that is added to a setting needs its values here."""
        bounded = {field.alias for field in Settings.model_fields.values() if has_bounds(field)}

        assert bounded == set(RANGES)

    def test_defaults(self):
        """Without any variable the worker runs by these numbers; whatever is not here is not set."""
        assert Settings.from_env({}).model_dump(exclude_none=True) == DEFAULTS

    def test_all_faults_are_told_together(self):
        """Two bad variables are both named."""
        with pytest.raises(StartupError, match=r"MAX_BATCH_SIZE.*DOWNLOAD_CONCURRENCY"):
            Settings.from_env({"MAX_BATCH_SIZE": "0", "DOWNLOAD_CONCURRENCY": "x"})

    def test_empty_counts_as_not_set(self):
        """`-e CLIP_MODEL_NAME=` is the same as leaving it out."""
        assert Settings.from_env({"CLIP_MODEL_NAME": "", "MAX_BATCH_SIZE": " "}) == Settings.from_env({})

    def test_lists_are_split_at_commas(self):
        """Domains are given as a comma-separated list."""
        assert Settings.from_env({"ALLOWED_IMAGE_DOMAINS": "a.org, b.org,"}).allowed_domains == (
            "a.org",
            "b.org",
        )


def has_bounds(field) -> bool:
    """Whether a field, or an alternative of it, is bounded by a number."""
    stated = [field.metadata, *(getattr(part, "__metadata__", ()) for part in get_args(field.annotation))]
    names = {"ge", "gt", "le", "lt", "min_length", "max_length"}
    return any(hasattr(bound, name) for bounds in stated for bound in bounds for name in names)


class TestSecrets:
    def test_repr_hides_the_secret(self):
        """Neither repr nor str of the settings shows a secret."""
        settings = Settings.from_env({"EMBEDDING_HMAC_SECRET": "correct-horse-battery-staple-0123"})

        assert "horse" not in repr(settings) + str(settings)

    def test_errors_never_quote_values(self):
        """A value that is refused is not repeated, in case a secret stands in the wrong variable."""
        with pytest.raises(StartupError) as fault:
            Settings.from_env({"MAX_BATCH_SIZE": "hunter2"})

        assert "hunter2" not in str(fault.value)

    def test_children_get_none(self):
        """What is started by the worker gets neither its secrets nor what the platform tells it alone."""
        kept = {"PATH": "/bin", "HF_TOKEN": "hf", "HF_ENDPOINT": "http://x", "MAX_BATCH_SIZE": "8"}
        secrets = {
            "EMBEDDING_HMAC_SECRET": "s",
            "WORKER_TOKEN": "t",
            "RUNPOD_AI_API_KEY": "k",
            "RUNPOD_X": "y",
        }

        assert environment_of_children(kept | secrets) == kept


class TestSpelling:
    def test_near_misses_are_told(self):
        """A variable that looks like a mistyped one of ours is named, with ours."""
        told = unknown_variables({"MAX_BATCHSIZE": "1", "HOME": "x", "PATH": "y"})

        assert told == ["MAX_BATCHSIZE is not a setting of this worker; did you mean MAX_BATCH_SIZE?"]
