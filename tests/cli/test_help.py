import argparse
import runpy
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
PARSERS = sorted(file.name for file in TOOLS.glob('*.py') if file.name != 'demo.py')


class Asked(Exception):
    pass


def parsers_of(tool: str, monkeypatch) -> list[argparse.ArgumentParser]:
    """A tool's parser, and those of its commands."""
    found = []

    def stop(parser, *args):
        found.append(parser)
        raise Asked

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    monkeypatch.setattr(sys, 'argv', [tool])
    with pytest.raises(Asked):
        runpy.run_path(str(TOOLS / tool), run_name='__main__')
    commands = [action for action in found[0]._actions if isinstance(action, argparse._SubParsersAction)]
    return found + [parser for action in commands for parser in action.choices.values()]


@pytest.mark.parametrize('tool', PARSERS)
def test_every_option_is_explained_and_its_default_is_told_once(tool, monkeypatch):
    monkeypatch.setenv('COLUMNS', '400')
    for parser in parsers_of(tool, monkeypatch):
        actions = [a for a in parser._actions if a.help != argparse.SUPPRESS and a.dest != 'help']
        if any(isinstance(action, argparse._SubParsersAction) for action in actions):
            continue
        assert [action.dest for action in actions if not action.help] == []
        defaults = [action.default for action in actions if action.option_strings]
        defaults = [value for value in defaults if value is not None and value is not False and value != []]
        text = ' '.join(parser.format_help().split())
        assert [value for value in defaults if f'(default: {value})' not in text] == []
        assert text.count('(default: ') == len(defaults)
