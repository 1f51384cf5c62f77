from scenes import checkpoint, config_file, scenes  # noqa: F401  fixtures
