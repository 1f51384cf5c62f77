"""Reducers on a frozen DINOv2 and CamVid's frames: what they cost in mIoU and in the features themselves."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from torch import Tensor, nn
from torch.nn import functional as F

import fewtokens
from fewtokens.cli.options import HelpFormatter, add_plugin_options, at_least
from fewtokens.measure.files import write_json
from fewtokens.measure.macs import count_macs
from fewtokens.measure.progress import progress_bar
from fewtokens.measure.resampling import Areas, interval_of, interval_of_difference
from fewtokens.openmmlab.camvid import VOID, CamVidDataset
from fewtokens.openmmlab.registry import REDUCERS, parse_plugin
from fewtokens.ops.labels import take_by_label
from fewtokens.plugin import text_of
from fewtokens.reducers import Reduced, Reducer

from .real.dinov2 import PATCH, as_input, load_model


@REDUCERS.register_module()
@dataclass(frozen=True)
class DropTokens(Reducer):
    """The plainest way to have fewer tokens: keeps the one in the middle of each cell of a grid, drops the others.

    In the end a dropped token is a copy of the kept one that was most like it as they were dropped.
    """

    restores: ClassVar[str] = 'copy'

    grid: tuple[int, int]

    def reduce(self, tokens: Tensor, grid: tuple[int, int], sizes: Tensor | None = None) -> Reduced:
        rows, columns = (
            ((torch.arange(few, device=tokens.device) + 0.5) * many / few).long() for many, few in zip(grid, self.grid)
        )
        kept = tokens[:, (rows[:, None] * grid[1] + columns).flatten()]
        labels = torch.cdist(tokens, kept).argmin(dim=2)
        return Reduced(kept, labels, labels, self.grid)

    def restore(self, tokens: Tensor, record: Tensor) -> Tensor:
        return take_by_label(tokens, record)


Frames = list[tuple[Path, Path]]
BATCH = 16


def main() -> None:
    args = parse()
    for name, size in (('--size', args.size), ('--train-size', args.train_size)):
        if any(side < PATCH or side % PATCH for side in size):
            raise ValueError(f'{name} {size[0]} {size[1]} must be multiples of {PATCH}')
    reducers = [parse_plugin(text) for text in args.plugin]
    train, val = (read_frames(args.data, split, args.every) for split in ('train', 'val'))
    backbone = load_model().backbone
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    backbone.to(device)
    print(f'features of {len(train)} frames to train {args.seeds} heads on, of {len(val)} frames to test them on')
    known = torch.cat(list(features_of(backbone, train, args.train_size)))
    labels = torch.stack([torch.from_numpy(cv2.imread(str(label), cv2.IMREAD_GRAYSCALE)) for _, label in train])
    grid = tuple(side // PATCH for side in args.train_size)
    heads = [train_head(known, labels, grid, seed, args.steps) for seed in range(args.seeds)]
    full = list(features_of(backbone, val, args.size))
    rows = {'full': measure(backbone, heads, val, full, full, args.size)}
    for reducer in reducers:
        with fewtokens.attach(backbone, reducer):
            rows[text_of(reducer)] = measure(
                backbone, heads, val, features_of(backbone, val, args.size), full, args.size
            )
    report(rows, args.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('data', type=Path, help="CamVid in the layout of SegNet's tutorial")
    parser.add_argument('--size', type=int, nargs=2, default=(504, 672), help='height and width to test at, in pixels')
    parser.add_argument('--train-size', type=int, nargs=2, default=(504, 672), help='the same to train heads at')
    parser.add_argument('--seeds', type=at_least(1), default=2, help='how many linear heads to train')
    parser.add_argument('--steps', type=at_least(1), default=1500, help='to train each for')
    parser.add_argument('--every', type=at_least(1), default=1, help='of how many frames to take one')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/camvid.json'), help='what to write figures to')
    add_plugin_options(parser)
    return parser.parse_args()


def read_frames(data: Path, split: str, every: int) -> Frames:
    """Pictures and their labels; raises a FileNotFoundError where there are none."""
    prefix = dict(img_path=split, seg_map_path=f'{split}annot')
    dataset = CamVidDataset(data_root=str(data), data_prefix=prefix, pipeline=[], lazy_init=True)
    found = [(Path(item['img_path']), Path(item['seg_map_path'])) for item in dataset.load_data_list()]
    if not found:
        raise FileNotFoundError(f'no pictures in {str(data / split)!r}')
    return found[::every]


@torch.no_grad()
def features_of(backbone: nn.Module, frames: Frames, size: tuple[int, int]) -> Iterator[Tensor]:
    """Normed patch tokens of each frame, [1, N, C]."""
    device = next(backbone.parameters()).device
    with progress_bar(len(frames), 'looking at frames') as bar:
        for picture, _ in frames:
            image = cv2.resize(cv2.imread(str(picture)), size[::-1], interpolation=cv2.INTER_LINEAR)[..., ::-1]
            yield backbone.forward_features(as_input(image.copy()).to(device))[:, backbone.num_prefix_tokens :]
            bar.update()


def train_head(known: Tensor, labels: Tensor, grid: tuple[int, int], seed: int, steps: int) -> nn.Module:
    """A linear head on normalized channels, as DINOv2's authors judge features."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = nn.Sequential(nn.BatchNorm2d(known.shape[2]), nn.Conv2d(known.shape[2], VOID, 1)).to(known.device)
    chosen = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with progress_bar(steps, 'training a head') as bar:
        for _ in range(steps):
            picked = torch.randint(len(known), (BATCH,), generator=chosen)
            logits = head(known[picked].transpose(1, 2).unflatten(2, grid))
            # Half of the labels' resolution: enough for a linear head, and four times as fast.
            wanted = labels[picked][:, 1::2, 1::2].long().to(known.device)
            logits = F.interpolate(logits, wanted.shape[1:], mode='bilinear')
            loss = F.cross_entropy(logits, wanted, ignore_index=VOID)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
    return head.eval()


