import gzip
import json
import os
import pickle
import re
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.runner import Runner
from torch import nn

import fewtokens.openmmlab  # noqa: F401
from fewtokens.checkpoints.reading import load_checkpoint, state_dict_of
from fewtokens.cli.convert_checkpoint import main as convert
from fewtokens.openmmlab.checkpoints import load_from_local
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model

WEIGHTS = {'backbone.layers.0.attn.attn.in_proj_weight': torch.ones(3)}


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


SAVES = pytest.mark.parametrize('save', [torch.save, save_old])


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@SAVES
def test_both_of_pytorchs_formats_are_read_and_converted(save, config_file, checkpoint):
    stored = torch.load(checkpoint, weights_only=True)
    save(stored, 'saved.pth')
    model = build_model(load_config(config_file), 'saved.pth')
    assert all(torch.equal(value, stored['state_dict'][name]) for name, value in model.state_dict().items())
    convert(['saved.pth', 'out.pth'])
    assert torch.load('out.pth', weights_only=True)['state_dict'].keys() == stored['state_dict'].keys()


@pytest.fixture
def trained(config_file):
    """A training's last checkpoint, of schedules whose state has methods, and its runner."""
    options = dict(param_scheduler=[dict(type='OneCycleLR', eta_max=1e-3, total_steps=9, by_epoch=False)])
    runner = Runner.from_cfg(load_config(config_file, options))
    runner.train()
    return f'{runner.work_dir}/iter_2.pth', runner


@pytest.mark.parametrize('numpy_1', [False, True])
def test_what_mmengine_keeps_beside_the_weights_is_read_in_the_old_format(trained, numpy_1):
    path, runner = trained
    content = torch.load(path, weights_only=False)
    content['meta']['best'] = [np.float64(0.5), np.int32(3), np.ones(2, np.float16), np.array([])]
    save_old(content, 'old.pth')
    if numpy_1:
        data = Path('old.pth').read_bytes()
        Path('old.pth').write_bytes(data.replace(b'numpy._core.multiarray', b'numpy.core.multiarray'))
    loaded = load_checkpoint('old.pth')
    assert loaded['meta']['best'][:2] == [0.5, 3]
    (schedule,), (own,) = loaded['param_schedulers'], runner.param_schedulers
    assert schedule['anneal_func'] is own.anneal_func and schedule['last_step'] == own.last_step
    for name, history in loaded['message_hub']['log_scalars'].items():
        assert np.array_equal(history.data, runner.message_hub.log_scalars[name].data)


class Harmful:
    def __init__(self, function=os.system):
        self.function = function

    def __reduce__(self):
        return self.function, ('touch harmed',) if self.function is os.system else ("open('harmed', 'w')",)


@SAVES
@pytest.mark.parametrize('function, name', [(os.system, f'{os.name}.system'), (eval, 'builtins.eval')])
@pytest.mark.parametrize('place', ['state_dict', 'meta', 'message_hub'])
def test_a_checkpoint_that_would_run_code_is_refused_everywhere(save, function, name, place):
    save({'state_dict': WEIGHTS, place: dict(harm=Harmful(function))}, 'harmful.pth')
    for read in (load_checkpoint, load_from_local, lambda path: convert([path, 'out.pth'])):
        with pytest.raises(ValueError, match=f'^checkpoint .harmful.pth. cannot be loaded safely: it carries {name}, '):
            read('harmful.pth')
    assert not os.path.exists('harmed') and not os.path.exists('out.pth')


@SAVES
def test_methods_of_mmengines_classes_lead_nowhere_else(save):
    from mmengine.logging import HistoryBuffer

    class Attribute:
        def __init__(self, owner, name):
            self.given = owner, name

        def __reduce__(self):
            return getattr, self.given

    for owner, name in ((HistoryBuffer, '__init__'), (np.ndarray, 'tofile'), (HistoryBuffer, 'none')):
        content = dict(state_dict=WEIGHTS, method=Attribute(owner, name))
        save(content, 'method.pth')
        with pytest.raises(ValueError, match=f"'method.pth' cannot be loaded safely: .*{name}"):
            load_checkpoint('method.pth')


