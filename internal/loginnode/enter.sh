# Runs as the first process of the node's own mount and PID namespaces and becomes sshd.
# Nothing here is visible outside: Go has made the mount tree private before it started this script.
#
# usage: sh -c SCRIPT enter DIR CLOSED SETUP SSHD ARG...
#   CLOSED is the topmost parent of DIR that other users cannot enter, or empty.
#   SETUP is a script that runs before sshd starts, or empty.
set -eu
dir=$1 closed=$2 setup=$3
shift 3

mount -t proc proc /proc
# A fresh /run: the folder for privilege separation may be created, and no name service of the host answers here.
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -m 0755 /run/sshd
# Names there are made of process ids, which are this node's own: libfaketime takes what another
# node left for its own, and removes it in sshd's sandbox, which is killed for that.
[ ! -d /dev/shm ] || mount -t tmpfs -o mode=1777 tmpfs /dev/shm

if [ -n "$closed" ]; then
	mkdir /run/dir
	mount --bind "$dir" /run/dir
	mount -t tmpfs -o mode=0755 tmpfs "$closed"
	mkdir -p "$dir"
	mount --move /run/dir "$dir"
fi

for name in passwd group shadow nsswitch.conf; do
	if [ -e "/etc/$name" ]; then
		mount --bind "$dir/etc/$name" "/etc/$name"
	fi
done
if [ -n "$setup" ]; then
	sh -eu "$setup" "$dir"
fi
exec "$@"
