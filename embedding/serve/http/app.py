"""The routes: what each takes, and what it answers.

Bodies are judged by the contract, not by FastAPI, so that the queue and HTTP say the same of the same faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request  # noqa: TC002  FastAPI looks it up when routes are added
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import Response

import embedding
from embedding.errors import WorkerError
from embedding.serve.http.service import Service, error_response, json_response


if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from fastapi import FastAPI

    from embedding.actions import Actions

PING = {"ready": 200, "loading": 204, "draining": 503, "failed": 503}  # as RunPod's load balancer asks
EMBED_ROUTES = {"/v1/embed/image": "image", "/v1/embed/image-batch": "batch", "/v1/embed/text": "text"}


def make_app(
    service: Service,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """Return the application around *service*; *lifespan* loads the model."""
    app = FastAPIOffline(
        title="CLIP embedding worker", version=embedding.__version__, redoc_url=None, lifespan=lifespan
    )
    app.add_exception_handler(HTTPException, _not_found)  # type: ignore[arg-type]
    _add_embedding(app, service)
    _add_openai(app, service)
    _add_status(app, service)
    return app


def _add_embedding(app: FastAPI, service: Service) -> None:
    def route(path: str, action: str) -> None:
        async def run(actions: Actions, job_input: Any, is_trusted: bool) -> Any:  # noqa: FBT001
            return await actions.run(job_input, action=action, is_trusted=is_trusted)

        @app.post(path)
        async def embed(request: Request) -> Response:
            return await service.answer(request, run, action=action)

    for path, action in EMBED_ROUTES.items():
        route(path, action)


def _add_openai(app: FastAPI, service: Service) -> None:
    async def run(actions: Actions, body: Any, is_trusted: bool) -> Any:  # noqa: FBT001
        job_input = {"openai_route": "/v1/embeddings", "openai_input": body}
        (answer,) = await actions.run(job_input, is_trusted=is_trusted)
        return answer

    @app.post("/v1/embeddings")
    @app.post("/embeddings", include_in_schema=False)  # where Infinity has it
    async def embeddings(request: Request) -> Response:
        return await service.answer(request, run, action=None)

    @app.get("/v1/models")
    @app.get("/models", include_in_schema=False)
    async def models() -> Response:
        try:
            (answer,) = await service.ready().run({"openai_route": "/v1/models"})
        except WorkerError as error:
            return error_response(error)
        return json_response(answer)


def _add_status(app: FastAPI, service: Service) -> None:
    @app.get("/ping")
    async def ping() -> Response:
        return Response(status_code=PING[service.status()])

    @app.get("/v1/ping")
    async def about() -> Response:
        return json_response({"status": service.status(), **service.about})

    @app.get("/metrics")
    def metrics(request: Request) -> Response:  # not async: a thread writes them
        text, kind = service.metrics.write(request.headers.get("accept", ""))
        return Response(text, media_type=kind)

    @app.get("/health")
    async def health(check: bool = False) -> Response:  # noqa: FBT001, FBT002
        try:
            answer = await service.ready().run({"action": "health", "check": check})
        except WorkerError as error:
            return error_response(error)
        return json_response(answer, status=200 if answer["status"] == "ok" else 503)


async def _not_found(_request: Request, fault: HTTPException) -> Response:
    """Answer what no route takes in the form of all other errors."""
    message = {404: "there is no such route; see /docs", 405: "this route takes another method; see /docs"}
    told = {
        "code": "INVALID_INPUT",
        "message": message.get(fault.status_code, fault.detail),
        "retryable": False,
        "request_id": None,
    }
    return json_response({"error": told}, status=fault.status_code, headers=dict(fault.headers or {}))
