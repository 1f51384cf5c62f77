import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import fewtokens
from fewtokens.openmmlab import FewTokensHook
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.hook import plugin_lines

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


@pytest.mark.parametrize('reducer_first', [False, True])
def test_one_line_for_fused_attention_and_one_for_a_reducer(config_file, reducer_first):
    lines = [dict(type='FewTokensHook', sdpa=True), PLUGIN]
    runner = make_runner(config_file, *reversed(lines) if reducer_first else lines)
    first, second = (hook for hook in runner.hooks if isinstance(hook, FewTokensHook))
    for hook in (first, second):
        hook.attach_to(runner)
    kinds = [[type(attachment).__name__ for attachment in hook.attachments] for hook in (first, second)]
    both = ['FusedAttention', 'Reduction']
    assert kinds == ([both, []] if reducer_first else [both[:1], both[1:]])
    runner.test()
    assert not fewtokens.attached(runner.model)


def test_two_reducers_are_refused(config_file):
    runner = make_runner(config_file, PLUGIN, dict(type=FewTokensHook, reducer='AvgPool(1, 4)'))
    with pytest.raises(ValueError, match='has a reducer attached already'):
        runner.test()


def test_a_run_with_nothing_to_do_says_nothing_of_effect(config_file):
    runner = make_runner(config_file, PLUGIN, train_cfg=dict(max_iters=0))
    assert plugin_of(runner).took_effect is None
    runner.train()
    assert plugin_of(runner).took_effect is None
    runner.test()
    assert plugin_of(runner).took_effect is True


@pytest.mark.parametrize(
    'hooks, message',
    [
        ([dict(type='FewTokensHook', reduser=PLUGIN['reducer'])], "no option 'reduser'; its options are reducer, sdpa"),
        ([dict(type='FewTokensHook')], 'needs a reducer'),
        ([dict(type='FewTokensHook', reducer=None)], 'needs a reducer'),
        ([dict(type='FewTokensHook', reducer={})], 'must be a dict with a type'),
        ([dict(type='FewTokensHook', reducer=dict(type='AvgPool', aftr=1, grid=2))], "no option 'aftr'"),
        ([dict(type='FewTokensHook', sdpa='False')], "sdpa='False' must be True or False"),
        ([dict(type='FewTokenHook', sdpa=True)], "no hook 'FewTokenHook' in scope 'mmseg'; there is FewTokensHook"),
        ([dict(type='fewtokens.openmmlab.FewTokenHook', sdpa=True)], "no hook 'fewtokens.openmmlab.FewTokenHook'"),
        ([dict(typ='FewTokensHook', sdpa=True)], 'is no hook'),
        (['FewTokensHook'], 'is no hook'),
        (dict(type='FewTokensHook', sdpa=True), 'must be a list of hooks'),
    ],
)
def test_a_line_that_would_not_be_at_work_is_an_error(hooks, message):
    init_default_scope('mmseg')
    with pytest.raises(ValueError, match=message):
        plugin_lines(Config(dict(custom_hooks=hooks)))
    if isinstance(hooks, list):
        with pytest.raises(ValueError, match=message):
            plugin_lines(Config(dict(default_hooks=dict(timer=None, few=hooks[0]))))


def test_lines_are_told_from_other_hooks():
    hook = FewTokensHook(sdpa=True)
    config = Config(dict(custom_hooks=[dict(type='EMAHook'), hook, dict(type=Watch, found=[]), dict(type=len)]))
    assert plugin_lines(config)[0] is hook and [type(line) for line in plugin_lines(config)] == [FewTokensHook, Watch]
    assert plugin_lines(Config(dict(custom_hooks=None))) == plugin_lines(Config({})) == []


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
