#!/usr/bin/env bash
# Drives a running `perilune serve` with clients nobody here wrote. Usage: run.sh PERILUNE MODEL_DIR [SCRATCH]
set -euo pipefail

perilune=$(realpath "$1")
model=$(realpath "$2")
scratch=${3:-$(mktemp -d)}
here=$(dirname "$(realpath "$0")")
port=${PORT:-18459}
base=http://127.0.0.1:$port
export BASE_URL=$base LITELLM_LOCAL_MODEL_COST_MAP=True

mkdir -p "$scratch/js"
if [ ! -x "$scratch/py/bin/schemathesis" ]; then
    python3 -m venv "$scratch/py"
    "$scratch/py/bin/pip" install --quiet openai anthropic litellm schemathesis
fi
if [ ! -d "$scratch/js/node_modules/ai" ]; then
    (cd "$scratch/js" && npm init --yes >/dev/null && npm install --silent ai @ai-sdk/openai-compatible @ai-sdk/anthropic zod)
fi

data=$(mktemp -d)
PERILUNE_KEY=$("$perilune" keys create clients --data "$data" 2>/dev/null)
LIMITED_KEY=$("$perilune" keys create limited --requests-per-min 1 --data "$data" 2>/dev/null)
export PERILUNE_KEY LIMITED_KEY
"$perilune" serve "$model" --data "$data" --listen "127.0.0.1:$port" >"$scratch/serve.out" 2>"$scratch/serve.err" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
for _ in $(seq 600); do
    kill -0 $server || { cat "$scratch/serve.err" >&2; exit 1; }
    curl --silent --fail "$base/ready" >/dev/null && break
    sleep 0.2
done

"$scratch/py/bin/python" "$here/python_clients.py"
cp "$here/ai_sdk.mjs" "$scratch/js/"
(cd "$scratch/js" && node ai_sdk.mjs)

describe() {
    "$scratch/py/bin/schemathesis" run "$base/openapi.json" \
        --header "Authorization: Bearer $PERILUNE_KEY" \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
        --max-examples "${EXAMPLES:-50}" --request-timeout 600
}
describe

kill -TERM $server
wait $server && echo "the server drained and ended with status 0"
