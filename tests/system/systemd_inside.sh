#!/bin/sh
# Runs as root inside the bed; prints what happened, a `name value` a line. tests/system/test_systemd.py judges it.
set -u
said() { echo "$1 $2"; }
within() { # SECONDS COMMAND...: until it succeeds; a poll with a deadline
    deadline=$(($(date +%s) + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt $deadline ] || return 1
        sleep 0.1
    done
}
shown() { systemctl show --property "$1" --value "${2:-taximeter.service}"; }
restarted() { [ "$(shown NRestarts)" -ge "$1" ] && [ "$(shown SubState)" = running ]; }
as_alice() { runuser -u alice -- "$@"; }
taximeter=/opt/taximeter/bin/taximeter
booked() { $taximeter records --json --account "$1" | grep -q '"final":true'; }
charged() { # ACCOUNT [TYPE]: how its records call the end
    $taximeter records --json --type "${2:-prediction}" --account "$1" | sed -n 's/.*"status":"\([a-z]*\)","final":true.*/\1/p' | tr '\n' ' '
}

# The container has a boot id of its own, which units with ProtectKernelTunables= do not see: no machine is like that.
umount /proc/sys/kernel/random/boot_id; said one_boot $?

cd /root && sh ./units; said units $?
said user "$(id -un taximeter)"
said dropbox "$(stat -c '%a %U %G' /var/lib/taximeter/journal)"
printf 'u alice - "A user" /tmp /bin/sh\nu predictor - "A worker" /tmp /bin/sh\n' | systemd-sysusers -
printf '[journal]\nowners = ["root", "self", "alice", "predictor"]\n[credit]\nprepaid = ["cus_broke"]\n' >/etc/taximeter/agent.toml
mkdir -p /etc/systemd/system/taximeter.service.d
printf '[Service]\nWatchdogSec=2s\n' >/etc/systemd/system/taximeter.service.d/impatient.conf
systemctl daemon-reload
systemd-analyze verify --man=no taximeter.service example-worker.service && said verified yes

# Without an agent: measured all the same, billed later.
as_alice $taximeter run --account cus_early -- true
said early_exit $?

sh ./start; said started $?
said active "$(systemctl is-active taximeter.service)"
reread() { journalctl --quiet --unit taximeter.service --output cat | grep -q agent.reloaded; }
systemctl reload taximeter.service; within 10 reread; said reloaded "$(reread && systemctl is-active taximeter.service)"
said capabilities "$(sed -n 's/^Cap\(Eff\|Prm\|Inh\|Amb\):\t//p' /proc/"$(shown MainPID)"/task/*/status | sort -u | tr '\n' ' ')"
within 10 booked cus_early; said early "$(charged cus_early)"

as_alice $taximeter run --model acme/answer --account cus_alice -- sh -c 'exit 3'
said alice_exit $?
within 10 booked cus_alice; said alice "$(charged cus_alice)"

as_alice ls /var/lib/taximeter/journal >/dev/null 2>&1; said alice_lists_dropbox $?
as_alice cat /var/lib/taximeter/ledger.db >/dev/null 2>&1; said alice_reads_ledger $?
as_alice cat /run/taximeter/agent >/dev/null 2>&1; said alice_reads_token $?
said agent_file "$(stat -c '%a %U %G' /run/taximeter/agent)"

# Whoever runs something is refused without being told who else is.
said denied_files "$(stat -c '%a %U' /run/taximeter/denied | tr '\n' ' ')$(stat -c '%a' /run/taximeter/denied/cus_broke)"
as_alice ls /run/taximeter/denied >/dev/null 2>&1; said alice_lists_denied $?
as_alice $taximeter run --account cus_broke -- true 2>/dev/null; said alice_refused $?
$taximeter grant cus_broke 5 USD --id first >/dev/null; said granted $?
as_alice $taximeter run --account cus_broke -- true; said alice_admitted $?

# A worker under the meter, started by systemd, that says itself when it is ready.
systemctl start example-worker.service
said worker "$(systemctl is-active example-worker.service)"

# With KillMode=mixed a command ends with its wrapper.
systemd-run --quiet --unit mixed --property KillMode=mixed $taximeter run --account cus_mixed -- sleep 600
mixed() { pgrep --parent "$(shown MainPID mixed.service)" --exact sleep; }
within 10 mixed; command=$(mixed)
systemctl kill --signal KILL --kill-who main mixed.service
gone() { ! kill -0 "$command"; }
within 10 gone; said mixed_command "$([ -n "$command" ] && gone 2>/dev/null && echo gone)"
within 10 booked cus_mixed; said mixed "$(charged cus_mixed)"

before=$(shown MainPID)
systemctl kill --signal KILL --kill-who main taximeter.service
within 10 restarted 1; said after_kill "$(shown SubState)"
[ "$(shown MainPID)" != "$before" ] && said new_pid yes
as_alice $taximeter run --account cus_after_kill -- true
within 10 booked cus_after_kill; said after_kill_booked "$(charged cus_after_kill)"

systemctl kill --signal STOP --kill-who main taximeter.service
within 15 restarted 2; said after_hang "$(shown SubState)"
journalctl --quiet --unit taximeter.service --output cat | grep -q 'Watchdog timeout' && said watchdog yes

systemctl stop example-worker.service
said worker_result "$(shown Result example-worker.service)"
within 10 booked cus_example; said worker_booked "$(charged cus_example instance)"

$taximeter verify >/dev/null; said verify $?
begin=$(date +%s%3N)
systemctl stop taximeter.service
said stop_ms $(($(date +%s%3N) - begin))
said stop_result "$(shown Result)"
said stop_status "$(shown ExecMainStatus)"
said denied_after "$(stat -c '%a' /run/taximeter/denied)"
journalctl --quiet --unit taximeter.service --output cat | sed 's/^/log /' | tail -n 40
