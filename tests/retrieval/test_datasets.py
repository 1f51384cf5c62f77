"""Each data set in a folder as its authors lay it out, with empty files as videos."""

import csv
import json
import pickle
import zlib

import pytest
from mmengine.registry import DATASETS

import fewtokens.openmmlab  # noqa: F401
import fewtokens.retrieval  # noqa: F401
from fewtokens.retrieval.datasets import MSRVTT


def build(kind, root, split='test', **options):
    return DATASETS.build(dict(type=kind, data_root=str(root), split=split, **options))


def samples(kind, root, split='test', **options):
    """(id, file name, texts) of each sample."""
    dataset = build(kind, root, split, **options)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [(info['video_id'], info['video_path'].removeprefix(f'{root}/'), info['texts']) for info in infos]


def videos(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_csv(path, rows):
    with path.open('w', newline='') as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def msrvtt(tmp_path):
    """Eight videos: 0 to 3 of the official training part, 4 and 5 of the validation part, 6 and 7 of the test part."""
    parts = ['train'] * 4 + ['validate'] * 2 + ['test'] * 2
    data = dict(
        videos=[dict(video_id=f'video{i}', split=part, category=1) for i, part in enumerate(parts)],
        # Captions of one video do not lie together.
        sentences=[dict(video_id=f'video{i}', caption=f'{c} of {i}', sen_id=0) for c in 'abc' for i in range(8)],
    )
    (tmp_path / 'MSRVTT_data.json').write_text(json.dumps(data))
    write_csv(tmp_path / 'MSRVTT_train.9k.csv', [['video_id'], *[[f'video{i}'] for i in range(7)]])
    write_csv(tmp_path / 'MSRVTT_train.7k.csv', [['video_id'], *[[f'video{i}'] for i in range(6)]])
    header = ['key', 'vid_key', 'video_id', 'sentence']
    write_csv(tmp_path / 'MSRVTT_JSFUSION_test.csv', [header, ['ret0', 'msr7', 'video7', 'it swims, then dives']])
    videos(tmp_path / 'MSRVTT_Videos', *[f'video{i}.mp4' for i in range(7)], 'more/video7.webm')
    return tmp_path


SPLITS = {
    ('1k-A', 'train'): [0, 1, 2, 3, 6],
    ('1k-A', 'val'): [4, 5],
    ('1k-A', 'trainval'): [0, 1, 2, 3, 4, 5, 6],
    ('1k-A', 'test'): [7],
    ('7k', 'train'): [0, 1, 2, 3],
    ('7k', 'val'): [4, 5],
    ('7k', 'trainval'): [0, 1, 2, 3, 4, 5],
    ('7k', 'test'): [7],
    ('full', 'train'): [0, 1, 2, 3],
    ('full', 'val'): [4, 5],
    ('full', 'trainval'): [0, 1, 2, 3, 4, 5],
    ('full', 'test'): [6, 7],
}


@pytest.mark.parametrize(('protocol', 'split'), SPLITS)
def test_msrvtt_splits(msrvtt, protocol, split):
    found = samples('MSRVTT', msrvtt, split, protocol=protocol)
    assert [video for video, _, _ in found] == [f'video{i}' for i in SPLITS[protocol, split]]
    for video, path, texts in found:
        number = video.removeprefix('video')
        assert path == ('MSRVTT_Videos/more/video7.webm' if number == '7' else f'MSRVTT_Videos/{video}.mp4')
        one = split == 'test' and protocol != 'full'
        assert texts == (['it swims, then dives'] if one else [f'{c} of {number}' for c in 'abc'])


def test_pairs_are_a_sample_for_each_caption(msrvtt):
    found = samples('MSRVTT', msrvtt, 'val', pairs=True)
    assert [(video, *texts) for video, _, texts in found] == [
        (f'video{i}', f'{c} of {i}') for i in (4, 5) for c in 'abc'
    ]


def test_videos_elsewhere(msrvtt, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    videos(elsewhere, 'all/video7.mp4')
    ((_, path, _),) = samples('MSRVTT', msrvtt, data_prefix=dict(video_path=str(elsewhere)))
    assert path == str(elsewhere / 'all/video7.mp4')


def test_the_first_few(msrvtt):
    assert len(build('MSRVTT', msrvtt, 'trainval', indices=3)) == 3


def test_msvd(tmp_path):
    captions = {'-4wsuPCjDBc_5_15': [['a', 'squirrel', 'eats'], ['it', 'chews']], 'mv89psg6zh4_33_46': [['a', 'bird']]}
    (tmp_path / 'raw-captions.pkl').write_bytes(pickle.dumps(captions))
    (tmp_path / 'test_list.txt').write_text('mv89psg6zh4_33_46\n-4wsuPCjDBc_5_15\n')
    videos(tmp_path / 'MSVD_Videos', '-4wsuPCjDBc_5_15.avi', 'vid1.avi')
    (tmp_path / 'youtube_mapping.txt').write_text('mv89psg6zh4_33_46 vid1\n')
    expected = [
        ('mv89psg6zh4_33_46', 'MSVD_Videos/vid1.avi', ['a bird']),
        ('-4wsuPCjDBc_5_15', 'MSVD_Videos/-4wsuPCjDBc_5_15.avi', ['a squirrel eats', 'it chews']),
    ]
    assert samples('MSVD', tmp_path) == expected
    # Without a mapping the first video keeps the name that it would have.
    (tmp_path / 'youtube_mapping.txt').unlink()
    assert samples('MSVD', tmp_path)[0][1] == 'MSVD_Videos/mv89psg6zh4_33_46.mp4'
    (tmp_path / 'test_list.txt').write_text('none\n')
    with pytest.raises(ValueError, match="has no captions of 'none', which is in .*test_list.txt"):
        build('MSVD', tmp_path)
    (tmp_path / 'raw-captions.pkl').write_bytes(pickle.dumps(zlib.crc32))
    with pytest.raises(ValueError, match='raw-captions.pkl is damaged, or has more .*: zlib.crc32 is refused'):
        build('MSVD', tmp_path)


def test_lsmdc(tmp_path):
    clips = ['0001_American_Beauty_00.00.51.926-00.00.54.129', '0002_As_Good_00.01.00.000-00.01.02.000']
    times = ['00.00.51', '00.00.54', '00.00.51', '00.00.54']
    lines = [
        '\t'.join([clips[i], *times, text]) for i, text in ((0, 'SOMEONE sits.'), (1, 'A car.'), (0, 'She waits.'))
    ]
    (tmp_path / 'LSMDC16_annos_training.csv').write_text('\n'.join(lines) + '\n')
    videos(tmp_path / 'LSMDC_Videos', f'0001_American_Beauty/{clips[0]}.avi', f'{clips[1]}.mp4')
    assert samples('LSMDC', tmp_path, 'train') == [
        (clips[0], f'LSMDC_Videos/0001_American_Beauty/{clips[0]}.avi', ['SOMEONE sits.', 'She waits.']),
        (clips[1], f'LSMDC_Videos/{clips[1]}.mp4', ['A car.']),
    ]
    (tmp_path / 'LSMDC16_annos_val.csv').write_text(lines[0] + '\nonly, commas\n')
    with pytest.raises(ValueError, match='LSMDC16_annos_val.csv: line 2 has 1 columns, not 6'):
        build('LSMDC', tmp_path, 'val')


def test_activitynet_paragraphs_and_validation(tmp_path):
    ids = [f'v_{i:011d}' for i in range(100)]
    entry = dict(duration=9.5, timestamps=[[0, 4], [4, 9]], sentences=['A man runs. ', ' He falls.'])
    (tmp_path / 'train.json').write_text(json.dumps(dict.fromkeys(ids, entry)))
    (tmp_path / 'val_1.json').write_text(json.dumps({'v_test': entry}))
    videos(tmp_path / 'Activity_Videos', 'test.mkv', f'{ids[0]}.mp4', *(f'{video[2:]}.mp4' for video in ids[1:]))
    assert samples('ActivityNet', tmp_path) == [('v_test', 'Activity_Videos/test.mkv', ['A man runs. He falls.'])]
    train, val, both = (samples('ActivityNet', tmp_path, split) for split in ('train', 'val', 'trainval'))
    assert [video for video, _, _ in val] == [video for video in ids if zlib.crc32(video.encode()) % 20 == 0]
    assert len(val) > 0 and sorted(train + val) == sorted(both) and len(both) == 100
    assert both[0][1] == f'Activity_Videos/{ids[0]}.mp4' and both[1][1] == f'Activity_Videos/{ids[1][2:]}.mp4'


def test_didemo(tmp_path):
    moments = [('b@N0_1.mov', 'a dog'), ('a@N0_2.avi', 'a cat '), ('b@N0_1.mov', 'it barks')]
    (tmp_path / 'val_data.json').write_text(json.dumps([dict(video=v, description=d, times=[]) for v, d in moments]))
    videos(tmp_path / 'DiDeMo_Videos', 'b@N0_1.mp4', 'a@N0_2.avi')
    assert samples('DiDeMo', tmp_path, 'val') == [
        ('b@N0_1.mov', 'DiDeMo_Videos/b@N0_1.mp4', ['a dog it barks']),
        ('a@N0_2.avi', 'DiDeMo_Videos/a@N0_2.avi', ['a cat']),
    ]
    assert build('DiDeMo', tmp_path, 'val').get_data_info(0)['max_seconds'] == 30


def test_own_videos(tmp_path):
    rows = [['caption', 'video'], ['a dog, running', 'a.mp4'], ['a cat', 'more/b.mov'], [' it barks ', 'a.mp4']]
    write_csv(tmp_path / 'captions.csv', rows)
    text = (tmp_path / 'captions.csv').read_text()
    (tmp_path / 'captions.csv').write_text('\ufeff' + text)  # as Excel writes it
    videos(tmp_path, 'a.mp4', 'more/b.mov')
    expected = [('a.mp4', 'a.mp4', ['a dog, running', 'it barks']), ('more/b.mov', 'more/b.mov', ['a cat'])]
    assert samples('VideoFolder', tmp_path) == expected
    write_csv(tmp_path / 'train.csv', [['video', 'caption'], ['b.mov', 'a cat']])
    options = dict(ann_file='train.csv', data_prefix=dict(video_path='more'))
    assert samples('VideoFolder', tmp_path, **options) == [('b.mov', 'more/b.mov', ['a cat'])]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('file,caption\na.mp4,a cat\n', "has no column 'video': its first line must name it, and has file, caption"),
        ('', "has no column 'video'.* has nothing"),
        ('video,caption\n', 'has no line but the first'),
        ('video,caption\na.mp4,a cat\na.mp4,\n', 'line 3 has no caption'),
        ('video,caption\na.mp4\n', 'line 2 has no caption'),
        ('video,caption\na.mp4,caf\udce9\n', 'is no csv file in UTF-8'),
    ],
)
def test_wrong_csv(tmp_path, content, message):
    videos(tmp_path, 'a.mp4')
    (tmp_path / 'captions.csv').write_text(content, errors='surrogateescape')
    with pytest.raises(ValueError, match=f'captions.csv:? {message}'):
        build('VideoFolder', tmp_path)


