"""A test run: MMEngine's loop, and what the plugin did in it."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from ..attach import Reduction
from ..measure.files import shown
from ..measure.macs import count_macs
from ..measure.variants import HOST, Variant, count_rows_cheaply
from ..report.drawing import with_colour_tuples
from ..report.table import format_gmacs, format_metric
from ..video.clustered import Clustered, find_encoder, find_encoders, own_clustering
from .autocast import mixed_precision_test
from .config import list_evaluators
from .data import check_samples, check_test_data
from .distributed import log_in_one_process
from .hook import FewTokensHook, never_took_effect
from .metrics import HEADLINES, in_percent, use_our_metrics
from .model import load_weights, unwrap
from .runner import ToolRunner

VIDEOS = 'mmengine'
"""The scope of text-video retrieval, which no package of OpenMMLab is for."""


def test(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Runs a config's test set and prints the metrics and what the plugin did.

    Raises:
        FileNotFoundError, ValueError: data, checkpoint or plugin don't fit, or the plugin never took effect.
    """
    runner = build_test_runner(config, args)
    reductions = _watch(runner)
    with ExitStack() as stack:
        images = [stack.enter_context(_first_image(reduction)) for reduction in reductions]
        if args.amp:
            stack.enter_context(mixed_precision_test(runner))
        metrics = runner.test()
    found = [
        f'{name} {format_metric(name, value)}' for name, value in in_percent(metrics or {}).items() if name in HEADLINES
    ]
    if found:
        print_log(', '.join(found), logger='current')
    for reduction, image in zip(reductions, images):
        reduction.remove()
        own = effect(reduction, unwrap(runner.model), *image) if reduction.passes else None
        # A process may have seen small images alone.
        effects, skipped = zip(*all_gather_object((own, reduction.skipped)))
        if not any(effects):
            raise ValueError(f'{never_took_effect(reduction.reducer)} ({sum(skipped)} went through unchanged)')
        print_log(own or next(filter(None, effects)), logger='current')
    return metrics


def build_test_runner(config: Config, args: argparse.Namespace) -> Runner:
    """A runner with its weights loaded and its test data checked."""
    check_test_data(config)
    if args.tta:
        if 'tta_model' not in config or 'tta_pipeline' not in config:
            raise ValueError('--tta needs tta_model and tta_pipeline in the config')
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.tta_model.module = config.model
        config.model = config.tta_model
    config.test_evaluator = use_our_metrics(config.test_evaluator)
    if args.out:
        _write_predictions(config, args.out)
    if args.show_dir:
        _draw_predictions(config, Path(args.show_dir).absolute())
    config.load_from = None
    runner = ToolRunner.from_cfg(config)
    log_in_one_process(runner)
    load_weights(unwrap(runner.model), args.checkpoint)
    loader = runner.test_loop.dataloader
    skipped = check_samples(loader.dataset, args.skip_unreadable, loader.num_workers)
    if skipped:
        names = ', '.join(map(shown, skipped[:3]))
        print_log(f'{len(skipped)} unreadable samples are left out: {names}', logger='current')
    return runner


def _write_predictions(config: Config, out: str) -> None:
    """Into a folder of label maps by mmseg's metric, or into a file: of detections, or of embeddings."""
    scope = config.get('default_scope')
    kind = {'mmdet': 'DumpDetResults', VIDEOS: 'DumpResults'}.get(scope)
    if kind is None:
        kept = {} if config.test_evaluator['type'] == 'MonocularDepthMetric' else dict(keep_results=True)
        config.test_evaluator.update(dict(output_dir=out, **kept))
        return
    if not out.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out {out!r} must end with .pkl or .pickle: {scope} writes predictions to such a file')
    config.test_evaluator = [dict(type=kind, out_file_path=out), *list_evaluators(config.test_evaluator)]


