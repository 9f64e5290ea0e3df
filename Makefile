# Every target makes .venv first; nothing is installed a second time.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench results clean

demo: .venv/.demo
	$(BIN)/neuralclust demo

# A thread each: two processes that take all cores each slow one another down tenfold.
test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-report=term

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.dev
	$(BIN)/neuralclust bench run --protocol quick --results benchmarks/results.jsonl
	$(BIN)/neuralclust bench run --tasks benchmarks/speed.toml --results benchmarks/speed.jsonl
	$(MAKE) results

# The documents from the rows there are.
results: .venv/.dev
	$(BIN)/neuralclust bench plot --results benchmarks/results.jsonl --out docs/figures
	$(BIN)/neuralclust bench table --results benchmarks/results.jsonl --figures docs/figures --out docs/results.md
	$(BIN)/python benchmarks/report.py

clean:
	rm -rf .venv neuralclust-demo

# torch is asked for first and by its exact version: any other way fetches a build of several gigabytes.
.venv/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q $$(grep '^torch' constraints.txt)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[cli,report]'
	touch $@

.venv/.dev: .venv/.demo
	$(BIN)/python -m pip install -q -c constraints.txt --group dev
	touch $@
