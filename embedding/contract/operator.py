"""What an operator may ask of a worker: the GPU's state, a folder's content, models for the volume.

The names of models become names of folders and repositories, so they are judged by their alphabet, strictly:
open_clip's names and tags, and the Hugging Face Hub's rules for `organisation/name`
(https://huggingface.co/docs/huggingface_hub, `validate_repo_id`). What cannot be a name goes no further.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from embedding.contract.fields import AnyRequest, Strict


MAX_PATH_CHARS: Final = 4096  # Linux's PATH_MAX
MAX_ENTRIES: Final = 1000  # of one answer, in which a name takes 1.4 KB at most
MAX_OFFSET: Final = 1_000_000
MAX_MODELS: Final = 16
MAX_NAME_CHARS: Final = 96  # the hub's own limit for a whole repository's name

HUB_PREFIX: Final = "hf-hub:"
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_FORBIDDEN: Final = ("..", "--")
_FORM: Final = "each must be NAME/TAG, hf-hub:organisation/name, or an object of model and pretrained"


class GpuInfoRequest(AnyRequest):
    """What nvidia-smi says; RunPod's habit `{"test": "nvidia-smi"}` asks for it too."""

    action: Literal["gpu_info"]
    test: Literal["nvidia-smi"] | None = None


class ListFilesRequest(AnyRequest):
    """What a folder holds; without *path*, which folders may be listed."""

    action: Literal["list_files"]
    path: Annotated[str, Field(min_length=1, max_length=MAX_PATH_CHARS)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_ENTRIES)] = MAX_ENTRIES
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET)] = 0


class ModelName(Strict):
    """A model as the worker's settings name it: a name and tag of open_clip, or a repository of the hub."""

    model: str
    pretrained: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given: Any) -> Any:
        """Take `NAME/TAG` and `hf-hub:organisation/name` for what they say."""
        if not isinstance(given, str):
            return given
        if given.startswith(HUB_PREFIX):
            return {"model": given}
        model, _, pretrained = given.rpartition("/")
        return {"model": model, "pretrained": pretrained}

    @model_validator(mode="after")
    def _names(self) -> Self:
        repo = self.model.removeprefix(HUB_PREFIX)
        if repo != self.model:
            valid = repo.count("/") == 1 and all(map(_is_name, repo.split("/"))) and not self.pretrained
        else:
            valid = all(map(_is_name, self.model.split("/"))) and _is_name(self.pretrained)
        if not valid or len(repo) > MAX_NAME_CHARS:
            raise PydanticCustomError("model_name", _FORM)
        return self

    def __str__(self) -> str:
        return f"{self.model}/{self.pretrained}" if self.pretrained else self.model


class DownloadModelsRequest(AnyRequest):
    """Fetch *models* onto the volume; by default the one that the worker's settings name."""

    action: Literal["download_models"]
    models: Annotated[list[ModelName], Field(min_length=1, max_length=MAX_MODELS)] | None = None


OperatorRequest = GpuInfoRequest | ListFilesRequest | DownloadModelsRequest


def _is_name(part: str) -> bool:
    return (
        len(part) <= MAX_NAME_CHARS
        and _NAME.fullmatch(part) is not None
        and not any(bad in part for bad in _FORBIDDEN)
    )
