"""What a DINOv2 or DINOv3 sees in a picture, with all tokens and with fewer: features as colours, side by side.

python examples/dino_features.py cat.jpg                                             # timm
python examples/dino_features.py cat.jpg --model facebook/dinov3-vits16-pretrain-lvd1689m --size 512 --keep 0.18
"""

import argparse
import time

import numpy as np
import timm
import torch
from PIL import Image

import fewtokens

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('picture')
    parser.add_argument('--model', default='vit_small_patch14_dinov2.lvd142m', help='of timm; with a / of transformers')
    parser.add_argument('--size', type=int, default=518, help='side that the picture is made')
    parser.add_argument('--after', type=int, nargs='+', default=[0, 3, 6, 9], help='blocks before which tokens merge')
    parser.add_argument('--keep', type=float, default=0.35, help='share of the tokens that is left in the end')
    parser.add_argument('--random', action='store_true', help='random weights, to try the script')
    parser.add_argument('--out', default='features.png')
    args = parser.parse_args()

    picture = Image.open(args.picture).convert('RGB').resize((args.size, args.size))
    pixels = (np.asarray(picture, np.float32) / 255 - MEAN) / STD
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    model = load(args.model, args.size, args.random)

    full, seconds = look(model, images)
    with fewtokens.attach(model, fewtokens.GradualUpdate(after=args.after, keep=args.keep)) as attachment:
        fewer, fewer_seconds = look(model, images)
        print(attachment.summary())
    cosine = torch.nn.functional.cosine_similarity(full, fewer, dim=-1).mean().item()
    print(f'{seconds / fewer_seconds:.2f} times as fast, cosine {cosine:.4f}')

    side = int(len(full) ** 0.5)
    colours = [paint(each, full).reshape(side, side, 3) for each in (full, fewer)]
    large = [Image.fromarray(each).resize(picture.size, Image.Resampling.NEAREST) for each in colours]
    Image.fromarray(np.concatenate([np.asarray(each) for each in (picture, *large)], axis=1)).save(args.out)
    print(args.out)


def load(name: str, size: int, random: bool) -> torch.nn.Module:
    """A model of timm by its name, one of transformers by its repository or folder."""
    if '/' in name:
        from transformers import AutoModel

        return AutoModel.from_pretrained(name).eval()
    return timm.create_model(name, pretrained=not random, img_size=size, num_classes=0).eval()


@torch.no_grad()
def look(model: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Patch features [N, C], and the seconds that the second of two passes took."""
    for _ in range(2):
        start = time.perf_counter()
        if isinstance(model, timm.models.VisionTransformer):
            tokens = model.forward_features(images)
        else:
            tokens = model(pixel_values=images).last_hidden_state
        seconds = time.perf_counter() - start
    prefix = tokens.shape[1] - int(tokens.shape[1] ** 0.5) ** 2  # class token and registers
    return tokens[0, prefix:], seconds


def paint(features: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    """Features as colours [N, 3] uint8: the three main components of the reference, which has the same colours."""
    axes = torch.linalg.svd(reference - reference.mean(0), full_matrices=False)[2][:3].T
    low, high = torch.quantile((reference - reference.mean(0)) @ axes, torch.tensor([0.02, 0.98]), dim=0)
    values = ((features - reference.mean(0)) @ axes - low) / (high - low)
    return (255 * values.clamp(0, 1)).byte().numpy()


if __name__ == '__main__':
    main()
