"""Which of open_clip's models run on our own towers, and that every one of those fits them."""

from __future__ import annotations

import pytest
import torch

from embedding.model.checkpoint import mismatch, own_names
from embedding.model.clip import CLIP
from embedding.model.config import CLIPConfig
from tests.model.folders import needs_open_clip, open_clip


OWN = """
ViT-B-16 ViT-B-16-plus ViT-B-16-plus-240 ViT-B-16-quickgelu ViT-B-32 ViT-B-32-256 ViT-B-32-plus-256
ViT-B-32-quickgelu ViT-H-14 ViT-H-14-378 ViT-H-14-378-quickgelu ViT-H-14-quickgelu ViT-H-16 ViT-L-14
ViT-L-14-280 ViT-L-14-336 ViT-L-14-336-quickgelu ViT-L-14-quickgelu ViT-L-16 ViT-L-16-320 ViT-M-16 ViT-M-32
ViT-M-32-alt ViT-S-16 ViT-S-16-alt ViT-S-32 ViT-S-32-alt ViT-bigG-14 ViT-bigG-14-quickgelu ViT-e-14 ViT-g-14
"""
FALLBACK = """
EVA01-g-14-plus EVA01-g-14 EVA02-B-16 EVA02-E-14-plus EVA02-E-14 EVA02-L-14-336 EVA02-L-14 MobileCLIP-B
MobileCLIP-S1 MobileCLIP-S2 MobileCLIP2-B MobileCLIP2-L-14 MobileCLIP2-S0 MobileCLIP2-S2 MobileCLIP2-S3
MobileCLIP2-S4 PE-Core-B-16 PE-Core-L-14-336 PE-Core-S-16-384 PE-Core-T-16-384 PE-Core-bigG-14-448
RN101-quickgelu RN101 RN50-quickgelu RN50 RN50x16-quickgelu RN50x16 RN50x4-quickgelu RN50x4
RN50x64-quickgelu RN50x64 ViT-B-16-SigLIP-256 ViT-B-16-SigLIP-384 ViT-B-16-SigLIP-512
ViT-B-16-SigLIP-i18n-256 ViT-B-16-SigLIP ViT-B-16-SigLIP2-256 ViT-B-16-SigLIP2-384 ViT-B-16-SigLIP2-512
ViT-B-16-SigLIP2 ViT-B-32-SigLIP2-256 ViT-H-14-CLIPA-336 ViT-H-14-CLIPA ViT-H-14-worldwide-378
ViT-H-14-worldwide-quickgelu ViT-H-14-worldwide ViT-L-14-CLIPA-336 ViT-L-14-CLIPA
ViT-L-14-worldwide-quickgelu ViT-L-14-worldwide ViT-L-16-SigLIP-256 ViT-L-16-SigLIP-384 ViT-L-16-SigLIP2-256
ViT-L-16-SigLIP2-384 ViT-L-16-SigLIP2-512 ViT-M-16-alt ViT-SO400M-14-SigLIP-378 ViT-SO400M-14-SigLIP-384
ViT-SO400M-14-SigLIP ViT-SO400M-14-SigLIP2-378 ViT-SO400M-14-SigLIP2 ViT-SO400M-16-SigLIP-i18n-256
ViT-SO400M-16-SigLIP2-256 ViT-SO400M-16-SigLIP2-384 ViT-SO400M-16-SigLIP2-512 ViT-bigG-14-CLIPA-336
ViT-bigG-14-CLIPA ViT-bigG-14-worldwide-378 ViT-bigG-14-worldwide ViT-gopt-16-SigLIP2-256
ViT-gopt-16-SigLIP2-384 ViTamin-B-LTT ViTamin-B ViTamin-L-256 ViTamin-L-336 ViTamin-L-384 ViTamin-L
ViTamin-L2-256 ViTamin-L2-336 ViTamin-L2-384 ViTamin-L2 ViTamin-S-LTT ViTamin-S ViTamin-XL-256
ViTamin-XL-336 ViTamin-XL-384 coca_ViT-B-32 coca_ViT-L-14 coca_base coca_roberta-ViT-B-32 convnext_base
convnext_base_w convnext_base_w_320 convnext_large convnext_large_d convnext_large_d_320 convnext_small
convnext_tiny convnext_xlarge convnext_xxlarge convnext_xxlarge_320 mt5-base-ViT-B-32 mt5-xl-ViT-H-14
nllb-clip-base-siglip nllb-clip-base nllb-clip-large-siglip nllb-clip-large roberta-ViT-B-32
swin_base_patch4_window7_224 vit_medium_patch16_gap_256 vit_relpos_medium_patch16_cls_224
xlm-roberta-base-ViT-B-32 xlm-roberta-large-ViT-H-14
"""


@needs_open_clip
def test_the_lists_are_complete():
    """Every model of open_clip is on one of the two lists; a new release that adds some fails here."""
    own = [name for name in open_clip.list_models() if CLIPConfig.from_json(open_clip.get_model_config(name))]

    assert sorted(OWN.split()) == sorted(own)
    assert sorted((OWN + FALLBACK).split()) == sorted(open_clip.list_models())


def shapes_of(tensors):
    """Return the shape of each tensor."""
    return {name: tensor.shape for name, tensor in tensors.items()}


@needs_open_clip
@pytest.mark.parametrize("name", OWN.split())
def test_names_and_shapes(name):
    """Our towers have exactly the parameters, by name and shape, of open_clip's model."""
    model_cfg = open_clip.get_model_config(name)
    with torch.device("meta"):
        ours, theirs = CLIP(CLIPConfig.from_json(model_cfg)), open_clip.CLIP(**model_cfg)

    given = shapes_of(theirs.state_dict())
    assert (
        mismatch({n: given[at] for n, at in own_names(given).items()}, shapes_of(ours.state_dict())) is None
    )


def test_mismatch_is_told():
    """Missing, unexpected and misshapen tensors are each told, with a few names."""
    wanted = dict.fromkeys("abcdef", (2, 3))
    given = {"e": (3, 2), "f": (2, 3), "x": ()}

    assert mismatch(given, wanted) == (
        "4 missing (a, b, c, ...), 1 unexpected (x), 1 of another shape (e is 3x2, not 2x3)"
    )
