"""Bring an endpoint to what its configuration asks for: plan, ask, act, look again, record, wait, smoke test.

Every round begins with what RunPod has, so a run that was cut short anywhere is finished by the next one.
What was done is said and recorded at once; a smoke test that fails leaves the endpoint as it is, because
older workers may still serve, and says how to go back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from deploy.create import create_endpoint, create_once
from deploy.desired import create_body, update_body
from deploy.errors import ApiError, ConfigError, DeployError
from deploy.plan import TO_BE_CREATED, Plan, find_volume, make_plan
from deploy.prove import prove
from deploy.records import PASSED, as_json, new_record
from deploy.rules import WORKER_TOKEN, secret_faults
from deploy.smoke import Expected
from deploy.summary import write_summary


if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.api import Json
    from deploy.config import Config
    from deploy.context import Context

ROUNDS: Final = 2


def apply(context: Context, config: Config) -> int:
    """Apply *config* and return the exit status: 1 if its smoke test failed, or nobody agreed."""
    secrets = secret_values(config, context.environ)
    context.console.hide(secrets.values())
    if config.digest is None:
        context.console.warn(f"{config.image} has no digest: a tag may move, so a rollback may not be exact")
    if not config.is_queue and WORKER_TOKEN in config.secrets:
        context.console.warn(
            "RunPod's load balancer takes its own key as bearer token, and a worker with WORKER_TOKEN no "
            "other: callers through it can only sign, and WORKER_TOKEN is better left out"
        )
    with context.lock():
        plan = _planned(context, config, secrets)
        if context.dry_run:
            return _dry_run(context, plan)
        if plan.is_empty and plan.endpoint and _is_done(context, config, plan.endpoint):
            context.console.say(f"nothing to change: {config.name} ({plan.endpoint['id']}) is as asked")
            write_summary(context, config, plan.endpoint, diff=[], report=None)
            return 0
        diff = plan.lines()
        if plan.is_empty:
            context.console.say(f"nothing to change: {config.name} is as asked; no smoke test has passed yet")
        if not plan.is_empty and not _is_agreed(context, diff):
            return 1
        endpoint = _bring_about(context, config, secrets, plan)
        record = new_record(config, endpoint["id"], Expected.of(context.environ).commit)
        context.records.add(record)
        context.console.state = (
            f"endpoint {endpoint['id']} is as asked and recorded; its smoke test did not end"
        )
        return prove(context, config, endpoint, record, diff)


def secret_values(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the value of each secret; raises ConfigError naming all that are missing or not good."""
    faults = secret_faults(config.secrets, environ)
    if faults:
        raise ConfigError("the environment", faults)
    return {name: environ[name].strip() for name in config.secrets}


def _planned(context: Context, config: Config, secrets: Mapping[str, str]) -> Plan:
    return make_plan(context.api, config, secrets=secrets, endpoint_id=context.endpoint_id)


def _is_done(context: Context, config: Config, endpoint: Json) -> bool:
    """Return whether just this was applied to just this endpoint, and its smoke test passed."""
    last = context.records.all()[-1:]
    return [(each.endpoint_id, each.config, each.outcome) for each in last] == [
        (endpoint["id"], as_json(config), PASSED)
    ]


def _is_agreed(context: Context, diff: list[str]) -> bool:
    for line in diff:
        style = {"+": "green", "-": "red", "~": "yellow"}.get(line.strip()[0], "")
        context.console.say(line, style=style)
    if context.yes:
        return True
    if not context.console.is_terminal:
        raise DeployError(
            "nobody can be asked whether to do this", hint="add --yes, or --dry-run to look only"
        )
    if context.console.ask("apply this?"):
        return True
    context.console.say("nothing was changed")
    return False


