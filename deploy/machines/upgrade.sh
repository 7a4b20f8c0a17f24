cp /usr/local/bin/xp /usr/local/bin/xp.before
install -m 755 target/release/xp /usr/local/bin/xp
systemctl restart xp
timeout 60 sh -c 'until xp --config /etc/xp-graph/xp.toml healthcheck; do sleep 1; done'
