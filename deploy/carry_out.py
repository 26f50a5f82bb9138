"""Carry out a plan that was agreed to: storage first, then the endpoint, each sent once; then look again.

No other plan is made on the way: of what was created only the ids take the place of `(to be created)`. Before
each request the console's state says what it may do, and after it what it did, for whoever presses Ctrl-C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.create import create_endpoint, create_once
from deploy.desired import Fields, actual, create_body, update_body
from deploy.errors import ApiError, ConfigError, DeployError
from deploy.plan import MASKED, changes_between, find_volume


if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.api import Json
    from deploy.config import Config, Registry, Volume
    from deploy.context import Context
    from deploy.plan import Plan


def send(context: Context, config: Config, plan: Plan) -> tuple[str, Fields]:
    """Take the steps of *plan*; return the endpoint's id and the fields that it was sent or had already."""
    wanted = dict(plan.wanted)
    if plan.new_volume and config.volume:
        wanted["networkVolumes"] = [_make_volume(context, config.volume, plan.new_volume)]
    if plan.grow_volume_gb and plan.volume:
        name = f"network volume {plan.volume['id']}"
        with context.console.changing(f"{name} may or may not have grown") as did:
            context.api.resize_volume(plan.volume["id"], plan.grow_volume_gb)
            did(f"{name} has grown")
    if plan.new_registry and config.registry:
        wanted["registry"] = _make_registry(context, config.registry)
    try:
        return _send_endpoint(context, plan, wanted), wanted
    except ApiError as refused:
        raise _with_pools(context, refused) from None


def read_back(context: Context, config: Config, endpoint_id: str, wanted: Fields) -> Json:
    """Return the endpoint as RunPod has it; warn of what it has not taken."""
    endpoint = context.api.endpoint(endpoint_id)
    for change in changes_between(actual(endpoint), wanted, secret_names=set(config.secrets)):
        if change.new != MASKED:
            context.console.warn(f"RunPod has not taken: {change}")
    return endpoint


def registry_values(registry: Registry, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return user name and password of the credentials to be created; raises ConfigError without them."""
    names = (registry.username_env or "", registry.password_env or "")
    values = [environ.get(name, "").strip() for name in names]
    missing = [
        f"registry: {name} is not set in this shell"
        for name, value in zip(names, values, strict=True)
        if not value
    ]
    if missing:
        raise ConfigError("the environment", missing)
    return values[0], values[1]


def _make_volume(context: Context, volume: Volume, body: Json) -> str:
    api, console = context.api, context.console
    name = f"network volume {volume.name}"
    with console.changing(f"{name} may or may not have been created") as did:
        made = create_once(
            lambda: api.create_volume(body), lambda: find_volume(api, volume), notice=console.say
        )
        did(f"network volume {made['id']} was created")
    console.say(f"{name} is {made['id']}")
    return str(made["id"])


def _make_registry(context: Context, registry: Registry) -> str:
    api, console = context.api, context.console
    username, password = registry_values(registry, context.environ)
    body = {"name": registry.name, "username": username, "password": password}

    def find() -> Json | None:
        return next((each for each in api.registries() if each["name"] == registry.name), None)

    name = f"registry credentials {registry.name}"
    with console.changing(f"{name} may or may not have been created") as did:
        made = create_once(lambda: api.create_registry(body), find, notice=console.say)
        did(f"registry credentials {made['id']} were created")
    console.say(f"{name} are {made['id']}")
    return str(made["id"])


def _send_endpoint(context: Context, plan: Plan, wanted: Fields) -> str:
    console = context.console
    if plan.endpoint is None:
        name = f"endpoint {wanted['name']}"
        with console.changing(f"{name} may or may not have been created") as did:
            made = create_endpoint(context.api, create_body(wanted), notice=console.say)
            did(f"endpoint {made['id']} was created")
        console.say(f"{name} is {made['id']}")
        return str(made["id"])
    endpoint_id = str(plan.endpoint["id"])
    if plan.changes:
        with console.changing(f"endpoint {endpoint_id} may or may not have been changed") as did:
            context.api.update_endpoint(endpoint_id, update_body(wanted, plan.changed))
            did(f"endpoint {endpoint_id} was changed")
        console.say(f"endpoint {endpoint_id} was changed")
    return endpoint_id


def _with_pools(context: Context, refused: ApiError) -> ApiError:
    """Return the error with the pools that there are, where it is about pools."""
    if "pool" in refused.message.casefold():
        try:
            refused.hint = f"pools in RunPod's catalog: {', '.join(context.api.gpu_pools())}"
        except DeployError:
            return refused
    return refused
