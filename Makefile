# Everything here works on a fresh machine: what is missing is installed where that needs no password.

.DEFAULT_GOAL := help
.PHONY: help run test check format bench duplicates chaos

help: ## Lists what can be made
	@sed -n 's/^\([a-z]*\): ## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'

run: ## Brings up both services in one process, to try them out
	@features=; \
	tests/tools/ensure postgresql >/dev/null || features="--features download-postgresql"; \
	cargo run $$features

test: ## Runs all tests on a PostgreSQL and a RabbitMQ of their own
	@tests/tools/ensure smtp-sink >/dev/null
	PATH="$$PATH:$$(tests/tools/ensure smtp-sink)" tests/servers cargo test --workspace
	tests/e2e/run
	tests/browser/run

check: ## Checks format, lints, contract, licenses, SQL against the migrations, and that each query is explained
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@tests/tools/ensure buf >/dev/null
	PATH="$$(tests/tools/ensure buf):$$PATH" buf lint
	PATH="$$(tests/tools/ensure buf):$$PATH" buf format --diff --exit-code
	@tests/tools/ensure cargo-deny >/dev/null
	cargo deny --log-level warn check bans licenses sources
	tests/tools/sqlx-data check
	tests/explain

format: ## Formats Rust and the contract
	cargo fmt --all
	PATH="$$(tests/tools/ensure buf):$$PATH" buf format --write

# ROWS=P1,P4 measures some rows alone; PROGRAMS=DIRECTORY measures the programs of another build.
bench: ## Measures the release build and compares it with its parts
	cargo build --release -p account-svc -p notify-svc -p usher-tests --bins --examples
	PROGRAMS=$(PROGRAMS) tests/servers --private --durable tests/bench $(ROWS)

# SETS=list.tsv measures lists of your own; their format is at the top of the example.
duplicates: ## Measures how well duplicates are found, by kind of error and size of the organization
	cargo run --release -p usher-tests --example duplicates -- $(SETS)

# ROWS=failures,urgent runs some rows alone; PROGRAMS=DIRECTORY runs the programs of another build.
chaos: ## Sends emails while processes, network and relay fail, and accounts for each of them
	cargo build --release -p notify-svc -p usher-tests --bins --example chaos
	built=$${CARGO_TARGET_DIR:-target}/release; \
	USHER_PROGRAMS="$(or $(PROGRAMS),$$built)" tests/servers --private --durable "$$built/examples/chaos" $(ROWS)
