base=/backup/base/$(date +%F)
runuser -u postgres -- pg_basebackup --checkpoint=fast --wal-method=stream --pgdata="$base"
runuser -u postgres -- /usr/lib/postgresql/15/bin/pg_verifybackup "$base"
