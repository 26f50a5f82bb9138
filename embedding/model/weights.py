"""Where the weights come from: the first of these sources that has them.

1. `MODEL_PATH`, a folder;
2. a prepared folder `<root>/<name>--<tag>`, in the image or on a network volume;
3. RunPod's cached models, which are a Hugging Face cache on `/runpod-volume`;
4. the Hugging Face cache of this machine (`HF_HOME` and `HF_HUB_CACHE` are honoured);
5. a download from the Hugging Face Hub into that cache.

With nothing set it is the demo model that ships with this package. Models are named as open_clip names
them, by name and tag or as `hf-hub:org/name`. Nothing here imports torchvision or timm, nor torch for a
prepared folder; only weights that the hub does not hold in open_clip's format are prepared by open_clip
itself, once. The caches' layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from embedding.errors import StartupError
from embedding.model.folder import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    WeightsFolder,
    exists,
    holds_model,
    read_config,
    reason_of,
    weights_file,
)
from embedding.model.registry import find_tag


log = logging.getLogger(__name__)

HUB_PREFIX = "hf-hub:"
DEMO_PATH = Path(__file__).parent / "demo"
MODEL_ROOTS = (Path("/models"), Path("/runpod-volume/models"))
RUNPOD_CACHE = Path("/runpod-volume/huggingface-cache/hub")

SMALL_FILES = (CONFIG_NAME, "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.model")
_PICKLED_WEIGHTS = "open_clip_pytorch_model.bin"
CHECKPOINT_NAMES = (WEIGHTS_NAME, _PICKLED_WEIGHTS)  # of the hub's repositories, in open_clip's order
_WITHOUT_NETWORK = "try again, cache the model on the endpoint, or set MODEL_PATH to a prepared folder"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What to serve and where to look. *hub_caches* come before the machine's own Hugging Face cache."""

    model_path: Path | None = None
    model_name: str | None = None
    pretrained: str | None = None
    roots: tuple[Path, ...] = MODEL_ROOTS
    hub_caches: tuple[Path, ...] = (RUNPOD_CACHE,)
    allow_download: bool = True


def find_weights(source: ModelSource) -> WeightsFolder:
    """Return the folder that *source* asks for, downloaded or prepared if it must and may be.

    Its `origin` is one of: MODEL_PATH, demo, prepared, cache, download. Raises StartupError.
    """
    if source.model_path:
        return _described(source.model_path, "MODEL_PATH")
    if not source.model_name:
        if source.pretrained:
            raise StartupError(f"CLIP_PRETRAINED={source.pretrained} needs CLIP_MODEL_NAME")
        return _described(DEMO_PATH, "demo")
    if source.model_name.startswith(HUB_PREFIX):
        return _find_repository(source, source.model_name)
    return _find_named(source, source.model_name.replace("/", "-"), source.pretrained or "")


def folder_name(model_name: str, pretrained: str) -> str:
    """Return what a prepared folder of this model is called: `ViT-B-32--openai`, `org--name`."""
    if model_name.startswith(HUB_PREFIX):
        return model_name.removeprefix(HUB_PREFIX).replace("/", "--")
    return f"{model_name.replace('/', '-')}--{pretrained}"


def _described(path: Path, origin: str) -> WeightsFolder:
    """Name a folder by what it says of itself, else by its own name."""
    made_of = read_config(path).source
    weights_file(path)
    return WeightsFolder(
        path=path,
        model_name=made_of.get("model_name") or path.resolve().name,
        pretrained=made_of.get("pretrained", ""),
        origin=origin,
    )


def _checked(folder: WeightsFolder) -> WeightsFolder:
    read_config(folder.path)
    weights_file(folder.path)
    return folder


def _find_repository(source: ModelSource, model_name: str) -> WeightsFolder:
    repo = model_name.removeprefix(HUB_PREFIX)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise StartupError(f"CLIP_MODEL_NAME={model_name} must be {HUB_PREFIX}organisation/name")
    found = _find_prepared(source, model_name, "") or _find_cached(source, repo, model_name, "")
    if found:
        return found
    return _checked(WeightsFolder(_download(repo, source), model_name, "", "download"))


def _find_named(source: ModelSource, model_name: str, pretrained: str) -> WeightsFolder:
    found = _find_prepared(source, model_name, pretrained)
    if found:
        return found
    tag = find_tag(model_name, pretrained)
    if tag.repo:
        found = _find_cached(source, tag.repo, model_name, pretrained)
        if found is None:
            found = WeightsFolder(_download(tag.repo, source), model_name, pretrained, "download")
        if holds_model(found.path) and tag.agrees_with(read_config(found.path)):
            return found
    return _prepare(source, model_name, pretrained)


