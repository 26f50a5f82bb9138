"""The command line: `python -m deploy COMMAND`.

The only module of the package that reads the environment. What the user can mend ends in a few lines on
stderr and exit status 1; Ctrl-C in one line that says what state things are in, and exit status 130.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.api import DEFAULT_URL, Api
from deploy.console import UNCHANGED, Console
from deploy.context import Context
from deploy.errors import DeployError
from deploy.flags import overrides_of, parser


if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from deploy.config import Config

INTERRUPTED: Final = 130  # what a shell reports after Ctrl-C
KEY: Final = "RUNPOD_API_KEY"
ALL_BUT_ONE: Final = 2  # of what `smoke` can be given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* name; return the exit status."""
    options, console = parser().parse_args(arguments), Console()
    try:
        return _run(options, console)
    except DeployError as fault:
        hint = f"\nhint: {fault.hint}" if fault.hint else ""
        state = f"\nstate: {console.state}" if console.state != UNCHANGED else ""
        console.error(f"error: {fault.message}{hint}{state}")
        return 1
    except KeyboardInterrupt:
        console.error(f"interrupted; {console.state}")
        return INTERRUPTED


def _run(options: argparse.Namespace, console: Console) -> int:
    if options.command == "cost":
        return _cost(options, console)
    if options.command == "smoke" and (options.environment is None or options.url):
        return _smoke_elsewhere(options, console)
    config = _config(options, console)
    with ExitStack() as opened:
        context = _context(options, console, opened)
        return _of_environment(options, context, config)


def _of_environment(options: argparse.Namespace, context: Context, config: Config | None) -> int:
    """Run a command about an environment; all but rollback need its file."""
    from deploy import apply, destroy, rollback, smoke_command, status  # noqa: PLC0415  (not for --help)

    if options.command == "rollback":
        return rollback.rollback(context, config, options.to)
    assert config is not None
    if options.command == "apply":
        return apply.apply(context, config)
    if options.command == "status":
        return status.status(context, config, as_json=options.json, ask=options.ask)
    if options.command == "smoke":
        return smoke_command.smoke_environment(context, config)
    return destroy.destroy(context, config, with_volume=options.volume)


def _config(options: argparse.Namespace, console: Console) -> Config | None:
    """Return the environment's configuration; its secrets are hidden from here on."""
    from deploy.config import read  # noqa: PLC0415

    try:
        config = read(options.environment, overrides_of(options))
    except DeployError:
        if options.command == "rollback":  # records can do without it
            return None
        raise
    console.hide(os.environ.get(name, "") for name in config.secret_variables)
    return config


def _context(options: argparse.Namespace, console: Console, opened: ExitStack) -> Context:
    from deploy.config import path_of  # noqa: PLC0415
    from deploy.records import Records  # noqa: PLC0415

    name = path_of(options.environment).stem if options.environment else "none"
    return Context(
        api=opened.enter_context(Api(_api_key(console), url=_api_url(options), notice=console.note)),
        console=console,
        records=Records(getattr(options, "records", Path(".deploy")), name),
        environment=name,
        environ=os.environ,
        wait_s=getattr(options, "wait_s", 0.0),
        poll_s=getattr(options, "poll_s", 0.0),
        yes=getattr(options, "yes", False),
        dry_run=getattr(options, "dry_run", False),
        endpoint_id=options.endpoint_id,
        summary=getattr(options, "summary", None),
    )


def _api_key(console: Console) -> str:
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise DeployError(f"{KEY} is not set", hint="make a key in RunPod's console under Settings, API Keys")
    _hide_all(console)
    return key


def _hide_all(console: Console) -> None:
    console.hide(os.environ.get(name, "") for name in (KEY, "EMBEDDING_HMAC_SECRET", "WORKER_TOKEN"))


def _api_url(options: argparse.Namespace) -> str:
    return str(options.api_url or os.environ.get("RUNPOD_API_URL", "").strip() or DEFAULT_URL)


def _smoke_elsewhere(options: argparse.Namespace, console: Console) -> int:
    """Test an endpoint or a service that no environment describes."""
    from deploy import smoke_command  # noqa: PLC0415

    if [options.environment, options.endpoint_id, options.url].count(None) != ALL_BUT_ONE:
        raise DeployError("what is to be tested?", hint="give one of ENV, --endpoint-id ID and --url URL")
    _hide_all(console)
    if options.url:
        return smoke_command.smoke_url(options.url, console, os.environ, options.wait_s, options.poll_s)
    with ExitStack() as opened:
        return smoke_command.smoke_endpoint_id(_context(options, console, opened), options.endpoint_id)


def _cost(options: argparse.Namespace, console: Console) -> int:
    from deploy.cost import Cost, price_range  # noqa: PLC0415

    low, high = price_range(options.price_per_hour)
    cost = Cost(options.images, options.images_per_second, low, high, options.workers)
    for line in cost.lines():
        console.say(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
