"""The Grafana dashboard shows what `/metrics` tells, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import promql_parser
import pytest

from tests.serve.http.process import OPEN, serving
from tests.serve.http.scrapes import scrape


ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "deploy/grafana/clip-embedding-worker.json").read_text(encoding="utf-8"))
SCHEMA_VERSION = 42  # @grafana/schema 13.2
BY_PROMETHEUS = {"job", "instance"}  # labels that it adds to whatever it scrapes

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [
    pytest.param(target, id=f"{panel['title']}: {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]


@pytest.fixture(scope="module")
def told():
    """Return the labels of each sample's name in a scrape of a service that has all that can be had."""
    labels = {}
    with serving(OPEN | {"CACHE_MAX_BYTES": "1000000"}) as service:
        service.client.post("/v1/embed/text", json={"text": "a"})
        for family in scrape(service.client):
            for sample in family.samples:
                labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


@pytest.mark.parametrize("target", TARGETS)
class TestQueries:
    def test_ask_for_what_there_is(self, told, target):
        """Every metric of a query, and every label it selects, groups or names by, is in a real scrape."""
        names, labels = asked(target)

        assert names
        assert names <= told.keys()
        assert labels <= set().union(*(told[name] for name in names)) | BY_PROMETHEUS

    def test_heed_the_variables(self, target):
        """Every metric is selected by job and instance, and no rate has a window of its own."""
        for selector in selectors(parsed(target["expr"])):
            matched = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
            assert (matched["job"], matched["instance"]) == ("$job", "$instance")
        assert set(re.findall(r"\[[^\]]*\]", target["expr"])) <= {"[$__rate_interval]"}


def test_every_metric_is_shown(told):
    """Nothing is counted that no panel shows, but what the process tells of itself."""
    shown = {family(name) for target in TARGETS for name in asked(target.values[0])[0]}
    counted = {family(name) for name in told if not name.endswith("_created")}

    assert {name for name in counted - shown if not name.startswith("clip_process_")} == set()


@pytest.mark.parametrize("panel", [pytest.param(panel, id=panel["title"]) for panel in PANELS])
def test_panels_explain_themselves(panel):
    """Each has a title, a description, a unit, and the data source that is chosen above."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert {each["datasource"]["uid"] for each in (panel, *panel["targets"])} == {"${datasource}"}


def test_frame():
    """The schema is current, ids are unique, no panel covers another, a variable chooses the data source."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    cells = [cell for panel in DASHBOARD["panels"] for cell in cells_of(panel["gridPos"])]

    assert DASHBOARD["schemaVersion"] == SCHEMA_VERSION
    assert len(set(ids)) == len(ids)
    assert len(set(cells)) == len(cells)
    assert variables["datasource"]["type"] == "datasource"
    assert set(variables) == {"datasource", "job", "instance"}


def asked(target):
    """Return the metrics and labels that *target* speaks of."""
    tree = parsed(target["expr"])
    labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    for node in walk(tree):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            labels |= set(node.modifier.labels)
    found = list(selectors(tree))
    labels |= {matcher.name for selector in found for matcher in selector.matchers.matchers}
    return {selector.name for selector in found}, labels


def parsed(query):
    """Return the tree of *query*, with five minutes for the window that Grafana chooses."""
    return promql_parser.parse(query.replace("$__rate_interval", "5m"))


def selectors(tree):
    """Yield each selector of *tree*."""
    return (node for node in walk(tree) if isinstance(node, promql_parser.VectorSelector))


def walk(node):
    """Yield *node* and all below it."""
    yield node
    below = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector")]
    for each in (*below, *getattr(node, "args", ())):
        if each is not None:
            yield from walk(each)


def family(name):
    """Return the name without what a histogram adds to it."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def cells_of(place):
    """Yield each cell of the grid that a panel covers."""
    for x in range(place["x"], place["x"] + place["w"]):
        assert x < 24
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y
