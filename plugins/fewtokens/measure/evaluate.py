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
from ..video.clustered import Clustered, find_encoder, own_clustering
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
        reduction.remove()
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


def effect(reduction: Reduction | Clustered, model: nn.Module) -> str:
    """One line: tokens before and after, in how many passes, and what that saves of the model's MACs."""
    before, after = reduction.token_counts
    unchanged = f', {reduction.skipped} unchanged' if reduction.skipped else ''
    host, reduced = _macs(reduction, copy.deepcopy(model))
    saved = f'{host / 1e9:.2f} GMACs became {reduced / 1e9:.2f}, {1 - reduced / host:.0%} saved'
    return (
        f'{reduction.reducer}: {before} tokens became {after} after block {reduction.reducer.after} in '
        f'{reduction.passes} passes{unchanged}; {saved}'
    )


def _macs(reduction: Reduction | Clustered, model: nn.Module) -> tuple[int, int]:
    """Of a detached model, for one image or video: without and with the reduction."""
    shape = (1, *reduction.input_shape[1:])
    if isinstance(reduction, Clustered):
        # Clustering looks at its tokens: on the meta device there are none.
        inputs, encoder = torch.randn(shape, device=next(model.parameters()).device), find_encoder(model)
        with encoder.using(None):
            host = count_macs(model, inputs)
        with encoder.using(reduction.reducer.clustering, reduction.reducer.after):
            return host, count_macs(model, inputs)
    model, inputs = model.to('meta'), torch.empty(shape, device='meta')
    host = count_macs(model, inputs)
    with attach(model, reduction.reducer):
        return host, count_macs(model, inputs)


def _watch(runner: Runner) -> list[Reduction | Clustered]:
    """The reductions that the hook will attach, which are taken off again when the run ends, or the model's own."""
    reductions: list[Reduction | Clustered] = []
    for hook in runner.hooks:
        if isinstance(hook, FewTokensHook):
            hook.attach_to(runner)
            reductions += [a for a in hook.attachments if isinstance(a, (Reduction, Clustered))]
    own = None if reductions else own_clustering(unwrap(runner.model))
    return [own] if own else reductions
