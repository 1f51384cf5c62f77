"""Where the blocks of a backbone are and how its tokens lie: one file a family, found by being in this folder."""

from importlib import import_module
from pkgutil import iter_modules

from .attention import AttentionContext, Context
from .base import FAMILIES, Head, Host, find_host, find_hosts, register_host
from .layout import Layout, WholeGrid, Windows
from .members import Members
from .middle import Middle
from .replaced import ReplacedCall
from .spread import Spread, SpreadActivation, SpreadNorm, Sublayers, sublayers

for _file in iter_modules(__path__):
    import_module(f'.{_file.name}', __name__)

__all__ = [
    'FAMILIES',
    'AttentionContext',
    'Context',
    'Head',
    'Host',
    'Layout',
    'Members',
    'Middle',
    'ReplacedCall',
    'Spread',
    'SpreadActivation',
    'SpreadNorm',
    'Sublayers',
    'WholeGrid',
    'Windows',
    'find_host',
    'find_hosts',
    'register_host',
    'sublayers',
]
