import numpy as np
import torch

import fewtokens
from fewtokens.measure.variants import Variant, make_variants
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.predict import look, predict
from fewtokens.openmmlab.test_set import TestSet


def test_images_of_several_sizes_go_through_one_by_one(config_file, checkpoint, tmp_path):
    config = load_config(config_file)
    model = build_model(config, checkpoint)
    images = list(TestSet(config, str(checkpoint), tmp_path, 1).first_images(3))
    images[1]['inputs'] = [images[1]['inputs'][0][:, :48]]
    images[1]['data_samples'][0].set_metainfo(dict(img_shape=(48, 64), ori_shape=(48, 64)))
    together = {key: [image[key][0] for image in images] for key in ('inputs', 'data_samples')}
    (host, *_) = make_variants({})
    with torch.no_grad():
        labels = [sample.pred_sem_seg.data for sample in predict(model, host, together)]
        alone = [predict(model, host, image)[0].pred_sem_seg.data for image in images]
    assert [tuple(found.shape) for found in labels] == [(1, 64, 64), (1, 48, 64), (1, 64, 64)]
    assert all(torch.equal(a, b) for a, b in zip(labels, alone))


def test_drawn_clusters_are_those_of_the_very_forward_pass(config_file, checkpoint, tmp_path):
    config = load_config(config_file)
    model = build_model(config, checkpoint)
    reducer = fewtokens.SharedUpdate(2, 4)
    for image in TestSet(config, str(checkpoint), tmp_path, 3).first_images(3):
        (seen,) = look(model, Variant('row', reducer, sdpa=False), image)
        with fewtokens.attach(model, reducer) as attachment, torch.no_grad():
            (sample,) = predict(model, Variant('plain', sdpa=False), image)
        assert np.array_equal(seen.clusters, attachment.cluster_map[0].numpy())
        assert torch.equal(seen.sample.pred_sem_seg.data, sample.pred_sem_seg.data)
