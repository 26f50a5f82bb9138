"""The HTTP transport: the same actions without a queue, for Pods and load-balancing endpoints.

In reading order: `server` (ports, signals, the end), `protocol` (what a connection may cost), `app` (routes),
`service` (a request's way), `state`, `gate` (room), `bodies` and `forms`, `metrics` and
`scrape` (what is told of all that), `spec` and `schemas` (what `/docs` says), `page` (to try it by hand).
"""
