"""Pictures of a folder, as a config's test pipeline prepares them for its model."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from ..measure.files import shown


def load_pictures(config: Config, files: list[Path], skip: bool) -> tuple[dict[Path, dict[str, Any]], list[str]]:
    """Each file as a batch of its own, without annotations, and the names of unreadable ones that were left out.

    Raises:
        ValueError: a picture can't be read and `skip` is off, or none can; the config is of videos.
    """
    steps = config.test_dataloader.dataset.pipeline
    if any(step['type'].endswith('TransformBroadcaster') for step in steps):
        raise ValueError("the config's test pipeline loads videos: it has no way to load a picture by itself")
    pipeline = Compose([step for step in steps if not step['type'].endswith(('Annotations', 'Annotation'))])
    batches, unreadable = {}, []
    for file in files:
        try:
            data = pipeline(dict(img_path=str(file), img_id=0))
        except Exception as error:  # noqa: BLE001  decoders raise whatever they like at a damaged file
            if not skip:
                raise ValueError(
                    f'{shown(file)} is no readable picture; --skip-unreadable leaves such files out'
                ) from error
            unreadable.append(file.name)
            continue
        batches[file] = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
    if not batches:
        raise ValueError(f'none of the {len(files)} pictures can be read')
    return batches, unreadable


def network_inputs(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, str]:
    """What the model's network sees of a batch, [B, 3, H, W], and what to call it.

    A model that slides a window over its images sees one window at a time: the one in the middle.
    """
    inputs = model.data_preprocessor(batch, False)['inputs']
    test_cfg = getattr(model, 'test_cfg', None) or {}
    if test_cfg.get('mode') != 'slide':
        return inputs, 'a whole image'
    height, width = (min(crop, side) for crop, side in zip(test_cfg['crop_size'], inputs.shape[-2:]))
    top, left = ((side - crop) // 2 for side, crop in zip(inputs.shape[-2:], (height, width)))
    return inputs[..., top : top + height, left : left + width], 'one window of the sliding inference'
