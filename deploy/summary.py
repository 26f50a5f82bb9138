"""What was done, in Markdown: for --summary FILE and for the page of a GitHub job.

It holds what a log may hold: names of secrets, never values. The curl line is not in it, since its signature
would let whoever reads the page run one job.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deploy.caller import urls_of
from deploy.errors import DeployError


if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.api import Json
    from deploy.config import Config
    from deploy.context import Context
    from deploy.smoke import Report

GITHUB_SUMMARY = "GITHUB_STEP_SUMMARY"
STATES = {True: "matches", False: "does NOT match", None: "not known"}


def write_summary(
    context: Context, config: Config, endpoint: Json, *, diff: Sequence[str], report: Report | None
) -> None:
    """Append the summary to --summary FILE, and to the file that GITHUB_STEP_SUMMARY names."""
    text = context.console.clean(summary(context.environment, config, endpoint, diff=diff, report=report))
    github = context.environ.get(GITHUB_SUMMARY, "").strip()
    for path in [context.summary, Path(github) if github else None]:
        if path is not None:
            _append(path, text)


def check_summary(context: Context) -> None:
    """Raise DeployError if --summary FILE cannot be written, before anything is done that it would tell."""
    if context.summary is not None:
        _append(context.summary, "")


def summary(
    environment: str, config: Config, endpoint: Json, *, diff: Sequence[str], report: Report | None
) -> str:
    """Return the summary of one apply."""
    rows = {
        "endpoint": f"`{endpoint['id']}` ({endpoint['name']})",
        "type": config.type,
        "image": f"`{config.image}`",
        "digest": f"`{config.digest}`" if config.digest else "none: the tag may move",
        **{f"URL {name}": f"`{url}`" for name, url in urls_of(endpoint).items()},
        "secrets": ", ".join(f"`{name}`" for name in config.secrets) or "none",
    }
    if report:
        reason = f" ({report.match.reason})" if report.match.reason else ""
        rows["identity"] = STATES[report.match.matches] + reason
        rows["commit"] = f"`{report.identity.get('gitCommit')}`"
    lines = [f"## Deployed to {environment}", "", "| what | value |", "| --- | --- |"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    lines += ["", "### Changes", "", "```diff", *(diff or ["(none)"]), "```", ""]
    if report is None:
        return "\n".join([*lines, "No smoke test was run.", ""])
    lines += [f"### Smoke test {'passed' if report.passed else 'FAILED'} in {report.took_s:.1f} s", ""]
    return "\n".join([*lines, *(f"- {'✓' if passed else '✗'} {line}" for line, passed in report.checks), ""])


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n" if text else "")
    except OSError as fault:
        raise DeployError(
            f"the summary cannot be written: {fault.strerror}", hint="give --summary FILE"
        ) from None
