"""The Inception network of 2015-12-05 that FID and the inception score were defined on (Szegedy et al.: "Rethinking the
Inception Architecture for Computer Vision", CVPR 2016; the graph `inception-2015-12-05.tgz` of TensorFlow).

torchvision's `Inception3` with what that graph does differently: average pools that leave the padding out (blocks A, C
and the first E), a max pool in the last block, 1,008 outputs, pixels scaled by (x - 128) / 128. torchvision's own
weights give other features. Agrees with torch-fidelity's and pytorch-fid's networks (`tests/gan`).

State dict: as in `pt_inception-2015-12-05-6726825d.pth`. Shapes: N images, 2048 features, 1008 outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.inception import (
    BasicConv2d,
    Inception3,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)


class InceptionTF(Inception3):
    """`forward`: levels 0 ... 255 float32 [N, 3, 299, 299] to the pooled features [N, 2048] and logits [N, 1008].

    The logits leave the last layer's bias out, as the inception score is defined (torch-fidelity `logits_unbiased`,
    NVIDIA `no_output_bias`).
    """

    side = 299
    width = 2048
    ignored: tuple[str, ...] = ()

    def __init__(self) -> None:
        blocks = [BasicConv2d, _A, InceptionB, _C, InceptionD, _E, InceptionAux]
        super().__init__(num_classes=1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
        self.Mixed_7c = _LastE(2048)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (x - 128) / 128
        for name, layer in self.named_children():  # in the order of torchvision's own pass
            if name == "dropout":
                break
            x = layer(x)
        features = torch.flatten(x, 1)
        return features, F.linear(features, self.fc.weight)


def _chain(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _mean_inside(x: Tensor) -> Tensor:
    """3x3 means over the pixels that exist; torchvision counts the padding's zeros too."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _A(InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.branch1x1(x),
            _chain(x, self.branch5x5_1, self.branch5x5_2),
            _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
            self.branch_pool(_mean_inside(x)),
        ]


class _C(InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        doubled = (self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3, self.branch7x7dbl_4)
        return [
            self.branch1x1(x),
            _chain(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3),
            _chain(x, *doubled, self.branch7x7dbl_5),
            self.branch_pool(_mean_inside(x)),
        ]


class _E(InceptionE):
    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch3x3_1(x)
        doubled = _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1),
            torch.cat([self.branch3x3dbl_3a(doubled), self.branch3x3dbl_3b(doubled)], 1),
            self.branch_pool(self.pooled(x)),
        ]

    def pooled(self, x: Tensor) -> Tensor:
        return _mean_inside(x)


class _LastE(_E):
    def pooled(self, x: Tensor) -> Tensor:
        """3x3 maxima: the graph of 2015 has them here and nowhere else."""
        return F.max_pool2d(x, 3, stride=1, padding=1)
