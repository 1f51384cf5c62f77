"""The command-line tools: the main function of each, and what they share."""

from .. import openmmlab  # noqa: F401  before any other OpenMMLab package
