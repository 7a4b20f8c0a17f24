#!/bin/sh
# Makes the secrets that compose.yaml mounts, each in a file of its own in the folder that is named (deploy/secrets without one).
# What is there already stays, so it may be run again. The files can be read by every account, since Compose mounts them as they
# are for accounts of the containers; their folder is open to nobody but its owner. Where servers are called otherwise than in
# compose.yaml, $POSTGRES, $STANDBYS and $SENTINELS name them, as host or host:port, separated by commas; and where only their
# owner is to read the files, $MODE is 400.
set -eu
mode=${MODE:-444}
postgres=${POSTGRES:-postgres-1,postgres-2} standbys=${STANDBYS:-postgres-2}
sentinels=${SENTINELS:-sentinel-1:26379,sentinel-2:26379,sentinel-3:26379}
folder=${1:-$(dirname "$0")/../secrets}
umask 077
mkdir -p "$folder"
cd "$folder"

random() { od -A n -N 32 -t x1 /dev/urandom | tr -d ' \n'; }
hash() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
# One line or several to a file, from standard input.
keep() { cat >".$1.new" && chmod "$mode" ".$1.new" && mv ".$1.new" "$1"; }

[ -e auth_secret ] || random | keep auth_secret
[ -e grafana_password ] || random | keep grafana_password
[ -e postgres_password ] || random | keep postgres_password
[ -e replicator_password ] || random | keep replicator_password

if ! [ -e database_replica_urls ]; then
  password=$(random)
  echo "$password" | keep xp_password
  # Whichever of them takes writes is used.
  echo "postgres://xp:$password@$postgres/xp" | keep database_url
  urls=
  for standby in $(echo "$standbys" | tr , ' '); do urls="$urls,postgres://xp:$password@$standby/xp"; done
  echo "${urls#,}" | keep database_replica_urls
fi

# Accounts of Redis: of the servers of XP Graph (the rights that docs/operations.md lists), of the sentinels, and of replicas.
# Anybody may ask whether it is there, for the health check.
if ! [ -e redis_url ]; then
  xp=$(random) sentinel=$(random) replica=$(random)
  keep redis_users <<END
user default on nopass -@all +ping
user xp on #$(hash "$xp") ~g:{xp} ~l:{xp} ~id:{xp} ~db:{xp} ~hot:{xp} ~c1:xp:* ~xp:* resetchannels &xp:xp:changes -@all +info +eval +bitfield +bitfield_ro +get +set +getex +mget +del +xadd +xread +publish +subscribe +ping +zincrby +zunionstore +zremrangebyrank +zrevrange +expire +xlen +dbsize
user sentinel on #$(hash "$sentinel") allchannels -@all +multi +exec +slaveof +replicaof +ping +subscribe +publish +config|rewrite +role +info +client|setname +client|kill +script|kill
user replica on #$(hash "$replica") -@all +psync +replconf +ping
END
  printf 'masteruser replica\nmasterauth %s\n' "$replica" | keep redis_replica
  keep sentinel_users <<END
user default on nopass -@all +ping
user xp on #$(hash "$xp") -@all +sentinel|get-master-addr-by-name
user sentinel on #$(hash "$sentinel") allchannels +@all
END
  keep sentinel_accounts <<END
sentinel auth-user mymaster sentinel
sentinel auth-pass mymaster $sentinel
sentinel sentinel-user sentinel
sentinel sentinel-pass $sentinel
END
  echo "redis+sentinel://xp:$xp@$sentinels/mymaster?sentinel_username=xp&sentinel_password=$xp" | keep redis_url
fi
