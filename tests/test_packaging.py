"""What a user installs."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {'mmengine', 'mmcv', 'mmseg', 'mmdet', 'numpy', 'cv2', 'matplotlib', 'timm',
                                      'open_clip', 'triton', 'torchvision', 'jinja2', 'skimage', 'sklearn', 'scipy'}:
            raise ModuleNotFoundError(f'{name} is not installed here', name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp('wheel')
    command = [
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '--no-deps',
        '--no-build-isolation',
        '-q',
        '-w',
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=out)
    return next(out.glob('*.whl'))


def test_wheel_holds_the_package_and_what_it_reads(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for file in ('fewtokens/py.typed', 'fewtokens/measure/report.html', 'fewtokens/measure/predictions.html'):
        assert file in names
    assert all(name.startswith('fewtokens') for name in names)
    metadata = next(name for name in names if name.endswith('METADATA'))
    requires = re.findall(r'^Requires-Dist: (.*)$', zipfile.ZipFile(wheel).read(metadata).decode(), re.M)
    assert [line for line in requires if 'extra ==' not in line] == ['torch>=2.4']


def test_wheel_works_where_there_is_torch_alone(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = BLOCKER + (
        f'sys.path.insert(0, {str(tmp_path)!r})\n'
        'import fewtokens, torch\n'
        f'assert fewtokens.__file__.startswith({str(tmp_path)!r}), fewtokens.__file__\n'
        'from fewtokens.ops import cluster_tokens\n'
        'centers, labels = cluster_tokens(torch.randn(1, 12, 4), (3, 4), (2, 2))\n'
        'print(fewtokens.supported(torch.nn.Linear(1, 1)), tuple(centers.shape))\n'
    )
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert result.returncode == 0 and '(1, 4, 4)' in result.stdout, result.stderr


def test_importing_changes_nothing_and_is_light():
    code = (
        'import torch, sys\nbefore = set(sys.modules)\nimport fewtokens\n'
        "heavy = ('mmengine', 'mmcv', 'mmseg', 'triton', 'timm', 'cv2')\n"
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
