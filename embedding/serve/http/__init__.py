"""The HTTP transport: the same actions without a queue, for Pods and load-balancing endpoints.

In reading order: `server` (ports, signals, the end), `app` (routes), `service` (a request's way, and what the
worker can take now), `gate` (room), `bodies` (JSON, forms and bare pictures), `metrics` and `scrape`
(what is told of all that), `page` (to try it by hand).
"""
