"""The photographs that scikit-image and scikit-learn carry in their wheels."""

import numpy as np

CLASSES = ('brick', 'grass', 'gravel', 'coffee', 'chelsea', 'hubble', 'rocket', 'astronaut', 'flower', 'china')
"""A class is the photograph that a surface is cut from."""


def load_textures() -> list[np.ndarray]:
    """The photographs in the order of `CLASSES`, each [H, W, 3] uint8, RGB.

    Raises:
        ImportError: scikit-image or scikit-learn is not installed.
    """
    try:
        import skimage.data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ImportError(f'the scenes need {error.name}: pip install "fewtokens[demo]"') from error
    bundled = dict(
        brick=skimage.data.brick,
        grass=skimage.data.grass,
        gravel=skimage.data.gravel,
        coffee=skimage.data.coffee,
        chelsea=skimage.data.chelsea,
        hubble=skimage.data.hubble_deep_field,
        rocket=skimage.data.rocket,
        astronaut=skimage.data.astronaut,
        flower=lambda: load_sample_image('flower.jpg'),
        china=lambda: load_sample_image('china.jpg'),
    )
    return [_as_rgb(bundled[name]()) for name in CLASSES]


def _as_rgb(picture: np.ndarray) -> np.ndarray:
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    return np.ascontiguousarray(picture[..., :3])
