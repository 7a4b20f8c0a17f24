pg_dropcluster --stop 15 main
pg_createcluster 15 xp --port=5432
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
rm -r /var/lib/postgresql/15/xp
PGPASSWORD=$(cat /etc/xp-graph/replicator_password) runuser -u postgres -- pg_basebackup --host=a --username=replicator \
  --pgdata=/var/lib/postgresql/15/xp --checkpoint=fast --write-recovery-conf --create-slot --slot=standby
pg_ctlcluster 15 xp start
