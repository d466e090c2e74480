#!/bin/bash
# Trains on a preemptible TPU slice, with photos and workdir in buckets, until the run
# has ended. Whatever ends a try before (a host that is taken back, a fault), the next
# one makes a slice anew, and the same command goes on from what the bucket has.
#
#     NAME=… ZONE=… TYPE=… VERSION=… CODE=… RUN=gs://… tools/launch_tpu.sh \
#         --config configs/joint_3B.py:0.5 --config.data.root=gs://…
#
# NAME, ZONE, TYPE, VERSION: of the slice, as gcloud has them. CODE: the address of the
# repository. RUN: the workdir. What follows is the command's, but for --workdir and the
# way in which hosts find each other.
set -u
: "$NAME" "$ZONE" "$TYPE" "$VERSION" "$CODE" "$RUN"
# Tries in a row that end within this time have a fault that no try mends.
SHORT_S=${SHORT_S:-900} MAX_SHORT=${MAX_SHORT:-3} PAUSE_S=${PAUSE_S:-120}

tpu() { gcloud compute tpus tpu-vm "$1" "$NAME" --zone="$ZONE" "${@:2}"; }
on_all_hosts() { tpu ssh --worker=all --command="$1"; }
has_ended() { gcloud storage ls "$RUN/results.json" >/dev/null 2>&1; }
remove_slice() { tpu delete --quiet; }
stop() {
    echo "launch: stopped; the slice stays, and costs. The same command goes on;" \
        "gcloud compute tpus tpu-vm delete $NAME --zone=$ZONE removes it" >&2
    exit 130
}
trap stop INT TERM HUP
give_up() { echo "launch: $1" >&2; remove_slice; exit 1; }

INSTALL="{ test -d multigrain_jax || git clone --depth 1 $CODE multigrain_jax; } &&
    cd multigrain_jax && { test -d venv || python3 -m venv venv; } &&
    venv/bin/pip install --quiet '.[tpu,gcs,parquet]'"
TRAIN="cd multigrain_jax && venv/bin/python -m multigrain_jax.main$(printf ' %q' "$@") \
    --config.distributed.coordinator=auto --workdir=$RUN"

short=0
while ! has_ended; do
    started=$SECONDS
    if tpu describe >/dev/null 2>&1 ||
        tpu create --preemptible --accelerator-type="$TYPE" --version="$VERSION"; then
        on_all_hosts "$INSTALL" && on_all_hosts "$TRAIN"
        code=$?
        has_ended && break
        [ "$code" -eq 2 ] && give_up "bad input, see the line above"
        [ $((SECONDS - started)) -lt "$SHORT_S" ] && short=$((short + 1)) || short=0
        [ "$short" -ge "$MAX_SHORT" ] && give_up "$short tries ended at once"
        remove_slice
    fi # else there is no room for one now
    echo "launch: the next try comes in $PAUSE_S s"
    sleep "$PAUSE_S"
done
remove_slice
echo "launch: done, see $RUN"
