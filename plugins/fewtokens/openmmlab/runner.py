"""MMEngine's runner, as the tools run it: the terminal shows what is of this run, the log file holds everything."""

import logging
import os
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

from ..measure.files import shown

SAID_IN_EVERY_RUN = (
    'System environment:',
    'Config:',
    'Hooks will be executed in the following order:',
    'Distributed training is not used, all SyncBatchNorm',
    'The prefix is not set in metric class',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)
"""How records begin that are hundreds of lines together, and the same whatever a run does."""


class ToolRunner(Runner):
    def build_logger(self, *args: Any, **options: Any) -> MMLogger:
        logger = super().build_logger(*args, **options)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_of_this_run)
        if logger.log_file:
            text = f'log, with the environment and the whole config: {shown(os.path.relpath(logger.log_file))}'
            logger.info(text)
        return logger


def _of_this_run(record: logging.LogRecord) -> bool:
    return not record.getMessage().lstrip('-\n').startswith(SAID_IN_EVERY_RUN)
