import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import fewtokens
from fewtokens.openmmlab import FewTokensHook
from fewtokens.openmmlab.config import load_config

PLUGIN = dict(type='FewTokensHook', sdpa=True, reducer=dict(type='SharedUpdate', after=2, grid=4))


def make_runner(config_file, *hooks, **options):
    config = load_config(config_file, options)
    config.custom_hooks = list(hooks)
    return Runner.from_cfg(config)


def plugin_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, FewTokensHook))


def test_attached_for_training_and_its_validation_and_detached_after(config_file):
    runner = make_runner(config_file, PLUGIN, dict(type='EMAHook'))
    watched = []
    runner.register_hook(Watch(watched), priority='VERY_LOW')
    runner.train()
    (attachment,) = watched
    assert attachment.passes == 2 + 3, 'two training steps and three held-out images, the latter in the average'
    assert not fewtokens.attached(runner.model)
    saved = torch.load(runner.work_dir + '/iter_2.pth', weights_only=False)['state_dict']
    assert saved.keys() == runner.model.state_dict().keys()


class Watch(FewTokensHook):
    """Looks for what another hook attached, at the end of the run but before it is taken off."""

    def __init__(self, found):
        super().__init__(sdpa=True)
        self.found = found

    def before_run(self, runner):
        self.found += [a for a in fewtokens.attached(runner.model) if hasattr(a, 'passes')]


@pytest.mark.parametrize('run', ['val', 'test'])
def test_attached_for_a_run_alone(config_file, run):
    runner = make_runner(config_file, PLUGIN)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    getattr(runner, run)()
    assert not fewtokens.attached(runner.model) and not plugin_of(runner).attachments
    assert all(torch.equal(value, before[name]) for name, value in runner.model.state_dict().items())


def test_two_runs_after_each_other(config_file):
    runner = make_runner(config_file, PLUGIN)
    first, second = runner.test(), runner.test()
    assert first == second and not fewtokens.attached(runner.model)


def test_changes_what_is_predicted(config_file):
    plain, reduced = (make_runner(config_file, *hooks) for hooks in ((), (PLUGIN,)))
    reduced.model.load_state_dict(plain.model.state_dict())
    outputs = []
    for runner in (plain, reduced):
        for hook in runner.hooks:
            if isinstance(hook, FewTokensHook):
                hook.attach_to(runner)
        runner.model.eval()
        with torch.no_grad():
            outputs.append(runner.model(torch.ones(1, 3, 64, 64).cumsum(3), mode='tensor'))
    assert not torch.allclose(*outputs)


def test_test_time_augmentation_wrapper(config_file):
    config = load_config(config_file)
    config.custom_hooks = [PLUGIN]
    config.model = dict(type='SegTTAModel', module=config.model)
    flips = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]
    load = dict(type='LoadAnnotations', reduce_zero_label=True)
    pack = dict(type='PackSegInputs', meta_keys=('img_path', 'img_shape', 'ori_shape', 'flip', 'flip_direction'))
    tta = dict(type='TestTimeAug', transforms=[*flips, [load], [pack]])
    config.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), tta]
    runner = Runner.from_cfg(config)
    hook = plugin_of(runner)
    hook.attach_to(runner)
    attachment = hook.attachments[-1]
    runner.test()
    assert attachment.passes == 6, 'three images, each twice'


def test_new_style_config_by_class(config_file, tmp_path):
    (tmp_path / 'base.py').write_text('default_scope = "mmseg"\n')
    path = tmp_path / 'lazy.py'
    path.write_text(
        'from mmengine.config import read_base\n'
        'with read_base():\n'
        '    from .base import *\n'
        'from fewtokens import Hourglass\n'
        'from fewtokens.openmmlab import FewTokensHook\n'
        'custom_hooks = [dict(type=FewTokensHook, reducer=dict(type=Hourglass, after=2, grid=4))]\n'
    )
    config = Config.fromfile(path)
    assert config.default_scope == 'mmseg'
    runner = make_runner(config_file, *config.custom_hooks)
    assert plugin_of(runner).reducer == fewtokens.Hourglass(2, 4)
    runner.test()


def test_text_config_alone_registers_the_hook(config_file):
    text = config_file.read_text().replace('custom_hooks = []', f'custom_hooks = [{PLUGIN!r}]')
    config_file.write_text(text)
    runner = Runner.from_cfg(load_config(config_file))
    assert plugin_of(runner).reducer == fewtokens.SharedUpdate(2, 4)


def test_a_grid_that_never_fits_is_reported(config_file, caplog):
    runner = make_runner(config_file, dict(type='FewTokensHook', reducer='Hourglass(after=2, grid=9)'))
    messages = []
    runner.logger.warning = lambda message, *args: messages.append(message)
    with pytest.warns(UserWarning, match='8 x 8 tokens'):
        runner.test()
    assert any('never took effect' in message for message in messages)


def test_bad_settings():
    with pytest.raises(ValueError, match='needs a reducer, sdpa=True or both'):
        FewTokensHook()
    with pytest.raises(ValueError, match="no reducer 'Hourglas'"):
        FewTokensHook(reducer=dict(type='Hourglas', after=1, grid=2))


def test_settings_that_do_not_fit_leave_nothing(config_file):
    runner = make_runner(config_file, dict(type='FewTokensHook', sdpa=True, reducer='Hourglass(after=9, grid=4)'))
    with pytest.raises(ValueError, match='after=9 must be between 0 and 3'):
        runner.test()
    assert not fewtokens.attached(runner.model)


def test_fsdp_is_refused(config_file):
    class FullyShardedDataParallel(torch.nn.Module):
        pass

    runner = make_runner(config_file, PLUGIN)
    runner.model.add_module('wrapped', FullyShardedDataParallel())
    with pytest.raises(ValueError, match='FullyShardedDataParallel'):
        runner.test()
