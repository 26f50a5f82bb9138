"""Prove that an endpoint serves: wait for a worker, run the smoke test, record and sum up how it went.

With workers.min 0 nothing starts before a job does: there the smoke test's first job wakes a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.caller import HttpCaller, QueueCaller, key_of
from deploy.ready import standing, wait_ready
from deploy.records import FAILED, PASSED, Record
from deploy.smoke import Expected, Report, smoke_test
from deploy.summary import write_summary


if TYPE_CHECKING:
    from deploy.api import Json
    from deploy.caller import Caller
    from deploy.config import Config
    from deploy.context import Context, Deadline


def prove(context: Context, config: Config, endpoint: Json, record: Record, diff: list[str]) -> int:
    """Wait for a worker, run the smoke test, record and sum up; return the exit status."""
    console, deadline = context.console, context.deadline()
    if config.workers.max == 0:
        console.warn("workers.max is 0: nothing can run, so there is no smoke test")
        write_summary(context, config, endpoint, diff=diff, report=None)
        return 0
    if config.workers.min > 0:
        wait_ready(context, endpoint["id"], deadline)
    report, curl = smoke_endpoint(context, endpoint, Expected.of(context.environ, config.digest), deadline)
    context.records.add(record.told(PASSED if report.passed else FAILED, report.identity.get("gitCommit")))
    write_summary(context, config, endpoint, diff=diff, report=report)
    if report.passed:
        console.say(f"try it, within an hour and once; `python -m embedding sign` signs other jobs:\n{curl}")
        return 0
    console.say(f"the endpoint stays as it is; `python -m deploy rollback {context.environment}` goes back")
    return 1


def smoke_endpoint(
    context: Context, endpoint: Json, expected: Expected, deadline: Deadline
) -> tuple[Report, str]:
    """Run the smoke test against an endpoint; return its report and a curl line."""
    urls = endpoint["requestUrls"]
    with context.console.waiting("smoke test") as tell:

        def look(what: str) -> str | None:
            now = standing(context.api, endpoint["id"])
            tell(f"{what}; {now.line}")
            return now.hint

        caller: Caller
        key = key_of(context.environ)
        if "run" in urls:
            caller = QueueCaller(context.api, urls, key, context.poll_s, look)
        else:
            caller = HttpCaller(context.api, urls["base"], key, context.poll_s, look, "RUNPOD_API_KEY")
        report = smoke_test(
            caller,
            context.console,
            expected=expected,
            deadline=deadline,
            is_rolling=lambda: standing(context.api, endpoint["id"]).stale > 0,
        )
    return report, caller.curl()
