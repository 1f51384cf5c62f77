import os

import pytest

from fewtokens.measure.files import shown


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


def test_anything_can_be_shown(tmp_path):
    assert shown(tmp_path / 'a\nb') == f'{tmp_path}/a\\nb' and shown(OSError(28, 'full', 'a\x1b')).endswith(r"'a\x1b'")