@SAVES
def test_refused_objects_are_named(save):
    import argparse

    save(dict(model=WEIGHTS, args=argparse.Namespace(lr=1)), 'args.pth')
    for read in (load_checkpoint, lambda path: convert([path, 'out.pth'])):
        with pytest.raises(ValueError, match=r"'args.pth' .* it carries argparse.Namespace, ") as error:
            read('args.pth')
        assert 'weights_only' not in str(error.value) and '\n' not in str(error.value)
    save(nn.Linear(1, 1), 'module.pth')
    with pytest.raises(ValueError, match='it carries torch.nn.modules.linear.Linear, '):
        load_checkpoint('module.pth')
    torch.save(WEIGHTS, 'protocol.pth', pickle_protocol=4)
    with pytest.raises(ValueError, match="'protocol.pth' .*pickle_protocol"), pytest.warns(UserWarning):
        load_checkpoint('protocol.pth')


def other_files():
    yield 'empty', b'', 'it is empty'
    yield 'page', b'\n<!DOCTYPE html><html>Not found</html>', 'it is a web page'
    yield 'error', b'<?xml version="1.0"?><Error/>', 'it is a web page'
    yield 'pointer', b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', "it is git-lfs's pointer"
    yield 'text', json.dumps(dict(message='Not Found')).encode(), 'it is text that begins with .{"message"'
    yield 'gzip', gzip.compress(b'weights'), 'it is a gzip archive'
    yield 'hdf5', b'\x89HDF\r\n\x1a\n' + bytes(99), 'it is an HDF5 file'


@pytest.mark.parametrize('suffix', ['.pth', '.npz', '.pkl', '.safetensors'])
@pytest.mark.parametrize('content, reason', [pytest.param(*rest, id=name) for name, *rest in other_files()])
def test_other_files_are_told_by_their_content(content, reason, suffix):
    if suffix == '.pkl' and reason.startswith('it is text'):
        reason = 'cannot be read as a pickle of arrays'
    name = f'given{suffix}'
    Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=f'^.{name}. .*{reason}') as error:
        convert([name, 'out.pth'])
    assert '\n' not in str(error.value) and not os.path.exists('out.pth')
    if suffix != '.pkl':
        with pytest.raises(ValueError, match=f'^.{name}. is no checkpoint: {reason}'):
            load_checkpoint(name)


def test_archives_of_something_else():
    with tarfile.open('old.pth', 'w') as archive:
        archive.add(__file__, 'pickle')
    with zipfile.ZipFile('code.pth', 'w') as archive:
        archive.writestr('code-main/setup.py', '')
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1)), 'script.pth')
    np.savez('arrays.pth', a=np.ones(1))
    Path('pickle.pth').write_bytes(pickle.dumps({'model': {}}))
    np.save('one.pth', np.ones(1))
    os.rename('one.pth.npy', 'one.pth')
    os.rename('arrays.pth.npz', 'arrays.pth')
    for name, reason in (
        ('old', 'a tar archive'),
        ('code', r'a zip archive of other files \(code-main/setup.py\)'),
        ('script', 'a TorchScript model'),
        ('arrays', "NumPy's archive of arrays: fewtokens convert"),
        ('pickle', 'a pickle that torch.save did not write: fewtokens convert'),
        ('one', 'a single NumPy array'),
    ):
        with pytest.raises(ValueError, match=f'^.{name}.pth. is .*{reason}'):
            load_checkpoint(f'{name}.pth')


