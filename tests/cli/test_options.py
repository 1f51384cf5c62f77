import pytest

from fewtokens.cli.options import make_parser


def options(*texts):
    return make_parser('', checkpoint=False).parse_args(['config.py', '--cfg-options', *texts]).cfg_options


def test_a_reducers_text_is_an_option_and_others_are_read_as_ever():
    text = 'SharedUpdate(after=(2, 6), grid=(20, 14))'
    assert options(f'custom_hooks.0.reducer={text}', 'a=[1,(2,b)]', 'c=d', 'e=1,2', f"f='{text}'") == {
        'custom_hooks.0.reducer': text, 'a': [1, (2, 'b')], 'c': 'd', 'e': [1, 2], 'f': text
    }  # fmt: skip


@pytest.mark.parametrize('text', ['a', 'a=Hourglass(after=1, grid=2', 'a=[Hourglass(1, 2)]', 'a=(1,2]', 'a=f(b=1, c=)'])
def test_an_option_that_cannot_be_read_is_named(capsys, text):
    with pytest.raises(SystemExit) as end:
        options('b=1', text)
    assert end.value.code == 2
    assert f'argument --cfg-options: {text!r} ' in capsys.readouterr().err.splitlines()[-1]
