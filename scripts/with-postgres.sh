#!/usr/bin/env bash
# Runs a command beside a PostgreSQL server of its own, which is reached by a socket and by nothing else and is gone afterwards.
#
#   scripts/with-postgres.sh COMMAND...      HILUM_TEST_DATABASE_URL is set for the command
set -euo pipefail

programs=$(dirname "$(readlink -f "$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -1)")")
[ -x "$programs/postgres" ] || { echo "with-postgres: PostgreSQL is not installed (Debian: apt-get install postgresql)" >&2; exit 1; }

folder=$(mktemp -d /tmp/hilum-postgres.XXXXXX)
as=()
if [ "$(id -u)" -eq 0 ]; then
    # PostgreSQL refuses to run as root.
    chown postgres "$folder"
    as=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi
(cd "$folder" && "${as[@]}" "$programs/initdb" -D "$folder/data" -U hilum -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null)
(cd "$folder" && exec "${as[@]}" "$programs/postgres" -D "$folder/data" -c listen_addresses= -c unix_socket_directories="$folder" -c fsync=off -c max_connections=400 >"$folder/log" 2>&1) &
server=$!
end() {
    kill -INT "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT
for _ in $(seq 200); do
    "$programs/pg_isready" -q -h "$folder" && break
    kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.05
done
HILUM_TEST_DATABASE_URL="postgres:///postgres?host=$folder&user=hilum" "$@"
