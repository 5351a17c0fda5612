# Boots a systemd of its own on a copy of this machine's file system that is forgotten afterwards: $1 is an empty folder for it. It is run
# in new process, mount, control group, host name and message namespaces; the network is the caller's.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root" "$1/shared"
root=$1/root
mount --bind "$2" "$1/shared"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/host"
mount --bind "$1/shared" "$root/run/host"
# None of this machine's services, and no name of its own that would be taken for the host's.
rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/postroom.* "$root/var/lib/postroom" "$root/etc/postroom" "$root/etc/machine-id"
: >"$root/etc/machine-id"
echo "nameserver 127.0.0.1" >"$root/etc/resolv.conf"
cp "$3" "$root/usr/local/bin/postroom"
exec chroot "$root" /usr/bin/env -i container=oci NOTIFY_SOCKET=/run/host/notify PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --unit=basic.target --log-target=console --show-status=no
