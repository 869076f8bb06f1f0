#!/usr/bin/env bash
# The kernels' agreement suites on two emulated 64-bit Arm processors: one with dot products of 8-bit codes, one without.
# Needs the target (rustup target add aarch64-unknown-linux-gnu), a linker for it and QEMU (Debian: gcc-aarch64-linux-gnu
# libc6-dev-arm64-cross qemu-user). Arguments go to the tests: `--skip attention` leaves out what takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
for cpu in max cortex-a72; do
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu"
    cargo test -p perilune-kernels --target aarch64-unknown-linux-gnu --test agree --test agree_train -- "$@"
done
