#!/usr/bin/env bash
# Writes the fixtures of tests/fixtures anew: float64 values from PyTorch. Only changing them needs this; the
# tests use the committed files. The virtual environment it makes, .venv-torch, takes 5 GB.
#
#     scripts/make_fixtures.sh [operations] [models] [training]
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-torch
packages=(torch==2.11.0 transformers==5.17.0 safetensors==0.8.0 numpy==2.4.6 PyYAML==6.0.3)

if ! "$venv/bin/python" -c 'import torch, transformers, yaml' 2>/dev/null; then
  echo "Installing ${packages[*]} into $venv (5 GB, some minutes)"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet "${packages[@]}"
fi
exec "$venv/bin/python" tests/fixtures/generate.py "$@"
