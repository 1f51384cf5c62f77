"""Which room of the package may import from which: arrows go one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'plugins/fewtokens'
CORE = 'attach'
"""The modules beside the rooms: what attaches a reducer to a host, and what all others build on."""

TOKENS = {'ops', 'reducers', 'hosts', CORE}

# A room may import from itself and from these, and from no other.
MAY_IMPORT = {
    'ops': set(),
    'checkpoints': {'ops'},
    'reducers': {'ops'},
    'hosts': {'ops'},
    CORE: {'ops', 'reducers', 'hosts'},
    'measure': TOKENS,
    'report': TOKENS | {'measure'},
    'video': TOKENS | {'checkpoints'},
    'openmmlab': TOKENS | {'checkpoints', 'measure', 'report', 'video'},
    'retrieval': TOKENS | {'checkpoints', 'measure', 'report', 'video', 'openmmlab'},
    'search': TOKENS | {'checkpoints', 'measure', 'report', 'video', 'openmmlab', 'retrieval'},
}
MAY_IMPORT['cli'] = set(MAY_IMPORT)
MAY_IMPORT['demo'] = set(MAY_IMPORT)

# By this name users' configs have the room of retrieval registered.
ALIASES = {'fewtokens.video.openmmlab': 'retrieval'}

FILES = sorted([*PACKAGE.rglob('*.py'), *(ROOT / 'demo').rglob('*.py')])


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT if file.is_relative_to(ROOT / 'demo') else PACKAGE.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(file): file for file in FILES}


def room_of(module: str) -> str:
    """The room that a module of ours is in."""
    if module in ALIASES:
        return ALIASES[module]
    top, *parts = module.split('.')
    if top == 'demo':
        return 'demo'
    return parts[0] if parts and (PACKAGE / parts[0]).is_dir() else CORE


def imports_of(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and module of each import from ours, wherever in the file it stands."""
    package = module if MODULES[module].name == '__init__.py' else module.rpartition('.')[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split('.')[: len(package.split('.')) - node.level + 1] if node.level else []
            base = '.'.join([*above, *([node.module] if node.module else [])])
            for name in node.names:
                # `from .. import reducers` names a room, `from .. import attach` a function of the package's.
                inner = f'{base}.{name.name}'
                yield node.lineno, inner if inner in MODULES else base


def wrong_arrows(module: str, source: str) -> list[str]:
    room = room_of(module)
    ours = [(line, name) for line, name in imports_of(module, ast.parse(source)) if name.split('.')[0] in MODULES]
    return [
        f'{module}:{line} imports {name}: {room} may not import {room_of(name)}'
        for line, name in ours
        if room_of(name) not in MAY_IMPORT[room] | {room}
    ]


@pytest.mark.parametrize('module', MODULES)
def test_rooms_import_only_what_the_table_allows(module):
    assert wrong_arrows(module, MODULES[module].read_text(encoding='utf-8')) == []


def test_the_table_names_every_room_and_has_no_cycle():
    rooms = {room_of(module) for module in MODULES}
    assert rooms == set(MAY_IMPORT)
    done = set()
    while done != rooms:
        free = {room for room in rooms - done if MAY_IMPORT[room] - {room} <= done}
        assert free, f'these import each other: {rooms - done}'
        done |= free


@pytest.mark.parametrize(
    'module, source',
    [
        ('fewtokens.ops.tiles', 'from ..hosts import swin'),
        ('fewtokens.ops.tiles', 'from .. import hosts'),
        ('fewtokens.ops.tiles', 'from .. import attach'),
        ('fewtokens.ops.tiles', 'def late():\n    from fewtokens.reducers.base import Reducer'),
        ('fewtokens.video', 'from ..openmmlab.config import load_config'),
        ('fewtokens.video.encoder', 'import fewtokens.openmmlab.config'),
        ('fewtokens.openmmlab.data', 'try:\n    from ..retrieval.decode import open_video\nexcept ImportError: pass'),
        ('fewtokens.measure.variants', 'from ..openmmlab import registry'),
        ('fewtokens.retrieval.datasets.base', 'from ...search.indexing import walk'),
        ('fewtokens.search.index', 'from demo.scenes import captions'),
    ],
)
def test_a_wrong_arrow_is_found_however_it_is_written(module, source):
    assert len(wrong_arrows(module, source)) == 1


@pytest.mark.parametrize(
    'module, source',
    [
        ('fewtokens.ops.tiles', 'import torch\nfrom .tables import kept\nfrom . import dense'),
        ('fewtokens.reducers', 'from ..ops import matching'),
        ('fewtokens.attach', 'from .hosts import find_hosts\nfrom . import reducers'),
        ('fewtokens.retrieval.datasets.base', 'from ..video_files import walk\nfrom ...measure.files import shown'),
    ],
)
def test_a_right_arrow_is_let_through(module, source):
    assert wrong_arrows(module, source) == []


OPENMMLAB = ('mmengine', 'mmcv', 'mmseg', 'mmdet')
OTHERS = ('accelerate', 'cv2', 'jinja2', 'matplotlib', 'open_clip', 'scipy', 'timm', 'torchvision', 'transformers')


def modules_in(room: str) -> list[str]:
    return [name for name in MODULES if room_of(name) == room and name not in ALIASES]


def run_without(absent: tuple[str, ...], code: str) -> subprocess.CompletedProcess:
    """Runs Python in which some packages can't be imported."""
    block = f'import sys, torch\nfor name in {absent}:\n    sys.modules[name] = None\n'
    return subprocess.run([sys.executable, '-c', block + code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    'modules, absent',
    [
        (['fewtokens', 'fewtokens.video'], ('numpy',)),
        *((modules_in(room), ('numpy',)) for room in ('ops', 'checkpoints', 'reducers', 'hosts', CORE)),
        *((modules_in(room), ()) for room in ('measure', 'video')),
    ],
    ids=['published names', 'ops', 'checkpoints', 'reducers', 'hosts', CORE, 'measure', 'video'],
)
def test_what_can_be_imported_where_there_is_torch_and_numpy_at_most(modules, absent):
    code = f'import importlib\nfor name in {modules}:\n    importlib.import_module(name)'
    result = run_without((*OPENMMLAB, *OTHERS, *absent), code)
    assert modules and result.returncode == 0, result.stderr


def test_tests_of_ops_do_without_openmmlab():
    code = "import pytest\nsys.exit(pytest.main(['tests/ops/test_matching.py', '-q', '-p', 'no:cacheprovider']))"
    result = run_without(OPENMMLAB, code)
    assert result.returncode == 0 and ' passed' in result.stdout, result.stdout + result.stderr
