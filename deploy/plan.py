"""What is there against what is asked: the steps between them, shown before any is taken.

A plan is made of what the API says now, never of what an earlier run did, so it can be made again after
whatever happened. What the API cannot change in place is refused here, with the way around it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from deploy.desired import ENV, Fields, actual, desired, is_same
from deploy.errors import DeployError


if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.api import Api, Json
    from deploy.config import Config, Volume

MASKED: Final = "(secret, sent)"  # the API does not tell the value, so it is sent again
TO_BE_CREATED: Final = "(to be created)"
SECRET_NAME: Final = re.compile(r"SECRET|TOKEN|KEY|PASS|CREDENTIAL|AUTH", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs. *old* and *new* are texts to show; None where there is nothing."""

    field: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.field}: {self.new}"
        if self.new is None:
            return f"- {self.field}: {self.old}"
        return f"~ {self.field}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps to what is asked: at most one each of volume, registry and endpoint."""

    endpoint: Json | None
    wanted: Fields = field(repr=False)
    changes: tuple[Change, ...] = ()
    volume: Json | None = None
    new_volume: Json | None = None
    grow_volume_gb: int | None = None
    new_registry: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[object, ...]:
        """All that the plan begins with and would send: two plans with the same steps are one."""
        begins = (self.endpoint["id"], actual(self.endpoint)) if self.endpoint else None
        return begins, self.wanted, self.new_volume, self.grow_volume_gb, self.new_registry

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.endpoint is not None and not (self.changes or self.grow_volume_gb)

    @property
    def changed(self) -> set[str]:
        """The names of the endpoint's fields that differ."""
        return {change.field for change in self.changes}

    def lines(self) -> list[str]:
        """Return the plan as a diff, a line for each field."""
        lines = []
        if self.new_volume:
            size_gb, place = self.new_volume["size"], self.new_volume["dataCenter"]
            lines.append(f"+ network volume {self.new_volume['name']}: {size_gb} GB in {place}")
        if self.grow_volume_gb and self.volume:
            old_gb = self.volume["size"]
            lines.append(f"~ network volume {self.volume['name']}: {old_gb} -> {self.grow_volume_gb} GB")
        if self.new_registry:
            lines.append(f"+ registry credentials {self.new_registry}")
        name = self.wanted["name"]
        if self.endpoint is None:
            lines.append(f"+ endpoint {name}")
        elif self.changes:
            lines.append(f"~ endpoint {name} ({self.endpoint['id']})")
        return lines + [f"    {change}" for change in self.changes]


def make_plan(
    api: Api, config: Config, *, secrets: Mapping[str, str], endpoint_id: str | None = None
) -> Plan:
    """Return the plan from what RunPod has to what *config* asks for; raises DeployError if there is none."""
    endpoint = find_endpoint(api, config.name, endpoint_id)
    volume = find_volume(api, config.volume) if config.volume else None
    registry_id, new_registry = _registry(api, config)
    volume_id = (volume["id"] if volume else TO_BE_CREATED) if config.volume else None
    wanted = desired(config, secrets=secrets, volume_id=volume_id, registry_id=registry_id)
    there = actual(endpoint) if endpoint else {}
    if endpoint:
        _refuse_immutable(there, wanted)
    return Plan(
        endpoint,
        wanted,
        changes=changes_between(there, wanted, secret_names=set(secrets)),
        volume=volume,
        new_volume=_new_volume(config.volume) if config.volume and not volume else None,
        grow_volume_gb=_growth(config.volume, volume) if config.volume and volume else None,
        new_registry=new_registry,
        notes=_notes(config.volume, volume) if config.volume and volume else (),
    )


def is_like(endpoint: Json, config: Config) -> bool:
    """Return whether an endpoint is what *config* asks for, but for its number of workers and its secrets."""
    wanted = desired(config, secrets={}, volume_id=None, registry_id=None)
    ignored = {"registry", "networkVolumes", *(f"{ENV}{name}" for name in config.secrets)}
    differing = {change.field for change in changes_between(actual(endpoint), wanted, secret_names=set())}
    return not [name for name in differing - ignored if not name.startswith("workers.")]


def find_endpoint(api: Api, name: str, endpoint_id: str | None = None) -> Json | None:
    """Return the endpoint called *name*, or the one with *endpoint_id*; None if there is none.

    Raises DeployError if several have the name, Gone if *endpoint_id* is not there.
    """
    if endpoint_id:
        return api.endpoint(endpoint_id)
    found = [each for each in api.endpoints() if each["name"].removesuffix(" -fb") == name]
    if len(found) > 1:
        ids = ", ".join(f"{each['id']} (created {each['createdAt']})" for each in found)
        raise DeployError(
            f"{len(found)} endpoints are called {name}: {ids}", hint="say which: --endpoint-id ID"
        )
    return found[0] if found else None


