"""A test run: MMEngine's loop, and what the plugin did in it."""

import argparse
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..attach import Reduction
from .data import check_folders, check_samples
from .hook import FewTokensHook
from .model import load_weights


def test(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Runs a config's test set and prints the metrics and what the plugin did.

    Raises:
        FileNotFoundError, ValueError: data, checkpoint or plugin don't fit, or the plugin never took effect.
    """
    runner = build_test_runner(config, args)
    reductions = _watch(runner)
    with torch.autocast(runner.model.data_preprocessor.device.type, torch.bfloat16, enabled=args.amp):
        metrics = runner.test()
    for reduction in reductions:
        if not reduction.passes:
            raise ValueError(
                f'{reduction.reducer} never took effect: no input had enough tokens for it '
                f'({reduction.skipped} went through unchanged)'
            )
        print_log(effect(reduction), logger='current')
    return metrics


def build_test_runner(config: Config, args: argparse.Namespace) -> Runner:
    """A runner with its weights loaded and its test data checked."""
    check_folders(config.test_dataloader.dataset)
    if args.tta:
        if 'tta_model' not in config or 'tta_pipeline' not in config:
            raise ValueError('--tta needs tta_model and tta_pipeline in the config')
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.tta_model.module = config.model
        config.model = config.tta_model
    if args.out:
        # mmseg's metric writes label maps into a folder.
        config.test_evaluator.update(dict(output_dir=args.out, keep_results=True))
    if args.show_dir:
        config.default_hooks.visualization.draw = True
        config.visualizer.save_dir = args.show_dir
    config.load_from = None
    runner = Runner.from_cfg(config)
    model = runner.model.module if args.tta or hasattr(runner.model, 'module') else runner.model
    load_weights(model, args.checkpoint)
    skipped = check_samples(runner.test_loop.dataloader.dataset, skip=args.skip_unreadable)
    if skipped:
        print_log(f'{len(skipped)} unreadable samples are left out: {", ".join(skipped[:3])}', logger='current')
    return runner


def effect(reduction: Reduction) -> str:
    """One line: how many tokens there were before and after, and in how many passes."""
    before, after = reduction.token_counts
    unchanged = f', {reduction.skipped} unchanged' if reduction.skipped else ''
    share = 1 - after / before
    return (
        f'{reduction.reducer}: {before} tokens became {after} ({share:.0%} fewer) after block '
        f'{reduction.reducer.after} in {reduction.passes} passes{unchanged}'
    )


def _watch(runner: Runner) -> list[Reduction]:
    """The reductions that the hook will attach: they are taken off again when the run ends."""
    reductions: list[Reduction] = []
    for hook in runner.hooks:
        if isinstance(hook, FewTokensHook):
            hook.attach_to(runner)
            reductions += [a for a in hook.attachments if isinstance(a, Reduction)]
    return reductions
