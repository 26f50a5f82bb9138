"""The two towers of CLIP: a vision transformer and a causal text transformer.

They hold every plain CLIP ViT of open_clip's list (OpenAI, LAION, DataComp, MetaCLIP and DFN weights):
a class token, learned positions, a norm before and after the blocks, byte-pair tokens, and one linear
projection into the shared space. Parameters carry open_clip's names, so its checkpoints load as they are.
Inference only; features are not normalised here.

References:
1. Radford et al., Learning Transferable Visual Models From Natural Language Supervision.
   https://arxiv.org/abs/2103.00020
2. Dosovitskiy et al., An Image is Worth 16x16 Words. https://arxiv.org/abs/2010.11929
3. Hendrycks and Gimpel, Gaussian Error Linear Units (QuickGELU is their sigmoid form).
   https://arxiv.org/abs/1606.08415
4. The reference whose numbers these reproduce. https://github.com/mlfoundations/open_clip

Two exact savings over the reference: only one position of each sequence leaves a tower, so the last block
computes that one query (its keys and values stay whole); and a causal mask means that nothing behind the
last end-of-text token of a batch can change a feature, so callers pass tokens no wider than that.

Shapes: B batch, S image side, P patch side, N = (S / P)² + 1 image positions, L text positions,
W width of a tower, H heads, D dimension of the shared space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


if TYPE_CHECKING:
    from embedding.model.config import CLIPConfig, TextConfig, TowerConfig, VisionConfig


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map *x* (..., I) by *weight* (O, I), plain or packed (see `packing`), to (..., O)."""
    if weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """A linear layer whose weight may be packed."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return linear(x, self.weight, self.bias)


class QuickGELU(nn.Module):
    """x · σ(1.702 x), the activation of OpenAI's, MetaCLIP's and DFN's weights [1, 3]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of *x*, same shape and dtype."""
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head attention with one fused projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Every position of *x* (B, N, W) attends to every other, or to none behind it if *causal*."""
        q, k, v = self._project(x)                                                    # (B, H, N, W/H) each
        return self._merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal))

    def one_query(self, x: Tensor, row: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Position *row* (B, 1) of *x* (B, N, W) attends where *mask* (B, 1, 1, N) is true; (B, 1, W)."""
        q, k, v = self._project(x)                                                    # (B, H, N, W/H) each
        q = q.take_along_dim(row[:, None, :, None], dim=2)                            # (B, H, 1, W/H)
        return self._merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        qkv = linear(x, self.in_proj_weight, self.in_proj_bias)                       # (B, N, 3W)
        return tuple(self._split(t) for t in qkv.chunk(3, dim=-1))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)                      # (B, H, N, W/H)

    def _merge(self, x: Tensor) -> Tensor:
        return self.out_proj(x.transpose(1, 2).flatten(2))                            # (B, N, W)


class Block(nn.Module):
    """A pre-norm residual block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, tower: TowerConfig, *, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(tower.width)
        self.attn = Attention(tower.width, tower.heads)
        self.ln_2 = nn.LayerNorm(tower.width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", Linear(tower.width, tower.mlp_width))
        self.mlp.add_module("gelu", QuickGELU() if quick_gelu else nn.GELU())
        self.mlp.add_module("c_proj", Linear(tower.mlp_width, tower.width))

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """Map (B, N, W) to (B, N, W)."""
        x = x + self.attn(self.ln_1(x), causal=causal)
        return x + self.mlp(self.ln_2(x))

    def one_query(self, x: Tensor, row: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Return the block's output at one position *row* (B, 1) of each sequence only, (B, 1, W)."""
        x_row = x.take_along_dim(row[..., None], dim=1)                               # (B, 1, W)
        x_row = x_row + self.attn.one_query(self.ln_1(x), row, mask=mask)
        return x_row + self.mlp(self.ln_2(x_row))


