import sys

from scenes import checkpoint, config_file, scenes  # noqa: F401  fixtures

# transformers needs that much.
collect_ignore_glob = [] if sys.version_info >= (3, 11) else ['test_transformers*.py']
