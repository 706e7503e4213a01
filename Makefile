# make demo   set up everything and draw a picture        make test   set up everything and test it
# make lint   ruff, as continuous integration runs it     make clean  remove the environment

PYTHON ?= python3
STAMP = .venv/.installed
STAMP_DEV = .venv/.installed-dev

.PHONY: demo test test-slow lint clean

demo: $(STAMP)
	@picture=$$(.venv/bin/mlx-starflow generate "a fox in snow" --seed 7 --output demo.png) \
		&& echo "The picture: $(CURDIR)/$$picture"

test: $(STAMP_DEV)
	@.venv/bin/python -m pytest -n auto --dist loadfile

test-slow: $(STAMP_DEV)
	@.venv/bin/python -m pytest -m slow

lint: $(STAMP_DEV)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

$(STAMP): pyproject.toml .ci/environment.py
	@echo "Making the environment in .venv (a few minutes the first time) ..." >&2
	@$(PYTHON) .ci/environment.py
	@touch $@

$(STAMP_DEV): pyproject.toml .ci/environment.py
	@echo "Making the environment in .venv (a few minutes the first time) ..." >&2
	@$(PYTHON) .ci/environment.py dev
	@touch $(STAMP) $@

clean:
	rm -rf .venv demo*.png
