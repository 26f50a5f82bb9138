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
from embedding.serve.http.forms import boolean
from embedding.serve.http.schemas import components
from embedding.serve.http.service import Service, error_response, json_response
from embedding.serve.http.spec import DESCRIPTION, Spec


if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from fastapi import FastAPI

    from embedding.actions import Actions

EMBED_ROUTES = {"/v1/embed/image": "image", "/v1/embed/image-batch": "batch", "/v1/embed/text": "text"}


def make_app(
    service: Service,
    *,
    max_batch_size: int | None = None,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    page: Callable[[], Response] | None = None,
) -> FastAPI:
    """Return the application around *service*; *lifespan* loads the model, *page* answers at `/`.

    *max_batch_size* is told to callers by `/openapi.json`; the actions enforce it.
    """
    app = FastAPIOffline(
        title="CLIP embedding worker",
        version=embedding.__version__,
        description=DESCRIPTION,
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": None},  # or the page may ask a server of others
        lifespan=lifespan,
    )
    app.add_exception_handler(HTTPException, _no_route)  # type: ignore[arg-type]
    spec = Spec(service.access)
    _add_embedding(app, service, spec)
    _add_openai(app, service, spec)
    _add_status(app, service, spec)
    _add_schemas(app, components(max_batch_size=max_batch_size), spec)
    if page is not None:
        _add_page(app, page)
    return app


def _add_embedding(app: FastAPI, service: Service, spec: Spec) -> None:
    def route(path: str, action: str) -> None:
        async def run(actions: Actions, job_input: Any, is_trusted: bool) -> Any:  # noqa: FBT001
            return await actions.run(job_input, action=action, is_trusted=is_trusted)

        @app.post(path, **spec.embed(action))
        async def embed(request: Request) -> Response:
            return await service.answer(request, run, action=action)

    for path, action in EMBED_ROUTES.items():
        route(path, action)


def _add_openai(app: FastAPI, service: Service, spec: Spec) -> None:
    async def run(actions: Actions, body: Any, is_trusted: bool) -> Any:  # noqa: FBT001
        job_input = {"openai_route": "/v1/embeddings", "openai_input": body}
        (answer,) = await actions.run(job_input, is_trusted=is_trusted)
        return answer

    @app.post("/v1/embeddings", **spec.embeddings())
    @app.post("/embeddings", include_in_schema=False)  # where Infinity has it
    async def embeddings(request: Request) -> Response:
        return await service.answer(request, run, action=None)

    @app.get("/v1/models", **spec.models())
    @app.get("/models", include_in_schema=False)
    async def models() -> Response:
        try:
            (answer,) = await service.ready().run({"openai_route": "/v1/models"})
        except WorkerError as error:
            return error_response(error)
        return json_response(answer)


def _add_status(app: FastAPI, service: Service, spec: Spec) -> None:
    @app.head("/ping", include_in_schema=False)
    @app.get("/ping", **spec.ping())
    async def ping() -> Response:
        return Response(status_code=service.state().ping_status)

    @app.get("/v1/ping", **spec.about())
    async def about() -> Response:
        return json_response({"status": service.state(), "auth": service.access.ways(), **service.about})

    @app.get("/metrics", **spec.metrics())
    def metrics(request: Request) -> Response:  # not async: a thread writes them
        text, kind = service.metrics.write(request.headers.get("accept", ""))
        return Response(text, media_type=kind)

    @app.head("/health", include_in_schema=False)
    @app.get("/health", **spec.health())
    async def health(request: Request) -> Response:
        try:
            check = boolean("check", request.query_params.get("check", "false"))
            answer = await service.ready().run({"action": "health", "check": check})
        except WorkerError as error:
            return error_response(error)
        return json_response(answer, status=200 if answer["status"] == "ok" else 503)


def _add_page(app: FastAPI, page: Callable[[], Response]) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return page()


def _add_schemas(app: FastAPI, schemas: dict[str, Any], spec: Spec) -> None:
    """Let `/openapi.json` hold *schemas*, which its routes refer to."""
    from_routes = app.openapi

    def openapi() -> dict[str, Any]:
        document = from_routes()
        document["components"] = {"schemas": schemas, "securitySchemes": spec.security_schemes()}
        return document

    app.openapi = openapi  # type: ignore[method-assign]


async def _no_route(_request: Request, fault: HTTPException) -> Response:
    """Answer what no route takes in the form of all other errors."""
    message = {404: "there is no such route; see /docs", 405: "this route takes another method; see /docs"}
    told = {
        "code": "INVALID_INPUT",
        "message": message.get(fault.status_code, fault.detail),
        "retryable": False,
        "request_id": None,
    }
    return json_response({"error": told}, status=fault.status_code, headers=dict(fault.headers or {}))