@SAVES
@pytest.mark.parametrize('part', [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_damaged(save, part):
    save(dict(state_dict={'a': torch.rand(999)}), 'whole.pth')
    data = Path('whole.pth').read_bytes()
    Path('cut.pth').write_bytes(data[: int(part * len(data))])
    for read in (load_checkpoint, lambda path: convert([path, 'out.pth'])):
        with pytest.raises(ValueError, match='cut.pth.*damaged') as error:
            read('cut.pth')
        assert 'weights_only' not in str(error.value) and '\n' not in str(error.value)


def test_no_file_and_a_folder():
    os.mkdir('folder.pth')
    for name, message in (('none.pth', "there is no checkpoint 'none.pth'"), ('folder.pth', 'but a folder')):
        for read in (load_checkpoint, lambda path: convert([path, 'out.pth'])):
            with pytest.raises(FileNotFoundError, match=message):
                read(name)


@SAVES
@pytest.mark.parametrize(
    'content, reason',
    [
        ([torch.ones(1)], 'of type list'),
        (torch.ones(1), 'of type Tensor'),
        (None, 'it is None'),
        ({}, 'it is empty'),
        (dict(state_dict=None), 'its state_dict is None'),
        (dict(state_dict=[1]), 'its state_dict is of type list'),
        (dict(state_dict={}), 'it is empty'),
        (dict(model=None, epoch=3), 'its model is None'),
        (dict(epoch=3, network=WEIGHTS), r"2 of 2 entries .*'epoch' is of type int, 'network' is of type dict"),
        (dict(state_dict={**WEIGHTS, 'n': 5}), "1 of 2 entries .*'n' is of type int"),
        (dict(state_dict={0: torch.ones(1)}), '1 of 1 entries .*0 is of type Tensor'),
        (dict(state_dict={'a': np.ones(1)}), "'a' is of type ndarray"),
    ],
)
def test_checkpoints_without_weights(save, content, reason, config_file):
    save(content, 'other.pth')
    for read in (
        lambda path: build_model(load_config(config_file), path),
        lambda path: convert([path, 'out.pth']),
        load_from_local,
    ):
        with pytest.raises(ValueError, match=f"^checkpoint 'other.pth' holds no weights: .*{reason}.*is needed"):
            read('other.pth')
    assert not os.path.exists('out.pth')


@pytest.mark.parametrize('place', [None, 'state_dict', 'model'])
def test_where_weights_are_found(place, config_file, checkpoint):
    stored = torch.load(checkpoint, weights_only=True)['state_dict']
    state = OrderedDict((f'module.{name}', value) for name, value in stored.items())
    torch.save({place: state, 'epoch': 3} if place else state, 'given.pth')
    model = build_model(load_config(config_file), 'given.pth')
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    assert load_from_local('given.pth')['state_dict'].keys() == stored.keys()


def test_versions_of_modules_stay_beside_the_weights():
    state = nn.DataParallel(nn.BatchNorm1d(2)).state_dict()
    torch.save(dict(state_dict=state), 'versions.pth')
    weights = state_dict_of(load_checkpoint('versions.pth'), 'versions.pth')
    assert 'running_mean' in weights and weights._metadata['']['version'] == 2


def test_safetensors_whatever_the_file_is_called(config_file, checkpoint):
    stored = torch.load(checkpoint, weights_only=True)['state_dict']
    safetensors.torch.save_file(stored, 'weights.bin')
    model = build_model(load_config(config_file), 'weights.bin')
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    convert(['weights.bin', 'out.pth'])
    assert torch.load('out.pth', weights_only=True)['state_dict'].keys() == stored.keys()
    Path('cut.safetensors').write_bytes(Path('weights.bin').read_bytes()[:-9])
    with pytest.raises(ValueError, match='cut.safetensors.* damaged'):
        load_checkpoint('cut.safetensors')


def test_safetensors_may_be_missing(monkeypatch):
    safetensors.torch.save_file(WEIGHTS, 'weights.safetensors')
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with pytest.raises(ImportError, match=r"'weights.safetensors' needs safetensors .*pip install safetensors"):
        load_checkpoint('weights.safetensors')


def test_files_that_cannot_be_converted_are_named():
    for name, arrays, reason in (
        ('text.npz', dict(a=np.array('text')), 'numpy.str_'),
        ('object.npz', dict(a=np.array([None])), 'Object arrays'),
        ('other.npz', dict(a=np.ones(1)), 'no known layout'),
    ):
        np.savez(name, **arrays)
        with pytest.raises(ValueError, match=f'^.{name}. cannot be .*{reason}'):
            convert([name, 'out.pth'])
    for name, weights in (
        ('keys.pth', {'a': torch.ones(1)}),
        ('shapes.pth', {'layers.0.downsample.reduction.weight': torch.ones(1)}),
        ('parts.pth', {'Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel': torch.ones(1, 1, 1)}),
    ):
        torch.save(weights, name)
        with pytest.raises(ValueError, match=f'^.{re.escape(name)}. cannot be converted: '):
            convert([name, 'out.pth'])
    assert not os.path.exists('out.pth')
