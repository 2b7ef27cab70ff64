command -v cargo >/dev/null || debian cargo || return
export CARGO_TARGET_DIR=$cache/rust
cargo build --locked --quiet || return
program lapin 4.12.3 scenarios "$cache/rust/debug/lapin"
program amqprs 2.1.5 scenarios "$cache/rust/debug/amqprs"
