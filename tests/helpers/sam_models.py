"""Hugging Face's SAM, tiny and with random weights."""

import transformers
from models import randomize

SETTINGS = dict(hidden_size=32, output_channels=16, num_hidden_layers=6, num_attention_heads=4, mlp_dim=48)
SETTINGS |= dict(window_size=4, global_attn_indexes=[2, 4], patch_size=8)


def with_positions(model):
    for name, parameter in model.named_parameters():
        if 'rel_pos' in name:
            parameter.data *= 5
    return model


def sam(name='Sam', image_size=72, **options):
    """A whole model, from images and prompts to masks."""
    prompt = dict(hidden_size=16, image_size=image_size, patch_size=8, mask_input_channels=4)
    decoder = dict(hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    if name == 'SamHQ':
        decoder |= dict(vit_dim=32)
    prompt |= dict(image_embedding_size=image_size // 8)
    vision = {**SETTINGS, 'image_size': image_size, 'num_pos_feats': 8, **options}
    config = getattr(transformers, f'{name}Config')(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return with_positions(randomize(getattr(transformers, f'{name}Model')(config)))
