import copy

import pytest
from mmengine.config import Config

import fewtokens
from fewtokens.cli.config import add_plugin, choose_reducers, host_config
from fewtokens.openmmlab import FewTokensHook
from fewtokens.openmmlab.hook import plugin_lines
from fewtokens.video.clustered import VideoPlugin

REDUCER = dict(type='AvgPool', after=2, grid=4)
LINE = dict(type='FewTokensHook', reducer=REDUCER)


def test_tools_add_a_line_to_the_config_s_own_hooks():
    ema = dict(type='EMAHook')
    for hooks in (None, [], [ema], (ema,)):
        config = Config(dict(custom_hooks=hooks))
        add_plugin(config, None, False)
        assert config.custom_hooks == hooks
        add_plugin(config, fewtokens.AvgPool(2, 4), True)
        *others, line = config.custom_hooks
        assert others == list(hooks or []) and line.type == 'FewTokensHook'
        assert [(each.reducer, each.sdpa) for each in plugin_lines(config)] == [(fewtokens.AvgPool(2, 4), True)]


@pytest.mark.parametrize(
    'plugin, setting',
    [
        (fewtokens.Hourglass(2, (4, 3)), dict(type='Hourglass', after=2, grid=(4, 3))),
        (
            fewtokens.SharedUpdate((1, 2), (4, 3), size_bias=False),
            dict(type='SharedUpdate', after=(1, 2), grid=((4, 4), (3, 3)), size_bias=False),
        ),
        (
            VideoPlugin.parse('SegmentClustering(segments=(2, 1), clusters=5, after=(0, 1))'),
            dict(type='SegmentClustering', segments=(2, 1), clusters=5, after=(0, 1)),
        ),
    ],
)
def test_a_plugin_goes_into_the_config_as_its_settings(plugin, setting, tmp_path):
    config = Config(dict(custom_imports=dict(imports=['fewtokens.openmmlab'])))
    add_plugin(config, plugin, False)
    assert config.custom_hooks[0].reducer == setting
    # As MMEngine keeps it beside a training's checkpoints.
    config.dump(tmp_path / 'kept.py')
    for kept in (config, Config.fromfile(tmp_path / 'kept.py')):
        assert [line.reducer for line in plugin_lines(kept)] == [plugin]


@pytest.mark.parametrize('where', ['custom', 'default'])
def test_a_second_reducer_is_refused(where):
    hooks = dict(custom_hooks=[LINE]) if where == 'custom' else dict(default_hooks=dict(few=LINE, timer=None))
    config = Config(dict(hooks))
    add_plugin(config, None, True)
    with pytest.raises(ValueError, match='has a FewTokensHook with a reducer already: leave --plugin out'):
        add_plugin(config, fewtokens.AvgPool(2, 4), False)
    config.custom_hooks = [dict(LINE, type=FewTokensHook), dict(LINE, reducer='Hourglass(2, 4)')]
    config.default_hooks = {}
    with pytest.raises(ValueError, match=r'2 FewTokensHooks with a reducer, AvgPool\(.*\) and Hourglass\(2, 4\)'):
        add_plugin(config, None, False)


@pytest.mark.parametrize(
    'kind', [FewTokensHook, 'mmengine.FewTokensHook', 'fewtokens.openmmlab.hook.FewTokensHook', 'FewTokensHook']
)
def test_tools_that_compare_find_lines_however_they_are_named(kind):
    second = dict(type=kind, reducer=dict(type=fewtokens.Hourglass, after=2, grid=4), priority='LOW')
    for hooks in (dict(custom_hooks=(LINE, second)), dict(custom_hooks=[LINE], default_hooks=dict(few=second))):
        reducers = choose_reducers(Config(hooks), ['SharedUpdate(2, 4)'])
        assert reducers == {
            'AvgPool(after=2, grid=4)': fewtokens.AvgPool(2, 4),
            'Hourglass(after=2, grid=4)': fewtokens.Hourglass(2, 4),
            'SharedUpdate(2, 4)': fewtokens.SharedUpdate(2, 4),
        }


@pytest.mark.parametrize(
    'clustering, after, text',
    [
        (dict(segments=2, clusters=5), 1, 'SegmentClustering(segments=2, clusters=5, after=1)'),
        ([dict(segments=2, clusters=5), dict(segments=1, clusters=3)], (1, 2),
         'SegmentClustering(segments=(2, 1), clusters=(5, 3), after=(1, 2))'),
        (['SegmentClustering(segments=2, clusters=5, after=1)', dict(segments=1, clusters=3)], (1, 2),
         'SegmentClustering(segments=2, clusters=5, after=1), then '
         'SegmentClustering(segments=1, clusters=3, after=2)'),
        ([dict(segments=2, clusters=5), dict(segments=1, clusters=3, size_bias=True)], (1, 2),
         'SegmentClustering(segments=2, clusters=5, after=1), then '
         'SegmentClustering(segments=1, clusters=3, size_bias=True, after=2)'),
    ],
)  # fmt: skip
def test_a_retrieval_models_own_clustering_is_compared_as_it_is(clustering, after, text):
    config = Config(dict(model=dict(clustering=clustering, after=after)))
    before = copy.deepcopy(config.to_dict())
    ((name, plugin),) = choose_reducers(config, []).items()
    assert name == text == str(plugin) and plugin.after == after
    assert host_config(config).model.clustering is None and config.to_dict() == before
    stages = plugin.clustering if isinstance(plugin.clustering, list) else [plugin.clustering]
    assert [stage.segments for stage in stages] == [2, 1][: len(stages)]
    assert len(stages) < 2 or stages[1].size_bias == ('size_bias' in text)