@pytest.mark.parametrize('content', ['{"videos": [', '[]', '{}', '{"videos": []}'])
def test_wrong_json(msrvtt, content):
    (msrvtt / 'MSRVTT_data.json').write_text(content)
    with pytest.raises(ValueError, match=r'MSRVTT_data.json is (damaged|not a dict)'):
        build('MSRVTT', msrvtt, 'train')


@pytest.mark.parametrize(
    'kind, name, content, message',
    [
        ('ActivityNet', 'val_1.json', '{"v_a": {"sentence": []}}', "entry 'v_a' has no 'sentences' that is a list"),
        ('ActivityNet', 'val_1.json', '{"v_a": ["b"]}', "entry 'v_a'"),
        ('ActivityNet', 'val_1.json', '5', 'is not a dict'),
        ('DiDeMo', 'test_data.json', '[{"video": "a.mp4", "description": null}]', "entry 0 has no 'description'"),
        ('MSRVTT', 'MSRVTT_data.json', '{"videos": [{"video_id": "a"}], "sentences": []}', "entry 0 has no 'split'"),
        ('MSRVTT', 'MSRVTT_data.json', '{"videos": [], "sentences": ["a"]}', "entry 0 has no 'video_id'"),
    ],
)
def test_wrong_entries(tmp_path, kind, name, content, message):
    (tmp_path / DATASETS.get(kind).VIDEOS).mkdir()
    (tmp_path / name).write_text(content)
    options = dict(protocol='full') if kind == 'MSRVTT' else {}
    with pytest.raises(ValueError, match=f'{name}.* {message}'):
        build(kind, tmp_path, **options)


