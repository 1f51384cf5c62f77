"""The documentation's own code works, and its commands exist."""

import argparse
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

import fewtokens
import fewtokens.ops
import fewtokens.video
import fewtokens_command
from fewtokens.hosts import FAMILIES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```$', page.read_text(encoding='utf-8'), re.M | re.S)


def names(pages):
    return [page.relative_to(ROOT).as_posix() for page in pages]


WITH_CODE = [page for page in PAGES if blocks(page, 'python')]


@pytest.fixture
def forgotten(monkeypatch):
    """What a page registers is not known to later tests."""
    with suppress(ImportError):  # pages of timm run without OpenMMLab
        from fewtokens.openmmlab.registry import REDUCERS

        monkeypatch.setattr(REDUCERS, '_module_dict', dict(REDUCERS.module_dict))
    families = list(FAMILIES)
    yield
    FAMILIES[:] = families


@pytest.mark.usefixtures('forgotten')
@pytest.mark.parametrize('page', WITH_CODE, ids=names(WITH_CODE))
def test_python_on_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = dict(__name__='page')
    for number, code in enumerate(blocks(page, 'python')):
        exec(compile(code, f'{page.name}, block {number + 1}', 'exec'), namespace)


class Parsed(Exception):
    pass


@pytest.fixture
def parse(monkeypatch):
    """Starts a tool, which ends when it has understood its options."""
    real = argparse.ArgumentParser.parse_args

    def stop(parser, *args):
        real(parser, *args)
        raise Parsed

    def start(words, main):
        monkeypatch.setattr(sys, 'argv', words)
        with pytest.raises(Parsed):
            main()

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    return start


@pytest.mark.parametrize('page', PAGES, ids=names(PAGES))
def test_commands_on_a_page_are_understood(page, parse):
    for code in blocks(page, 'bash'):
        for line in code.replace('\\\n', '').splitlines():
            words = shlex.split(line, comments=True)
            if 'fewtokens' in words and not {'pip', 'make'} & set(words):
                words = words[words.index('fewtokens') :]  # it may be started by torchrun
                module = importlib.import_module(f'fewtokens.cli.{fewtokens_command.COMMANDS[words[1]][0]}')
                parse(words if 'search_videos' in module.__name__ else words[1:], module.main)
            if words[:1] == ['python'] and words[1].startswith(('tools/', 'examples/')):
                parse(words[1:], lambda path=ROOT / words[1]: runpy.run_path(str(path), run_name='__main__'))


@pytest.mark.parametrize('page', ['README.md', 'CONTRIBUTING.md'])
def test_links_beside_the_site_lead_somewhere(page):
    """Those of the site are checked as it is built."""
    targets = re.findall(r'\]\(([^)#]+)[^)]*\)', (ROOT / page).read_text(encoding='utf-8'))
    assert targets
    for target in targets:
        # The second is of the place that the checkout is from.
        if not target.startswith(('https://', '../../actions/')):
            assert (ROOT / target).exists(), target


def test_pages_are_built_without_a_warning(tmp_path):
    """Links, their places on a page, and every name of the Python API."""
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path)]
    environment = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    api = (tmp_path / 'api.html').read_text()
    assert 'id="fewtokens.attach.attach"' in api and 'At the end a token' in (tmp_path / 'methods.html').read_text()
    # What a page shows it brings with it.
    assert not re.search(r'(?:src|href)="https?://[^"]*\.(?:js|css|woff2?)"', (tmp_path / 'index.html').read_text())


def test_every_public_name_is_in_the_python_api():
    listed = re.findall(r'^::: [\w.]+\.(\w+)$', (ROOT / 'docs/api.md').read_text(encoding='utf-8'), re.M)
    public = [name for room in (fewtokens, fewtokens.ops, fewtokens.video) for name in room.__all__]
    assert set(public) - {'__version__'} <= set(listed) and len(set(listed)) == len(listed)


def test_every_page_is_in_the_table_of_contents():
    config = yaml.load((ROOT / 'mkdocs.yml').read_text(), yaml.BaseLoader)
    listed = re.findall(r"'([\w/]+\.md)'", str(config['nav']))
    assert sorted(listed) == sorted(page.relative_to(ROOT / 'docs').as_posix() for page in PAGES[1:])
