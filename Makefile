# Two commands do everything on a fresh machine: `make demo` and `make test`.
# TORCH_INDEX=URL names a package index with a smaller torch (a CPU build); wheels/ is looked at first.
# RAILBREAK_NO_TORCH=1 leaves torch out: everything but the collective job works without it.

PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types unit netns ssh suites bench lab-test vm-test clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10
	@echo
	@echo 'torch, for the collective job, is looked for in this order:'
	@echo '  wheels/torch-*.whl     a wheel that you put there; no download'
	@echo '  TORCH_INDEX=URL        a package index with a smaller torch (a CPU build)'
	@echo '  the usual index        about 3 GB with CUDA'
	@echo 'RAILBREAK_NO_TORCH=1     leaves torch out; everything but the collective job works'

setup: .venv/ready ## make .venv with everything in it; install FRR and friends where root

.venv/ready: pyproject.toml .ci/setup
	@bash .ci/setup
	@touch .venv/ready

demo: setup ## a fabric, a collective job, a broken link, a verdict, a page
	@.venv/bin/railbreak demo

test: setup lint types ## every check and every test that this machine can run
	@$(call twice,tests chaos faults probes --ignore=tests/netns -n 2 --dist loadfile)
	@$(call twice,tests/netns -n 2 --dist loadfile)
	@$(call twice,suites --trials 1 -n 2 --dist worksteal --calm-load 70%)
	@.ci/vm
	@.ci/lab

# Tests on real kernels share their machine with whatever else runs there: what fails is tried once
# more, alone; what fails twice has failed. Two at a time where waiting is most of it: processes that
# start, sessions that come up, phases that last. Each of two suites is load that the other did not
# make, so they are allowed more of it; `make suites`, whose figures are kept, runs them one by one.
twice = $(PY) -m pytest $(1) || { echo "once more, what failed:"; \
	$(PY) -m pytest $(1) --last-failed --last-failed-no-failures=none -n 0; }

lint: setup ## ruff
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .

types: setup ## mypy --strict
	@.venv/bin/mypy

unit: setup ## the tests that need no root: seconds
	@$(PY) -m pytest tests/unit tests/contract chaos faults probes -m "not netns and not job"

netns: setup ## the tests on real namespaces
	@$(PY) -m pytest tests/netns tests/contract -m netns

ssh: setup ## the tests over real SSH servers (twenty machines cut off among them)
	@$(PY) -m pytest tests/ssh

suites: setup ## the promises, with their full number of trials
	@$(PY) -m pytest suites

lab-test: setup ## the tests on the real Containerlab; LAB_DOCKERD=own starts a dockerd for them
	@.ci/lab

vm-test: setup ## the tests that need netem, in a machine of QEMU's with Debian's 6.12 kernel (no KVM)
	@.ci/vm

bench: setup ## ratios against peers in one run; see benchmarks/README.md
	@$(PY) -m benchmarks

clean: ## remove what setup and runs made here
	rm -rf .venv .cache build dist .pytest_cache .mypy_cache .ruff_cache runs
