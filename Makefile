# Everything runs from here; see README.md. `make` alone lists the targets.
SHELL := /bin/bash
PROMPT ?= The borrow checker
.PHONY: help setup demo test test-coop test-msl test-wgsl audit audit-report performance-tables inventory lint lint-workflow bench

help:
	@sed -n 's/^## //p' Makefile

setup:
	@.ci/setup.sh

## make demo       a trained model writes text with 4-bit weights, then the audit of every kernel (quick cases)
demo: setup
	@. .ci/env.sh && cargo run --release --example generate -- \
		--model tests/fixtures/llama --prompt "$(PROMPT)" --weights fp4
	@. .ci/env.sh && cargo run --release --example audit -- --quick

## make test       all tests on this machine's adapter
test:
	@.ci/setup.sh tests
	@.ci/test.sh

## make test-coop  the cooperative-matrix tier on software Vulkan, in a Debian sid chroot (Linux, root)
test-coop: setup
	@.ci/coop.sh

## make test-msl   every case of the MSL kernels, run on the CPU (Linux): all schedules, fast math, another matrix layout
test-msl:
	@.ci/setup.sh tests
	@.ci/msl.sh

## make test-wgsl  every case of the tiers with cooperative matrices, run on the CPU as large GPUs run them
test-wgsl:
	@.ci/setup.sh tests
	@. .ci/env.sh && WGMARLIN_WGSL=all cargo test --release --test wgsl -- $(ARGS)

## make audit      the full audit; ARGS="--perf --json audit.json" adds options
audit: setup
	@. .ci/env.sh && cargo run --release --example audit -- $(ARGS)

## make audit-report  docs/support.md of the audits in docs/audits; REPORTS="a.json b.json" are added to these
audit-report:
	@[ -z "$(REPORTS)" ] || cp $(REPORTS) docs/audits/
	@cargo run --release --example report -- support docs/support.md docs/audits/*.json

## make performance-tables  the tables of docs/performance.md, of docs/performance.json
performance-tables:
	@cargo run --release --example report -- performance docs/performance.json docs/performance.md

## make inventory  how far each file of the replaced project has come on this adapter
inventory: setup
	@. .ci/env.sh && cargo run --release --example audit -- --inventory $(ARGS)

## make lint       format, clippy, rustdoc, the build without features
lint:
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps
	cargo clippy --release --no-default-features -- -D warnings

## make lint-workflow  the CI's workflow against GitHub's schema (needs Python)
lint-workflow:
	@python3 -m venv target/workflow
	@target/workflow/bin/pip install --quiet check-jsonschema
	@target/workflow/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml

## make bench      times the real shapes of every kernel; ARGS="-- qgemv" filters
bench: setup
	@. .ci/env.sh && cargo bench --bench catalogue $(ARGS)
