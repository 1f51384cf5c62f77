"""Text-video retrieval with CLIP: CLIP4Clip's model, CenterCLIP where tokens are clustered."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..video.clip_models import build_clip, build_tokenizer, embed_dim, load_pretrained
from ..video.encoder import VideoEncoder
from ..video.segments import SegmentClustering
from ..video.settings import ClusteringSettings, build_clustering
from ..video.temporal import SeqTransf
from .loss import contrastive_loss

Setting = dict[str, Any] | str | ClusteringSettings

MAX_LOGIT_SCALE = math.log(100)
"""CLIP's own limit, which CLIP4Clip keeps."""


@MODELS.register_module()
class ClipRetrieval(BaseModel):
    """Embeds videos and texts into one space, where what belongs together is near.

    Args:
        clip: the model of open_clip: `dict(name='ViT-B-32')` or `dict(config='file.json')`, a file (or its content, a
            dict) in the form of open_clip's model_configs; its tokenizer's `bpe_path` is relative to the file.
            `pretrained`, a tag or file of weights, is loaded before training, not for a test. `quick_gelu=True` goes
            with OpenAI's weights.
        clustering: such as `dict(type='SegmentClustering', segments=6, clusters=49)`; a list clusters more than once.
            A plugin's text, `'SegmentClustering(segments=6, clusters=49, after=6)'`, has `after` in it, and so have its
            settings, a `ClusteringSettings`.
        after: the block to cluster after, one for each clustering.
        temporal: `dict(layers=4)` for CLIP4Clip's seqTransf; mean pooling where left out.
        max_words: tokens of a text that count, start and end included; as many as the model takes where left out.
        gradient_checkpointing: saves training memory by computing blocks twice.
        data_preprocessor: CLIP's mean and deviation where left out.

    Raises:
        ImportError: open_clip is not installed.
        ValueError: there is no such model, or settings don't fit.
    """

    def __init__(
        self,
        clip: dict[str, Any],
        clustering: Setting | Sequence[Setting] | None = None,
        after: int | Sequence[int] = 6,
        temporal: dict[str, Any] | None = None,
        max_words: int | None = None,
        gradient_checkpointing: bool = False,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='ClipPreprocessor'), init_cfg)
        options = dict(clip)
        self.pretrained = options.pop('pretrained', None)
        self.clip_name = options.get('name')
        model = build_clip(**options)
        if gradient_checkpointing:
            model.set_grad_checkpointing()
        self.width = embed_dim(options)
        module = None if temporal is None else SeqTransf(**{'width': self.width, **temporal})
        self.encoder = VideoEncoder(model, *build_clustering(clustering, after), module)
        self.tokenize = build_tokenizer(options)
        length = model.context_length
        if max_words is not None and not 2 < max_words <= length:
            raise ValueError(f'max_words {max_words} must be 3 to {length}, what the text encoder takes')
        self.max_words, self.context_length = max_words or length, length

    @property
    def clip(self) -> nn.Module:
        return self.encoder.clip

    def init_weights(self) -> None:
        """Loads the pretrained weights that the setting names.

        SeqTransf then starts from the text encoder's, as CLIP4Clip's does, if that is as wide; cluster embeddings from
        CLIP's positions, if they are to.
        """
        if self.pretrained:
            load_pretrained(self.clip, self.clip_name, self.pretrained)
            if self.encoder.temporal is not None:
                self.encoder.temporal.start_from_text(getattr(self.clip, 'text', self.clip))
            for clustering in self.encoder.modules():
                if isinstance(clustering, SegmentClustering) and clustering.from_positions:
                    clustering.start_from_positions(self.encoder.visual)
            # Once: a runner may ask again.
            self.pretrained = None

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[BaseDataElement] | None = None,
        mask: Tensor | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Embeds a batch.

        Args:
            inputs: [B, T, 3, H, W], normalised.
            data_samples: with `texts`; training wants exactly one each.
            mask: [B, T], True for a real frame; None where all are.
            mode: 'tensor' for the videos' embeddings [B, D], 'predict' for data samples with `video_embedding` [D] and
                `text_embeddings` [n, D], 'loss' for the training loss.

        Raises:
            ValueError: an unknown mode, or samples that don't fit the videos.
        """
        if mode not in ('tensor', 'predict', 'loss'):
            raise ValueError(f'mode {mode!r} must be tensor, predict or loss')
        videos = self.encoder(inputs, mask)
        if mode == 'tensor':
            return videos
        if data_samples is None or len(data_samples) != len(videos):
            found = 'none' if data_samples is None else len(data_samples)
            raise ValueError(f'{len(videos)} videos need as many data samples, got {found}')
        return self.loss(videos, data_samples) if mode == 'loss' else self.predict(videos, data_samples)

    def loss(self, videos: Tensor, data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        counts = {len(sample.texts) for sample in data_samples}
        if counts != {1}:
            raise ValueError(
                f'training needs one caption a sample, got {max(counts - {1})}: the data set wants pairs=True'
            )
        texts = self.encode_text([sample.texts[0] for sample in data_samples])
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        return dict(loss=contrastive_loss(videos, texts, self.clip.logit_scale.exp()))

    def predict(self, videos: Tensor, data_samples: Sequence[BaseDataElement]) -> Sequence[BaseDataElement]:
        counts = [len(sample.texts) for sample in data_samples]
        texts = self.encode_text([text for sample in data_samples for text in sample.texts])
        for sample, video, its_texts in zip(data_samples, videos, texts.split(counts)):
            sample.video_embedding, sample.text_embeddings = video, its_texts
        return data_samples

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts: [n, D], of unit length.

        Raises:
            ValueError: a text is empty.
        """
        empty = [index for index, text in enumerate(texts) if not text.strip()]
        if empty:
            raise ValueError(f'text {empty[0]} of {len(texts)} is empty')
        device = self.clip.logit_scale.device
        if not texts:
            return torch.zeros(0, self.width, device=device)
        tokens = self.tokenize(list(texts), self.max_words)
        tokens = nn.functional.pad(tokens, (0, self.context_length - tokens.shape[1]))
        return self.clip.encode_text(tokens.to(device), normalize=True)

    def encode_video(self, videos: Sequence[Tensor]) -> Tensor:
        """Embeddings of videos, each uint8 [T, 3, H, W]: [B, D], of unit length."""
        batch = self.data_preprocessor(dict(inputs=list(videos)))
        return self.encoder(batch['inputs'], batch['mask'])


