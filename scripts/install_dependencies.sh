#!/usr/bin/env bash
# Installs what building, testing and the Python parts need: distribution packages (Debian 12 or 13, Ubuntu 24.04; as
# root or through sudo) and a virtual environment .venv. What is there already stays: a second run takes seconds.
#
#     scripts/install_dependencies.sh                  for building and the C++ tests
#     scripts/install_dependencies.sh --python-tests   also PyTorch, lm_eval and transformers 5 in .venv (6 GB), and
#                                                      transformers 4 in .venv/transformers-4, used through PYTHONPATH
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  g++ cmake ninja-build ccache
  libdnnl-dev ocl-icd-opencl-dev libhdf5-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libfmt-dev libxxhash-dev
  zlib1g-dev libzstd-dev libpcre2-dev libutf8proc-dev libisal-dev
  libopenmpi-dev openmpi-bin openssh-client  # mpirun looks for ssh even where all ranks are local
  libgtest-dev libgmock-dev
  clang libclang-rt-dev libomp-dev      # the fuzz targets
  python3 python3-venv ca-certificates
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if ((${#missing[@]})); then
  as_root=()
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || { echo "install_dependencies: run as root, or install sudo" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "Installing ${missing[*]}"
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"
fi

pip_install() {  # REQUIREMENTS STAMP OPTION...: once, until the requirements change
  cmp -s "$1" "$2" && return
  echo "Installing into .venv: $(tr '\n' ' ' <"$1")"
  [[ -x .venv/bin/python ]] || python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1" "${@:3}"
  cp "$1" "$2"
}

pip_install scripts/requirements.txt .venv/installed.txt
if [[ ${1:-} == --python-tests ]]; then
  pip_install scripts/requirements-python-tests.txt .venv/installed-python-tests.txt -r scripts/requirements.txt
  pip_install scripts/requirements-transformers-4.txt .venv/installed-transformers-4.txt \
    --upgrade --no-deps --target .venv/transformers-4
fi
