install -m 755 /usr/local/bin/xp.before /usr/local/bin/xp
systemctl restart xp
timeout 60 sh -c 'until xp --config /etc/xp-graph/xp.toml healthcheck; do sleep 1; done'
