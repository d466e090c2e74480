#!/usr/bin/env bash
# What BENCHMARKS.md has of a GPU, anew: every part in turn, in at most ten minutes.
#
#     pip install -e '.[cuda,benchmark,quickstart,faiss,browse]'
#     bash measure/gpu_all.sh
#     bash measure/gpu_all.sh --trial    # tiny sizes on a CPU: does everything run?
#
# Each part has a share of the time (--seconds, 590), and what the parts before it left
# of theirs. One that fails, or takes longer, is "not run", with the last line that it
# printed, and the others go on. The exit code is how many were not run; 64: nothing was.
set -u

total=590 trial="" given=$*
while (($#)); do
    case $1 in
        --trial) trial=1 ;;
        --seconds) total=${2-} && shift ;;
        *) total="" ;;
    esac
    [[ $total =~ ^[1-9][0-9]*$ ]] || {
        echo "gpu_all.sh: found $given, expected --trial or --seconds N" >&2
        exit 64
    }
    shift
done
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 64
log=$(mktemp) || exit 64
running="" share_sum=0 failed=0 summary=()
trap 'rm -f "$log"' EXIT
trap '[ -z "$running" ] || kill "$running"; exit 130' INT TERM

part() { # NAME SHARE COMMAND...: run it for SHARE % of the time, and say how it went
    local name=$1 share=$2 began=$SECONDS limit code figure
    shift 2
    share_sum=$((share_sum + share))
    limit=$((total * share_sum / 100 - SECONDS))
    printf '\n== %s, at most %s s: %s\n' "$name" "$limit" "$*"
    if ((limit > 0)); then # `timeout 0` would wait for ever
        timeout -k 2 "$limit" "$@" >"$log" 2>&1 &
        running=$!
        wait "$running"
        code=$? running=""
        cat "$log"
    else
        echo "no time was left" >"$log" && code=124
    fi
    if ((code == 0)); then
        figure=$(grep -m1 -E '^(this package|embedding, masked|embed:)' "$log")
    else
        figure=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1)
        ((code != 124 && code != 137)) || figure="stopped after $limit s; $figure"
        figure="not run: ${figure:-it printed nothing}"
        printf '%s\n' "$figure"
        failed=$((failed + 1))
    fi
    summary+=("$(printf '%-26s %4s s  %s' "$name" $((SECONDS - began)) "$figure")")
}

step=(python measure/step.py) eval=(python measure/eval.py)
browse=(python measure/browse.py --rows 0 --memory-requests 0 --hostile 0)
search=(python measure/search.py)
if [ -n "$trial" ]; then
    export JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=""
    small=(--size 32 --batch-size 12 --group-size 6 --dtype float32 --steps 1)
    step+=(--backbone resnet18 "${small[@]}")
    eval+=(--backbone resnet18 --test-size 32 --num-photos 8)
    browse+=(--test-size 64 --photos 5 --clients 2 --requests 2)
    search+=(--rows 2000)
    groups=3
else
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || {
        echo "gpu_all.sh: found no GPU, expected one; --trial runs on a CPU" >&2
        exit 64
    }
    # Where JAX cannot use the GPU this is an error, rather than hours on the CPU.
    export JAX_PLATFORMS=cuda,cpu CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
    eval+=(--test-size 500 --num-photos 2048)
    browse+=(--backbone resnet50 --photos 500 --requests 20)
    groups=512
fi
# What was compiled before would not show what compiling takes.
unset JAX_COMPILATION_CACHE_DIR
export PYTHONUNBUFFERED=1 # what a part printed before it was stopped is not lost

own=("${step[@]}" --own-only --step-only)
with_flag() { part "$1" "$2" env "XLA_FLAGS=${XLA_FLAGS:-} $3" "${own[@]}"; }
part "step, PyTorch beside it" 22 "${step[@]}"
part "step, deterministic" 9 "${own[@]}" --deterministic
part "evaluation, 500 rect" 20 "${eval[@]}" --only embedding --few-shapes
part "embed, browse" 9 "${browse[@]}"
part "search" 6 "${search[@]}"
part "step, groups of $groups" 9 "${own[@]}" --group-size "$groups"
with_flag "step, latency hiding" 9 --xla_gpu_enable_latency_hiding_scheduler=true
with_flag "step, no Triton products" 8 --xla_gpu_enable_triton_gemm=false
with_flag "step, no command buffers" 8 --xla_gpu_enable_command_buffer=

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
