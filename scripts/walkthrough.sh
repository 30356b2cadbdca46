#!/usr/bin/env bash
# Runs the README's walkthrough as it is printed there, and stops at the first step that is not as it should be.
# Needs a running stack (`make run`), curl and python3; BASE_URL says where the service is.
set -euo pipefail

README="$(dirname "$0")/../README.md"
# The bank takes at most 10 seconds for each of the two orders.
LIMIT_S=90

STEPS="$(sed -n '/<!-- walkthrough:begin -->/,/<!-- walkthrough:end -->/p' "$README" | sed '/^```/d; /^<!--/d')"
[ -n "$STEPS" ] || { echo "README.md has no walkthrough" >&2; exit 2; }
# Each step's own comment is its title.
TITLED="$(sed -E 's/^# ([0-9]+\..*)$/echo; echo "== \1"/' <<< "$STEPS")"
STATUS=0
timeout "$LIMIT_S" bash -euo pipefail -c "$TITLED" || STATUS=$?
case $STATUS in
  0) echo; echo "All as expected." ;;
  124) echo "FAILED: not done after $LIMIT_S seconds; does a worker run?" >&2; exit 1 ;;
  *) echo "FAILED in the step whose title stands last" >&2; exit 1 ;;
esac
