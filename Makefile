# Aliases of dev.py, for those who like make. Everything lives in dev.py.
.PHONY: demo test check docs fuzz clean
demo test check docs fuzz:
	python3 dev.py $@ $(ARGS)
clean:
	rm -rf .venv-dev out build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
