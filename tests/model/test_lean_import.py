"""Loading and running a plain CLIP ViT imports none of the packages that make open_clip slow."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.model.folders import needs_open_clip


HEAVY = ["open_clip", "torchvision", "timm", "transformers", "huggingface_hub.file_download", "torch._dynamo"]
PROGRAM = """
import json, pathlib, sys
from embedding.model.golden import load_checked
from embedding.model.weights import ModelSource, find_weights

folder = find_weights(ModelSource(model_path=pathlib.Path(sys.argv[1])))
model, worst = load_checked(folder, device="cpu")
print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""


def test_plain_folder(tiny_folder):
    """From a folder to checked vectors, only torch, safetensors and the tokenizer's needs are imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_folder.path), *HEAVY],
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout) == []


@needs_open_clip
def test_tags_need_no_open_clip():
    """Looking up a tag, and a wrong one, imports neither open_clip nor torchvision nor timm."""
    program = """
import sys
from embedding.errors import StartupError
from embedding.model.registry import find_tag
print(find_tag("ViT-B-32", "openai").repo)
try:
    find_tag("ViT-B-33", "openai")
except StartupError as fault:
    print(fault)
print(sorted({"open_clip", "torchvision", "timm"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    repo, fault, imported = done.stdout.splitlines()
    assert repo == "timm/vit_base_patch32_clip_224.openai"
    assert "ViT-B-32" in fault
    assert json.loads(imported) == []
