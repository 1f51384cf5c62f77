import logging
import warnings

import pytest
from mmengine.runner import Runner

from fewtokens.cli.run import run
from fewtokens.openmmlab.config import load_config


@pytest.mark.parametrize(
    'option, message',
    [
        ({'model.backbone.type': 'VisionTransformr'}, "config's VisionTransformr cannot be built: KeyError: "),
        ({'model.backbone.num_layrs': 3}, "config's VisionTransformer cannot be built: TypeError: "),
        ({'default_hooks.logger.interwal': 3}, "config's LoggerHook cannot be built: TypeError: "),
        ({'test_dataloader.smpler': 3}, "config's dataloader cannot be built: TypeError: "),
        ({'test_dataloader.dataset.pipeline.0.type': 'LoadImg'}, "config's LoadImg cannot be built: KeyError: LoadImg"),
    ],
)
def test_what_a_config_says_wrongly_is_one_line(config_file, capsys, option, message):
    config = load_config(config_file, option)
    with pytest.raises(SystemExit) as end:
        run(lambda: Runner.from_cfg(config).test())
    assert end.value.code == 2 and capsys.readouterr().err.splitlines()[-1].startswith(f'error: the {message}')


def test_what_a_config_lacks_is_one_line(config_file, capsys):
    config = load_config(config_file)
    config.pop('test_dataloader')
    with pytest.raises(SystemExit):
        run(lambda: config.test_dataloader.dataset)
    assert 'error: the config lacks a setting: AttributeError: ' in capsys.readouterr().err


def test_what_is_no_users_mistake_keeps_its_traceback():
    with pytest.raises(TypeError):
        run(lambda: len(5))


def test_what_packages_say_in_every_run_is_left_out_and_nothing_else(recwarn):
    def warn():
        source = 'import warnings\nwarnings.warn("Default ``avg_non_ignore`` is False, if")\nwarnings.warn("odd")'
        for module in ('mmseg.losses', 'mine'):
            exec(compile(source, f'{module}.py', 'exec'), dict(__name__=module))

    run(warn)
    # Of the user's own code it is told.
    said = [(str(warning.message).partition(' ')[0], warning.filename) for warning in recwarn]
    assert said == [('odd', 'mmseg.losses.py'), ('Default', 'mine.py'), ('odd', 'mine.py')]
    warnings.warn('Default ``avg_non_ignore`` is False', stacklevel=1)
    assert len(recwarn) == 4


def test_a_download_that_is_tried_again_is_told_once(caplog, monkeypatch):
    logger = logging.getLogger('huggingface_hub.utils._http')
    monkeypatch.setattr(logging.getLogger('huggingface_hub'), 'propagate', True)

    def download():
        for turn in (1, 2):
            for file in ('a', 'b'):
                logger.warning(f"'no network' thrown while requesting HEAD https://hub/{file}")
                logger.warning(f'Retrying in {turn}s [Retry {turn}/5].')

    run(download)
    assert [text[-5:] for text in caplog.messages] == ['hub/a', 'hub/b']
    logger.warning('Retrying in 1s')
    assert len(caplog.messages) == 3
