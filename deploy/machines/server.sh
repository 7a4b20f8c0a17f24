address() { getent hosts "$1" | awk 'NR == 1 { print $1 }'; }
cat > /etc/xp-graph/xp.toml <<END
[http]
host = "$(address "$(hostname)")"
metrics_address = "$(address "$(hostname)"):9464"
trusted_proxies = "$(address a)"

[database]
max_connections = 20
END
install -m 644 deploy/systemd/xp.service /etc/systemd/system/xp.service
install -D -m 644 deploy/systemd/standbys.conf /etc/systemd/system/xp.service.d/standbys.conf
systemctl enable --now xp
timeout 60 sh -c 'until xp --config /etc/xp-graph/xp.toml healthcheck; do sleep 1; done'
