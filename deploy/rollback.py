"""Go back to what was applied before: image and configuration of an earlier record, as any apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from deploy.apply import apply
from deploy.config import parse
from deploy.errors import DeployError
from deploy.plan import find_endpoint
from deploy.records import PASSED, Record


if TYPE_CHECKING:
    from deploy.config import Config
    from deploy.context import Context

SHOWN_IMAGES: Final = 5
IMAGE_FIELD: Final = "image"  # RunPod's releases call it `template.imageName`


def rollback(context: Context, config: Config | None, to: str | None) -> int:
    """Apply the record *to*, or the last good one before the newest; return the exit status.

    *config* is the environment's file where there is one: it names the endpoint if no record is left.
    """
    records = context.records.all()
    if not records:
        raise _without_records(context, config)
    target = _named(records, to) if to else _before(records)
    context.console.say(f"back to {target.id} of {target.time}: {target.image} ({target.outcome})")
    status = apply(context, parse(target.config, source=f"record {target.id}"))
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


def _before(records: list[Record]) -> Record:
    """Return the newest record with another configuration than the last one's whose smoke test passed."""
    current = records[-1]
    good = [each for each in records[:-1] if each.outcome == PASSED and each.config != current.config]
    if not good:
        raise DeployError(
            f"no record before {current.id} had a smoke test that passed",
            hint=f"--to ID takes any: {_ids(records)}",
        )
    return good[-1]


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
