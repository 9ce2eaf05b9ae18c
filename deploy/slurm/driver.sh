#!/usr/bin/env bash
# Runs a command on the first node of a Slurm job: STATE COMMAND... Ends it with SIGTERM when STATE/stop appears, which makes a run stop
# cleanly, and leaves its exit code in STATE/exit-code, written last and whole.
set -uo pipefail

state=$1
shift
stop() {
    kill -TERM "$child" 2>/dev/null
}

"$@" &
child=$!
trap stop TERM INT
told=
while kill -0 "$child" 2>/dev/null; do
    if [[ -z $told && -e $state/stop ]]; then
        told=yes
        stop
    fi
    sleep 1 >/dev/null 2>&1 &
    wait -n # for the command's end, a signal, or the next look
done
wait "$child"
code=$?
echo "$code" >"$state/exit-code.new" && mv "$state/exit-code.new" "$state/exit-code"
exit "$code"
