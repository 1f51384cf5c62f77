import argparse

from models import snapshot

from fewtokens.openmmlab import evaluate
from fewtokens.openmmlab.config import load_config


def test_a_test_leaves_nothing_on_the_model(config_file, checkpoint, tmp_path, monkeypatch):
    config = load_config(config_file)
    config.work_dir = str(tmp_path)
    config.custom_hooks = [dict(type='FewTokensHook', reducer=dict(type='AvgPool', after=1, grid=2))]
    given = dict(tta=False, out=None, show_dir=None, skip_unreadable=False, amp=False)
    args = argparse.Namespace(checkpoint=str(checkpoint), **given)
    runner = evaluate.build_test_runner(config, args)
    before = snapshot(runner.model)
    monkeypatch.setattr(evaluate, 'build_test_runner', lambda *args: runner)
    assert 'mIoU' in evaluate.test(config, args)
    assert snapshot(runner.model) == before
