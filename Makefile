# Every target sets itself up on a fresh machine; all share one environment.
#   make demo    pre-train, fine-tune and report on the embedded data (outputs/demo/report.html)
#   make demo-video  the same for clips: actions, and phases of whole videos (outputs/demo-video/video.html)
#   make reproduce  the tables of the paper in shape, on the embedded data (about an hour; BUDGET=small: minutes)
#   make checkpoints  the two small models of checkpoints/ again, from nothing (minutes)
#   make bench   speed of a pre-training step against transformers, on CPU (minutes; benchmarks/README.md)
#   make test    the test suite, without the tests marked slow or extras (minutes)
#   make test-extras  the tests that need optional packages, which it installs; one that is skipped has failed
#   make test-demo    those of the web page, in an environment of their own; needs a Chromium (test-extras runs them too)
#   make test-slow    long fuzzing, long equivalences: the tests marked slow
#   make test-oldest  the same with the least versions that setup.cfg allows
#   make lint    ruff and mypy
#   make docs    the manual as a static site (outputs/site/index.html), in an environment of its own
#   make release-check  wheel and sdist, installed and run in clean environments of PYTHONS, the lowest and the newest Python
# PYTHON chooses the interpreter that makes the environment, VENV where it lives.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
BUDGET ?= full
REPRODUCE_ARGS ?=
CHECKPOINTS_ARGS ?=
TEST_ARGS ?=
PYTHONS ?= $(PYTHON)
BENCH_ARGS ?= --batch 1 --rounds 3

.PHONY: demo demo-video reproduce checkpoints bench test test-extras test-demo test-slow test-oldest lint docs release-check clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The markers make a second call instant; a changed setup.cfg installs again.
$(VENV)/.m33d-test: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e ".[test]"
	@touch $@

$(VENV)/.m33d-extras: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e ".[test,deepspeed,extras,docs]"
	@touch $@

# The page's gradio wants an older Pillow than we do. All else is borrowed from the first environment: torch is large.
$(VENV)-demo/.m33d-demo: $(VENV)/.m33d-test
	$(PYTHON) -m venv $(VENV)-demo
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > $$($(VENV)-demo/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/borrowed.pth
	$(VENV)-demo/bin/python -m pip install -e ".[demo,browser]"
	@touch $@

$(VENV)/.m33d-lint: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e ".[dev]"
	@touch $@

demo: $(VENV)/.m33d-test
	$(BIN)/python scripts/run_demo.py $(DEMO_ARGS)

demo-video: $(VENV)/.m33d-test
	$(BIN)/python scripts/run_demo.py --part video $(DEMO_ARGS)

reproduce: $(VENV)/.m33d-test
	$(BIN)/python scripts/reproduce.py --budget $(BUDGET) $(REPRODUCE_ARGS)

checkpoints: $(VENV)/.m33d-test
	$(BIN)/python checkpoints/train.py $(CHECKPOINTS_ARGS)

# The data and the cost benchmark join in where they are there.
bench: $(VENV)/.m33d-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/pretrain_step.py $(BENCH_ARGS)
	@for name in data_loading cost_curves; do \
	  if [ -f benchmarks/$$name.py ]; then OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$name.py || exit 1; fi; done

test: $(VENV)/.m33d-test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not extras and not demo" $(TEST_ARGS)

test-extras: $(VENV)/.m33d-extras test-demo
	$(BIN)/python -m pytest -m extras --no-skips $(TEST_ARGS)

test-demo: $(VENV)-demo/.m33d-demo
	$(VENV)-demo/bin/python -m pytest tests/demo tests/inference/review -m demo --no-skips $(TEST_ARGS)

test-slow: $(VENV)/.m33d-test
	$(BIN)/python -m pytest -m "slow and not extras" $(TEST_ARGS)

# An environment of its own: name>=1.2 of install_requires becomes name==1.2.* (decord too, so Linux on x86-64 only).
test-oldest:
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install -e ".[test]" \
	  $$(sed -n '/^install_requires/,/^$$/s/^ *\([a-z_0-9]*\)>=\([0-9.]*\).*/\1==\2.*/p' setup.cfg)
	$(VENV)-oldest/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not extras and not demo" $(TEST_ARGS)

lint: $(VENV)/.m33d-lint
	$(BIN)/ruff check .
	$(BIN)/mypy

# The manual is built from the text of the sources, so its environment needs no torch. Strict: a warning is an error.
$(VENV)-docs/.m33d-docs: setup.cfg
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install $$(sed -n '/^docs =/,/^[a-z]/s/^ *\([a-z0-9-]*[><=].*\)/\1/p' setup.cfg)
	@touch $@

docs: $(VENV)-docs/.m33d-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build --strict
	@echo "outputs/site/index.html; with its search: python -m http.server --directory outputs/site"

# PYTHONS names the interpreters, for example PYTHONS="python3.10 python3.13".
release-check: $(VENV)/.m33d-lint
	mkdir -p outputs
	.ci/release-check $(BIN)/python $(PYTHONS)

clean:
	rm -rf outputs build dist $(VENV)-oldest $(VENV)-demo $(VENV)-docs
