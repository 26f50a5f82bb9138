"""Delete an endpoint, and with --volume its network volume: shown first, agreed to by typing the name.

Deleting ends all workers and cancels all jobs, queued and running. A volume stays unless it is asked for,
because what is on it cannot be had back; while another endpoint is attached to it, it stays in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.errors import DeployError
from deploy.plan import find_endpoint, find_volume


if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.api import Json
    from deploy.config import Config
    from deploy.console import Console
    from deploy.context import Context


def destroy(context: Context, config: Config, *, with_volume: bool) -> int:
    """Delete what *config* named; return the exit status: 1 if nobody agreed."""
    with context.lock():
        endpoint = find_endpoint(context.api, config.name, context.endpoint_id)
        volume = find_volume(context.api, config.volume) if with_volume and config.volume else None
        if volume:
            _refuse_shared(context, volume, endpoint)
        lines = _lines(endpoint, volume)
        if not lines:
            context.console.say(f"nothing is there: no endpoint is called {config.name}")
            return 0
        for line in lines:
            context.console.say(line, style="red")
        if context.dry_run:
            context.console.say("nothing was sent")
            return 0
        if not _is_agreed(context, config.name):
            context.console.say("nothing was deleted")
            return 1
        return _delete(context, endpoint, volume)


def _refuse_shared(context: Context, volume: Json, endpoint: Json | None) -> None:
    own_id = endpoint["id"] if endpoint else None
    others = [
        f"{each['name']} ({each['id']})"
        for each in context.api.endpoints()
        if volume["id"] in (each.get("networkVolumes") or []) and each["id"] != own_id
    ]
    if others:
        raise DeployError(f"network volume {volume['id']} is attached to {', '.join(others)} too; it stays")


def _lines(endpoint: Json | None, volume: Json | None) -> list[str]:
    lines = []
    if endpoint:
        lines.append(f"- endpoint {endpoint['name']} ({endpoint['id']}), with its queue and all its workers")
    if volume:
        lines.append(
            f"- network volume {volume['name']} ({volume['id']}), {volume['size']} GB in "
            f"{volume['dataCenter']}, with all that is on it"
        )
    return lines


def _is_agreed(context: Context, name: str) -> bool:
    if context.yes:
        return True
    if not context.console.is_terminal:
        raise DeployError(
            "nobody can be asked whether to do this", hint="add --yes, or --dry-run to look only"
        )
    return context.console.ask_for(f"type {name} to delete this: ") == name


def _delete(context: Context, endpoint: Json | None, volume: Json | None) -> int:
    if endpoint:
        _delete_one(context.console, f"endpoint {endpoint['id']}", context.api.delete_endpoint, endpoint)
    if volume:
        _delete_one(context.console, f"network volume {volume['id']}", context.api.delete_volume, volume)
    return 0


def _delete_one(console: Console, name: str, delete: Callable[[str], bool], what: Json) -> None:
    with console.changing(f"{name} may or may not be deleted") as did:
        told = f"{name} {'is deleted' if delete(what['id']) else 'was gone already'}"
        did(told)
    console.say(told)
