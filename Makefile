# make demo   install the tools into .venv and check an example net
# make test   install everything into .venv and run the tests
# make lint   format, style, the order of imports, types, and Python 3.8 where the layers need it
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXAMPLE := prototxt_examples/lenet_digits.prototxt

.PHONY: demo test lint clean

demo: $(VENV)/tools.stamp
	$(BIN)/caffe-layers check $(EXAMPLE)

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips --violations --target=3.8- layers tests/in_caffe tools/caffe_tools/entry.py

# An installation is repeated when what it depends on changes. It is editable, so a change of the code needs none.
$(VENV)/%.stamp: setup.cfg pyproject.toml $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV)
