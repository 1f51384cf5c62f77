"""KITTI, NYUv2 and folders of pairs, in their layouts, with pictures made up."""

import cv2
import numpy as np
import pytest
from depth import DATE, DRIVE, depth, picture, raw, truth, write_kitti, write_nyu
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope

import fewtokens.openmmlab  # noqa: F401
import fewtokens.openmmlab.depth_data  # noqa: F401
from fewtokens.openmmlab.data import check_folders, check_not_empty, check_samples

CUT = [dict(type='LoadImageFromFile'), dict(type='KBCrop')]


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def load(factor, crop=False):
    annotation = dict(type='LoadDepthAnnotation', depth_rescale_factor=factor)
    return [dict(type='LoadImageFromFile'), *([CUT[1]] if crop else []), annotation, dict(type='PackDepthInputs')]


def kitti(folder, **options):
    setting = dict(type='KITTIDepthDataset', data_root=str(folder), ann_file='eigen_test_files.txt')
    return Config(dict(pipeline=load(1 / 256, crop=True), **{**setting, **options}))


FORMS = {
    'drive, number and side': [f'{DATE}/{DRIVE} {n:010} l' for n in (5, 69, 70)],
    'pictures alone': [raw(n) for n in (5, 69, 70)],
    'pairs': [f'{raw(5)} {truth(5)} 721.5377', f'/{raw(69)} val/{truth(69)}', f'{raw(70)} None 721.5377'],
}


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('form', FORMS)
def test_every_form_of_eigens_list_gives_the_same_frames(tmp_path, form):
    write_kitti(tmp_path)
    (tmp_path / 'eigen_test_files.txt').write_text('\n'.join(FORMS[form]) + '\n\n')
    check_folders(kitti(tmp_path))
    if form == 'pairs':
        data = DATASETS.build(kitti(tmp_path))
    else:
        with pytest.warns(UserWarning, match=r"1 of the 3 frames in '.*eigen_test_files.txt' have no depth map"):
            data = DATASETS.build(kitti(tmp_path))
    assert check_samples(data) == []
    found = [data.get_data_info(index) for index in range(len(data))]
    assert [sample['name'] for sample in found] == [raw(5), raw(69)]
    wanted = [f'{tmp_path}/data_depth_annotated/{part}/{truth(n)}' for part, n in (('train', 5), ('val', 69))]
    assert [sample['depth_map_path'] for sample in found] == wanted


def test_a_kitti_sample(tmp_path):
    write_kitti(tmp_path)
    with pytest.warns(UserWarning, match='have no depth map'):
        packed = DATASETS.build(kitti(tmp_path))[0]
    sample = packed['data_samples']
    whole = cv2.imread(str(tmp_path / 'raw' / raw(5)))
    # The benchmark's crop: to the frame's lower end, in the middle.
    assert (packed['inputs'].numpy() == whole[23:375, 13:1229].transpose(2, 0, 1)).all()
    assert sample.crop == (23, 13, 352, 1216) and sample.ori_shape == (375, 1242)
    stored = cv2.imread(sample.depth_map_path, cv2.IMREAD_UNCHANGED)
    assert np.allclose(sample.gt_depth_map.data[0], stored / 256) and 0.1 < (stored > 0).mean() < 0.3


def test_the_crop_cuts_what_is_loaded(tmp_path):
    picture(tmp_path / 'a.png', (370, 1226))
    values = depth(tmp_path / 'a_depth.png', (370, 1226), 256)
    sample = dict(img_path=str(tmp_path / 'a.png'), depth_map_path=str(tmp_path / 'a_depth.png'), seg_fields=[])
    steps = [CUT[0], dict(type='LoadDepthAnnotation', depth_rescale_factor=1 / 256), CUT[1]]
    for step in map(TRANSFORMS.build, steps):
        sample = step(sample)
    assert sample['img'].shape == (352, 1216, 3) and sample['crop'] == (18, 5, 352, 1216)
    assert np.allclose(sample['gt_depth_map'], values[18:, 5:1221])
    picture(tmp_path / 'a.png', (351, 1242))
    with pytest.raises(ValueError, match="a.png' is 1242 x 351 pixels: KBCrop needs 1216 x 352 at least"):
        TRANSFORMS.build(CUT[1])(TRANSFORMS.build(CUT[0])(dict(img_path=str(tmp_path / 'a.png'))))


