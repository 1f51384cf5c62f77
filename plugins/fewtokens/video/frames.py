"""Which frames belong together: even parts of each video's real frames, and each frame's neighbours."""

import torch
from torch import Tensor
from torch.nn import functional as F


def group_segments(mask: Tensor, segments: int) -> list[tuple[Tensor, Tensor]]:
    """Splits each video's real frames into segments as evenly as possible; those of equal length form a group.

    A video with fewer real frames than segments has a frame each in its first ones, and none in the rest.

    Args:
        mask: [B, T] bool, True where a frame is real.

    Returns:
        a pair for each length F > 0 that occurs: places [G] int64 of its segments among the B*S, and frames [G, F]
        int64 of each among the B*T.
    """
    real = mask.sum(dim=1, keepdim=True)
    parts = real.clamp(max=segments)
    bounds = torch.arange(segments + 1, device=mask.device)
    # Segment s has the real frames from ceil(s * n / S) on: frame r is in segment r * S // n.
    starts = -(-torch.minimum(bounds, parts) * real // parts)
    lengths = starts.diff(dim=1).flatten()
    in_order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    in_order = in_order + mask.shape[1] * torch.arange(len(mask), device=mask.device)[:, None]
    groups = []
    for length in lengths.unique().tolist():
        if length > 0:
            places = (lengths == length).nonzero()[:, 0]
            video = places // segments
            ranks = starts[video, places % segments][:, None] + torch.arange(length, device=mask.device)
            groups.append((places, in_order[video[:, None], ranks]))
    return groups


def shift_channels(tokens: Tensor, mask: Tensor) -> Tensor:
    """The first eighth of the channels from the next real frame, the second from the one before, zeros at the ends.

    Args:
        tokens: [B, T, L, C].
        mask: [B, T] bool, True where a frame is real. Frames that aren't stay as they are.
    """
    frames = tokens.shape[1]
    index = torch.arange(frames, device=mask.device).expand_as(mask)
    after = torch.where(mask, index, frames).flip(1).cummin(dim=1).values.flip(1)
    before = torch.where(mask, index, -1).cummax(dim=1).values
    after, before = F.pad(after[:, 1:], (0, 1), value=frames), F.pad(before[:, :-1], (1, 0), value=-1)
    # One more frame, of zeros, stands for the missing neighbours: position T, or -1 + (T + 1).
    padded = F.pad(tokens, (0, 0, 0, 0, 0, 1))
    rows = torch.arange(len(tokens), device=mask.device)[:, None]
    part = tokens.shape[3] // 8
    shifted = torch.cat(
        (padded[rows, after][..., :part], padded[rows, before][..., part : 2 * part], tokens[..., 2 * part :]), dim=3
    )
    return torch.where(mask[:, :, None, None], shifted, tokens)
