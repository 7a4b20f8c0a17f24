#!/bin/sh
# Starts one of two PostgreSQL servers: with an empty data directory as a standby of the other one ($PEER), where that takes
# writes; else, if $FIRST is set, as the primary of a new database. Run by compose.yaml instead of the image's own script.
#
# Nothing promotes a standby by itself here (Patroni does: docs/operations.md). By hand, when the primary is lost and stopped:
#   docker compose exec postgres-2 sh -c 'pg_ctl promote -D "$PGDATA"'
# The old primary refuses to start beside the new one. Remove its volume before anything else is started: it begins as a standby.
set -eu
umask 077
secret() { cat "/run/secrets/$1"; }

# `t` for a standby, `f` for a server that takes writes, nothing where it does not answer.
peer_is_standby() {
  PGPASSWORD=$(secret replicator_password) PGCONNECT_TIMEOUT=5 psql -XAtq -h "$PEER" -U replicator -d postgres -c 'select pg_is_in_recovery()' || true
}

if [ -e "$PGDATA/PG_VERSION" ]; then
  if ! [ -e "$PGDATA/standby.signal" ] && [ "$(peer_is_standby)" = f ]; then
    echo "$PEER takes the writes now: two primaries would lose some. Remove this server's volume, and it begins as a standby." >&2
    exit 1
  fi
elif [ "$(peer_is_standby)" = f ]; then
  echo "copying $PEER, to be its standby"
  rm -rf "$PGDATA.new"
  # The slot keeps what this server has not received, up to max_slot_wal_keep_size; one of an earlier copy goes.
  PGPASSWORD=$(secret replicator_password) psql -XAtq -h "$PEER" -U replicator -d postgres \
    -c "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'standby' and not active"
  PGPASSWORD=$(secret replicator_password) pg_basebackup --host="$PEER" --username=replicator --pgdata="$PGDATA.new" \
    --checkpoint=fast --wal-method=stream --write-recovery-conf --create-slot --slot=standby
  mv "$PGDATA.new" "$PGDATA"
elif [ -n "${FIRST:-}" ]; then
  echo "making a new database"
  rm -rf "$PGDATA.new"
  initdb --pgdata="$PGDATA.new" --username=postgres --pwfile=/run/secrets/postgres_password --auth=scram-sha-256 \
    --encoding=UTF8 --locale=C.UTF-8 --data-checksums
  postgres --single -D "$PGDATA.new" -c exit_on_error=true postgres <<END
create role replicator login replication password '$(secret replicator_password)'
create role xp login password '$(secret xp_password)'
create database xp owner xp encoding 'UTF8'
END
  mv "$PGDATA.new" "$PGDATA"
else
  echo "$PEER does not take writes, so there is nothing to be a standby of" >&2
  exit 1
fi
exec postgres -D "$PGDATA" -c config_file=/etc/postgresql/postgresql.conf
