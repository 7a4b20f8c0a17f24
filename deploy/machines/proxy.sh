sed -e 's|listen 8081;|include /etc/nginx/xp-graph-tls.conf;|' \
  -e 's|server 127.0.0.1:8080 \(.*\)|server a:8080 \1|' \
  -e 's|server 127.0.0.1:8082 \(.*\)|server b:8080 \1\n  server c:8080 \1|' deploy/nginx/xp-graph.conf > /etc/nginx/conf.d/xp-graph.conf
cp deploy/nginx/tls.conf /etc/nginx/xp-graph-tls.conf
mkdir -p /var/cache/nginx
nginx -t
systemctl restart nginx
