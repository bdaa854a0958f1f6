#!/usr/bin/env bash
# The whole recipe on real text, in minutes on two cores: a small GPT-NeoX learns to write from Jane Austen's
# novels, its attention is replaced by FlashEVA, and two short phases of training win back what that cost.
#
#     scripts/quickstart.sh    everything lands in runs/quickstart, report.html shows it; run again, it goes on
#                              where it stopped
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build.sh release flasheva
flasheva=build/release/flasheva
runs=runs/quickstart

if [[ ! -f data/austen-validation.h5 ]]; then
  python3 data/janeausten.py
  $flasheva data prepare --input data/text/*.txt --tokenizer bytes --output data/austen.h5 --validation 0.05
fi

echo "== pretrain: full attention, from scratch"
$flasheva train configs/quickstart-pretrain.yaml

for variant in full block sliding; do
  case $variant in
    full) overrides=(model.attention.default=full) ;;
    block) overrides=(model.attention.window_kind=block) ;;
    sliding) overrides=(model.attention.window_kind=sliding) ;;
  esac
  echo "== $variant: attention_warmup, full_finetune"
  $flasheva train configs/quickstart-finetune.yaml run.output=$runs/$variant "${overrides[@]}"
done

echo "== export and generate"
$flasheva convert $runs/sliding/model $runs/export --dtype bfloat16
$flasheva generate $runs/export --prompt "It was a truth " --max-new-tokens 200 --temperature 0.8 --seed 1

python3 scripts/summarize_quickstart.py $runs
.venv/bin/python scripts/report.py $runs/{full,block,sliding} --prompt "It was a truth " --output $runs/report.html