class Transformer(nn.Module):
    """A stack of blocks, named as open_clip names them."""

    def __init__(self, tower: TowerConfig, *, quick_gelu: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(tower, quick_gelu=quick_gelu) for _ in range(tower.layers))

    def forward(self, x: Tensor, row: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Map (B, N, W) to the output at position *row* (B,) of each sequence, (B, W)."""
        for block in self.resblocks[:-1]:
            x = block(x, causal=causal)                                               # (B, N, W)
        last = cast("Block", self.resblocks[-1])
        return last.one_query(x, row.unsqueeze(1), mask=mask).squeeze(1)              # (B, W)


class PatchEmbedding(nn.Module):
    """One linear map of each patch: a convolution whose stride is its size, as the product that it is."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.weight = nn.Parameter(torch.empty(width, 3, patch_size, patch_size))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map *pixels* (B, 3, S, S) to patches (B, N - 1, W); rows and columns beyond the last are left."""
        p, g = self.patch_size, pixels.shape[-1] // self.patch_size
        x = pixels[..., : g * p, : g * p].unflatten(-1, (g, p)).unflatten(-3, (g, p)) # (B, 3, g, P, g, P)
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)                      # (B, N - 1, 3·P²)
        return linear(x, self.weight if self.weight.is_mkldnn else self.weight.flatten(1), None)


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, blocks; the class token leaves through *proj* [2]."""

    def __init__(self, config: VisionConfig, embed_dim: int, *, quick_gelu: bool) -> None:
        super().__init__()
        self.conv1 = PatchEmbedding(config.width, config.patch_size)
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.positional_embedding = nn.Parameter(torch.empty(config.positions, config.width))
        self.ln_pre = nn.LayerNorm(config.width)
        self.transformer = Transformer(config, quick_gelu=quick_gelu)
        self.ln_post = nn.LayerNorm(config.width)
        self.proj = nn.Parameter(torch.empty(config.width, embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised *pixels* (B, 3, S, S) to features (B, D)."""
        patches = self.conv1(pixels)                                                  # (B, N - 1, W)
        cls = self.class_embedding.expand(len(patches), 1, -1)                        # (B, 1, W)
        x = torch.cat([cls, patches], dim=1) + self.positional_embedding              # (B, N, W)
        first = torch.zeros(len(x), dtype=torch.long, device=x.device)                # (B,)
        x = self.transformer(self.ln_pre(x), first)                                   # (B, W)
        return self.ln_post(x) @ self.proj                                            # (B, D)


class CLIP(nn.Module):
    """Both towers and the logit scale. The text tower stands at the root, as in open_clip."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        text: TextConfig = config.text
        self.visual = VisionTransformer(config.vision, config.embed_dim, quick_gelu=config.quick_gelu)
        self.token_embedding = nn.Embedding(text.vocab_size, text.width)
        self.positional_embedding = nn.Parameter(torch.empty(text.context_length, text.width))
        self.transformer = Transformer(text, quick_gelu=config.quick_gelu)
        self.ln_final = nn.LayerNorm(text.width)
        self.text_projection = nn.Parameter(torch.empty(text.width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map normalised *pixels* (B, 3, S, S), in the model's dtype, to features (B, D)."""
        features: Tensor = self.visual(pixels)
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Map *tokens* (B, L) int64, zero-padded, L up to the context length, to features (B, D).

        A text's feature stands at its end-of-text token, which has the highest id of the vocabulary [1].
        """
        length = tokens.shape[1]
        end = tokens.argmax(dim=-1)                                                   # (B,)
        x = self.token_embedding(tokens) + self.positional_embedding[:length]         # (B, L, W)
        seen = torch.arange(length, device=tokens.device) <= end.unsqueeze(1)         # (B, L)
        x = self.transformer(x, end, mask=seen[:, None, None], causal=True)           # (B, W)
        return self.ln_final(x) @ self.text_projection                                # (B, D)
