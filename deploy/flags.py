"""The command line of `python -m deploy`: its commands, what their `--help` teaches, and their flags."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from deploy.api import DEFAULT_URL


if TYPE_CHECKING:
    from collections.abc import Callable

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  (argparse has no other name)

DESCRIPTION: Final = """\
Create, change, watch, test, roll back and delete a RunPod Serverless endpoint that runs this worker.
An environment is a TOML file in deploy/environments; copy example.toml there, it explains every key.
RUNPOD_API_KEY is read from the environment, and so are the secrets that the file names."""
APPLY: Final = """\
Make RunPod have what the environment's file asks for: show what would change, ask, create or change the
network volume and the endpoint, wait for workers, run a signed smoke test, print a curl line. What is right
is left alone, so a second apply changes nothing, and one that was cut short is finished by the next."""
STATUS: Final = """\
Show the endpoint, its workers and jobs, what differs from the file, the last releases and records. Changes
nothing, and asks no worker: with --ask one that is ready says by a job who it is."""
SMOKE: Final = """\
Send a picture and two texts through a deployed worker, check the vectors and which text is nearer, and hold
its identity against EXPECTED_WORKER_GIT_COMMIT and EXPECTED_WORKER_IMAGE_DIGEST. Jobs are signed with
EMBEDDING_HMAC_SECRET; over HTTP WORKER_TOKEN serves as well. Exit status 0 if every check passed, else 1."""
ROLLBACK: Final = """\
Apply the image and configuration of the last record before what runs whose smoke test passed, or of the
record that --to names. `status` lists the records. A second rollback goes further back. It is an apply:
shown, asked, waited for and tested."""
DESTROY: Final = """\
Delete the endpoint, its queue and its workers. The network volume stays unless --volume is given: what is on
it cannot be had back. The endpoint's name has to be typed, or --yes given."""
COST: Final = """\
Reckon what embedding a number of images costs. Speed and price are yours to give: measure the one with
`make bench`, read the other in RunPod's price list."""


MIN_POLL_S, MAX_POLL_S, MAX_WAIT_S = 0.01, 3600.0, 604_800.0


def _seconds(least_s: float, most_s: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not least_s <= seconds <= most_s:
            raise argparse.ArgumentTypeError(f"give {least_s:g} to {most_s:g} seconds, not {text}")
        return seconds

    return parse


def _list(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


OVERRIDES: Final[dict[str, tuple[str, Any, str]]] = {
    "image": ("image", str, "the image to run, best as NAME@sha256:DIGEST"),
    "gpu-pools": (
        "gpu.pools",
        _list,
        "comma-separated pools",
    ),
    "gpu-count": ("gpu.count", int, "GPUs a worker"),
    "data-center": (
        "data_centers",
        _list,
        "where, comma-separated",
    ),
    "timeout-s": ("execution_timeout_s", int, "how long a job may run: 600 to 86400"),
    "workers-min": ("workers.min", int, "workers kept running"),
    "workers-max": ("workers.max", int, "workers at most; 0 drains: none at least, too"),
    "idle-timeout-s": ("workers.idle_timeout_s", int, "how long an idle worker is kept: 1 to 3600"),
    "queue-delay-s": ("scaling.queue_delay_s", float, "scale when a job has waited so long: 0.5 or more"),
    "request-count": ("scaling.request_count", int, "scale at so many requests a worker"),
    "container-disk-gb": ("container_disk_gb", int, "a worker's own disk"),
}


def parser() -> argparse.ArgumentParser:
    """Return the parser; the parsed namespace has `command` and that command's flags."""
    top = argparse.ArgumentParser(
        prog="python -m deploy", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    apply = _command(commands, "apply", "create or change the endpoint, and prove that it serves", APPLY)
    _add_environment(apply)
    _add_waiting(apply)
    _add_overrides(apply)
    _add_changing(apply)
    status = _command(commands, "status", "show how it stands", STATUS)
    _add_environment(status)
    _add_waiting(status)
    status.add_argument("--json", action="store_true", help="as one JSON object")
    status.add_argument(
        "--ask",
        action="store_true",
        help="send a job that asks a ready worker who it is; a worker that is asked stays, and is paid for",
    )
    _add_smoke(_command(commands, "smoke", "test what is deployed", SMOKE))
    rollback = _command(commands, "rollback", "go back to what was applied before", ROLLBACK)
    _add_environment(rollback)
    _add_waiting(rollback)
    rollback.add_argument("--to", metavar="ID", help="the record to go back to (the last good one before)")
    _add_changing(rollback)
    destroy = _command(commands, "destroy", "delete the endpoint", DESTROY)
    _add_environment(destroy)
    destroy.add_argument("--volume", action="store_true", help="delete the network volume too")
    _add_asking(destroy)
    _add_cost(_command(commands, "cost", "reckon what a number of images costs", COST))
    return top


def overrides_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the dotted keys that flags set."""
    given = {key: getattr(options, flag.replace("-", "_"), None) for flag, (key, _, _) in OVERRIDES.items()}
    chosen = {key: value for key, value in given.items() if value is not None}
    if chosen.get("workers.max") == 0:
        chosen.setdefault("workers.min", 0)
    return chosen


def _command(commands: Commands, name: str, about: str, description: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=about, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument(
        "--api-url", metavar="URL", help=f"RunPod's management API (RUNPOD_API_URL, else {DEFAULT_URL})"
    ) if name != "cost" else None
    return command


def _add_environment(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "environment", metavar="ENV", help="a file in deploy/environments without .toml, or the path of one"
    )
    command.add_argument("--endpoint-id", metavar="ID", help="the endpoint, where several have the name")
    command.add_argument(
        "--records",
        type=Path,
        default=Path(".deploy"),
        metavar="DIR",
        help="where records are kept (.deploy)",
    )


def _add_waiting(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--wait-s",
        type=_seconds(0, MAX_WAIT_S),
        default=900.0,
        metavar="SECONDS",
        help="for workers and smoke test together (900)",
    )
    command.add_argument(
        "--poll-s",
        type=_seconds(MIN_POLL_S, MAX_POLL_S),
        default=3.0,
        metavar="SECONDS",
        help="how often to look at workers meanwhile (3)",
    )


def _add_overrides(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("instead of what the file says")
    for flag, (key, kind, about) in OVERRIDES.items():
        group.add_argument(f"--{flag}", type=kind, metavar=key.rpartition(".")[2].upper(), help=about)


def _add_asking(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="do not ask; needed where nobody can be asked")
    command.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")


def _add_changing(command: argparse.ArgumentParser) -> None:
    _add_asking(command)
    command.add_argument("--summary", type=Path, metavar="FILE", help="append a summary in Markdown")


def _add_smoke(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "environment", nargs="?", metavar="ENV", help="the environment whose endpoint is tested"
    )
    command.add_argument(
        "--endpoint-id",
        metavar="ID",
        help="instead of ENV, any endpoint; with ENV, which, where several have the name",
    )
    command.add_argument(
        "--url",
        metavar="URL",
        help="instead of both, a worker that serves HTTP, without an API key, or .../v2/ID, a queue",
    )
    _add_waiting(command)


def _add_cost(command: argparse.ArgumentParser) -> None:
    command.add_argument("--images", type=int, required=True, metavar="N", help="how many images")
    command.add_argument(
        "--images-per-second", type=float, required=True, metavar="N", help="what one worker does"
    )
    command.add_argument(
        "--price-per-hour", required=True, metavar="LOW[-HIGH]", help="what a worker costs an hour"
    )
    command.add_argument("--workers", type=int, default=1, metavar="K", help="how many work at once (1)")
