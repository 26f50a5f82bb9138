"""What `/metrics` says, read as Prometheus reads it."""

from __future__ import annotations

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families


OPENMETRICS = "application/openmetrics-text"


def scrape(client, *, accept="text/plain"):
    """Return every family of `/metrics`, parsed."""
    response = client.get("/metrics", headers={"accept": accept})
    assert response.status_code == 200
    parse = (
        openmetrics.text_string_to_metric_families
        if OPENMETRICS in accept
        else text_string_to_metric_families
    )
    return list(parse(response.text))


def samples(client):
    """Return the value of every sample by its name and its labels, as a frozen set of pairs."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in scrape(client)
        for sample in family.samples
    }


def value(found, name, **labels):
    """Return one sample of what `samples` found; one that is not there yet is 0."""
    return found.get((name, frozenset(labels.items())), 0.0)
