"""What runs where the project is public: the files can be read, and name what there is."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fewtokens

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / '.github').rglob('*.yml'))
COMMANDS = [
    command
    for file in (ROOT / '.github/workflows').glob('*.yml')
    for job in yaml.safe_load(file.read_text())['jobs'].values()
    for step in job['steps']
    for command in step.get('run', '').split('&&')
    if command
]


@pytest.mark.parametrize('file', FORMS, ids=lambda file: file.name)
def test_files_can_be_read(file):
    assert yaml.safe_load(file.read_text())['name']


def test_commands_of_the_workflow_are_there():
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M))
    assert COMMANDS
    for words in map(shlex.split, COMMANDS):
        if words[0] == 'make':
            assert set(words[1:]) <= targets, words
        if words[0] == 'pytest':
            assert [word for word in words if word.startswith('tests/') and not (ROOT / word).exists()] == []


@pytest.mark.parametrize('command', [command for command in COMMANDS if command.startswith('pytest ')])
def test_tests_of_the_workflow_are_found_without_openmmlab(command):
    absent = "import sys\nfor name in ('mmengine', 'mmcv', 'mmseg', 'mmdet', 'cv2'):\n    sys.modules[name] = None\n"
    code = f'{absent}import pytest\nsys.exit(pytest.main([*sys.argv[1:], "--collect-only", "-q"]))'
    arguments = shlex.split(command)[1:]
    result = subprocess.run([sys.executable, '-c', code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert cited['version'] == fewtokens.__version__ and len(cited['references']) == 4
