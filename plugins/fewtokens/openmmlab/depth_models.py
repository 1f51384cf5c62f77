"""Models of monocular depth: Hugging Face's, and mmseg's with a light head. Name this module in `custom_imports`."""

from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor, DepthEstimator
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn import functional as F

from .normed_fcn_head import NormedFCNHead

NEAREST = 1e-8
"""An inverse depth that is nothing or less is that much, as in the published code."""


class InFrame:
    """Puts depth maps where their pictures were in the file: padding is taken off, a crop put back. 0 is no depth."""

    def postprocess_result(self, depth: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Samples with `pred_depth_map`, [1, H, W] of the files' size; `depth` is [B, 1, H, W] of the inputs'."""
        samples = data_samples or [SegDataSample() for _ in depth]
        for one, sample in zip(depth, samples):
            placed = one if data_samples is None else _in_frame(one, sample.metainfo)
            sample.set_data(dict(pred_depth_map=PixelData(data=placed)))
        return samples


def _in_frame(depth: Tensor, meta: dict[str, Any]) -> Tensor:
    left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    rows, columns = depth.shape[1:]
    depth = depth[:, top : rows - bottom, left : columns - right]
    if meta.get('flip'):
        depth = depth.flip(2 if meta['flip_direction'] == 'horizontal' else 1)
    size = tuple(meta['ori_shape'][:2])
    top, left, height, width = meta.get('crop', (0, 0, *size))
    depth = F.interpolate(depth[None], (height, width), mode='bilinear', align_corners=False)[0]
    return F.pad(depth, (left, size[1] - left - width, top, size[0] - top - height))


@MODELS.register_module()
class FramedDepthEstimator(InFrame, DepthEstimator):
    """mmseg's DepthEstimator for pictures that KBCrop or padding changed."""


@MODELS.register_module()
class DepthHead(NormedFCNHead):
    """A light head that gives depth: even steps of its output are even factors between the bounds.

    Args:
        min_depth, max_depth: bounds in metres.
        loss_decode: of the predicted and the true depth [B, 1, H, W], where the true one is 0 if it isn't known.
        kwargs: of NormedFCNHead.
    """

    def __init__(self, min_depth: float, max_depth: float, loss_decode: dict | None = None, **kwargs: Any) -> None:
        super().__init__(num_classes=1, threshold=0.5, loss_decode=loss_decode or dict(type='SiLogLoss'), **kwargs)
        self.bounds = min_depth, max_depth

    def forward(self, inputs: list[Tensor]) -> Tensor:
        least, most = self.bounds
        return least * (most / least) ** super().forward(inputs).sigmoid()

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        return depth_loss(self.loss_decode, seg_logits, batch_data_samples)


def depth_loss(loss: nn.Module, depth: Tensor, samples: list[SegDataSample]) -> dict[str, Tensor]:
    """A loss by its name; `depth` is [B, 1, h, w]."""
    true = torch.stack([sample.gt_depth_map.data for sample in samples]).to(depth)
    depth = F.interpolate(depth, true.shape[2:], mode='bilinear', align_corners=False)
    return {loss.loss_name: loss(depth, true)}


@MODELS.register_module()
class TransformersDepthEstimator(InFrame, BaseSegmentor):
    """Hugging Face's models of depth (DPT and its hybrid, Depth Anything, ZoeDepth) for OpenMMLab's tools.

    Args:
        network: the options of its configuration with its `model_type`, or a folder with a `config.json`. Weights come
            with a checkpoint: tools/convert_checkpoint.py makes one of a folder's model.safetensors.
        scale, shift: of the network's output.
        invert: whether that is an inverse depth then, as of the DPTs published for KITTI and NYUv2.
        loss: of the predicted and the true depth, for training.
        data_preprocessor, init_cfg: of MMEngine's BaseModel.

    Raises:
        ImportError: transformers isn't installed.
        ValueError: transformers has no such model of depth.
    """

    def __init__(
        self,
        network: dict[str, Any] | str,
        scale: float = 1.0,
        shift: float = 0.0,
        invert: bool = False,
        loss: dict | None = None,
        data_preprocessor: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.network = build_network(network)
        self.scale, self.shift, self.invert = scale, shift, invert
        self.loss_decode = MODELS.build(loss or dict(type='SiLogLoss'))
        self.test_cfg = test_cfg

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """What the network's decoder is given."""
        return tuple(features_of(self.network, inputs))

    def encode_decode(self, inputs: Tensor, batch_img_metas: Any = None) -> Tensor:
        """[B, 3, H, W] to depth [B, 1, H, W]."""
        found = F.interpolate(estimate(self.network, inputs)[:, None], inputs.shape[2:], mode='bilinear')
        found = self.scale * found + self.shift
        return 1 / found.clamp_min(NEAREST) if self.invert else found

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        depth = self.encode_decode(inputs)
        if data_samples:
            meta = data_samples[0].metainfo
            # Inputs may have been made smaller since.
            depth = F.interpolate(depth, tuple(meta.get('pad_shape', meta['img_shape'])[:2]), mode='bilinear')
        return self.postprocess_result(depth, data_samples)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        return depth_loss(self.loss_decode, self.encode_decode(inputs), data_samples)

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Tensor:
        return self.encode_decode(inputs)


def build_network(network: dict[str, Any] | str) -> nn.Module:
    """A model of transformers with random weights; see TransformersDepthEstimator."""
    try:
        from transformers import AutoConfig, AutoModelForDepthEstimation
    except ImportError as error:
        raise ImportError('this model needs transformers: pip install "fewtokens[huggingface]"') from error
    if isinstance(network, str):
        config = AutoConfig.from_pretrained(network, local_files_only=True)
    else:
        options = network.to_dict() if isinstance(network, ConfigDict) else dict(network)
        if 'model_type' not in options:
            raise ValueError(f"network={options!r} must name a model_type, such as 'dpt' or 'depth_anything'")
        config = AutoConfig.for_model(**options)
    return AutoModelForDepthEstimation.from_config(config)


def estimate(network: nn.Module, images: Tensor) -> Tensor:
    """What a network says of images [B, 3, H, W], [B, h, w]."""
    if not hasattr(network, 'dpt'):
        return network(pixel_values=images).predicted_depth
    rows, columns = (side // network.config.patch_size for side in images.shape[2:])
    return network.head(network.neck(features_of(network, images), rows, columns))


def features_of(network: nn.Module, images: Tensor) -> list[Tensor]:
    """What a network's neck takes: of a DPT the outputs of some blocks, before them of a hybrid its stem's maps.

    transformers' own call of a DPT takes square images alone, and keeps every block's output.
    """
    if not hasattr(network, 'dpt'):
        return list(network.backbone(images).feature_maps)
    config = network.config
    if config.is_hybrid:
        # Positions are resized all the same, and nothing else looks at it.
        network.dpt.embeddings.image_size = tuple(images.shape[2:])
    wanted = config.backbone_out_indices[2:] if config.is_hybrid else config.backbone_out_indices
    states = [index + 1 for index in wanted]
    output = network.dpt(images, output_hidden_states=states)
    return [*(output.intermediate_activations or ()), *(output.hidden_states[state] for state in states)]
