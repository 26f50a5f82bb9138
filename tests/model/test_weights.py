"""Weights are found in the order of their sources; whatever is wrong is told in one line."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from embedding.errors import StartupError
from embedding.model import weights
from embedding.model.folder import CONFIG_NAME, WEIGHTS_NAME
from embedding.model.weights import ModelSource, find_weights, folder_name
from tests.model.folders import TINY, needs_open_clip, write_config


REPO = "timm/vit_base_patch32_clip_224.openai"  # open_clip's repository of ViT-B-32, openai
OPENAI = {**TINY, "quick_gelu": True}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A machine whose demo model, Hugging Face cache and prepared folders are under *tmp_path*."""
    monkeypatch.setattr(weights, "DEMO_PATH", tmp_path / "demo")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path


def source(places, **more):
    """Return a ModelSource that looks only under *places*."""
    roots = places / "image", places / "volume"
    return ModelSource(roots=roots, hub_caches=(places / "runpod",), **{"allow_download": False, **more})


def put(path, model_cfg=TINY, **config):
    """Put a folder at *path* that looks like a model's; its weights are never opened here."""
    write_config(path, model_cfg, **config)
    (path / WEIGHTS_NAME).write_bytes(b"")
    return path


def cached(hub, repo, *, main=True):
    """Return where *hub* keeps its snapshot of *repo*."""
    repository = hub / f"models--{repo.replace('/', '--')}"
    if main:
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("c0ffee")
    return repository / "snapshots" / "c0ffee"


class TestOrder:
    NAMED = (
        ("image/ViT-B-32--openai", "prepared"),
        ("volume/ViT-B-32--openai", "prepared"),
        ("assets/clip-embedding-worker/ViT-B-32--openai", "prepared"),
        (f"runpod/models--{REPO.replace('/', '--')}/snapshots/c0ffee", "cache"),
        (f"hub/models--{REPO.replace('/', '--')}/snapshots/c0ffee", "cache"),
    )

    @needs_open_clip
    @pytest.mark.parametrize("first", range(len(NAMED)))
    def test_name_and_tag(self, places, first):
        """A name and a tag are looked for in the image, on the volume, then in the caches."""
        for path, _ in self.NAMED[first:]:
            put(places / path, OPENAI)

        found = find_weights(source(places, model_name="ViT-B-32", pretrained="openai"))

        assert (found.path, found.origin) == (places / self.NAMED[first][0], self.NAMED[first][1])
        assert (found.model_name, found.pretrained) == ("ViT-B-32", "openai")

    def test_model_path_wins(self, places):
        """MODEL_PATH comes before a name, and the folder is called what it says or its own name."""
        put(places / "image" / "ViT-B-32--openai")
        mine = put(places / "mine")
        made = put(places / "made", source={"model_name": "ViT-S-32", "pretrained": "x"})

        found = [
            find_weights(source(places, model_path=path, model_name="ViT-B-32", pretrained="openai"))
            for path in (mine, made)
        ]

        assert [(f.path, f.model_name, f.pretrained, f.origin) for f in found] == [
            (mine, "mine", "", "MODEL_PATH"),
            (made, "ViT-S-32", "x", "MODEL_PATH"),
        ]

    def test_demo(self, places):
        """With nothing set it is the demo model."""
        put(places / "demo")

        assert find_weights(source(places)).origin == "demo"

    @pytest.mark.parametrize("main", [True, False], ids=["refs/main", "no refs"])
    def test_hub_name(self, places, main):
        """A repository is found in the endpoint's cache, with or without a ref; a tag is ignored."""
        snapshot = put(cached(places / "runpod", "org/name", main=main))

        found = find_weights(source(places, model_name="hf-hub:org/name", pretrained="openai"))

        assert (found.path, found.model_name, found.pretrained) == (snapshot, "hf-hub:org/name", "")

    def test_ref_decides(self, places):
        """Of several snapshots, the one that refs/main names is served."""
        snapshot = put(cached(places / "hub", "org/name"))
        put(snapshot.parent / "0lder")

        assert find_weights(source(places, model_name="hf-hub:org/name")).path == snapshot

    def test_incomplete_cache_is_passed_over(self, places):
        """A snapshot whose weights did not arrive is not served; the next cache is asked."""
        write_config(cached(places / "runpod", "org/name"), TINY)
        complete = put(cached(places / "hub", "org/name"))

        assert find_weights(source(places, model_name="hf-hub:org/name")).path == complete

    @pytest.mark.parametrize(
        ("name", "tag", "folder"),
        [
            ("ViT-B-32", "openai", "ViT-B-32--openai"),
            ("ViT-B/32", "openai", "ViT-B-32--openai"),
            ("hf-hub:org/name", "", "org--name"),
        ],
    )
    def test_folder_name(self, name, tag, folder):
        """A prepared folder is called after its model."""
        assert folder_name(name, tag) == folder

    def test_roots_that_a_container_has(self):
        """By default the image is asked before the volume, and RunPod's cache is known."""
        assert ModelSource().roots == (Path("/models"), Path("/runpod-volume/models"))
        assert ModelSource().hub_caches == (Path("/runpod-volume/huggingface-cache/hub"),)


