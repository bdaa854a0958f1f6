#!/usr/bin/env bash
# Shows that chunk summaries remember what the window has forgotten: a model must name tokens it saw far outside
# its window. A plain sliding window cannot; FlashEVA learns to.
#
#     scripts/recall.sh    everything lands in runs/recall; run again, it goes on where it stopped
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build.sh release flasheva
flasheva=build/release/flasheva
runs=runs/recall

if [[ ! -f data/recall/recall-validation.h5 ]]; then
  .venv/bin/python data/recall.py --output data/recall --train-sequences 25600 --validation-sequences 512
fi

echo "== full attention, from scratch"
$flasheva train configs/recall-full.yaml

for variant in sliding eva_sliding eva_block; do
  case $variant in
    sliding) overrides=(model.attention.default=sliding) ;;
    eva_sliding) overrides=(model.attention.window_kind=sliding) ;;
    eva_block) overrides=(model.attention.window_kind=block) ;;
  esac
  echo "== $variant"
  $flasheva train configs/recall-tune.yaml run.output=$runs/$variant "${overrides[@]}"
done

python3 scripts/summarize_recall.py $runs
