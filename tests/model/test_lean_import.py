"""Loading and running a plain CLIP ViT imports none of the packages that make open_clip slow."""

from __future__ import annotations

import json
import subprocess
import sys


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
