"""Prove that an endpoint serves: wait for a worker, run the smoke test, record and sum up how it went.

With workers.min 0 nothing starts before a job does: there the smoke test's first job wakes a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.caller import caller_of, key_of
from deploy.errors import DeployError
from deploy.ready import glance, wait_ready
from deploy.records import FAILED, PASSED, Record
from deploy.smoke import Expected, Report, smoke_test
from deploy.summary import write_summary


if TYPE_CHECKING:
    from deploy.api import Json
    from deploy.config import Config
    from deploy.context import Context, Deadline


def prove(context: Context, config: Config, endpoint: Json, record: Record, diff: list[str]) -> int:
    """Wait for a worker, run the smoke test, record and sum up; return the exit status."""
    console, deadline = context.console, context.deadline()
    if config.workers.max == 0:
        console.warn("workers.max is 0: nothing can run, so there is no smoke test")
        write_summary(context, config, endpoint, diff=diff, report=None)
        return 0
    report, curl = _report(context, config, endpoint, deadline)
    context.records.add(
        record.told(PASSED if report.passed else FAILED, commit=report.identity.get("gitCommit"))
    )
    console.state = f"endpoint {endpoint['id']} is as asked; its smoke test has ended"
    write_summary(context, config, endpoint, diff=diff, report=report)
    if report.passed:
        console.say(f"try it, within an hour and once; `python -m embedding sign` signs other jobs:\n{curl}")
        return 0
    console.say(f"the endpoint stays as it is; `python -m deploy rollback {context.environment}` goes back")
    return 1


def _report(context: Context, config: Config, endpoint: Json, deadline: Deadline) -> tuple[Report, str]:
    if config.workers.min > 0:
        try:
            wait_ready(context, endpoint["id"], deadline)
        except DeployError as failed:
            report = Report.of_failure(failed, context.wait_s)
            report.print(context.console)
            return report, ""
    return smoke_endpoint(context, endpoint, Expected.of(context.environ, config.digest), deadline)


def smoke_endpoint(
    context: Context, endpoint: Json, expected: Expected, deadline: Deadline
) -> tuple[Report, str]:
    """Run the smoke test against an endpoint; return its report and a curl line."""
    with context.console.waiting("smoke test") as tell:

        def look(what: str) -> str | None:
            now = glance(context.api, endpoint["id"], once=True)
            tell(f"{what}; {now.line}" if now else what)
            return now.hint if now else None

        def older() -> int | None:
            now = glance(context.api, endpoint["id"])
            return now.stale if now else None

        key = key_of(context.environ)
        caller = caller_of(context.api, endpoint, key=key, poll_s=context.poll_s, look=look)
        report = smoke_test(
            caller,
            context.console,
            expected=expected,
            deadline=deadline,
            older=older,
        )
    return report, caller.curl()
