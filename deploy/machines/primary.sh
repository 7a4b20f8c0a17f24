pg_dropcluster --stop 15 main
pg_createcluster 15 xp --port=5432 -- --data-checksums
cp deploy/postgres/archive.conf /etc/postgresql/15/xp/conf.d/archive.conf
cat > /etc/postgresql/15/xp/conf.d/xp.conf <<END
listen_addresses = '$(hostname)'
max_connections = 120
max_slot_wal_keep_size = 4GB
hot_standby_feedback = on
END
cat >> /etc/postgresql/15/xp/pg_hba.conf <<END
host xp          xp         samenet scram-sha-256
host replication replicator samenet scram-sha-256
END
install -d -o postgres -m 700 /backup/wal /backup/base
pg_ctlcluster 15 xp start
runuser -u postgres -- psql --quiet --set=ON_ERROR_STOP=1 <<END
create role xp login password '$(cat /etc/xp-graph/xp_password)';
create role replicator login replication password '$(cat /etc/xp-graph/replicator_password)';
create database xp owner xp;
END
