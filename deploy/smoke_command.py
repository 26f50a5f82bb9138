"""`python -m deploy smoke`: the smoke test of an environment, of an endpoint by its id, or of an address."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.api import Api, checked_url
from deploy.caller import Caller, HttpCaller, QueueCaller, key_of, queue_urls
from deploy.config import digest_of
from deploy.context import Deadline
from deploy.errors import DeployError
from deploy.plan import find_endpoint
from deploy.prove import smoke_endpoint
from deploy.smoke import Expected, smoke_test


if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.api import Json
    from deploy.config import Config
    from deploy.console import Console
    from deploy.context import Context

KEY, TOKEN = "RUNPOD_API_KEY", "WORKER_TOKEN"
RUNPOD_HOST = ".runpod.ai"


def smoke_environment(context: Context, config: Config) -> int:
    """Test the endpoint of *config*; return 0 if every check passed, else 1."""
    endpoint = find_endpoint(context.api, config.name, context.endpoint_id)
    if endpoint is None:
        raise DeployError(f"no endpoint is called {config.name}", hint="`apply` creates it")
    return _smoke(context, endpoint)


def smoke_endpoint_id(context: Context, endpoint_id: str) -> int:
    """Test the endpoint with this id; return 0 if every check passed, else 1."""
    return _smoke(context, context.api.endpoint(endpoint_id))


def _smoke(context: Context, endpoint: Json) -> int:
    """Test *endpoint* as RunPod has it, whatever a file says of its image."""
    expected = Expected.of(context.environ, digest_of(endpoint.get("image")))
    report, _ = smoke_endpoint(context, endpoint, expected, context.deadline())
    return int(not report.passed)


def smoke_url(url: str, console: Console, environ: Mapping[str, str], wait_s: float, poll_s: float) -> int:
    """Test what answers at *url*: a queue where it ends in /v2/ID, else a worker that serves HTTP."""
    urls = queue_urls(checked_url(url))
    through_runpod = urls is not None or str(urlsplit(url).hostname).endswith(RUNPOD_HOST)
    token = environ.get(TOKEN, "").partition(",")[0].strip()
    bearer = KEY if through_runpod or not token else TOKEN
    if through_runpod and not environ.get(KEY, "").strip():
        raise DeployError(f"{KEY} is not set", hint="RunPod lets nobody through to a worker without it")
    value = token if bearer == TOKEN else environ.get(KEY, "").strip() if through_runpod else None
    with Api(value, notice=console.say) as api, console.waiting(f"smoke test of {url}") as tell:

        def look(what: str) -> None:
            tell(what)

        key = key_of(environ)
        caller: Caller = (
            QueueCaller(api, urls, key, poll_s, look)
            if urls
            else HttpCaller(api, url, key, poll_s, look, bearer, is_new=False)
        )
        report = smoke_test(caller, console, expected=Expected.of(environ), deadline=Deadline.after(wait_s))
    return int(not report.passed)
