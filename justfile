# The project's commands. `just` comes with the dev extra (rust-just); each recipe is one line that works without it.
python := env("NORIA_PYTHON", "python")

# everything the other recipes need
setup:
    {{python}} -m pip install -q -c infra/constraints.txt -e '.[dev]'

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

# what this release writes, kept as a fixture that must fold for ever: once, before it is published
fixtures release:
    {{python}} -m tests.fixtures.make {{release}}

# long kills under load: workers, the server, both, a cluster; minutes
chaos *args:
    {{python}} -m pytest -m chaos tests/chaos {{args}}

# three servers with three replicas of everything: nodes are killed under load
cluster *args:
    {{python}} -m pytest tests/chaos/test_cluster.py -m 'chaos or not chaos' {{args}}

# random graphs against the reference interpreter
properties *args:
    {{python}} -m pytest tests/properties {{args}}

# the protocol models with all their clients and crashes; minutes
models *args:
    {{python}} -m tests.models {{args}}

# the README's workflow; the report lands in examples/report.json
run-example:
    {{python}} -c 'from noria.cli.main import main; main()' run examples/log_report.py:report --input '{"folder": "examples/logs", "report": "examples/report.json"}'

# speed against the raw JetStream append and the peers, in the same run: just bench W1 --vs dbos,langgraph,restate
bench *args:
    {{python}} tests/bench/bench.py {{args}}

# schemas/: JSON Schema of every message, AsyncAPI of all subjects
schemas:
    {{python}} -c 'from noria.cli.main import main; main()' schemas export --to schemas

# infra/nats: server configuration with least-privilege users, from the table of channels
infra:
    {{python}} -c 'from noria.cli.main import main; main()' infra export infra/nats

# what durability costs: sync_interval default and always, one node and three
durability:
    {{python}} tests/bench/durability.py

# how the cost grows: workers, open runs, history, payload, workflows, replicas, memory
scale *args:
    {{python}} tests/bench/scale.py {{args}}

# worlds by seed: workers, users and runs in bad weather on the simulated broker (--seeds N, --seed S for one)
sim *args:
    {{python}} -m tests.simulation {{args}}

# rules left out one by one: each must break a world
mutations:
    {{python}} -m tests.simulation.mutations
