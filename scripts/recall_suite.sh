#!/usr/bin/env bash
# Shows where FlashEVA forgets: how often small models with full, sliding and FlashEVA attention name the value of a
# key, by how far back it stood and by how many keys there were (data/recall_suite.py: mqar). Near the end all are
# right; where neither layer's window (32) reaches, a sliding window guesses, and a chunk's summary knows less the
# more it must hold.
#
#     scripts/recall_suite.sh    everything lands in runs/recall_suite; run again, it goes on where it stopped
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build.sh release flasheva
flasheva=build/release/flasheva
data=data/recall
runs=runs/recall_suite

if [[ ! -f $data/mqar-validation.h5 ]]; then
  .venv/bin/python data/recall_suite.py mqar-training --output $data --train-sequences 25600 --validation-sequences 512
fi
.venv/bin/python data/recall_suite.py mqar --tokens --sequences 64 --output $data/mqar.jsonl
files=(data.train=$data/mqar.h5 data.validation=$data/mqar-validation.h5)

evaluate() {  # VARIANT
  $flasheva evaluate $runs/"$1"/model --multiple-choice $data/mqar.jsonl --json $runs/"$1".json >$runs/"$1".txt
}

echo "== full attention, from scratch"
$flasheva train configs/recall-full.yaml run.output=$runs/full "${files[@]}" model.architecture.vocab_size=192 \
  phases.0.steps=300
evaluate full

for variant in sliding eva_sliding eva_block; do
  case $variant in
    sliding) overrides=(model.attention.default=sliding) ;;
    eva_sliding) overrides=(model.attention.window_kind=sliding) ;;
    eva_block) overrides=(model.attention.window_kind=block) ;;
  esac
  echo "== $variant"
  $flasheva train configs/recall-tune.yaml run.output=$runs/$variant "${files[@]}" model.from=$runs/full/model \
    phases.0.steps=150 phases.1.steps=300 "${overrides[@]}"
  evaluate $variant
done

python3 scripts/summarize_recall_suite.py $runs
