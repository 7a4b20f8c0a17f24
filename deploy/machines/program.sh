install -m 755 target/release/xp /usr/local/bin/xp
xp --version