def _dry_run(context: Context, plan: Plan) -> int:
    """Say what would be sent, and send nothing."""
    for line in plan.lines():
        context.console.say(line)
    sent: list[tuple[str, Json]] = []
    if plan.new_volume:
        sent.append(("POST network-volumes", plan.new_volume))
    if plan.grow_volume_gb and plan.volume:
        sent.append((f"PATCH network-volumes/{plan.volume['id']}", {"size": plan.grow_volume_gb}))
    if plan.new_registry:
        hidden = {"username": "(secret)", "password": "(secret)"}
        sent.append(("POST registries", {"name": plan.new_registry, **hidden}))
    if plan.endpoint is None:
        sent.append(("POST serverless", create_body(plan.wanted)))
    elif plan.changes:
        sent.append((f"PATCH serverless/{plan.endpoint['id']}", update_body(plan.wanted, plan.changed)))
    for request, body in sent:
        context.console.say(f"would send {request}\n{json.dumps(body, indent=2)}")
    context.console.say("nothing was sent" if sent else "nothing to change")
    return 0


def _bring_about(context: Context, config: Config, secrets: Mapping[str, str], plan: Plan) -> Json:
    """Take the plan's steps, look again, and return the endpoint as RunPod has it then."""
    for _ in range(ROUNDS):
        if plan.is_empty:
            break
        _make_storage(context, config, plan)
        plan = _planned(context, config, secrets)  # now with the ids of what was made
        _make_endpoint(context, plan)
        plan = _planned(context, config, secrets)
        if not plan.not_taken:
            break
    for change in plan.not_taken:
        context.console.warn(f"RunPod has not taken: {change}")
    if plan.endpoint is None:
        raise DeployError(f"{config.name} was deleted again by somebody else")
    return plan.endpoint


def _make_storage(context: Context, config: Config, plan: Plan) -> None:
    """Create or grow the volume, and store the registry credentials, where the plan says so."""
    console, api = context.console, context.api
    if (body := plan.new_volume) and (volume := config.volume):
        made = create_once(
            lambda: api.create_volume(body), lambda: find_volume(api, volume), notice=console.say
        )
        console.say(f"network volume {volume.name} is {made['id']}")
        console.state = f"network volume {made['id']} was created, the endpoint was not changed"
    if plan.grow_volume_gb and plan.volume:
        api.resize_volume(plan.volume["id"], plan.grow_volume_gb)
        console.state = f"network volume {plan.volume['id']} has grown, the endpoint was not changed"
    if plan.new_registry and config.registry:
        _make_registry(context, config)


def _make_registry(context: Context, config: Config) -> None:
    registry = config.registry
    if registry is None or registry.username_env is None or registry.password_env is None:
        return
    names = (registry.username_env, registry.password_env)
    values = [context.environ.get(name, "").strip() for name in names]
    missing = [
        f"registry: {name} is not set in this shell"
        for name, value in zip(names, values, strict=True)
        if not value
    ]
    if missing:
        raise ConfigError("the environment", missing)
    body = {"name": registry.name, "username": values[0], "password": values[1]}

    def find() -> Json | None:
        return next((each for each in context.api.registries() if each["name"] == registry.name), None)

    made = create_once(lambda: context.api.create_registry(body), find, notice=context.console.say)
    context.console.say(f"registry credentials {registry.name} are {made['id']}")


def _make_endpoint(context: Context, plan: Plan) -> None:
    console = context.console
    if TO_BE_CREATED in [plan.wanted["registry"], *plan.wanted["networkVolumes"]]:
        raise DeployError("what was just created is not in RunPod's list yet", hint="run the command again")
    console.state = "the endpoint may or may not have been changed; run the command again to see"
    try:
        if plan.endpoint is None:
            made = create_endpoint(context.api, create_body(plan.wanted), notice=console.say)
            console.say(f"endpoint {made['name']} is {made['id']}")
        elif plan.changes:
            body = update_body(plan.wanted, plan.changed)
            context.api.update_endpoint(plan.endpoint["id"], body)
            console.say(f"endpoint {plan.endpoint['id']} was changed")
    except ApiError as refused:
        raise _with_pools(context, refused) from None
    console.state = "the endpoint was changed, and not yet recorded; run the command again"


def _with_pools(context: Context, refused: ApiError) -> ApiError:
    """Return the error with the pools that there are, where it is about pools."""
    if "pool" in refused.message.casefold():
        try:
            refused.hint = f"pools in RunPod's catalog: {', '.join(context.api.gpu_pools())}"
        except DeployError:
            return refused
    return refused
