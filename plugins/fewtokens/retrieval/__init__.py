"""Text-video retrieval in MMEngine: data sets, transforms, model and metrics.

A config names it, `custom_imports = dict(imports=['fewtokens.openmmlab', 'fewtokens.retrieval'])`: importing registers
them.
"""

from . import datasets, metrics, model, retrieval_page, transforms  # noqa: F401
