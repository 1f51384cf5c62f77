import models
import pytest
import timm
import torch
from models import IMAGES
from torch import nn

import fewtokens
from fewtokens.measure.costs import find_sites
from fewtokens.measure.macs import count_macs, forward

PICTURE = IMAGES[:1]


def tiny_timm():
    return timm.models.VisionTransformer(64, 8, embed_dim=32, depth=6, num_heads=4, num_classes=0).eval()


def test_sites_are_where_tokens_are_given():
    sites = find_sites(models.vit(), PICTURE, forward)
    assert (sites.grids, sites.ends) == (((8, 8),) * 6, (6,) * 6)
    assert (sites.prefix, sites.relative_positions) == (1, False)
    swin = find_sites(models.swin(), PICTURE, forward)
    assert (swin.grids, swin.ends) == (((4, 4),) * 10, (2, 2, 6, 6, 6, 6, 8, 8, 10, 10))
    assert (swin.prefix, swin.relative_positions) == (0, True)


def test_the_grid_is_that_of_the_input():
    sites = find_sites(models.vit(), torch.randn(1, 3, 32, 64), forward)
    assert sites.grids == ((4, 8),) * 6


def counted_share(model, reducer):
    full = count_macs(model, PICTURE)
    with fewtokens.attach(model, reducer):
        return count_macs(model, PICTURE) / full


@pytest.mark.parametrize('make', [tiny_timm, models.vit, models.beit, models.swin])
def test_what_blocks_save_is_known_without_running_them(make):
    """Pooling itself takes no MACs."""
    model = make()
    sites = find_sites(model, PICTURE, forward)
    assert sites.total == count_macs(model, PICTURE)
    reducer = fewtokens.AvgPool(3, (3, 4))
    assert (
        sites.share(reducer) == pytest.approx(counted_share(model, reducer), rel=1e-6) and sites.share(reducer) < 0.95
    )


@pytest.mark.parametrize(
    'make, reducer',
    [
        (tiny_timm, fewtokens.BipartiteMerge((1, 2, 4), 9)),
        (tiny_timm, fewtokens.GradualUpdate((1, 2, 4), 0.4)),
        (models.vit, fewtokens.SharedUpdate((1, 3), ((6, 6), (4, 3)), iters=1)),
        (models.swin, fewtokens.SharedUpdate((1, 3, 4, 8), ((3, 3), (3, 3), (2, 3), (2, 2)), iters=1)),
    ],
)
def test_stages_add_up(make, reducer):
    """What merging takes is not in it: in models this small up to a few hundredths."""
    model = make()
    share = find_sites(model, PICTURE, forward).share(reducer)
    assert share < counted_share(model, reducer) < share + 0.05


def test_the_model_stays_as_it_was():
    model = models.vit()
    before, output = models.snapshot(model), models.outputs(model)
    find_sites(model, PICTURE, forward)
    assert models.snapshot(model) == before and torch.equal(models.outputs(model), output)


class NeedsValues(nn.Module):
    """Runs its backbone as often as it finds bright images."""

    def __init__(self):
        super().__init__()
        self.backbone = models.vit()

    def forward(self, images):
        return [self.backbone(images) for _ in range(1 if images.mean().item() < 9 else 2)]


def test_a_model_that_computes_by_what_it_sees_is_looked_at_as_it_runs():
    sites = find_sites(NeedsValues().eval(), PICTURE, forward)
    assert sites.total == find_sites(models.vit(), PICTURE, forward).total
    assert sites.grids == ((8, 8),) * 6


def test_what_cannot_be_looked_at_says_why():
    with pytest.raises(ValueError, match='Linear has no known backbone; known are: .*timm VisionTransformer'):
        find_sites(nn.Linear(3, 3), PICTURE, forward)
    with pytest.raises(ValueError, match=r'VisionTransformer cannot run on inputs of \(1, 4, 64, 64\), float32 on cpu'):
        find_sites(models.vit(), torch.randn(1, 4, 64, 64), forward)
    with pytest.raises(ValueError, match='never ran on what it was given'):
        find_sites(models.vit(), PICTURE, lambda model, inputs: None)
