"""CLIP4Clip's sequential transformer over a video's frames, https://arxiv.org/abs/2104.08860."""

import torch
from torch import Tensor, nn

from ..checkpoints.retrieval_keys import PARTS


class SeqTransf(nn.Module):
    """Learned positions and a transformer over a video's frame embeddings, added to them.

    Args:
        width: D, of an embedding.
        layers: number of transformer layers.
        heads: of attention; one for each 64 of the width, and at least one, if None.
        max_frames: longest video, in frames or segments.
        position_std: of the positions' values at the start. Far below the embeddings' own values, order takes long to
            be learned.

    Raises:
        ValueError: width is not a multiple of heads, or position_std is negative.
    """

    def __init__(
        self,
        width: int,
        layers: int = 4,
        heads: int | None = None,
        max_frames: int = 128,
        position_std: float = 0.01,
    ) -> None:
        super().__init__()
        heads = max(1, width // 64) if heads is None else heads
        if width % heads:
            raise ValueError(f'width={width} must be a multiple of heads={heads}')
        if not position_std >= 0:
            raise ValueError(f'position_std={position_std} must be 0 or more')
        self.positions = nn.Parameter(position_std * torch.randn(max_frames, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                4 * width,
                dropout=0.0,
                activation=_quick_gelu,
                layer_norm_eps=1e-12,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Adds what the frames tell each other.

        Args:
            x: frame embeddings [B, S, D].
            mask: [B, S] bool, True where a frame is real; None if all are. A frame that isn't is not looked at.

        Returns:
            [B, S, D].

        Raises:
            ValueError: there are more frames than positions.
        """
        if x.shape[1] > len(self.positions):
            raise ValueError(f'{x.shape[1]} frames are more than max_frames={len(self.positions)}')
        mixed = x + self.positions[: x.shape[1]].to(x.dtype)
        for layer in self.layers:
            mixed = layer(mixed, src_key_padding_mask=None if mask is None else ~mask)
        return x + mixed

    def start_from_text(self, text: nn.Module) -> bool:
        """Takes over the first layers and positions of a text transformer, as CLIP4Clip starts from CLIP's.

        Args:
            text: an open_clip model, or its text tower.

        Returns:
            whether it is CLIP's own transformer, and as wide; if not, nothing is taken over.
        """
        positions = getattr(text, 'positional_embedding', None)
        if positions is None or positions.shape[1] != self.positions.shape[1]:
            return False
        for layer, block in zip(self.layers, text.transformer.resblocks):
            for other, own in PARTS.items():
                layer.get_submodule(own).load_state_dict(block.get_submodule(other).state_dict())
        count = min(len(positions), len(self.positions))
        self.positions.data[:count] = positions.detach()[:count]
        return True


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)
