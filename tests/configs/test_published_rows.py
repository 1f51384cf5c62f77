"""The page of published rows: it is made of the tables and the configs as they are."""

import ast
import re
from pathlib import Path

import pytest

from docs import make_published_rows as rows

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    assert rows.PAGE.read_text() == rows.make_page(rows.counted_macs()), 'run docs/make_published_rows.py'


def test_every_row_is_on_the_page_and_every_link_leads_somewhere():
    text = rows.PAGE.read_text()
    lines = [line for line in text.splitlines() if line.startswith('| ') and '---' not in line]
    titles = [line for line in lines if line.startswith('| method |')]
    assert len(lines) - len(titles) == len(rows.read_rows('expedit')) + len(rows.read_rows('centerclip')) == 138
    for link in re.findall(r'\]\((?!https)([^)#]+)', text):
        assert (ROOT / 'docs' / link).exists(), link


def test_a_config_claims_one_row_and_is_the_only_one_that_does():
    published = rows.read_rows('expedit')
    claimed = {claim.path.stem: [i for i, row in enumerate(published) if claim.fits(row)] for claim in rows.claims()}
    assert all(len(found) == 1 for found in claimed.values()), claimed
    assert len({found[0] for found in claimed.values()}) == len(claimed)


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('hourglass/*.py')), ids=lambda path: path.stem)
def test_a_config_says_what_is_published_of_it(path):
    assert rows.CLAIM.match(ast.get_docstring(ast.parse(path.read_text())))


@pytest.mark.parametrize(
    'published, stated, same',
    [('443.84', '443.8', True), ('443.84', '443.84', True), ('443.84', '443.9', False), ('', '1.0', False)],
)
def test_figures_are_rounded_as_stated(published, stated, same):
    assert rows.rounded(published, stated) == same