MISSING = dict(
    MSRVTT=('MSRVTT_JSFUSION_test.csv', 'msrvtt_data.zip'),
    MSVD=('test_list.txt', 'msvd_data.zip'),
    LSMDC=('LSMDC16_challenge_1000_publictect.csv', 'describingmovies'),
    ActivityNet=('val_1.json', 'captions.zip'),
    DiDeMo=('test_data.json', 'LocalizingMoments'),
    VideoFolder=('captions.csv', 'header video,caption'),
)


@pytest.mark.parametrize('kind', MISSING)
def test_missing_annotations_are_named_with_their_source(tmp_path, kind):
    name, source = MISSING[kind]
    with pytest.raises(FileNotFoundError, match=f"{kind} needs '.*/{name}', which is missing: .*{source}"):
        build(kind, tmp_path)


def test_links_between_folders_of_videos(msrvtt, tmp_path):
    folder, expected = msrvtt / 'MSRVTT_Videos', samples('MSRVTT', msrvtt, 'train')
    for name in 'abcdef':
        (folder / name).mkdir()
        for other in 'abcdef':
            (folder / name / f'to {other}').symlink_to(folder / other)
    assert samples('MSRVTT', msrvtt, 'train') == expected
    folder.rename(tmp_path / 'elsewhere')
    folder.mkdir()
    (folder / 'linked').symlink_to(tmp_path / 'elsewhere')
    found = samples('MSRVTT', msrvtt, 'train')
    assert [sample[1] for sample in found] == [sample[1].replace('Videos/', 'Videos/linked/') for sample in expected]


def test_missing_videos(msrvtt):
    (msrvtt / 'MSRVTT_Videos/video0.mp4').unlink()
    assert samples('MSRVTT', msrvtt, 'train')[0][1] == 'MSRVTT_Videos/video0.mp4', 'it keeps its place'
    for path in (msrvtt / 'MSRVTT_Videos').rglob('*.*'):
        path.unlink()
    with pytest.raises(FileNotFoundError, match='has none of the 5 videos of the train split of MSRVTT: .*MSRVTT.zip'):
        build('MSRVTT', msrvtt, 'train')
    (msrvtt / 'MSRVTT_Videos/more').rmdir()
    (msrvtt / 'MSRVTT_Videos').rmdir()
    with pytest.raises(FileNotFoundError, match="MSRVTT needs '.*MSRVTT_Videos', which is missing"):
        MSRVTT(msrvtt, lazy_init=True).check_files()


def test_wrong_options(tmp_path):
    with pytest.raises(ValueError, match="split 'dev' of MSVD must be one of train, val, test"):
        build('MSVD', tmp_path, 'dev')
    with pytest.raises(ValueError, match="protocol '1k' of MSRVTT must be one of 1k-A, 7k, full"):
        build('MSRVTT', tmp_path, protocol='1k')
