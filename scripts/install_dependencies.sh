#!/usr/bin/env bash
# Installs what building, testing and the Python parts need: distribution packages (Debian 12, Ubuntu 24.04; as
# root or through sudo) and a virtual environment .venv. What is there already stays: a second run takes seconds.
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

if ! cmp -s scripts/requirements.txt .venv/installed.txt; then
  echo "Setting up .venv: $(tr '\n' ' ' <scripts/requirements.txt)"
  python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
  cp scripts/requirements.txt .venv/installed.txt
fi
