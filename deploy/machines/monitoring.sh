sed -e 's|xp-1:9464, xp-2:9464|a:9464, b:9464, c:9464|; s|prometheus:9090|a:9090|' deploy/compose/prometheus/prometheus.yml > /etc/prometheus/prometheus.yml
cp deploy/prometheus/rules.yaml /etc/prometheus/rules.yaml
promtool check config /etc/prometheus/prometheus.yml
systemctl restart prometheus
