"""The environment: defaults, limits, and what is said of a bad value."""

from __future__ import annotations

import pytest

from embedding.errors import StartupError
from embedding.settings import Settings, unknown_variables


class TestLimits:
    @pytest.mark.parametrize(
        ("name", "field", "good", "bad"),
        [
            ("MAX_BATCH_SIZE", "max_batch_size", ["1", "4096"], ["0", "4097", "many", "1.5"]),
            ("WORKER_CONCURRENCY", "worker_concurrency", ["3", "4096"], ["2", "4097"]),
            ("AUTH_TIME_WINDOW_SECONDS", "auth_window_s", ["1", "3600"], ["0", "3601"]),
            ("AUTH_MIN_VERSION", "auth_min_version", ["1", "3"], ["0", "4"]),
            ("MAX_IMAGE_SIZE_BYTES", "max_image_bytes", ["1", "536870912"], ["0", "536870913"]),
            ("IMAGE_DOWNLOAD_TIMEOUT_S", "download_timeout_s", ["0.1", "600"], ["0", "600.1"]),
            ("DOWNLOAD_CONCURRENCY", "download_concurrency", ["1", "1024"], ["0", "1025"]),
            ("TOTAL_REQUEST_TIMEOUT_S", "job_timeout_s", ["0.5", "86400"], ["0", "-1", "86401"]),
            ("GPU_DEVICE", "gpu_device", ["0", "7"], ["-1", "cuda"]),
            ("CLIP_PRECISION", "precision", ["auto", "fp32", "fp16", "bf16"], ["fp8", "FP16"]),
            ("RUNPOD_SERVERLESS", "serverless", ["0", "1", "true"], ["2", "maybe"]),
            ("RUNPOD_LOG_LEVEL", "log_level", ["INFO", "debug"], ["LOUD"]),
        ],
    )
    def test_each_variable_has_its_range(self, name, field, good, bad):
        """A value inside the limits is taken, one outside is refused by the variable's name."""
        for value in good:
            taken = str(getattr(Settings.from_env({name: value}), field))
            assert taken in {value, f"{value}.0", value.upper(), str(value in {"1", "true"})}
        for value in bad:
            with pytest.raises(StartupError, match=name):
                Settings.from_env({name: value})

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


class TestSpelling:
    def test_near_misses_are_told(self):
        """A variable that looks like a mistyped one of ours is named, with ours."""
        told = unknown_variables({"MAX_BATCHSIZE": "1", "HOME": "x", "PATH": "y"})

        assert told == ["MAX_BATCHSIZE is not a setting of this worker; did you mean MAX_BATCH_SIZE?"]
