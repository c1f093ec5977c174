"""DINOv2 (Oquab et al.: "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024), for Fréchet
distances that do not favour generators trained with an ImageNet classifier (Stein et al., NeurIPS 2023): the class
token of the last layer, after the final norm.

timm's vision transformer, which names its tensors as the official checkpoints do, with one thing done as the official
code does it. The position embedding was learned for 37 x 37 patches (518 pixels); 224 pixels are 16 x 16. The official
code resamples with the scale factor (16 + 0.1) / 37, bicubic, no antialiasing; timm fits the size exactly and
antialiases, which gives other features. At 518 pixels neither resamples, and they agree.

Needs timm (`pip install "timm>=1.0.20"`). State dict: as in `dinov2_vitb14_pretrain.pth` and its counterpart for ViT-L.
Shapes: N images, D features (768 or 1024), h x w patches.
"""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from gan.features.standard import standardized

_OFFSET = 0.1  # of a patch; the official `interpolate_offset`


class DinoV2(VisionTransformer):
    """`forward`: levels 0 ... 255 float32 [N, 3, 14 h, 14 w] to features [N, D]; no probabilities."""

    side = 224
    ignored: tuple[str, ...] = ("mask_token",)  # used in training alone

    def __init__(self, *, width: int, depth: int, heads: int) -> None:
        super().__init__(
            img_size=518, patch_size=14, embed_dim=width, depth=depth, num_heads=heads, init_values=1e-5,
            num_classes=0, dynamic_img_size=True, weight_init="skip",
        )  # fmt: skip
        self.width = width

    def forward(self, x: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().forward(standardized(x)), None

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Tokens [N, 1 + h w, D] with their positions, of patches [N, h, w, D]."""
        assert self.cls_token is not None and self.pos_embed is not None  # always set in this configuration
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
        return tokens + resampled(self.pos_embed, x.shape[1], x.shape[2])


def resampled(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Position embedding [1, 1 + rows columns, D] from that of a square grid [1, 1 + s s, D], by the official rule."""
    side = round((positions.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return positions
    grid = positions[:, 1:].view(1, side, side, -1).permute(0, 3, 1, 2)
    factors = ((rows + _OFFSET) / side, (columns + _OFFSET) / side)
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def vitb14() -> DinoV2:
    """ViT-B/14: 768 features."""
    return DinoV2(width=768, depth=12, heads=12)


def vitl14() -> DinoV2:
    """ViT-L/14: 1024 features, what FD-DINOv2 is defined on."""
    return DinoV2(width=1024, depth=24, heads=16)
