# What the scripts that pretrain have in common: sizes, and one process or several. Read by them, not run.
pocketbert=(pocketbert)
if [ "${PROCESSES:-1}" -gt 1 ]; then
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # a restart meets in a new store, without the addresses of the dead
    pocketbert=(torchrun --standalone --nproc-per-node "$PROCESSES" --max-restarts 3 -m pocketbert.cli)
fi
size=(--tokens 131072) flags=() layers=()
for flag in "$@"; do
    case $flag in
    --mini) size=(--mini) ;;
    --smoke)
        size=(--mini --steps 2,1 --length 16,32 --batch-size 4 --eval-batches 1 --no-tensorboard)
        layers=(--layer-steps 1 --layer-batch-size 4)
        ;;
    *) flags+=("$flag") ;;
    esac
done

run() { "${pocketbert[@]}" "$@"; }
