# make demo        set up everything and draw a picture
# make studio      set up everything and open the page in the browser
# make test        set up everything and run the tests
# make test-slow   run the slow tests
# make lint        run ruff and mypy, as CI does
# make screenshot  make the README's picture of the page (needs a browser)
# make clean       remove the environment

PYTHON ?= python3
STAMP = .venv/.installed
STAMP_DEV = .venv/.installed-dev
STAMP_SERVER = .venv/.installed-server

# The tests start Python many times; compiled modules are kept, so that it starts quickly.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo studio test test-slow coverage screenshot lint clean

demo: $(STAMP)
	@picture=$$(.venv/bin/mlx-starflow generate "a fox in snow" --seed 7 --output demo.png) \
		&& echo "The picture: $(CURDIR)/$$picture"

studio: $(STAMP_SERVER)
	@.venv/bin/mlx-starflow serve --open

test: $(STAMP_DEV)
	@.venv/bin/python -m pytest -n auto --dist worksteal

test-slow: $(STAMP_DEV)
	@.venv/bin/python -m pytest -m slow

# Lines that run in processes the tests start are not counted.
coverage: $(STAMP_DEV)
	@.venv/bin/python -m pytest -n auto --dist loadfile --cov --cov-report term:skip-covered

screenshot: $(STAMP_DEV)
	@MLX_STARFLOW_SCREENSHOT=1 .venv/bin/python -m pytest -m slow tests/test_serve_page.py -k readme

lint: $(STAMP_DEV)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

$(STAMP): pyproject.toml .ci/environment.py
	@echo "Making the environment in .venv (a few minutes the first time) ..." >&2
	@$(PYTHON) .ci/environment.py
	@touch $@

$(STAMP_SERVER): pyproject.toml .ci/environment.py
	@echo "Making the environment in .venv (a few minutes the first time) ..." >&2
	@$(PYTHON) .ci/environment.py server
	@touch $(STAMP) $@

$(STAMP_DEV): pyproject.toml .ci/environment.py
	@echo "Making the environment in .venv (a few minutes the first time) ..." >&2
	@$(PYTHON) .ci/environment.py dev
	@# Compiles the tests once, instead of once in every process of the first run.
	@.venv/bin/python -m pytest --collect-only -q > /dev/null
	@touch $(STAMP) $(STAMP_SERVER) $@

clean:
	rm -rf .venv demo*.png
