import warnings
from types import SimpleNamespace

import pytest

from fewtokens.measure import progress
from fewtokens.measure.progress import progress_bar


class Terminal:
    def __init__(self):
        self.text = ''

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    made = Terminal()
    monkeypatch.setattr(progress, 'sys', SimpleNamespace(stderr=made))
    return made


def test_a_bar_says_what_is_going_on_in_one_line(terminal):
    with progress_bar(2, 'timing') as bar:
        bar.update(2)
    assert terminal.text.endswith('\n') and terminal.text.count('\n') == 1
    first, last = terminal.text.strip().split('\r')
    assert first.startswith('timing [ ') and last.startswith('timing [>>>') and '] 2/2, elapsed: 0s' in last
    assert len(last) < 80


def test_a_long_name_has_a_line_of_its_own(terminal):
    with progress_bar(1, 'evaluating ' + 50 * 'x'):
        pass
    first, bar, rest = terminal.text.split('\n')
    assert first == f'evaluating {50 * "x"}:' and bar.startswith('\r[ ') and len(bar) < 80 and rest == ''


def test_what_is_no_terminal_gets_lines(capsys, monkeypatch):
    with progress_bar(3, 'timing') as bar:
        bar.update()
        monkeypatch.setattr(progress, 'APART', 0)  # as if a minute had gone by
        bar.update()
        bar.update()
    assert capsys.readouterr().err == 'timing: 2 of 3 in 0 s\ntiming: 3 of 3 in 0 s\n'


def test_warnings_wait_for_the_end_of_the_line(terminal, recwarn):
    with progress_bar(2, 'timing') as bar:
        for _ in range(2):
            warnings.warn('odd', UserWarning, stacklevel=1)
            bar.update()
        assert len(recwarn) == 0
    assert {str(warning.message) for warning in recwarn} == {'odd'}


def test_an_error_has_a_line_of_its_own_and_loses_no_warning(terminal, recwarn):
    with pytest.raises(ValueError), progress_bar(2, 'timing'):
        warnings.warn('odd', UserWarning, stacklevel=1)
        raise ValueError
    assert terminal.text.endswith('\n') and str(recwarn[0].message) == 'odd'
