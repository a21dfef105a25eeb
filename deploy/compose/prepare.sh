#!/bin/sh
# Makes what compose needs once: .env and a folder of secrets, each a file. Overwrites nothing: run it again after a pull,
# and what is new appears. Usage: ./prepare.sh HOST, the name by which others reach this machine.
set -eu
cd "$(dirname "$0")"
host=${1:-}
if [ -z "$host" ]; then
    echo "usage: ./prepare.sh HOST    (the name by which workers and requesters reach this machine)" >&2
    exit 2
fi
case $host in
*[!A-Za-z0-9._:-]*)
    echo "error: '$host' is no host name or address: give it without https:// and without a port" >&2
    exit 2
    ;;
esac
umask 077
mkdir -p secrets
secret() { # NAME: a random word of 32 letters, if there is none yet
    if [ ! -s "secrets/$1" ]; then
        head -c 512 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c 32 > "secrets/$1"
    fi
}
for name in postgres_password objects_password grafana_password metrics_token; do secret "$name"; done
if [ ! -s secrets/objects_user ]; then printf shardwork > secrets/objects_user; fi
if [ ! -s secrets/pgpass ]; then
    printf 'postgres:5432:*:shardwork:%s\n' "$(cat secrets/postgres_password)" > secrets/pgpass
fi
if [ ! -s secrets/storage.env ]; then
    {
        echo "AWS_ACCESS_KEY_ID=$(cat secrets/objects_user)"
        echo "AWS_SECRET_ACCESS_KEY=$(cat secrets/objects_password)"
        echo "AWS_ENDPOINT=http://objects:9000"
        echo "AWS_ALLOW_HTTP=true"
        echo "AWS_REGION=us-east-1"
    } > secrets/storage.env
fi
if [ ! -s secrets/keys/coordinator.key ]; then
    if command -v shardwork-coordinator > /dev/null; then
        shardwork-coordinator keys create secrets/keys
    else
        docker run --rm --user 0:0 --volume "$PWD/secrets:/secrets" --entrypoint shardwork-coordinator \
            "${SHARDWORK_IMAGE:-shardwork-coordinator}" keys create /secrets/keys
    fi
fi
if [ ! -s .env ]; then sed "s/^SHARDWORK_ADVERTISE=.*/SHARDWORK_ADVERTISE=$host/" .env.example > .env; fi
# containers read them as user 10001, PostgreSQL and Grafana as their own; the folder stays closed to everybody else
find secrets -type f -exec chmod 0444 {} +
chmod 0700 secrets secrets/keys
echo "ready: docker compose up -d"
echo "Grafana on http://127.0.0.1:3000, user admin, password: $(cat secrets/grafana_password)"
