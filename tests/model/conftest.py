"""Folders and devices that several files of tests share."""

from __future__ import annotations

import json

import huggingface_hub.constants
import pytest
import torch

from tests.model.folders import NO_OPEN_CLIP, TINY, open_clip, write_folder


@pytest.fixture(scope="session", params=["cpu", "cuda:0"] if torch.cuda.is_available() else ["cpu"])
def device(request):
    """Every device that this machine has."""
    return request.param


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder of the smallest plain CLIP."""
    return write_folder(tmp_path_factory.mktemp("tiny") / "tiny", TINY)


@pytest.fixture
def tiny_models(monkeypatch):
    """open_clip knows the tiny model as `tiny`, and takes ViT-B-32 for it."""
    if open_clip is None:
        pytest.skip(NO_OPEN_CLIP)
    known = dict(open_clip.factory._MODEL_CONFIGS)
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", known)
    known["tiny"] = known["ViT-B-32"] = json.loads(json.dumps(TINY))


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """The Hugging Face Hub is not asked, and nothing of it is cached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