@torch.no_grad()
def measure(
    backbone: nn.Module, heads: list[nn.Module], frames: Frames, given: Iterator[Tensor], full: list[Tensor],
    size: tuple[int, int],
) -> dict:  # fmt: skip
    """Pixels in common and in either by frame and class, for each head; cosines to the full features; MACs."""
    grid = tuple(side // PATCH for side in size)
    cosines, areas = [], [[] for _ in heads]
    for (_, label), features, whole in zip(frames, given, full, strict=True):
        cosines.append(F.cosine_similarity(features, whole, dim=2).mean().item())
        truth = torch.from_numpy(cv2.imread(str(label), cv2.IMREAD_GRAYSCALE)).to(features.device).long()
        for head, found in zip(heads, areas):
            logits = F.interpolate(head(features.transpose(1, 2).unflatten(2, grid)), truth.shape, mode='bilinear')
            found.append(count_areas(logits[0].argmax(0), truth))
    image = torch.zeros(1, 3, *size, device=full[0].device)
    macs = count_macs(backbone, image, lambda model, x: model.forward_features(x))
    return dict(areas=[Areas(*map(np.stack, zip(*found))) for found in areas], cosines=np.array(cosines), macs=macs)


def count_areas(labels: Tensor, truth: Tensor) -> tuple[np.ndarray, np.ndarray]:
    common, either, *_ = IoUMetric.intersect_and_union(labels, truth, num_classes=VOID, ignore_index=VOID)
    return common.double().numpy(), either.double().numpy()


def report(rows: dict[str, dict], out: Path) -> None:
    full, lines, kept = rows['full'], [], {}
    once = np.ones((1, full['areas'][0].samples))
    for name, row in rows.items():
        values = [float(areas.headline(once)[0]) for areas in row['areas']]
        pairs = list(zip(row['areas'], full['areas']))
        differences = [float((one.headline(once) - other.headline(once))[0]) for one, other in pairs]
        intervals = [interval_of_difference(one, other) for one, other in pairs]
        low, high = np.mean(intervals, axis=0)
        spread = interval_of(row['cosines'])
        kept[name] = dict(
            miou=values, difference=differences, interval=intervals, cosine=float(row['cosines'].mean()),
            cosine_interval=spread, macs=row['macs'] / full['macs'],
        )  # fmt: skip
        difference = '' if row is full else f'{np.mean(differences):+.2f} ({low:+.2f} to {high:+.2f})'
        lines.append(
            f'| {name} | {np.mean(values):.2f} | {difference} | {row["cosines"].mean():.4f} | '
            f'{row["macs"] / full["macs"]:.3f} |'
        )
    print('| | mIoU | difference, 95 % interval | cosine | MACs |\n| --- | --- | --- | --- | --- |')
    print('\n'.join(lines))
    write_json(out, kept)
