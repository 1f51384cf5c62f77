"""What is wrong with a sample of mmseg is found before it is scored, and named."""

import shutil

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.data import check_samples, check_test_data, check_training

LABEL, PICTURE = 'annotations/validation/00001.png', 'images/validation/00001.jpg'


@pytest.fixture
def data(tmp_path, scenes):
    """Three pictures of 64 x 64 with labels of ten classes, as ADE20K has them: 1 to 10, and 0 for none."""
    shutil.copytree(scenes, tmp_path / 'data')
    return tmp_path / 'data'


@pytest.fixture
def build(config_file, data):
    def dataset(split='test', **options):
        setting = load_config(config_file)[f'{split}_dataloader'].dataset
        setting.update(data_root=str(data), **options)
        return DATASETS.build(setting)

    return dataset


def fails(dataset, *messages, file=LABEL):
    with pytest.raises(ValueError) as caught:
        check_samples(dataset)
    text = str(caught.value)
    assert all(message in text for message in (file, *messages)) and '\n' not in text, text
    assert text.endswith('; --skip-unreadable leaves such samples out and counts them')
    (left_out,) = check_samples(dataset, skip=True)
    assert left_out.endswith(PICTURE) and len(dataset) == 2


def labels_with(*values, dtype=np.uint8):
    labels = np.full((64, 64), 3, dtype)
    labels[0, : len(values)] = values
    return labels


def write(path, labels, **options):
    Image.fromarray(labels).save(path, **options)


def test_labels_that_are_classes_or_ignored_are_fine(data, build):
    write(data / LABEL, labels_with(0, 1, 10, 255))
    assert check_samples(build()) == []


@pytest.mark.parametrize('values, found', [([11, 200, 255], '11, 200'), ([254], '254'), (range(20, 30), '20, 21, 22')])
def test_labels_out_of_range(data, build, values, found):
    write(data / LABEL, labels_with(*values))
    said = f'has the label {found}', '10 classes have the labels 1 to 10, and 0 or 255 where a pixel is ignored'
    fails(build(), *said)


def test_without_reduce_zero_label_the_first_class_is_0(data, build):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    write(data / LABEL, labels_with(0, 9, 255))
    for number in (0, 2):
        write(data / f'annotations/validation/0000{number}.png', labels_with(0, 9, 255))
    options = dict(reduce_zero_label=False, pipeline=pipeline)
    assert check_samples(build(**options)) == []
    write(data / LABEL, labels_with(10))
    fails(build(**options), 'has the label 10: 10 classes have the labels 0 to 9, and 255 where')
    assert check_samples(build(**options, ignore_index=10)) == []


def test_classes_that_are_left_out_are_known_labels(data, build):
    """Of ADE20K's 150 classes two are chosen: the others are ignored, more is wrong."""
    options = dict(type='ADE20KDataset', metainfo=dict(classes=('wall', 'sky')))
    write(data / LABEL, labels_with(0, 150))
    assert check_samples(build(**options)) == []
    write(data / LABEL, labels_with(151))
    fails(build(**options), 'has the label 151: 2 classes have the labels 1 to 150')


@pytest.mark.parametrize('dtype, values, found', [
    (np.uint16, [256 + 3], '259'), (np.uint16, [65535, 300], '300, 65535'), (np.int32, [-1, 70000], '-1, 70000'),
    (np.float32, [2.5, np.nan], '2.5, nan'), (np.float32, [-1, 1e6], '-1, 1000000'),
])  # fmt: skip
def test_labels_that_eight_bits_cannot_hold(data, build, dtype, values, found):
    """mmseg keeps the lower eight bits: 259 would be 3."""
    suffix = '.png' if dtype == np.uint16 else '.tif'
    for number in range(3):
        write((data / f'annotations/validation/0000{number}').with_suffix(suffix), labels_with(dtype=dtype))
    dataset = build(seg_map_suffix=suffix)
    assert check_samples(dataset) == []
    write((data / LABEL).with_suffix(suffix), labels_with(*values, dtype=dtype))
    fails(dataset, f'has the label {found}: ', file=LABEL.replace('.png', suffix))


def test_palettes_are_labels_and_colours_are_not(data, build):
    picture = Image.fromarray(labels_with(10, 0))
    palette = picture.convert('P')
    palette.putpalette([value for colour in range(256) for value in (colour, 0, 255 - colour)])
    palette.save(data / LABEL)
    assert check_samples(build()) == []
    for mode, channels in (('RGB', 3), ('LA', 2), ('RGBA', 4)):
        picture.convert(mode).save(data / LABEL)
        fails(build(), f'has labels of shape (64, 64, {channels}): they must be [height, width], one number a pixel')