def find_volume(api: Api, volume: Volume) -> Json | None:
    """Return the network volume that *volume* means; raises DeployError if it differs or is not one."""
    if volume.id:
        found = [each for each in api.volumes() if each["id"] == volume.id]
        if not found:
            raise DeployError(f"volume.id: there is no network volume {volume.id}")
    else:
        found = [each for each in api.volumes() if each["name"] == volume.name]
    found = [each for each in found if each["dataCenter"] == volume.data_center] or found
    if len(found) > 1:
        ids = ", ".join(each["id"] for each in found)
        raise DeployError(
            f"{len(found)} volumes are called {volume.name}: {ids}", hint="say which: volume.id"
        )
    if found:
        _refuse_other_volume(found[0], volume)
    return found[0] if found else None


def changes_between(there: Fields, wanted: Fields, *, secret_names: set[str]) -> tuple[Change, ...]:
    """Return what differs, in the order of *wanted*; variables that only *there* has are removed."""
    changes = []
    for name, value in wanted.items():
        if name in there and is_same(name, there[name], value):
            continue
        if there and name == "type":
            continue  # a patch has no such field; another type is refused before
        if name not in there and not name.startswith(ENV) and value in ("", [], None):
            continue  # the API leaves out what is empty
        is_secret = name.startswith(ENV) and name.removeprefix(ENV) in secret_names
        changes.append(_secret_change(name, there) if is_secret else _change(name, there, value))
    removed = [name for name in there if name.startswith(ENV) and name not in wanted]
    return tuple(changes + [Change(name, "(removed)", None) for name in removed])


def _change(name: str, there: Fields, value: Any) -> Change:
    old = shown(there[name]) if name in there else None
    if old is not None and name.startswith(ENV) and SECRET_NAME.search(name):
        old = "(not shown)"
    return Change(name, old, shown(value))


def _secret_change(name: str, there: Fields) -> Change:
    if name not in there:
        return Change(name, None, "(secret)")
    is_masked = not there[name].strip("*")
    return Change(name, "(secret)", MASKED if is_masked else "(secret, changed)")


def shown(value: Any) -> str:
    """Return a field's value as a diff shows it."""
    return value if isinstance(value, str) and value else json.dumps(value)


def _refuse_immutable(there: Fields, wanted: Fields) -> None:
    kinds = [{name.partition(".")[0] for name in side} & {"cpu", "gpu"} for side in (there, wanted)]
    if kinds[0] and kinds[0] != kinds[1]:
        what = f"{kinds[0].pop()} to {kinds[1].pop()}"
    elif there.get("type", wanted["type"]) != wanted["type"]:
        what = f"type {there['type']} to {wanted['type']}"
    else:
        return
    raise DeployError(
        f"RunPod cannot change {what} in place",
        hint="give another `name`, move the callers, `destroy` the old",
    )


def _refuse_other_volume(found: Json, volume: Volume) -> None:
    if found["dataCenter"] != volume.data_center:
        raise DeployError(
            f"volume.data_center: {found['name']} ({found['id']}) is in {found['dataCenter']}, "
            f"not in {volume.data_center}; a volume cannot move",
            hint="change the key, or give another volume.name",
        )
    if volume.type and found["type"] != volume.type:
        raise DeployError(
            f"volume.type: {found['name']} is {found['type']}, which cannot be changed",
            hint="leave the key out, or give another volume.name",
        )


def _notes(volume: Volume, found: Json) -> tuple[str, ...]:
    if volume.size_gb >= found["size"]:
        return ()
    told = f"{found['name']} has {found['size']} GB, and can only grow; {volume.size_gb} GB are in it"
    return (f"volume.size_gb: {told}",)


def _new_volume(volume: Volume) -> Json:
    body: Json = {"name": volume.name, "size": volume.size_gb, "dataCenter": volume.data_center}
    return body | ({"type": volume.type} if volume.type else {})


def _growth(volume: Volume, found: Json) -> int | None:
    return volume.size_gb if volume.size_gb > found["size"] else None


def _registry(api: Api, config: Config) -> tuple[str | None, str | None]:
    """Return the id of the registry credentials, and their name if they are still to be created."""
    if config.registry is None:
        return None, None
    found = [each["id"] for each in api.registries() if each["name"] == config.registry.name]
    if len(found) > 1:
        raise DeployError(f"{len(found)} registry credentials are called {config.registry.name}: {found}")
    if found:
        return found[0], None
    if config.registry.username_env is None:
        raise DeployError(
            f"registry: RunPod has no credentials called {config.registry.name}",
            hint="give registry.username_env and registry.password_env, and they are created",
        )
    return TO_BE_CREATED, config.registry.name