def without(name):
    """Return what puts a folder at a path, without its file *name*."""

    def make(path):
        put(path)
        (path / name).unlink()

    return make


def with_config(content):
    """Return what puts a folder at a path, with *content* as its config."""

    def make(path):
        put(path)
        (path / CONFIG_NAME).write_bytes(
            content if isinstance(content, bytes) else json.dumps(content).encode()
        )

    return make


def with_model(**changes):
    """Return what puts a folder at a path, with *changes* to its model's config."""
    return with_config({"model_cfg": {**TINY, **changes}})


class TestFaultsOfFolders:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda _: None, "folder does not exist; set MODEL_PATH to a folder"),
            (lambda path: path.write_text("x"), "has no open_clip_config.json; it must be a folder"),
            (
                without(CONFIG_NAME),
                "has no open_clip_config.json; it must be a folder in open_clip's hub format",
            ),
            (without(WEIGHTS_NAME), "has no weights file; put open_clip_model.safetensors there or prepare"),
            (with_config(b"{"), r"is not JSON \(.*\); prepare the folder again"),
            (with_config(b"\xff"), "is not JSON"),
            (with_config([]), "has no model_cfg object; it must be as open_clip writes it"),
            (with_config(TINY), "has no model_cfg object"),
            (with_config({"model_cfg": TINY, "source": []}), "has a source that is not an object"),
            (
                with_config({"model_cfg": TINY, "preprocess_cfg": 1}),
                "has a preprocess_cfg that is not an object",
            ),
            (with_model(vision_cfg=None), "has no model_cfg.vision_cfg object"),
            (with_model(text_cfg=[]), "has no model_cfg.text_cfg object"),
            (with_model(embed_dim=0), "has no model_cfg.embed_dim above 0"),
            (with_model(embed_dim="512"), "has no model_cfg.embed_dim above 0"),
            (with_model(vision_cfg={"image_size": [224, 336]}), "only squares are served"),
        ],
    )
    def test_model_path(self, places, make, message):
        """Each fault of MODEL_PATH is one line that names it and what to do."""
        make(places / "folder")

        with pytest.raises(StartupError, match=message) as fault:
            find_weights(source(places, model_path=places / "folder"))

        assert "\n" not in str(fault.value)

    def test_no_permission(self, places, monkeypatch):
        """A config that may not be read is said to be so."""
        put(places / "folder")

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_text", refuse)

        with pytest.raises(StartupError, match=r"cannot read .*: Permission denied; check its permissions"):
            find_weights(source(places, model_path=places / "folder"))

    def test_no_permission_to_look(self, places, monkeypatch):
        """So is a folder that may not be looked into."""

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "exists", refuse)

        with pytest.raises(StartupError, match="check its permissions"):
            find_weights(source(places, model_path=places / "folder"))

    def test_broken_prepared_folder(self, places):
        """A prepared folder that is not whole is a fault, not a reason to download."""
        (places / "image" / "ViT-B-32--openai").mkdir(parents=True)

        with pytest.raises(StartupError, match=r"ViT-B-32--openai has no open_clip_config.json"):
            find_weights(source(places, model_name="ViT-B-32", pretrained="openai"))


