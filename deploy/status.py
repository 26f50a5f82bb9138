"""How an environment stands: its endpoint, workers, jobs, who answers, what differs, what came before."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from deploy.caller import caller_of, key_of, urls_of
from deploy.config import digest_of
from deploy.context import Deadline
from deploy.desired import ENV
from deploy.errors import DeployError
from deploy.plan import Plan, make_plan
from deploy.ready import Standing, rollout_line, standing
from deploy.smoke import Expected
from embedding.contract.identity import Match


if TYPE_CHECKING:
    from deploy.api import Json
    from deploy.config import Config
    from deploy.context import Context

LAST: Final = 5
IDENTITY_WAIT_S: Final = 20.0
NOT_ASKED: Final = "not asked; --ask sends a job"


def status(context: Context, config: Config, *, as_json: bool, ask: bool) -> int:
    """Print how *config*'s endpoint stands; return 0, or 1 if there is none.

    ask: have a worker say who it is, which keeps one that is paid for from going idle.
    """
    secrets = {name: context.environ.get(name, "").strip() for name in config.secrets}
    plan = make_plan(context.api, config, secrets=secrets, endpoint_id=context.endpoint_id)
    if plan.endpoint is None:
        context.console.say("{}" if as_json else f"no endpoint is called {config.name}; `apply` creates it")
        return 1
    for note in plan.notes:
        context.console.note(f"! {note}")
    report = _report(context, config, plan, plan.endpoint, ask=ask)
    if as_json:
        context.console.say(json.dumps(report, indent=2))
    else:
        _print(context, report)
    return 0


def _report(context: Context, config: Config, plan: Plan, endpoint: Json, *, ask: bool) -> dict[str, Any]:
    releases = context.api.releases(endpoint["id"])
    now = standing(context.api, endpoint["id"])
    unset = {f"{ENV}{name}" for name in config.secrets if not context.environ.get(name, "").strip()}
    return {
        "endpoint": {key: endpoint.get(key) for key in ("id", "name", "type", "image", "createdAt")},
        "urls": urls_of(endpoint),
        "workers": {**now.counts, "stale": now.stale},
        "hint": now.hint,
        "rollout": rollout_line(releases),
        "health": _jobs(context, endpoint) if ask or config.is_queue else None,
        "identity": _identity(context, endpoint, now) if ask else Match(None, NOT_ASKED).as_json(),
        "drift": [str(change) for change in plan.changes if change.field not in unset],
        "releases": [
            {"version": each.get("version"), "createdAt": each["createdAt"], "fields": _fields(each)}
            for each in releases["releases"][:LAST]
        ],
        "records": [
            {key: value for key, value in asdict(record).items() if key != "config"}
            for record in context.records.of(config.name)[-LAST:]
        ],
    }


def _fields(release: Json) -> list[str]:
    return [str(entry["field"]) for entry in release["diff"]]


def _jobs(context: Context, endpoint: Json) -> Any:
    """Return what the endpoint's health route tells; a load balancer's is the worker's own."""
    url = urls_of(endpoint).get("health")
    try:
        return context.api.call("GET", url, once=True) if url else None
    except DeployError as failed:
        return {"error": failed.message}


def _identity(context: Context, endpoint: Json, now: Standing) -> dict[str, Any]:
    """Return who answers; a worker is asked only where one is ready, so that asking starts none."""
    if not now.fresh_and_ready:
        return Match(None, "no worker is ready to be asked").as_json()
    caller = caller_of(context.api, endpoint, key=key_of(context.environ), poll_s=context.poll_s)
    try:
        said = caller.health(Deadline.after(min(IDENTITY_WAIT_S, context.wait_s)))
    except DeployError as failed:
        return Match(None, failed.message).as_json()
    identity = said.get("identity") or {}
    match = Expected.of(context.environ, digest_of(endpoint.get("image"))).match(identity)
    return {**identity, "fingerprint": said.get("fingerprint"), **match.as_json()}


def _print(context: Context, report: dict[str, Any]) -> None:
    rows: list[tuple[str, object]] = [*report["endpoint"].items()]
    rows += [(f"URL {name}", url) for name, url in (report["urls"] or {}).items() if name in {"run", "base"}]
    workers = ", ".join(f"{count} {state}" for state, count in report["workers"].items() if count)
    rows += [("workers", workers or "none"), ("rollout", report["rollout"])]
    rows += [("hint", report["hint"])] if report["hint"] else []
    rows += [("health", json.dumps(report["health"])), ("identity", json.dumps(report["identity"]))]
    drift = "; ".join(report["drift"]) or "none: it is as the file asks"
    rows.append(("drift", drift))
    for release in report["releases"]:
        fields = ", ".join(release["fields"]) or "created"
        rows.append(("release", f"{release['version']}  {release['createdAt']}  {fields}"))
    for record in report["records"]:
        rows.append(("record", f"{record['id']}  {record['image']}  {record['outcome']}"))
    for name, value in rows:
        context.console.say(f"{name:<11} {value}")
