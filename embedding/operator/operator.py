"""The operator's actions of one worker."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from embedding.contract.operator import DownloadModelsRequest, ListFilesRequest, ModelName
from embedding.errors import InvalidInput, Overloaded
from embedding.operator.downloads import Downloads
from embedding.operator.files import list_files
from embedding.operator.gpu import gpu_info


if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedding.contract.operator import GpuInfoRequest, OperatorRequest
    from embedding.operator.downloads import Report

LIST_TIMEOUT_S: Final = 30.0  # a volume that is away lets a system call hang
LIST_THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class OperatorTerms:
    """What operators may do here.

    is_allowed: whether callers need not sign, as far as the worker asks for no signature.
    list_roots: the folders that may be listed, with all that is below.
    model_roots: where the worker looks for prepared folders; downloads go to the last.
    served: the name and tag that the settings give, if they do.
    environment: what the processes get that are started here; it holds no secret of the worker.
    """

    is_allowed: bool
    list_roots: tuple[str, ...]
    model_roots: tuple[str, ...]
    served: tuple[str, str] | None
    environment: Mapping[str, str]


class Operator:
    """Does what operators ask for, once it is known that they may."""

    def __init__(self, terms: OperatorTerms) -> None:
        """Keep *terms*."""
        self.terms = terms
        self._asking: asyncio.Task[str] | None = None
        self._threads = ThreadPoolExecutor(LIST_THREADS, "list files")
        self._downloads = (
            Downloads(Path(terms.model_roots[-1]), terms.environment) if terms.model_roots else None
        )

    async def run(self, request: OperatorRequest, report: Report | None) -> dict[str, Any]:
        """Return the answer to *request*, plain JSON; *report* is awaited with how far it is.

        Raises the WorkerError that the job deserves.
        """
        told: dict[str, Any] = {"request_id": request.request_id}
        if isinstance(request, ListFilesRequest):
            return told | await self._list(request)
        if isinstance(request, DownloadModelsRequest):
            return told | await self._download(request, report)
        return told | await self._gpu_info(request)

    def stop(self) -> None:
        """End what may take longer than a worker has to end."""
        if self._downloads is not None:
            self._downloads.stop()

    async def _gpu_info(self, _request: GpuInfoRequest) -> dict[str, Any]:
        """Ask nvidia-smi, once for all who ask meanwhile."""
        if self._asking is None:
            self._asking = asyncio.create_task(gpu_info(self.terms.environment))
            self._asking.add_done_callback(self._asked)
        return {"gpu_info": await asyncio.shield(self._asking)}

    def _asked(self, task: asyncio.Task[str]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # nobody may be left to ask for it

    async def _list(self, request: ListFilesRequest) -> dict[str, Any]:
        roots, limit, offset = self.terms.list_roots, request.limit, request.offset
        work = partial(list_files, request.path, roots, limit=limit, offset=offset)
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            raise Overloaded(f"list_files: the folder was not read within {LIST_TIMEOUT_S:g} s") from None

    async def _download(self, request: DownloadModelsRequest, report: Report | None) -> dict[str, Any]:
        if self._downloads is None:
            raise InvalidInput("download_models: MODEL_ROOTS names no folder to put models into")
        done = await self._downloads.run(request.models or [self._served()], report)
        return {"status": "ok", "models": done, "total_bytes": sum(each["size_bytes"] for each in done)}

    def _served(self) -> ModelName:
        if self.terms.served is None:
            raise InvalidInput("models: this worker's settings name no model, so the job must")
        model, pretrained = self.terms.served
        try:
            return ModelName(model=model, pretrained=pretrained)
        except ValidationError:
            raise InvalidInput("models: what CLIP_MODEL_NAME says cannot be downloaded") from None
