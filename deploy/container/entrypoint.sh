#!/bin/sh
# Runs a coordinator's command with its secrets at hand. Compose and Kubernetes mount secrets as files of somebody else's;
# a coordinator takes private files only when they are its own, mode 0600, in a folder of mode 0700. So they are copied
# into memory (a tmpfs at /run/shardwork) first, under the names that the settings ask for:
#
#     authority.pem coordinator.key operator.key storage.key   -> keys/
#     metrics_token, hub_token, web.key, pgpass                -> as they are
#     storage.env                                              -> variables of the object store (AWS_…), read, not copied
set -eu
umask 077
secrets=${SECRETS_DIR:-/run/secrets/shardwork}
own=${OWN_DIR:-/run/shardwork/own}

copy() { # NAME TARGET: whole or not at all, as `exec … entrypoint` runs this again beside a coordinator that reads them
    cat "$secrets/$1" > "$2.$$"
    mv -f "$2.$$" "$2"
}

if [ -d "$secrets" ]; then
    mkdir -p "$own/keys"
    for name in authority.pem coordinator.key operator.key storage.key; do
        if [ -s "$secrets/$name" ]; then copy "$name" "$own/keys/$name"; fi
    done
    for name in metrics_token hub_token web.key pgpass; do
        if [ -s "$secrets/$name" ]; then copy "$name" "$own/$name"; fi
    done
    if [ -s "$secrets/storage.env" ]; then
        set -a
        # shellcheck disable=SC1091
        . "$secrets/storage.env"
        set +a
    fi
    if [ -s "$own/keys/coordinator.key" ]; then export SHARDWORK_KEYS_DIR="$own/keys"; fi
    if [ -s "$own/metrics_token" ]; then export SHARDWORK_METRICS_TOKEN_FILE="$own/metrics_token"; fi
    if [ -s "$own/hub_token" ]; then export SHARDWORK_HUB_TOKEN_FILE="$own/hub_token"; fi
    if [ -s "$own/web.key" ]; then export SHARDWORK_WEB_KEY_FILE="$own/web.key"; fi
    if [ -s "$own/pgpass" ]; then export PGPASSFILE="$own/pgpass"; fi
fi
exec "$@"
