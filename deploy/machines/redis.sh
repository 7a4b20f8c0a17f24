sed -e "s|^bind .*|bind $(hostname)|; s|^dir .*|dir /var/lib/redis|; s|/run/secrets|/etc/redis|" deploy/compose/redis/redis.conf > /etc/redis/redis.conf
echo "replica-announce-ip $(hostname)" >> /etc/redis/redis.conf
[ "$(hostname)" = a ] || echo "replicaof a 6379" >> /etc/redis/redis.conf
install -m 600 /etc/xp-graph/redis_users /etc/xp-graph/redis_replica /etc/redis/
chown -R redis:redis /etc/redis
systemctl restart redis-server
