"""The handler as RunPod's and open_clip's documentation write it: the way people do it, kept to be measured.

One synchronous handler, one job at a time, open_clip's own model and transform in fp32. Nothing is clever
here on purpose. The folder of weights is the first argument.
"""

import base64
import io
import sys

import open_clip
import runpod
import torch
from PIL import Image


model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{sys.argv[1]}")
model.eval()


def handler(job: dict[str, dict[str, str]]) -> dict[str, list[float]]:
    """Return the embedding of the job's picture."""
    image = Image.open(io.BytesIO(base64.b64decode(job["input"]["image_base64"])))
    with torch.no_grad():
        features = model.encode_image(preprocess(image).unsqueeze(0), normalize=True)
    return {"embedding": features[0].tolist()}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