def _find_prepared(source: ModelSource, model_name: str, pretrained: str) -> WeightsFolder | None:
    name = folder_name(model_name, pretrained)
    for root in (*source.roots, _assets_root()):
        if not exists(root / name):
            continue
        found = _checked(WeightsFolder(root / name, model_name, pretrained, "prepared"))
        if _is_of(found):
            return found
        log.warning("%s is passed over: its config says that it is another model", root / name)
    return None


def _is_of(folder: WeightsFolder) -> bool:
    """Whether the folder's config names the model that it is looked for, or none."""
    made_of = read_config(folder.path).source
    name = str(made_of.get("model_name", folder.model_name))
    name = name if name.startswith(HUB_PREFIX) else name.replace("/", "-")
    return (name, made_of.get("pretrained", folder.pretrained)) == (folder.model_name, folder.pretrained)


def _find_cached(source: ModelSource, repo: str, model_name: str, pretrained: str) -> WeightsFolder | None:
    """Look for a snapshot of *repo* in every cache, without importing huggingface_hub's half second."""
    for cache in (*source.hub_caches, _hub_cache()):
        for snapshot in _snapshots(cache / f"models--{repo.replace('/', '--')}"):
            if holds_model(snapshot):
                return WeightsFolder(snapshot, model_name, pretrained, "cache")
    return None


def _snapshots(cached: Path) -> list[Path]:
    """Return the snapshots of one cached repository: the one that `refs/main` names, else all."""
    try:
        main = cached / "refs" / "main"
        if main.exists():
            return [cached / "snapshots" / main.read_text(encoding="ascii").strip()]
        return sorted((cached / "snapshots").iterdir()) if (cached / "snapshots").exists() else []
    except (OSError, ValueError) as exc:
        raise StartupError(
            f"cannot read {cached}: {reason_of(exc)}; delete it or fix its permissions"
        ) from exc


def _hub_cache() -> Path:
    from huggingface_hub import constants  # noqa: PLC0415  (12 ms; the rest of that package is 500)

    return Path(constants.HF_HUB_CACHE)


def _assets_root() -> Path:
    from huggingface_hub import constants  # noqa: PLC0415

    return Path(constants.HF_ASSETS_CACHE) / "clip-embedding-worker"


def _download(repo: str, source: ModelSource) -> Path:
    """Fetch config, tokenizer and weights of *repo* into the Hugging Face cache; resumes, idempotent."""
    if not source.allow_download:
        raise StartupError(
            f"{repo} is not on this machine; run 'python -m embedding prepare' while building the image"
        )
    import httpx2  # noqa: PLC0415  (with huggingface_hub half a second, which only a download pays)
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        return _fetch(repo)
    except errors.GatedRepoError as exc:
        raise StartupError(f"{repo} is gated; accept its terms on huggingface.co and set HF_TOKEN") from exc
    except errors.RepositoryNotFoundError as exc:
        raise StartupError(f"{repo} does not exist on huggingface.co, or HF_TOKEN may not read it") from exc
    except errors.HFValidationError as exc:
        raise StartupError(f"{repo} is not a repository's name on huggingface.co") from exc
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx2.TransportError) as exc:
        reason = reason_of(exc.__cause__ or exc)
        raise StartupError(f"cannot get {repo} from huggingface.co ({reason}); {_WITHOUT_NETWORK}") from exc
    except (OSError, httpx2.HTTPError, RuntimeError) as exc:
        raise StartupError(
            f"downloading {repo} failed ({reason_of(exc)}); check disk space and try again"
        ) from exc


def _fetch(repo: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    path = Path(snapshot_download(repo, allow_patterns=[*SMALL_FILES, WEIGHTS_NAME]))
    if not (path / CONFIG_NAME).exists():
        snapshot_download(repo, allow_patterns=["config.json"])
    elif not (path / WEIGHTS_NAME).exists():
        snapshot_download(repo, allow_patterns=[_PICKLED_WEIGHTS])
    return path


def _prepare(source: ModelSource, model_name: str, pretrained: str) -> WeightsFolder:
    """Let open_clip make the folder that the hub does not hold in its format, into the cache."""
    if not source.allow_download:
        name = folder_name(model_name, pretrained)
        raise StartupError(f"{name} is not under MODEL_ROOTS; run 'python -m embedding prepare' for it")
    from embedding.model.prepare import prepare  # noqa: PLC0415  (imports open_clip)

    return prepare(model_name, pretrained, _assets_root() / folder_name(model_name, pretrained), say=log.info)
