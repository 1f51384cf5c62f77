import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package
