#!/bin/bash
# Runs the native rows of the parity table, and calls with wrong arguments, with the extension compiled under GCC's
# address and undefined-behaviour sanitizers. The build lies in a temporary folder beside a copy of the package: what is installed is not touched.
# Usage: tests/sanitize.sh [pytest options]; PYTHON names the interpreter, DIFFRGEN_CPU the instruction set.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cp -r "$root/kernels/diffrgen_kernels" "$folder"
rm -f "$folder"/diffrgen_kernels/_native*
paths() { "$python" -c "from torch.utils import cpp_extension as e; print(*('$2' + p for p in e.$1()))"; }
flags="-std=c++17 -O1 -g -fPIC -ffp-contract=fast -fvisibility=hidden -fno-omit-frame-pointer -Wno-psabi"
flags+=" -fsanitize=address,undefined -fno-sanitize-recover=undefined -DTORCH_TARGET_VERSION=0x020b000000000000"
for source in "$root"/csrc/*.cpp "$root"/csrc/cpu/*.cpp; do
  object="$folder/$(basename "$(dirname "$source")")_$(basename "$source").o"
  # shellcheck disable=SC2086,SC2046
  g++ $flags $(paths include_paths -I) -c "$source" -o "$object"
done
# shellcheck disable=SC2046
g++ -shared -fsanitize=address,undefined "$folder"/*.o $(paths library_paths -L) -lc10 -ltorch -ltorch_cpu \
  -o "$folder/diffrgen_kernels/_native.abi3.so"

# the interpreter itself is not instrumented: its leaks are not ours, and the runtime must be loaded before it
runtime=$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so):$(g++ -print-file-name=libstdc++.so)
cd "$root"
LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0 PYTHONPATH="$folder:$root" "$python" -m pytest -q \
  -p no:cacheprovider tests/test_kernels.py tests/test_faults_operator.py \
  -k "((parity or gradients) and native and cpu) or (faults_operator and native)" "$@"
