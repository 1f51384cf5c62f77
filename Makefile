# Two commands do all the set-up: `make demo` and `make test`. Each creates .venv and installs what it needs first.
PYTHON ?= python3

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
PIP := $(VENV_PYTHON) -m pip --disable-pip-version-check --quiet

.PHONY: install test test-gpu quality style docs docs-build demo ablation bench bench-gpu

install: $(INSTALLED)

# opencv-python needs the system's libGL, its headless twin doesn't; OpenMMLab asks for the first and both unpack to the
# same folder. So the twin is unpacked once more, on top.
$(INSTALLED): pyproject.toml constraints.txt demo/requirements.txt
	@echo "Installing into $(VENV): this takes a few minutes"
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install -c constraints.txt setuptools
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[all,dev]'
	$(PIP) install -c constraints.txt --no-deps --force-reinstall opencv-python-headless
	$(PIP) install --require-hashes --no-deps -r demo/requirements.txt
	touch $@

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n 2

quality: $(INSTALLED)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

style: $(INSTALLED)
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

# Serves the documentation, made anew as its pages change.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs serve

# Into work_dirs/site; any warning is an error.
docs-build: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict

# make demo PICTURES=FOLDER looks at your own photographs as well.
demo: $(INSTALLED)
	$(VENV_PYTHON) tools/demo.py $(if $(PICTURES),--pictures "$(PICTURES)")

# One option changed at a time, on the real model and on the Segmenter; a quarter of an hour on one core, and goes on if
# interrupted.
ablation: $(INSTALLED)
	$(VENV_PYTHON) tools/ablate.py

# Random weights: this measures speed only.
BENCH_PLUGINS := --plugin "Hourglass(after=10, grid=(28, 28))" \
	--plugin "SharedUpdate(after=8, grid=(20, 20))" \
	--plugin "SharedUpdate(after=6, grid=(20, 20))"

bench: bench-float32 bench-bfloat16 bench-swin bench-video bench-medoids

# On a machine with a CUDA device, triton and timm: no OpenMMLab is needed, so nothing is installed.
bench-gpu:
	PYTHONPATH=plugins $(PYTHON) tools/benchmark_gpu.py

test-gpu:
	PYTHONPATH=plugins $(PYTHON) -m pytest -m gpu tests/ops

bench-swin: $(INSTALLED)
	$(VENV_PYTHON) tools/benchmark.py configs/hourglass/mask2former_swin-l_coco-instance_12-8x8.py --shape 512 768 \
		--plugin "Hourglass(after=4, grid=8)" --plugin "SharedUpdate(after=4, grid=6)" --rounds 5 \
		--json work_dirs/bench/mask2former_swin-l.json

bench-video: $(INSTALLED)
	$(VENV_PYTHON) tools/benchmark_video.py --clip ViT-B-32 --training --rounds 5 --threads 1 \
		--plugin "SegmentClustering(segments=6, clusters=49, after=6)" \
		--plugin "SegmentClustering(segments=6, clusters=49, size_bias=True, after=6)" --json work_dirs/bench/vit-b-32.json
	$(VENV_PYTHON) tools/benchmark_video.py --clip ViT-B-16 --training --rounds 5 --threads 1 \
		--plugin "SegmentClustering(segments=4, clusters=160, after=6)" \
		--plugin "SegmentClustering(segments=4, clusters=160, size_bias=True, after=6)" --json work_dirs/bench/vit-b-16.json

bench-families: $(INSTALLED)
	$(VENV_PYTHON) tools/benchmark_families.py

bench-medoids: $(INSTALLED)
	$(VENV_PYTHON) tools/benchmark_medoids.py

bench-%: $(INSTALLED)
	$(VENV_PYTHON) tools/benchmark.py mmseg::segmenter/segmenter_vit-l_mask_8xb1-160k_ade20k-512x512.py \
		--shape 640 640 --dtype $* $(BENCH_PLUGINS) --json work_dirs/bench/segmenter_vit-l-$*.json
