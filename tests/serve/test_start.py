"""What the environment asks for reaches the parts that obey it."""

from __future__ import annotations

import pytest

from embedding.errors import AuthFailed, StartupError
from embedding.model.engine import Engine
from embedding.serve import start
from embedding.serve.access import Access
from embedding.serve.mode import Mode
from embedding.settings import Settings
from tests.fakes import FakeModel


SECRET = "an-example-secret-of-at-least-32-bytes"


def test_download_and_image_limits_arrive():
    """Every setting that bounds downloads and images stands in the stage that enforces it."""
    settings = Settings.from_env(
        {
            "MAX_IMAGE_SIZE_BYTES": "1234",
            "IMAGE_DOWNLOAD_TIMEOUT_S": "7",
            "ALLOW_HTTP_URLS": "1",
            "ALLOWED_IMAGE_DOMAINS": "a.org,b.org",
            "DOWNLOAD_CONCURRENCY": "5",
        }
    )
    pipeline = start._pipeline(settings, Engine(FakeModel), start.fetcher_of(settings))
    limits = pipeline._fetcher._limits

    assert (limits.max_bytes, limits.timeout_s, limits.allow_http) == (1234, 7, True)
    assert limits.allowed_domains == ("a.org", "b.org")
    assert pipeline._image_limits.max_bytes == 1234
    assert pipeline._download_threads._max_workers == 5


@pytest.mark.parametrize("mode", [Mode.QUEUE, Mode.LOCAL_API])
class TestSignatures:
    def test_are_required_to_serve(self, mode):
        """Without a secret a serving mode does not start."""
        with pytest.raises(StartupError, match="EMBEDDING_HMAC_SECRET is not set"):
            Access.of(Settings.from_env({}), mode)

    def test_settings_reach_the_verifier(self, mode):
        """Window and oldest version are those of the environment."""
        settings = Settings.from_env(
            {"EMBEDDING_HMAC_SECRET": SECRET, "AUTH_MIN_VERSION": "3", "AUTH_TIME_WINDOW_SECONDS": "9"}
        )
        verifier = Access.of(settings, mode).verifier

        assert (verifier._min_version, verifier._window_s) == (3, 9)
        with pytest.raises(AuthFailed):
            verifier.verify_job({"text": "x"}, job_id=None)

    def test_can_be_given_up_only_by_name(self, mode):
        """ALLOW_INSECURE_AUTH=1 alone lets a worker serve unsigned jobs."""
        assert Access.of(Settings.from_env({"ALLOW_INSECURE_AUTH": "1"}), mode).is_open


@pytest.mark.parametrize("mode", [Mode.DRY_RUN, Mode.SMOKE_TEST])
def test_local_modes_need_neither_secret_nor_model(mode):
    """The smoke test and the dry run start with nothing set."""
    settings = Settings.from_env({})

    assert Access.of(settings, mode).is_open
    start._refuse_demo(settings, mode)
