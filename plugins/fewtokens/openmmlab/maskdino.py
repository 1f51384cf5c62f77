"""MaskDINO: boxes and masks of one decoder, of mmdet's parts of DINO and Mask2Former. Name this in `custom_imports`.

https://arxiv.org/abs/2206.02777, in the form that is published for Swin: as `panoptic_head` and `panoptic_fusion_head`
of mmdet's Mask2Former detector. Padding is looked at like the picture, as published.
"""

from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers import (
    MLP,
    CdnQueryGenerator,
    DeformableDetrTransformerDecoder,
    DeformableDetrTransformerEncoder,
    SinePositionalEncoding,
    coordinate_to_encoding,
    inverse_sigmoid,
)
from mmdet.models.seg_heads import MaskFormerFusionHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmengine.model import BaseModule, bias_init_with_prob
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn
from torch.nn import functional as F

from .maskdino_losses import Found, MatchedLosses, boxes_around, denoised


class MaskDINOPixelDecoder(BaseModule):
    """Deformable attention over all of a backbone's maps and coarser ones.

    Parts are named as in mmdet's MSDeformAttnPixelDecoder: published weights of both go the same way.

    Args:
        in_channels: of the backbone's maps, the finest first.
        num_levels: how many maps there are then, each coarser one of half the size.
        layer_cfg, num_layers: of the encoder.
    """

    def __init__(
        self, in_channels: list[int], feat_channels: int, num_levels: int, layer_cfg: dict, num_layers: int
    ) -> None:
        super().__init__()
        if num_levels < len(in_channels):
            raise ValueError(f'num_levels={num_levels} must be at least {len(in_channels)}, the number of in_channels')
        norm = dict(norm_cfg=dict(type='GN', num_groups=32))
        self.input_convs = nn.ModuleList(
            ConvModule(channels, feat_channels, 1, bias=True, act_cfg=None, **norm) for channels in in_channels
        )
        channels = in_channels[-1]
        for _ in range(num_levels - len(in_channels)):
            conv = ConvModule(channels, feat_channels, 3, stride=2, padding=1, bias=True, act_cfg=None, **norm)
            self.input_convs.append(conv)
            channels = feat_channels
        self.positions = SinePositionalEncoding(feat_channels // 2, normalize=True)
        self.level_encoding = nn.Embedding(num_levels, feat_channels)
        self.encoder = DeformableDetrTransformerEncoder(num_layers=num_layers, layer_cfg=layer_cfg)
        self.lateral_convs = nn.ModuleList(
            [ConvModule(in_channels[0], feat_channels, 1, bias=False, act_cfg=None, **norm)]
        )
        self.output_convs = nn.ModuleList([ConvModule(feat_channels, feat_channels, 3, padding=1, bias=False, **norm)])
        self.mask_feature = nn.Conv2d(feat_channels, feat_channels, 1)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """Features for masks, and all levels, the finest first: each [B, C, h, w]."""
        maps = [conv(x) for conv, x in zip(self.input_convs, features)]
        coarsest = features[-1]
        for conv in self.input_convs[len(features) :]:
            coarsest = conv(coarsest)
            maps.append(coarsest)
        positions = [
            self.positions(None, x).flatten(2).mT + level for x, level in zip(maps, self.level_encoding.weight)
        ]
        tokens, geometry = flatten_levels(maps)
        tokens = self.encoder(tokens, query_pos=torch.cat(positions, 1), key_padding_mask=None, **geometry)
        sizes = [x.shape[2:] for x in maps]
        parts = tokens.mT.split([size.numel() for size in sizes], dim=2)
        maps = [part.unflatten(2, size) for part, size in zip(parts, sizes)]
        finest = self.output_convs[0](self.lateral_convs[0](features[0]) + maps[0])
        return self.mask_feature(finest), maps


def flatten_levels(maps: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Maps [B, C, h, w] as tokens [B, N, C], and what mmdet's deformable layers are told of where they stand."""
    shapes = torch.tensor([x.shape[2:] for x in maps], device=maps[0].device)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    ratios = maps[0].new_ones(len(maps[0]), len(maps), 2)  # of the maps that is no padding: all
    tokens = torch.cat([x.flatten(2).mT for x in maps], dim=1)
    return tokens, dict(spatial_shapes=shapes, level_start_index=starts, valid_ratios=ratios)


class MaskDINODecoder(DeformableDetrTransformerDecoder):
    """Moves boxes layer by layer.

    mmdet's DinoTransformerDecoder makes twice as many waves of a box, and takes sides below 0.001 for 0.001.
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        self.ref_point_head = MLP(2 * self.embed_dims, self.embed_dims, self.embed_dims, 2)
        self.norm = nn.LayerNorm(self.embed_dims)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        boxes: Tensor,
        box_branch: nn.Module,
        self_attn_mask: Tensor | None,
        geometry: dict[str, Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of every layer the states [B, Q, C], normed, and the boxes [B, Q, 4]."""
        states, found = [], []
        before = boxes
        levels = len(geometry['spatial_shapes'])
        for layer in self.layers:
            sines = coordinate_to_encoding(boxes, num_feats=self.embed_dims // 2)
            query = layer(
                query,
                query_pos=self.ref_point_head(sines),
                value=memory,
                self_attn_mask=self_attn_mask,
                reference_points=boxes[:, :, None].expand(-1, -1, levels, -1),
                **geometry,
            )
            states.append(self.norm(query))
            # A box that is given trains the layer before it as well; the one to go on from trains nothing.
            found.append((box_branch(states[-1]) + inverse_sigmoid(before)).sigmoid())
            before = (box_branch(query) + inverse_sigmoid(boxes)).sigmoid()
            boxes = before.detach()
        return states, found


@MODELS.register_module()
class MaskDINOHead(BaseModule):
    """MaskDINO's pixel decoder, its choice of queries, and its decoder; the defaults are those published for COCO.

    Args:
        in_channels: of the backbone's maps, the finest first.
        num_levels: maps that are attended to; those beyond the backbone's are made of its coarsest.
        boxes_from_masks: whether queries begin with the boxes around their first masks, or with boxes of their own.
        train_cfg: options of MatchedLosses. Noisy queries are those of mmdet's DINO: half of them are so far off that
            they should find nothing, which none of MaskDINO's is.
        test_cfg: of the detector, not looked at here.
    """

    def __init__(
        self,
        in_channels: list[int],
        num_things_classes: int = 80,
        num_stuff_classes: int = 0,
        feat_channels: int = 256,
        feedforward_channels: int = 2048,
        num_heads: int = 8,
        num_levels: int = 5,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 9,
        num_queries: int = 300,
        boxes_from_masks: bool = False,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes
        self.num_queries = num_queries
        self.boxes_from_masks = boxes_from_masks
        width = dict(embed_dims=feat_channels)
        deformable = dict(**width, num_heads=num_heads, num_levels=num_levels, dropout=0.0, batch_first=True)
        attention = dict(**width, num_heads=num_heads, dropout=0.0, batch_first=True)
        ffn = dict(**width, feedforward_channels=feedforward_channels, ffn_drop=0.0)
        self.pixel_decoder = MaskDINOPixelDecoder(
            in_channels, feat_channels, num_levels, dict(self_attn_cfg=deformable, ffn_cfg=ffn), num_encoder_layers
        )
        self.memory_trans_fc = nn.Linear(feat_channels, feat_channels)
        self.memory_trans_norm = nn.LayerNorm(feat_channels)
        self.decoder = MaskDINODecoder(
            num_layers=num_decoder_layers,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn),
            post_norm_cfg=None,
        )
        self.cls_embed = nn.Linear(feat_channels, self.num_classes)
        self.mask_embed = MLP(feat_channels, feat_channels, feat_channels, 3)
        self.bbox_embed = MLP(feat_channels, feat_channels, 4, 3)
        self.dn_query_generator = CdnQueryGenerator(
            self.num_classes, feat_channels, num_queries, label_noise_scale=0.4, box_noise_scale=0.4,
            group_cfg=dict(num_dn_queries=100),
        )  # fmt: skip
        self.losses = MatchedLosses(self.num_classes, num_things_classes, **(train_cfg or {}))

    def init_weights(self) -> None:
        super().init_weights()
        for part in (self.pixel_decoder.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        nn.init.constant_(self.cls_embed.bias, bias_init_with_prob(0.01))
        for parameter in self.bbox_embed.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: tuple[Tensor, ...], batch_data_samples: Any = None) -> Found:
        """What the last layer finds in a backbone's maps; samples are not looked at."""
        _, layers, _ = self.decode(x)
        return layers[-1]

    def decode(
        self, x: tuple[Tensor, ...], targets: list[DetDataSample] | None = None
    ) -> tuple[Found, list[Found], dict[str, int]]:
        """What is found before the decoder, then by each layer; with no `targets` only by the last one.

        With `targets`, queries that are made of them come before the others, in so many groups as the last dict says.
        """
        mask_features, maps = self.pixel_decoder(x)
        # As published, the decoder's first level is the coarsest: its weights and the sizes of its proposals want that.
        memory, geometry = flatten_levels(maps[::-1])
        states, boxes = self._choose(memory, geometry['spatial_shapes'])
        chosen = self._find(states, boxes, mask_features)
        queries = states.detach()
        boxes = boxes.detach()
        if self.boxes_from_masks:
            boxes = bbox_xyxy_to_cxcywh(boxes_around(chosen.masks.flatten(0, 1) > 0)).view_as(boxes)
        mask, noise = None, {}
        if targets is not None:
            labels, noisy, mask, noise = self.dn_query_generator(targets)
            queries = torch.cat([labels, queries], dim=1)
            boxes = torch.cat([noisy.sigmoid(), boxes], dim=1)
        states, moved = self.decoder(queries, memory, boxes, self.bbox_embed, mask, geometry)
        layers = list(zip([queries, *states], [boxes, *moved]))
        if targets is None:
            layers = layers[-1:]
        return chosen, [self._find(*layer, mask_features) for layer in layers], noise

    def _choose(self, memory: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens that look most like something, [B, Q, C], and their boxes."""
        # It needs no more of a detector than our two `memory_trans` layers.
        states, proposals = DeformableDETR.gen_encoder_output_proposals(self, memory, None, shapes)
        best = self.cls_embed(states).amax(-1).topk(self.num_queries, dim=1).indices[..., None]
        boxes = (self.bbox_embed(states) + proposals).sigmoid()
        return states.take_along_dim(best, 1), boxes.take_along_dim(best, 1)

    def _find(self, states: Tensor, boxes: Tensor, mask_features: Tensor) -> Found:
        states = self.decoder.norm(states)  # those of layers a second time, as published
        masks = torch.einsum('bqc,bchw->bqhw', self.mask_embed(states), mask_features)
        return Found(self.cls_embed(states), masks, boxes)

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: list[DetDataSample]) -> dict[str, Tensor]:
        """Losses of the chosen queries, of what they stand for before the decoder, and of each of its layers."""
        targets = [self.losses.target(sample) for sample in batch_data_samples]
        chosen, layers, noise = self.decode(x, targets)
        parts = {'enc_': self.losses(chosen, targets)}
        noisy = noise['num_denoising_queries']
        for i, found in enumerate(layers):
            prefix = f'd{i}.' if found is not layers[-1] else ''
            parts[prefix] = self.losses(Found(*(part[:, noisy:] for part in found)), targets)
            if noisy:
                pairs = denoised(targets, noise, found.boxes.device)
                parts[f'{prefix}dn_'] = self.losses(Found(*(part[:, :noisy] for part in found)), targets, pairs)
        return {prefix + name: loss for prefix, losses in parts.items() for name, loss in losses.items()}

    def predict(
        self, x: tuple[Tensor, ...], batch_data_samples: list[DetDataSample]
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Of each picture class logits and boxes (corners, as parts of its sides); masks of all, of the padded size."""
        found = self(x)
        padded = batch_data_samples[0].batch_input_shape
        answers = []
        for scores, boxes, sample in zip(found.scores, bbox_cxcywh_to_xyxy(found.boxes), batch_data_samples):
            height, width = (whole / part for whole, part in zip(padded, sample.img_shape))
            answers.append((scores, boxes * boxes.new_tensor([width, height, width, height])))
        return answers, F.interpolate(found.masks, padded, mode='bilinear', align_corners=False)


@MODELS.register_module()
class MaskDINOFusionHead(MaskFormerFusionHead):
    """MaskFormer's answers of scores that are independent of each other.

    Args:
        temperature: of the softmax that sharpens a query's scores where pixels are shared out.
        test_cfg: as MaskFormerFusionHead's; `object_mask_thr`, of the scores before that softmax, is 0.25 by default.
    """

    def __init__(self, *args: Any, temperature: float = 0.06, test_cfg: dict | None = None, **kwargs: Any) -> None:
        test_cfg = dict(test_cfg or {})
        self.temperature = temperature
        self.threshold = test_cfg.get('object_mask_thr', 0.25)
        # MaskFormer's own comparison is of sharpened scores.
        super().__init__(*args, test_cfg=test_cfg | dict(object_mask_thr=0.0), **kwargs)

    def panoptic_postprocess(self, mask_cls: tuple[Tensor, Tensor], mask_pred: Tensor) -> PixelData:
        """See MaskFormerFusionHead; `mask_cls` is of MaskDINOHead.predict."""
        scores = mask_cls[0].sigmoid()
        kept = scores.amax(-1) > self.threshold
        return super().panoptic_postprocess(scores[kept] / self.temperature, mask_pred[kept])

    def instance_postprocess(self, mask_cls: tuple[Tensor, Tensor], mask_pred: Tensor) -> InstanceData:
        """See MaskFormerFusionHead; boxes are the predicted ones, not those around masks."""
        scores, boxes = mask_cls
        number = min(self.test_cfg.get('max_per_image', 100), scores.numel())
        scores, places = scores.sigmoid().flatten().topk(number)
        queries, labels = places // self.num_classes, places % self.num_classes
        things = labels < self.num_things_classes
        scores, queries, labels = scores[things], queries[things], labels[things]
        height, width = mask_pred.shape[1:]
        masks = mask_pred[queries] > 0
        # How sure a mask is of itself.
        inside = (mask_pred.sigmoid()[queries] * masks).flatten(1).sum(1) / (masks.flatten(1).sum(1) + 1e-6)
        boxes = boxes[queries] * boxes.new_tensor([width, height, width, height])
        return InstanceData(bboxes=boxes, labels=labels, scores=scores * inside, masks=masks)
