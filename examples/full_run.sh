#!/usr/bin/env bash
# The whole of wetread as one script: films -> dataset -> reader -> figures -> reads -> heat maps.
#
#   bash examples/full_run.sh OUT
#
# OUT is a new folder; everything lands in it. The films are synthetic, so that nothing is downloaded and
# every answer can be checked against what was planted. On two cores it takes several minutes; smaller:
#
#   IMAGES=90 SIZE=96 EPOCHS=2 RESAMPLES=200 bash examples/full_run.sh OUT
#
# Research use only. Not a diagnosis.
set -euo pipefail

OUT=${1:?expected a new folder, got none; run: bash examples/full_run.sh OUT}
IMAGES=${IMAGES:-400}       # films to learn from; each split needs both classes, and the gate 30 training films
SIZE=${SIZE:-256}           # side of the square films and of the network's input, pixels
EPOCHS=${EPOCHS:-6}         # passes of the fine-tuning
RESAMPLES=${RESAMPLES:-1000} # of the bootstrap behind the intervals
SEED=${SEED:-7}

[[ ! -e $OUT ]] || { echo "expected a new folder, got $OUT, which exists; name another" >&2; exit 2; }
stage() { printf '\n== %s   (after %d s)\n' "$*" "$SECONDS"; }

# A study that is refused, or a map that cannot be made, is a result: exit code 1 says that there is a list of them.
some_may_fail() { "$@" || { local code=$?; [[ $code -eq 1 ]] || exit "$code"; }; }

# ---------------------------------------------------------------------------------------------------------------
stage "1. Films: two hospitals, CR DICOM, half of the patients with a consolidation"
# Two sources, so that we can see whether the reader works for both. Patients have one to three films each, so that a
# split by image would leak. The second folder holds patients that no training run will ever meet.

python - "$OUT" "$IMAGES" "$SIZE" "$SEED" <<'PYTHON'
import sys
from pathlib import Path

from wetread.datasets.phantoms import SOURCES, DatasetPlan, make_dataset

out, images, size, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
common = {"sources": tuple(SOURCES)[:2], "size_px": size, "masks": False, "fractions": {}}
make_dataset(out / "films", DatasetPlan(n=images, seed=seed, **common))
make_dataset(out / "inbox", DatasetPlan(n=6, seed=seed + 1, **common))
PYTHON

# ---------------------------------------------------------------------------------------------------------------
stage "2. Import: a table of the films where they are"
# Nothing is copied. --negative says which class means "nothing found"; the name `normal` would have been understood.

wetread dataset import "$OUT/films" --layout dicom --labels "$OUT/films/labels.csv" --negative normal \
  --name phantoms --out "$OUT/dataset"

# ---------------------------------------------------------------------------------------------------------------
stage "3. Check: decode every film once, before any network does"
# Unreadable files, copies, odd pictures, conflicting labels. What blocks ends the script here (exit code 3).
#
# With films of people leave --out away: then the split below learns of near duplicates and keeps them on one side. Not
# here: all phantoms are one model of a body, and different ones look like copies to the check. It says so.

wetread dataset check "$OUT/dataset" --out "$OUT/check"

# ---------------------------------------------------------------------------------------------------------------
stage "4. Split: by patient, balanced over classes"
# Train to learn from, val to choose with, test to be opened once, at the end.

wetread dataset split "$OUT/dataset" --train 0.6 --val 0.2 --test 0.2 --seed "$SEED"

# ---------------------------------------------------------------------------------------------------------------
stage "5. Train the reader to beat: frozen ImageNet features, a linear head"
# Seconds. If a fine-tuned network is not better than this, it has learned nothing worth its hours.

card=(--modalities CR --body-parts CHEST --population "synthetic phantoms from two sources; no persons"
      --limits "It has seen phantoms only and knows nothing about people.")
wetread train "$OUT/dataset" --mode features --image-size "$SIZE" --seed "$SEED" --name features \
  "${card[@]}" --out "$OUT/features"

# ---------------------------------------------------------------------------------------------------------------
stage "6. Train the whole network"
# The same encoder, all weights learning. Stopped or killed, the same command with --resume goes on.

wetread train "$OUT/dataset" --mode finetune --image-size "$SIZE" --epochs "$EPOCHS" --batch-size 16 \
  --seed "$SEED" --name finetuned "${card[@]}" --out "$OUT/finetuned"

# ---------------------------------------------------------------------------------------------------------------
stage "7. Choose between them: on validation"
# Choosing on test would make the figures of the next step too good. The comparison is paired: same patients.

wetread evaluate "$OUT/finetuned" --compare "$OUT/features" --resamples "$RESAMPLES" --out "$OUT/choice"
CHOSEN=$(python - "$OUT" <<'PYTHON'
import json
import sys
from pathlib import Path

def validation_auroc(run):
    return json.loads((run / "results.json").read_text())["metrics"][0]["estimate"]["value"]

print(max((Path(sys.argv[1]) / name for name in ("features", "finetuned")), key=validation_auroc))
PYTHON
)
echo "Chosen on validation: $CHOSEN"

# ---------------------------------------------------------------------------------------------------------------
stage "8. Evaluate the chosen one: the test split, once"
# The thresholds are those of step 5 or 6. --by source: is it as good for both hospitals?

wetread evaluate "$CHOSEN" --data "$OUT/dataset" --split test --by source --resamples "$RESAMPLES" \
  --out "$OUT/evaluation"

# ---------------------------------------------------------------------------------------------------------------
stage "9. Read new patients"
# One page for each study and an overview. A film that the gate refuses gets a reason and no probability.

some_may_fail wetread read "$OUT/inbox/images" --reader "$CHOSEN" --out "$OUT/reads"

# ---------------------------------------------------------------------------------------------------------------
stage "10. Explain: where did the score come from?"
# Maps and boxes as files, for a closer look than the pages give. A clear negative has no place that speaks for it:
# then there is a reason in failures.csv, and no blank picture.

some_may_fail wetread explain "$OUT/inbox/images" --reader "$CHOSEN" --out "$OUT/maps"

# ---------------------------------------------------------------------------------------------------------------
stage "11. Share: one zip file with hashes, weights without pickle, and the card"

wetread models export "$CHOSEN" --out "$OUT/reader.zip"

stage "Done. Look at:"
printf '  %s\n' "$OUT/check/check.html" "$CHOSEN/report.html" "$OUT/choice/report.html" "$OUT/evaluation/report.html" \
  "$OUT/reads/index.html" "$CHOSEN/reader/README.md"