@pytest.mark.parametrize('line', ['a b c d', '2011_09_26 5 m', 'a.png'])
def test_a_line_that_is_no_frame_is_named(tmp_path, line):
    write_kitti(tmp_path)
    (tmp_path / 'eigen_test_files.txt').write_text(line)
    with pytest.raises(ValueError, match=f"eigen_test_files.txt' .*{line}.* needed"):
        check_not_empty(kitti(tmp_path))


def test_nyu(tmp_path):
    write_nyu(tmp_path)
    setting = Config(dict(type='NYUDepthDataset', data_root=str(tmp_path), pipeline=load(1e-3)))
    check_folders(setting)
    check_not_empty(setting)
    data = DATASETS.build(setting)
    assert check_samples(data) == [] and len(data) == 2
    sample = data[1]['data_samples']
    assert sample.name == 'bathroom/rgb_00001.jpg' and sample.depth_map_path.endswith('bathroom/sync_depth_00001.png')
    assert 2 <= sample.gt_depth_map.data.max() <= 9.01


def test_pairs_of_a_folder_and_of_a_list(tmp_path):
    for name in ('a.jpg', 'deep/b.png'):
        picture(tmp_path / 'images' / name, (20, 30))
        depth(tmp_path / 'depth' / f'{name[:-4]}.png', (20, 30), 256)
    setting = dict(type='DepthDataset', data_root=str(tmp_path), pipeline=load(1 / 256))
    assert [DATASETS.build(setting)[i]['data_samples'].name for i in range(2)] == ['a.jpg', 'deep/b.png']
    (tmp_path / 'list.txt').write_text('deep/b.png deep/b.png\na.jpg None\n')
    listed = DATASETS.build(dict(setting, ann_file='list.txt'))
    assert len(listed) == 1 and listed[0]['data_samples'].name == 'deep/b.png'
    (tmp_path / 'list.txt').write_text('a.jpg')
    with pytest.raises(ValueError, match="has a line 'a.jpg': a picture and its depth map are needed"):
        DATASETS.build(dict(setting, ann_file='list.txt'))


def damage(path, what):
    if what == 'missing':
        path.unlink()
    elif what == 'cut off':
        path.write_bytes(path.read_bytes()[:60])
    else:
        values = {'8 bits': np.full((20, 30), 9, np.uint8), 'empty': np.zeros((20, 30), np.uint16)}
        values |= {'size': np.ones((10, 15), np.uint16), 'colours': np.ones((20, 30, 3), np.uint16)}
        cv2.imwrite(str(path), values[what])


@pytest.mark.parametrize(
    'what, message',
    [
        ('missing', 'a.png is missing'),
        ('cut off', 'a.png cannot be read'),
        ('8 bits', 'a.png has 8 bits a pixel: a PNG of depths has 16'),
        ('empty', 'a.png has no depth: all of it is 0'),
        ('size', 'a.png has depths of 15 x 10 pixels, its picture .*a.jpg is 30 x 20 pixels'),
        ('colours', r'a.png has depths of shape \(20, 30, 3\)'),
    ],
)
def test_a_wrong_depth_map_is_named(tmp_path, what, message):
    picture(tmp_path / 'images/a.jpg', (20, 30))
    depth(tmp_path / 'depth/a.png', (20, 30), 256)
    damage(tmp_path / 'depth/a.png', what)
    data = DATASETS.build(dict(type='DepthDataset', data_root=str(tmp_path), pipeline=load(1 / 256)))
    with pytest.raises(ValueError, match=message):
        check_samples(data)
