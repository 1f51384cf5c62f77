"""CLIP's contrastive loss."""

import torch
from mmengine.dist import get_dist_info
from torch import Tensor


def contrastive_loss(video: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross entropy between matching videos and texts, over the batches of all processes.

    Averaged over processes, as DistributedDataParallel does, its gradient is that of one process with the whole batch.
    Every process has equally many pairs. Computed in float32, under autocast as well: similarities times 100 have few
    digits left in bfloat16.

    Args:
        video, text: [B, D] of unit length; row i of one belongs to row i of the other.
        scale: what the similarities are multiplied by.

    Raises:
        ValueError: there are not equally many of both.
    """
    from open_clip.loss import ClipLoss

    if video.shape != text.shape:
        raise ValueError(f'each video needs one text: got {tuple(video.shape)} and {tuple(text.shape)}')
    rank, processes = get_dist_info()
    loss = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=processes)
    with torch.autocast(video.device.type, enabled=False):
        return loss(video.float(), text.float(), scale.float())
