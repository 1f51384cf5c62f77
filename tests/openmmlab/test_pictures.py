import models
import torch

from fewtokens.openmmlab.pictures import network_inputs


def batch(height, width):
    image = torch.arange(3 * height * width).reshape(3, height, width) % 256
    return dict(inputs=[image.to(torch.uint8)], data_samples=[])


def test_a_model_sees_whole_images_or_the_window_in_the_middle(monkeypatch):
    model = models.segmenter()
    whole, what = network_inputs(model, batch(64, 96))
    assert whole.shape == (1, 3, 64, 96) and what == 'a whole image'
    model.test_cfg = dict(mode='slide', crop_size=(32, 64), stride=(16, 16))
    window, what = network_inputs(model, batch(64, 96))
    assert torch.equal(window, whole[..., 16:48, 16:80]) and what == 'one window of the sliding inference'
    small, _ = network_inputs(model, batch(24, 96))
    assert small.shape == (1, 3, 24, 64)