@MODELS.register_module()
class ClipPreprocessor(BaseDataPreprocessor):
    """Brings clips to the device, normalises them, and pads short ones.

    Args:
        mean, std: of the pixels' values between 0 and 1; CLIP's own where left out.
    """

    def __init__(
        self,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Turns `inputs`, a list of uint8 [T, 3, H, W], into [B, T, 3, H, W] float, and adds `mask` [B, T].

        The mask is None where no clip is shorter than another.

        Raises:
            ValueError: there is no clip, one is empty, or sizes differ.
        """
        data = self.cast_data(data)
        clips = data['inputs']
        if not len(clips):
            raise ValueError('a batch needs one video at least')
        shapes = {tuple(clip.shape[1:]) for clip in clips}
        if len(shapes) > 1 or any(clip.ndim != 4 or not len(clip) for clip in clips):
            shown = ', '.join(str(tuple(clip.shape)) for clip in clips[:4])
            raise ValueError(f'clips of a batch must be [T, 3, H, W] of one size, with a frame at least, got {shown}')
        lengths = torch.tensor([len(clip) for clip in clips], device=self.mean.device)
        padded = nn.utils.rnn.pad_sequence([(clip / 255 - self.mean) / self.std for clip in clips], batch_first=True)
        mask = torch.arange(padded.shape[1], device=lengths.device) < lengths[:, None]
        return {'data_samples': None, **data, 'inputs': padded, 'mask': None if mask.all() else mask}
