# Starts Slurm with its accounting in the namespaces of a login node. What goes before this text sets: ctld, slurmd, dbd
# (ports), host, users (names) and plugin (of cgroups).
dir=$1/slurm
mkdir -p "$dir/state" "$dir/spool" "$dir/db" "$dir/etc" /run/munge /run/mysqld
chmod 0755 "$dir" /run/munge
rm -f "$dir/ready" "$dir/failed"

cat >"$dir/etc/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld
SlurmdPort=$slurmd
CommunicationParameters=NoInAddrAny
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=50
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$dbd
AccountingStoreFlags=job_env,job_script
AccountingStorageEnforce=associations,limits
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname=$host Sockets=2 CoresPerSocket=3 ThreadsPerCore=2 RealMemory=4000 Feature=f7t
PartitionName=part01 Nodes=ALL Default=YES MaxTime=60 State=UP
PartitionName=hid Nodes=ALL Hidden=YES MaxTime=60 State=UP
END
echo "CgroupPlugin=$plugin" >"$dir/etc/cgroup.conf"
cat >"$dir/etc/slurmdbd.conf" <<END
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$dbd
SlurmUser=root
LogFile=$dir/slurmdbd.log
PidFile=/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageUser=root
StorageLoc=slurm
END
chmod 0600 "$dir/etc/slurmdbd.conf"
mount --bind "$dir/etc" /etc/slurm

until_true() {
	n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 600 ]
		sleep 0.1
	done
}

start() {
	set -eux
	if [ ! -e "$dir/munge.key" ]; then
		head -c 1024 /dev/urandom >"$dir/munge.key"
		chmod 0400 "$dir/munge.key"
	fi
	munged --key-file "$dir/munge.key" --socket /run/munge/munge.socket.2 --pid-file /run/munge/pid \
		--log-file "$dir/munged.log" --seed-file "$dir/munge.seed"
	if [ ! -e "$dir/db/mysql" ]; then
		mariadb-install-db --no-defaults --user=root --datadir="$dir/db" --auth-root-authentication-method=socket \
			--skip-test-db --skip-name-resolve
	fi
	mariadbd --no-defaults --user=root --character-set-server=utf8mb4 --datadir="$dir/db" --skip-networking --socket=/run/mysqld/mysqld.sock \
		--pid-file=/run/mysqld/pid --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900 --log-error="$dir/mariadb.log" &
	until_true mariadb --no-defaults -e 'select 1'
	slurmdbd
	until_true sacctmgr -n list cluster
	sacctmgr -i add cluster test || true # there after a restart
	sacctmgr -i add account staff proj || true
	for user in $users; do
		sacctmgr -i add user "$user" account=staff,proj defaultaccount=staff || true
	done
	slurmctld
	slurmd
	until_true sh -c 'sinfo -h -o %T | grep -q idle'
}

# In the background, so that sshd starts meanwhile.
{
	if (start); then touch "$dir/ready"; else touch "$dir/failed"; fi
} >"$dir/setup.log" 2>&1 </dev/null &
