#!/usr/bin/env bash
# Two machines for real, on one: two network namespaces joined by a veth pair, one process and one address each.
# Needs root. Usage: scripts/two_machines.sh RECIPE OUT [restormer train options …]
set -euo pipefail
recipe=$1 out=$2
shift 2
cleanup() { ip netns del restormer-a 2>/dev/null || true; ip netns del restormer-b 2>/dev/null || true; }
trap cleanup EXIT
cleanup
ip netns add restormer-a
ip netns add restormer-b
ip link add rst-a netns restormer-a type veth peer name rst-b netns restormer-b
for x in a b; do
    ip -n restormer-$x link set lo up
    ip -n restormer-$x link set rst-$x up
done
ip -n restormer-a addr add 10.77.0.1/24 dev rst-a
ip -n restormer-b addr add 10.77.0.2/24 dev rst-b

machine() { # namespace letter, rank, folder
    ip netns exec restormer-$1 env GLOO_SOCKET_IFNAME=rst-$1 \
        torchrun --nnodes 2 --node-rank $2 --nproc-per-node 1 --master-addr 10.77.0.1 --master-port 29500 \
        -m restormer_cli train "$recipe" --out "$3" "${@:4}"
}
machine b 1 "$out-second-machine" "$@" & # writes nothing: the first machine keeps the run
second=$!
machine a 0 "$out" "$@"
wait $second
[ ! -e "$out-second-machine" ]
echo "bytes over the wire: $(ip -n restormer-a -s link show rst-a | awk '/RX:/ {getline; rx = $1} /TX:/ {getline; print rx + $1}')"
