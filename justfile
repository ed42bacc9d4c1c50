# The commands that people type. `.ci/run` has everything that has to pass.

# List these commands
default:
    @just --list --unsorted

# A tracker, three seeders and a leecher in one process; `just quickstart --file PATH` shares your file
quickstart *ARGS:
    cargo run --release --locked --example quickstart -- {{ ARGS }}

# All tests; `just test -p store` runs those of one crate
test *ARGS="--workspace":
    cargo test --locked {{ ARGS }}

# Format and lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Benchmarks of the parts; bench/README.md says how to compare whole transfers with other programs
bench *ARGS:
    cargo bench --locked {{ ARGS }}

# A static program, a Debian package and a container image, in target/package; `just package-test` tries them (root)
package:
    packaging/build

# From a bare Debian to a fetched file
package-test SUITE="bookworm":
    packaging/test {{ SUITE }}

# Build the documentation and open it
docs:
    cargo doc --workspace --no-deps --document-private-items --locked --open
