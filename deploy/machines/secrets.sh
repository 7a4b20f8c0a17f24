install -d -m 755 /etc/xp-graph
MODE=400 POSTGRES=a,b STANDBYS=b SENTINELS=a:26379,b:26379,c:26379 deploy/compose/secrets.sh /etc/xp-graph
