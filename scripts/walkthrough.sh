#!/usr/bin/env bash
# One person's money, in and out, over HTTP. Needs a running stack (`make run`), curl and python3.
# BASE_URL says where the service is; the script stops at the first thing that is not as it should be.
set -euo pipefail

BASE_URL="${BASE_URL:-http://127.0.0.1:8000}"
EMAIL="walkthrough-$(date +%s)-$$@example.com"
PASSWORD="copper-lantern-meadow-41"
WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT

fail() { echo "FAILED: $*" >&2; [ -s "$WORK/body" ] && { cat "$WORK/body" >&2; echo >&2; }; exit 1; }

# call STATUS METHOD PATH [curl options]: the answer goes to $WORK/body and $WORK/headers and is shown.
call() {
  local wanted="$1" method="$2" path="$3" status
  shift 3
  echo; echo "> $method $path"
  status="$(curl --silent --show-error --max-time 10 --output "$WORK/body" --dump-header "$WORK/headers" \
    --write-out '%{http_code}' --request "$method" "$BASE_URL$path" "$@")" || fail "$BASE_URL does not answer"
  echo "< $status $(cat "$WORK/body")"
  [ "$status" = "$wanted" ] || fail "$method $path: wanted $wanted, got $status"
}

# field PATH: a part of the last answer, e.g. user.id or data.0.type.
field() {
  python3 -c 'import functools, json, sys
step = lambda part, name: part[int(name)] if isinstance(part, list) else part[name]
print(functools.reduce(step, sys.argv[2].split("."), json.load(open(sys.argv[1]))))' "$WORK/body" "$1"
}

expect() { [ "$2" = "$3" ] || fail "$1: wanted $3, got $2"; }

# wait_for_end PATH: until the bank has spoken; with its usual 2 to 10 seconds that takes at most 20.
wait_for_end() {
  for _ in $(seq 60); do
    call 200 GET "$1" "${AS_ME[@]}" >"$WORK/shown"
    case "$(field status)" in
      pending | processing) sleep 0.5 ;;
      *) cat "$WORK/shown"; return ;;
    esac
  done
  fail "$1 is still $(field status) after 30 seconds: does a worker run?"
}

JSON=(--header "Content-Type: application/json")

echo "== 1. Register: the wallet comes with it"
call 201 POST /api/v1/auth/register "${JSON[@]}" \
  --data "{\"first_name\": \"Asha\", \"last_name\": \"Rao\", \"email\": \"$EMAIL\", \"password\": \"$PASSWORD\"}"
USER_ID="$(field user.id)"
WALLET_ID="$(field wallet.id)"

echo; echo "== 2. Log in"
call 200 POST /api/v1/auth/login "${JSON[@]}" --data "{\"email\": \"$EMAIL\", \"password\": \"$PASSWORD\"}" >/dev/null
AS_ME=(--header "Authorization: Bearer $(field access_token)")

echo; echo "== 3. Deposit 1,000.00 INR; an account that ends in -success is never declined"
call 202 POST /api/v1/deposits "${AS_ME[@]}" "${JSON[@]}" --header "Idempotency-Key: deposit-of-$EMAIL" \
  --data '{"amount": 100000, "currency": "INR", "source": "savings-success"}'
expect "a new deposit" "$(field status)" pending
wait_for_end "/api/v1/deposits/$(field id)"
expect "the deposit" "$(field status)" success

echo; echo "== 4. Withdraw 250.00 INR: it is held until the bank has paid"
WITHDRAWAL=(--header "Idempotency-Key: withdrawal-of-$EMAIL"
  --data '{"amount": 25000, "currency": "INR", "destination": "landlord-success", "category": "rent"}')
call 202 POST /api/v1/withdrawals "${AS_ME[@]}" "${JSON[@]}" "${WITHDRAWAL[@]}"
WITHDRAWAL_ID="$(field id)"
cp "$WORK/body" "$WORK/first"

echo; echo "== 5. The same again with the same key: the first answer, byte for byte, and no second withdrawal"
call 202 POST /api/v1/withdrawals "${AS_ME[@]}" "${JSON[@]}" "${WITHDRAWAL[@]}"
cmp "$WORK/first" "$WORK/body" || fail "the replay differs"
grep --ignore-case '^idempotent-replayed: true' "$WORK/headers" || fail "the replay does not say that it is one"

echo; echo "== 6. Wait for the bank"
wait_for_end "/api/v1/withdrawals/$WITHDRAWAL_ID"
expect "the withdrawal" "$(field status)" success

echo; echo "== 7. History, newest first: paid out, set aside, paid in"
call 200 GET "/api/v1/wallets/$WALLET_ID/transactions" "${AS_ME[@]}"
expect "the history" "$(field data.0.type) $(field data.1.type) $(field data.2.type)" \
  "WITHDRAWAL_SETTLEMENT WITHDRAWAL DEPOSIT"

echo; echo "== 8. Balance: 750.00 INR"
call 200 GET "/api/v1/users/$USER_ID/balance" "${AS_ME[@]}"
expect "available and held" "$(field balances.0.available) $(field balances.0.held)" "75000 0"

echo; echo "All as expected."
