"""VGG16 (Simonyan, Zisserman, ICLR 2015) for precision and recall: the second fully connected layer, after its ReLU.

Torchvision's network and weights, as torch-fidelity's extractor `vgg16` takes them (feature `fc2_relu`). The paper of
improved precision and recall (Kynkäänniemi et al., NeurIPS 2019) and NVIDIA's code take the same layer of the same
architecture with other weights: those of the Caffe model, which reads BGR levels less their mean, not scaled by a
deviation. So numbers are comparable with torch-fidelity's, and with those papers' only in order of magnitude.

State dict: as in `vgg16-397923af.pth`. Shapes: N images, 4096 features.
"""

import torch
from torch import Tensor
from torchvision.models.vgg import VGG, cfgs, make_layers

from gan.features.standard import standardized


class VGG16(VGG):
    """`forward`: levels 0 ... 255 float32 [N, 3, 224, 224] to features [N, 4096]; no probabilities."""

    side = 224
    width = 4096
    ignored: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__(make_layers(cfgs["D"]), init_weights=False)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        x = self.avgpool(self.features(standardized(x)))
        return self.classifier[:5](torch.flatten(x, 1)), None
