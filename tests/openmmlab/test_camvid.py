"""CamVid in the layout of SegNet's tutorial, with pictures made up."""

import cv2
import numpy as np
import pytest
from camvid import write_camvid
from mmengine.config import Config
from mmengine.registry import DATASETS

import fewtokens.openmmlab  # noqa: F401
from fewtokens.openmmlab.camvid import CamVidDataset
from fewtokens.openmmlab.data import check_folders, check_not_empty, check_samples

LOAD = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations'), dict(type='mmseg.PackSegInputs')]


def setting(folder, split='train', **options):
    prefix = dict(img_path=split, seg_map_path=f'{split}annot')
    options = dict(data_root=str(folder), data_prefix=prefix, pipeline=LOAD, **options)
    return Config(dict(type='mmseg.CamVidDataset', **options))


def labels_of(sample):
    return set(np.unique(sample['data_samples'].gt_sem_seg.data))


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_pictures_of_either_kind_are_found_and_void_is_ignored(tmp_path, suffix):
    write_camvid(tmp_path, suffix=suffix)
    for split, count in (('train', 4), ('val', 2), ('test', 2)):
        data = DATASETS.build(setting(tmp_path, split))
        assert len(data) == count == len(list((tmp_path / split).iterdir()))
        assert set.union(*map(labels_of, data)) == {*range(11), 255}
        check_folders(setting(tmp_path, split))
        check_not_empty(setting(tmp_path, split))
        assert check_samples(data) == []
    assert data.metainfo['classes'][3] == 'road' and len(data.metainfo['palette']) == 11


def test_some_classes_alone(tmp_path):
    write_camvid(tmp_path)
    data = DATASETS.build(setting(tmp_path, metainfo=dict(classes=('car', 'road'))))
    assert set.union(*map(labels_of, data)) == {0, 1, 255}
    assert data.metainfo['palette'] == [[64, 0, 128], [128, 64, 128]]
    raw = cv2.imread(data[0]['data_samples'].seg_map_path, cv2.IMREAD_UNCHANGED)
    assert ((data[0]['data_samples'].gt_sem_seg.data[0].numpy() == 0) == (raw == 8)).all()


@pytest.mark.parametrize('missing', ['train', 'trainannot'])
def test_a_missing_folder_is_named(tmp_path, missing):
    write_camvid(tmp_path)
    (tmp_path / missing).rename(tmp_path / 'elsewhere')
    with pytest.raises(FileNotFoundError, match=f"no '{tmp_path}/{missing}': set data_root"):
        check_folders(setting(tmp_path))


def test_an_empty_folder_is_named(tmp_path):
    write_camvid(tmp_path)
    for file in (tmp_path / 'val').iterdir():
        file.rename(file.with_suffix('.bmp'))
    with pytest.raises(ValueError, match=r"val': they end in '.png', the img_suffix; there is 2 .bmp"):
        check_not_empty(setting(tmp_path, 'val'))


def test_pictures_of_both_kinds_are_refused_unless_one_is_chosen(tmp_path):
    write_camvid(tmp_path)
    write_camvid(tmp_path, suffix='.jpg')
    with pytest.raises(ValueError, match='ending in .png and in .jpg: choose by img_suffix'):
        check_not_empty(setting(tmp_path))
    assert len(DATASETS.build(setting(tmp_path, img_suffix='.jpg'))) == 4


@pytest.mark.parametrize('label', [12, 200])
def test_an_impossible_label_is_named(tmp_path, label):
    write_camvid(tmp_path)
    file = tmp_path / 'valannot' / '1.png'
    cv2.imwrite(str(file), np.full((36, 48), label, np.uint8))
    with pytest.raises(ValueError, match=rf'1.png has the label {label}: 11 classes have the labels 0 to 11, and 255'):
        check_samples(DATASETS.build(setting(tmp_path, 'val')))


def test_a_picture_without_labels_is_named(tmp_path):
    write_camvid(tmp_path)
    (tmp_path / 'valannot' / '0.png').unlink()
    with pytest.raises(ValueError, match='valannot/0.png is missing'):
        check_samples(DATASETS.build(setting(tmp_path, 'val')))


def test_labels_in_colours_are_refused(tmp_path):
    """As the original CamVid has them."""
    write_camvid(tmp_path)
    cv2.imwrite(str(tmp_path / 'valannot' / '0.png'), np.full((36, 48, 3), 128, np.uint8))
    with pytest.raises(ValueError, match=r'0.png has labels of shape \(36, 48, 3\)'):
        check_samples(DATASETS.build(setting(tmp_path, 'val')))


def test_a_list_of_names_chooses_pictures(tmp_path):
    write_camvid(tmp_path)
    (tmp_path / 'some.txt').write_text('1\n3\n')
    data = CamVidDataset(**{k: v for k, v in setting(tmp_path, ann_file='some.txt').items() if k != 'type'})
    assert [data.get_data_info(i)['img_path'] for i in range(2)] == [f'{tmp_path}/train/{i}.png' for i in (1, 3)]
