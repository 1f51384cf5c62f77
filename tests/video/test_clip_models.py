import pytest

from fewtokens.video.clip_models import trained_options


@pytest.mark.parametrize(
    ('name', 'pretrained', 'quick'),
    [
        ('ViT-B-32', 'openai', True),
        ('ViT-B-32', 'metaclip_400m', True),
        ('ViT-L-14', 'dfn2b', True),
        ('ViT-B-32', 'laion2b_s34b_b79k', False),
        ('ViT-B-32', 'weights/openai.pt', False),
        ('ViT-B-32', None, False),
    ],
)
def test_weights_that_were_trained_with_quick_gelu_get_it(name, pretrained, quick):
    assert trained_options(name, pretrained) == (dict(quick_gelu=True) if quick else {})
