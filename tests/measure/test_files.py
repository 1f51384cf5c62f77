import json
import os
from pathlib import Path

import pytest

from fewtokens.measure.files import naming_full_disk, shown, write_json, write_together, write_whole


@pytest.mark.parametrize(
    'name, expected',
    [
        ('a.mp4', 'a.mp4'),
        ('été\u00a0 1 – 猫\u3000的.mp4', 'été\u00a0 1 – 猫\u3000的.mp4'),
        ('\U0001f469\u200d\U0001f52c.mp4', '\U0001f469\u200d\U0001f52c.mp4'),
        ('it\'s a \\ and a "b"', 'it\'s a \\ and a "b"'),
        ('\x1b[2J\x1b]0;title\x07.mp4', r'\x1b[2J\x1b]0;title\x07.mp4'),
        ('two\nlines\r\t\x00\x7f', r'two\nlines\r\t\x00\x7f'),
        ('\x85\x9b31m', r'\x85\x9b31m'),
        ('\u2028\u2029', r'\u2028\u2029'),
        ('\u202e4pm.exe\u2066\u2069\u200e\ufeff', r'\u202e4pm.exe\u2066\u2069\u200e\ufeff'),
        (os.fsdecode(b'caf\xe9.mp4'), 'caf?.mp4'),
    ],
)
def test_names_that_can_be_shown(name, expected):
    assert shown(name) == expected == shown(shown(name))
    assert shown(name).encode() and len(shown(name).splitlines()) == 1


@pytest.mark.parametrize('together', [False, True])
@pytest.mark.parametrize(
    'failure, message',
    [
        (OSError(28, 'No space left on device'), "[Errno 28] No space left on device: '{}'"),
        (OSError('7 requested and 0 written'), "'{}' cannot be written: 7 requested and 0 written"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, monkeypatch, together, failure, message):
    path = tmp_path / 'new/a.json'
    write = Path.write_bytes

    def until_full(self, content):
        if content:
            raise failure
        write(self, content)

    monkeypatch.setattr(Path, 'write_bytes', until_full)
    with pytest.raises(OSError) as caught:
        if together:
            write_together({tmp_path / 'b': b'', path: b'a', tmp_path / 'c': b'a'})
        else:
            write_whole(path, lambda temporary: temporary.write_bytes(b'a'))
    assert str(caught.value) == message.format(path)
    assert not any(file.is_file() for file in tmp_path.rglob('*'))


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / 'a').mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_together({tmp_path / 'b': b'', tmp_path / 'a': b''})
    assert caught.value.filename == str(tmp_path / 'a')


def test_what_a_file_is_made_of_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / 'a', lambda temporary: temporary.write_bytes((tmp_path / 'source').read_bytes()))
    assert caught.value.filename == str(tmp_path / 'source')


def test_a_full_disk_is_named_where_others_write():
    with (
        pytest.raises(OSError, match=r"No space left on device: 'work or out.pkl'"),
        naming_full_disk('work', 'out.pkl', None),
    ):
        raise OSError(28, 'No space left on device')
    for error in (OSError(28, 'full', 'a.png'), OSError(5, 'bad disk'), OSError('odd')):
        with pytest.raises(OSError) as caught, naming_full_disk('work'):
            raise error
        assert caught.value is error


def test_anything_can_be_shown(tmp_path):
    assert shown(tmp_path / 'a\nb') == f'{tmp_path}/a\\nb' and shown(OSError(28, 'full', 'a\x1b')).endswith(r"'a\x1b'")


@pytest.mark.parametrize('failure', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_an_old_file_survives_a_failed_write(tmp_path, failure):
    path = tmp_path / 'tradeoff.json'
    write_json(path, dict(rows=[1]))

    def write(temporary):
        temporary.write_text('half')
        raise failure

    with pytest.raises(type(failure)) as caught:
        write_whole(path, write)
    assert str(path) in str(caught.value) or not isinstance(failure, OSError)
    assert json.loads(path.read_text()) == dict(rows=[1]) and list(tmp_path.iterdir()) == [path]
