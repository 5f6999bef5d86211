#!/bin/bash
# tests/sim/mutations.sh [NAME...]: breaks one rule at a time in a copy of the tree, and shows what of the simulation notices it. Not part
# of ./check; docs/testing.md has what it printed. SEED: the base seed (1). Exits with 1 when a mutation is not caught.
set -euo pipefail
cd "$(dirname "$0")/../.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r CMakeLists.txt CMakePresets.json docs proto tests worker "$copy"
(cd "$copy" && cmake --preset release >/dev/null)
sim=$copy/build/release/tests/sim
wanted=" $* "
missed=0

# What the last run in $copy/log says.
finding() {
    grep -hoE -m1 'FAILED: .*|Assertion .*' "$copy/log" || echo "it crashes"
}

# One after the other, so that the seed alone decides.
try() {
    for run in "--count 2000" "--every-step --count 20"; do
        # shellcheck disable=SC2086
        if ! timeout 300 "$sim" --seed "${SEED:-1}" $run -j 1 >"$copy/log" 2>&1; then
            echo "sim $run: $(finding)"
            return
        fi
    done
    echo "not caught"
}

# mutation NAME FILE SED...: every expression must change something.
mutation() {
    local name=$1 file=$2 what
    shift 2
    [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || return 0
    for expression in "$@"; do
        cp "$copy/$file" "$copy/before"
        sed -i -E "$expression" "$copy/$file"
        ! cmp -s "$copy/before" "$copy/$file" || { echo "$name: nothing to change: $expression"; exit 1; }
    done
    cmake --build "$copy/build/release" --target sim >"$copy/log" 2>&1 || { grep -m3 error: "$copy/log"; exit 1; }
    what=$(try)
    [ "$what" != "not caught" ] || missed=$((missed + 1))
    printf '%-16s %s\n' "$name" "$what"
    cp "$file" "$copy/$file"
}

mutation drain worker/lifecycle.c 's/(cut_us = is_lost \? 0 : now_us) .*;/\1;/' 's/(give_up_us = is_lost \? 0 : cut_us) .*;/\1;/'
mutation early-finish worker/pipeline.c 's/^\twindow_finish\(part->win.*$//' \
    's/^\tdispatch_send\(pl->dispatcher, task\);/\twindow_finish(task->partition->win, task->rec.offset);\n\tlist_remove(\&task->open_node);\n&/'
mutation set worker/pipeline_parts.c 's/if \(window_restore\(.*\)\)/if (false)/'
mutation failed-commit worker/pipeline_commit.c 's/window_mark_dirty\(part->win\)/(void)part/'
mutation epoch worker/dispatch.c '/^size_t dispatch_forget/,/^}/s/dsp->task->partition != part\)/true)/'
mutation lost-txn worker/pipeline_parts.c 's/^\t\tkafka_out_abort\(.*$/\t\t(void)pl;/'
mutation read-back worker/lifecycle.c 's/^\tif \(end == TXN_IN_DOUBT\) \{/\tif (false) {/'
mutation doubt-is-done worker/lifecycle.c 's/^\tif \(end == TXN_IN_DOUBT\) \{/\tend = end == TXN_IN_DOUBT ? TXN_COMMITTED : end;\n&/'
mutation abort-is-done worker/dispatch.c '/^void dispatch_on_txn/,/^}/s/else if \(end == TXN_COMMITTED\)/else if (true)/'
mutation not-again worker/dispatch.c 's/^static void send_again/__attribute__((unused)) &/' \
    '/^void dispatch_on_txn/,/^}/s/send_again\(disp, dsp\);/list_push(\&disp->kept, \&dsp->node);/' \
    '/^void dispatch_on_txn/,/^}/s/^\t+set_again\(disp, row, .*$/(void)row;/'
mutation lone-letter worker/dispatch.c 's/set_again\(disp, dsp, disp->is_exactly_once\);/;/'
mutation letter-late worker/dispatch.c '/^static void send_again/,/^}/s/DEAD_LETTER_NONE;/DEAD_LETTER_SENT;/'
mutation letter-grows worker/dispatch.c 's/if \(!dsp->numbers\)/if (true)/'
mutation cut-abort worker/lifecycle.c 's/^\tpl->out = NULL;$//'
mutation not-quiet worker/pipeline_commit.c 's/ \|\| !dispatch_may_commit\(pl->dispatcher\)//'
mutation late-member tests/sim/consumer.c \
    '/^struct kafka_member \*kafka_in_member/,/^}/s/^\{/{\n\tin->taken = (struct kafka_member){in->member ? in->member->id : 0, broker.generation};/'
mutation no-member tests/sim/consumer.c 's/in->taken = in->given;/&\n\tin->taken.generation = -1;/'
exit $((missed > 0))