def _draw_predictions(config: Config, folder: Path) -> None:
    scope, hooks = config.get('default_scope'), config.get('default_hooks') or {}
    if scope == VIDEOS:
        page = dict(type='RetrievalPage', out_dir=str(folder))
        config.test_evaluator = [*list_evaluators(config.test_evaluator), page]
        return
    if scope == 'mmdet':
        if 'track_head' in config.model:
            raise ValueError("--show-dir: mmdet's TrackLocalVisualizer cannot draw videos with their truth; use --out")
        dataset = config.test_dataloader.dataset
        dataset.metainfo = with_colour_tuples(dataset.get('metainfo') or {})
        drawing = {'type': 'DetVisualizationHook', **hooks.get('visualization', {}), 'test_out_dir': str(folder)}
        config.visualizer = config.get('visualizer') or dict(type='DetLocalVisualizer', name='visualizer')
    else:
        drawing = {'type': 'SegVisualizationHook', **hooks.get('visualization', {})}
        config.visualizer.save_dir = str(folder)
    config.default_hooks = {**hooks, 'visualization': {**drawing, 'draw': True}}


def effect(reduction: Reduction | Clustered, model: nn.Module, image: Tensor | None = None) -> str:
    """One line: tokens before and after, in how many passes, and what that saves of the model's MACs.

    MACs are for an image [1, 3, H, W], or for a video.
    """
    before, after = cast(tuple[int, int], reduction.token_counts)
    unchanged = f', {reduction.skipped} unchanged' if reduction.skipped else ''
    if isinstance(reduction, Clustered):
        host, reduced = _clustered_macs(reduction, model)
    else:
        host, reduced = _reduced_macs(reduction, model, image)
    saved = f'{format_gmacs(host)} GMACs became {format_gmacs(reduced)}, {1 - reduced / host:.0%} saved'
    return (
        f'{reduction.reducer}: {before} tokens became {after} after block {reduction.reducer.after} in '
        f'{reduction.passes} passes{unchanged}; {saved}'
    )


def _reduced_macs(reduction: Reduction, model: nn.Module, image: Tensor) -> list[int]:
    variants = [Variant(HOST, sdpa=False), Variant(str(reduction.reducer), reduction.reducer, sdpa=False)]
    # A model of videos takes a frame as a video of one.
    return [row.macs for row in count_rows_cheaply(model, variants, image[None] if find_encoders(model) else image)]


def _clustered_macs(clustered: Clustered, model: nn.Module) -> tuple[int, int]:
    # Clustering looks at its tokens: on the meta device there are none.
    inputs = torch.randn(1, *cast(tuple[int, ...], clustered.input_shape)[1:], device=next(model.parameters()).device)
    encoder = find_encoder(model)
    with encoder.using(None):
        host = count_macs(model, inputs)
    with encoder.using(clustered.clustering, clustered.reducer.after):
        return host, count_macs(model, inputs)


@contextmanager
def _first_image(reduction: Reduction | Clustered) -> Iterator[list[Tensor]]:
    """An empty list, into which the first reduced pass puts what the backbone is given of one image.

    A model of two stages computes as much as it finds in its image: one of noise would not do.
    """
    found: list[Tensor] = []

    def keep(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        # At its entry, which every way into the backbone goes through; until a pass has been reduced.
        if not reduction.passes:
            (image, *_) = args or kwargs.values()
            found[:] = [image[:1]]

    if not isinstance(reduction, Reduction):
        yield found
        return
    handle = reduction.host.entry.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


def _watch(runner: Runner) -> list[Reduction | Clustered]:
    """The reductions that the hook will attach, which are taken off again when the run ends, or the model's own."""
    reductions: list[Reduction | Clustered] = []
    for hook in runner.hooks:
        if isinstance(hook, FewTokensHook):
            hook.attach_to(runner)
            reductions += [a for a in hook.attachments if isinstance(a, (Reduction, Clustered))]
    own = None if reductions else own_clustering(unwrap(runner.model))
    return [own] if own else reductions
