"""Go back to what was applied before: image and configuration of an earlier record, as any apply.

What runs decides where back is. If it is what the last record says, back is the good record before that one;
behind a rollback, before the record that it went to. If something else runs, applied on another machine, in
the console or by a command that was cut short, back is the last good record itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from deploy.apply import apply_locked
from deploy.config import parse
from deploy.errors import DeployError
from deploy.plan import find_endpoint, is_like
from deploy.records import PASSED, REFUSED, SENT, Record


if TYPE_CHECKING:
    from deploy.config import Config
    from deploy.context import Context

SHOWN_IMAGES: Final = 5
IMAGE_FIELD: Final = "image"  # RunPod's releases call it `template.imageName`


def rollback(context: Context, config: Config | None, to: str | None) -> int:
    """Apply the record *to*, or the last good one before what runs; return the exit status.

    *config* is the environment's file where there is one: it names the endpoint if no record is left.
    """
    with context.lock():
        records = context.records.of(config.name if config else None)
        if not records:
            raise _without_records(context, config)
        target = _named(records, to) if to else _before(context, records)
        context.console.say(f"back to {target.id} of {target.time}: {target.image} ({target.outcome})")
        earlier = parse(target.config, source=f"record {target.id}")
        status = apply_locked(context, earlier, back_to=target.id)
    if not context.dry_run:
        context.console.say(
            "the environment's file is as it was: name this image there before the next apply"
        )
    return status


def _named(records: list[Record], to: str) -> Record:
    found = [record for record in records if record.id == to]
    if not found:
        raise DeployError(f"there is no record {to}", hint=f"there are: {_ids(records)}")
    return found[0]


def _before(context: Context, records: list[Record]) -> Record:
    """Return the newest record before what runs whose smoke test passed."""
    taken = [each for each in records if each.outcome != REFUSED]
    good = [each for each in taken if each.outcome == PASSED]
    last = taken[-1] if taken else None
    if last and last.outcome == SENT and last.back_to:  # a rollback that was cut short is finished first
        return _named(records, last.back_to)
    if last and _is_live(context, last):
        place = _origin(taken)
        good = [each for each in taken[:place] if each in good and each.config != last.config]
    if not good:
        raise DeployError(
            f"no record before {records[-1].id} had a smoke test that passed",
            hint=f"--to ID takes any: {_ids(records)}",
        )
    return good[-1]


def _is_live(context: Context, record: Record) -> bool:
    """Return whether the endpoint is what *record* asked for."""
    config = parse(record.config, source=f"record {record.id}")
    endpoint = find_endpoint(context.api, config.name, context.endpoint_id)
    return endpoint is not None and is_like(endpoint, config)


def _origin(records: list[Record]) -> int:
    """Return the place of the last record, or of the one that it, as a rollback, went back to."""
    places = {record.id: place for place, record in enumerate(records)}
    place = len(records) - 1
    while (earlier := places.get(records[place].back_to or "", place)) < place:
        place = earlier
    return place


def _ids(records: list[Record]) -> str:
    return ", ".join(f"{each.id} ({each.outcome})" for each in records)


def _without_records(context: Context, config: Config | None) -> DeployError:
    """Return what to do without records: the images that RunPod's releases name."""
    message = f"there are no records of {context.environment} here"
    endpoint = find_endpoint(context.api, config.name, context.endpoint_id) if config else None
    if endpoint is None:
        return DeployError(message, hint="give --records DIR, the folder that `apply` wrote them to")
    images = earlier_images(context, endpoint["id"], endpoint.get("image"))
    if not images:
        return DeployError(message, hint="RunPod's releases name no other image; apply one with --image")
    told = "\n".join(f"  {image}" for image in images)
    return DeployError(
        f"{message}; before {endpoint.get('image')}, RunPod's releases had\n{told}",
        hint=f"python -m deploy apply {context.environment} --image IMAGE",
    )


def earlier_images(context: Context, endpoint_id: str, current: str | None) -> list[str]:
    """Return the images of RunPod's release history, newest first, without *current*."""
    images: dict[str, None] = {}
    for release in context.api.releases(endpoint_id)["releases"]:
        for entry in release["diff"]:
            if IMAGE_FIELD in str(entry["field"]).casefold() and isinstance(entry["old"], str):
                images[entry["old"]] = None
    images.pop(current or "", None)
    return list(images)[:SHOWN_IMAGES]
