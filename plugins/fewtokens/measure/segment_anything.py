"""Segment Anything with fewer tokens: masks of prompts and of whole pictures, and how far they are the full model's."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..hosts import find_hosts
from .variants import Variant

SIZES = dict(
    base=dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, global_attn_indexes=[2, 5, 8, 11]),
    large=dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, global_attn_indexes=[5, 11, 17, 23]),
    huge=dict(hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, global_attn_indexes=[7, 15, 23, 31]),
)
"""Of the published image encoders."""
PUBLISHED = ((18, 11), (14, 10), (8, 10), (8, 9), (6, 9))
"""Blocks before the clustering and clusters across a window of 14, of the 32 blocks of `huge`."""
KINDS = ('sam', 'sam_hq', 'sam2', 'sam2_video')
"""Model types of transformers whose prompts and masks are known here."""
BATCH = 64
"""Prompts that the mask decoder is given at a time."""
OWN, SAME = 'mask IoU', 'IoU of the same output'
"""Metrics in percent, means over prompts: of the mask that each model scores best, and of that which the full one does:
for a point there are three, of a whole, a part and a part of that."""
MATCHED = 'automatic IoU'
"""In percent: of each automatic mask of the full model with the most similar one, a mean."""


def random_encoder(size: str) -> nn.Module:
    """A published image encoder with random weights, for images of 1024 x 1024."""
    transformers = _transformers()
    config = transformers.SamVisionConfig(**SIZES[size])
    config._attn_implementation = 'sdpa'
    encoder = transformers.SamVisionModel(config).eval().vision_encoder
    # As the library begins, all tokens are alike.
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.02)
    return encoder


def load_model(name: str) -> tuple[nn.Module, Any]:
    """A model and its processor of images, of a folder or by its name at Hugging Face.

    Raises:
        ValueError: it is none that masks are known of.
        OSError: there is none of that name.
    """
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition('\n')[0]
        raise OSError(
            f'{name!r} is no model: a folder or a name at Hugging Face, such as facebook/sam-vit-huge, or one of '
            f'{", ".join(SIZES)} for speed with random weights ({reason})'
        ) from error
    if config.model_type not in KINDS:
        raise ValueError(f'{name!r} is a model of type {config.model_type!r}: {", ".join(KINDS)} are known')
    model = transformers.AutoModelForMaskGeneration.from_pretrained(name, attn_implementation='sdpa').eval()
    return model, transformers.AutoImageProcessor.from_pretrained(name)


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        text = 'Segment Anything needs transformers and Python 3.11: pip install "fewtokens[huggingface]"'
        raise ImportError(text) from error
    return transformers


def default_plugins(encoder: nn.Module) -> list[str]:
    """The published settings of Hourglass, and SharedUpdate at three of them, for an encoder of any depth.

    There are none for SAM 2: SharedUpdate early in the stage that has most blocks.
    """
    (host,) = find_hosts(encoder)
    depth, window = len(host.blocks), host.nominal_grid[0]
    ends = getattr(host, 'ends', ())
    if ends:
        first, end = max(zip((0, *ends), ends), key=lambda stage: stage[1] - stage[0])
        after = min(first + 1 + (end - first) // 8, end - 1)
        return [f'SharedUpdate(after={after}, grid={round(side * window / 14)})' for side in (11, 10, 9)]
    places = [(round(after * depth / 32), round(side * window / 14)) for after, side in PUBLISHED]
    return [
        *(f'Hourglass(after={after}, grid={side})' for after, side in places),
        *(f'SharedUpdate(after={after}, grid={side})' for after, side in (places[1], places[2], places[4])),
    ]


@dataclass(frozen=True)
class Masks:
    """What a model makes of one picture.

    Attributes:
        prompts: of a grid of points, three masks each, [P, 3, h, w] bool at the decoder's size, without padding.
        scores: what the model thinks of each, [P, 3].
        automatic: of the whole picture, [M, H, W] bool at its own size.
    """

    prompts: Tensor
    scores: Tensor
    automatic: np.ndarray


@torch.no_grad()
def segment(
    model: nn.Module, processor: Any, variant: Variant, photograph: np.ndarray, points: int, min_score: float
) -> Masks:
    """Masks of a picture, the image encoder as a variant has it.

    Args:
        photograph: RGB [H, W, 3] uint8.
        points: across and down, each of which is a prompt, and all of which automatic masks are looked for at.
        min_score: automatic masks that the model scores less are left out.
    """
    from PIL import Image

    generate = _transformers().MaskGenerationPipeline(model=model, image_processor=processor, device=model.device)
    with variant.applied(model.vision_encoder):
        prompts, scores = answer_points(model, processor, photograph, points)
        found = generate(
            Image.fromarray(photograph), points_per_batch=BATCH, points_per_crop=points, pred_iou_thresh=min_score
        )
    masks = [np.asarray(mask, bool) for mask in found['masks']]
    automatic = np.stack(masks) if masks else np.zeros((0, *photograph.shape[:2]), bool)
    return Masks(prompts, scores, automatic)


def answer_points(model: nn.Module, processor: Any, photograph: np.ndarray, points: int) -> tuple[Tensor, Tensor]:
    """Masks and scores of a grid of points, as in `Masks`."""
    given = processor(images=photograph, return_tensors='pt').to(model.device)
    images = given['pixel_values'].to(model.dtype)
    # SAM 2 stretches pictures to a square, the others fill them up to one.
    height, width = given['reshaped_input_sizes'][0].tolist() if 'reshaped_input_sizes' in given else images.shape[2:]
    embedded = model.get_image_embeddings(images)
    named = dict(image_embeddings=embedded)
    if isinstance(embedded, tuple):
        named = dict(zip(('image_embeddings', 'intermediate_embeddings'), embedded))
    places = (torch.arange(points) + 0.5) / points
    y, x = torch.meshgrid(places * height, places * width, indexing='ij')
    prompts = torch.stack([x, y], dim=-1).view(1, -1, 1, 2).to(images.device)
    masks, scores = [], []
    for some in prompts.split(BATCH, dim=1):
        output = model(**named, input_points=some)
        logits = output.pred_masks[0]
        rows, columns = (
            -(-side * few // padded) for side, few, padded in zip((height, width), logits.shape[2:], images.shape[2:])
        )
        masks.append(logits[..., :rows, :columns] > 0)
        scores.append(output.iou_scores[0])
    return torch.cat(masks), torch.cat(scores)


class Agreement:
    """How well each of some rows agrees with the first, gathered picture by picture."""

    def __init__(self, count: int, min_score: float) -> None:
        self.min_score = min_score
        self.prompts = 0
        """That the full model answered with a mask of that score."""
        self._overlaps: list[dict[str, list[float]]] = [{OWN: [], SAME: [], MATCHED: []} for _ in range(count)]

    def add(self, rows: Sequence[Masks]) -> None:
        full = rows[0]
        scores, best = full.scores.max(dim=1)
        kept = (scores >= self.min_score).nonzero()[:, 0]
        self.prompts += len(kept)
        expected = full.prompts[kept, best[kept]]
        for row, gathered in zip(rows, self._overlaps, strict=True):
            gathered[OWN] += overlaps(row.prompts[kept, row.scores[kept].argmax(dim=1)], expected).tolist()
            gathered[SAME] += overlaps(row.prompts[kept, best[kept]], expected).tolist()
            gathered[MATCHED] += match(full.automatic, row.automatic)[1].tolist()

    def metrics(self, number: int) -> dict[str, float]:
        """Of one row, in percent; without those that nothing is known of."""
        return {name: 100 * float(np.mean(values)) for name, values in self._overlaps[number].items() if values}


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of masks [P, h, w] with their counterparts, [P]; 1 where both are empty."""
    both, either = ((one & other).sum((1, 2)), (one | other).sum((1, 2)))
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def match(masks: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of some masks [M, H, W] the most similar of others: its number, -1 for none, and their overlap."""
    numbers, best = np.full(len(masks), -1), np.zeros(len(masks))
    areas = others.sum((1, 2))
    for row, mask in enumerate(masks):
        both = (others & mask).sum((1, 2))
        found = both / np.maximum(areas + mask.sum() - both, 1)
        if len(found) and found.max() > 0:
            numbers[row], best[row] = found.argmax(), found.max()
    return numbers, best
