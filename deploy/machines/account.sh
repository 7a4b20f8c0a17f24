export DATABASE_URL_FILE=/etc/xp-graph/database_url DATABASE_REPLICA_URLS_FILE=/etc/xp-graph/database_replica_urls
export REDIS_URL_FILE=/etc/xp-graph/redis_url XP_AUTH_SECRET_FILE=/etc/xp-graph/auth_secret
xp --config /etc/xp-graph/xp.toml user create --email root@example.com --role admin --password-file password.txt
xp --config /etc/xp-graph/xp.toml doctor
