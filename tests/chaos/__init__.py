"""Many jobs while everything around the worker fails: each must end with one right result or one right error.

`python -m tests.chaos --help` says how to run it. What is sent is known beforehand with its outcome (`jobs`),
the model, its downloads, the platform and the processes fail on a seeded clock (`worker`, `images`,
`disturbances`), and everything that was posted is judged afterwards (`judge`).
"""