def test_a_mask_of_one_bit_is_labels(data, build):
    write(data / LABEL, labels_with() > 0)
    assert check_samples(build()) == []


@pytest.mark.parametrize('resize', [False, True])
def test_labels_of_another_size(data, build, resize):
    """Of the picture as it is in its file: mmseg's test pipelines load labels after they have resized it."""
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 96))]
    steps += [dict(type='LoadAnnotations', reduce_zero_label=True), dict(type='PackSegInputs')]
    options = dict(pipeline=steps) if resize else {}
    assert check_samples(build(**options)) == []
    write(data / LABEL, labels_with()[:48])
    fails(build(**options), 'has labels of 64 x 48 pixels, its picture ', f'{PICTURE} is 64 x 64 pixels; ')


def test_pictures_turned_by_exif(data, build):
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[274] = orientation
        write(data / PICTURE, np.zeros((40, 64, 3), np.uint8), exif=exif)
        write(data / LABEL, labels_with()[:40])
        if orientation == 1:
            assert check_samples(build()) == []
    fails(build(), 'has labels of 64 x 40 pixels', 'is 40 x 64 pixels; it is turned as its EXIF orientation says: ')
    as_stored = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')
    assert check_samples(build(pipeline=[as_stored, *build().pipeline.transforms[1:]])) == []


@pytest.mark.parametrize('content', [b'', b'no picture', b'cut'])
def test_damaged_labels_and_pictures_are_named(data, build, content):
    for file in (LABEL, PICTURE):
        whole = (data / file).read_bytes()
        (data / file).write_bytes(whole[:60] if content == b'cut' else content)
        fails(build(), 'cannot be read (', file=file)
        (data / file).write_bytes(whole)


def test_augmented_tests_have_labels_too(data, build):
    steps = [[dict(type='Resize', scale_factor=1.0), dict(type='Resize', scale_factor=1.5)]]
    steps += [[dict(type='LoadAnnotations', reduce_zero_label=True)], [dict(type='PackSegInputs')]]
    pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=steps)]
    assert check_samples(build(pipeline=pipeline)) == []
    write(data / LABEL, labels_with(11))
    fails(build(pipeline=pipeline), 'has the label 11')


def test_names_that_steer_a_terminal_are_escaped(data, build):
    for file in (LABEL, PICTURE):
        (data / file).rename((data / file).with_stem('a\n\x1b[31m'))
    write(data / LABEL.replace('00001', 'a\n\x1b[31m'), labels_with(11))
    with pytest.raises(ValueError) as caught:
        check_samples(build())
    assert r'validation/a\n\x1b[31m.png has the label 11' in str(caught.value)


@pytest.mark.parametrize('wrapped', [False, True])
def test_training_names_what_it_loads(data, build, wrapped):
    part = dataset = build('train')
    if wrapped:
        dataset = DATASETS.build(dict(type='RepeatDataset', dataset=part, times=2))
    assert check_training(dataset) == []
    assert dataset[1]['data_samples'].gt_sem_seg.data.shape == (1, 64, 64)
    write(data / 'annotations/training/00001.png', labels_with(11))
    with pytest.raises(ValueError, match=r'training/00001.png has the label 11: .*; --skip-unreadable leaves'):
        dataset[1]
    (data / 'annotations/training/00002.png').unlink()
    with pytest.raises(ValueError, match='00002.png is missing; --skip'):
        check_training(build('train'))
    assert len(check_training(build('train'), skip=True)) == 2


def test_folders_without_pictures(data, config_file):
    def check(**options):
        config = load_config(config_file)
        config.test_dataloader.dataset.update(data_root=str(data), **options)
        check_test_data(config)

    check()
    folder = data / 'images/validation'
    files = sorted(folder.glob('*.jpg'))
    files[0].rename(files[0].with_suffix('.JPG'))
    with pytest.warns(UserWarning, match=r"1 files in '.*' are left out, such as '00000.JPG': pictures end in '.jpg'"):
        check()
    for file in files[1:]:
        file.rename(file.with_suffix('.JPG'))
    (folder / '._00000.jpg').write_bytes(b'of macOS')
    (folder / 'notes').write_text('')
    with pytest.raises(ValueError, match=r"no pictures in '.*images/validation': they end in '.jpg', the img_suffix; "
                       'there is 3 .JPG, 1 notes'):  # fmt: skip
        check()
    check(img_suffix='.JPG')
    names = data / 'names.txt'
    names.write_text('00000\n')
    check(ann_file=str(names))
    names.write_text('')
    with pytest.raises(ValueError, match=r"the data set has no samples in '.*names.txt'"):
        check(ann_file=str(names))
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ValueError, match='there is nothing$'):
        check()
