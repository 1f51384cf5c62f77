"""The name by which configs know `fewtokens.retrieval`: `custom_imports = dict(imports=[…, this module])`."""

from .. import retrieval  # noqa: F401
