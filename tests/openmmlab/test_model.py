import os

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import fewtokens.openmmlab  # noqa: F401
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model, load_checkpoint


def test_weights_are_the_checkpoints(config_file, checkpoint):
    model = build_model(load_config(config_file), checkpoint)
    stored = torch.load(checkpoint, weights_only=True)['state_dict']
    assert not model.training and all(torch.equal(v, stored[k]) for k, v in model.state_dict().items())
    assert model.dataset_meta['classes'][0] == 'a'


def test_a_checkpoint_of_mmengines_own_training_is_read_safely(config_file):
    options = {'param_scheduler': [dict(type='OneCycleLR', eta_max=1e-3, total_steps=2, by_epoch=False)]}
    runner = Runner.from_cfg(load_config(config_file, options))
    runner.train()
    model = build_model(load_config(config_file), f'{runner.work_dir}/iter_2.pth')
    assert all(torch.equal(v, runner.model.state_dict()[k]) for k, v in model.state_dict().items())


class Harmful:
    def __reduce__(self):
        return os.system, ('touch harmed',)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, extra=Harmful()), 'harmful.pth')
    with pytest.raises(ValueError, match='cannot be loaded safely'):
        load_checkpoint('harmful.pth')
    assert not os.path.exists('harmed')


def test_a_damaged_or_missing_checkpoint(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match='no checkpoint'):
        load_checkpoint(tmp_path / 'none.pth')
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match='damaged'):
        load_checkpoint(damaged)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'model.backbone.num_layers': 5}, r'12 missing \(backbone.layers.4'),
        ({'model.backbone.num_layers': 3}, r'12 unknown \(backbone.layers.3'),
        (
            {'model.decode_head.num_classes': 7},
            r'shape \(decode_head.cls_emb \(1, 10, 32\) instead of \(1, 7, 32\)',
        ),
    ],
)
def test_another_architecture_is_named(config_file, checkpoint, change, message):
    with pytest.raises(ValueError, match=message):
        build_model(load_config(config_file, change), checkpoint)


def test_pretrained_weights_are_not_fetched():
    name = 'mmseg::segmenter/segmenter_vit-l_mask_8xb1-160k_ade20k-512x512.py'
    model = build_model(load_config(name, {'model.backbone.num_layers': 1}), device='meta')
    assert next(model.parameters()).device.type == 'meta'


def test_weights_that_timm_would_fetch_are_not_fetched(monkeypatch):
    """mmseg's TIMMBackbone fetches them unless it is told not to."""
    import timm

    asked = []
    create = timm.create_model

    def create_model(**options):
        asked.append((options['pretrained'], options['checkpoint_path']))
        return create(**{**options, 'pretrained': False, 'checkpoint_path': ''})

    monkeypatch.setattr(timm, 'create_model', create_model)
    backbone = dict(type='TIMMBackbone', model_name='test_vit', out_indices=(1,))
    head = dict(type='FCNHead', in_channels=64, in_index=0, channels=8, num_classes=3)
    for options in ({}, dict(pretrained=True), dict(checkpoint_path='none.pth')):
        model = dict(type='EncoderDecoder', backbone=dict(backbone, **options), decode_head=head)
        build_model(Config(dict(model=model, default_scope='mmseg')))
    assert asked == [(False, '')] * 3
