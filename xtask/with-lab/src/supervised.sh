#!/bin/sh
# What a device without systemd lives through: a line with ok or FAIL for each step. Runs as root in a
# root of its own, with process numbers of its own.

mount -t proc proc /proc
mount -t tmpfs tmpfs /run

step() { # NAME SECONDS CONDITION
    limit=$(($(date +%s) + $2))
    until eval "$3"; do
        if [ "$(date +%s)" -ge "$limit" ]; then
            echo "FAIL $1"
            return
        fi
        sleep 0.2
    done
    echo "ok $1"
}

daemon() {
    cat /run/edgerepl-run.pid 2>/dev/null
}

lives() { # PID
    [ -n "$1" ] && grep -q '^State:.[RSDT]' "/proc/$1/status" 2>/dev/null
}

# 0: healthy. 1: it says why not.
answers() {
    timeout 5 edgerepl status >/dev/null 2>&1
    [ $? -le 1 ]
}

another() { # PID
    [ "$(daemon)" != "$1" ] && lives "$(daemon)" && answers
}

service() {
    /etc/init.d/S60edgerepl "$1" >/dev/null
}

service start
step "it replicates" 60 "edgerepl status >/dev/null 2>&1"
step "it runs without privilege" 1 \
    "grep -q '^Uid:.890.890.890' /proc/$(daemon)/status && grep -q '^NoNewPrivs:.1' /proc/$(daemon)/status"
modes() {
    stat -c %a:%u /run/edgerepl /data/edgerepl /data/edgerepl/state | tr '\n' ' '
}
step "its folders are its own" 1 "[ '$(modes)' = '750:890 750:0 700:890 ' ]"

first=$(daemon)
service reload
sleep 2
step "a reload keeps it" 1 "lives $first && answers"

kill -s KILL "$first"
step "one that died is started again" 20 "another $first"

second=$(daemon)
kill -s STOP "$second"
step "one that stands still is killed" 40 "! lives $second"
step "and started again" 20 "another $second"

third=$(daemon)
mv /usr/bin/litestream /usr/bin/aside
killall litestream
step "without Litestream it is not healthy" 20 "! edgerepl status >/dev/null 2>&1"
sleep 15
step "and left alone, for it says so" 1 "lives $third && answers"
mv /usr/bin/aside /usr/bin/litestream

supervisor=$(cat /var/run/edgerepl.pid)
kill -s KILL "$supervisor"
step "its supervisor dies" 5 "! lives $supervisor && lives $third"
service start
step "one that lost its supervisor gives way to another" 60 "! lives $third && another $third"
step "which replicates" 60 "edgerepl status >/dev/null 2>&1"

trial() {
    /etc/init.d/S61edgerepl-boot-check "$1" >/dev/null
}

record() { # WORD
    grep -q "$1" /data/edgerepl/state/boot-check.json
}

trial start
step "an image on which it is healthy is confirmed" 30 "[ -e /run/confirmed ]"
mv /usr/bin/litestream /usr/bin/aside
killall litestream
step "it is not healthy" 20 "! edgerepl status >/dev/null 2>&1"
trial stop
step "and that is noted before a reboot" 1 "record healthy_to_its_end.:false"
mv /usr/bin/aside /usr/bin/litestream
step "it is healthy again" 60 "edgerepl status >/dev/null 2>&1"
trial stop
step "and that is noted" 1 "record healthy_to_its_end.:true"
rm /run/confirmed

fourth=$(daemon)
service stop
step "a stop ends it" 1 "! lives $fourth"

sed -i s/BUILD_ID=1/BUILD_ID=2/ /etc/os-release
trial start
sleep 2
trial stop
sleep 5
step "a trial that was stopped gives no verdict" 1 "[ ! -e /run/rebooted ]"
trial start
step "a new image whose daemon is silent is left" 60 "[ -e /run/rebooted ]"
step "and counted" 1 "record boots.:1"
rm /run/rebooted
mv /usr/bin/edgerepl /usr/bin/aside
trial start
sleep 5
step "one that can't run at all is tried again" 1 "[ ! -e /run/rebooted ]"
step "and left in the end" 30 "[ -e /run/rebooted ]"
step "none of them was confirmed" 1 "[ ! -e /run/confirmed ]"
mv /usr/bin/aside /usr/bin/edgerepl
step "and leaves nobody behind" 5 "! ps -o comm | grep -q -e litestream -e edgerepl"
echo "end"
