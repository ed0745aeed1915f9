# Installs the endpoints and libraries that the interop tests need, pinned, under target/interop, and
# starts the endpoints; fails loudly where that is not possible. To be sourced, at the top level.
# shellcheck shell=bash

KINESIS_LOCAL=0.6.2
DYNALITE=4.0.0
AWS_KINESIS_AGG_NPM=4.2.8
PROTOBUFJS=7.2.4
MOTO=5.2.5
AWS_KINESIS_AGG_PYPI=1.2.3
AIOKPL=0.2.0
ZSTANDARD=0.25.0
# As in Lambda's runtime nodejs22.x, for the recipes.
NODE=22.23.3
home="$PWD/target/interop"
mkdir -p "$home"

have() { command -v "$1" >/dev/null; }

if ! have node || ! have npm || ! have openssl || ! have python3 || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    apt-get update -qq
    apt-get install -y -qq nodejs npm openssl python3 python3-venv
fi

npm=("kinesis-local@$KINESIS_LOCAL" "dynalite@$DYNALITE" "aws-kinesis-agg@$AWS_KINESIS_AGG_NPM" "protobufjs@$PROTOBUFJS"
    "node@$NODE")
pypi=("moto[server]==$MOTO" "aws-kinesis-agg==$AWS_KINESIS_AGG_PYPI" "aiokpl==$AIOKPL"
    "zstandard==$ZSTANDARD")
# What was installed is written down last, so that what broke off is begun anew.
if [ "$(cat "$home/installed" 2>/dev/null)" != "${npm[*]} ${pypi[*]}" ]; then
    npm install --silent --no-audit --no-fund --prefix "$home" "${npm[@]}"
    [ -x "$home/venv/bin/pip" ] || python3 -m venv "$home/venv"
    "$home/venv/bin/pip" install --quiet "${pypi[@]}"
    echo "${npm[*]} ${pypi[*]}" >"$home/installed"
fi
# For the scripts that the tests run.
export NODE_PATH="$home/node_modules" PATH="$home/venv/bin:$PATH"

# Every server is ended with this script, however it ends; kinesis-local takes its time on SIGTERM.
servers=()
trap 'kill -9 "${servers[@]}" 2>/dev/null || true' EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

wait_for() { # name port log
    for _ in $(seq 300); do
        if python3 -c "import socket; socket.create_connection(('127.0.0.1', $2), 1)" 2>/dev/null; then
            return
        fi
        sleep 0.1
    done
    echo "$1 does not answer on port $2:" >&2
    cat "$3" >&2
    exit 1
}

# A certificate of its own, which clients can be told to trust.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
    -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -keyout "$home/key.pem" -out "$home/certificate.pem" 2>"$home/openssl.log" ||
    { cat "$home/openssl.log" >&2 && exit 1; }
python3 - "$home" <<'END'
import json, pathlib, sys
home = pathlib.Path(sys.argv[1])
server = {"key": (home / "key.pem").read_text(), "cert": (home / "certificate.pem").read_text()}
(home / "server.json").write_text(json.dumps({"server": server}))
END

plain=$(free_port)
tls=$(free_port)
# All tests share one endpoint, and none deletes its streams.
SHARD_LIMIT=500 \
    KINESIS_MOCK_CERT_PATH="$home/server.json" \
    KINESIS_MOCK_PLAIN_PORT="$plain" KINESIS_MOCK_TLS_PORT="$tls" LOG_LEVEL=ERROR \
    CREATE_STREAM_DURATION=10ms SPLIT_SHARD_DURATION=10ms MERGE_SHARDS_DURATION=10ms \
    node "$home/node_modules/kinesis-local/main.js" >"$home/kinesis-local.log" 2>&1 &
servers+=($!)

moto=$(free_port)
"$home/venv/bin/moto_server" -H 127.0.0.1 -p "$moto" >"$home/moto.log" 2>&1 &
servers+=($!)

dynalite=$(free_port)
node "$home/node_modules/dynalite/cli.js" --host 127.0.0.1 --port "$dynalite" --createTableMs 10 \
    >"$home/dynalite.log" 2>&1 &
servers+=($!)

wait_for kinesis-local "$plain" "$home/kinesis-local.log"
wait_for moto "$moto" "$home/moto.log"
wait_for dynalite "$dynalite" "$home/dynalite.log"

export PATH="$home/node_modules/node/bin:$PATH"
export KINETAIL_KINESIS_LOCAL_TLS_PORT="$tls"
export KINETAIL_KINESIS_LOCAL_CERTIFICATE="$home/certificate.pem"
export KINETAIL_KINESIS_LOCAL="http://127.0.0.1:$plain"
export KINETAIL_MOTO="http://127.0.0.1:$moto"
export KINETAIL_DYNALITE="http://127.0.0.1:$dynalite"
