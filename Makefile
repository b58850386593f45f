# Every target starts from Python 3.11+ and make: it installs what is missing (once) and shows what it does.
PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo demo-search test test-slow lint docs dist bench pretraining snps3-ablation crossformer-fusions matrix clean

RUN = python=$$($(PYTHON) tools/bootstrap.py | tail -n 1);

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install:  ## put vtp and the tested versions of its libraries into .venv (or the active environment)
	@$(RUN) echo "use $$python, or: source $$(dirname $$python)/activate"

demo:  ## generate a small video data set, train on it, evaluate, print a table and draw a picture
	@$(RUN) $$python -m vtp run task=msrvtt_qa dataset=shapes

demo-search:  ## train on generated clips, embed others, find them by captions and sounds, also on the page in a browser
	@$(RUN) $$python tools/demo_search.py

test:  ## all tests of the default run (CPU, no network, under 8 minutes on 2 cores)
	@$(RUN) OMP_NUM_THREADS=1 $$python -m pytest -m "not slow and not gpu" -n auto --maxprocesses=4 --dist=loadfile

test-slow:  ## the long tests, one by one
	@$(RUN) $$python -m pytest -m "slow and not gpu"

lint:  ## ruff (format and rules) and mypy --strict over core and plugins
	@$(RUN) $$python -m ruff format --check . && $$python -m ruff check . && $$python -m mypy

docs:  ## the documentation site, into build/docs/html; installs Sphinx, MyST and the theme when they are missing
	@$(RUN) $$python -c "import sphinx, myst_parser, pydata_sphinx_theme" 2>/dev/null || \
	  $$python -m pip install --disable-pip-version-check -c constraints.txt -e '.[docs]'; \
	$$python tools/docs/build.py

dist:  ## wheels and sdists of every distribution of the tree, into dist/
	@$(RUN) for project in . $$(dirname plugins/*/*/pyproject.toml kernels/pyproject.toml); do \
	  (cd $$project && $$python -m hatchling build -d "$(CURDIR)/dist"); done

bench:  ## benchmarks that need no GPU; results go to benchmarks/results
	@$(RUN) $$python benchmarks/overhead.py

pretraining:  ## does SimVTP pre-training help? three seeds on generated clips; long, and goes on where it was stopped
	@$(RUN) $$python benchmarks/simvtp_pretraining_helps.py

snps3-ablation:  ## do SNP-S3's objectives help? three seeds on generated clips, under half an hour on 2 cores
	@$(RUN) $$python benchmarks/snps3_ablation.py

crossformer-fusions:  ## what does sound bring, and which fusion brings most? three seeds on generated clips; long
	@$(RUN) $$python benchmarks/fusions.py

matrix:  ## the tests on Python 3.11 to 3.13 with the oldest, the tested and the newest torch; hours, 6 GB at a time
	@$(RUN) $$python tools/matrix.py

clean:  ## remove caches, never outputs or data
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -r {} +
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
