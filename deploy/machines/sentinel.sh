sed -e "s|^bind .*|bind $(hostname)|; s|^dir .*|dir /var/lib/redis|; s|/run/secrets|/etc/redis|; s|redis-1|a|" deploy/compose/redis/sentinel.conf > /etc/redis/sentinel.conf
cat /etc/xp-graph/sentinel_accounts >> /etc/redis/sentinel.conf
echo "sentinel announce-ip $(hostname)" >> /etc/redis/sentinel.conf
install -m 600 /etc/xp-graph/sentinel_users /etc/redis/
chown -R redis:redis /etc/redis
systemctl restart redis-sentinel
