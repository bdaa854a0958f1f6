#!/usr/bin/env bash
# Compiles every CUDA kernel for sm_80 and sm_90a and writes what the compiler says of it, registers, shared memory and
# spills, to benchmarks/results/cuda-kernel-resources.md. Needs nvcc, no GPU.
#
#     scripts/kernel_resources.sh [FILE]        another file than that one
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-benchmarks/results/cuda-kernel-resources.md}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
objects=build/kernel-resources
mkdir -p $objects

compile() {  # FILE: the compiler's report; the code for the GPU alone
  local name
  name=$(basename "$1" .cu)
  "$nvcc" -std=c++20 -O3 -DNDEBUG -I. --expt-relaxed-constexpr -Xptxas -v --fatbin -o "$objects/$name.fatbin" "$1" \
    '-DFLASHEVA_CUDA_ARCHITECTURES=""' --threads 2 -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a >"$objects/$name.log" 2>&1 ||
    { cat "$objects/$name.log" >&2; return 1; }
}
export -f compile
export nvcc objects
rm -f $objects/*
printf '%s\n' kernels/cuda/*.cu | grep -v float64 | # the simulator's alone
  xargs -P "${JOBS:-$(nproc)}" -I{} bash -c 'compile {}'

changed=
[[ -z $(git status --porcelain kernels) ]] || changed=', and changes to kernels/ after it'
python3 - "$("$nvcc" --version | grep -oE 'release .*')" "$(git log -1 --format=%h -- kernels)$changed" \
  "$objects" >"$out" <<'PYTHON'
import re
import subprocess
import sys
from pathlib import Path

compiler, commit, objects = sys.argv[1:]
ARCHITECTURES = ("sm_80", "sm_90a")


def short(name: str) -> str:
    """Without namespaces, return type and arguments: what tells the instances of a template apart stays."""
    name = re.sub(r"^void ", "", name).replace("(anonymous namespace)::", "").replace("flasheva::", "")
    name = re.sub(r"\((?:long|int|bool|unsigned int|unsigned long)\)", "", name)
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">" and name[i - 1] != "-")
        if c == "(" and depth == 0:
            return name[:i].replace("> >", ">>")
    return name


kernels = {}  # (file, kernel): {architecture: (registers, shared, spill stores, spill loads)}
for log in sorted(Path(objects).glob("*.log")):
    text = subprocess.run(["c++filt"], input=log.read_text(), capture_output=True, text=True, check=True).stdout
    pattern = r"Compiling entry function '(.*)' for '(\w+)'\n.*\n.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
    pattern += r"\n.*Used (\d+) registers(?:.*?(\d+) bytes smem)?"
    for name, architecture, stores, loads, registers, shared in re.findall(pattern, text):
        figures = tuple(int(x or 0) for x in (registers, shared, stores, loads))
        kernels.setdefault((log.stem + ".cu", short(name)), {})[architecture] = figures

print("# Registers, shared memory and spills of the CUDA kernels\n")
print(f"- Compiler: nvcc, {compiler}; kernels of commit {commit}")
print("- Command: `scripts/kernel_resources.sh`; read from the compiler's report, nothing was run")
print("- Shared memory: the static part, bytes; kernels may take more at the launch. Spills: bytes stored and loaded.\n")
spilling = {key: by for key, by in sorted(kernels.items()) if any(f[2] + f[3] for f in by.values())}
print(f"{len(kernels)} kernels. {len(spilling)} spill:\n")
for (file, name), by in spilling.items():
    print(f"- `{name}` ({file}): " + "; ".join(f"{a} {f[2]}, {f[3]}" for a, f in sorted(by.items()) if f[2] + f[3]))
print()
print(f"| file | kernel | {' | '.join(f'{a}: registers | shared | spills' for a in ARCHITECTURES)} |")
print("| --- | --- |" + " ---: |" * 3 * len(ARCHITECTURES))
for (file, name), by in sorted(kernels.items()):
    cells = []
    for a in ARCHITECTURES:
        registers, shared, stores, loads = by.get(a, ("", "", 0, 0))
        cells += [str(registers), str(shared), f"{stores}, {loads}" if stores + loads else ""]
    print(f"| {file} | `{name}` | {' | '.join(cells)} |")
PYTHON
echo "$out: $(sed -n 's/^\([0-9]* kernels\)\..*/\1/p' "$out")"
