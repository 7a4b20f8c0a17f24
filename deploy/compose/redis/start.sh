#!/bin/sh
# Starts Redis or a sentinel with a file of its own in /data, which the program itself changes when another server becomes the
# master. $NAME is how others reach it; a Redis with $MASTER begins as a replica of that. Run by compose.yaml.
#
# usage: start.sh redis|sentinel
set -eu
umask 077
file=/data/$1.conf
if ! [ -e "$file" ]; then
  case $1 in
    redis)
      echo "include /etc/redis/redis.conf"
      echo "replica-announce-ip $NAME"
      [ -z "${MASTER:-}" ] || echo "replicaof $MASTER 6379"
      ;;
    sentinel)
      cat /etc/redis/sentinel.conf /run/secrets/sentinel_accounts
      echo "sentinel announce-ip $NAME"
      ;;
  esac >"$file.new"
  mv "$file.new" "$file"
fi
if [ "$1" = sentinel ]; then exec redis-server "$file" --sentinel; else exec redis-server "$file"; fi
