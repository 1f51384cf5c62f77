"""Hugging Face's SAM and SAM 2, tiny and with random weights."""

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


SAM2_WINDOWS = (8, 4, 6, 3)


def sam2_vision(**options):
    """Stages of 1, 2, 5 and 2 blocks on grids of 32 x 48 to 4 x 6; of the third, blocks 5 and 7 see the whole grid."""
    settings = dict(
        hidden_size=8, num_attention_heads=1, image_size=[64, 96], patch_kernel_size=[3, 3], patch_stride=[2, 2],
        patch_padding=[1, 1], blocks_per_stage=[1, 2, 5, 2], embed_dim_per_stage=[8, 16, 32, 48],
        num_attention_heads_per_stage=[1, 2, 4, 4], window_size_per_stage=list(SAM2_WINDOWS),
        global_attention_blocks=[5, 7], window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    backbone = transformers.Sam2HieraDetConfig(**settings | options)
    return transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[48, 32, 16, 8], fpn_hidden_size=16
    )


def sam2():
    """A whole model, from images of 96 x 96 and prompts to masks."""
    prompt = dict(hidden_size=16, image_size=96, patch_size=8, mask_input_channels=4)
    decoder = dict(hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    vision = sam2_vision(image_size=[96, 96])
    vision.backbone_feature_sizes = [[48, 48], [24, 24], [12, 12]]
    config = transformers.Sam2Config(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return randomize(transformers.Sam2Model(config))
