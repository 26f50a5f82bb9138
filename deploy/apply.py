"""Bring an endpoint to what its configuration asks for: plan, ask, record, act, wait, smoke test.

One plan is shown and agreed to, and just that one is carried out: if RunPod changed meanwhile, it is shown
anew. It is recorded before the first request, so that a rollback knows of it whatever happens then. A run
that was cut short is finished by the next one, which begins with what RunPod has. A smoke test that fails
leaves the endpoint as it is, because older workers may still serve, and says how to go back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deploy.carry_out import read_back, registry_values, send
from deploy.desired import create_body, update_body
from deploy.errors import ApiError, ConfigError, DeployError
from deploy.plan import Plan, make_plan
from deploy.prove import prove
from deploy.records import APPLIED, PASSED, REFUSED, SENT, Record, as_json, new_record
from deploy.rules import WORKER_TOKEN, secret_faults
from deploy.smoke import Expected
from deploy.summary import check_summary, write_summary


if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.api import Json
    from deploy.config import Config
    from deploy.context import Context


def apply(context: Context, config: Config) -> int:
    """Apply *config* and return the exit status: 1 if its smoke test failed, or nobody agreed."""
    with context.lock():
        return apply_locked(context, config)


def apply_locked(context: Context, config: Config, *, back_to: str | None = None) -> int:
    """Do as `apply`, for a caller that has the lock; *back_to* is the record that a rollback goes to."""
    context.console.hide(context.environ.get(name, "") for name in config.secret_variables)
    secrets = secret_values(config, context.environ)
    _warn(context, config)
    if not context.dry_run:
        check_summary(context)
    plan = _planned(context, config, secrets)
    for note in plan.notes:
        context.console.warn(note)
    if context.dry_run:
        return _dry_run(context, plan)
    last = _last(context, config, plan)
    if last and (last.outcome == PASSED or (last.outcome == APPLIED and config.workers.max == 0)):
        return _leave(context, config, plan.endpoint or {})
    if plan.is_empty:
        context.console.say(f"nothing to change: {config.name} is as asked; no smoke test has passed yet")
    agreed = plan if plan.is_empty else _agreed(context, config, secrets, plan)
    if agreed is None:
        return 1
    record = last or new_record(config, plan.endpoint, Expected.of(context.environ).commit, back_to)
    endpoint = _bring_about(context, config, agreed, record)
    if record.outcome in {SENT, REFUSED}:
        record = record.told(APPLIED, endpoint_id=endpoint["id"])
        context.records.add(record)
    context.console.state = f"endpoint {endpoint['id']} is as asked and recorded; its smoke test did not end"
    return prove(context, config, endpoint, record, agreed.lines())


def secret_values(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the value of each secret; raises ConfigError naming all that are missing or not good."""
    faults = secret_faults(config.secrets, environ)
    if faults:
        raise ConfigError("the environment", faults)
    return {name: environ[name].strip() for name in config.secrets}


def _warn(context: Context, config: Config) -> None:
    if config.digest is None:
        context.console.warn(f"{config.image} has no digest: a tag may move, so a rollback may not be exact")
    if not config.is_queue and WORKER_TOKEN in config.secrets:
        context.console.warn(
            "RunPod's load balancer takes its own key as bearer token, and a worker with WORKER_TOKEN no "
            "other: callers through it can only sign, and WORKER_TOKEN is better left out"
        )


def _planned(context: Context, config: Config, secrets: Mapping[str, str]) -> Plan:
    plan = make_plan(context.api, config, secrets=secrets, endpoint_id=context.endpoint_id)
    if plan.new_registry and config.registry:
        registry_values(config.registry, context.environ)  # before anything is sent
    return plan


def _last(context: Context, config: Config, plan: Plan) -> Record | None:
    """Return the last record if there is nothing to do and it is of just this on just this endpoint."""
    endpoint = plan.endpoint if plan.is_empty else None
    for last in context.records.of(config.name)[-1:]:
        if endpoint and last.config == as_json(config) and last.endpoint_id == endpoint["id"]:
            return last
    return None


def _leave(context: Context, config: Config, endpoint: Json) -> int:
    context.console.say(f"nothing to change: {config.name} ({endpoint['id']}) is as asked")
    write_summary(context, config, endpoint, diff=[], report=None)
    return 0


def _agreed(context: Context, config: Config, secrets: Mapping[str, str], plan: Plan) -> Plan | None:
    """Show and ask until RunPod is still what was shown; return the plan, None if nobody agreed."""
    while True:
        if not _is_agreed(context, plan.lines()):
            return None
        now = _planned(context, config, secrets)
        if now.steps == plan.steps:
            return now
        if context.yes:
            raise DeployError("RunPod changed meanwhile: run the command again")
        context.console.warn("RunPod changed meanwhile; from what it has now:")
        plan = now


def _is_agreed(context: Context, diff: list[str]) -> bool:
    for line in diff or ["nothing to change"]:
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


def _bring_about(context: Context, config: Config, plan: Plan, record: Record) -> Json:
    """Record and carry out the plan; return the endpoint as RunPod has it then."""
    if plan.is_empty and plan.endpoint:
        return plan.endpoint
    context.records.add(record)
    try:
        endpoint_id, wanted = send(context, config, plan)
    except ApiError as refused:
        if refused.is_refusal:
            context.records.add(record.told(REFUSED))
        raise
    return read_back(context, config, endpoint_id, wanted)
