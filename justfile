# The project's commands. `just` comes with the dev extra (rust-just); each recipe is one line that works without it.
python := env("NORIA_PYTHON", "python")

# style, types, layers and the tests that need no server; under 30 s
check:
    {{python}} -m ruff check actors tests examples
    {{python}} -m pyright
    PYTHONPATH=actors lint-imports --no-cache
    {{python}} -m pytest tests/unit tests/house

# everything
test *args:
    {{python}} -m pytest {{args}}

# rows of the catalogue: covered and passing, per area
conformance:
    {{python}} tests/conformance/report.py

# speed against the raw JetStream append, in the same run
bench *args:
    {{python}} tests/bench/bench.py {{args}}
