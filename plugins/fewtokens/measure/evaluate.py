"""A test run: MMEngine's loop, and what the plugin did in it."""

import argparse
import copy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from ..attach import Reduction, attach
from ..openmmlab.data import check_folders, check_samples
from ..openmmlab.hook import FewTokensHook
from ..openmmlab.model import load_weights, unwrap
from .macs import count_macs


def test(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Runs a config's test set and prints the metrics and what the plugin did.

    Raises:
        FileNotFoundError, ValueError: data, checkpoint or plugin don't fit, or the plugin never took effect.
    """
    runner = build_test_runner(config, args)
    reductions = _watch(runner)
    with torch.autocast(unwrap(runner.model).data_preprocessor.device.type, torch.bfloat16, enabled=args.amp):
        metrics = runner.test()
    for reduction in reductions:
        if not reduction.passes:
            raise ValueError(
                f'{reduction.reducer} never took effect: no input had enough tokens for it '
                f'({reduction.skipped} went through unchanged)'
            )
        print_log(effect(reduction, unwrap(runner.model)), logger='current')
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
    load_weights(unwrap(runner.model), args.checkpoint)
    skipped = check_samples(runner.test_loop.dataloader.dataset, skip=args.skip_unreadable)
    if skipped:
        print_log(f'{len(skipped)} unreadable samples are left out: {", ".join(skipped[:3])}', logger='current')
    return runner


def effect(reduction: Reduction, model: nn.Module) -> str:
    """One line: tokens before and after, in how many passes, and what that saves of the model's MACs."""
    before, after = reduction.token_counts
    unchanged = f', {reduction.skipped} unchanged' if reduction.skipped else ''
    # Nothing is computed on the meta device, and the run is over: the copy is detached.
    meta, inputs = copy.deepcopy(model).to('meta'), torch.empty(1, *reduction.input_shape[1:], device='meta')
    host = count_macs(meta, inputs)
    with attach(meta, reduction.reducer):
        reduced = count_macs(meta, inputs)
    saved = f'{host / 1e9:.2f} GMACs became {reduced / 1e9:.2f}, {1 - reduced / host:.0%} saved'
    return (
        f'{reduction.reducer}: {before} tokens became {after} after block {reduction.reducer.after} in '
        f'{reduction.passes} passes{unchanged}; {saved}'
    )


def _watch(runner: Runner) -> list[Reduction]:
    """The reductions that the hook will attach: they are taken off again when the run ends."""
    reductions: list[Reduction] = []
    for hook in runner.hooks:
        if isinstance(hook, FewTokensHook):
            hook.attach_to(runner)
            reductions += [a for a in hook.attachments if isinstance(a, Reduction)]
    return reductions
