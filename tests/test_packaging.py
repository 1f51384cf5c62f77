"""What a user installs."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    # Built from a copy: a build folder left in the checkout would put files that are gone into the wheel.
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for file in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / file, source)
    ignore = shutil.ignore_patterns('*.egg-info', '__pycache__')
    for folder in ('plugins', 'configs'):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore, symlinks=True)
    pip('wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', str(out), str(source))
    (built,) = out.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def torch_alone(tmp_path_factory):
    """The Python of a fresh environment that sees torch and what torch requires, and nothing else of this one."""
    return environment_of(tmp_path_factory.mktemp('torch_alone'), [Requirement('torch')])


def environment_of(folder, requirements):
    """The Python of a fresh environment that sees these of this one, and what they require."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob('lib/python*/site-packages')
    for name in required_by(requirements):
        distribution = importlib.metadata.distribution(name)
        for entry in {file.parts[0] for file in distribution.files if file.parts[0] != '..'} - {'__pycache__'}:
            if not (packages / entry).exists():
                (packages / entry).symlink_to(distribution.locate_file(entry))
    return folder / 'bin/python'


def required_by(requirements):
    """Distributions and all that they require, as installed here."""
    seen, todo = set(), [(each.name, extra) for each in requirements for extra in ('', *each.extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            if needed(requirement, extra):
                todo += [(canonicalize_name(requirement.name), wanted) for wanted in ('', *requirement.extras)]
    return {name for name, _ in seen}


def needed(requirement, extra):
    return requirement.marker is None or requirement.marker.evaluate({'extra': extra})


def pip(*arguments):
    subprocess.run([sys.executable, '-m', 'pip', '--quiet', *arguments], check=True, capture_output=True)


def test_wheel_holds_the_package_and_what_it_reads(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for file in (
        'py.typed',
        'report/base.html',
        'report/parts.html',
        'report/report.html',
        'report/predictions.html',
        'retrieval/retrieval_page.html',
        'search/contact_sheet.html',
        '.mim/model-index.yml',
        '.mim/configs/demo/clip_clips.json',
    ):
        assert f'fewtokens/{file}' in names
    assert all(name.startswith('fewtokens') for name in names)
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').rglob('*.py')}
    assert configs and configs <= {name.removeprefix('fewtokens/.mim/') for name in names}
    assert not [name for name in names if name.endswith(('.pth', '.png', '.csv'))]
    metadata = next(name for name in names if name.endswith('METADATA'))
    requires = re.findall(r'^Requires-Dist: (.*)$', zipfile.ZipFile(wheel).read(metadata).decode(), re.M)
    assert [line for line in requires if 'extra ==' not in line] == ['torch>=2.4']


def test_wheel_works_where_there_is_torch_alone(wheel, torch_alone):
    pip('--python', str(torch_alone), 'install', '--no-deps', '--no-index', str(wheel))
    code = """
import importlib.util, warnings
warnings.simplefilter('ignore')  # torch says that there is no numpy
import fewtokens, torch
assert 'torch_alone' in fewtokens.__file__, fewtokens.__file__
for name in ('numpy', 'cv2', 'mmengine', 'timm', 'torchvision', 'matplotlib'):
    assert importlib.util.find_spec(name) is None, name
from fewtokens.ops import cluster_tokens
centers, labels = cluster_tokens(torch.randn(1, 12, 4), (3, 4), (2, 2))
try:
    fewtokens.attach(torch.nn.Linear(1, 1), fewtokens.Hourglass(after=1, grid=2))
except ValueError as error:
    print(tuple(centers.shape), error)
"""
    result = subprocess.run([torch_alone, '-I', '-c', code], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith('(1, 4, 4)'), result.stdout + result.stderr
    command = torch_alone.with_name('fewtokens')
    result = subprocess.run([command, '--help'], capture_output=True, text=True)
    assert result.returncode == 0 and '  benchmark-video  ' in result.stdout, result.stderr


@pytest.mark.parametrize('extra, command', [('report', 'compare'), ('video', 'index')])
def test_an_extra_brings_what_its_commands_import(wheel, tmp_path, extra, command):
    zipfile.ZipFile(wheel).extractall(tmp_path / 'unpacked')
    (distribution,) = importlib.metadata.distributions(path=[str(tmp_path / 'unpacked')])
    required = [each for each in map(Requirement, distribution.requires) if needed(each, extra)]
    python = environment_of(tmp_path / 'environment', required)
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path / 'unpacked')}
    arguments = [python, '-m', 'fewtokens', command, '--help']
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr


def test_importing_changes_nothing_and_is_light():
    code = (
        'import torch, sys\nbefore = set(sys.modules)\nimport fewtokens\n'
        "heavy = ('mmengine', 'mmcv', 'mmseg', 'triton', 'timm', 'cv2', 'transformers')\n"
        "print([m for m in set(sys.modules) - before if m.partition('.')[0] in heavy])"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.strip() == '[]', result.stdout + result.stderr


def test_no_file_names_a_registry():
    files = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\n')
    hosts = re.compile('|'.join((r'pypi\.' + 'org', r'pythonhosted\.' + 'org', r'download\.pytorch\.' + 'org')))
    for name in filter(None, files):
        if Path(name).suffix in ('.toml', '.txt', '.py', '.yaml', '.cff', '.md', '') and (ROOT / name).is_file():
            assert not hosts.search((ROOT / name).read_text(errors='ignore')), name
