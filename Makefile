# Two commands set everything up on a fresh machine:
#   make demo   reconstructs a real video and shows what was gained
#   make test   lint, types and tests
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types format clean

demo: .venv/ready
	$(BIN)/deepfovea demo

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

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo-output
