#!/usr/bin/env bash
# Runs the tests, and tells at the end what was skipped, which a runner that hides the output of tests that pass would not:
#
#   scripts/tests.sh nextest run --no-fail-fast
set -uo pipefail
cd "$(dirname "$0")/.."
said=target/nextest/default/junit.xml
if [ "$1" = nextest ]; then
    rm -f "$said"
    cargo "$@" --locked
    status=$?
else
    said=$(mktemp)
    trap 'rm -f "$said"' EXIT
    cargo "$@" --locked -- --nocapture 2>&1 | tee "$said"
    status=$?
fi
skipped=$(grep -oh 'skipped: .*\|skipped in part: .*' "$said" 2>/dev/null | sort | uniq -c)
if [ ! -s "$said" ]; then
    printf '\nWhat was skipped is not known: the tests did not run.\n'
elif [ -n "$skipped" ]; then
    printf '\nSkipped (how often, and why; tests/README.md):\n%s\n' "$skipped"
else
    printf '\nNothing was skipped.\n'
fi
exit "$status"
