"""SAM's mask of what is in the middle of a picture, with all tokens and with fewer, side by side.

python examples/segment_anything.py facebook/sam-vit-base PICTURE
"""

import argparse
import time

import numpy as np
import torch
from PIL import Image
from transformers import SamImageProcessor, SamModel

import fewtokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='a name on the hub or a folder')
    parser.add_argument('picture')
    parser.add_argument('--after', type=int, default=2, help='blocks before tokens are merged')
    parser.add_argument('--grid', type=int, default=10, help='merged tokens on a side of a window, which has 14')
    parser.add_argument('--out', default='masks.png')
    args = parser.parse_args()

    picture = np.asarray(Image.open(args.picture).convert('RGB'))
    model = SamModel.from_pretrained(args.model).eval()
    processor = SamImageProcessor.from_pretrained(args.model)

    def segment() -> tuple[np.ndarray, float]:
        """The mask that SAM itself thinks best [H, W], and the seconds that its encoder took."""
        inputs = processor(picture, return_tensors='pt')
        start = time.perf_counter()
        embeddings = model.get_image_embeddings(inputs['pixel_values'])
        seconds = time.perf_counter() - start
        height, width = inputs['reshaped_input_sizes'][0].tolist()
        found = model(image_embeddings=embeddings, input_points=torch.tensor([[[[width / 2, height / 2]]]]))
        sizes = inputs['original_sizes'], inputs['reshaped_input_sizes']
        masks = processor.post_process_masks(found.pred_masks, *sizes)[0]
        return masks[0, found.iou_scores[0, 0].argmax()].numpy(), seconds

    full, seconds = segment()
    with fewtokens.attach(model, fewtokens.SharedUpdate(after=args.after, grid=args.grid)) as attachment:
        fewer, fewer_seconds = segment()
        print(attachment.summary())
    overlap = (full & fewer).sum() / max(1, (full | fewer).sum())
    print(f'{seconds / fewer_seconds:.2f} times as fast, IoU of the masks {overlap:.3f}')

    drawn = [np.where(mask[..., None], picture // 2 + (0, 100, 0), picture).astype(np.uint8) for mask in (full, fewer)]
    Image.fromarray(np.concatenate([picture, *drawn], axis=1)).save(args.out)
    print(args.out)


if __name__ == '__main__':
    with torch.no_grad():
        main()