class TestFaultsOfNames:
    @needs_open_clip
    @pytest.mark.parametrize(
        ("name", "tag", "message"),
        [
            ("ViT-B32", "openai", r"^ViT-B32 is not a model of open_clip; did you mean .*ViT-B-32.*\?$"),
            ("gpt", "openai", r"^gpt is not a model of open_clip; did you mean .*\?$"),
            ("ViT-B-32", "opnai", r"^model ViT-B-32 has no tag opnai; its tags: openai, laion400m_e31, "),
            (
                "ViT-B-32",
                None,
                r"^model ViT-B-32 needs a tag \(CLIP_PRETRAINED, --pretrained\); its tags: openai, ",
            ),
            ("ViT-e-14", "openai", r"has no tag openai; its tags: none; prepare it with --weights$"),
            ("ViT-B-32", "openai", r"^timm/vit_base_patch32_clip_224.openai is not on this machine; run "),
            ("ViTamin-S", "datacomp1b", r"^ViTamin-S--datacomp1b is not under MODEL_ROOTS; run "),
        ],
    )
    def test_names(self, places, name, tag, message):
        """Unknown names get close matches, unknown tags the list, absent weights the way to get them."""
        with pytest.raises(StartupError, match=message):
            find_weights(source(places, model_name=name, pretrained=tag))

    @pytest.mark.parametrize(
        ("name", "tag", "message"),
        [
            (None, "openai", r"^CLIP_PRETRAINED=openai needs CLIP_MODEL_NAME$"),
            ("hf-hub:", None, r"must be hf-hub:organisation/name$"),
            ("hf-hub:name", None, r"must be hf-hub:organisation/name$"),
            ("hf-hub:a/b/c", None, r"must be hf-hub:organisation/name$"),
            ("hf-hub:org/name", None, r"^org/name is not on this machine; run 'python -m embedding prepare'"),
        ],
    )
    def test_names_outside_the_list(self, places, name, tag, message):
        """Names that are not of open_clip's list are told what they lack."""
        with pytest.raises(StartupError, match=message):
            find_weights(source(places, model_name=name, pretrained=tag))

    @needs_open_clip
    def test_no_guess_of_the_activation(self, places):
        """A repository whose activation is not that of its tag is not served as it is."""
        put(cached(places / "runpod", REPO), TINY)

        with pytest.raises(StartupError, match="run 'python -m embedding prepare' for it"):
            find_weights(source(places, model_name="ViT-B-32", pretrained="openai"))

    @pytest.mark.parametrize(
        ("repo", "instead"), [("openai/clip-vit-large-patch14", "ViT-L-14"), ("some/model", "ViT-B-32")]
    )
    def test_transformers_format(self, places, repo, instead):
        """A folder in transformers' format is recognised, and what to set instead is said."""
        snapshot = cached(places / "runpod", repo)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")

        with pytest.raises(StartupError, match=f"transformers' format.*CLIP_MODEL_NAME={instead} and"):
            find_weights(source(places, model_path=snapshot))

    def test_other_files_of_a_repository(self, places):
        """A cache that holds a repository's files for transformers or timm only is passed over."""
        snapshot = cached(places / "runpod", "org/name")
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")

        with pytest.raises(StartupError, match=r"^org/name is not on this machine"):
            find_weights(source(places, model_name="hf-hub:org/name"))

    def test_unreadable_ref(self, places):
        """A damaged cache is said to be so."""
        repository = cached(places / "runpod", "org/name").parent.parent
        (repository / "refs" / "main").write_bytes(b"\xff")

        with pytest.raises(StartupError, match="delete it or fix its permissions"):
            find_weights(source(places, model_name="hf-hub:org/name"))
